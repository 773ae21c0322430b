//! A running request as the scheduler sees it: its prompt's progress, its candidates' block tables. Pure.

use std::sync::Arc;

use super::kv::KvBlocks;
use super::prefix::{CacheKey, Place};
use crate::model::step::BlockId;

/// Names a request within one engine; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// The most blocks that a request can need at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// For the prompt, shared by all candidates.
    pub prompt_blocks: usize,
    /// For each candidate besides, a copy of the prompt's partly filled last block included.
    pub candidate_blocks: usize,
}

impl Footprint {
    /// The last token of a candidate is never fed back, so it needs no slot.
    pub fn new(prompt_tokens: usize, max_new_tokens: usize, block_size: usize) -> Self {
        let slots = prompt_tokens + max_new_tokens.saturating_sub(1);
        Self {
            prompt_blocks: prompt_tokens.div_ceil(block_size),
            candidate_blocks: slots.div_ceil(block_size) - prompt_tokens / block_size,
        }
    }

    pub fn total(self, candidates: usize) -> usize {
        self.prompt_blocks.saturating_add(self.candidate_blocks.saturating_mul(candidates))
    }
}

/// Blocks in order, and how many more may be taken of those promised at admission.
#[derive(Debug, Default)]
pub(super) struct BlockTable {
    pub blocks: Vec<BlockId>,
    promised: usize,
}

impl BlockTable {
    pub fn with_promise(blocks: usize) -> Self {
        Self { blocks: Vec::with_capacity(blocks), promised: blocks }
    }

    /// Makes room for `slots` tokens. `false` when the promise does not cover it.
    #[must_use]
    pub fn grow_to(&mut self, slots: usize, block_size: usize, kv: &mut KvBlocks) -> bool {
        while self.blocks.len() * block_size < slots {
            match self.take(kv) {
                Some(block) => self.blocks.push(block),
                None => return false,
            }
        }
        true
    }

    /// Uses a block that exists already in place of a promised one.
    pub fn adopt(&mut self, block: BlockId, kv: &mut KvBlocks) {
        self.blocks.push(block);
        if self.promised > 0 {
            self.promised -= 1;
            kv.unreserve(1);
        }
    }

    /// Makes block `index` this table's own before it is written; `Some((from, to))` when that takes a copy.
    /// `Err` when the promise does not cover it.
    pub fn own(&mut self, index: usize, kv: &mut KvBlocks) -> Result<Option<(BlockId, BlockId)>, PromiseBroken> {
        let shared = self.blocks[index];
        if !kv.is_shared(shared) {
            return Ok(None);
        }
        let copy = self.take(kv).ok_or(PromiseBroken)?;
        kv.release(shared);
        self.blocks[index] = copy;
        Ok(Some((shared, copy)))
    }

    /// Gives everything back: blocks and promise.
    pub fn release(&mut self, kv: &mut KvBlocks) {
        kv.release_all(&self.blocks);
        kv.unreserve(self.promised);
        *self = Self::default();
    }

    fn take(&mut self, kv: &mut KvBlocks) -> Option<BlockId> {
        if self.promised == 0 {
            return None;
        }
        let block = kv.allocate()?;
        self.promised -= 1;
        Some(block)
    }
}

/// A table needed more blocks than its request had reserved; a mistake in [`Footprint`] alone can cause it.
#[derive(Debug)]
pub(super) struct PromiseBroken;

/// One candidate.
#[derive(Debug)]
pub(super) struct Sequence {
    pub table: BlockTable,
    /// The token sampled last, not yet fed back.
    pub next: u32,
    /// Tokens in the cache.
    pub position: usize,
    pub finished: bool,
}

/// A request that was admitted.
#[derive(Debug)]
pub(super) struct RunningRequest {
    pub id: RequestId,
    pub prompt: Arc<[u32]>,
    /// Prompt tokens in the cache: adopted or computed.
    pub computed: usize,
    /// The prompt's blocks while it is prefilled; the candidates take them over.
    pub table: BlockTable,
    /// Where the next block of the prompt stands in the prefix cache; `None` without one.
    pub place: Option<Place>,
    /// Prompt blocks that are behind `place`.
    published: usize,
    pub sequences: Vec<Sequence>,
}

