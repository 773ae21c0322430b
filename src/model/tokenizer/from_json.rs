//! A tokenizer from Hugging Face's files.

use std::borrow::Cow;
use std::panic::catch_unwind;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::models::bpe::Vocab;

use super::super::config::Limits;
use super::{Kind, SpecialTokens, Spelling, Token, Tokenizer, TokenizerError, assemble, merges};

const SUPPORTED: &str = "BPE";

/// The texts of the files that describe a tokenizer.
#[derive(Debug, Clone, Copy)]
pub struct TokenizerFiles<'a> {
    /// `tokenizer.json`.
    pub tokenizer: &'a str,
    /// `tokenizer_config.json`: names of special tokens.
    pub tokenizer_config: Option<&'a str>,
    /// `generation_config.json`: ids of tokens that end a turn.
    pub generation_config: Option<&'a str>,
}

impl Tokenizer {
    /// Builds the tokenizer that Hugging Face's files describe.
    ///
    /// # Errors
    /// When a file is not what it should be, or the kind is not supported (only BPE, byte-level or with byte fallback).
    pub fn from_json(files: TokenizerFiles<'_>) -> Result<Self, TokenizerError> {
        let spelling = check(files.tokenizer)?;
        // The crate's parser indexes and unwraps in places; the checks above cover those known, this the others.
        let mut inner = catch_unwind(|| files.tokenizer.parse::<tokenizers::Tokenizer>())
            .map_err(|_| TokenizerError::Panic)?
            .map_err(TokenizerError::Build)?;
        inner.with_truncation(None).map_err(TokenizerError::Build)?;
        inner.with_padding(None);
        let tokens = tokens(&inner)?;
        let special = special_tokens(&inner, tokens.len(), files)?;
        let controls = special.bos.into_iter().chain(special.eos).chain(special.ends.iter().copied());
        let tokens = mark_controls(tokens, controls);
        Ok(assemble(inner, &tokens, spelling, special))
    }
}

/// The parts of `tokenizer.json` that are checked before the crate sees it.
#[derive(Deserialize)]
struct Outline {
    model: ModelOutline,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    normalizer: Value,
}

#[derive(Deserialize)]
struct ModelOutline {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    vocab: Value,
    #[serde(default)]
    merges: Vec<MergeOutline>,
}

/// Older files write `"a b"`, newer ones `["a", "b"]`.
#[derive(Deserialize)]
#[serde(untagged)]
enum MergeOutline {
    Pair(String, String),
    Line(String),
}

fn check(json: &str) -> Result<Spelling, TokenizerError> {
    let outline: Outline =
        serde_json::from_str(json).map_err(|source| TokenizerError::Json { file: "tokenizer.json", source })?;
    let model = outline.model;
    let kind = model.kind.as_deref().unwrap_or("(none)");
    let prefix = model.continuing_subword_prefix.unwrap_or_default();
    let Value::Object(vocab) = model.vocab else {
        return Err(TokenizerError::UnknownModel { found: kind.to_owned(), supported: SUPPORTED });
    };
    if kind != "BPE" {
        return Err(TokenizerError::UnknownModel { found: kind.to_owned(), supported: SUPPORTED });
    }
    if !prefix.is_empty() {
        let found = format!("BPE with the subword prefix {prefix:?}");
        return Err(TokenizerError::UnknownModel { found, supported: SUPPORTED });
    }
    let vocab = checked_vocab(vocab)?;
    let merges: Vec<(String, String)> = model
        .merges
        .into_iter()
        .enumerate()
        .map(|(index, merge)| match merge {
            MergeOutline::Pair(left, right) => Ok((left, right)),
            MergeOutline::Line(line) => match line.split_once(' ') {
                Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
                None => Err(TokenizerError::Merge { index, merge: line }),
            },
        })
        .collect::<Result<_, _>>()?;
    if let Some(index) = merges::first_broken(&vocab, &merges) {
        let (left, right) = &merges[index];
        return Err(TokenizerError::Merge { index, merge: format!("{left} {right}") });
    }
    let parts = [&outline.pre_tokenizer, &outline.decoder, &outline.normalizer];
    if parts.iter().any(|part| mentions(part, "ByteLevel")) {
        Ok(Spelling::ByteLevel)
    } else if model.byte_fallback || parts.iter().any(|part| mentions(part, "Metaspace")) {
        Ok(Spelling::SentencePiece)
    } else {
        Err(TokenizerError::UnknownKind)
    }
}

