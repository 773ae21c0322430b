//! A decoder's hyperparameters from GGUF metadata, checked.

use super::super::config::{Architecture, DecoderConfig, Limits, RopePairing, RopeScaling};
use super::super::weights::Weights;
use super::{GgufError, MetadataView};

const EMBEDDING: &str = "token_embd.weight";
const DIVISORS: &str = "rope_freqs.weight";

pub(super) fn read(metadata: MetadataView<'_>, weights: &dyn Weights) -> Result<DecoderConfig, GgufError> {
    let name = metadata
        .string("general.architecture")?
        .ok_or_else(|| GgufError::MissingKey { key: "general.architecture".to_owned() })?;
    let architecture = match name {
        "llama" => Architecture::Llama,
        "mistral" => Architecture::Mistral,
        "qwen2" => Architecture::Qwen2,
        "qwen3" => Architecture::Qwen3,
        other => {
            return Err(GgufError::Unsupported {
                what: "the architecture",
                found: other.to_owned(),
                supported: "llama (and mistral), qwen2, qwen3",
            });
        }
    };
    let keys = Keys { metadata, prefix: name };
    if keys.optional("expert_count", u64::MAX)?.is_some_and(|experts| experts > 0) {
        return Err(GgufError::Unsupported {
            what: "the layer type",
            found: "mixture of experts".to_owned(),
            supported: "dense feed-forward layers",
        });
    }
    let n_heads = keys.required("attention.head_count", Limits::HEADS)?;
    let n_kv_heads = keys.optional("attention.head_count_kv", Limits::HEADS as u64)?.unwrap_or(n_heads);
    if n_kv_heads == 0 || !n_heads.is_multiple_of(n_kv_heads) {
        return Err(keys.value("attention.head_count_kv", n_kv_heads, format!("a divisor of the {n_heads} heads")));
    }
    let hidden_size = keys.required("embedding_length", Limits::HIDDEN)?;
    let head_dim = head_dim(&keys, hidden_size, n_heads)?;
    let config = DecoderConfig {
        architecture,
        n_layers: keys.required("block_count", Limits::LAYERS)?,
        hidden_size,
        intermediate_size: keys.required("feed_forward_length", Limits::INTERMEDIATE)?,
        n_heads,
        n_kv_heads,
        head_dim,
        vocab_size: vocab_size(weights, hidden_size)?,
        context_length: keys.required("context_length", Limits::CONTEXT)?,
        rms_norm_eps: keys.positive("attention.layer_norm_rms_epsilon", None)?,
        rope_theta: keys.positive("rope.freq_base", Some(10_000.0))?,
        rope_pairing: match architecture {
            Architecture::Llama | Architecture::Mistral => RopePairing::Adjacent,
            Architecture::Qwen2 | Architecture::Qwen3 => RopePairing::Halves,
        },
        rope_scaling: rope_scaling(&keys, weights, head_dim)?,
        sliding_window: keys.optional("attention.sliding_window", u32::MAX.into())?.filter(|&window| window > 0),
    };
    Ok(config)
}

fn head_dim(keys: &Keys<'_>, hidden_size: usize, n_heads: usize) -> Result<usize, GgufError> {
    let limit = Limits::HEAD_DIM as u64;
    let head_dim = match keys.optional("attention.key_length", limit)? {
        Some(length) => length,
        None if hidden_size.is_multiple_of(n_heads) => hidden_size / n_heads,
        None => {
            return Err(keys.value("attention.head_count", n_heads, format!("a divisor of the width {hidden_size}")));
        }
    };
    if head_dim == 0 || !head_dim.is_multiple_of(2) || head_dim > Limits::HEAD_DIM {
        return Err(keys.value("attention.key_length", head_dim, format!("even, from 2 to {limit}")));
    }
    for key in ["attention.value_length", "rope.dimension_count"] {
        let length = keys.optional(key, limit)?.unwrap_or(head_dim);
        if length != head_dim {
            return Err(keys.value(key, length, format!("the key length {head_dim}")));
        }
    }
    Ok(head_dim)
}

