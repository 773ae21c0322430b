//! How good a text is beside others: what it says of the brief, how fluent, how new, how full.

use super::brief::Brief;
use super::check::is_stop_word;
use super::text::{contains_term, skeleton, stem, words};

/// Weights of the parts; they add up to 1. Chosen by reading, not yet by measurement.
const COVERAGE: f32 = 0.3;
const SUBJECT: f32 = 0.15;
const FLUENCY: f32 = 0.2;
const NOVELTY: f32 = 0.15;
const FILL: f32 = 0.1;
const KEYWORDS: f32 = 0.1;
/// Fluency of a text that no model judged.
const UNKNOWN_FLUENCY: f32 = 0.5;
/// Share of a fact's words that must stand in a text for the fact to be used.
const FACT_SHARE: f32 = 0.6;

/// Each in 0..=1, higher is better. Novelty depends on the others and is added by [`total`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Scores {
    /// Share of the facts that the text mentions; 1 when the brief has none.
    pub coverage: f32,
    /// Geometric mean of the tokens' probabilities, its square root taken to spread usual values over the range.
    pub fluency: f32,
    /// Length over limit.
    pub fill: f32,
    /// Share of the keywords in the text; 1 without keywords.
    pub keywords: f32,
    /// 1 when the text says what it is about: a word of the name, brand or category.
    pub subject: f32,
}

/// The facts of a brief, ready to be found in texts.
#[derive(Debug, Clone)]
pub struct Facts {
    facts: Vec<Fact>,
    /// Stems of the name, brand and category.
    subject: Vec<String>,
}

#[derive(Debug, Clone)]
struct Fact {
    text: String,
    skeleton: String,
    stems: Vec<String>,
}

impl Facts {
    /// Attributes, prices, offer, and a brand kit's facts.
    pub fn of(brief: &Brief, kit_facts: &[String]) -> Self {
        let product = &brief.product;
        let singles = [&product.price, &product.list_price, &product.offer];
        let texts = product.attributes.iter().chain(singles.into_iter().flatten()).chain(kit_facts);
        let facts =
            texts.map(|text| Fact { text: text.clone(), skeleton: skeleton(text), stems: stems(text) }).collect();
        let named = [Some(&product.name), product.brand.as_ref(), product.category.as_ref()];
        Self { facts, subject: named.into_iter().flatten().flat_map(|text| stems(text)).collect() }
    }

    /// Those that the text mentions, as the brief spells them.
    pub fn used(&self, text: &str) -> Vec<String> {
        let (whole, of_text) = (skeleton(text), stems(text));
        let is_used = |fact: &&Fact| {
            let found = fact.stems.iter().filter(|stem| of_text.contains(stem)).count();
            whole.contains(&fact.skeleton)
                || (!fact.stems.is_empty() && found as f32 >= fact.stems.len() as f32 * FACT_SHARE)
        };
        self.facts.iter().filter(is_used).map(|fact| fact.text.clone()).collect()
    }

    fn name_subject(&self, text: &str) -> bool {
        stems(text).iter().any(|stem| self.subject.contains(stem))
    }

    pub fn len(&self) -> usize {
        self.facts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.facts.is_empty()
    }
}

fn stems(text: &str) -> Vec<String> {
    words(text).iter().filter(|word| !is_stop_word(word)).map(|word| stem(word)).collect()
}

/// Scores one text. `used`: how many of the facts it mentions; `fill`: length over limit.
pub fn scores(
    text: &str,
    used: usize,
    facts: &Facts,
    keywords: &[String],
    mean_logprob: Option<f32>,
    fill: f32,
) -> Scores {
    let share = |part: usize, whole: usize| if whole == 0 { 1.0 } else { part as f32 / whole as f32 };
    let present = keywords.iter().filter(|keyword| contains_term(text, keyword)).count();
    let fluency = mean_logprob.filter(|logprob| logprob.is_finite()).map(|logprob| (logprob / 2.0).exp());
    Scores {
        coverage: share(used, facts.len()),
        fluency: fluency.unwrap_or(UNKNOWN_FLUENCY).clamp(0.0, 1.0),
        fill: fill.clamp(0.0, 1.0),
        keywords: share(present, keywords.len()),
        subject: if facts.name_subject(text) { 1.0 } else { 0.0 },
    }
}

/// The score that texts are ranked by, in 0..=1. One that lacks a keyword comes behind all that have theirs.
pub fn total(scores: &Scores, novelty: f32) -> f32 {
    let sum = COVERAGE * scores.coverage
        + SUBJECT * scores.subject
        + FLUENCY * scores.fluency
        + NOVELTY * novelty
        + FILL * scores.fill
        + KEYWORDS * scores.keywords;
    if scores.keywords < 1.0 { sum * 0.25 } else { 0.25 + sum * 0.75 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::brief::Product;

    fn facts() -> Facts {
        let attributes = vec!["waterproof".into(), "900 g".into(), "3-year warranty".into()];
        let product = Product { name: "Pack".into(), attributes, price: Some("$89".into()), ..Product::default() };
        Facts::of(&Brief { product, ..Brief::default() }, &[])
    }

    #[test]
    fn facts_are_found_in_other_words_order_and_spelling() {
        assert_eq!(
            facts().used("Waterproof, with a warranty of 3 years, at $89"),
            ["waterproof", "3-year warranty", "$89"]
        );
        assert_eq!(facts().used("Just a pack"), Vec::<String>::new());
    }

    #[test]
    fn a_missing_keyword_outweighs_everything_else() {
        let keywords = ["backpack".to_owned()];
        let with = scores("A backpack", 0, &facts(), &keywords, Some(-8.0), 0.1);
        let without = scores("Waterproof at $89", 4, &facts(), &keywords, Some(0.0), 1.0);
        assert!(total(&with, 0.0) >= total(&without, 1.0));
    }

    #[test]
    fn all_scores_stay_in_range() {
        for logprob in [None, Some(f32::NAN), Some(f32::NEG_INFINITY), Some(0.0), Some(-3.0)] {
            let scores = scores("x", 2, &facts(), &[], logprob, 1.7);
            for value in [scores.coverage, scores.fluency, scores.fill, scores.keywords, total(&scores, 1.0)] {
                assert!((0.0..=1.0).contains(&value), "{scores:?}");
            }
        }
    }
}
