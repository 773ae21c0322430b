//! Which blocks of the KV cache are in use, and by how many. Pure: knows numbers, not tensors.

use crate::model::step::BlockId;

/// Hands out block numbers and counts who refers to each.
#[derive(Debug)]
pub struct BlockPool {
    references: Vec<u32>,
    free: Vec<BlockId>,
}

impl BlockPool {
    /// A pool of blocks `0..n_blocks`, all free. Block numbers are 32 bits wide; what is beyond is never handed out.
    pub fn new(n_blocks: usize) -> Self {
        let n_blocks = u32::try_from(n_blocks).unwrap_or(u32::MAX);
        // Popped from the back, so low numbers are used first.
        Self { references: vec![0; n_blocks as usize], free: (0..n_blocks).rev().collect() }
    }

    pub fn n_blocks(&self) -> usize {
        self.references.len()
    }

    pub fn n_free(&self) -> usize {
        self.free.len()
    }

    /// A free block, with one reference.
    pub fn allocate(&mut self) -> Option<BlockId> {
        let block = self.free.pop()?;
        self.references[block as usize] = 1;
        Some(block)
    }

    /// One more refers to a block that is in use.
    pub fn retain(&mut self, block: BlockId) {
        let references = &mut self.references[block as usize];
        debug_assert!(*references > 0, "block {block} is free and cannot be shared");
        *references += 1;
    }

    /// One fewer refers to the block; the last one frees it. Returns how many still do.
    pub fn release(&mut self, block: BlockId) -> u32 {
        let references = &mut self.references[block as usize];
        debug_assert!(*references > 0, "block {block} was freed twice");
        if *references == 0 {
            return 0;
        }
        *references -= 1;
        if *references == 0 {
            self.free.push(block);
        }
        *references
    }

    pub fn references(&self, block: BlockId) -> u32 {
        self.references[block as usize]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pool_hands_out_each_block_once() {
        let mut pool = BlockPool::new(3);
        let mut blocks: Vec<_> = std::iter::from_fn(|| pool.allocate()).collect();
        blocks.sort_unstable();
        assert_eq!(blocks, [0, 1, 2]);
        assert_eq!(pool.n_free(), 0);
    }

    #[test]
    fn a_shared_block_is_free_only_after_its_last_release() {
        let mut pool = BlockPool::new(1);
        let block = pool.allocate().unwrap();
        pool.retain(block);
        assert_eq!(pool.release(block), 1);
        assert_eq!(pool.allocate(), None);
        assert_eq!(pool.release(block), 0);
        assert_eq!(pool.allocate(), Some(block));
    }

    #[test]
    #[should_panic(expected = "freed twice")]
    fn a_double_free_is_caught_in_debug_builds() {
        let mut pool = BlockPool::new(1);
        let block = pool.allocate().unwrap();
        pool.release(block);
        pool.release(block);
    }

    proptest! {
        /// Against a plain list of references: nothing leaks, nothing is handed out while it is used.
        #[test]
        fn counts_equal_a_list_of_references(ops in proptest::collection::vec((0u8..3, any::<usize>()), 0..500)) {
            let mut pool = BlockPool::new(7);
            let mut held: Vec<BlockId> = Vec::new();
            for (op, pick) in ops {
                match op {
                    0 => match pool.allocate() {
                        Some(block) => {
                            prop_assert!(!held.contains(&block));
                            held.push(block);
                        }
                        None => prop_assert_eq!(held.iter().collect::<std::collections::HashSet<_>>().len(), 7),
                    },
                    1 if !held.is_empty() => {
                        let block = held[pick % held.len()];
                        pool.retain(block);
                        held.push(block);
                    }
                    2 if !held.is_empty() => {
                        let block = held.swap_remove(pick % held.len());
                        let left = pool.release(block);
                        prop_assert_eq!(left as usize, held.iter().filter(|&&b| b == block).count());
                    }
                    _ => {}
                }
                let distinct: std::collections::HashSet<_> = held.iter().collect();
                prop_assert_eq!(pool.n_free(), 7 - distinct.len());
            }
        }
    }
}
