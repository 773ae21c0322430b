//! Cleans the callers' strings: NFC, one line, and nothing that a reader cannot see. Pure.
//!
//! Invisible characters carry hidden instructions into prompts (tag characters, zero-width text) or turn text around
//! (bidi controls), so they go. Emoji sequences are kept: the joiner and the variation selector stay behind a
//! pictograph.

use unicode_normalization::UnicodeNormalization;

/// NFC, without control and invisible characters, each run of white space one space, trimmed.
pub fn clean_line(given: &str) -> String {
    let visible = clean_lines(given);
    let mut line = String::with_capacity(visible.len());
    for word in visible.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

/// As [`clean_line`], but line breaks stay, all as `\n`, and white space is left as it is but at the ends.
pub fn clean_lines(given: &str) -> String {
    let mut kept = String::with_capacity(given.len());
    let mut previous = None;
    for c in given.nfc() {
        let c = match c {
            '\r' | '\u{2028}' | '\u{2029}' | '\u{85}' | '\u{b}' | '\u{c}' => '\n',
            '\t' => ' ',
            c => c,
        };
        if is_kept(c, previous) {
            kept.push(c);
            previous = Some(c);
        }
    }
    // What stood between a letter and its accent may be gone now.
    kept.trim().nfc().collect()
}

fn is_kept(c: char, previous: Option<char>) -> bool {
    match c {
        '\n' => true,
        // The joiner and the emoji presentation selector, where they shape an emoji.
        '\u{200d}' => previous.is_some_and(|p| is_pictograph(p) || p == '\u{fe0f}'),
        '\u{fe0f}' => previous.is_some_and(|p| is_pictograph(p) || matches!(p, '0'..='9' | '#' | '*')),
        c => !c.is_control() && !is_invisible(c),
    }
}

/// Format characters that show nothing: soft hyphen, zero-width, bidi controls, other variation selectors, fillers,
/// interlinear annotation, tags, and non-characters.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{fdd0}'..='\u{fdef}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
        || (c as u32) & 0xfffe == 0xfffe
}

fn is_pictograph(c: char) -> bool {
    matches!(c, '\u{a9}' | '\u{ae}' | '\u{203c}'..='\u{3299}' | '\u{1f000}'..='\u{1faff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{clean_line, clean_lines};

    #[test]
    fn hidden_instructions_are_stripped() {
        assert_eq!(clean_line("tea\u{e0069}\u{e0067}\u{200b}pot\u{202e}"), "teapot");
        assert_eq!(clean_line("\u{feff}a\u{0}b\u{1b}[31m"), "ab[31m");
    }

    #[test]
    fn white_space_becomes_single_spaces() {
        assert_eq!(clean_line("  dry\r\n\tgear\u{3000}now "), "dry gear now");
    }

    #[test]
    fn emoji_sequences_survive_and_stray_joiners_do_not() {
        assert_eq!(clean_line("👩\u{200d}🔬 ❤\u{fe0f} 1\u{fe0f}\u{20e3}"), "👩\u{200d}🔬 ❤\u{fe0f} 1\u{fe0f}\u{20e3}");
        assert_eq!(clean_line("a\u{200d}b\u{fe0f}"), "ab");
    }

    #[test]
    fn text_is_composed() {
        assert_eq!(clean_line("cafe\u{301}"), "café");
        assert_eq!(clean_line("智能手机"), "智能手机");
    }

    #[test]
    fn lines_are_kept_where_asked() {
        assert_eq!(clean_lines("a\r\nb\u{2028}c\n"), "a\n\nb\nc");
    }

    proptest! {
        #[test]
        fn cleaning_twice_changes_nothing(given in any::<String>()) {
            let once = clean_line(&given);
            prop_assert_eq!(clean_line(&once), once);
        }

        #[test]
        fn no_control_character_is_left(given in any::<String>()) {
            prop_assert!(!clean_line(&given).chars().any(char::is_control));
        }
    }
}
