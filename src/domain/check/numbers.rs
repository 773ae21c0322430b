//! Numbers in a text: digits, number words and Chinese numerals, with what they count: money, percent or neither.

use std::collections::HashSet;

use crate::domain::text::{fold, is_han};

/// A number as a text states it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Number {
    /// Digits without separators and without trailing zeros after the point.
    pub value: String,
    pub mark: Mark,
}

/// What a number's surroundings say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mark {
    Plain,
    Percent,
    /// A Chinese discount: tenths that are paid (八折).
    Tenths,
    Money(char),
}

/// The numbers that a brief states.
#[derive(Debug, Clone, Default)]
pub struct Numbers(HashSet<Number>);

impl Numbers {
    pub fn of<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        Self(texts.flat_map(numbers).collect())
    }

    /// Whether the brief grounds a number: the same value, and where the text says money, percent or a discount, the
    /// brief must say the same.
    pub fn ground(&self, number: &Number) -> bool {
        match number.mark {
            Mark::Plain => self.0.iter().any(|given| given.value == number.value),
            Mark::Percent | Mark::Tenths | Mark::Money(_) => self.0.contains(number),
        }
    }
}

/// All numbers of a text, in order.
pub fn numbers(text: &str) -> Vec<Number> {
    let folded: Vec<char> = fold(text).chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < folded.len() {
        let c = folded[at];
        let end = if c.is_numeric() && !is_han(c) {
            digits(&folded, at, &mut found)
        } else if c.is_ascii_alphabetic() {
            word(&folded, at, &mut found)
        } else if numeral(c).is_some() {
            chinese(&folded, at, &mut found)
        } else {
            at + 1
        };
        at = end.max(at + 1);
    }
    found
}

fn digits(chars: &[char], start: usize, found: &mut Vec<Number>) -> usize {
    let mut end = start;
    while end < chars.len() {
        let inner = matches!(chars[end], '.' | ',') && chars.get(end + 1).is_some_and(|c| c.is_numeric());
        if !inner && (!chars[end].is_numeric() || is_han(chars[end])) {
            break;
        }
        end += 1;
    }
    let before = chars[..start].iter().rev().find(|c| **c != ' ').copied();
    let rest = rest_of(chars, end);
    let mark = if rest.starts_with('%') || rest.starts_with("percent") {
        Mark::Percent
    } else if rest.starts_with('折') {
        Mark::Tenths
    } else {
        before.and_then(currency_sign).or_else(|| currency_word(&rest)).map_or(Mark::Plain, Mark::Money)
    };
    found.push(Number { value: normalized(&chars[start..end]), mark });
    end
}

/// The text after a number, spaces skipped; long enough to hold a unit.
fn rest_of(chars: &[char], end: usize) -> String {
    chars[end..].iter().skip_while(|c| matches!(c, ' ' | '-')).take(8).collect()
}

fn currency_sign(c: char) -> Option<char> {
    matches!(c, '$' | '£' | '€' | '¥' | '₹' | '₽' | '₩').then_some(c)
}

fn currency_word(rest: &str) -> Option<char> {
    const WORDS: &[(&str, char)] = &[
        ("元", '¥'),
        ("块", '¥'),
        ("圆", '¥'),
        ("rmb", '¥'),
        ("yuan", '¥'),
        ("cny", '¥'),
        ("usd", '$'),
        ("dollar", '$'),
        ("美元", '$'),
        ("eur", '€'),
        ("€", '€'),
        ("£", '£'),
        ("$", '$'),
        ("gbp", '£'),
        ("pounds ", '£'),
    ];
    WORDS.iter().find(|(word, _)| rest.starts_with(word)).map(|(_, sign)| *sign)
}

/// `1,299.00` and `1299` are the same number; `3,5` is three and a half.
fn normalized(chars: &[char]) -> String {
    let text: String = chars.iter().collect();
    let groups: Vec<&str> = text.split(',').collect();
    let thousands = groups[1..].iter().all(|g| g.split('.').next().is_some_and(|digits| digits.chars().count() == 3));
    let plain = if thousands { text.replace(',', "") } else { text.replace(',', ".") };
    match plain.split_once('.') {
        Some((whole, part)) if part.chars().all(|c| c == '0') => whole.to_owned(),
        Some(_) if plain.matches('.').count() == 1 => plain.trim_end_matches('0').to_owned(),
        _ => plain,
    }
}