fn checked_vocab(vocab: serde_json::Map<String, Value>) -> Result<Vocab, TokenizerError> {
    let limit = Limits::VOCAB;
    let too_large = |found: u64| TokenizerError::TooLarge {
        what: "the id of a token",
        found: usize::try_from(found).unwrap_or(usize::MAX),
        limit,
    };
    if vocab.is_empty() {
        return Err(TokenizerError::Empty);
    }
    vocab
        .into_iter()
        .map(|(token, id)| {
            let id = id.as_u64().unwrap_or(u64::MAX);
            match u32::try_from(id) {
                Ok(small) if (id as usize) < limit => Ok((token, small)),
                _ => Err(too_large(id)),
            }
        })
        .collect()
}

/// Whether a component, or one that it is made of, has this type.
fn mentions(part: &Value, kind: &str) -> bool {
    match part {
        Value::Object(fields) => {
            fields.get("type").and_then(Value::as_str) == Some(kind) || fields.values().any(|part| mentions(part, kind))
        }
        Value::Array(parts) => parts.iter().any(|part| mentions(part, kind)),
        _ => false,
    }
}

/// All tokens by id; ids that the vocabulary leaves out are unused.
fn tokens(inner: &tokenizers::Tokenizer) -> Result<Vec<Token<'static>>, TokenizerError> {
    let vocab = inner.get_vocab(true);
    let limit = Limits::VOCAB;
    let n = vocab.values().max().map_or(0, |&id| id as usize + 1);
    if n > limit {
        return Err(TokenizerError::TooLarge { what: "the id of a token", found: n - 1, limit });
    }
    let mut tokens: Vec<Token<'static>> =
        (0..n).map(|_| Token { text: Cow::Borrowed(""), kind: Kind::Control }).collect();
    for (text, id) in vocab {
        tokens[id as usize] = Token { text: Cow::Owned(text), kind: Kind::Normal };
    }
    for (id, added) in inner.get_added_tokens_decoder() {
        let kind = if added.special { Kind::Control } else { Kind::Verbatim };
        if let Some(token) = tokens.get_mut(id as usize) {
            *token = Token { text: Cow::Owned(added.content), kind };
        }
    }
    Ok(tokens)
}

fn mark_controls<'a>(mut tokens: Vec<Token<'a>>, controls: impl Iterator<Item = u32>) -> Vec<Token<'a>> {
    for id in controls {
        if let Some(token) = tokens.get_mut(id as usize) {
            token.kind = Kind::Control;
        }
    }
    tokens
}

fn special_tokens(
    inner: &tokenizers::Tokenizer,
    n_tokens: usize,
    files: TokenizerFiles<'_>,
) -> Result<SpecialTokens, TokenizerError> {
    let parse = |file: &'static str, text: Option<&str>| -> Result<Value, TokenizerError> {
        text.map_or(Ok(Value::Null), serde_json::from_str).map_err(|source| TokenizerError::Json { file, source })
    };
    let config = parse("tokenizer_config.json", files.tokenizer_config)?;
    let generation = parse("generation_config.json", files.generation_config)?;
    let named = |key: &str| -> Option<u32> {
        let token = &config[key];
        // A string, or an object that describes an added token.
        inner.token_to_id(token.as_str().or_else(|| token["content"].as_str())?)
    };
    let ids = match &generation["eos_token_id"] {
        Value::Array(ids) => ids.iter().filter_map(Value::as_u64).collect(),
        id => Vec::from_iter(id.as_u64()),
    };
    let mut ends = Vec::new();
    for id in ids {
        match u32::try_from(id) {
            Ok(small) if (small as usize) < n_tokens => ends.push(small),
            _ => {
                let key = "generation_config.json's eos_token_id";
                return Err(TokenizerError::SpecialToken { key, id, tokens: n_tokens });
            }
        }
    }
    // What the post-processor puts before a text is the beginning-of-sequence token.
    let empty = inner.encode_fast("", true).map_err(TokenizerError::Encode)?;
    let first = empty.get_ids().first().copied();
    let bos = named("bos_token").or(first);
    let add_bos = match config["add_bos_token"].as_bool() {
        Some(add) => add && bos.is_some(),
        None => bos.is_some() && first == bos,
    };
    let eos = named("eos_token").or_else(|| ends.first().copied());
    Ok(SpecialTokens { bos, add_bos, eos, ends })
}
