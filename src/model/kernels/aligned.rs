//! Zeroed bytes that begin on a cache line.

/// One cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A byte buffer aligned to 64 bytes, its length rounded up to whole lines.
pub(super) struct AlignedBytes {
    lines: Vec<Line>,
}

impl AlignedBytes {
    pub(super) fn zeroed(bytes: usize) -> Self {
        Self { lines: vec![Line([0; 64]); bytes.div_ceil(64)] }
    }

    /// Grows to at least `bytes`; what was in it stays.
    pub(super) fn grow(&mut self, bytes: usize) {
        if self.len() < bytes {
            self.lines.resize(bytes.div_ceil(64), Line([0; 64]));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len() * 64
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        // SAFETY: lines are plain bytes without padding, and the length is theirs.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len()) }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        let len = self.len();
        // SAFETY: as above, and the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), len) }
    }
}

/// The bytes of words, in the machine's order.
pub fn bytes_of(words: &[u64]) -> &[u8] {
    // SAFETY: words are plain bytes without padding, and a byte needs no alignment.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), std::mem::size_of_val(words)) }
}
