//! The note kept beside cached files: their sizes, times and digests, by which damage is noticed at every open.

use std::{
    fs::{self, File, Metadata},
    io::Write,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use serde::{Deserialize, Serialize};

use super::{SourceError, digest};

/// Longest record read, in bytes; a record takes about 200 bytes a file.
const MAX_RECORD_BYTES: u64 = 1 << 20;

/// What is known of the files of one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// The source without its pin.
    pub source: String,
    pub files: Vec<FileRecord>,
}

/// One file as it was when its digest was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileRecord {
    /// Relative to the folder that the record speaks of; absolute for a `file:` source.
    pub path: PathBuf,
    pub size_bytes: u64,
    pub modified_unix_ns: u64,
    pub sha256: String,
}

/// What a look at size and time says of a recorded file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Glance {
    /// As recorded.
    Same,
    /// Another time of modification: only hashing can tell.
    Touched,
    /// Absent, or of another size.
    Damaged,
}

impl Record {
    /// The record at `path`; `None` when there is none that can be read.
    pub(super) fn read(path: &Path) -> Option<Self> {
        if fs::metadata(path).ok()?.len() > MAX_RECORD_BYTES {
            return None;
        }
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Replaces the record at `path` in one step, durably.
    pub(super) fn write(&self, path: &Path) -> Result<(), SourceError> {
        let io = |e| SourceError::io("write", path, e);
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut temporary = tempfile::Builder::new().prefix(".record-").tempfile_in(folder).map_err(io)?;
        let text = serde_json::to_vec_pretty(self).map_err(|e| io(e.into()))?;
        temporary.write_all(&text).map_err(io)?;
        temporary.as_file().sync_all().map_err(io)?;
        temporary.persist(path).map_err(|e| io(e.error))?;
        sync_folder(folder);
        Ok(())
    }
}

impl FileRecord {
    /// Describes a file whose digest was just taken.
    pub(super) fn of(base: &Path, path: &Path, sha256: String) -> Result<Self, SourceError> {
        let full = base.join(path);
        let metadata = fs::metadata(&full).map_err(|e| SourceError::io("inspect", &full, e))?;
        Ok(Self {
            path: path.to_path_buf(),
            size_bytes: metadata.len(),
            modified_unix_ns: modified_unix_ns(&metadata),
            sha256,
        })
    }

    /// Compares size and time only.
    pub(super) fn glance(&self, base: &Path) -> Glance {
        match fs::metadata(base.join(&self.path)) {
            Ok(metadata) if metadata.is_file() && metadata.len() == self.size_bytes => {
                if modified_unix_ns(&metadata) == self.modified_unix_ns { Glance::Same } else { Glance::Touched }
            }
            _ => Glance::Damaged,
        }
    }

    /// Compares the digest of the whole file; `advance` is told the bytes read.
    pub(super) fn check(&self, base: &Path, advance: &dyn Fn(u64)) -> Result<(), SourceError> {
        let path = base.join(&self.path);
        let found = fs::metadata(&path).map_err(|e| SourceError::io("inspect", &path, e))?.len();
        if found != self.size_bytes {
            return Err(SourceError::Size { path, expected: self.size_bytes, found });
        }
        let found = digest::of_file(&path, advance)?;
        if found != self.sha256 {
            return Err(SourceError::Checksum { path, expected: self.sha256.clone(), found });
        }
        Ok(())
    }
}

/// Makes renames in a folder durable. Not every file system can; the digest check covers those that cannot.
pub(super) fn sync_folder(folder: &Path) {
    if let Err(error) = File::open(folder).and_then(|folder| folder.sync_all()) {
        tracing::debug!(folder = %folder.display(), %error, "the folder cannot be synced");
    }
}

/// Zero where the platform knows no time; the size is still compared then.
fn modified_unix_ns(metadata: &Metadata) -> u64 {
    let since_epoch = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since_epoch.map_or(0, |age| u64::try_from(age.as_nanos()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn recorded(text: &str) -> (tempfile::TempDir, FileRecord) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("m.gguf"), text).unwrap();
        let record = FileRecord::of(folder.path(), Path::new("m.gguf"), digest::of_text(text)).unwrap();
        (folder, record)
    }

    #[test]
    fn an_untouched_file_is_the_same_and_a_truncated_or_absent_one_is_damaged() {
        let (folder, record) = recorded("weights");
        assert_eq!(record.glance(folder.path()), Glance::Same);
        fs::write(folder.path().join("m.gguf"), "weight").unwrap();
        assert_eq!(record.glance(folder.path()), Glance::Damaged);
        assert!(matches!(record.check(folder.path(), &|_| ()), Err(SourceError::Size { expected: 7, found: 6, .. })));
        fs::remove_file(folder.path().join("m.gguf")).unwrap();
        assert_eq!(record.glance(folder.path()), Glance::Damaged);
    }

    #[test]
    fn a_changed_byte_is_touched_at_a_glance_and_found_by_the_check() {
        let (folder, record) = recorded("weights");
        fs::write(folder.path().join("m.gguf"), "Weights").unwrap();
        let file = File::options().write(true).open(folder.path().join("m.gguf")).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(10)).unwrap();
        assert_eq!(record.glance(folder.path()), Glance::Touched);
        assert!(matches!(record.check(folder.path(), &|_| ()), Err(SourceError::Checksum { .. })));
    }

    #[test]
    fn a_record_is_read_back_and_a_broken_one_is_none() {
        let (folder, file) = recorded("weights");
        let record = Record { source: "file:x".to_owned(), files: vec![file] };
        let path = folder.path().join("m.gguf.adquill.json");
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path), Some(record));
        fs::write(&path, "{\"source\":").unwrap();
        assert_eq!(Record::read(&path), None);
    }
}
