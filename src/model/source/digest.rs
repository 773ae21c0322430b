//! SHA-256 of files and streams, as lower-case hex.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use sha2::{Digest, Sha256};

use super::SourceError;

const CHUNK_BYTES: usize = 1 << 20;

/// A writer that hashes and counts what passes through it.
pub(super) struct HashingWriter<W> {
    inner: W,
    hasher: Sha256,
    written_bytes: u64,
}

impl<W: Write> HashingWriter<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::new(), written_bytes: 0 }
    }

    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// The inner writer and the digest of all that was written.
    pub(super) fn finish(self) -> (W, String) {
        (self.inner, hex(&self.hasher.finalize()))
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.written_bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Hashes a whole file; `advance` is told the bytes read so far.
pub(super) fn of_file(path: &Path, advance: &dyn Fn(u64)) -> Result<String, SourceError> {
    let mut file = File::open(path).map_err(|e| SourceError::io("open", path, e))?;
    let mut writer = HashingWriter::new(io::sink());
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let n = match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(SourceError::io("read", path, e)),
        };
        writer.write_all(&chunk[..n]).map_err(|e| SourceError::io("hash", path, e))?;
        advance(writer.written_bytes());
    }
    Ok(writer.finish().1)
}

/// The digest that stands for several files: SHA-256 over their hex digests, one a line. One file stands for itself.
pub(super) fn of_digests<'a>(digests: impl ExactSizeIterator<Item = &'a str>) -> String {
    let single = digests.len() == 1;
    let mut hasher = Sha256::new();
    let mut last = "";
    for digest in digests {
        hasher.update(digest.as_bytes());
        hasher.update(b"\n");
        last = digest;
    }
    if single { last.to_owned() } else { hex(&hasher.finalize()) }
}

/// SHA-256 of a text.
pub(super) fn of_text(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// 64 hexadecimal digits, in lower case.
pub(super) fn parse_hex(text: &str) -> Option<String> {
    (text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())).then(|| text.to_ascii_lowercase())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a `String` does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // FIPS 180-4, example of a one-block message.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_file_and_a_text_of_the_same_bytes_have_the_published_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(of_file(&path, &|_| ()).unwrap(), ABC);
        assert_eq!(of_text("abc"), ABC);
    }

    #[test]
    fn one_digest_stands_for_itself_and_order_matters_among_several() {
        assert_eq!(of_digests([ABC].into_iter()), ABC);
        let other = of_text("other");
        assert_ne!(of_digests([ABC, &other].into_iter()), of_digests([&other, ABC].into_iter()));
    }

    #[test]
    fn only_64_hex_digits_are_a_digest() {
        assert_eq!(parse_hex(&ABC.to_uppercase()).as_deref(), Some(ABC));
        assert_eq!(parse_hex(&ABC[1..]), None);
        assert_eq!(parse_hex(&format!("{}g", &ABC[1..])), None);
    }
}
