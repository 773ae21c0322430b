//! Why a tokenizer could not be built or a text not be encoded.

use thiserror::Error;

use super::super::gguf::GgufError;

/// An error of the `tokenizers` crate, which boxes its errors.
pub type HfError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Error)]
pub enum TokenizerError {
    #[error("the tokenizer's metadata cannot be read")]
    Metadata(#[source] Box<GgufError>),
    #[error("{file} is not the JSON expected")]
    Json {
        file: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("the tokenizer's model {found} is not supported; supported: {supported}")]
    UnknownModel { found: String, supported: &'static str },
    #[error("the pre-tokenizer {found} is not known; known: {known}")]
    UnknownPreTokenizer { found: String, known: String },
    #[error("tokenizer.json is neither a byte-level BPE nor one with byte fallback, which are the kinds supported")]
    UnknownKind,
    #[error("{what} is {found}, at most {limit} is allowed")]
    TooLarge { what: &'static str, found: usize, limit: usize },
    #[error("the vocabulary is empty")]
    Empty,
    #[error("token {token:?} stands for both {first} and {second}")]
    DuplicateToken { token: String, first: u32, second: u32 },
    #[error("there are {found} {what} for {tokens} tokens")]
    LengthMismatch { what: &'static str, found: usize, tokens: usize },
    #[error("the score of token {token} is not finite")]
    Score { token: u32 },
    #[error("merge {index}, {merge:?}, does not join two tokens of the vocabulary to a third")]
    Merge { index: usize, merge: String },
    #[error("{key} names token {id}, the vocabulary has {tokens}")]
    SpecialToken { key: &'static str, id: u64, tokens: usize },
    #[error("the tokenizer cannot be built")]
    Build(#[source] HfError),
    #[error("the tokenizer's definition makes its parser panic")]
    Panic,
    #[error("the text has {bytes} bytes, at most {limit} are tokenized")]
    TextTooLong { bytes: usize, limit: usize },
    #[error("the text cannot be tokenized")]
    Encode(#[source] HfError),
}

impl From<GgufError> for TokenizerError {
    fn from(error: GgufError) -> Self {
        Self::Metadata(Box::new(error))
    }
}
