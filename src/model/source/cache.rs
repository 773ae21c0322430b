//! The folder where fetched models lie: its layout, its locks, and the staging of downloads. Knows no network.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{Config, ModelSource, Origin, Progress, SourceError, digest, record::sync_folder};

/// Ends the name of every record file.
pub(super) const RECORD_SUFFIX: &str = ".adquill.json";

const STAGING_PREFIX: &str = ".staging-";
const LOCK_NAME: &str = ".lock";
const LOCK_POLL: Duration = Duration::from_millis(100);

/// A cache folder. It is made when something is first put into it, so a read-only one can serve what it holds.
///
/// ```text
/// wheel/<package>==<version>/<path in wheel>     and <path in wheel>.adquill.json
/// hf/<owner>/<repo>/<revision>/<file>            and <file>.adquill.json
/// hf/<owner>/<repo>/<revision>/config.json, ...  and model.adquill.json
/// file/<sha256 of the path>.adquill.json         (the files stay where they are)
/// ```
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// Where one source's files lie.
pub(super) struct Place {
    /// The folder that paths in the record are relative to; also what is locked.
    pub folder: PathBuf,
    pub record: PathBuf,
}

/// An exclusive right to change one place; given back on drop.
pub(super) struct PlaceLock {
    _file: File,
    folder: PathBuf,
}

impl Cache {
    /// The configured folder, else `adquill/models` under the user's cache folder.
    ///
    /// # Errors
    /// [`SourceError::NoCacheDir`] when none is configured and the user has no home.
    pub fn open(config: &Config) -> Result<Self, SourceError> {
        let root = match &config.cache_dir {
            Some(folder) => folder.clone(),
            None => {
                directories::BaseDirs::new().ok_or(SourceError::NoCacheDir)?.cache_dir().join("adquill").join("models")
            }
        };
        Ok(Self::at(root))
    }

    /// The cache in this folder.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        // Relative paths would change their meaning with the working folder.
        Self { root: std::path::absolute(&root).unwrap_or(root) }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn place(&self, source: &ModelSource) -> Place {
        match &source.origin {
            Origin::Wheel { package, version, member } => {
                let folder = self.root.join("wheel").join(format!("{package}=={version}"));
                Place { record: folder.join(format!("{member}{RECORD_SUFFIX}")), folder }
            }
            Origin::Hub { repo, revision, file } => {
                let revision = revision.as_deref().unwrap_or("main");
                let folder = self.root.join("hf").join(repo).join(revision);
                let name = file.as_deref().unwrap_or("model");
                Place { record: folder.join(format!("{name}{RECORD_SUFFIX}")), folder }
            }
            Origin::File { path } => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                let name = digest::of_text(&path.to_string_lossy());
                let folder = self.root.join("file");
                Place { record: folder.join(format!("{name}{RECORD_SUFFIX}")), folder }
            }
        }
    }

    /// The records of everything that the cache holds, in the order of their paths.
    pub(super) fn records(&self) -> Vec<PathBuf> {
        // Deep enough for a repository's sub-folders; a link that leads back up ends here.
        const MAX_DEPTH: usize = 12;
        let mut found = Vec::new();
        collect_records(&self.root, MAX_DEPTH, &mut found);
        found.sort();
        found
    }
}

impl Place {
    /// Locks the place against other threads and processes, waiting at most `limit`, and removes what crashed
    /// downloads left in it.
    pub(super) fn lock(&self, limit: Duration, progress: &dyn Progress) -> Result<PlaceLock, SourceError> {
        fs::create_dir_all(&self.folder).map_err(|e| SourceError::io("create", &self.folder, e))?;
        let path = self.folder.join(LOCK_NAME);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| SourceError::io("open lock", &path, e))?;
        let began = Instant::now();
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(e)) => return Err(SourceError::io("lock", &path, e)),
                Err(TryLockError::WouldBlock) => {}
            }
            if began.elapsed() >= limit {
                return Err(SourceError::LockTimeout { path, waited_seconds: limit.as_secs() });
            }
            if !told {
                progress.note("another process is fetching this model; waiting for it");
                told = true;
            }
            std::thread::sleep(LOCK_POLL);
        }
        let lock = PlaceLock { _file: file, folder: self.folder.clone() };
        lock.remove_leftovers();
        Ok(lock)
    }
}

