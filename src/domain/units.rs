//! How channels count: the units that limits are stated in. Sources of the rules: the channel data under
//! `config/channels`.

use serde::Deserialize;
use unicode_normalization::UnicodeNormalization;
use unicode_width::UnicodeWidthChar;

use super::brief::Language;
use super::text::is_emoji;

/// A counting unit. [`Unit::count`] is monotone: more text never counts less, except that Unicode composition and the
/// fixed price of a URL may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Unicode scalar values.
    CodePoints,
    /// Wide and full-width characters count 2, all others 1 (Google, Microsoft, TikTok).
    DisplayWidth,
    /// Half the ASCII characters plus the others, rounded up, over UTF-16 units (Xiaohongshu, Weibo, Ocean Engine).
    HalfCeil,
    /// ASCII counts 1, everything else 2 for each UTF-16 unit (Baidu's 字符).
    BaiduBytes,
    /// Weighted characters of X: 1 in the Latin-like ranges, 2 elsewhere, 23 for a URL, 2 for an emoji sequence; NFC.
    TwitterWeighted,
    /// Messages needed: GSM-7 160 septets or 153 each, UCS-2 70 units or 67 each.
    SmsSegments,
    /// Bytes of the UTF-8 form.
    Utf8Bytes,
}

impl Unit {
    /// The wire form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CodePoints => "code_points",
            Self::DisplayWidth => "display_width",
            Self::HalfCeil => "half_ceil",
            Self::BaiduBytes => "baidu_bytes",
            Self::TwitterWeighted => "twitter_weighted",
            Self::SmsSegments => "sms_segments",
            Self::Utf8Bytes => "utf8_bytes",
        }
    }

    /// The length of a text.
    pub fn count(self, text: &str) -> usize {
        match self {
            Self::CodePoints => text.chars().count(),
            Self::DisplayWidth => text.chars().map(char_width).sum(),
            Self::HalfCeil => half_units(text).div_ceil(2),
            Self::BaiduBytes => half_units(text),
            Self::TwitterWeighted => twitter_weighted(text),
            Self::SmsSegments => sms_segments(text),
            Self::Utf8Bytes => text.len(),
        }
    }

    /// About how many characters of a language fit into `max`; what a prompt tells the model. Never more than fit.
    pub fn characters(self, max: usize, language: Language) -> usize {
        match (self, language) {
            (Self::CodePoints, _) => max,
            (Self::DisplayWidth | Self::BaiduBytes | Self::TwitterWeighted, Language::En) => max,
            (Self::DisplayWidth | Self::BaiduBytes | Self::TwitterWeighted, Language::Zh) => max / 2,
            (Self::HalfCeil, Language::En) => max * 2,
            (Self::HalfCeil, Language::Zh) => max,
            (Self::SmsSegments, Language::En) if max <= 1 => 160 * max,
            (Self::SmsSegments, Language::En) => 153 * max,
            (Self::SmsSegments, Language::Zh) if max <= 1 => 70 * max,
            (Self::SmsSegments, Language::Zh) => 67 * max,
            (Self::Utf8Bytes, Language::En) => max,
            (Self::Utf8Bytes, Language::Zh) => max / 3,
        }
    }

    /// Length over limit in 0..=1, as the ranking uses it. A number of messages is too coarse, so characters count.
    pub fn fill(self, text: &str, max: usize, language: Language) -> f32 {
        let (count, room) = match self {
            Self::SmsSegments => (text.chars().count(), self.characters(max, language)),
            _ => (self.count(text), max),
        };
        if room == 0 { 0.0 } else { (count as f32 / room as f32).clamp(0.0, 1.0) }
    }
}

/// Combining marks count 1 as well: no channel states that they are free.
fn char_width(c: char) -> usize {
    c.width().unwrap_or(1).max(1)
}

fn half_units(text: &str) -> usize {
    text.chars().map(|c| if c.is_ascii() { 1 } else { 2 * c.len_utf16() }).sum()
}

/// developer.x.com "Counting characters", twitter-text configuration v2 and later.
fn twitter_weighted(text: &str) -> usize {
    let text: String = text.nfc().collect();
    let mut total = 0;
    let mut word = String::new();
    for c in text.chars() {
        if c.is_whitespace() {
            total += word_weight(&word) + twitter_char(c);
            word.clear();
        } else {
            word.push(c);
        }
    }
    total + word_weight(&word)
}

