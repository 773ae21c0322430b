//! The promise of composed texts, on briefs of all shapes and every field there is.

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

fn words(alphabet: &'static str, language: Language) -> impl Strategy<Value = String> {
    let (least, most) = if language == Language::Zh { (1, 6) } else { (3, 10) };
    let word = proptest::collection::vec(proptest::sample::select(alphabet.chars().collect::<Vec<_>>()), least..=most);
    let word = word.prop_map(|chars| chars.into_iter().collect::<String>());
    let words = if language == Language::Zh { 1..=1_usize } else { 1..=3 };
    proptest::collection::vec(word, words).prop_map(|words| words.join(" "))
}

fn brief(language: Language) -> impl Strategy<Value = Brief> {
    let alphabet = match language {
        Language::En => "bcdfglmnrstvaeiou",
        Language::Zh => "轻山水木光风杯灯衣鞋软暖净静香甜脆亮稳快",
    };
    let text = move || words(alphabet, language);
    let optional = move || proptest::option::of(text());
    let attributes = proptest::collection::vec(text(), 0..10);
    let price = proptest::option::of((1..9999_u32).prop_map(|price| format!("${price}")));
    (text(), optional(), optional(), attributes, price, optional()).prop_map(
        |(name, brand, category, attributes, price, offer)| Brief {
            product: Product { name, brand, category, attributes, price, offer, ..Product::default() },
            ..Brief::default()
        },
    )
}

fn keeps_its_promise(brief: &Brief, language: Language) -> Result<(), TestCaseError> {
    let (channels, composer, claims) =
        (Channels::embedded().unwrap(), Composer::embedded().unwrap(), Claims::embedded().unwrap());
    let ground = Ground::new(brief, &[], language, &claims);
    for channel in channels.iter() {
        for field in &channel.fields {
            let texts = composer.compose(brief, language, field, 3, 1);
            for text in &texts {
                prop_assert!(field.unit.count(text) <= field.max, "{}.{}: {text}", channel.id, field.name);
                prop_assert!(!text.contains(['{', '}', '[', ']']), "{text}");
                prop_assert!(
                    !["..", ",,", "。。", "，，", "，。", " ,", " ."].iter().any(|two| text.contains(two)),
                    "{text}"
                );
                if field.kind.is_written() {
                    let checked = ground.check(text, field);
                    prop_assert!(checked.is_ok(), "{}.{}: {text}: {checked:?}", channel.id, field.name);
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn english_texts_pass_every_check(brief in brief(Language::En)) {
        keeps_its_promise(&brief, Language::En)?;
    }

    #[test]
    fn chinese_texts_pass_every_check(brief in brief(Language::Zh)) {
        keeps_its_promise(&brief, Language::Zh)?;
    }
}
