//! `file:` sources: finds the files where the user put them and keeps their digests in the cache.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    Cache, ModelFiles, ModelSource, Progress, SourceError, digest,
    fetch::model_files,
    layout::{self, SelectedWeights},
    name::is_gguf,
    record::{FileRecord, Glance, Record},
};

/// Longest safetensors index read, in bytes.
pub(super) const MAX_INDEX_BYTES: u64 = 256 << 20;

/// How much of what the cache remembers is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// A digest stands as long as size and time are the same.
    Glance,
    /// Everything is hashed anew.
    Nothing,
}

/// Finds the files and their digests, hashing those that changed since the last time.
pub(super) fn open(
    source: &ModelSource,
    path: &Path,
    cache: &Cache,
    trust: Trust,
    progress: &dyn Progress,
) -> Result<ModelFiles, SourceError> {
    let (base, paths) = find(path)?;
    let place = cache.place(source);
    let old = Record::read(&place.record);
    let mut files = Vec::with_capacity(paths.len());
    for path in &paths {
        let remembered = old.as_ref().and_then(|record| record.files.iter().find(|file| file.path == *path));
        match remembered {
            Some(file) if trust == Trust::Glance && file.glance(&base) == Glance::Same => files.push(file.clone()),
            _ => files.push(hash(&base, path, progress)?),
        }
    }
    let record = Record { source: source.origin.to_string(), files };
    if old.as_ref() != Some(&record) {
        remember(&record, &place.record);
    }
    if let Some(pin) = super::known::pin_of(source)? {
        let [file] = record.files.as_slice() else {
            let reason = "is pinned by #sha256= but is not a single file".to_owned();
            return Err(SourceError::UnusableFolder { path: base, reason });
        };
        if file.sha256 != pin {
            let path = base.join(&file.path);
            return Err(SourceError::Checksum { path, expected: pin, found: file.sha256.clone() });
        }
    }
    model_files(source, &base, &record)
        .ok_or_else(|| SourceError::UnusableFolder { path: base.clone(), reason: "holds no complete model".to_owned() })
}

/// The folder, and the model's files relative to it.
fn find(path: &Path) -> Result<(PathBuf, Vec<PathBuf>), SourceError> {
    let metadata = fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => SourceError::NoSuchFile { path: path.to_path_buf() },
        _ => SourceError::io("inspect", path, e),
    })?;
    let path = std::path::absolute(path).map_err(|e| SourceError::io("resolve", path, e))?;
    if metadata.is_dir() {
        return Ok((path.clone(), find_in_folder(&path)?));
    }
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) if metadata.is_file() && is_gguf(&path) => {
            Ok((folder.to_path_buf(), vec![PathBuf::from(name)]))
        }
        _ => Err(SourceError::NotGguf { path }),
    }
}

fn find_in_folder(folder: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let unusable = |reason: String| SourceError::UnusableFolder { path: folder.to_path_buf(), reason };
    let entries = fs::read_dir(folder).map_err(|e| SourceError::io("list", folder, e))?;
    let mut ggufs: Vec<PathBuf> = entries.flatten().map(|entry| PathBuf::from(entry.file_name())).collect();
    ggufs.retain(|name| is_gguf(name));
    // A folder in Hugging Face layout always has config.json; a GGUF file beside it does not make it ambiguous.
    if ggufs.len() == 1 && !folder.join("config.json").is_file() {
        return Ok(ggufs);
    }
    if ggufs.len() > 1 && !folder.join("config.json").is_file() {
        return Err(unusable(format!("holds {} .gguf files", ggufs.len())));
    }
    let selection = layout::select(|name| folder.join(name).is_file()).map_err(unusable)?;
    let mut files: Vec<PathBuf> = selection.files.into_iter().map(PathBuf::from).collect();
    if selection.weights == SelectedWeights::Sharded {
        for shard in read_shards(&folder.join(layout::INDEX))? {
            if !folder.join(&shard).is_file() {
                return Err(unusable(format!("has no {shard}, which {} names", layout::INDEX)));
            }
            files.push(PathBuf::from(shard));
        }
    }
    Ok(files)
}

/// The shards that an index file names.
pub(super) fn read_shards(index: &Path) -> Result<Vec<String>, SourceError> {
    let size = fs::metadata(index).map_err(|e| SourceError::io("inspect", index, e))?.len();
    if size > MAX_INDEX_BYTES {
        return Err(SourceError::TooLarge { what: index.display().to_string(), size, limit: MAX_INDEX_BYTES });
    }
    let bytes = fs::read(index).map_err(|e| SourceError::io("read", index, e))?;
    layout::shards(&bytes).map_err(|reason| SourceError::BadIndex { path: index.to_path_buf(), reason })
}

fn hash(base: &Path, path: &Path, progress: &dyn Progress) -> Result<FileRecord, SourceError> {
    let full = base.join(path);
    let size = fs::metadata(&full).map_err(|e| SourceError::io("inspect", &full, e))?.len();
    progress.start(&format!("checking {}", path.display()), Some(size));
    let sha256 = digest::of_file(&full, &|bytes| progress.advance(bytes));
    progress.finish();
    FileRecord::of(base, path, sha256?)
}

/// A record that cannot be kept only costs the hashing at the next open.
fn remember(record: &Record, path: &Path) {
    let folder = path.parent().unwrap_or(Path::new("."));
    let kept =
        fs::create_dir_all(folder).map_err(|e| SourceError::io("create", folder, e)).and_then(|()| record.write(path));
    if let Err(error) = kept {
        tracing::debug!(%error, "the digests of local files cannot be remembered");
    }
}
