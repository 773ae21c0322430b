//! The promise of composed texts, on briefs of all shapes and every field there is.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::domain::brief::Product;
use crate::domain::channel::Channels;
use crate::domain::check::Ground;
use crate::domain::check::claims::Claims;

fn trail_pack() -> Brief {
    Brief {
        product: Product {
            name: "TrailLite 40".into(),
            brand: Some("Norrbo".into()),
            category: Some("hiking backpack".into()),
            attributes: vec!["waterproof".into(), "900 g".into(), "3-year warranty".into()],
            price: Some("$89".into()),
            ..Product::default()
        },
        ..Brief::default()
    }
}

fn composed(brief: &Brief, language: Language, channel: &str, n: usize) -> Vec<String> {
    let target = Channels::embedded().unwrap().resolve(channel).unwrap();
    Composer::embedded().unwrap().compose(brief, language, &target.fields[0], n, 7)
}

#[test]
fn texts_are_distinct_and_the_same_for_a_seed() {
    let texts = composed(&trail_pack(), Language::En, "google_rsa.description", 6);
    assert_eq!(texts.len(), 6);
    assert!(texts.iter().enumerate().all(|(i, text)| !texts[..i].contains(text)), "{texts:?}");
    assert_eq!(texts, composed(&trail_pack(), Language::En, "google_rsa.description", 6));
}

#[test]
fn a_name_alone_is_enough() {
    for (name, language) in [("茶杯", Language::Zh), ("Mug", Language::En)] {
        let brief = Brief { product: Product { name: name.into(), ..Product::default() }, ..Brief::default() };
        for channel in ["banner", "generic", "product_page", "push.title", "google_rsa.path"] {
            assert!(!composed(&brief, language, channel, 1).is_empty(), "{name} {channel}");
        }
    }
}

#[test]
fn a_keyword_comes_first() {
    let brief = Brief { keywords: vec!["rucksack".into()], ..trail_pack() };
    assert!(composed(&brief, Language::En, "google_rsa.description", 1)[0].to_lowercase().contains("rucksack"));
}

#[test]
fn user_text_is_data() {
    let mut brief = trail_pack();
    brief.product.name = "{price} [x]".into();
    assert!(composed(&brief, Language::En, "generic", 3).iter().any(|text| text.contains("{price} [x]")));
}

#[test]
fn banned_words_of_patterns_are_avoided() {
    let brief = Brief { banned_terms: vec!["meet".into(), "LOOKING for".into(), "waterproof".into()], ..trail_pack() };
    let texts = composed(&brief, Language::En, "google_rsa.description", 8);
    assert!(texts.len() >= 3, "{texts:?}");
    for text in texts {
        assert!(brief.banned_terms.iter().all(|term| !contains_term(&text, term)), "{text}");
    }
}

#[test]
fn a_value_keeps_its_own_marks() {
    let mut brief = trail_pack();
    brief.product.name = "So..ft, 2.0".into();
    for text in composed(&brief, Language::En, "generic", 5) {
        assert!(!text.contains("So") || text.contains("So..ft, 2.0"), "{text}");
    }
}

#[test]
fn names_are_shortened_between_words() {
    assert_eq!(without_last_word("TrailLite Rolltop 40"), "TrailLite Rolltop");
    assert_eq!(without_last_word("智能TrailLite"), "智能");
    assert_eq!(without_last_word("轻便背包"), "轻便背");
    assert_eq!(without_last_word("Rucksack"), "");
    assert_eq!(without_last_word("A & B"), "A");
    assert_eq!(without_last_word("背包 [2.0]"), "背包");
    assert_eq!(without_last_word("Pack 2.0"), "Pack");
}

