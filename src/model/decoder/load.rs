//! Builds a decoder from a file's tensors.

use super::linear::Linear;
use super::rope::Rope;
use super::tensors::{matrix, optional_vector, vector};
use super::workspace::Workspace;
use super::{Decoder, DecoderOptions, Layer, LoadError, Precision};
use crate::model::config::{Architecture, DecoderConfig, RopeScaling};
use crate::model::kernels::{AttentionShape, Isa, Pool};
use crate::model::kv_cache::KvCache;
use crate::model::weights::{Weights, WeightsError};

/// More threads than this are surely a mistake.
const MAX_THREADS: usize = 1024;

pub(super) fn load(
    config: &DecoderConfig,
    weights: &dyn Weights,
    options: DecoderOptions,
) -> Result<Decoder, LoadError> {
    check_config(config)?;
    let DecoderOptions { precision, threads, block_size, n_blocks } = options;
    if !(1..=MAX_THREADS).contains(&threads) {
        return Err(LoadError::Threads { given: threads, limit: MAX_THREADS });
    }
    if !block_size.is_multiple_of(16) || !(16..=256).contains(&block_size) {
        return Err(LoadError::BlockSize { given: block_size });
    }
    let shape = AttentionShape {
        n_heads: config.n_heads,
        n_kv_heads: config.n_kv_heads,
        head_dim: config.head_dim,
        block_size,
        window: config.sliding_window.unwrap_or(usize::MAX),
    };
    let half = precision == Precision::Packed;
    let block_bytes = KvCache::block_bytes(&shape, config.n_layers, half);
    if n_blocks > u32::MAX as usize || block_bytes.checked_mul(n_blocks).is_none_or(|b| b > isize::MAX as usize) {
        return Err(LoadError::CacheTooLarge { blocks: n_blocks, block_bytes });
    }
    let pool = Pool::new(threads).map_err(LoadError::Spawn)?;
    let isa = Isa::detect();
    let files = Files { config, weights, isa, dense: precision == Precision::F32, pool: &pool };
    let layers = (0..config.n_layers).map(|i| files.layer(i)).collect::<Result<Vec<_>, _>>()?;
    let (vocab, hidden) = (config.vocab_size, config.hidden_size);
    let embeddings = files.linear(hidden, &[("token_embd.weight".to_owned(), vocab)])?;
    let head = match weights.view("output.weight") {
        Some(_) => Some(files.linear(hidden, &[("output.weight".to_owned(), vocab)])?),
        None => None,
    };
    let output_norm = vector(weights, "output_norm.weight", hidden)?;
    Ok(Decoder {
        config: config.clone(),
        isa,
        embeddings,
        layers,
        output_norm,
        head,
        rope: Rope::new(config),
        cache: KvCache::new(shape, config.n_layers, n_blocks, half),
        work: Workspace::new(isa, precision, &shape, config.context_length, threads),
        pool,
    })
}

fn check_config(config: &DecoderConfig) -> Result<(), LoadError> {
    let sizes = [
        ("n_layers", config.n_layers),
        ("hidden_size", config.hidden_size),
        ("intermediate_size", config.intermediate_size),
        ("n_heads", config.n_heads),
        ("n_kv_heads", config.n_kv_heads),
        ("vocab_size", config.vocab_size),
        ("context_length", config.context_length),
        ("sliding_window", config.sliding_window.unwrap_or(usize::MAX)),
    ];
    if let Some(&(field, value)) = sizes.iter().find(|(_, value)| *value == 0) {
        return Err(LoadError::Config { field, value });
    }
    if !config.n_heads.is_multiple_of(config.n_kv_heads) {
        return Err(LoadError::Config { field: "n_kv_heads", value: config.n_kv_heads });
    }
    if config.head_dim == 0 || !config.head_dim.is_multiple_of(2) {
        return Err(LoadError::Config { field: "head_dim", value: config.head_dim });
    }
    match &config.rope_scaling {
        RopeScaling::Divisors(d) if d.len() != config.head_dim / 2 => {
            Err(LoadError::Config { field: "rope_scaling.divisors", value: d.len() })
        }
        _ => Ok(()),
    }
}

/// What packing a tensor needs.
struct Files<'a> {
    config: &'a DecoderConfig,
    weights: &'a dyn Weights,
    isa: Isa,
    dense: bool,
    pool: &'a Pool,
}

impl Files<'_> {
    fn linear(&self, inputs: usize, parts: &[(String, usize)]) -> Result<Linear, WeightsError> {
        let tensors = parts.iter().map(|(name, outputs)| matrix(self.weights, name, *outputs, inputs));
        Linear::pack(self.isa, self.dense, inputs, &tensors.collect::<Result<Vec<_>, _>>()?, self.pool)
    }

    fn layer(&self, i: usize) -> Result<Layer, WeightsError> {
        let config = self.config;
        let name = |part: &str| format!("blk.{i}.{part}");
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (q, kv) = (config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim);
        let qk_norm = |part: &str| match config.architecture {
            Architecture::Qwen3 => vector(self.weights, &name(part), config.head_dim).map(Some),
            _ => optional_vector(self.weights, &name(part), config.head_dim),
        };
        Ok(Layer {
            attention_norm: vector(self.weights, &name("attn_norm.weight"), hidden)?,
            qkv: self.linear(
                hidden,
                &[(name("attn_q.weight"), q), (name("attn_k.weight"), kv), (name("attn_v.weight"), kv)],
            )?,
            qkv_bias: self.qkv_bias(i, q, kv)?,
            query_norm: qk_norm("attn_q_norm.weight")?,
            key_norm: qk_norm("attn_k_norm.weight")?,
            attention_out: self.linear(q, &[(name("attn_output.weight"), hidden)])?,
            ffn_norm: vector(self.weights, &name("ffn_norm.weight"), hidden)?,
            gate_up: self.linear(hidden, &[(name("ffn_gate.weight"), inner), (name("ffn_up.weight"), inner)])?,
            down: self.linear(inner, &[(name("ffn_down.weight"), hidden)])?,
        })
    }

    /// The biases of q, k and v: all three, or none. Qwen2 always has them.
    fn qkv_bias(&self, i: usize, q: usize, kv: usize) -> Result<Option<Vec<f32>>, WeightsError> {
        let names = ["attn_q", "attn_k", "attn_v"].map(|part| format!("blk.{i}.{part}.bias"));
        let any = names.iter().any(|name| self.weights.view(name).is_some());
        if !any && self.config.architecture != Architecture::Qwen2 {
            return Ok(None);
        }
        let mut bias = Vec::with_capacity(q + 2 * kv);
        for (name, len) in names.iter().zip([q, kv, kv]) {
            bias.extend(vector(self.weights, name, len)?);
        }
        Ok(Some(bias))
    }
}
