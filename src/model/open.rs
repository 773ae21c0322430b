//! Opens a model's files: hyperparameters, weights, tokenizer and chat template, checked against each other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::quantized::GgmlDType;
use thiserror::Error;

use super::chat_template::{ChatTemplate, ChatTokenizer, MAX_TEMPLATE_BYTES, TemplateError, template_in_config};
use super::config::DecoderConfig;
use super::gguf::{Gguf, GgufError};
use super::mapped_file::{FileError, read_text};
use super::safetensors::{FolderConfig, MAX_CONFIG_BYTES, Safetensors, SafetensorsError};
use super::source::{ModelFiles, ModelFormat};
use super::tokenizer::{Tokenizer, TokenizerError, TokenizerFiles};
use super::weights::Weights;

/// The largest `tokenizer.json` in use has 35 MiB.
const MAX_TOKENIZER_BYTES: u64 = 128 << 20;
/// Some list a thousand added tokens.
const MAX_TOKENIZER_CONFIG_BYTES: u64 = 16 << 20;

/// A model's files, open and consistent. Its tensors are still as the file stores them.
pub struct OpenModel {
    pub config: DecoderConfig,
    pub weights: Box<dyn Weights>,
    pub vocabulary: Arc<ChatTokenizer>,
    /// The type of most values in the matrices, e.g. `Q4_1`.
    pub quantization: String,
    /// Values in all tensors.
    pub parameters: u64,
    /// The model's own name for itself.
    pub name: Option<String>,
}

/// Why a model cannot be used. Each message names the file.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("the GGUF file {} cannot be used", path.display())]
    Gguf {
        path: PathBuf,
        #[source]
        source: GgufError,
    },
    #[error("the weights in {} cannot be used", path.display())]
    Safetensors {
        path: PathBuf,
        #[source]
        source: SafetensorsError,
    },
    #[error("the tokenizer in {} cannot be used", path.display())]
    Tokenizer {
        path: PathBuf,
        #[source]
        source: TokenizerError,
    },
    #[error("the chat template in {} cannot be used; a template of your own can stand beside the model", path.display())]
    Template {
        path: PathBuf,
        #[source]
        source: TemplateError,
    },
    #[error("a file of the model cannot be read; pull the model again")]
    File(#[from] FileError),
    #[error("{} has {tokens} tokens but only {rows} rows in its embedding; tokenizer and weights are of different models", path.display())]
    VocabularyMismatch { path: PathBuf, tokens: usize, rows: usize },
    #[error("{} has an embedding of shape {found:?}, its config says {expected:?}; config and weights are of different models", path.display())]
    Embedding { path: PathBuf, found: Option<Vec<usize>>, expected: [usize; 2] },
}

/// Opens the files.
///
/// # Errors
/// An [`OpenError`]; its sources say what in the file is wrong.
pub fn open(files: &ModelFiles) -> Result<OpenModel, OpenError> {
    match &files.format {
        ModelFormat::Gguf(path) => open_gguf(path),
        ModelFormat::Safetensors { .. } => open_folder(&files.format),
    }
}

impl std::fmt::Debug for OpenModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenModel")
            .field("config", &self.config)
            .field("quantization", &self.quantization)
            .field("parameters", &self.parameters)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

fn open_gguf(path: &Path) -> Result<OpenModel, OpenError> {
    let failed = |source| OpenError::Gguf { path: path.to_owned(), source };
    let gguf = Gguf::open(path).map_err(failed)?;
    let config = gguf.decoder_config().map_err(failed)?;
    let metadata = gguf.metadata();
    let tokenizer =
        Tokenizer::from_gguf(metadata).map_err(|source| OpenError::Tokenizer { path: path.to_owned(), source })?;
    let template = metadata.string("tokenizer.chat_template").map_err(failed)?;
    let vocabulary = vocabulary(path, tokenizer, template)?;
    let name = metadata.string("general.name").map_err(failed)?.map(str::to_owned);
    let census = Census::take(gguf.tensors().map(|(_, tensor)| (tensor.shape.as_slice(), tensor.dtype)));
    finish(path, config, Box::new(gguf), vocabulary, census, name)
}

