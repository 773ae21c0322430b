//! The models known by name, with their pins: `config/models.toml`, compiled in.

use std::sync::OnceLock;

use serde::Deserialize;

use super::{ModelSource, SourceError};

const LIST: &str = include_str!("../../../config/models.toml");

/// One entry of the list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownModel {
    /// Short name, accepted wherever a source is.
    pub id: String,
    /// A model source without a pin.
    pub source: String,
    /// Lower-case hex; absent: the entry is a recipe whose bytes nobody checked.
    pub sha256: Option<String>,
    pub size_bytes: Option<u64>,
    /// What a first fetch transfers, where it differs from the file (a wheel is compressed).
    pub download_bytes: Option<u64>,
    /// ISO 639-1 codes.
    pub languages: Vec<String>,
    /// SPDX expression.
    pub license: String,
    /// The day the entry was checked, `YYYY-MM-DD`.
    pub as_of: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KnownModels {
    model: Vec<KnownModel>,
}

/// All known models; the first is the default.
pub fn known_models() -> Result<&'static [KnownModel], SourceError> {
    static MODELS: OnceLock<Vec<KnownModel>> = OnceLock::new();
    if let Some(models) = MODELS.get() {
        return Ok(models);
    }
    let list: KnownModels = toml::from_str(LIST).map_err(SourceError::KnownModels)?;
    Ok(MODELS.get_or_init(|| list.model))
}

/// Reads a source, or the id of a known model.
pub fn resolve(text: &str) -> Result<ModelSource, SourceError> {
    let models = known_models()?;
    if let Some(model) = models.iter().find(|model| model.id == text) {
        return model.source.parse();
    }
    text.parse().map_err(|source| {
        // Text without a scheme may well be a misspelled id; then the list of ids helps most.
        if text.contains(':') {
            return source;
        }
        let known = models.iter().map(|model| model.id.as_str()).collect::<Vec<_>>().join(", ");
        SourceError::UnknownModel { given: text.to_owned(), known, source: Box::new(source) }
    })
}

/// The entry of a source, whether or not the source is pinned by itself.
pub(super) fn entry_of(source: &ModelSource) -> Result<Option<&'static KnownModel>, SourceError> {
    let name = source.origin.to_string();
    Ok(known_models()?.iter().find(|model| model.source == name))
}

/// The digest that a source's file must have: its own pin, else the list's.
pub(super) fn pin_of(source: &ModelSource) -> Result<Option<String>, SourceError> {
    match &source.sha256 {
        Some(pin) => Ok(Some(pin.clone())),
        None => Ok(entry_of(source)?.and_then(|model| model.sha256.clone())),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::model::source::{Config, digest};

    #[test]
    fn every_entry_parses_and_is_well_formed() {
        let models = known_models().unwrap();
        for model in models {
            let source: ModelSource = model.source.parse().unwrap();
            assert_eq!(source.sha256, None, "{}: the pin belongs in its own field", model.id);
            assert_eq!(entry_of(&source).unwrap().unwrap().id, model.id);
            assert_eq!(model.sha256.as_deref().and_then(digest::parse_hex), model.sha256, "{}", model.id);
            assert!(!model.languages.is_empty() && !model.license.is_empty());
        }
        let ids: HashSet<_> = models.iter().map(|model| &model.id).collect();
        assert_eq!(ids.len(), models.len());
    }

    #[test]
    fn the_default_generator_is_the_first_entry_and_pinned() {
        let source = Config::default().source().unwrap();
        assert_eq!(source.to_string(), known_models().unwrap()[0].source);
        assert_eq!(pin_of(&source).unwrap(), known_models().unwrap()[0].sha256);
        assert!(pin_of(&source).unwrap().is_some());
    }

    #[test]
    fn an_id_is_a_source_and_a_misspelled_one_lists_the_ids() {
        assert_eq!(resolve("smollm2-135m-instruct").unwrap(), Config::default().source().unwrap());
        assert!(resolve("smollm3").unwrap_err().to_string().contains("smollm2-135m-instruct"));
        assert!(resolve("file:").unwrap_err().to_string().contains("no path"));
    }

    #[test]
    fn a_pin_in_the_source_wins_over_the_list() {
        let mut source = Config::default().source().unwrap();
        source.sha256 = Some("0".repeat(64));
        assert_eq!(pin_of(&source).unwrap(), source.sha256);
    }
}
