//! The seam between the batching engine and a decoder: one step over a ragged batch.
//!
//! The engine decides which sequences take part and owns the block numbers; the model owns the tensors behind them.

use thiserror::Error;

/// A block of the KV cache. The engine allocates, shares and frees block numbers; the model only reads and writes them.
pub type BlockId = u32;

/// One sequence's part of a step: `tokens` stand at positions `position..position + tokens.len()`.
#[derive(Debug, Clone, Copy)]
pub struct SequenceSlice<'a> {
    /// The new tokens: one when decoding, a chunk of the prompt in prefill. Never empty.
    pub tokens: &'a [u32],
    /// How many tokens of this sequence are in the cache already.
    pub position: usize,
    /// The sequence's blocks in order; they hold at least `position + tokens.len()` slots.
    pub blocks: &'a [BlockId],
    /// Which of the new tokens' logits are wanted.
    pub logits: LogitsWanted,
}

/// Which logits a slice asks for. Rows are returned in the order of the slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogitsWanted {
    /// A prompt chunk that is not the last one.
    None,
    /// The last token only: decoding, and the end of a prompt.
    Last,
    /// Every token: perplexity and tests.
    All,
}

/// A step that could not be done. The worker fails the sequences of that step and goes on.
#[derive(Debug, Error)]
pub enum StepError {
    #[error("token {token} is outside the vocabulary of {vocab_size}")]
    TokenOutOfRange { token: u32, vocab_size: usize },
    #[error("position {position} is past the context of {context_length} tokens")]
    ContextExceeded { position: usize, context_length: usize },
    #[error("a slice of {tokens} tokens at {position} needs {needed} blocks and has {given}")]
    TooFewBlocks { tokens: usize, position: usize, needed: usize, given: usize },
    #[error("block {block} does not exist, the cache has {n_blocks}")]
    NoSuchBlock { block: BlockId, n_blocks: usize },
    #[error("an empty slice was planned")]
    EmptySlice,
    #[error("the model produced a value that is not a number")]
    NotANumber,
}

/// A decoder together with its block KV cache, as the worker thread drives it.
pub trait StepModel: Send {
    /// Length of one row of logits.
    fn vocab_size(&self) -> usize;
    /// The most tokens a sequence may have.
    fn context_length(&self) -> usize;
    /// Token slots in a block.
    fn block_size(&self) -> usize;
    /// Blocks in the cache.
    fn n_blocks(&self) -> usize;
    /// Runs one step. `logits` is cleared and filled with one row of `vocab_size` for each row wanted, in the order
    /// of the slices. A row does not depend on the other slices of the batch (bit for bit).
    ///
    /// # Errors
    /// A [`StepError`] leaves the cache usable; the slots of the slices named are then undefined.
    fn forward(&mut self, batch: &[SequenceSlice<'_>], logits: &mut Vec<f32>) -> Result<(), StepError>;
    /// Copies a whole block (copy on write of a shared, partly filled block).
    fn copy_block(&mut self, from: BlockId, to: BlockId);
}