/// A URL costs 23 however long it is.
const URL_WEIGHT: usize = 23;

fn word_weight(word: &str) -> usize {
    let Some(start) = ["http://", "https://"].iter().filter_map(|scheme| word.find(scheme)).min() else {
        return chars_weight(word);
    };
    let rest = &word[start..];
    let url_end = rest.find(|c: char| !c.is_ascii() || matches!(c, '"' | '<' | '>')).unwrap_or(rest.len());
    let url = rest[..url_end].trim_end_matches(['.', ',', '!', '?', ';', ':', ')', '\'']);
    if !url.contains("://") || url.ends_with("://") {
        return chars_weight(word);
    }
    chars_weight(&word[..start]) + URL_WEIGHT + word_weight(&rest[url.len()..])
}

fn chars_weight(text: &str) -> usize {
    let chars: Vec<char> = text.chars().collect();
    let (mut at, mut total) = (0, 0);
    while at < chars.len() {
        let end = emoji_sequence_end(&chars, at);
        total += if end > at { 2 } else { twitter_char(chars[at]) };
        at = end.max(at + 1);
    }
    total
}

fn twitter_char(c: char) -> usize {
    match c {
        '\u{0}'..='\u{10FF}' | '\u{2000}'..='\u{200D}' | '\u{2010}'..='\u{201F}' | '\u{2032}'..='\u{2037}' => 1,
        _ => 2,
    }
}

/// One past the emoji sequence that starts at `at`, or `at` when none does.
fn emoji_sequence_end(chars: &[char], at: usize) -> usize {
    let flag = |c: Option<&char>| c.is_some_and(|c| matches!(c, '\u{1F1E6}'..='\u{1F1FF}'));
    if flag(chars.get(at)) && flag(chars.get(at + 1)) {
        return at + 2;
    }
    if matches!(chars[at], '0'..='9' | '#' | '*') && chars[at + 1..].starts_with(&['\u{FE0F}', '\u{20E3}']) {
        return at + 3;
    }
    if !is_emoji(chars[at]) {
        return at;
    }
    let mut end = at + 1;
    loop {
        match chars.get(end) {
            Some('\u{FE0F}' | '\u{1F3FB}'..='\u{1F3FF}' | '\u{E0020}'..='\u{E007F}') => end += 1,
            Some('\u{200D}') if chars.get(end + 1).is_some_and(|c| is_emoji(*c)) => end += 2,
            _ => return end,
        }
    }
}

/// 3GPP TS 23.038. A pair of septets (escape and extension) or of surrogates is not split between messages.
fn sms_segments(text: &str) -> usize {
    let costs: Option<Vec<usize>> = text.chars().map(gsm7_septets).collect();
    match costs {
        Some(costs) => segments(&costs, 160, 153),
        None => segments(&text.chars().map(char::len_utf16).collect::<Vec<_>>(), 70, 67),
    }
}

fn segments(costs: &[usize], single: usize, part: usize) -> usize {
    let total: usize = costs.iter().sum();
    if total <= single {
        return usize::from(total > 0);
    }
    let (mut count, mut used) = (1, 0);
    for cost in costs {
        if used + cost > part {
            count += 1;
            used = 0;
        }
        used += cost;
    }
    count
}