fn words(alphabet: &'static str, language: Language) -> impl Strategy<Value = String> {
    let (least, most) = if language == Language::Zh { (1, 6) } else { (3, 10) };
    let word = proptest::collection::vec(proptest::sample::select(alphabet.chars().collect::<Vec<_>>()), least..=most);
    let word = word.prop_map(|chars| chars.into_iter().collect::<String>());
    let words = if language == Language::Zh { 1..=1_usize } else { 1..=3 };
    proptest::collection::vec(word, words).prop_map(|words| words.join(" "))
}

/// A name, with or without characters that mean something to patterns, channels or punctuation.
fn name(language: Language) -> impl Strategy<Value = String> {
    let odd = proptest::sample::select(vec!["", "", "", "", " {x}", " [2.0]", "™", " & Co.", "+", "（新）", "'s", "…"]);
    (words_of(language), odd).prop_map(|(name, odd)| format!("{name}{odd}"))
}

fn words_of(language: Language) -> impl Strategy<Value = String> {
    match language {
        Language::En => words("bcdfglmnrstvaeiou", language),
        Language::Zh => words("轻山水木光风杯灯衣鞋软暖净静香甜脆亮稳快", language),
    }
}

fn brief(language: Language) -> impl Strategy<Value = Brief> {
    let text = move || words_of(language);
    let optional = move || proptest::option::of(text());
    let attributes = proptest::collection::vec(text(), 0..=10);
    let price = proptest::option::of((1..9999_u32).prop_map(|price| format!("${price}")));
    let keywords = proptest::collection::vec(text(), 0..=2);
    (name(language), optional(), optional(), attributes, price, optional(), keywords).prop_map(
        |(name, brand, category, attributes, price, offer, keywords)| Brief {
            product: Product { name, brand, category, attributes, price, offer, ..Product::default() },
            keywords,
            ..Brief::default()
        },
    )
}

/// Whether the name marks what the field or the checks on model text refuse whoever wrote it.
fn is_plain(brief: &Brief) -> bool {
    !brief.product.name.contains(['{', '[', '…', '\'', '（', '&', '+'])
}

fn keeps_its_promise(brief: &Brief, language: Language) -> Result<(), TestCaseError> {
    static DATA: LazyLock<(Channels, Composer, Claims)> =
        LazyLock::new(|| (Channels::embedded().unwrap(), Composer::embedded().unwrap(), Claims::embedded().unwrap()));
    let (channels, composer, claims) = &*DATA;
    let ground = Ground::new(brief, &[], language, claims);
    let name = &brief.product.name;
    for channel in channels.iter() {
        for field in &channel.fields {
            let texts = composer.compose(brief, language, field, 3, 1);
            let is_short = field.kind != FieldKind::Paragraph;
            let may_be_empty = is_short && (field.min > 0 || !fits(name, field));
            let place = format!("{}.{}", channel.id, field.name);
            prop_assert_eq!(&texts, &composer.compose(brief, language, field, 3, 1), "{}", &place);
            prop_assert!(texts.len() <= 3 && (!texts.is_empty() || may_be_empty), "{place}: {texts:?}");
            for (index, text) in texts.iter().enumerate() {
                prop_assert!(!texts[..index].contains(text), "{place}: {text} twice");
                prop_assert!(field.unit.count(text) <= field.max, "{place}: {text}");
                let own = text.replace(name.as_str(), "N");
                prop_assert!(!own.contains(['{', '}', '[', ']']), "{place}: {text}");
                let doubled = ["..", ",,", "。。", "，，", "，。", "：，", " ,", " .", "  "];
                prop_assert!(!doubled.iter().any(|two| own.contains(two)), "{place}: {text}");
                if field.kind.is_written() && is_plain(brief) {
                    let checked = ground.check(text, field);
                    prop_assert!(checked.is_ok(), "{place}: {text}: {checked:?}");
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn english_texts_pass_every_check(brief in brief(Language::En)) {
        keeps_its_promise(&brief, Language::En)?;
    }

    #[test]
    fn chinese_texts_pass_every_check(brief in brief(Language::Zh)) {
        keeps_its_promise(&brief, Language::Zh)?;
    }
}