impl RunningRequest {
    /// A request whose whole footprint was reserved.
    pub fn new(
        id: RequestId,
        prompt: Arc<[u32]>,
        candidates: usize,
        footprint: Footprint,
        cache_key: Option<CacheKey>,
    ) -> Self {
        let sequence = || Sequence {
            table: BlockTable::with_promise(footprint.candidate_blocks),
            next: 0,
            position: prompt.len(),
            finished: false,
        };
        Self {
            id,
            computed: 0,
            table: BlockTable::with_promise(footprint.prompt_blocks),
            place: cache_key.map(Place::Root),
            published: 0,
            sequences: (0..candidates).map(|_| sequence()).collect(),
            prompt,
        }
    }

    pub fn is_prefilling(&self) -> bool {
        self.computed < self.prompt.len()
    }

    /// Takes over what the prefix cache has of the rest of the prompt, but for its last token, whose logits are
    /// needed. Returns how many tokens that spared.
    pub fn adopt_prefix(&mut self, block_size: usize, kv: &mut KvBlocks) -> usize {
        let before = self.computed;
        while let Some(place) = self.place
            && self.computed == self.published * block_size
            && self.table.blocks.len() == self.published
            && self.computed + block_size < self.prompt.len()
            && let Some((id, block)) = kv.adopt(place, &self.prompt[self.computed..self.computed + block_size])
        {
            self.table.adopt(block, kv);
            self.place = Some(Place::After(id));
            self.published += 1;
            self.computed += block_size;
        }
        self.computed - before
    }

    /// The place and the tokens of the next full block, which others may be computing too.
    pub fn next_block(&self, block_size: usize) -> Option<(Place, &[u32])> {
        let place = self.place?;
        let start = self.published * block_size;
        (self.computed == start).then(|| self.prompt.get(start..start + block_size)).flatten().map(|t| (place, t))
    }

    /// `tokens` more of the prompt were computed: offers the blocks that became full, and forks after the last token.
    pub fn advance_prefill(&mut self, tokens: usize, block_size: usize, kv: &mut KvBlocks) {
        self.computed += tokens;
        while let Some(place) = self.place
            && (self.published + 1) * block_size <= self.computed
        {
            let start = self.published * block_size;
            self.place = kv.publish(place, &self.prompt[start..start + block_size], self.table.blocks[self.published]);
            self.published += 1;
        }
        if !self.is_prefilling() {
            self.fork(kv);
        }
    }

    /// Every candidate gets the prompt's blocks; who writes into a shared one copies it first.
    fn fork(&mut self, kv: &mut KvBlocks) {
        for sequence in &mut self.sequences {
            for &block in &self.table.blocks {
                kv.share(block);
            }
            sequence.table.blocks.extend_from_slice(&self.table.blocks);
        }
        self.table.release(kv);
    }

    /// Gives back all blocks and promises.
    pub fn release(&mut self, kv: &mut KvBlocks) {
        for sequence in &mut self.sequences {
            sequence.table.release(kv);
        }
        self.table.release(kv);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_footprint_counts_shared_blocks_once_and_the_copied_last_one_for_each() {
        // 20 prompt tokens in blocks of 8: two full, one partial. 10 new tokens: 29 slots, four blocks.
        let footprint = Footprint::new(20, 10, 8);
        assert_eq!(footprint, Footprint { prompt_blocks: 3, candidate_blocks: 2 });
        assert_eq!(footprint.total(3), 9);
    }

    #[test]
    fn one_new_token_after_full_blocks_needs_no_block_of_its_own() {
        assert_eq!(Footprint::new(16, 1, 8), Footprint { prompt_blocks: 2, candidate_blocks: 0 });
        assert_eq!(Footprint::new(16, 2, 8), Footprint { prompt_blocks: 2, candidate_blocks: 1 });
    }

    #[test]
    fn a_table_takes_no_more_than_it_was_promised() {
        let mut kv = KvBlocks::new(8, false);
        assert!(kv.reserve(2));
        let mut table = BlockTable::with_promise(2);
        assert!(table.grow_to(8, 4, &mut kv));
        assert!(!table.grow_to(9, 4, &mut kv));
        table.release(&mut kv);
        assert_eq!((kv.n_used(), kv.n_reserved()), (0, 0));
    }

    #[test]
    fn only_a_shared_block_is_copied_before_it_is_written() {
        let mut kv = KvBlocks::new(2, false);
        assert!(kv.reserve(2));
        let mut table = BlockTable::with_promise(2);
        assert!(table.grow_to(1, 4, &mut kv));
        assert!(table.own(0, &mut kv).unwrap().is_none());
        let original = table.blocks[0];
        kv.share(original);
        let (from, to) = table.own(0, &mut kv).unwrap().unwrap();
        assert_eq!((from, table.blocks[0]), (original, to));
        assert!(!kv.is_shared(original));
    }
}
