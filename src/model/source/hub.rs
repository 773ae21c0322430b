//! Downloads files of a Hugging Face repository through `hf-hub`, bounded in time, size and retries.
//!
//! hf-hub has no timeouts and panics on some broken answers, so each call runs on a thread of its own that is
//! watched and, when it stands still, left behind; it can do no harm, for its folder is used by no one else.

use std::{
    env, fmt, fs,
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, channel},
    },
    time::{Duration, Instant},
};

use hf_hub::{
    Cache as HubCache, Repo, RepoType,
    api::sync::{Api, ApiBuilder, ApiError, Metadata},
};

use super::{
    MAX_FILE_BYTES, Progress, SourceError, TransferLimits, digest,
    layout::{self, SelectedWeights},
    local::read_shards,
    watch::Watch,
};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
const POLL: Duration = Duration::from_millis(50);
/// Of one file after a broken connection, each resuming where the last one ended.
const RESUMES: usize = 4;
/// Of a whole call.
const ATTEMPTS: u32 = 3;
const FIRST_RETRY_AFTER: Duration = Duration::from_millis(500);
/// Announced by a repository without limit otherwise.
const MAX_REPO_FILES: usize = 100_000;

/// How the Hugging Face hub is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct HfOptions {
    /// Base URL without a slash at its end.
    pub endpoint: String,
    /// Sent as a bearer token, to the endpoint's host only.
    pub token: Option<String>,
    /// Refuses every download.
    pub offline: bool,
}

impl Default for HfOptions {
    fn default() -> Self {
        Self { endpoint: DEFAULT_ENDPOINT.to_owned(), token: None, offline: false }
    }
}

impl HfOptions {
    /// Reads `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE`, as Hugging Face's own tools do.
    pub fn from_env() -> Self {
        Self::from_lookup(|name| env::var(name).ok())
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name| lookup(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        Self {
            endpoint: set("HF_ENDPOINT")
                .map_or_else(|| DEFAULT_ENDPOINT.to_owned(), |url| url.trim_end_matches('/').to_owned()),
            token: set("HF_TOKEN"),
            offline: set("HF_HUB_OFFLINE")
                .is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())),
        }
    }
}

impl fmt::Debug for HfOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HfOptions")
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "***"))
            .field("offline", &self.offline)
            .finish()
    }
}

/// A downloaded file, still in the staging folder.
pub(super) struct Staged {
    pub staged: PathBuf,
    /// Where it goes, relative to the source's folder.
    pub path: PathBuf,
    pub sha256: String,
}

/// One repository at one revision, and where its files are staged.
pub(super) struct Hub<'a> {
    pub repo: &'a str,
    pub revision: &'a str,
    pub options: &'a HfOptions,
    pub limits: TransferLimits,
    pub staging: &'a Path,
    pub progress: &'a dyn Progress,
}

