//! Named tensors as they are stored, before a decoder packs them.
//!
//! Names are GGUF's, whatever the file: `token_embd.weight`, `output.weight` (absent when tied), `output_norm.weight`,
//! `rope_freqs.weight`, and for each layer `blk.{i}.` + `attn_norm.weight`, `attn_q|attn_k|attn_v.weight` (and `.bias`),
//! `attn_q_norm|attn_k_norm.weight`, `attn_output.weight`, `ffn_norm.weight`, `ffn_gate|ffn_up|ffn_down.weight`.
//! The safetensors reader translates them to Hugging Face's.

use candle_core::quantized::GgmlDType;
use thiserror::Error;

/// A tensor's bytes in the file, not yet dequantized.
#[derive(Debug, Clone)]
pub struct WeightView<'a> {
    /// Row-major: a matrix is `[outputs, inputs]`, a vector `[n]`.
    pub shape: Vec<usize>,
    pub dtype: GgmlDType,
    /// Exactly as many bytes as shape and type need.
    pub bytes: &'a [u8],
}

#[derive(Debug, Error)]
pub enum WeightsError {
    #[error("tensor {name} is missing")]
    Missing { name: String },
    #[error("tensor {name} has shape {found:?}, expected {expected:?}")]
    Shape { name: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("tensor {name} holds a value that is not finite (NaN or infinity)")]
    NotFinite { name: String },
    #[error("tensor {name} cannot be dequantized")]
    Dequantize {
        name: String,
        #[source]
        source: candle_core::Error,
    },
}

/// A file, or several, that holds a model's tensors.
pub trait Weights: Send + Sync {
    /// The tensor of that name, if the file has it.
    fn view(&self, name: &str) -> Option<WeightView<'_>>;
}
