//! Checks of a planned step, and its rows and tiles.

use crate::model::config::DecoderConfig;
use crate::model::kernels::RowPlace;
use crate::model::kv_cache::KvCache;
use crate::model::step::{LogitsWanted, SequenceSlice, StepError};

/// One row of a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub token: u32,
    pub position: usize,
    pub place: RowPlace,
}

/// Whether every slice fits the model and the cache.
pub(super) fn check(batch: &[SequenceSlice<'_>], config: &DecoderConfig, cache: &KvCache) -> Result<(), StepError> {
    for slice in batch {
        let (tokens, position) = (slice.tokens.len(), slice.position);
        if tokens == 0 {
            return Err(StepError::EmptySlice);
        }
        let end = position.saturating_add(tokens);
        if end > config.context_length {
            return Err(StepError::ContextExceeded { position: end - 1, context_length: config.context_length });
        }
        let needed = end.div_ceil(cache.shape.block_size);
        if slice.blocks.len() < needed {
            return Err(StepError::TooFewBlocks { tokens, position, needed, given: slice.blocks.len() });
        }
        if let Some(&block) = slice.blocks[..needed].iter().find(|&&b| b as usize >= cache.n_blocks) {
            return Err(StepError::NoSuchBlock { block, n_blocks: cache.n_blocks });
        }
        if let Some(&token) = slice.tokens.iter().find(|&&t| t as usize >= config.vocab_size) {
            return Err(StepError::TokenOutOfRange { token, vocab_size: config.vocab_size });
        }
    }
    Ok(())
}

/// The rows of a checked step in order, into `rows`, and the numbers of those whose logits are wanted, into `wanted`.
pub(super) fn lay_out(batch: &[SequenceSlice<'_>], block_size: usize, rows: &mut Vec<Row>, wanted: &mut Vec<usize>) {
    rows.clear();
    wanted.clear();
    for slice in batch {
        let first = rows.len();
        for (i, &token) in slice.tokens.iter().enumerate() {
            let position = slice.position + i;
            let place = RowPlace { block: slice.blocks[position / block_size] as usize, slot: position % block_size };
            rows.push(Row { token, position, place });
        }
        match slice.logits {
            LogitsWanted::None => {}
            LogitsWanted::Last => wanted.push(rows.len() - 1),
            LogitsWanted::All => wanted.extend(first..rows.len()),
        }
    }
}