fn word(chars: &[char], start: usize, found: &mut Vec<Number>) -> usize {
    // "One" is left out: it is a pronoun more often than a number.
    const WORDS: &[(&str, &str)] = &[
        ("two", "2"),
        ("three", "3"),
        ("four", "4"),
        ("five", "5"),
        ("six", "6"),
        ("seven", "7"),
        ("eight", "8"),
        ("nine", "9"),
        ("ten", "10"),
        ("eleven", "11"),
        ("twelve", "12"),
        ("twenty", "20"),
        ("thirty", "30"),
        ("forty", "40"),
        ("fifty", "50"),
        ("sixty", "60"),
        ("ninety", "90"),
        ("hundred", "100"),
        ("hundreds", "100"),
        ("thousand", "1000"),
        ("thousands", "1000"),
        ("million", "1000000"),
        ("millions", "1000000"),
        ("dozen", "12"),
        ("dozens", "12"),
    ];
    let inner = |c: &char| c.is_alphanumeric() && !is_han(*c);
    let end = start + chars[start..].iter().take_while(|c| inner(c)).count();
    if start > 0 && inner(&chars[start - 1]) {
        return end;
    }
    let text: String = chars[start..end].iter().collect();
    if let Some((_, value)) = WORDS.iter().find(|(word, _)| *word == text) {
        let percent = rest_of(chars, end).starts_with("percent");
        found.push(Number { value: (*value).to_owned(), mark: if percent { Mark::Percent } else { Mark::Plain } });
    }
    end
}

fn numeral(c: char) -> Option<u64> {
    Some(match c {
        '一' => 1,
        '二' | '两' => 2,
        '三' => 3,
        '四' => 4,
        '五' => 5,
        '六' => 6,
        '七' => 7,
        '八' => 8,
        '九' => 9,
        '十' => 10,
        '百' => 100,
        '千' => 1_000,
        '万' => 10_000,
        _ => return None,
    })
}

/// A Chinese numeral counts only before a measure word or 折: 百搭 and 四季 are words, and 一 is an article.
fn chinese(chars: &[char], start: usize, found: &mut Vec<Number>) -> usize {
    const MEASURES: &str = "年月天日层件种款色档支瓶盒袋斤克米个倍次片包只张台元块";
    let end = start + chars[start..].iter().take_while(|c| numeral(**c).is_some()).count();
    let Some(&next) = chars.get(end) else { return end };
    let numerals: Vec<u64> = chars[start..end].iter().filter_map(|c| numeral(*c)).collect();
    if next == '折' {
        found.push(Number { value: tenths(&numerals), mark: Mark::Tenths });
    } else if MEASURES.contains(next) && numerals != [1] {
        let mark = if matches!(next, '元' | '块') { Mark::Money('¥') } else { Mark::Plain };
        found.push(Number { value: chinese_value(&numerals).to_string(), mark });
    }
    end
}

/// 八五折 pays 8.5 tenths.
fn tenths(numerals: &[u64]) -> String {
    let digits: Vec<String> = numerals.iter().map(u64::to_string).collect();
    digits.join(".")
}

fn chinese_value(numerals: &[u64]) -> u64 {
    let (mut total, mut section, mut digit) = (0_u64, 0_u64, 0_u64);
    for &n in numerals {
        match n {
            1..=9 => digit = n,
            10_000 => {
                total = total.saturating_add((section + digit).max(1).saturating_mul(n));
                (section, digit) = (0, 0);
            }
            _ => {
                section = section.saturating_add(digit.max(1).saturating_mul(n));
                digit = 0;
            }
        }
    }
    total.saturating_add(section).saturating_add(digit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grounded(brief: &str, text: &str) -> bool {
        let given = Numbers::of([brief].into_iter());
        numbers(text).iter().all(|n| given.ground(n))
    }

    #[test]
    fn the_same_number_in_another_dress_is_grounded() {
        let cases = [
            ("$1,299.00", "Now $1299"),
            ("900 g", "Only ９００ g"),
            ("3 team cards", "Three team cards"),
            ("39.9元", "¥39.9带走"),
            ("五年质保", "5年质保"),
            ("八五折", "8.5折"),
            ("3,5 kg", "3.5 kg"),
            ("20% off", "20 percent off"),
            ("20:15", "at 20:15"),
        ];
        for (brief, text) in cases {
            assert!(grounded(brief, text), "{brief} / {text}: {:?}", numbers(text));
        }
    }

    #[test]
    fn an_invented_number_is_not_grounded() {
        let cases = [
            ("$89", "$79"),
            ("30 cm wide", "for $30"),
            ("50 g", "50% off"),
            ("89 g", "€89"),
            ("防水", "八折"),
            ("$20", "20元"),
            ("light", "thousands of fans"),
            ("三层", "四层"),
            ("1.5 kg", "15 kg"),
            ("2 kg", "② for ③"),
            ("", "½ the weight"),
        ];
        for (brief, text) in cases {
            assert!(!grounded(brief, text), "{brief} / {text}: {:?}", numbers(text));
        }
    }

    #[test]
    fn words_that_only_look_like_numbers_do_not_count() {
        assert!(numbers("一年四季百搭，一个就够，万物可爱。Often someone weighs it.").is_empty());
        assert_eq!(chinese_value(&[3, 100, 6, 10, 5]), 365);
        assert_eq!(chinese_value(&[10, 2]), 12);
        assert_eq!(chinese_value(&[2, 10_000, 5, 1_000]), 25_000);
    }

    proptest! {
        #[test]
        fn a_text_grounds_itself(text in "[0-9a-z $%.,元折八两个万]{0,60}") {
            prop_assert!(grounded(&text, &text));
        }
    }
}