impl PlaceLock {
    /// A fresh folder beside the final files, on the same file system; removed on drop.
    pub(super) fn staging(&self) -> Result<tempfile::TempDir, SourceError> {
        tempfile::Builder::new()
            .prefix(STAGING_PREFIX)
            .tempdir_in(&self.folder)
            .map_err(|e| SourceError::io("create a folder in", &self.folder, e))
    }

    /// Moves a finished file to its place in one step. Its bytes are on disk before the name is.
    pub(super) fn publish(&self, staged: &Path, path: &Path) -> Result<(), SourceError> {
        let target = self.folder.join(path);
        let folder = target.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder).map_err(|e| SourceError::io("create", folder, e))?;
        // Opened for writing because Windows flushes no file that is open for reading only.
        let file = File::options().write(true).open(staged).map_err(|e| SourceError::io("open", staged, e))?;
        file.sync_all().map_err(|e| SourceError::io("flush", staged, e))?;
        fs::rename(staged, &target).map_err(|e| SourceError::io("rename a download to", &target, e))?;
        sync_folder(folder);
        Ok(())
    }

    fn remove_leftovers(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(STAGING_PREFIX)
                && let Err(error) = fs::remove_dir_all(entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "a broken download cannot be removed");
            }
        }
    }
}

fn collect_records(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && depth > 0 && !name.starts_with('.') {
            collect_records(&entry.path(), depth - 1, found);
        } else if !is_folder && name.ends_with(RECORD_SUFFIX) {
            found.push(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::source::Silent;

    fn place(source: &str) -> Place {
        Cache::at("/cache").place(&source.parse().unwrap())
    }

    #[test]
    fn every_source_has_a_place_of_its_own() {
        let wheel = place("wheel:p==1.0/dir/m.gguf");
        assert_eq!(wheel.folder, Path::new("/cache/wheel/p==1.0"));
        assert_eq!(wheel.record, Path::new("/cache/wheel/p==1.0/dir/m.gguf.adquill.json"));
        assert_eq!(place("hf:o/r/m.gguf").record, Path::new("/cache/hf/o/r/main/m.gguf.adquill.json"));
        assert_eq!(place("hf:o/r@v1").record, Path::new("/cache/hf/o/r/v1/model.adquill.json"));
        assert_ne!(place("file:/a").record, place("file:/b").record);
    }

    #[test]
    fn a_pin_does_not_change_the_place() {
        let pin = "0".repeat(64);
        assert_eq!(place("hf:o/r/m.gguf").record, place(&format!("hf:o/r/m.gguf#sha256={pin}")).record);
    }

    #[test]
    fn a_held_lock_refuses_a_second_one_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let place = Cache::at(folder.path()).place(&"hf:o/r/m.gguf".parse().unwrap());
        let held = place.lock(Duration::ZERO, &Silent).unwrap();
        assert!(matches!(place.lock(Duration::ZERO, &Silent), Err(SourceError::LockTimeout { .. })));
        drop(held);
        place.lock(Duration::ZERO, &Silent).unwrap();
    }

    #[test]
    fn leftovers_of_crashed_downloads_are_removed_under_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let place = Cache::at(folder.path()).place(&"hf:o/r/m.gguf".parse().unwrap());
        let lock = place.lock(Duration::ZERO, &Silent).unwrap();
        let leftover = lock.staging().unwrap().keep();
        fs::write(leftover.join("half"), "half").unwrap();
        drop(lock);
        place.lock(Duration::ZERO, &Silent).unwrap();
        assert!(!leftover.exists());
    }
}
