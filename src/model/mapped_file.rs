//! Read-only memory maps of model files. The only place that maps memory; knows nothing of formats.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use thiserror::Error;

/// A file's bytes, paged in as they are read.
#[derive(Debug)]
pub struct MappedFile {
    map: Mmap,
}

/// Why a file could not be read.
#[derive(Debug, Error)]
pub enum FileError {
    #[error("{} cannot be read", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("{} is empty", path.display())]
    Empty { path: PathBuf },
    #[error("{} has {bytes} bytes, at most {limit} are read", path.display())]
    TooLarge { path: PathBuf, bytes: u64, limit: u64 },
    #[error("{} is not UTF-8 text", path.display())]
    NotText { path: PathBuf },
}

impl MappedFile {
    /// Maps a whole file.
    ///
    /// # Errors
    /// When it cannot be opened, is empty, or is not a regular file (a pipe has no length to check against).
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let read = |source| FileError::Read { path: path.to_owned(), source };
        // A named pipe would block in `open`, so the kind is asked first.
        let metadata = std::fs::metadata(path).map_err(read)?;
        if !metadata.is_file() {
            return Err(FileError::NotAFile { path: path.to_owned() });
        }
        if metadata.len() == 0 {
            return Err(FileError::Empty { path: path.to_owned() });
        }
        let file = File::open(path).map_err(read)?;
        // SAFETY: the map is private and read-only. Files in the cache are put in place by a rename and never written
        // again; for other files the documentation asks operators to replace, not rewrite, a model in use.
        let map = unsafe { Mmap::map(&file) }.map_err(read)?;
        Ok(Self { map })
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

/// Reads a small text file of at most `limit` bytes.
///
/// # Errors
/// When it cannot be read, is larger than the limit, or is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> Result<String, FileError> {
    use io::Read;

    let read = |source| FileError::Read { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(read)?;
    if !metadata.is_file() {
        return Err(FileError::NotAFile { path: path.to_owned() });
    }
    if metadata.len() > limit {
        return Err(FileError::TooLarge { path: path.to_owned(), bytes: metadata.len(), limit });
    }
    let mut bytes = Vec::new();
    // The file may have grown since; the limit holds for what is read, too.
    File::open(path).map_err(read)?.take(limit).read_to_end(&mut bytes).map_err(read)?;
    String::from_utf8(bytes).map_err(|_| FileError::NotText { path: path.to_owned() })
}