fn open_folder(format: &ModelFormat) -> Result<OpenModel, OpenError> {
    let ModelFormat::Safetensors { config, tokenizer, tokenizer_config, chat_template, generation_config, weights } =
        format
    else {
        return Err(OpenError::File(FileError::NotAFile { path: PathBuf::new() }));
    };
    let optional = |path: &Option<PathBuf>, limit| path.as_deref().map(|path| read_text(path, limit)).transpose();
    let config_text = read_text(config, MAX_CONFIG_BYTES)?;
    let failed = |source| OpenError::Safetensors { path: config.clone(), source };
    let FolderConfig { decoder, tied } = FolderConfig::parse(&config_text).map_err(failed)?;
    let tensors = Safetensors::open(weights, tied).map_err(failed)?;

    let tokenizer_text = read_text(tokenizer, MAX_TOKENIZER_BYTES)?;
    let tokenizer_config = optional(tokenizer_config, MAX_TOKENIZER_CONFIG_BYTES)?;
    let generation_config = optional(generation_config, MAX_CONFIG_BYTES)?;
    let template_file = optional(chat_template, MAX_TEMPLATE_BYTES as u64)?;
    let built = Tokenizer::from_json(TokenizerFiles {
        tokenizer: &tokenizer_text,
        tokenizer_config: tokenizer_config.as_deref(),
        generation_config: generation_config.as_deref(),
    })
    .map_err(|source| OpenError::Tokenizer { path: tokenizer.clone(), source })?;
    let template = match (template_file, tokenizer_config) {
        (Some(template), _) => Some(template),
        (None, Some(config)) => {
            template_in_config(&config).map_err(|source| OpenError::Template { path: tokenizer.clone(), source })?
        }
        (None, None) => None,
    };
    let vocabulary = vocabulary(tokenizer, built, template.as_deref())?;
    let census = Census::take(tensors.tensors());
    finish(config, decoder, Box::new(tensors), vocabulary, census, None)
}

fn vocabulary(path: &Path, tokenizer: Tokenizer, template: Option<&str>) -> Result<ChatTokenizer, OpenError> {
    let template = ChatTemplate::new(template, &tokenizer)
        .map_err(|source| OpenError::Template { path: path.to_owned(), source })?;
    Ok(ChatTokenizer { tokenizer: Arc::new(tokenizer), template })
}

fn finish(
    path: &Path,
    config: DecoderConfig,
    weights: Box<dyn Weights>,
    vocabulary: ChatTokenizer,
    census: Census,
    name: Option<String>,
) -> Result<OpenModel, OpenError> {
    let expected = [config.vocab_size, config.hidden_size];
    let found = weights.view("token_embd.weight").map(|view| view.shape);
    if found.as_deref() != Some(&expected[..]) {
        return Err(OpenError::Embedding { path: path.to_owned(), found, expected });
    }
    let (tokens, rows) = (vocabulary.tokenizer.n_tokens(), config.vocab_size);
    if tokens > rows {
        return Err(OpenError::VocabularyMismatch { path: path.to_owned(), tokens, rows });
    }
    let Census { quantization, parameters } = census;
    Ok(OpenModel { config, weights, vocabulary: Arc::new(vocabulary), quantization, parameters, name })
}

/// How many values a model has, and of which type most are.
struct Census {
    quantization: String,
    parameters: u64,
}

impl Census {
    fn take<'a>(tensors: impl Iterator<Item = (&'a [usize], GgmlDType)>) -> Self {
        let mut parameters = 0u64;
        let mut by_type: BTreeMap<String, u64> = BTreeMap::new();
        for (shape, dtype) in tensors {
            let elements = shape.iter().product::<usize>() as u64;
            parameters += elements;
            if shape.len() > 1 {
                *by_type.entry(format!("{dtype:?}")).or_default() += elements;
            }
        }
        let quantization = by_type.into_iter().max_by_key(|&(_, elements)| elements).map(|(name, _)| name);
        Self { quantization: quantization.unwrap_or_default(), parameters }
    }
}
