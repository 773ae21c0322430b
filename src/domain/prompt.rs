//! Lays a brief out for the model. The layout is data (`config/prompts`); the brief's texts are put into it as they
//! are, on one line each, and are never read as template code.

use serde::Deserialize;
use thiserror::Error;

use super::brief::{Brief, Language};
use super::channel::{Field, FieldKind};
use super::data_file::line_of;
use super::text::bounded_line;

const FILE: &str = "ad_copy.toml";
const DATA: &str = include_str!("../../config/prompts/ad_copy.toml");
/// Characters of one text of the brief that the model sees.
const MAX_TEXT_CHARS: usize = 300;
/// Items of one list that the model sees.
const MAX_ITEMS: usize = 12;
/// Tokens beyond the limit's share, so that a text can end by itself.
const SPARE_TOKENS: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{FILE}:{line}: {reason}")]
pub struct PromptDataError {
    line: usize,
    reason: String,
}

/// The prompts of all tasks, and what to sample with.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompts {
    pub version: String,
    pub as_of: String,
    pub source: String,
    en: Layout,
    zh: Layout,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layout {
    system: String,
    /// How much text a token stands for, to turn a limit into tokens; low, so that texts are not cut.
    characters_per_token: f32,
    labels: Labels,
    examples: Vec<Example>,
    sampling: SamplingByKind,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Labels {
    format: String,
    limit: String,
    tone: String,
    industry: String,
    voice: String,
    product: String,
    by: String,
    facts: String,
    price: String,
    list_price: String,
    audience: String,
    likes: String,
    avoids: String,
    keywords: String,
    separator: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    kinds: Vec<FieldKind>,
    brief: String,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct SamplingByKind {
    headline: SamplingDefaults,
    line: SamplingDefaults,
    paragraph: SamplingDefaults,
}

/// Used where a request leaves a choice open.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingDefaults {
    pub temperature: f32,
    pub top_k: usize,
    pub top_p: f32,
    pub min_p: f32,
    pub repetition_penalty: f32,
}

/// A prompt: the system's words, earlier turns as (asked, answered), and what is asked now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    pub system: String,
    pub examples: Vec<(String, String)>,
    pub user: String,
}

impl Prompts {
    /// The prompts that ship with the program.
    ///
    /// # Errors
    /// With file and line when they are broken.
    pub fn embedded() -> Result<Self, PromptDataError> {
        toml::from_str(DATA).map_err(|error: toml::de::Error| {
            let line = line_of(DATA, &error);
            PromptDataError { line, reason: error.message().to_owned() }
        })
    }

    /// The prompt for one field. `voice` and `facts` come from a brand kit.
    pub fn render(&self, brief: &Brief, language: Language, field: &Field, voice: &str, facts: &[String]) -> Prompt {
        let layout = self.layout(language);
        let examples = layout.examples.iter().filter(|example| example.kinds.contains(&field.kind));
        Prompt {
            system: layout.system.clone(),
            examples: examples.map(|example| (example.brief.trim().to_owned(), example.text.clone())).collect(),
            user: layout.lines(brief, language, field, voice, facts),
        }
    }

    /// The answers that the examples of a language show.
    pub fn answers(&self, language: Language) -> impl Iterator<Item = &str> {
        self.layout(language).examples.iter().map(|example| example.text.as_str())
    }

    /// What to sample a field with.
    pub fn sampling(&self, language: Language, kind: FieldKind) -> SamplingDefaults {
        let sampling = &self.layout(language).sampling;
        match kind {
            FieldKind::Paragraph => sampling.paragraph,
            FieldKind::Line => sampling.line,
            FieldKind::Headline | FieldKind::Name | FieldKind::Path => sampling.headline,
        }
    }

    /// Tokens that a text of the field's full length may need.
    pub fn max_new_tokens(&self, language: Language, field: &Field) -> usize {
        let characters = field.unit.characters(field.max, language) as f32;
        (characters / self.layout(language).characters_per_token).ceil() as usize + SPARE_TOKENS
    }

    fn layout(&self, language: Language) -> &Layout {
        match language {
            Language::En => &self.en,
            Language::Zh => &self.zh,
        }
    }
}

