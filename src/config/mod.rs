//! The settings of the whole program: defaults < file < environment < flags. The only room that reads the environment.

mod layers;
mod show;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::http::fields::{self, FieldErrors};
use crate::{engine, http, model, telemetry};

pub use layers::{Origin, Setting};

/// Every section. Each component documents its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub http: http::Config,
    pub auth: http::auth::Config,
    pub models: model::source::Config,
    pub engine: engine::Config,
    pub store: StoreConfig,
    pub cache: CacheConfig,
    pub log: telemetry::logs::Config,
}

/// `[store]`: where events, profiles and generations will be kept. This version stores nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// `sqlite://PATH` or `postgres://...`; empty: the default of the version that stores.
    pub url: String,
}

/// `[cache]`: where replicas will share copy and limits. This version shares nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheConfig {
    /// Empty: in this process; else `redis://...`.
    pub url: String,
}

/// The settings in force, and where each came from.
#[derive(Debug, Clone)]
pub struct Effective {
    pub config: Config,
    settings: Vec<Setting>,
}

/// A setting that flags give: its dotted key and its text, read as an environment variable's would be.
pub type Flag = (&'static str, String);

impl Effective {
    /// Joins all layers. `file` is `--config`; without it the variable `ADQUILL_CONFIG` names the file, if any.
    ///
    /// # Errors
    /// Every mistake of every layer, one line each, with its key, where it stands, and what is allowed.
    pub fn load(file: Option<PathBuf>, flags: &[Flag]) -> Result<Self, ConfigErrors> {
        let environment: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self::from_layers(file, &environment, flags)
    }

    fn from_layers(
        file: Option<PathBuf>,
        environment: &[(String, String)],
        flags: &[Flag],
    ) -> Result<Self, ConfigErrors> {
        let layers = layers::join(&Config::default(), file, environment, flags)?;
        let mut errors = FieldErrors::default();
        let decoded = fields::decode::<Config>(layers.value.clone(), &mut errors);
        let mut mistakes: Vec<String> = errors
            .into_vec()
            .into_iter()
            .map(|error| {
                let key = error.pointer.trim_start_matches('/').replace('/', ".");
                format!("{key}: {} ({})", error.detail, layers.origin(&key))
            })
            .collect();
        let Some(config) = decoded else { return Err(ConfigErrors(mistakes)) };
        if mistakes.is_empty() {
            mistakes = component_mistakes(&config)
                .into_iter()
                .map(|(key, detail)| format!("{key}: {detail} ({})", layers.origin(&key)))
                .collect();
        }
        if !mistakes.is_empty() {
            return Err(ConfigErrors(mistakes));
        }
        Ok(Self { settings: layers.settings(), config })
    }

    /// Every setting in order of its key, secrets masked.
    pub fn settings(&self) -> impl Iterator<Item = Setting> + '_ {
        self.settings.iter().map(show::masked)
    }
}

/// What the components object to in values that have the right types, by dotted key.
fn component_mistakes(config: &Config) -> Vec<(String, String)> {
    let mut mistakes: Vec<(String, String)> =
        config.http.mistakes().into_iter().map(|(key, detail)| (format!("http.{key}"), detail)).collect();
    for mistake in config.engine.mistakes() {
        mistakes.push((mistake.key().to_owned(), mistake.to_string()));
    }
    if let Err(errors) = http::auth::Authenticator::new(&config.auth) {
        mistakes.extend(errors.into_iter().map(|error| ("auth.keys".to_owned(), error.to_string())));
    }
    if let Err(error) = config.models.source() {
        mistakes.push(("models.generator".to_owned(), error.to_string()));
    }
    for (key, given) in [
        ("models.adapter", &config.models.adapter),
        ("models.sentiment", &config.models.sentiment),
        ("models.embedder", &config.models.embedder),
        ("engine.remote_url", &config.engine.remote_url),
    ] {
        if !given.is_empty() {
            mistakes.push((key.to_owned(), "is not supported by this version; leave it empty".to_owned()));
        }
    }
    mistakes
}

/// All mistakes found; the program cannot start with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<String>);

impl std::fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the settings cannot be used:")?;
        for mistake in &self.0 {
            write!(f, "\n  {mistake}")?;
        }
        write!(f, "\n`adquill config` prints the settings that are in force and where they come from")
    }
}

