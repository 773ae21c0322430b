//! Where a data file is wrong.

/// The line, counted from 1, that holds the byte at `offset`.
pub(super) fn line_at(content: &str, offset: usize) -> usize {
    content.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

/// The line at which a TOML error stands.
pub(super) fn line_of(content: &str, error: &toml::de::Error) -> usize {
    line_at(content, error.span().unwrap_or_default().start)
}
