//! Pre-tokenizers by GGUF's names: how text is cut before bytes are merged.
//!
//! Names and rules: <https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp>; the regular expressions are
//! those of the models' own `tokenizer.json`.

use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

use super::TokenizerError;

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A family of byte-level vocabularies.
#[derive(Debug)]
pub(super) struct PreTokenizer {
    names: &'static [&'static str],
    cut: Cut,
    /// Text is composed (NFC) first.
    pub(super) nfc: bool,
    /// A piece that is a token is taken whole, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// Whether a file that does not say adds the beginning-of-sequence token.
    pub(super) add_bos: bool,
}

#[derive(Debug, Clone, Copy)]
enum Cut {
    Gpt2,
    /// Each digit alone, then GPT-2's rule.
    DigitsThenGpt2,
    Regex(&'static str),
}

const PLAIN: PreTokenizer =
    PreTokenizer { names: &[], cut: Cut::Gpt2, nfc: false, ignore_merges: false, add_bos: false };

static KNOWN: [PreTokenizer; 7] = [
    PreTokenizer { names: &["gpt-2", "gpt2", "default"], ..PLAIN },
    PreTokenizer { names: &["smollm", "starcoder"], cut: Cut::DigitsThenGpt2, ..PLAIN },
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"],
        cut: Cut::Regex(LLAMA3),
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    PreTokenizer { names: &["smaug-bpe", "dbrx"], cut: Cut::Regex(LLAMA3), ..PLAIN },
    PreTokenizer { names: &["tekken"], cut: Cut::Regex(TEKKEN), ignore_merges: true, add_bos: true, ..PLAIN },
    PreTokenizer { names: &["qwen2"], cut: Cut::Regex(QWEN2), nfc: true, ..PLAIN },
    PreTokenizer { names: &["deepseek-r1-qwen"], cut: Cut::Regex(QWEN2), add_bos: true, ..PLAIN },
];

impl PreTokenizer {
    pub(super) fn by_name(name: &str) -> Result<&'static Self, TokenizerError> {
        KNOWN.iter().find(|known| known.names.contains(&name)).ok_or_else(|| TokenizerError::UnknownPreTokenizer {
            found: name.to_owned(),
            known: KNOWN.iter().flat_map(|known| known.names).copied().collect::<Vec<_>>().join(", "),
        })
    }

    pub(super) fn build(&self) -> Result<PreTokenizerWrapper, TokenizerError> {
        let byte_level = |use_regex| PreTokenizerWrapper::from(ByteLevel::new(false, true, use_regex));
        Ok(match self.cut {
            Cut::Gpt2 => byte_level(true),
            Cut::DigitsThenGpt2 => Sequence::new(vec![Digits::new(true).into(), byte_level(true)]).into(),
            Cut::Regex(pattern) => {
                let pattern = SplitPattern::Regex(pattern.to_owned());
                let split =
                    Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(TokenizerError::Build)?;
                Sequence::new(vec![split.into(), byte_level(false)]).into()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};

    use super::*;

    /// The pieces, with byte-level spelling of spaces and line feeds undone.
    fn cut(name: &str, text: &str) -> Vec<String> {
        let mut pieces = PreTokenizedString::from(text);
        PreTokenizer::by_name(name).unwrap().build().unwrap().pre_tokenize(&mut pieces).unwrap();
        pieces
            .get_splits(OffsetReferential::Original, OffsetType::Byte)
            .into_iter()
            .map(|(piece, ..)| piece.replace('Ġ', " ").replace('Ċ', "\n"))
            .collect()
    }

    #[test]
    fn smollm_cuts_digits_one_by_one() {
        assert_eq!(cut("smollm", "save 20%\n\n  now"), ["save", " ", "2", "0", "%", "\n\n ", " now"]);
    }

    #[test]
    fn gpt2_keeps_numbers_whole() {
        assert_eq!(cut("gpt-2", "save 20% you're"), ["save", " 20", "%", " you", "'re"]);
    }

    #[test]
    fn llama3_cuts_numbers_in_threes_and_qwen2_one_by_one() {
        assert_eq!(cut("llama-bpe", "It'S 12345"), ["It", "'S", " ", "123", "45"]);
        assert_eq!(cut("qwen2", "It'S 123"), ["It", "'S", " ", "1", "2", "3"]);
    }

    #[test]
    fn tekken_cuts_where_the_case_rises() {
        assert_eq!(cut("tekken", "camelCase"), ["camel", "Case"]);
    }

    #[test]
    fn an_unknown_name_is_refused_with_those_known() {
        let message = PreTokenizer::by_name("viking").unwrap_err().to_string();
        assert!(message.contains("viking") && message.contains("smollm") && message.contains("qwen2"), "{message}");
    }
}
