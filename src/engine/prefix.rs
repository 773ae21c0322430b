//! The prefix cache: which block holds which full block of tokens after which beginning. Pure; owns no block counts.
//!
//! A block is found by its parent in the chain and its own tokens. The map compares both in full after hashing, so a
//! hash collision can never hand out another prompt's cache, and its hash is keyed at random, so nobody can aim for
//! one. A parent is named by an id that is never used again: children of an evicted parent are unreachable.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::model::step::BlockId;

/// What must agree before prompts may share anything at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheKey {
    /// Identifies the weights, adapters included.
    pub model: u64,
    /// The tenant.
    pub scope: u64,
}

/// Where in the cache a prompt stands: at the beginning, or after a cached block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    Root(CacheKey),
    After(NodeId),
}

/// A cached block's name; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId(u64);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    place: Place,
    tokens: Arc<[u32]>,
}

#[derive(Debug)]
struct Node {
    key: Key,
    block: BlockId,
    /// When the last sequence let go of it; `None` while one uses it.
    idle_since: Option<u64>,
}

/// Cached blocks by content; those that no sequence uses in the order they are evicted.
#[derive(Debug, Default)]
pub struct PrefixCache {
    ids: HashMap<Key, NodeId>,
    nodes: HashMap<NodeId, Node>,
    by_block: HashMap<BlockId, NodeId>,
    /// Least recently used first.
    idle: BTreeMap<u64, NodeId>,
    next_id: u64,
    clock: u64,
}

impl PrefixCache {
    /// Cached blocks, used or idle.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Blocks that could be evicted.
    pub fn n_idle(&self) -> usize {
        self.idle.len()
    }

    /// The block that holds `tokens` after `place`.
    pub fn find(&self, place: Place, tokens: &[u32]) -> Option<(NodeId, BlockId)> {
        let id = *self.ids.get(&Key { place, tokens: tokens.into() })?;
        self.nodes.get(&id).map(|node| (id, node.block))
    }

    /// Adds a block that a sequence uses. When its content is cached already, that one stays: `(its id, false)`.
    pub fn insert(&mut self, place: Place, tokens: &[u32], block: BlockId) -> (NodeId, bool) {
        let key = Key { place, tokens: tokens.into() };
        if let Some(&id) = self.ids.get(&key) {
            return (id, false);
        }
        let id = NodeId(self.next_id);
        self.next_id += 1;
        self.ids.insert(key.clone(), id);
        self.by_block.insert(block, id);
        self.nodes.insert(id, Node { key, block, idle_since: None });
        (id, true)
    }

    /// A sequence uses the block again.
    pub fn mark_used(&mut self, block: BlockId) {
        if let Some(node) = self.by_block.get(&block).and_then(|id| self.nodes.get_mut(id))
            && let Some(since) = node.idle_since.take()
        {
            self.idle.remove(&since);
        }
    }

    /// No sequence uses the block any more. Call it for the end of a chain first, so that the end is evicted first.
    pub fn mark_idle(&mut self, block: BlockId) {
        let Some(&id) = self.by_block.get(&block) else { return };
        if let Some(node) = self.nodes.get_mut(&id)
            && node.idle_since.is_none()
        {
            node.idle_since = Some(self.clock);
            self.idle.insert(self.clock, id);
            self.clock += 1;
        }
    }

    pub fn holds(&self, block: BlockId) -> bool {
        self.by_block.contains_key(&block)
    }

    /// Forgets the block that was idle the longest and returns it.
    pub fn evict(&mut self) -> Option<BlockId> {
        let (_, id) = self.idle.pop_first()?;
        let node = self.nodes.remove(&id)?;
        self.ids.remove(&node.key);
        self.by_block.remove(&node.block);
        Some(node.block)
    }

    /// Forgets everything and returns the blocks it held.
    pub fn clear(&mut self) -> Vec<BlockId> {
        self.ids.clear();
        self.by_block.clear();
        self.idle.clear();
        self.nodes.drain().map(|(_, node)| node.block).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Place = Place::Root(CacheKey { model: 1, scope: 1 });

    #[test]
    fn a_block_is_found_by_its_tokens_after_its_parent_only() {
        let mut cache = PrefixCache::default();
        let (first, _) = cache.insert(A, &[1, 2], 10);
        let (second, _) = cache.insert(Place::After(first), &[1, 2], 11);
        assert_eq!(cache.find(A, &[1, 2]), Some((first, 10)));
        assert_eq!(cache.find(Place::After(first), &[1, 2]), Some((second, 11)));
        assert_eq!(cache.find(Place::After(second), &[1, 2]), None);
        assert_eq!(cache.find(A, &[1, 3]), None);
    }

    #[test]
    fn scopes_and_models_share_nothing() {
        let mut cache = PrefixCache::default();
        cache.insert(A, &[1, 2], 10);
        assert_eq!(cache.find(Place::Root(CacheKey { model: 1, scope: 2 }), &[1, 2]), None);
        assert_eq!(cache.find(Place::Root(CacheKey { model: 2, scope: 1 }), &[1, 2]), None);
    }

    #[test]
    fn content_that_is_cached_already_stays_where_it_is() {
        let mut cache = PrefixCache::default();
        let (id, new) = cache.insert(A, &[1], 10);
        assert!(new);
        assert_eq!(cache.insert(A, &[1], 11), (id, false));
        assert!(!cache.holds(11));
    }

    #[test]
    fn the_longest_idle_block_goes_first_and_used_ones_never() {
        let mut cache = PrefixCache::default();
        for block in 0..4 {
            cache.insert(A, &[block], block);
        }
        for block in [2, 0, 1] {
            cache.mark_idle(block);
        }
        cache.mark_used(0);
        assert_eq!(cache.n_idle(), 2);
        assert_eq!((cache.evict(), cache.evict(), cache.evict()), (Some(2), Some(1), None));
        assert_eq!(cache.find(A, &[2]), None);
        assert_eq!(cache.len(), 2);
    }

    #[test]
    fn the_children_of_an_evicted_block_are_not_found_under_its_successor() {
        let mut cache = PrefixCache::default();
        let (first, _) = cache.insert(A, &[1], 10);
        cache.insert(Place::After(first), &[2], 11);
        cache.mark_idle(10);
        assert_eq!(cache.evict(), Some(10));
        let (again, _) = cache.insert(A, &[1], 12);
        assert_eq!(cache.find(Place::After(again), &[2]), None);
    }

    #[test]
    fn clearing_returns_used_and_idle_blocks() {
        let mut cache = PrefixCache::default();
        cache.insert(A, &[1], 10);
        cache.insert(A, &[2], 11);
        cache.mark_idle(11);
        let mut blocks = cache.clear();
        blocks.sort_unstable();
        assert_eq!(blocks, [10, 11]);
        assert!(cache.is_empty() && cache.evict().is_none() && cache.find(A, &[1]).is_none());
    }
}
