//! Joins the layers of settings as plain values and remembers where each value came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::{Config, ConfigErrors, Flag};

/// Before the section and `__` between section and key: `ADQUILL_HTTP__ADDR`.
const PREFIX: &str = "ADQUILL_";
/// Names the file when no flag does.
const FILE_VARIABLE: &str = "ADQUILL_CONFIG";
/// Settings are short; a larger file is something else.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(PathBuf),
    Environment(String),
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// One setting. Lists are one setting as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Dotted, e.g. `http.addr`.
    pub key: String,
    pub value: Value,
    pub origin: Origin,
}

/// All layers, joined.
pub(super) struct Layers {
    pub(super) value: Value,
    origins: BTreeMap<String, Origin>,
}

impl Layers {
    /// The origin of a key, or of the setting that holds it.
    pub(super) fn origin(&self, key: &str) -> Origin {
        let below = format!("{key}.");
        if let Some((_, origin)) = self.origins.range(below.clone()..).find(|(found, _)| found.starts_with(&below)) {
            return origin.clone();
        }
        let holders = std::iter::successors(Some(key), |key| key.rsplit_once('.').map(|(parent, _)| parent));
        holders.filter_map(|key| self.origins.get(key)).next().cloned().unwrap_or(Origin::Default)
    }

    pub(super) fn settings(&self) -> Vec<Setting> {
        let mut leaves = Vec::new();
        collect(&self.value, String::new(), &mut leaves);
        leaves.into_iter().map(|(key, value)| Setting { origin: self.origin(&key), key, value }).collect()
    }
}

pub(super) fn join(
    defaults: &Config,
    file: Option<PathBuf>,
    environment: &[(String, String)],
    flags: &[Flag],
) -> Result<Layers, ConfigErrors> {
    let value = serde_json::to_value(defaults)
        .map_err(|error| ConfigErrors(vec![format!("the defaults cannot be represented: {error}")]))?;
    let mut layers = Layers { value, origins: BTreeMap::new() };
    let named = environment.iter().find(|(name, value)| name == FILE_VARIABLE && !value.is_empty());
    if let Some(path) = file.or_else(|| named.map(|(_, value)| PathBuf::from(value))) {
        let table = read_file(&path)?;
        merge(&mut layers, String::new(), table, &Origin::File(path));
    }
    for (name, text) in environment {
        let Some((section, key)) = name.strip_prefix(PREFIX).and_then(|name| name.split_once("__")) else { continue };
        if !text.is_empty() {
            let key = format!("{}.{}", section.to_lowercase(), key.to_lowercase().replace("__", "."));
            let value = read_text(&layers.value, &key, text);
            merge(&mut layers, String::new(), nested(&key, value), &Origin::Environment(name.clone()));
        }
    }
    for (key, text) in flags {
        let value = read_text(&layers.value, key, text);
        merge(&mut layers, String::new(), nested(key, value), &Origin::Flag);
    }
    Ok(layers)
}

fn read_file(path: &PathBuf) -> Result<Value, ConfigErrors> {
    let failed = |reason: String| ConfigErrors(vec![format!("{}: {reason}", path.display())]);
    let size = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if size > MAX_FILE_BYTES {
        return Err(failed(format!("has {size} bytes, at most {MAX_FILE_BYTES} are read")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| failed(error.to_string().trim_end().to_owned()))?;
    serde_json::to_value(table).map_err(|error| failed(error.to_string()))
}

/// Reads a text as the type that the setting has: texts stay as they are, all else is written as in TOML.
fn read_text(defaults: &Value, key: &str, text: &str) -> Value {
    let current = key.split('.').try_fold(defaults, |value, part| value.get(part));
    if current.is_some_and(Value::is_string) {
        return Value::String(text.to_owned());
    }
    let literal = toml::from_str::<toml::Table>(&format!("value = {text}")).ok().filter(|table| table.len() == 1);
    literal
        .and_then(|mut table| serde_json::to_value(table.remove("value")?).ok())
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

/// `a.b` and a value: `{"a": {"b": value}}`.
fn nested(key: &str, value: Value) -> Value {
    key.rsplit('.').fold(value, |inner, part| Value::Object(Map::from_iter([(part.to_owned(), inner)])))
}

fn merge(layers: &mut Layers, prefix: String, value: Value, origin: &Origin) {
    let Layers { value: base, origins } = layers;
    merge_into(base, origins, prefix, value, origin);
}

fn merge_into(base: &mut Value, origins: &mut BTreeMap<String, Origin>, prefix: String, value: Value, origin: &Origin) {
    match (base, value) {
        (Value::Object(base), Value::Object(members)) => {
            for (name, member) in members {
                let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                merge_into(base.entry(name).or_insert(Value::Null), origins, key, member, origin);
            }
        }
        (base, value) => {
            *base = value;
            origins.insert(prefix, origin.clone());
        }
    }
}

fn collect(value: &Value, key: String, leaves: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, member) in members {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                collect(member, key, leaves);
            }
        }
        leaf => leaves.push((key, leaf.clone())),
    }
}