impl std::error::Error for ConfigErrors {}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn load(file: &str, environment: &[(&str, &str)], flags: &[Flag]) -> Result<Effective, ConfigErrors> {
        let mut on_disk = tempfile::NamedTempFile::new().unwrap();
        on_disk.write_all(file.as_bytes()).unwrap();
        let environment: Vec<(String, String)> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Effective::from_layers(Some(on_disk.path().to_owned()), &environment, flags)
    }

    fn setting(effective: &Effective, key: &str) -> (String, String) {
        let setting = effective.settings().find(|setting| setting.key == key).unwrap();
        (setting.value.to_string(), setting.origin.to_string())
    }

    #[test]
    fn later_layers_win_and_each_setting_knows_its_origin() {
        let file = "[http]\naddr = \"127.0.0.1:1\"\nmax_connections = 7\n[log]\nformat = \"json\"\n";
        let environment = [("ADQUILL_HTTP__ADDR", "127.0.0.1:2"), ("ADQUILL_ENGINE__THREADS", "3")];
        let effective = load(file, &environment, &[("engine.threads", "4".to_owned())]).unwrap();
        assert_eq!(effective.config.http.addr, "127.0.0.1:2".parse().unwrap());
        assert_eq!(effective.config.http.max_connections, 7);
        assert_eq!(effective.config.engine.threads, 4);
        assert_eq!(
            setting(&effective, "http.addr"),
            ("\"127.0.0.1:2\"".into(), "environment ADQUILL_HTTP__ADDR".into())
        );
        assert!(setting(&effective, "http.max_connections").1.starts_with("file "));
        assert_eq!(setting(&effective, "engine.threads").1, "flag");
        assert_eq!(setting(&effective, "engine.kv_tokens").1, "default");
    }

    #[test]
    fn every_mistake_is_reported_at_once_with_key_and_origin() {
        let file = "[http]\nadr = \"x\"\nmax_connections = \"many\"\n[shop]\nx = 1\n";
        let errors = load(file, &[("ADQUILL_ENGINE__THREDS", "2")], &[]).unwrap_err().0;
        for part in ["http.adr: ", "did you mean \"addr\"?", "http.max_connections: ", "shop: ", "engine.threds: "] {
            assert!(errors.iter().any(|error| error.contains(part)), "{part} not in {errors:?}");
        }
        assert!(errors.iter().any(|error| error.contains("environment ADQUILL_ENGINE__THREDS")), "{errors:?}");
    }

    #[test]
    fn values_out_of_bounds_are_mistakes_too() {
        let errors = load("[http]\nmax_connections = 0\n[engine]\nmax_new_tokens = 0\n", &[], &[]).unwrap_err().0;
        assert_eq!(errors.len(), 2, "{errors:?}");
    }

    #[test]
    fn variables_that_an_orchestrator_injects_are_not_settings() {
        let environment = [("ADQUILL_PORT", "tcp://10.0.0.1:80"), ("ADQUILL_SERVICE_HOST", "10.0.0.1")];
        assert!(load("", &environment, &[]).is_ok());
    }

    #[test]
    fn secrets_are_masked() {
        let hash = "a".repeat(64);
        let file = format!(
            "[[auth.keys]]\nname = \"shop\"\nsha256 = \"{hash}\"\n[store]\nurl = \"postgres://me:secret@db/adquill\"\n"
        );
        let effective = load(&file, &[], &[]).unwrap();
        let shown: Vec<String> = effective.settings().map(|setting| setting.value.to_string()).collect();
        assert!(!shown.iter().any(|value| value.contains(&hash) || value.contains("secret")), "{shown:?}");
        assert!(shown.iter().any(|value| value.contains("postgres://me:***@db/adquill")), "{shown:?}");
        assert_eq!(effective.config.auth.keys[0].sha256, hash);
    }

    #[test]
    fn a_broken_file_is_one_mistake_with_its_line() {
        let errors = load("[http\n", &[], &[]).unwrap_err().0;
        assert_eq!(errors.len(), 1);
        assert!(errors[0].contains("line 1"), "{errors:?}");
        let missing = Effective::from_layers(Some("/nowhere/adquill.toml".into()), &[], &[]).unwrap_err().0;
        assert!(missing[0].contains("/nowhere/adquill.toml"), "{missing:?}");
    }

    #[test]
    fn what_this_version_cannot_do_is_refused_rather_than_ignored() {
        let errors = load("[models]\nadapter = \"x\"\n", &[], &[]).unwrap_err().0;
        assert!(errors[0].contains("not supported"), "{errors:?}");
    }
}
