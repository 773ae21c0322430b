//! A tokenizer from a GGUF file's metadata.

use std::borrow::Cow;

use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::{AddedToken, NormalizerWrapper};

use super::super::config::Limits;
use super::super::gguf::MetadataView;
use super::pieces::byte_fallback;
use super::pre::PreTokenizer;
use super::{Kind, SpecialTokens, Spelling, Token, Tokenizer, TokenizerError, assemble, merges};

/// Tokens are at most some hundred spaces long.
const MAX_TOKEN_BYTES: usize = 512;
const MAX_VOCABULARY_BYTES: usize = 64 << 20;

/// `tokenizer.ggml.token_type`, <https://github.com/ggml-org/llama.cpp/blob/master/include/llama.h>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenType {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
}

/// The vocabulary's arrays, of equal length.
struct Arrays<'a> {
    tokens: Vec<&'a str>,
    types: Vec<TokenType>,
}

impl Tokenizer {
    /// Builds the tokenizer that the metadata describes: `gpt2` (byte-level BPE) or `llama` (SentencePiece BPE).
    ///
    /// # Errors
    /// When keys are missing or contradict each other, or the kind is not supported.
    pub fn from_gguf(metadata: MetadataView<'_>) -> Result<Self, TokenizerError> {
        let model = metadata.string("tokenizer.ggml.model")?.unwrap_or("(none)");
        match model {
            "gpt2" => byte_level(metadata),
            "llama" => sentence_piece(metadata),
            other => Err(TokenizerError::UnknownModel {
                found: other.to_owned(),
                supported: "gpt2 (byte-level BPE), llama (SentencePiece BPE)",
            }),
        }
    }
}

fn byte_level(metadata: MetadataView<'_>) -> Result<Tokenizer, TokenizerError> {
    let pre = PreTokenizer::by_name(pre_tokenizer_name(metadata)?)?;
    let mut arrays = Arrays::read(metadata)?;
    let special = special_tokens(metadata, &mut arrays, pre.add_bos)?;
    let vocab = arrays.vocab()?;
    let merges = read_merges(metadata, &vocab)?;
    let bpe = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .ignore_merges(pre.ignore_merges)
        .build()
        .map_err(TokenizerError::Build)?;
    let mut inner = tokenizers::Tokenizer::new(bpe);
    if pre.nfc {
        inner.with_normalizer(Some(NormalizerWrapper::from(NFC))).map_err(TokenizerError::Build)?;
    }
    inner.with_pre_tokenizer(Some(pre.build()?));
    arrays.finish(inner, Spelling::ByteLevel, special)
}

fn sentence_piece(metadata: MetadataView<'_>) -> Result<Tokenizer, TokenizerError> {
    let mut arrays = Arrays::read(metadata)?;
    let special = special_tokens(metadata, &mut arrays, true)?;
    let vocab = arrays.vocab()?;
    let merges = if metadata.contains("tokenizer.ggml.merges") {
        read_merges(metadata, &vocab)?
    } else {
        let scores = metadata.floats("tokenizer.ggml.scores")?.unwrap_or_default();
        if scores.len() != arrays.tokens.len() {
            let (found, tokens) = (scores.len(), arrays.tokens.len());
            return Err(TokenizerError::LengthMismatch { what: "scores", found, tokens });
        }
        if let Some(token) = scores.iter().position(|score| !score.is_finite()) {
            return Err(TokenizerError::Score { token: u32::try_from(token).unwrap_or(u32::MAX) });
        }
        merges::from_scores(&arrays.tokens, &scores)
    };
    let bpe = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .fuse_unk(true)
        .byte_fallback(true)
        .build()
        .map_err(TokenizerError::Build)?;
    let mut inner = tokenizers::Tokenizer::new(bpe);
    let prefix = metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let scheme = if prefix { PrependScheme::First } else { PrependScheme::Never };
    inner.with_pre_tokenizer(Some(Metaspace::new('▁', scheme, false)));
    arrays.finish(inner, Spelling::SentencePiece, special)
}

/// Files from before `tokenizer.ggml.pre` existed do not say; their architecture does for qwen.
fn pre_tokenizer_name(metadata: MetadataView<'_>) -> Result<&str, TokenizerError> {
    if let Some(name) = metadata.string("tokenizer.ggml.pre")? {
        return Ok(name);
    }
    let architecture = metadata.string("general.architecture")?.unwrap_or_default();
    Ok(if architecture.starts_with("qwen") { "qwen2" } else { "default" })
}

fn read_merges(metadata: MetadataView<'_>, vocab: &Vocab) -> Result<Merges, TokenizerError> {
    let lines = metadata.strings("tokenizer.ggml.merges")?.unwrap_or_default();
    let broken = |index: usize| TokenizerError::Merge { index, merge: lines[index].to_owned() };
    let merges = lines
        .iter()
        .enumerate()
        .map(|(index, line)| {
            let (left, right) = line.split_once(' ').ok_or_else(|| broken(index))?;
            Ok((left.to_owned(), right.to_owned()))
        })
        .collect::<Result<Merges, TokenizerError>>()?;
    match merges::first_broken(vocab, &merges) {
        Some(index) => Err(broken(index)),
        None => Ok(merges),
    }
}

