//! A decoder's hyperparameters from Hugging Face's `config.json`, checked.

use serde::Deserialize;
use thiserror::Error;

use super::super::config::{Architecture, DecoderConfig, Limits, RopePairing, RopeScaling};

#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("config.json is not the JSON expected")]
    Json(#[source] serde_json::Error),
    #[error("config.json: model_type {found:?} is not supported; supported: llama, mistral, qwen2, qwen3")]
    Architecture { found: String },
    #[error("config.json: {key} is {found}, it must be {expected}")]
    Value { key: &'static str, found: String, expected: String },
}

/// What config.json says.
#[derive(Debug, Clone, PartialEq)]
pub struct HfConfig {
    pub decoder: DecoderConfig,
    pub tied: bool,
}

#[derive(Deserialize)]
struct Raw {
    model_type: String,
    num_hidden_layers: u64,
    hidden_size: u64,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    vocab_size: u64,
    max_position_embeddings: u64,
    #[serde(default = "default_eps")]
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    rope_parameters: Option<RawRope>,
    sliding_window: Option<u64>,
    use_sliding_window: Option<bool>,
    tie_word_embeddings: Option<bool>,
}

#[derive(Deserialize)]
struct RawRope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<u64>,
}

/// As in Hugging Face's configuration classes.
fn default_eps() -> f64 {
    1e-6
}

impl HfConfig {
    /// Reads the text of `config.json`.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse(json: &str) -> Result<Self, ConfigError> {
        let raw: Raw = serde_json::from_str(json).map_err(ConfigError::Json)?;
        let architecture = match raw.model_type.as_str() {
            "llama" => Architecture::Llama,
            "mistral" => Architecture::Mistral,
            "qwen2" => Architecture::Qwen2,
            "qwen3" => Architecture::Qwen3,
            _ => return Err(ConfigError::Architecture { found: raw.model_type.chars().take(64).collect() }),
        };
        let n_heads = bounded("num_attention_heads", raw.num_attention_heads, Limits::HEADS)?;
        let n_kv_heads = match raw.num_key_value_heads {
            Some(heads) => bounded("num_key_value_heads", heads, Limits::HEADS)?,
            None => n_heads,
        };
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(value("num_key_value_heads", n_kv_heads, format!("a divisor of the {n_heads} heads")));
        }
        let hidden_size = bounded("hidden_size", raw.hidden_size, Limits::HIDDEN)?;
        let head_dim = bounded("head_dim", raw.head_dim.unwrap_or((hidden_size / n_heads) as u64), Limits::HEAD_DIM)?;
        if !head_dim.is_multiple_of(2) {
            return Err(value("head_dim", head_dim, "even".to_owned()));
        }
        let rope = raw.rope_parameters.as_ref().or(raw.rope_scaling.as_ref());
        let theta = raw.rope_theta.or(rope.and_then(|rope| rope.rope_theta)).unwrap_or(10_000.0);
        let decoder = DecoderConfig {
            architecture,
            n_layers: bounded("num_hidden_layers", raw.num_hidden_layers, Limits::LAYERS)?,
            hidden_size,
            intermediate_size: bounded("intermediate_size", raw.intermediate_size, Limits::INTERMEDIATE)?,
            n_heads,
            n_kv_heads,
            head_dim,
            vocab_size: bounded("vocab_size", raw.vocab_size, Limits::VOCAB)?,
            context_length: bounded("max_position_embeddings", raw.max_position_embeddings, Limits::CONTEXT)?,
            rms_norm_eps: positive("rms_norm_eps", raw.rms_norm_eps)?,
            rope_theta: positive("rope_theta", theta)?,
            rope_pairing: RopePairing::Halves,
            rope_scaling: rope.map_or(Ok(RopeScaling::None), scaling)?,
            sliding_window: window(&raw, architecture)?,
        };
        // The default of llama, mistral and qwen in Hugging Face's configuration classes.
        Ok(Self { decoder, tied: raw.tie_word_embeddings.unwrap_or(false) })
    }
}

/// Qwen's files name a window that is off unless `use_sliding_window` says otherwise.
fn window(raw: &Raw, architecture: Architecture) -> Result<Option<usize>, ConfigError> {
    let qwen = matches!(architecture, Architecture::Qwen2 | Architecture::Qwen3);
    match (raw.sliding_window, raw.use_sliding_window) {
        (None, _) | (Some(0), _) | (_, Some(false)) => Ok(None),
        (Some(_), None) if qwen => Ok(None),
        (Some(given), Some(true)) if qwen => {
            Err(value("use_sliding_window", given, "false: windows in a part of the layers are not supported".to_owned()))
        }
        (Some(given), _) => bounded("sliding_window", given, u32::MAX as usize).map(Some),
    }
}

