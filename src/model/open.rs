//! Opens a model's files, whatever their format, and checks that their parts belong together.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use thiserror::Error;

use super::chat_template::{ChatTemplate, ChatTokenizer, MAX_TEMPLATE_BYTES, TemplateError};
use super::config::DecoderConfig;
use super::gguf::{Gguf, GgufError};
use super::mapped_file::{FileError, read_text};
use super::safetensors::{ConfigError, HfConfig, SafetensorsError, SafetensorsFiles};
use super::source::{ModelFiles, ModelFormat};
use super::tokenizer::{Tokenizer, TokenizerError, TokenizerFiles};
use super::weights::Weights;

/// config.json and its kind have a few KiB.
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// The largest published vocabularies take about 20 MB.
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;

/// A model's parts, ready for a decoder.
pub struct OpenModel {
    pub config: DecoderConfig,
    pub weights: Box<dyn Weights>,
    pub vocabulary: Arc<ChatTokenizer>,
    /// The type that most weights have, e.g. `Q4_1`.
    pub quantization: String,
    pub parameters: u64,
    /// As the file calls itself.
    pub name: Option<String>,
}

/// A model that cannot be opened.
#[derive(Debug, Error)]
#[error("{} cannot be used; fetch it again (`adquill models pull`) or configure another model", path.display())]
pub struct OpenError {
    pub path: PathBuf,
    #[source]
    pub source: OpenErrorKind,
}

/// What is wrong with a model.
#[derive(Debug, Error)]
pub enum OpenErrorKind {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error("the tokenizer knows {tokens} tokens, the embedding has only {rows} rows")]
    VocabularySize { tokens: usize, rows: usize },
}

/// Opens the files. Weights stay mapped; nothing large is read.
///
/// # Errors
/// See [`OpenError`]: the file, what is wrong with it, and what to do.
pub fn open(files: &ModelFiles) -> Result<OpenModel, OpenError> {
    let (path, opened) = match &files.format {
        ModelFormat::Gguf(path) => (path, open_gguf(path)),
        ModelFormat::Safetensors { config, tokenizer, tokenizer_config, chat_template, generation_config, weights } => {
            let folder = Folder {
                config,
                tokenizer,
                tokenizer_config: tokenizer_config.as_deref(),
                chat_template: chat_template.as_deref(),
                generation_config: generation_config.as_deref(),
                weights,
            };
            (config, folder.open())
        }
    };
    let failed = |source| OpenError { path: path.clone(), source };
    let opened = opened.map_err(failed)?;
    let (tokens, rows) = (opened.vocabulary.tokenizer().n_tokens(), opened.config.vocab_size);
    if tokens > rows {
        return Err(failed(OpenErrorKind::VocabularySize { tokens, rows }));
    }
    Ok(opened)
}

fn open_gguf(path: &Path) -> Result<OpenModel, OpenErrorKind> {
    let gguf = Gguf::open(path)?;
    let config = gguf.decoder_config()?;
    let tokenizer = Tokenizer::from_gguf(gguf.metadata())?;
    let template = match gguf.metadata().string("tokenizer.chat_template")? {
        Some(source) => ChatTemplate::new(source)?,
        None => ChatTemplate::fallback(&tokenizer)?,
    };
    let name = gguf.metadata().string("general.name")?.map(str::to_owned);
    let mut by_type: HashMap<String, usize> = HashMap::new();
    let mut parameters = 0;
    for (_, entry) in gguf.tensors() {
        parameters += entry.elements() as u64;
        *by_type.entry(format!("{:?}", entry.dtype)).or_default() += entry.elements();
    }
    let quantization = by_type.into_iter().max_by_key(|(_, elements)| *elements).map(|(dtype, _)| dtype);
    Ok(OpenModel {
        config,
        weights: Box::new(gguf),
        vocabulary: Arc::new(ChatTokenizer::new(tokenizer, template)),
        quantization: quantization.unwrap_or_default(),
        parameters,
        name,
    })
}

/// The files of a Hugging Face folder.
struct Folder<'a> {
    config: &'a Path,
    tokenizer: &'a Path,
    tokenizer_config: Option<&'a Path>,
    chat_template: Option<&'a Path>,
    generation_config: Option<&'a Path>,
    weights: &'a [PathBuf],
}

impl Folder<'_> {
    fn open(&self) -> Result<OpenModel, OpenErrorKind> {
        let config = HfConfig::parse(&read_text(self.config, MAX_CONFIG_BYTES)?)?;
        let optional = |path: Option<&Path>, limit| path.map(|path| read_text(path, limit)).transpose();
        let tokenizer_json = read_text(self.tokenizer, MAX_TOKENIZER_BYTES)?;
        let tokenizer_config = optional(self.tokenizer_config, MAX_CONFIG_BYTES)?;
        let generation_config = optional(self.generation_config, MAX_CONFIG_BYTES)?;
        let tokenizer = Tokenizer::from_json(TokenizerFiles {
            tokenizer: &tokenizer_json,
            tokenizer_config: tokenizer_config.as_deref(),
            generation_config: generation_config.as_deref(),
        })?;
        let own_file = optional(self.chat_template, MAX_TEMPLATE_BYTES as u64)?;
        let template = match own_file.or_else(|| tokenizer_config.as_deref().and_then(template_of)) {
            Some(source) => ChatTemplate::new(&source)?,
            None => ChatTemplate::fallback(&tokenizer)?,
        };
        let weights = SafetensorsFiles::open(self.weights, config.tied)?;
        Ok(OpenModel {
            config: config.decoder,
            quantization: weights.dominant_dtype().map(|dtype| format!("{dtype:?}")).unwrap_or_default(),
            parameters: weights.parameters(),
            weights: Box::new(weights),
            vocabulary: Arc::new(ChatTokenizer::new(tokenizer, template)),
            name: None,
        })
    }
}

/// The template of a tokenizer_config.json: one text, or named ones of which `default` (else the first) is taken.
fn template_of(tokenizer_config: &str) -> Option<String> {
    let config: Value = serde_json::from_str(tokenizer_config).ok()?;
    match config.get("chat_template")? {
        Value::String(source) => Some(source.clone()),
        Value::Array(named) => {
            let default = named.iter().find(|entry| entry["name"] == "default").or(named.first())?;
            default["template"].as_str().map(str::to_owned)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::template_of;

    #[test]
    fn a_template_stands_alone_or_among_named_ones() {
        assert_eq!(template_of(r#"{"chat_template": "x"}"#).as_deref(), Some("x"));
        let named = r#"{"chat_template": [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]}"#;
        assert_eq!(template_of(named).as_deref(), Some("d"));
        assert_eq!(template_of("{}"), None);
        assert_eq!(template_of("not JSON"), None);
    }
}