/// The embedding's rows are the truth: `vocab_size` keys are optional and may count padding or not.
fn vocab_size(weights: &dyn Weights, hidden_size: usize) -> Result<usize, GgufError> {
    let view = weights.view(EMBEDDING).ok_or(GgufError::MissingTensor { name: EMBEDDING })?;
    match view.shape[..] {
        [rows, width] if width == hidden_size && rows <= Limits::VOCAB => Ok(rows),
        _ => Err(GgufError::MisshapenTensor {
            name: EMBEDDING,
            found: view.shape,
            expected: format!("[at most {}, {hidden_size}]", Limits::VOCAB),
        }),
    }
}

fn rope_scaling(keys: &Keys<'_>, weights: &dyn Weights, head_dim: usize) -> Result<RopeScaling, GgufError> {
    let kind = keys.metadata.string(&keys.full("rope.scaling.type"))?.unwrap_or("none");
    let scaling = match kind {
        "none" if keys.metadata.contains(&keys.full("rope.scale_linear")) => {
            RopeScaling::Linear { factor: keys.positive("rope.scale_linear", None)? }
        }
        "none" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: keys.positive("rope.scaling.factor", None)? },
        other => {
            return Err(GgufError::Unsupported {
                what: "the rope scaling",
                found: other.to_owned(),
                supported: "none, linear, and llama 3's rope_freqs",
            });
        }
    };
    let Some(view) = weights.view(DIVISORS) else { return Ok(scaling) };
    if view.shape != [head_dim / 2] {
        let expected = format!("[{}]", head_dim / 2);
        return Err(GgufError::MisshapenTensor { name: DIVISORS, found: view.shape, expected });
    }
    let divisors = view.to_f32(DIVISORS).map_err(|_| GgufError::BadDivisors { name: DIVISORS })?;
    if divisors.iter().any(|&divisor| divisor <= 0.0) {
        return Err(GgufError::BadDivisors { name: DIVISORS });
    }
    match scaling {
        RopeScaling::None => Ok(RopeScaling::Divisors(divisors)),
        _ => Err(GgufError::Unsupported {
            what: "the rope scaling",
            found: "both linear and rope_freqs".to_owned(),
            supported: "one of them",
        }),
    }
}

/// The metadata keys of one architecture.
struct Keys<'a> {
    metadata: MetadataView<'a>,
    prefix: &'a str,
}

impl Keys<'_> {
    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    fn value(&self, key: &str, found: impl ToString, expected: String) -> GgufError {
        GgufError::Value { key: self.full(key), found: found.to_string(), expected }
    }

    fn required(&self, key: &str, limit: usize) -> Result<usize, GgufError> {
        match self.optional(key, limit as u64)? {
            Some(0) => Err(self.value(key, 0, format!("from 1 to {limit}"))),
            Some(value) => Ok(value),
            None => Err(GgufError::MissingKey { key: self.full(key) }),
        }
    }

    fn optional(&self, key: &str, limit: u64) -> Result<Option<usize>, GgufError> {
        let Some(value) = self.metadata.u64(&self.full(key))? else { return Ok(None) };
        match usize::try_from(value) {
            Ok(small) if value <= limit => Ok(Some(small)),
            _ => Err(self.value(key, value, format!("at most {limit}"))),
        }
    }

    fn positive(&self, key: &str, default: Option<f32>) -> Result<f32, GgufError> {
        let value = self.metadata.f32(&self.full(key))?.or(default);
        let value = value.ok_or_else(|| GgufError::MissingKey { key: self.full(key) })?;
        if value.is_finite() && value > 0.0 {
            Ok(value)
        } else {
            Err(self.value(key, value, "a positive, finite number".to_owned()))
        }
    }
}
