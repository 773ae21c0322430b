//! The decoder of llama, mistral, qwen2 and qwen3 models: one step over a ragged batch on the processor.

mod forward;
mod linear;
mod load;
mod plan;
mod rope;
mod tensors;
mod workspace;

use thiserror::Error;

use super::config::DecoderConfig;
use super::kernels::{Isa, Pool};
use super::kv_cache::KvCache;
use super::step::{BlockId, SequenceSlice, StepError, StepModel};
use super::weights::{Weights, WeightsError};
use linear::Linear;
use rope::Rope;
use workspace::Workspace;

/// In what form weights and cache are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 4- and 8-bit weights, 8-bit activations, half-precision cache. Files in Q4_0, Q4_1 and Q8_0 keep their weights
    /// exactly; every other type becomes 8 bits in blocks of 32.
    Packed,
    /// Everything in `f32`: for comparison, and for tests.
    F32,
}

/// How a decoder is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecoderOptions {
    pub precision: Precision,
    /// Threads of the kernels, the calling one included.
    pub threads: usize,
    /// Token slots in a block of the cache; a multiple of 16.
    pub block_size: usize,
    /// Blocks in the cache.
    pub n_blocks: usize,
}

impl Default for DecoderOptions {
    fn default() -> Self {
        Self { precision: Precision::Packed, threads: 1, block_size: 16, n_blocks: 512 }
    }
}

/// Why a decoder could not be built.
#[derive(Debug, Error)]
pub enum LoadError {
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error("{field} is {value}, which a decoder cannot have")]
    Config { field: &'static str, value: usize },
    #[error("the block size is {given}, it must be a multiple of 16 from 16 to 256")]
    BlockSize { given: usize },
    #[error("{given} threads were asked for, from 1 to {limit} may be")]
    Threads { given: usize, limit: usize },
    #[error("a cache of {blocks} blocks of {block_bytes} bytes is more than memory can address")]
    CacheTooLarge { blocks: usize, block_bytes: usize },
    #[error("the kernels' threads could not be started")]
    Spawn(#[source] std::io::Error),
}

/// A loaded model and its KV cache.
pub struct Decoder {
    config: DecoderConfig,
    isa: Isa,
    pool: Pool,
    embeddings: Linear,
    layers: Vec<Layer>,
    output_norm: Vec<f32>,
    /// `None`: tied to the embeddings.
    head: Option<Linear>,
    rope: Rope,
    cache: KvCache,
    work: Workspace,
}

/// The weights of one layer.
struct Layer {
    attention_norm: Vec<f32>,
    /// Outputs: all heads of q, then of k, then of v.
    qkv: Linear,
    qkv_bias: Option<Vec<f32>>,
    query_norm: Option<Vec<f32>>,
    key_norm: Option<Vec<f32>>,
    attention_out: Linear,
    ffn_norm: Vec<f32>,
    /// Outputs: gate, then up.
    gate_up: Linear,
    down: Linear,
}

impl Decoder {
    /// Packs a file's weights and makes an empty cache. Tensors are packed one by one, so the file's bytes and the
    /// packed weights are all that is ever held.
    ///
    /// # Errors
    /// A tensor that is missing, has another shape than `config` says or holds a value that is not finite, and options
    /// out of range.
    pub fn load(config: &DecoderConfig, weights: &dyn Weights, options: DecoderOptions) -> Result<Self, LoadError> {
        load::load(config, weights, options)
    }

    /// Bytes of the packed weights.
    pub fn weights_bytes(&self) -> usize {
        let layers = self.layers.iter().flat_map(|l| [&l.qkv, &l.attention_out, &l.gate_up, &l.down]);
        layers.chain([&self.embeddings]).chain(&self.head).map(Linear::size_bytes).sum()
    }

    /// Bytes of one block of the cache.
    pub fn block_bytes(&self) -> usize {
        let half = matches!(self.cache.layers.first(), Some(super::kernels::KvLayer::F16 { .. }));
        KvCache::block_bytes(&self.cache.shape, self.layers.len(), half)
    }

    /// The instruction set in use, e.g. `avx2`.
    pub fn instruction_set(&self) -> &'static str {
        self.isa.name()
    }

    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }
}

impl StepModel for Decoder {
    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn context_length(&self) -> usize {
        self.config.context_length
    }

    fn block_size(&self) -> usize {
        self.cache.shape.block_size
    }

    fn n_blocks(&self) -> usize {
        self.cache.n_blocks
    }

    fn forward(&mut self, batch: &[SequenceSlice<'_>], logits: &mut Vec<f32>) -> Result<(), StepError> {
        logits.clear();
        plan::check(batch, &self.config, &self.cache)?;
        self.step(batch, logits)
    }

    fn copy_block(&mut self, from: BlockId, to: BlockId) {
        self.cache.copy_block(from, to);
    }
}