/// Reads the ids with a role and marks them as control tokens, whatever their type says, as llama.cpp does.
fn special_tokens(
    metadata: MetadataView<'_>,
    arrays: &mut Arrays<'_>,
    add_bos: bool,
) -> Result<SpecialTokens, TokenizerError> {
    let mut id = |key: &'static str| -> Result<Option<u32>, TokenizerError> {
        let Some(id) = metadata.u64(key)? else { return Ok(None) };
        // Some converters write -1, as 32 bits without a sign, for "none".
        if id == u64::from(u32::MAX) {
            return Ok(None);
        }
        let tokens = arrays.types.len();
        let place = usize::try_from(id).ok().and_then(|id| arrays.types.get_mut(id));
        let (place, id) = place.zip(u32::try_from(id).ok()).ok_or(TokenizerError::SpecialToken { key, id, tokens })?;
        *place = TokenType::Control;
        Ok(Some(id))
    };
    let bos = id("tokenizer.ggml.bos_token_id")?;
    let eos = id("tokenizer.ggml.eos_token_id")?;
    let turn_ends = [id("tokenizer.ggml.eot_token_id")?, id("tokenizer.ggml.eom_token_id")?];
    let add_bos = bos.is_some() && metadata.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(add_bos);
    Ok(SpecialTokens { bos, add_bos, eos, ends: turn_ends.into_iter().flatten().collect() })
}

impl<'a> Arrays<'a> {
    fn read(metadata: MetadataView<'a>) -> Result<Self, TokenizerError> {
        let tokens = metadata.strings("tokenizer.ggml.tokens")?.unwrap_or_default();
        if tokens.is_empty() {
            return Err(TokenizerError::Empty);
        }
        let too_large = |what, found, limit| Err(TokenizerError::TooLarge { what, found, limit });
        if tokens.len() > Limits::VOCAB {
            return too_large("the number of tokens", tokens.len(), Limits::VOCAB);
        }
        if let Some(long) = tokens.iter().find(|token| token.len() > MAX_TOKEN_BYTES) {
            return too_large("the length of a token in bytes", long.len(), MAX_TOKEN_BYTES);
        }
        let bytes = tokens.iter().map(|token| token.len()).sum();
        if bytes > MAX_VOCABULARY_BYTES {
            return too_large("the size of the vocabulary in bytes", bytes, MAX_VOCABULARY_BYTES);
        }
        let types = match metadata.integers("tokenizer.ggml.token_type")? {
            Some(types) => types.into_iter().map(TokenType::from_number).collect(),
            None => vec![TokenType::Normal; tokens.len()],
        };
        if types.len() != tokens.len() {
            let (found, tokens) = (types.len(), tokens.len());
            return Err(TokenizerError::LengthMismatch { what: "token types", found, tokens });
        }
        Ok(Self { tokens, types })
    }

    /// Ids by text. Empty tokens are unused places.
    fn vocab(&self) -> Result<Vocab, TokenizerError> {
        let mut vocab = Vocab::default();
        for (second, token) in (0..).zip(&self.tokens).filter(|(_, token)| !token.is_empty()) {
            if let Some(first) = vocab.insert((*token).to_owned(), second) {
                return Err(TokenizerError::DuplicateToken { token: (*token).to_owned(), first, second });
            }
        }
        Ok(vocab)
    }

    fn finish(
        self,
        mut inner: tokenizers::Tokenizer,
        spelling: Spelling,
        special: SpecialTokens,
    ) -> Result<Tokenizer, TokenizerError> {
        let tokens: Vec<Token<'_>> = self
            .tokens
            .iter()
            .zip(&self.types)
            .map(|(&text, &kind)| Token { text: Cow::Borrowed(text), kind: kind.kind(text) })
            .collect();
        let added = |wanted: &'static [TokenType], special: bool| {
            self.tokens
                .iter()
                .zip(&self.types)
                .filter(|(token, kind)| !token.is_empty() && wanted.contains(kind))
                .map(|(token, _)| AddedToken::from(*token, special).normalized(false))
                .collect::<Vec<_>>()
        };
        let controls = added(&[TokenType::Control, TokenType::Unknown], true);
        inner.add_special_tokens(controls).map_err(TokenizerError::Build)?;
        inner.add_tokens(added(&[TokenType::UserDefined], false)).map_err(TokenizerError::Build)?;
        Ok(assemble(inner, &tokens, spelling, special))
    }
}

impl TokenType {
    /// `Byte` (6) needs no case of its own: its spelling says so.
    fn from_number(number: i64) -> Self {
        match number {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            _ => Self::Normal,
        }
    }

    fn kind(self, text: &str) -> Kind {
        match self {
            // A byte token marked as unused or unknown would lose text; no converter does so on purpose.
            _ if byte_fallback(text).is_some() => Kind::Normal,
            Self::Normal => Kind::Normal,
            Self::UserDefined => Kind::Verbatim,
            Self::Unknown | Self::Control | Self::Unused => Kind::Control,
        }
    }
}
