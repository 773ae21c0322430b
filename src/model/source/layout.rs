//! Which files of a Hugging Face repository or folder make up a model. Pure; knows only names.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::ModelFormat;

pub(super) const INDEX: &str = "model.safetensors.index.json";

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";
const GENERATION_CONFIG: &str = "generation_config.json";
const SINGLE_WEIGHTS: &str = "model.safetensors";

/// More shards than any model that fits this program has.
const MAX_SHARDS: usize = 256;
/// The largest published indexes hold some 100,000 tensors.
const MAX_INDEX_TENSORS: usize = 1_000_000;

/// The files to take from a Hugging Face folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selection {
    pub files: Vec<String>,
    pub weights: SelectedWeights,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum SelectedWeights {
    /// `model.safetensors`; already among the files.
    Single,
    /// [`INDEX`] names the shards, which are still to be added.
    Sharded,
}

/// Chooses among the names in a folder, or says what is missing.
pub(super) fn select(has: impl Fn(&str) -> bool) -> Result<Selection, String> {
    for required in [CONFIG, TOKENIZER] {
        if !has(required) {
            return Err(format!("has no {required}"));
        }
    }
    let known = [CONFIG, TOKENIZER, TOKENIZER_CONFIG, CHAT_TEMPLATE, GENERATION_CONFIG];
    let mut files: Vec<String> = known.into_iter().filter(|name| has(name)).map(str::to_owned).collect();
    let weights = if has(SINGLE_WEIGHTS) {
        files.push(SINGLE_WEIGHTS.to_owned());
        SelectedWeights::Single
    } else if has(INDEX) {
        SelectedWeights::Sharded
    } else {
        return Err(format!("has neither {SINGLE_WEIGHTS} nor {INDEX}"));
    };
    Ok(Selection { files, weights })
}

/// The shards that an index names, sorted, which is their order.
pub(super) fn shards(index: &[u8]) -> Result<Vec<String>, String> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let index: Index = serde_json::from_slice(index).map_err(|e| format!("is not a safetensors index: {e}"))?;
    if index.weight_map.len() > MAX_INDEX_TENSORS {
        return Err(format!("names {} tensors, limit {MAX_INDEX_TENSORS}", index.weight_map.len()));
    }
    let shards: BTreeSet<String> = index.weight_map.into_values().collect();
    if shards.is_empty() || shards.len() > MAX_SHARDS {
        return Err(format!("names {} shards, must be 1 to {MAX_SHARDS}", shards.len()));
    }
    if let Some(bad) = shards.iter().find(|name| !is_plain_shard(name)) {
        return Err(format!("names shard {bad:?}, which is not a plain .safetensors file name"));
    }
    Ok(shards.into_iter().collect())
}

/// The format that these files, relative to `base`, make up. `None` when they make up no model.
pub(super) fn format_of<'a>(base: &Path, files: impl Iterator<Item = &'a Path> + Clone) -> Option<ModelFormat> {
    let mut rest = files.clone();
    if let (Some(only), None) = (rest.next(), rest.next()) {
        return super::name::is_gguf(only).then(|| ModelFormat::Gguf(base.join(only)));
    }
    let find = |name: &str| files.clone().find(|path| *path == Path::new(name)).map(|path| base.join(path));
    let weights: Vec<PathBuf> = files.clone().filter(|path| is_weights(path)).map(|path| base.join(path)).collect();
    if weights.is_empty() {
        return None;
    }
    Some(ModelFormat::Safetensors {
        config: find(CONFIG)?,
        tokenizer: find(TOKENIZER)?,
        tokenizer_config: find(TOKENIZER_CONFIG),
        chat_template: find(CHAT_TEMPLATE),
        generation_config: find(GENERATION_CONFIG),
        weights,
    })
}

/// Whether a file holds weights.
pub(super) fn is_weights(path: &Path) -> bool {
    super::name::is_gguf(path) || path.extension().is_some_and(|extension| extension == "safetensors")
}

fn is_plain_shard(name: &str) -> bool {
    name.ends_with(".safetensors")
        && name.len() <= 200
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_files_are_taken_only_where_they_are() {
        let names = [CONFIG, TOKENIZER, GENERATION_CONFIG, SINGLE_WEIGHTS, "README.md"];
        let selection = select(|name| names.contains(&name)).unwrap();
        assert_eq!(selection.weights, SelectedWeights::Single);
        assert_eq!(selection.files, [CONFIG, TOKENIZER, GENERATION_CONFIG, SINGLE_WEIGHTS]);
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(select(|name| name != TOKENIZER).unwrap_err().contains(TOKENIZER));
        let no_weights = select(|name| name == CONFIG || name == TOKENIZER).unwrap_err();
        assert!(no_weights.contains(SINGLE_WEIGHTS) && no_weights.contains(INDEX));
    }

    #[test]
    fn shards_are_named_once_and_in_order() {
        let index =
            br#"{"metadata":{},"weight_map":{"a":"m-2.safetensors","b":"m-1.safetensors","c":"m-2.safetensors"}}"#;
        assert_eq!(shards(index).unwrap(), ["m-1.safetensors", "m-2.safetensors"]);
    }

    #[test]
    fn an_index_that_points_elsewhere_is_refused() {
        for name in ["../m.safetensors", "/m.safetensors", "a/m.safetensors", ".m.safetensors", "m.bin"] {
            let index = format!(r#"{{"weight_map":{{"a":"{name}"}}}}"#);
            assert!(shards(index.as_bytes()).unwrap_err().contains(name));
        }
        assert!(shards(br#"{"weight_map":{}}"#).unwrap_err().contains("0 shards"));
        assert!(shards(b"[]").unwrap_err().contains("not a safetensors index"));
    }

    #[test]
    fn one_gguf_file_or_a_complete_folder_is_a_model() {
        let base = Path::new("/m");
        let one = [Path::new("d/x.gguf")];
        assert_eq!(format_of(base, one.into_iter()), Some(ModelFormat::Gguf(PathBuf::from("/m/d/x.gguf"))));
        let folder = [CONFIG, TOKENIZER, "m-1.safetensors", "m-2.safetensors"].map(Path::new);
        let Some(ModelFormat::Safetensors { weights, tokenizer_config, .. }) = format_of(base, folder.into_iter())
        else {
            panic!("not a safetensors folder");
        };
        assert_eq!(weights, [PathBuf::from("/m/m-1.safetensors"), PathBuf::from("/m/m-2.safetensors")]);
        assert_eq!(tokenizer_config, None);
        assert_eq!(format_of(base, folder[1..].iter().copied()), None);
    }
}