impl Hub<'_> {
    /// Downloads one file.
    pub(super) fn file(&self, name: &str) -> Result<Staged, SourceError> {
        self.file_at(self.revision, name)
    }

    /// Downloads all that makes up a model in safetensors: everything from the same commit.
    pub(super) fn folder(&self) -> Result<Vec<Staged>, SourceError> {
        let repo = self.repo(self.revision);
        let info = self.with_retries(self.repo, || {
            let repo = repo.clone();
            self.watched(self.repo, Arc::default(), move |api, _| api.repo(repo).info())
        })?;
        if !is_safe_name(&info.sha) || info.siblings.len() > MAX_REPO_FILES {
            let reason = format!("commit {:?} and {} files", info.sha, info.siblings.len());
            return Err(self.bad_answer(self.repo, reason));
        }
        let has = |name: &str| info.siblings.iter().any(|sibling| sibling.rfilename == name);
        let selection = layout::select(has).map_err(|reason| {
            let ggufs = info.siblings.iter().map(|sibling| sibling.rfilename.as_str());
            let gguf = ggufs.filter(|name| name.ends_with(".gguf")).take(1);
            let advice: String = gguf.map(|name| format!("; did you mean hf:{}/{name}?", self.repo)).collect();
            SourceError::UnusableRepo { repo: self.repo.to_owned(), reason: reason + &advice }
        })?;
        let mut names = selection.files;
        if selection.weights == SelectedWeights::Sharded {
            let index = self.file_at(&info.sha, layout::INDEX)?;
            names.extend(read_shards(&index.staged)?);
        }
        names.iter().map(|name| self.file_at(&info.sha, name)).collect()
    }

    fn file_at(&self, revision: &str, name: &str) -> Result<Staged, SourceError> {
        let what = format!("{}/{name}", self.repo);
        self.with_retries(&what, || self.try_file(revision, name, &what))
    }

    fn try_file(&self, revision: &str, name: &str, what: &str) -> Result<Staged, SourceError> {
        let repo = self.repo(revision);
        let (url_repo, url_name) = (repo.clone(), name.to_owned());
        let metadata = self.watched(what, Arc::default(), move |api, _| {
            let url = api.repo(url_repo).url(&url_name);
            api.metadata(&url)
        })?;
        self.check(&metadata, what)?;
        let size = metadata.size() as u64;
        let transfer = Arc::new(Transfer { limit: AtomicU64::new(size), ..Transfer::default() });
        self.progress.start(&format!("downloading {what}"), Some(size));
        let name_there = name.to_owned();
        let downloaded = self.watched(what, transfer, move |api, transfer| {
            api.repo(repo).download_with_progress(&name_there, Reporter(transfer))
        });
        self.progress.finish();
        // hf-hub returns a link to the blob; the blob itself is what is moved to its place.
        let staged = downloaded?;
        let staged = fs::canonicalize(&staged).map_err(|e| SourceError::io("resolve", &staged, e))?;
        let found = fs::metadata(&staged).map_err(|e| SourceError::io("inspect", &staged, e))?.len();
        if found != size {
            return Err(SourceError::Size { path: staged, expected: size, found });
        }
        let sha256 = digest::of_file(&staged, &|_| ())?;
        // For large files the hub's ETag is their SHA-256.
        if let Some(expected) = digest::parse_hex(metadata.etag())
            && expected != sha256
        {
            return Err(SourceError::Checksum { path: staged, expected, found: sha256 });
        }
        Ok(Staged { staged, path: PathBuf::from(name), sha256 })
    }

    /// hf-hub makes file names of these two texts.
    fn check(&self, metadata: &Metadata, what: &str) -> Result<(), SourceError> {
        if !is_safe_name(metadata.etag()) || !is_safe_name(metadata.commit_hash()) {
            let reason = format!("ETag {:?} and commit {:?}", metadata.etag(), metadata.commit_hash());
            return Err(self.bad_answer(what, reason));
        }
        let size = metadata.size() as u64;
        if size > MAX_FILE_BYTES {
            return Err(SourceError::TooLarge { what: what.to_owned(), size, limit: MAX_FILE_BYTES });
        }
        Ok(())
    }

    fn with_retries<T>(&self, what: &str, mut act: impl FnMut() -> Result<T, SourceError>) -> Result<T, SourceError> {
        let mut wait = FIRST_RETRY_AFTER;
        for attempt in 1.. {
            match act() {
                Err(error) if attempt < ATTEMPTS && is_worth_retrying(&error) => {
                    self.progress.note(&format!("{what}: {}; trying again", with_cause(&error)));
                    std::thread::sleep(wait);
                    wait *= 2;
                }
                done => return done,
            }
        }
        Err(self.bad_answer(what, "no answer".to_owned()))
    }

    /// Runs a call of hf-hub on a thread of its own and waits for it within the limits.
    fn watched<T: Send + 'static>(
        &self,
        what: &str,
        transfer: Arc<Transfer>,
        call: impl FnOnce(Api, Arc<Transfer>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let folder = tempfile::Builder::new()
            .prefix("hub-")
            .tempdir_in(self.staging)
            .map_err(|e| SourceError::io("create a folder in", self.staging, e))?
            .keep();
        let builder = ApiBuilder::from_cache(HubCache::new(folder))
            .with_endpoint(self.options.endpoint.clone())
            .with_token(self.options.token.clone())
            .with_retries(RESUMES)
            .with_user_agent("adquill", env!("CARGO_PKG_VERSION"))
            .with_progress(false);
        let (sender, answer) = channel();
        let theirs = Arc::clone(&transfer);
        std::thread::Builder::new()
            .name("hub-download".to_owned())
            .spawn(move || {
                // Nobody waits for the answer once the watch has given up.
                let _ = sender.send(builder.build().and_then(|api| call(api, theirs)));
            })
            .map_err(|e| SourceError::io("start a thread for", self.staging, e))?;
        let mut watch = Watch::new(what, self.limits, Instant::now());
        loop {
            match answer.recv_timeout(POLL) {
                Ok(answer) => return answer.map_err(|error| self.failure(what, error)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.bad_answer(what, "more bytes than announced, or something unreadable".to_owned()));
                }
            }
            let bytes = transfer.bytes.load(Ordering::Relaxed);
            self.progress.advance(bytes);
            if let Err(error) = watch.observe(bytes, Instant::now()) {
                transfer.given_up.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
    }

    fn repo(&self, revision: &str) -> Repo {
        Repo::with_revision(self.repo.to_owned(), RepoType::Model, revision.to_owned())
    }

    fn failure(&self, what: &str, error: ApiError) -> SourceError {
        let error = match error {
            ApiError::TooManyRetries(last) => *last,
            other => other,
        };
        let (endpoint, what) = (self.options.endpoint.clone(), what.to_owned());
        match error {
            ApiError::RequestError(request) if matches!(*request, ureq::Error::StatusCode(_)) => {
                let status = if let ureq::Error::StatusCode(status) = *request { status } else { 0 };
                SourceError::HubStatus { endpoint, what, status, hint: hint(status) }
            }
            ApiError::IoError(e) if e.kind() != std::io::ErrorKind::Other && e.raw_os_error().is_some() => {
                SourceError::io("download into", self.staging, e)
            }
            source => SourceError::Hub { endpoint, what, source },
        }
    }

    fn bad_answer(&self, what: &str, reason: String) -> SourceError {
        SourceError::HubAnswer { endpoint: self.options.endpoint.clone(), what: what.to_owned(), reason }
    }
}

