//! Text to tokens and back. Wraps Hugging Face's `tokenizers`; adds what serving needs: each token's bytes, which tokens
//! are control tokens or end a turn, and the removal of control tokens from untrusted text.

mod error;
mod from_gguf;
mod from_json;
mod merges;
mod neutral;
mod pieces;
mod pre;

use std::borrow::Cow;

pub use self::error::{HfError, TokenizerError};
pub use self::from_json::TokenizerFiles;
use self::neutral::Literals;
use self::pieces::{Kind, Pieces, Spelling};

/// No prompt is near it; tokenizing it takes less than a second whatever it holds.
pub const MAX_TEXT_BYTES: usize = 1 << 20;

/// Control tokens that end a turn, by name, in the families that the decoder runs.
const END_TOKENS: [&str; 8] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end|>",
    "</s>",
    "<｜end▁of▁sentence｜>",
];

/// A tokenizer, ready for use by many threads.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pieces: Pieces,
    literals: Literals,
    special: SpecialTokens,
    /// Control tokens are also recognized in normalized text, where taking out literals is not enough.
    controls_in_normalized_text: bool,
}

/// The ids that have a role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Beginning of sequence, where the model has one.
    pub bos: Option<u32>,
    /// Whether a prompt begins with it.
    pub add_bos: bool,
    /// End of sequence.
    pub eos: Option<u32>,
    /// Every token that ends a turn, `eos` among them; ascending.
    pub ends: Vec<u32>,
}

impl Tokenizer {
    /// Tokens with ids `0..n_tokens`; the embedding may have more rows.
    pub fn n_tokens(&self) -> usize {
        self.pieces.len()
    }

    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special
    }

    /// Tokens that end a turn, ascending.
    pub fn end_tokens(&self) -> &[u32] {
        &self.special.ends
    }

    pub fn is_end(&self, token: u32) -> bool {
        self.special.ends.binary_search(&token).is_ok()
    }

    /// Whether the token stands for no text. Also true of ids outside the vocabulary.
    pub fn is_control(&self, token: u32) -> bool {
        self.pieces.is_control(token)
    }

    /// The id of a token by its literal.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The literal of a token.
    pub fn token_text(&self, token: u32) -> Option<String> {
        self.inner.id_to_token(token)
    }

    /// The bytes a token stands for; empty for control tokens and unknown ids. May be part of a character.
    pub fn token_bytes(&self, token: u32) -> &[u8] {
        self.pieces.bytes(token)
    }

    /// The tokens of a text. Control tokens in it are recognized; none is added.
    ///
    /// # Errors
    /// For a text of more than [`MAX_TEXT_BYTES`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(TokenizerError::TextTooLong { bytes: text.len(), limit: MAX_TEXT_BYTES });
        }
        let encoding = self.inner.encode_fast(text, false).map_err(TokenizerError::Encode)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of tokens, without control tokens; bytes that are no UTF-8 become `U+FFFD`.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let bytes: Vec<u8> = tokens.iter().flat_map(|&token| self.token_bytes(token)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The text without control tokens' literals, also without those that a removal puts together.
    pub fn neutralize<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.literals.remove(text)
    }

    /// Whether a neutralized text still becomes a control token, which only a normalizer can bring about.
    ///
    /// # Errors
    /// As for [`Self::encode`].
    pub fn hides_control(&self, neutralized: &str) -> Result<bool, TokenizerError> {
        Ok(self.controls_in_normalized_text && self.encode(neutralized)?.iter().any(|&token| self.is_control(token)))
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("n_tokens", &self.n_tokens())
            .field("special", &self.special)
            .finish_non_exhaustive()
    }
}

/// A token as a file describes it.
struct Token<'a> {
    text: Cow<'a, str>,
    kind: Kind,
}

/// Puts a tokenizer together. `tokens[id]` describes token `id`; `ends` may name tokens twice.
fn assemble(
    inner: tokenizers::Tokenizer,
    tokens: &[Token<'_>],
    spelling: Spelling,
    mut special: SpecialTokens,
) -> Tokenizer {
    let mut pieces = Pieces::default();
    for token in tokens {
        pieces.push(&token.text, token.kind, spelling);
    }
    special.ends.extend(special.eos);
    special
        .ends
        .extend(END_TOKENS.iter().filter_map(|name| inner.token_to_id(name)).filter(|&token| pieces.is_control(token)));
    special.ends.sort_unstable();
    special.ends.dedup();
    let added = inner.get_added_tokens_decoder();
    let controls: Vec<&tokenizers::AddedToken> =
        added.iter().filter(|(id, _)| pieces.is_control(**id)).map(|(_, token)| token).collect();
    let controls_in_normalized_text = inner.get_normalizer().is_some() && controls.iter().any(|token| token.normalized);
    let literals = Literals::new(controls.iter().map(|token| token.content.clone()));
    Tokenizer { inner, pieces, literals, special, controls_in_normalized_text }
}