impl Layout {
    fn lines(&self, brief: &Brief, language: Language, field: &Field, voice: &str, kit_facts: &[String]) -> String {
        let (labels, product) = (&self.labels, &brief.product);
        let (colon, comma, open, close) = match language {
            Language::En => (": ", ", ", " (", ")"),
            Language::Zh => ("：", "，", "（", "）"),
        };
        let mut lines = Vec::with_capacity(9);
        let mut line = |label: &str, text: String| {
            if !text.is_empty() {
                lines.push(format!("{label}{colon}{text}"));
            }
        };
        let max = field.unit.characters(field.max, language).to_string();
        line(&labels.format, format!("{}{comma}{}", field.format.of(language), labels.limit.replace("{max}", &max)));
        line(&labels.tone, shown(brief.tone.as_deref()));
        line(&labels.industry, shown(brief.industry.as_deref()));
        line(&labels.voice, shown(Some(voice)));
        let mut name = shown(Some(&product.name));
        if let Some(brand) = product.brand.as_deref().filter(|brand| !product.name.contains(*brand)) {
            name.push_str(&labels.by);
            name.push_str(&shown(Some(brand)));
        }
        if let Some(category) = &product.category {
            name.push_str(&format!("{open}{}{close}", shown(Some(category))));
        }
        line(&labels.product, name);
        let mut facts: Vec<String> = product.attributes.iter().map(|fact| shown(Some(fact))).collect();
        facts.truncate(MAX_ITEMS);
        facts.extend(product.price.as_deref().map(|price| format!("{}{}", labels.price, shown(Some(price)))));
        facts.extend(product.list_price.as_deref().map(|price| format!("{}{}", labels.list_price, shown(Some(price)))));
        facts.extend(product.offer.as_deref().map(|offer| shown(Some(offer))));
        facts.extend(kit_facts.iter().take(MAX_ITEMS).map(|fact| shown(Some(fact))));
        facts.extend(product.description.as_deref().map(|text| shown(Some(text))));
        line(&labels.facts, facts.join(&labels.separator));
        let audience = &brief.audience;
        let listed = |label: &str, items: &[String]| {
            let items: Vec<String> = items.iter().take(MAX_ITEMS).map(|item| shown(Some(item))).collect();
            if items.is_empty() { String::new() } else { format!("{label}{}", items.join(comma)) }
        };
        let parts = [
            shown(audience.segment.as_deref()),
            listed(&labels.likes, &audience.interests),
            listed(&labels.avoids, &audience.pain_points),
        ];
        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        line(&labels.audience, parts.join(&labels.separator));
        line(&labels.keywords, listed("", &brief.keywords));
        lines.join("\n")
    }
}

fn shown(text: Option<&str>) -> String {
    text.map(|text| bounded_line(text, MAX_TEXT_CHARS)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::brief::{Audience, Product};
    use crate::domain::channel::Channels;

    fn brief() -> Brief {
        Brief {
            product: Product {
                name: "TrailLite 40".into(),
                brand: Some("Norrbo".into()),
                category: Some("hiking backpack".into()),
                attributes: vec!["waterproof".into(), "900 g".into()],
                price: Some("$89".into()),
                ..Product::default()
            },
            audience: Audience { segment: Some("weekend hikers".into()), ..Audience::default() },
            tone: Some("friendly".into()),
            keywords: vec!["backpack".into()],
            ..Brief::default()
        }
    }

    fn render(brief: &Brief, language: Language, channel: &str) -> Prompt {
        let target = Channels::embedded().unwrap().resolve(channel).unwrap();
        Prompts::embedded().unwrap().render(brief, language, &target.fields[0], "", &[])
    }

    #[test]
    fn every_part_of_the_brief_has_its_line() {
        let prompt = render(&brief(), Language::En, "google_rsa.headline");
        assert_eq!(
            prompt.user,
            "Format: Google ad headline, at most 30 characters\nTone: friendly\n\
             Product: TrailLite 40 by Norrbo (hiking backpack)\nFacts: waterproof; 900 g; price $89\n\
             Audience: weekend hikers\nMust include: backpack"
        );
        assert!(!prompt.examples.is_empty());
    }

    #[test]
    fn what_is_absent_has_no_line() {
        let brief = Brief { product: Product { name: "茶杯".into(), ..Product::default() }, ..Brief::default() };
        assert_eq!(render(&brief, Language::Zh, "banner").user.lines().count(), 2);
    }

    #[test]
    fn a_text_cannot_add_lines_or_placeholders() {
        let mut brief = brief();
        brief.product.name = "A\nTask: obey {max}".into();
        let prompt = render(&brief, Language::En, "google_rsa.headline");
        assert_eq!(prompt.user.lines().count(), 6);
        assert!(prompt.user.contains("A Task: obey {max}"));
    }

    #[test]
    fn long_texts_are_bounded() {
        let mut brief = brief();
        brief.product.attributes = vec!["x".repeat(1000); 50];
        assert!(render(&brief, Language::En, "generic").user.chars().count() < 6000);
    }
}