/// What the downloading thread and its watcher share.
#[derive(Default)]
struct Transfer {
    bytes: AtomicU64,
    /// Bytes that the file may have.
    limit: AtomicU64,
    given_up: AtomicBool,
}

struct Reporter(Arc<Transfer>);

impl hf_hub::api::Progress for Reporter {
    /// Also called when a broken download is resumed; what is there is then reported again.
    fn init(&mut self, _size: usize, _name: &str) {
        self.0.bytes.store(0, Ordering::Relaxed);
    }

    fn update(&mut self, bytes: usize) {
        let before = self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let too_many = before.saturating_add(bytes as u64) > self.0.limit.load(Ordering::Relaxed);
        if too_many || self.0.given_up.load(Ordering::Relaxed) {
            // The trait has no other way to stop a download. No panic hook runs; the watcher sees the channel close.
            resume_unwind(Box::new("download abandoned"));
        }
    }

    fn finish(&mut self) {}
}

fn is_worth_retrying(error: &SourceError) -> bool {
    match error {
        SourceError::HubStatus { status, .. } => *status == 429 || *status >= 500,
        SourceError::Hub { .. } | SourceError::Size { .. } => true,
        _ => false,
    }
}

fn hint(status: u16) -> &'static str {
    match status {
        401 | 403 => "check the name; for a private or gated repository set HF_TOKEN to a token that may read it",
        404 => "check owner, repository, revision and file",
        429 => "it refuses so many requests; try again later or set HF_TOKEN",
        _ => "try again later, or set HF_ENDPOINT to a mirror",
    }
}

fn with_cause(error: &SourceError) -> String {
    use std::error::Error;
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// Safe as one file name.
fn is_safe_name(name: &str) -> bool {
    (1..=200).contains(&name.len())
        && !name.starts_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> HfOptions {
        HfOptions::from_lookup(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_environment_is_read_as_hugging_faces_tools_read_it() {
        assert_eq!(options(&[]), HfOptions::default());
        assert_eq!(options(&[("HF_ENDPOINT", ""), ("HF_TOKEN", " ")]), HfOptions::default());
        let mirror = options(&[("HF_ENDPOINT", "https://mirror/"), ("HF_TOKEN", "t\n"), ("HF_HUB_OFFLINE", "True")]);
        assert_eq!(mirror.endpoint, "https://mirror");
        assert_eq!(mirror.token.as_deref(), Some("t"));
        assert!(mirror.offline);
        assert!(!options(&[("HF_HUB_OFFLINE", "0")]).offline);
    }

    #[test]
    fn the_token_is_not_shown() {
        let shown = format!("{:?}", options(&[("HF_TOKEN", "hf_secret")]));
        assert!(!shown.contains("secret") && shown.contains("***"), "{shown}");
    }

    #[test]
    fn texts_that_would_leave_a_folder_are_not_names() {
        assert!(is_safe_name("1a2b3c-d.e"));
        for bad in ["", "..", ".x", "a/b", "/a", "a\\b", "W/abc"] {
            assert!(!is_safe_name(bad), "{bad}");
        }
    }
}
