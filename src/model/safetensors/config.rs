//! A decoder's hyperparameters from Hugging Face's config.json, checked.

use serde::Deserialize;

use super::super::config::{Architecture, DecoderConfig, Limits, RopePairing, RopeScaling};
use super::SafetensorsError;

/// Real ones have a few kilobytes.
pub const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// What config.json says.
#[derive(Debug, Clone, PartialEq)]
pub struct FolderConfig {
    pub decoder: DecoderConfig,
    /// The embedding is the output head.
    pub tied: bool,
}

/// The keys of config.json that matter here. Keys of other models' features that would change the result are refused.
#[derive(Debug, Deserialize)]
struct Raw {
    model_type: String,
    hidden_size: u64,
    intermediate_size: u64,
    num_hidden_layers: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    vocab_size: u64,
    max_position_embeddings: u64,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    /// Since transformers 5: theta and scaling in one.
    rope_parameters: Option<RawRope>,
    tie_word_embeddings: Option<bool>,
    sliding_window: Option<u64>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<u64>,
    layer_types: Option<Vec<String>>,
    hidden_act: Option<String>,
    mlp_bias: Option<bool>,
    partial_rotary_factor: Option<f64>,
    quantization_config: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct RawRope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<u64>,
}

impl FolderConfig {
    /// Reads config.json.
    ///
    /// # Errors
    /// When a key is missing, out of bounds, or asks for something the decoder does not do.
    pub fn parse(json: &str) -> Result<Self, SafetensorsError> {
        let raw: Raw = serde_json::from_str(json).map_err(SafetensorsError::Config)?;
        let architecture = match raw.model_type.as_str() {
            "llama" => Architecture::Llama,
            "mistral" => Architecture::Mistral,
            "qwen2" => Architecture::Qwen2,
            "qwen3" => Architecture::Qwen3,
            other => return Err(unsupported("the model type", other, "llama, mistral, qwen2, qwen3")),
        };
        raw.refuse_unsupported()?;
        let hidden_size = bounded("hidden_size", raw.hidden_size, Limits::HIDDEN)?;
        let n_heads = bounded("num_attention_heads", raw.num_attention_heads, Limits::HEADS)?;
        let n_kv_heads =
            bounded("num_key_value_heads", raw.num_key_value_heads.unwrap_or(n_heads as u64), Limits::HEADS)?;
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(value("num_key_value_heads", n_kv_heads, format!("a divisor of the {n_heads} heads")));
        }
        let head_dim = match raw.head_dim {
            Some(head_dim) => bounded("head_dim", head_dim, Limits::HEAD_DIM)?,
            None if hidden_size.is_multiple_of(n_heads) => hidden_size / n_heads,
            None => return Err(value("num_attention_heads", n_heads, format!("a divisor of {hidden_size}"))),
        };
        if !head_dim.is_multiple_of(2) || head_dim > Limits::HEAD_DIM {
            return Err(value("head_dim", head_dim, format!("even, at most {}", Limits::HEAD_DIM)));
        }
        let rope = raw.rope_parameters.as_ref();
        let theta = rope.and_then(|rope| rope.rope_theta).or(raw.rope_theta).unwrap_or(10_000.0);
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
            rms_norm_eps: positive("rms_norm_eps", Some(raw.rms_norm_eps))?,
            rope_theta: positive("rope_theta", Some(theta))?,
            rope_pairing: RopePairing::Halves,
            rope_scaling: rope_scaling(rope.or(raw.rope_scaling.as_ref()))?,
            sliding_window: raw.sliding_window(architecture)?,
        };
        Ok(Self { decoder, tied: raw.tie_word_embeddings.unwrap_or(false) })
    }
}

