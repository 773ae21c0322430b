//! The block budget: pool, prefix cache and reservations in one account. Pure: knows numbers, not tensors.
//!
//! Invariant: free blocks and idle cached blocks together are never fewer than the blocks reserved. So a sequence
//! that was admitted always gets the blocks it was promised, and no one ever has to be preempted.

use super::blocks::BlockPool;
use super::prefix::{NodeId, Place, PrefixCache};
use crate::model::step::BlockId;

/// All blocks of one model's KV cache.
#[derive(Debug)]
pub struct KvBlocks {
    pool: BlockPool,
    prefixes: Option<PrefixCache>,
    reserved: usize,
}

impl KvBlocks {
    pub fn new(n_blocks: usize, prefix_cache: bool) -> Self {
        Self { pool: BlockPool::new(n_blocks), prefixes: prefix_cache.then(PrefixCache::default), reserved: 0 }
    }

    pub fn n_blocks(&self) -> usize {
        self.pool.n_blocks()
    }

    /// Blocks that sequences use; idle cached ones do not count, for they are given up when needed.
    pub fn n_used(&self) -> usize {
        self.pool.n_blocks() - self.pool.n_free() - self.n_idle()
    }

    /// Blocks promised and not yet handed out.
    pub fn n_reserved(&self) -> usize {
        self.reserved
    }

    /// Promises `blocks` more, if they can be had.
    pub fn reserve(&mut self, blocks: usize) -> bool {
        let fits = blocks <= (self.pool.n_free() + self.n_idle()).saturating_sub(self.reserved);
        if fits {
            self.reserved += blocks;
        }
        fits
    }

    /// Takes back a promise of `blocks`.
    pub fn unreserve(&mut self, blocks: usize) {
        debug_assert!(blocks <= self.reserved, "more is taken back than was promised");
        self.reserved = self.reserved.saturating_sub(blocks);
    }

    /// Hands out one of the blocks promised, evicting an idle cached one if none is free. `None` only when nothing
    /// was promised to the caller.
    pub fn allocate(&mut self) -> Option<BlockId> {
        if self.pool.n_free() == 0
            && let Some(evicted) = self.prefixes.as_mut().and_then(PrefixCache::evict)
        {
            self.pool.release(evicted);
        }
        let block = self.pool.allocate()?;
        self.unreserve(1);
        Some(block)
    }

    /// The cached block that holds `tokens` after `place`, now used by one more.
    pub fn adopt(&mut self, place: Place, tokens: &[u32]) -> Option<(NodeId, BlockId)> {
        let prefixes = self.prefixes.as_mut()?;
        let (id, block) = prefixes.find(place, tokens)?;
        prefixes.mark_used(block);
        self.pool.retain(block);
        Some((id, block))
    }

    /// Offers a full block to later prompts. Returns the place after it, or `None` when there is no prefix cache.
    pub fn publish(&mut self, place: Place, tokens: &[u32], block: BlockId) -> Option<Place> {
        let (id, is_new) = self.prefixes.as_mut()?.insert(place, tokens, block);
        if is_new {
            // The cache's own reference.
            self.pool.retain(block);
        }
        Some(Place::After(id))
    }

    /// One more sequence uses the block.
    pub fn share(&mut self, block: BlockId) {
        self.pool.retain(block);
    }

    /// Whether writing into the block would be seen by others.
    pub fn is_shared(&self, block: BlockId) -> bool {
        self.pool.references(block) > 1
    }

    /// A sequence lets go of its blocks: the end first, so that the prefix cache gives up ends before beginnings.
    pub fn release_all(&mut self, blocks: &[BlockId]) {
        for &block in blocks.iter().rev() {
            self.release(block);
        }
    }

    pub fn release(&mut self, block: BlockId) {
        if self.pool.release(block) == 1
            && let Some(prefixes) = &mut self.prefixes
        {
            // The one reference left is the cache's, if it has the block at all.
            prefixes.mark_idle(block);
        }
    }

    /// Gives up all that is cached: after a failed step nobody knows what the blocks hold.
    pub fn forget_prefixes(&mut self) {
        for block in self.prefixes.as_mut().map(PrefixCache::clear).unwrap_or_default() {
            self.pool.release(block);
        }
    }

    fn n_idle(&self) -> usize {
        self.prefixes.as_ref().map_or(0, PrefixCache::n_idle)
    }
}

#[cfg(test)]
mod tests {
    use super::super::prefix::CacheKey;
    use super::*;

    const ROOT: Place = Place::Root(CacheKey { model: 0, scope: 0 });

    #[test]
    fn no_more_is_promised_than_there_is() {
        let mut kv = KvBlocks::new(4, true);
        assert!(kv.reserve(3));
        assert!(!kv.reserve(2));
        kv.allocate().unwrap();
        assert!(!kv.reserve(2), "an allocated block is neither free nor promised");
        assert!(kv.reserve(1));
        assert_eq!((kv.n_used(), kv.n_reserved()), (1, 3));
    }

    #[test]
    fn idle_cached_blocks_are_promised_and_evicted_when_needed() {
        let mut kv = KvBlocks::new(2, true);
        assert!(kv.reserve(2));
        let (a, b) = (kv.allocate().unwrap(), kv.allocate().unwrap());
        let after = kv.publish(ROOT, &[1], a).unwrap();
        kv.publish(after, &[2], b).unwrap();
        assert!(!kv.reserve(1), "both are used");
        kv.release_all(&[a, b]);
        assert_eq!(kv.n_used(), 0);
        assert!(kv.reserve(1));
        assert_eq!(kv.allocate(), Some(b), "the end of the chain goes first");
        assert!(kv.adopt(ROOT, &[1]).is_some());
        assert!(kv.adopt(after, &[2]).is_none());
    }

    #[test]
    fn an_adopted_block_is_not_evictable_until_it_is_released() {
        let mut kv = KvBlocks::new(1, true);
        assert!(kv.reserve(1));
        let block = kv.allocate().unwrap();
        kv.publish(ROOT, &[1], block).unwrap();
        kv.release(block);
        kv.adopt(ROOT, &[1]).unwrap();
        assert!(!kv.reserve(1));
        assert!(kv.is_shared(block), "the cache and the sequence");
        kv.release(block);
        assert!(kv.reserve(1));
    }

    #[test]
    fn forgotten_prefixes_free_idle_blocks_and_leave_used_ones_to_their_sequence() {
        let mut kv = KvBlocks::new(2, true);
        assert!(kv.reserve(2));
        let (a, b) = (kv.allocate().unwrap(), kv.allocate().unwrap());
        kv.publish(ROOT, &[1], a).unwrap();
        kv.publish(ROOT, &[2], b).unwrap();
        kv.release(a);
        kv.forget_prefixes();
        assert_eq!(kv.n_used(), 1);
        kv.release(b);
        assert_eq!(kv.n_used(), 0);
        assert!(kv.reserve(2));
        assert!(kv.adopt(ROOT, &[2]).is_none());
    }

    #[test]
    fn without_a_prefix_cache_nothing_is_kept() {
        let mut kv = KvBlocks::new(1, false);
        assert!(kv.reserve(1));
        let block = kv.allocate().unwrap();
        assert_eq!(kv.publish(ROOT, &[1], block), None);
        kv.release(block);
        assert_eq!(kv.adopt(ROOT, &[1]), None);
        assert!(kv.reserve(1));
    }
}