fn scaling(rope: &RawRope) -> Result<RopeScaling, ConfigError> {
    let need = |key, given: Option<f64>| positive(key, given.unwrap_or(f64::NAN));
    match rope.rope_type.as_deref() {
        None | Some("default") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear { factor: need("rope_scaling.factor", rope.factor)? }),
        Some("llama3") => {
            let low_freq_factor = need("rope_scaling.low_freq_factor", rope.low_freq_factor)?;
            let high_freq_factor = need("rope_scaling.high_freq_factor", rope.high_freq_factor)?;
            if high_freq_factor <= low_freq_factor {
                let expected = format!("above low_freq_factor, which is {low_freq_factor}");
                return Err(value("rope_scaling.high_freq_factor", high_freq_factor, expected));
            }
            let original = rope.original_max_position_embeddings.unwrap_or_default();
            Ok(RopeScaling::Llama3 {
                factor: need("rope_scaling.factor", rope.factor)?,
                low_freq_factor,
                high_freq_factor,
                original_context_length: bounded(
                    "rope_scaling.original_max_position_embeddings",
                    original,
                    Limits::CONTEXT,
                )?,
            })
        }
        Some(other) => Err(value(
            "rope_scaling.rope_type",
            other.chars().take(64).collect::<String>(),
            "default, linear or llama3".to_owned(),
        )),
    }
}

fn bounded(key: &'static str, given: u64, limit: usize) -> Result<usize, ConfigError> {
    match usize::try_from(given) {
        Ok(size) if size >= 1 && size <= limit => Ok(size),
        _ => Err(value(key, given, format!("from 1 to {limit}"))),
    }
}

fn positive(key: &'static str, given: f64) -> Result<f32, ConfigError> {
    let number = given as f32;
    if number.is_finite() && number > 0.0 {
        return Ok(number);
    }
    Err(value(key, given, "given, finite and above 0".to_owned()))
}

fn value(key: &'static str, found: impl std::fmt::Display, expected: String) -> ConfigError {
    ConfigError::Value { key, found: found.to_string(), expected }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn sample() -> Value {
        json!({
            "model_type": "qwen2", "num_hidden_layers": 24, "hidden_size": 896, "intermediate_size": 4864,
            "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151_936,
            "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
            "sliding_window": 32_768, "use_sliding_window": false, "tie_word_embeddings": true
        })
    }

    fn parse(changes: Value) -> Result<HfConfig, ConfigError> {
        let mut json = sample();
        for (key, change) in changes.as_object().unwrap() {
            json[key] = change.clone();
        }
        HfConfig::parse(&json.to_string())
    }

    #[test]
    fn a_published_config_is_read() {
        let config = parse(json!({})).unwrap();
        assert!(config.tied);
        assert_eq!((config.decoder.head_dim, config.decoder.n_kv_heads), (64, 2));
        assert_eq!(config.decoder.sliding_window, None);
        assert_eq!(config.decoder.rope_scaling, RopeScaling::None);
    }

    #[test]
    fn llama3_scaling_is_read_from_either_place() {
        let rope = json!({"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
                          "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
        for changes in [json!({"rope_scaling": rope}), json!({"rope_parameters": rope, "rope_theta": null})] {
            let scaling = parse(changes).unwrap().decoder.rope_scaling;
            assert!(matches!(scaling, RopeScaling::Llama3 { original_context_length: 8192, .. }), "{scaling:?}");
        }
    }

    #[test]
    fn what_cannot_be_run_is_refused_by_its_key() {
        for (changes, key) in [
            (json!({"model_type": "gpt2"}), "gpt2"),
            (json!({"num_attention_heads": 0}), "num_attention_heads"),
            (json!({"num_key_value_heads": 3}), "num_key_value_heads"),
            (json!({"hidden_size": 1_000_000_000_000_u64}), "hidden_size"),
            (json!({"rms_norm_eps": -1.0}), "rms_norm_eps"),
            (json!({"rope_scaling": {"type": "yarn", "factor": 4.0}}), "rope_type"),
            (json!({"rope_scaling": {"type": "linear"}}), "factor"),
            (json!({"use_sliding_window": true}), "use_sliding_window"),
        ] {
            let message = parse(changes).unwrap_err().to_string();
            assert!(message.contains(key), "{message}");
        }
    }
}
