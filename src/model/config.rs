//! The hyperparameters of a decoder, whatever file they came from.

/// The architectures that [`super::decoder`] runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
}

impl Architecture {
    /// The lower-case name, as GGUF's `general.architecture` and config.json's `model_type` spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }
}

/// How a head's coordinates are paired for rotary embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopePairing {
    /// `(0, 1), (2, 3), ...`: GGUF files of llama and mistral, whose q and k rows were permuted by the converter.
    Adjacent,
    /// `(0, d/2), (1, d/2 + 1), ...`: Hugging Face files, and qwen in GGUF.
    Halves,
}

/// Stretching of rotary frequencies for long contexts.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    None,
    /// Positions divided by `factor`.
    Linear {
        factor: f32,
    },
    /// Llama 3's rule, as in `rope_scaling.rope_type = "llama3"`.
    Llama3 {
        factor: f32,
        low_freq_factor: f32,
        high_freq_factor: f32,
        original_context_length: usize,
    },
    /// One divisor per frequency (GGUF's `rope_freqs.weight`); `head_dim / 2` values.
    Divisors(Vec<f32>),
}

/// Everything a decoder's forward pass depends on besides its weights. Readers validate it: no field is zero,
/// `n_heads` is a multiple of `n_kv_heads`, `head_dim` is even.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    pub architecture: Architecture,
    pub n_layers: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub vocab_size: usize,
    pub context_length: usize,
    pub rms_norm_eps: f32,
    pub rope_theta: f32,
    pub rope_pairing: RopePairing,
    pub rope_scaling: RopeScaling,
    /// Attention sees at most this many past tokens (mistral); `None`: all.
    pub sliding_window: Option<usize>,
}

/// The largest hyperparameters that readers accept; far above any model that runs on one machine, low enough that
/// products of two of them fit every integer in use.
#[derive(Debug)]
pub struct Limits;

impl Limits {
    pub const LAYERS: usize = 512;
    pub const HIDDEN: usize = 65_536;
    pub const INTERMEDIATE: usize = 524_288;
    pub const HEADS: usize = 1024;
    pub const HEAD_DIM: usize = 1024;
    pub const VOCAB: usize = 1_000_000;
    pub const CONTEXT: usize = 1 << 20;
}
