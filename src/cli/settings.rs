//! `adquill config` and `adquill openapi`: what the program would do, printed.

use std::io::{self, Write};

use serde_json::json;

use crate::config::Effective;
use crate::http::openapi;

/// Prints every setting with its origin, as TOML-like lines or as JSON.
pub fn print(effective: &Effective, as_json: bool) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if as_json {
        let settings: Vec<_> = effective
            .settings()
            .map(|setting| json!({"key": setting.key, "value": setting.value, "origin": setting.origin.to_string()}))
            .collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&settings)?)?;
        return Ok(());
    }
    for setting in effective.settings() {
        let value = if setting.value.is_null() { "(not set)".to_owned() } else { setting.value.to_string() };
        writeln!(out, "{:<32} = {value:<44} # {}", setting.key, setting.origin)?;
    }
    Ok(())
}

/// Prints the OpenAPI document as it is committed in `openapi/openapi.json`.
pub fn print_openapi() -> anyhow::Result<()> {
    io::stdout().lock().write_all(openapi::document().as_bytes())?;
    Ok(())
}
