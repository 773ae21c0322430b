//! Channels and their fields: what fits where, in which unit, and what a field must not hold.
//!
//! The rules are data under `config/channels`, each with its source and date; this file only gives them a shape.

use std::sync::Arc;

use serde::Deserialize;
use thiserror::Error;

use super::brief::Language;
use super::units::Unit;

pub use super::channel_data::ChannelError;

/// All channels. Built once at start by [`Channels::embedded`] or [`Channels::load`].
#[derive(Debug, Clone)]
pub struct Channels {
    pub(super) channels: Vec<Arc<Channel>>,
}

/// A place where copy runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Channel {
    pub id: String,
    pub name: String,
    /// Version of the channel's rules, e.g. `2026-02`.
    pub version: String,
    /// Date at which the sources said so.
    pub as_of: String,
    /// In the channel's order; never empty.
    pub fields: Vec<Arc<Field>>,
}

/// One field of a channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    pub channel: String,
    pub name: String,
    pub kind: FieldKind,
    pub unit: Unit,
    pub min: usize,
    pub max: usize,
    /// Texts that a set needs and takes.
    pub items_min: usize,
    pub items_max: usize,
    /// At least one text of a set must be this short.
    pub short_max: Option<usize>,
    pub forbids: Vec<Forbidden>,
    /// Terms that the channel refuses.
    pub forbidden_terms: Vec<String>,
    pub max_exclamations: usize,
    /// Characters of a single word.
    pub max_word_chars: Option<usize>,
    /// What it is, as a prompt says it.
    pub format: Bilingual,
    /// How such texts are written, as a prompt says it. May be empty.
    pub hint: Bilingual,
    /// `channel.field@version`.
    pub rule: String,
    pub source: String,
    /// Whether the source was read; otherwise the limit is recalled.
    pub verified: bool,
}

/// A text of the data in both languages.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bilingual {
    pub en: String,
    pub zh: String,
}

impl Bilingual {
    pub fn of(&self, language: Language) -> &str {
        match language {
            Language::En => &self.en,
            Language::Zh => &self.zh,
        }
    }
}

/// How a field's text comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldKind {
    /// One short phrase.
    Headline,
    /// One or two sentences.
    Line,
    /// Several sentences.
    Paragraph,
    /// Copied from the brief: the brand's or product's name.
    Name,
    /// Copied from the brief: a word or two of a display URL.
    Path,
}

impl FieldKind {
    /// Whether a model writes it; otherwise it is copied from the brief.
    pub fn is_written(self) -> bool {
        matches!(self, Self::Headline | Self::Line | Self::Paragraph)
    }
}

/// What a field must not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forbidden {
    Emoji,
    /// `#` before a word.
    Hashtag,
    /// `@` before a word.
    Mention,
    Url,
    /// Seven digits and more in a row, spaces and hyphens not counted.
    Phone,
    Braces,
    Slash,
    /// A Latin word of four letters and more in capitals that is not in the brief.
    AllCaps,
    /// `——` or `—`.
    Dash,
}

/// What a request is for: a whole channel or one field of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    pub channel: Arc<Channel>,
    pub fields: Vec<Arc<Field>>,
}

impl Target {
    /// Whether the answer is a set of several fields.
    pub fn is_set(&self) -> bool {
        self.fields.len() > 1
    }
}

/// A name that no channel or field has.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no channel is called {given:?}")]
pub struct UnknownChannel {
    pub given: String,
    /// The nearest known name, if one is near.
    pub suggestion: Option<String>,
}

impl Channels {
    /// All channels, in the order of the data.
    pub fn iter(&self) -> impl Iterator<Item = &Channel> {
        self.channels.iter().map(Arc::as_ref)
    }

    /// Finds `channel` or `channel.field`.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn resolve(&self, name: &str) -> Result<Target, UnknownChannel> {
        let (id, field) = name.split_once('.').map_or((name, None), |(id, field)| (id, Some(field)));
        let target = self.channels.iter().find(|channel| channel.id == id).and_then(|channel| {
            let fields: Vec<_> =
                channel.fields.iter().filter(|f| field.is_none_or(|wanted| wanted == f.name)).cloned().collect();
            (!fields.is_empty()).then(|| Target { channel: channel.clone(), fields })
        });
        target.ok_or_else(|| UnknownChannel { given: name.to_owned(), suggestion: self.nearest(name) })
    }

    fn nearest(&self, name: &str) -> Option<String> {
        let fields = self.iter().flat_map(|c| c.fields.iter().map(move |f| format!("{}.{}", c.id, f.name)));
        nearest_name(name, self.iter().map(|c| c.id.clone()).chain(fields))
    }
}

/// The known name most like the given one, if it is at all alike.
pub fn nearest_name(given: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let given = given.to_lowercase();
    let near = known.map(|name| (strsim::jaro_winkler(&given, &name), name));
    near.filter(|(likeness, _)| *likeness >= 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_resolves_to_its_fields_in_order_and_a_field_to_itself() {
        let channels = Channels::embedded().unwrap();
        let names = |target: &Target| target.fields.iter().map(|f| f.name.clone()).collect::<Vec<_>>();
        let rsa = channels.resolve("google_rsa").unwrap();
        assert_eq!(names(&rsa), ["headline", "description", "path"]);
        assert!(rsa.is_set());
        let headline = channels.resolve("google_rsa.headline").unwrap();
        assert_eq!(names(&headline), ["headline"]);
        assert!(!headline.is_set());
        assert_eq!(headline.fields[0].max, 30);
    }

    #[test]
    fn an_unknown_name_comes_with_the_nearest_known_one() {
        let channels = Channels::embedded().unwrap();
        let suggestion = |name| channels.resolve(name).unwrap_err().suggestion;
        assert_eq!(suggestion("google_rsaa").as_deref(), Some("google_rsa"));
        assert_eq!(suggestion("google_rsa.headlin").as_deref(), Some("google_rsa.headline"));
        assert_eq!(suggestion("zzz"), None);
        assert!(channels.resolve("google_rsa.").is_err());
    }
}
