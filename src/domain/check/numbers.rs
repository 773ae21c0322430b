//! Numbers in a text: digits, number words and Chinese numerals, with what they count: money, percent or neither.

use std::collections::HashSet;

use crate::domain::text::{fold, is_han};

/// A number as a text states it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Number {
    /// Digits without separators and without trailing zeros after the point.
    pub value: String,
    pub mark: Mark,
    /// The unit of measure where it is a common one, in its short English form.
    pub unit: Option<&'static str>,
}

/// What a number's surroundings say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mark {
    Plain,
    Percent,
    /// A Chinese discount: tenths that are paid (八折).
    Tenths,
    Money(char),
    /// A place in a ranking (#1).
    Rank,
}

/// The numbers that a brief states.
#[derive(Debug, Clone, Default)]
pub struct Numbers(HashSet<Number>);

impl Numbers {
    pub fn of<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        Self(texts.flat_map(numbers).collect())
    }

    /// Whether the brief grounds a number: the same value, and where the text says money, percent, a discount or a
    /// rank, the brief must say the same. A number with a unit must not have another one, nor a price's sign, in the
    /// brief.
    pub fn ground(&self, number: &Number) -> bool {
        self.0.iter().filter(|given| given.value == number.value).any(|given| match (number.mark, number.unit) {
            (Mark::Plain, None) => true,
            (Mark::Plain, unit) => given.mark == Mark::Plain && (given.unit.is_none() || given.unit == unit),
            (mark, _) => given.mark == mark,
        })
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
    } else if before == Some('#') {
        Mark::Rank
    } else {
        before.and_then(currency_sign).or_else(|| currency_word(&rest)).map_or(Mark::Plain, Mark::Money)
    };
    found.push(Number { value: normalized(&chars[start..end]), mark, unit: unit(&rest) });
    end
}

/// The unit that a text begins with; one that is spelled in several ways has one name.
fn unit(rest: &str) -> Option<&'static str> {
    const LATIN: &[(&str, &[&str])] = &[
        ("g", &["g", "gram", "grams"]),
        ("kg", &["kg", "kgs", "kilo", "kilos"]),
        ("ml", &["ml"]),
        ("l", &["l", "liter", "liters", "litre", "litres"]),
        ("mm", &["mm"]),
        ("cm", &["cm"]),
        ("m", &["m", "meter", "meters", "metre", "metres"]),
        ("km", &["km"]),
        ("h", &["h", "hr", "hrs", "hour", "hours"]),
        ("min", &["min", "mins", "minute", "minutes"]),
        ("day", &["day", "days"]),
        ("week", &["week", "weeks"]),
        ("month", &["month", "months"]),
        ("year", &["year", "years", "yr", "yrs"]),
    ];
    const HAN: &[(&str, &str)] = &[
        ("kg", "千克"),
        ("kg", "公斤"),
        ("g", "克"),
        ("ml", "毫升"),
        ("l", "升"),
        ("mm", "毫米"),
        ("cm", "厘米"),
        ("m", "米"),
        ("km", "公里"),
        ("h", "小时"),
        ("h", "个小时"),
        ("min", "分钟"),
        ("day", "天"),
        ("week", "周"),
        ("month", "个月"),
        ("year", "年"),
    ];
    let word = rest.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    let latin = LATIN.iter().find(|(_, spellings)| spellings.contains(&word)).map(|(unit, _)| *unit);
    latin.or_else(|| HAN.iter().find(|(_, spelling)| rest.starts_with(spelling)).map(|(unit, _)| *unit))
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
        ("thirteen", "13"),
        ("fourteen", "14"),
        ("fifteen", "15"),
        ("sixteen", "16"),
        ("seventeen", "17"),
        ("eighteen", "18"),
        ("nineteen", "19"),
        ("twenty", "20"),
        ("thirty", "30"),
        ("forty", "40"),
        ("fifty", "50"),
        ("sixty", "60"),
        ("seventy", "70"),
        ("eighty", "80"),
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
    let Some((_, value)) = WORDS.iter().find(|(word, _)| *word == text) else { return end };
    let (value, end) = match ones_after(chars, end) {
        Some((one, end)) if text.ends_with("ty") => (format!("{}{one}", value.trim_end_matches('0')), end),
        _ => ((*value).to_owned(), end),
    };
    let rest = rest_of(chars, end);
    let mark = if rest.starts_with("percent") { Mark::Percent } else { Mark::Plain };
    found.push(Number { value, mark, unit: unit(&rest) });
    end
}

