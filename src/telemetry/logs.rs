//! The log of the process: one line an event on standard error, for people or for machines.

use std::io::IsTerminal;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing_subscriber::EnvFilter;

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `human`, or `json` for log collectors.
    pub format: Format,
    /// What is logged, e.g. `info` or `warn,adquill::engine=debug`.
    pub filter: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { format: Format::Human, filter: "info".to_owned() }
    }
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Human,
    Json,
}

#[derive(Debug, Error)]
pub enum LogError {
    #[error("log.filter {given:?} cannot be read; give a level, or `target=level` pairs separated by commas")]
    Filter {
        given: String,
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    #[error("a log was installed before")]
    Installed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Starts the log of this process. Once only.
///
/// # Errors
/// See [`LogError`].
pub fn init(config: &Config) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(&config.filter)
        .map_err(|source| LogError::Filter { given: config.filter.clone(), source })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let installed = match config.format {
        Format::Human => lines.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
    installed.map_err(LogError::Installed)
}
