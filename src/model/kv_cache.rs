//! The block KV cache of a decoder: one pair of key and value stores for each layer, addressed by block.

use super::kernels::{AttentionShape, KvLayer};
use super::step::BlockId;

/// All layers' keys and values. Which block belongs to whom is the engine's business.
pub struct KvCache {
    pub shape: AttentionShape,
    pub n_blocks: usize,
    pub layers: Vec<KvLayer>,
}

impl KvCache {
    pub fn new(shape: AttentionShape, n_layers: usize, n_blocks: usize, half_precision: bool) -> Self {
        let layers = (0..n_layers).map(|_| KvLayer::new(half_precision, &shape, n_blocks)).collect();
        Self { shape, n_blocks, layers }
    }

    /// Bytes of one block in all layers.
    pub fn block_bytes(shape: &AttentionShape, n_layers: usize, half_precision: bool) -> usize {
        let element = if half_precision { size_of::<u16>() } else { size_of::<f32>() };
        (shape.key_block() + shape.value_block()) * element * n_layers
    }

    /// Copies a block in every layer. Blocks that do not exist are left alone.
    pub fn copy_block(&mut self, from: BlockId, to: BlockId) {
        let (from, to) = (from as usize, to as usize);
        if from >= self.n_blocks || to >= self.n_blocks {
            return;
        }
        for layer in &mut self.layers {
            layer.copy_block(&self.shape, from, to);
        }
    }
}
