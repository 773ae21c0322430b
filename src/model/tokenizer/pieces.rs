//! What each token of a vocabulary stands for: its bytes, and whether it is a control token.

use std::sync::LazyLock;

/// How a vocabulary spells bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// GPT-2's: a printable character for each byte.
    ByteLevel,
    /// SentencePiece's: `▁` for a space, `<0x0A>` for a byte.
    SentencePiece,
}

/// The role of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Spelled in the vocabulary's own way.
    Normal,
    /// Added as plain text.
    Verbatim,
    /// Stands for no text: begins or ends turns, or is unused.
    Control,
}

/// Bytes and roles of all tokens, in one allocation each.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    control: Vec<bool>,
}

impl Pieces {
    /// Adds the next token.
    pub(super) fn push(&mut self, token: &str, kind: Kind, spelling: Spelling) {
        match (kind, spelling) {
            (Kind::Control, _) => {}
            (Kind::Verbatim, _) => self.bytes.extend_from_slice(token.as_bytes()),
            (Kind::Normal, Spelling::ByteLevel) => push_byte_level(&mut self.bytes, token),
            (Kind::Normal, Spelling::SentencePiece) => push_sentence_piece(&mut self.bytes, token),
        }
        self.ends.push(self.bytes.len());
        self.control.push(kind == Kind::Control);
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Empty for control tokens and ids outside the vocabulary.
    pub(super) fn bytes(&self, token: u32) -> &[u8] {
        let index = token as usize;
        let Some(&end) = self.ends.get(index) else { return &[] };
        let start = index.checked_sub(1).map_or(0, |previous| self.ends[previous]);
        &self.bytes[start..end]
    }

    /// Ids outside the vocabulary (padding rows of the embedding) are control tokens: they must not be sampled.
    pub(super) fn is_control(&self, token: u32) -> bool {
        self.control.get(token as usize).copied().unwrap_or(true)
    }
}

/// GPT-2's byte for a character, <https://github.com/openai/gpt-2/blob/master/src/encoder.py>.
fn byte_of(character: char) -> Option<u8> {
    static BYTES: LazyLock<Vec<Option<u8>>> = LazyLock::new(|| {
        let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
        let mut bytes: Vec<Option<u8>> = (0..=u8::MAX).map(|byte| printable(byte).then_some(byte)).collect();
        bytes.extend((0..=u8::MAX).filter(|&byte| !printable(byte)).map(Some));
        bytes
    });
    BYTES.get(character as usize).copied().flatten()
}

/// A token with a character outside the alphabet was never produced by merging bytes: it is text as it stands.
fn push_byte_level(bytes: &mut Vec<u8>, token: &str) {
    let start = bytes.len();
    for character in token.chars() {
        let Some(byte) = byte_of(character) else {
            bytes.truncate(start);
            bytes.extend_from_slice(token.as_bytes());
            return;
        };
        bytes.push(byte);
    }
}

fn push_sentence_piece(bytes: &mut Vec<u8>, token: &str) {
    if let Some(byte) = byte_fallback(token) {
        bytes.push(byte);
    } else {
        bytes.extend_from_slice(token.replace('▁', " ").as_bytes());
    }
}

/// The byte of a `<0x0A>` token.
pub(super) fn byte_fallback(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(token: &str, kind: Kind, spelling: Spelling) -> Vec<u8> {
        let mut pieces = Pieces::default();
        pieces.push("before", Kind::Normal, spelling);
        pieces.push(token, kind, spelling);
        pieces.push("after", Kind::Normal, spelling);
        pieces.bytes(1).to_vec()
    }

    #[test]
    fn byte_level_tokens_stand_for_their_bytes() {
        assert_eq!(bytes("Ġthe", Kind::Normal, Spelling::ByteLevel), b" the");
        assert_eq!(bytes("ĊĊ", Kind::Normal, Spelling::ByteLevel), b"\n\n");
        assert_eq!(bytes("å¥½", Kind::Normal, Spelling::ByteLevel), "好".as_bytes());
        assert_eq!(bytes("å¥", Kind::Normal, Spelling::ByteLevel), &"好".as_bytes()[..2]);
    }

    #[test]
    fn every_byte_has_one_character() {
        let mut seen: Vec<u8> = (0..400).filter_map(char::from_u32).filter_map(byte_of).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn sentence_piece_tokens_stand_for_spaces_and_bytes() {
        assert_eq!(bytes("▁the▁", Kind::Normal, Spelling::SentencePiece), b" the ");
        assert_eq!(bytes("<0xE5>", Kind::Normal, Spelling::SentencePiece), [0xE5]);
        assert_eq!(bytes("<0xE>", Kind::Normal, Spelling::SentencePiece), b"<0xE>");
    }

    #[test]
    fn verbatim_tokens_are_not_respelled_and_control_tokens_are_empty() {
        assert_eq!(bytes("Ġ▁", Kind::Verbatim, Spelling::ByteLevel), "Ġ▁".as_bytes());
        assert_eq!(bytes("<|im_end|>", Kind::Control, Spelling::ByteLevel), b"");
    }

    #[test]
    fn ids_outside_the_vocabulary_are_empty_control_tokens() {
        let pieces = Pieces::default();
        assert_eq!(pieces.bytes(7), b"");
        assert!(pieces.is_control(u32::MAX));
    }
}
