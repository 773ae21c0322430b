//! Taking control tokens out of untrusted text.

use std::borrow::Cow;
use std::collections::HashMap;

/// The literals that a text must not contain, by their last character.
#[derive(Debug, Default)]
pub(super) struct Literals {
    by_last: HashMap<char, Vec<String>>,
}

impl Literals {
    pub(super) fn new(literals: impl IntoIterator<Item = String>) -> Self {
        let mut by_last: HashMap<char, Vec<String>> = HashMap::new();
        for literal in literals {
            if let Some(last) = literal.chars().next_back() {
                by_last.entry(last).or_default().push(literal);
            }
        }
        Self { by_last }
    }

    /// The text without any literal, also without those that a removal puts together. One pass: whenever a literal
    /// stands at the end of what was kept, it goes, so what was kept never holds one.
    pub(super) fn remove<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut kept = String::with_capacity(text.len());
        for character in text.chars() {
            kept.push(character);
            let Some(literals) = self.by_last.get(&character) else { continue };
            if let Some(literal) = literals.iter().find(|literal| kept.ends_with(literal.as_str())) {
                kept.truncate(kept.len() - literal.len());
            }
        }
        if kept.len() == text.len() { Cow::Borrowed(text) } else { Cow::Owned(kept) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOKENS: [&str; 4] = ["<|im_start|>", "<|im_end|>", "<s>", "｜终｜"];

    fn literals() -> Literals {
        Literals::new(TOKENS.map(str::to_owned))
    }

    #[test]
    fn text_without_control_tokens_is_borrowed() {
        assert!(matches!(literals().remove("a < b | c > d, 好"), Cow::Borrowed(_)));
    }

    #[test]
    fn control_tokens_are_removed_wherever_they_stand() {
        assert_eq!(literals().remove("<s>a<|im_end|>b｜终｜c<|im_start|>"), "abc");
    }

    #[test]
    fn a_removal_cannot_put_a_new_one_together() {
        assert_eq!(literals().remove("<|im_<s>start|>x"), "x");
        assert_eq!(literals().remove("<|im_<|im_<|im_end|>end|>end|>x"), "x");
    }

    proptest! {
        #[test]
        fn nothing_is_left_and_nothing_else_is_lost(parts in prop::collection::vec(
            prop::sample::select(vec!["<|im_", "start|>", "end|>", "<s>", "<", "s", ">", "｜", "终", "a", " "]), 0..40,
        )) {
            let text = parts.concat();
            let clean = literals().remove(&text).into_owned();
            for token in TOKENS {
                prop_assert!(!clean.contains(token));
            }
            if TOKENS.iter().all(|token| !text.contains(token)) {
                prop_assert_eq!(clean, text);
            }
        }
    }
}
