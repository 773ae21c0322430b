//! Small facts about characters and strings that the rest of the domain builds on.

use unicode_normalization::UnicodeNormalization;

/// NFC, control characters and runs of white space turned into single spaces, trimmed.
pub fn single_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.nfc() {
        if c.is_whitespace() || c.is_control() {
            if !out.is_empty() && !out.ends_with(' ') {
                out.push(' ');
            }
        } else if !is_invisible(c) {
            out.push(c);
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// [`single_line`] of at most `max_chars` characters, cut back to the last whole word.
pub fn bounded_line(text: &str, max_chars: usize) -> String {
    let line = single_line(text);
    let Some((cut, next)) = line.char_indices().nth(max_chars) else { return line };
    let head = &line[..cut];
    let whole = !is_word_inner(next) || head.chars().next_back().is_none_or(|c| !is_word_inner(c));
    let last_break = head.char_indices().rfind(|(_, c)| !is_word_inner(*c)).map(|(at, c)| at + c.len_utf8());
    // A single word longer than the bound has no better place to be cut.
    let end = if whole { cut } else { last_break.unwrap_or(cut) };
    line[..end].trim_end().to_owned()
}

/// The form in which texts are compared: NFKC (full-width and circled forms become plain), lower case, invisible
/// characters taken out.
pub fn fold(text: &str) -> String {
    text.nfkc().filter(|c| !is_invisible(*c)).flat_map(char::to_lowercase).collect()
}

/// The letters and digits of the folded text: what is left when spaces and punctuation no longer count.
pub fn skeleton(text: &str) -> String {
    fold(text).chars().filter(|c| c.is_alphanumeric()).collect()
}

/// Han characters (unified ideographs, extensions, and 〇).
pub fn is_han(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{323AF}' | '〇')
}

/// Letters of the Latin script, with diacritics.
pub fn is_latin(c: char) -> bool {
    c.is_ascii_alphabetic() || matches!(c, '\u{C0}'..='\u{24F}' | '\u{1E00}'..='\u{1EFF}') && c.is_alphabetic()
}

/// Pictographs, dingbats, flags and the joiners of emoji sequences. Typographic signs such as ™ and © are not.
pub fn is_emoji(c: char) -> bool {
    matches!(
        c,
        '\u{1F000}'..='\u{1FAFF}' | '\u{2600}'..='\u{27BF}' | '\u{2B00}'..='\u{2BFF}' | '\u{FE0F}' | '\u{20E3}'
            | '\u{2300}'..='\u{23FF}' | '\u{E0020}'..='\u{E007F}'
    )
}

/// A character that words of alphabetic scripts are made of. Han characters are words of their own.
pub fn is_word_inner(c: char) -> bool {
    (c.is_alphanumeric() && !is_han(c)) || matches!(c, '\'' | '’' | '-' | '_')
}

/// Marks that end a sentence.
pub fn is_sentence_end(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | '…' | '。' | '！' | '？')
}

/// The words of a text, folded: runs of letters and digits; each Han character is one word.
pub fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    for c in fold(text).chars() {
        if c.is_alphanumeric() && !is_han(c) {
            word.push(c);
            continue;
        }
        if matches!(c, '\'' | '’') && !word.is_empty() {
            continue;
        }
        if !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if is_han(c) {
            words.push(c.to_string());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// A word without its common English endings, so that hike, hikes and hiking compare equal. At least three letters stay.
pub fn stem(word: &str) -> String {
    let mut stem = word;
    for ending in ["ing", "ers", "er", "ed", "es", "s", "e", "y"] {
        match stem.strip_suffix(ending) {
            Some(rest) if rest.chars().count() >= 3 => {
                stem = rest;
                break;
            }
            _ => {}
        }
    }
    stem.to_owned()
}

/// Whether `term` stands in `text`: whole words where it is written with letters, anywhere where it is Han. Case,
/// width and punctuation do not count, and a plural or other common ending of the last word is allowed.
pub fn contains_term(text: &str, term: &str) -> bool {
    find_term(&fold(text).chars().collect::<Vec<_>>(), &skeleton(term))
}

/// The same over folded characters and a term's skeleton, for callers that test many terms.
pub fn find_term(folded: &[char], term_skeleton: &str) -> bool {
    let term: Vec<char> = term_skeleton.chars().collect();
    let (Some(&first), Some(&last)) = (term.first(), term.last()) else { return false };
    let kept: Vec<usize> = (0..folded.len()).filter(|&i| folded[i].is_alphanumeric()).collect();
    let is_inner = |c: char| c.is_alphanumeric() && !is_han(c);
    (0..(kept.len() + 1).saturating_sub(term.len())).any(|at| {
        let span = &kept[at..at + term.len()];
        if !span.iter().zip(&term).all(|(&i, &c)| folded[i] == c) {
            return false;
        }
        let (start, end) = (span[0], span[term.len() - 1]);
        let opens = !is_inner(first) || start == 0 || !is_inner(folded[start - 1]);
        opens && (!is_inner(last) || is_common_ending(&folded[end + 1..]))
    })
}

fn is_common_ending(rest: &[char]) -> bool {
    let tail: String = rest.iter().take_while(|c| c.is_alphanumeric() && !is_han(**c)).collect();
    matches!(tail.as_str(), "" | "s" | "es" | "er" | "est" | "ly" | "ed" | "ing")
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200B}' | '\u{200C}' | '\u{2060}' | '\u{FEFF}' | '\u{AD}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_has_no_breaks_controls_or_invisible_characters() {
        assert_eq!(single_line("  a\r\n b\u{0}\u{200B}c\t "), "a b c");
    }

    #[test]
    fn a_bounded_line_ends_with_a_whole_word() {
        assert_eq!(bounded_line("light and strong", 11), "light and");
        assert_eq!(bounded_line("light and strong", 9), "light and");
        assert_eq!(bounded_line("轻便又结实", 3), "轻便又");
    }

    #[test]
    fn terms_are_found_across_width_case_spaces_and_punctuation() {
        for text in ["Ｃｈｅａｐ gear", "c-h-e-a-p", "The cheapest", "so c h e a p"] {
            assert!(contains_term(text, "cheap"), "{text}");
        }
        assert!(contains_term("全 网·最 低", "最低"));
        assert!(!contains_term("glass as stated", "ass"));
        assert!(!contains_term("", "cheap"));
    }

    proptest! {
        #[test]
        fn a_bounded_line_is_never_longer_than_asked(text in ".{0,80}", max in 0usize..40) {
            prop_assert!(bounded_line(&text, max).chars().count() <= max);
        }
    }
}