impl Raw {
    fn refuse_unsupported(&self) -> Result<(), SafetensorsError> {
        if let Some(act) = self.hidden_act.as_deref().filter(|&act| act != "silu") {
            return Err(unsupported("the activation", act, "silu"));
        }
        if self.mlp_bias == Some(true) {
            return Err(unsupported("mlp_bias", "true", "false"));
        }
        if self.quantization_config.is_some() {
            return Err(unsupported("quantization_config", "quantized safetensors", "F32, F16 and BF16; or use GGUF"));
        }
        let rope = self.rope_parameters.as_ref().and_then(|rope| rope.partial_rotary_factor);
        if let Some(factor) = self.partial_rotary_factor.or(rope).filter(|&factor| factor < 1.0) {
            return Err(unsupported("partial_rotary_factor", &factor.to_string(), "1"));
        }
        Ok(())
    }

    /// Mistral's window holds for all layers; qwen's only where it is switched on, and maybe not for the first layers.
    fn sliding_window(&self, architecture: Architecture) -> Result<Option<usize>, SafetensorsError> {
        let Some(window) = self.sliding_window else { return Ok(None) };
        let n_windowed = match (architecture, &self.layer_types) {
            (Architecture::Llama, _) => 0,
            (Architecture::Mistral, None) => self.num_hidden_layers,
            (Architecture::Qwen2 | Architecture::Qwen3, _) if self.use_sliding_window != Some(true) => 0,
            (_, Some(types)) => types.iter().filter(|kind| *kind == "sliding_attention").count() as u64,
            (_, None) => self.num_hidden_layers.saturating_sub(self.max_window_layers.unwrap_or(0)),
        };
        if n_windowed == 0 {
            return Ok(None);
        }
        if n_windowed < self.num_hidden_layers {
            return Err(unsupported("the sliding window", "in some layers only", "in all layers or in none"));
        }
        bounded("sliding_window", window, u32::MAX as usize).map(Some)
    }
}

fn rope_scaling(rope: Option<&RawRope>) -> Result<RopeScaling, SafetensorsError> {
    let Some(rope) = rope else { return Ok(RopeScaling::None) };
    match rope.rope_type.as_deref().unwrap_or("default") {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: positive("rope_scaling.factor", rope.factor)? }),
        "llama3" => {
            let low_freq_factor = positive("rope_scaling.low_freq_factor", rope.low_freq_factor)?;
            let high_freq_factor = positive("rope_scaling.high_freq_factor", rope.high_freq_factor)?;
            if high_freq_factor <= low_freq_factor {
                let expected = format!("more than the low_freq_factor {low_freq_factor}");
                return Err(value("rope_scaling.high_freq_factor", high_freq_factor, expected));
            }
            Ok(RopeScaling::Llama3 {
                factor: positive("rope_scaling.factor", rope.factor)?,
                low_freq_factor,
                high_freq_factor,
                original_context_length: bounded(
                    "rope_scaling.original_max_position_embeddings",
                    rope.original_max_position_embeddings.unwrap_or(0),
                    Limits::CONTEXT,
                )?,
            })
        }
        other => Err(unsupported("the rope scaling", other, "default, linear, llama3")),
    }
}

fn bounded(key: &'static str, found: u64, limit: usize) -> Result<usize, SafetensorsError> {
    match usize::try_from(found) {
        Ok(small) if (1..=limit).contains(&small) => Ok(small),
        _ => Err(value(key, found, format!("from 1 to {limit}"))),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "hyperparameters are kept in single precision")]
fn positive(key: &'static str, found: Option<f64>) -> Result<f32, SafetensorsError> {
    let single = found.unwrap_or(f64::NAN) as f32;
    if single.is_finite() && single > 0.0 {
        Ok(single)
    } else {
        let found = found.map_or_else(|| "missing".to_owned(), |found| found.to_string());
        Err(value(key, found, "a positive, finite number".to_owned()))
    }
}

fn value(key: &'static str, found: impl ToString, expected: String) -> SafetensorsError {
    SafetensorsError::Value { key, found: found.to_string(), expected }
}

fn unsupported(what: &'static str, found: &str, supported: &'static str) -> SafetensorsError {
    SafetensorsError::Unsupported { what, found: found.to_owned(), supported }
}