/// Septets of a character in the GSM-7 default alphabet and its extension table; `None`: not in either.
fn gsm7_septets(c: char) -> Option<usize> {
    const BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
    match c {
        '|' | '^' | '€' | '{' | '}' | '[' | ']' | '~' | '\\' | '\u{C}' => Some(2),
        _ => BASIC.contains(c).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Unit; 7] = [
        Unit::CodePoints,
        Unit::DisplayWidth,
        Unit::HalfCeil,
        Unit::BaiduBytes,
        Unit::TwitterWeighted,
        Unit::SmsSegments,
        Unit::Utf8Bytes,
    ];

    #[test]
    fn chinese_characters_are_twice_as_wide() {
        assert_eq!(Unit::DisplayWidth.count("轻装上阵，防水双肩包十五个字刚好"), 32);
        assert_eq!(Unit::DisplayWidth.count("Dry gear, light shoulders"), 25);
        assert_eq!(Unit::DisplayWidth.count("ＡＢ👍é"), 7);
    }

    #[test]
    fn half_ceil_is_the_rule_of_xiaohongshu_titles() {
        assert_eq!(Unit::HalfCeil.count("Claude 4.6发布，AI助手又进化了"), 15);
        assert_eq!(Unit::HalfCeil.count("a"), 1);
        assert_eq!(Unit::HalfCeil.count("🚴"), 2);
    }

    #[test]
    fn baidu_counts_full_width_punctuation_as_two() {
        assert_eq!(Unit::BaiduBytes.count("防水背包，900g"), 14);
    }

    #[test]
    fn x_weighs_chinese_links_and_emoji_sequences() {
        assert_eq!(Unit::TwitterWeighted.count(&"好".repeat(140)), 280);
        assert_eq!(Unit::TwitterWeighted.count("see https://example.com/a/very/long/path?with=query now"), 4 + 23 + 4);
        assert_eq!(Unit::TwitterWeighted.count("👨‍👩‍👧‍👦"), 2);
        assert_eq!(Unit::TwitterWeighted.count("👋🏽🇳🇴1️⃣"), 6);
        assert_eq!(Unit::TwitterWeighted.count("cafe\u{301}"), 4);
        assert_eq!(Unit::TwitterWeighted.count("“quoted” – yes…"), 16);
    }

    #[test]
    fn sms_segments_follow_the_alphabet() {
        let cases = [
            ("a".repeat(160), 1),
            ("a".repeat(161), 2),
            ("a".repeat(306), 2),
            ("a".repeat(307), 3),
            ("€".repeat(80), 1),
            ("€".repeat(81), 2),
            ("好".repeat(70), 1),
            ("好".repeat(71), 2),
            ("好".repeat(135), 3),
            (format!("{}😀", "a".repeat(68)), 1),
            (format!("{}😀", "a".repeat(69)), 2),
            (format!("{}€a", "a".repeat(152)), 1),
            (String::new(), 0),
        ];
        for (text, expected) in cases {
            assert_eq!(Unit::SmsSegments.count(&text), expected, "{} characters", text.chars().count());
        }
        // 152 + the escape pair: the pair starts the second message; 152 + 153 then leaves 2 septets for a third.
        assert_eq!(Unit::SmsSegments.count(&format!("{}€{}", "a".repeat(152), "a".repeat(152))), 3);
    }

    #[test]
    fn bytes_are_of_the_utf8_form() {
        assert_eq!(Unit::Utf8Bytes.count("é好👍"), 2 + 3 + 4);
    }

    proptest! {
        #[test]
        fn every_unit_counts_nothing_only_for_nothing(text in "[ -~é好，👍🏽\u{200D}]{0,200}") {
            for unit in ALL {
                prop_assert_eq!(unit.count(&text) == 0, text.is_empty(), "{}", unit.as_str());
            }
        }

        #[test]
        fn units_keep_their_order(text in "[ -~好，é]{0,120}") {
            let points = Unit::CodePoints.count(&text);
            prop_assert!(Unit::DisplayWidth.count(&text) >= points);
            prop_assert!(Unit::BaiduBytes.count(&text) >= Unit::DisplayWidth.count(&text));
            prop_assert_eq!(Unit::HalfCeil.count(&text), Unit::BaiduBytes.count(&text).div_ceil(2));
            prop_assert!(Unit::Utf8Bytes.count(&text) >= points);
        }

        #[test]
        fn appending_a_plain_letter_never_counts_less(text in "[ -~好，€👍]{0,180}") {
            let longer = format!("{text} a");
            for unit in ALL {
                prop_assert!(unit.count(&longer) >= unit.count(&text), "{}", unit.as_str());
            }
        }

        #[test]
        fn as_many_plain_characters_as_the_prompt_names_fit(max in 1usize..300) {
            for unit in ALL {
                let english = "a".repeat(unit.characters(max, Language::En));
                let chinese = "好".repeat(unit.characters(max, Language::Zh));
                prop_assert!(unit.count(&english) <= max && unit.count(&chinese) <= max, "{}", unit.as_str());
            }
        }
    }
}
