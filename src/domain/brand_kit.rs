//! Brand kits: a brand's voice, terms and facts, which a brief may ask for by id.

use serde::Deserialize;
use thiserror::Error;

use super::brief::Brief;
use super::channel::nearest_name;
use super::data_file::line_of;

/// What a brand lays down for all its copy.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrandKit {
    pub id: String,
    /// The brand as readers know it; stands in for a brief's missing brand.
    pub name: String,
    /// ISO 639-1 code of the language that voice and facts are written in: they steer copy of that language only.
    pub language: String,
    /// How the brand speaks, as a prompt says it.
    #[serde(default)]
    pub voice: String,
    /// Tone where the brief states none.
    #[serde(default)]
    pub tone: String,
    /// Terms that copy should hold.
    #[serde(default)]
    pub required_terms: Vec<String>,
    /// Terms that copy never holds.
    #[serde(default)]
    pub banned_terms: Vec<String>,
    /// Claims that are always allowed.
    #[serde(default)]
    pub facts: Vec<String>,
}

/// A brand kit file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BrandKitError {
    #[error("{file}:{line}: {reason}")]
    Syntax { file: String, line: usize, reason: String },
    #[error("{file}: brand kit {id:?} is defined twice")]
    Duplicate { file: String, id: String },
}

/// All brand kits.
#[derive(Debug, Clone, Default)]
pub struct BrandKits {
    kits: Vec<BrandKit>,
}

/// An id that no kit has.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no brand kit is called {given:?}")]
pub struct UnknownBrandKit {
    pub given: String,
    pub suggestion: Option<String>,
}

/// The kits that ship.
const FILES: &[(&str, &str)] = &[("norrbo.toml", include_str!("../../config/brands/norrbo.toml"))];

impl BrandKits {
    /// The kits that ship with the program.
    ///
    /// # Errors
    /// When a file is wrong; a test keeps that from shipping.
    pub fn embedded() -> Result<Self, BrandKitError> {
        Self::load(FILES.iter().copied())
    }

    /// Reads files given as name and content.
    ///
    /// # Errors
    /// At the first mistake.
    pub fn load<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, BrandKitError> {
        let mut kits: Vec<BrandKit> = Vec::new();
        for (file, content) in files {
            let kit: BrandKit = toml::from_str(content).map_err(|error| {
                let line = line_of(content, &error);
                BrandKitError::Syntax { file: file.to_owned(), line, reason: error.message().to_owned() }
            })?;
            if kits.iter().any(|other| other.id == kit.id) {
                return Err(BrandKitError::Duplicate { file: file.to_owned(), id: kit.id });
            }
            kits.push(kit);
        }
        Ok(Self { kits })
    }

    /// Finds a kit by id.
    ///
    /// # Errors
    /// When there is none.
    pub fn get(&self, id: &str) -> Result<&BrandKit, UnknownBrandKit> {
        self.kits.iter().find(|kit| kit.id == id).ok_or_else(|| UnknownBrandKit {
            given: id.to_owned(),
            suggestion: nearest_name(id, self.kits.iter().map(|kit| kit.id.clone())),
        })
    }
}

impl BrandKit {
    /// Lays the kit over a brief: what the brief states stays, terms and facts are added.
    pub fn apply(&self, brief: &mut Brief) {
        let same_language = brief.resolved_language().code() == self.language;
        brief.product.brand.get_or_insert_with(|| self.name.clone());
        extend_distinct(&mut brief.banned_terms, &self.banned_terms);
        if !same_language {
            return;
        }
        if !self.tone.is_empty() {
            brief.tone.get_or_insert_with(|| self.tone.clone());
        }
        extend_distinct(&mut brief.keywords, &self.required_terms);
    }
}

fn extend_distinct(list: &mut Vec<String>, more: &[String]) {
    for term in more {
        if !list.iter().any(|given| given.eq_ignore_ascii_case(term)) {
            list.push(term.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::brief::Product;

    #[test]
    fn a_kit_adds_to_a_brief_and_overrides_nothing() {
        let kits = BrandKits::embedded().unwrap();
        let mut brief = Brief {
            product: Product { name: "Trail pack".into(), brand: Some("Ours".into()), ..Product::default() },
            banned_terms: vec!["Cheap".into()],
            ..Brief::default()
        };
        kits.get("norrbo").unwrap().apply(&mut brief);
        assert_eq!(brief.product.brand.as_deref(), Some("Ours"));
        assert_eq!(brief.tone.as_deref(), Some("friendly"));
        assert_eq!(brief.banned_terms, ["Cheap", "conquer", "extreme", "bargain"]);
    }

    #[test]
    fn an_unknown_kit_comes_with_the_nearest_name() {
        let error = BrandKits::embedded().unwrap().get("norbo").unwrap_err();
        assert_eq!(error.suggestion.as_deref(), Some("norrbo"));
    }

    #[test]
    fn a_bad_file_is_told_with_its_line() {
        let error = BrandKits::load([("k.toml", "id = \"k\"\nvoize = \"\"\n")]).unwrap_err();
        assert!(error.to_string().starts_with("k.toml:2: unknown field `voize`"), "{error}");
    }
}