/// The digit that a word after a hyphen or space names, and where the word ends: the five of twenty-five.
fn ones_after(chars: &[char], end: usize) -> Option<(usize, usize)> {
    const ONES: [&str; 9] = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    let start = end + 1;
    if !matches!(chars.get(end), Some('-' | ' ')) {
        return None;
    }
    let word: String = chars[start..].iter().take_while(|c| c.is_alphanumeric()).collect();
    let one = ONES.iter().position(|one| *one == word)? + 1;
    Some((one, start + word.len()))
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
    const MEASURES: &str = "年月天日层件种款色档支瓶盒袋斤克米个倍次片包只张台元块升秒岁";
    // Measures whose first character alone is no measure: 十分 means "very".
    const LONG_MEASURES: &[&str] = &["小时", "分钟", "公斤", "公里", "毫升", "毫米", "厘米"];
    let end = numerals_end(chars, start);
    let Some(&next) = chars.get(end) else { return end };
    let numerals: Vec<u64> = chars[start..end].iter().filter_map(|c| numeral(*c)).collect();
    let rest = rest_of(chars, end);
    if numerals == [100] && rest.starts_with("分之") {
        let (from, to) = (end + 2, numerals_end(chars, end + 2));
        let part: Vec<u64> = chars[from..to].iter().filter_map(|c| numeral(*c)).collect();
        if !part.is_empty() {
            found.push(Number { value: chinese_value(&part).to_string(), mark: Mark::Percent, unit: None });
        }
        return to;
    }
    if next == '折' && !rest.starts_with("折叠") {
        found.push(Number { value: tenths(&numerals), mark: Mark::Tenths, unit: None });
    } else if numerals != [1] && (MEASURES.contains(next) || LONG_MEASURES.iter().any(|m| rest.starts_with(m))) {
        let mark = if matches!(next, '元' | '块') { Mark::Money('¥') } else { Mark::Plain };
        found.push(Number { value: chinese_value(&numerals).to_string(), mark, unit: unit(&rest) });
    }
    end
}

fn numerals_end(chars: &[char], start: usize) -> usize {
    start + chars[start..].iter().take_while(|c| numeral(**c).is_some()).count()
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
            ("25 colors", "Twenty-five colors"),
            ("3-year warranty", "三年质保"),
            ("30 USD", "for $30"),
            ("40L", "40-liter"),
            ("40 pockets", "40 g"),
            ("$89", "now 89"),
            ("续航10小时", "续航十小时"),
            ("50% cotton", "百分之五十"),
            ("ranked #1", "the #1 pack"),
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
            ("20 pockets, 5 colors", "Twenty-five colors"),
            ("", "lasts fifteen years"),
            ("3-year warranty", "weighs 3 kg"),
            ("$30", "30 liters"),
            ("1 kg", "the #1 pack"),
            ("", "续航十小时"),
            ("50 g", "百分之五十"),
        ];
        for (brief, text) in cases {
            assert!(!grounded(brief, text), "{brief} / {text}: {:?}", numbers(text));
        }
    }

    #[test]
    fn words_that_only_look_like_numbers_do_not_count() {
        assert!(numbers("一年四季百搭，一个就够，万物可爱，十分舒适，百分百棉。Often someone weighs it.").is_empty());
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
