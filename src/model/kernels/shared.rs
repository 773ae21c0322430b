//! A slice that the chunks of one job write at disjoint places.

use std::marker::PhantomData;
use std::ops::Range;

/// A mutable slice handed to several threads, each of which writes its own part.
pub struct DisjointMut<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: the only access is `range`, whose caller promises that parts in use at once do not overlap.
unsafe impl<T: Send> Sync for DisjointMut<'_, T> {}

impl<'a, T> DisjointMut<'a, T> {
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), borrow: PhantomData }
    }

    /// Runs `f(worker, i, part i)` for every part of `size` elements, spread over the pool's threads.
    pub fn for_each_part(slice: &'a mut [T], size: usize, pool: &super::Pool, f: impl Fn(usize, usize, &mut [T]) + Sync)
    where
        T: Send,
    {
        let shared = Self::new(slice);
        let parts = shared.len.checked_div(size).unwrap_or(0);
        pool.chunks(parts, &|worker, i| {
            // SAFETY: part i is inside the slice, parts are disjoint, and each i is run once.
            f(worker, i, unsafe { shared.range(i * size..(i + 1) * size) });
        });
    }

    /// The part of the slice at `range`.
    ///
    /// # Safety
    /// `range` lies inside the slice, and no other part in use at the same time overlaps it.
    #[expect(clippy::mut_from_ref, reason = "the caller promises disjoint parts, which is what this type is for")]
    pub(super) unsafe fn range(&self, range: Range<usize>) -> &mut [T] {
        debug_assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: inside the slice and not aliased, by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The slice's first element.
    pub(super) fn as_ptr(&self) -> *mut T {
        self.start
    }
}
