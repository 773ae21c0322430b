//! A cursor over untrusted bytes that says what it was reading when they ran out.

use super::GgufError;

/// No key, string value or tensor name of a real file comes near; chat templates are the longest.
pub(super) const MAX_STRING_BYTES: u64 = 4 << 20;

pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// A reader that starts at `offset`; past the end it has nothing left.
    pub(super) fn at(bytes: &'a [u8], offset: usize) -> Self {
        Self { bytes, offset: offset.min(bytes.len()) }
    }

    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.offset
    }

    pub(super) fn bytes(&mut self, n: u64, what: &'static str) -> Result<&'a [u8], GgufError> {
        let truncated = || GgufError::Truncated { what, offset: self.offset, needed: n, left: self.left() };
        let end = usize::try_from(n).ok().and_then(|n| self.offset.checked_add(n)).ok_or_else(truncated)?;
        let bytes = self.bytes.get(self.offset..end).ok_or_else(truncated)?;
        self.offset = end;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], GgufError> {
        let bytes = self.bytes(N as u64, what)?;
        let mut array = [0; N];
        array.copy_from_slice(bytes);
        Ok(array)
    }

    /// A string with its 64-bit length before it.
    pub(super) fn string(&mut self, what: &'static str) -> Result<&'a str, GgufError> {
        let length = self.u64(what)?;
        if length > MAX_STRING_BYTES {
            return Err(GgufError::TooLarge { what: "the length of a string", found: length, limit: MAX_STRING_BYTES });
        }
        let offset = self.offset;
        let bytes = self.bytes(length, what)?;
        std::str::from_utf8(bytes).map_err(|_| GgufError::NotText { what, offset })
    }
}
