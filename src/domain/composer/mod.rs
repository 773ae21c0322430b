//! Composes copy from patterns when no model can: in microseconds, in both languages, from the brief's own words only.

mod pattern;
mod slots;

use serde::Deserialize;
use thiserror::Error;

use super::brief::{Brief, Language};
use super::channel::{Field, FieldKind};
use super::data_file::line_of;
use super::text::{contains_term, find_term, fold, is_word_inner, skeleton};
use pattern::Pattern;
use slots::Slots;

/// Attributes that a list holds at most; beyond it a list reads like a data sheet.
const MAX_LISTED: usize = 5;
/// Other orders of the attributes that are tried, so that variants lead with different facts.
const ROTATIONS: usize = 6;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ComposerError {
    #[error("{file}:{line}: {reason}")]
    Syntax { file: &'static str, line: usize, reason: String },
    #[error("{file}: pattern {pattern:?}: {reason}")]
    Pattern { file: &'static str, pattern: String, reason: String },
}

/// All patterns.
#[derive(Debug)]
pub struct Composer {
    en: Patterns,
    zh: Patterns,
}

/// The patterns of one language.
#[derive(Debug)]
struct Patterns {
    groups: Vec<Group>,
    neutral: Vec<String>,
}

#[derive(Debug)]
struct Group {
    kinds: Vec<FieldKind>,
    patterns: Vec<Pattern>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[expect(dead_code, reason = "states the data's version; read by people")]
    version: String,
    #[expect(dead_code, reason = "states the data's age; read by people")]
    as_of: String,
    #[expect(dead_code, reason = "states the data's origin; read by people")]
    source: String,
    neutral: Vec<String>,
    group: Vec<GroupData>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupData {
    kinds: Vec<FieldKind>,
    patterns: Vec<String>,
}

impl Composer {
    /// The patterns that ship with the program.
    ///
    /// # Errors
    /// With file and line, or file and pattern, when they are broken.
    pub fn embedded() -> Result<Self, ComposerError> {
        let en = load("en/general.toml", include_str!("../../../config/templates/en/general.toml"))?;
        let zh = load("zh/general.toml", include_str!("../../../config/templates/zh/general.toml"))?;
        Ok(Self { en, zh })
    }

    /// Up to `n` distinct texts for one field, those first that hold the keywords and fill the field well; the same
    /// for the same seed. Each fits the field, holds nothing but the patterns' words and the brief's, and no term that
    /// the brief or the field bans. Empty only when not even a word of the product's name, category, brand or
    /// attributes may stand and fits.
    pub fn compose(&self, brief: &Brief, language: Language, field: &Field, n: usize, seed: u64) -> Vec<String> {
        let patterns = self
            .of(language)
            .groups
            .iter()
            .filter(|group| group.kinds.contains(&field.kind))
            .flat_map(|group| &group.patterns);
        let banned = Banned::new(brief, field);
        let mut order = Order(seed);
        let mut drafts: Vec<Draft> = Vec::new();
        let rotations = brief.product.attributes.len().clamp(1, ROTATIONS);
        for pattern in patterns {
            for rotation in 0..rotations {
                let slots = Slots::new(brief, language, rotation);
                if let Some(text) = longest_that_fits(pattern, &slots, field) {
                    let draft = Draft::new(text, pattern, rotation, brief, field, language, order.next());
                    if !banned.is_in(&draft.text) && !drafts.iter().any(|other| other.text == draft.text) {
                        drafts.push(draft);
                    }
                }
                if !pattern.uses_attributes() {
                    break;
                }
            }
        }
        drafts.sort_by(|a, b| b.merit.total_cmp(&a.merit));
        let mut texts = spread(drafts, n);
        if texts.is_empty() {
            texts = last_resort(brief, field, &banned);
            texts.truncate(n);
        }
        if texts.is_empty() && field.kind.is_written() {
            // The field asks for more than a bare name gives.
            let colon = if language == Language::Zh { "：" } else { ": " };
            let named = self.neutral(language).iter().map(|line| format!("{}{colon}{line}", brief.product.name));
            texts = named.filter(|text| fits(text, field)).take(n).collect();
        }
        texts
    }

    /// Lines that name nothing, shortest first: the last word where the checks refuse every text about the product,
    /// e.g. because its name is a banned term.
    pub fn neutral(&self, language: Language) -> &[String] {
        &self.of(language).neutral
    }

    fn of(&self, language: Language) -> &Patterns {
        match language {
            Language::En => &self.en,
            Language::Zh => &self.zh,
        }
    }
}

/// One filled pattern.
struct Draft {
    text: String,
    pattern: *const Pattern,
    rotation: usize,
    merit: f32,
}

impl Draft {
    fn new(
        text: String,
        pattern: &Pattern,
        rotation: usize,
        brief: &Brief,
        field: &Field,
        language: Language,
        chance: f32,
    ) -> Self {
        let keywords = brief.keywords.iter().filter(|keyword| contains_term(&text, keyword)).count() as f32;
        // A long field need not be full: copy is as long as it has something to say.
        let fill = field.unit.fill(&text, field.max, language).min(0.8);
        Self { merit: keywords * 4.0 + fill + chance * 0.5, text, pattern, rotation }
    }
}

/// The best drafts, each pattern and each leading attribute in turn before one comes again.
fn spread(mut drafts: Vec<Draft>, n: usize) -> Vec<String> {
    let mut texts = Vec::with_capacity(n.min(drafts.len()));
    let (mut patterns, mut rotations) = (Vec::new(), Vec::new());
    while texts.len() < n && !drafts.is_empty() {
        let used = |draft: &Draft| {
            usize::from(patterns.contains(&draft.pattern)) * 2 + usize::from(rotations.contains(&draft.rotation))
        };
        let best = drafts.iter().enumerate().min_by_key(|(index, draft)| (used(draft), *index)).map_or(0, |(i, _)| i);
        let draft = drafts.remove(best);
        if used(&draft) >= 2 && drafts.iter().all(|other| patterns.contains(&other.pattern)) {
            patterns.clear();
        }
        patterns.push(draft.pattern);
        rotations.push(draft.rotation);
        texts.push(draft.text);
    }
    texts
}

/// The pattern with as many listed attributes as fit.
fn longest_that_fits(pattern: &Pattern, slots: &Slots<'_>, field: &Field) -> Option<String> {
    let most = if pattern.uses_list() { slots.attributes().min(MAX_LISTED) } else { 1 };
    for listed in (1..=most.max(1)).rev() {
        // With optional parts first, then without.
        for optional in [true, false] {
            if let Some(text) = pattern.fill(slots, listed, optional).filter(|text| fits(text, field)) {
                return Some(text);
            }
        }
    }
    None
}

fn fits(text: &str, field: &Field) -> bool {
    let count = field.unit.count(text);
    count <= field.max && count >= field.min
}

/// The product's name, or what fits of it and its other words, cut at a word.
fn last_resort(brief: &Brief, field: &Field, banned: &Banned) -> Vec<String> {
    let product = &brief.product;
    let sources = [Some(&product.name), product.category.as_ref(), product.brand.as_ref()];
    let mut texts: Vec<String> = Vec::new();
    for source in sources.into_iter().flatten().chain(&product.attributes) {
        let mut text = source.trim();
        while !text.is_empty() && field.unit.count(text) > field.max {
            text = without_last_word(text);
        }
        if text.contains(char::is_alphanumeric)
            && fits(text, field)
            && !banned.is_in(text)
            && !texts.iter().any(|other| other == text)
        {
            texts.push(text.to_owned());
        }
    }
    texts
}

/// Cuts back to the last border between words, and what would then hang loose at the end. A Han character is a word.
fn without_last_word(text: &str) -> &str {
    // A mark within a number is part of it.
    let is_inner = |c: char| is_word_inner(c) || matches!(c, '.' | ',');
    let mut chars = text.char_indices().rev().peekable();
    while let Some((at, c)) = chars.next() {
        let is_border = chars.peek().is_none_or(|(_, before)| !is_inner(c) || !is_inner(*before));
        if is_border {
            let rest = &text[..at];
            let opened = rest.rfind(['(', '[', '{', '（', '【', '“', '《']);
            let closed = rest.rfind([')', ']', '}', '）', '】', '”', '》']);
            let end = opened.filter(|open| closed.is_none_or(|close| close < *open)).unwrap_or(at);
            return text[..end]
                .trim_end_matches(|c: char| !c.is_alphanumeric() && !matches!(c, ')' | ']' | '）' | '】'));
        }
    }
    ""
}

/// Terms that must not stand in a text: skeletons.
struct Banned(Vec<String>);

impl Banned {
    fn new(brief: &Brief, field: &Field) -> Self {
        let terms = brief.banned_terms.iter().chain(&field.forbidden_terms);
        Self(terms.map(|term| skeleton(term)).filter(|term| !term.is_empty()).collect())
    }

    fn is_in(&self, text: &str) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let folded: Vec<char> = fold(text).chars().collect();
        self.0.iter().any(|term| find_term(&folded, term))
    }
}

/// Draws numbers in 0..1 from a seed: the order of equals (SplitMix64).
struct Order(u64);

impl Order {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1_u64 << 24) as f32
    }
}

fn load(file: &'static str, content: &str) -> Result<Patterns, ComposerError> {
    let data: File = toml::from_str(content).map_err(|error: toml::de::Error| {
        let line = line_of(content, &error);
        ComposerError::Syntax { file, line, reason: error.message().to_owned() }
    })?;
    let parse = |pattern: &String| {
        Pattern::parse(pattern).map_err(|reason| ComposerError::Pattern { file, pattern: pattern.clone(), reason })
    };
    let group = |group: &GroupData| {
        let patterns = group.patterns.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Group { kinds: group.kinds.clone(), patterns })
    };
    Ok(Patterns { groups: data.group.iter().map(group).collect::<Result<_, _>>()?, neutral: data.neutral })
}

#[cfg(test)]
mod tests;
