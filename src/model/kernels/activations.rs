//! The left side of a matrix product: rows of `f32`, or rows quantized to 8 bits in blocks of 32.

use super::aligned::AlignedBytes;
use super::isa::{Isa, Kind};
use super::{DisjointMut, Pool};

/// Values in a quantized block.
pub(super) const BLOCK: usize = 32;
/// Bytes that a row takes in a block's record: 32 `i8` q, then `f32` d, `f32` d * sum(q), `i32` -128 * sum(q).
pub(super) const ROW_BLOCK_BYTES: usize = BLOCK + 12;
/// Below this many values one thread finishes sooner than handing over costs.
const SERIAL_VALUES: usize = 8192;

/// What the matrices that read the rows expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivationKind {
    /// For packed 4- and 8-bit matrices.
    Quantized,
    /// For dense matrices.
    Dense,
}

/// `rows` rows of `width` values, padded with zeros to whole blocks.
///
/// Quantized rows lie in tiles of at most `Isa::tile_rows` rows, as even as possible. A tile of r rows holds for each
/// block one record: r x 32 `i8` | r `f32` scales d | r `f32` d * sum(q) | r `i32` -128 * sum(q).
pub struct Activations {
    pub(super) kind: ActivationKind,
    pub(super) isa: Isa,
    pub(super) rows: usize,
    pub(super) width: usize,
    pub(super) quantized: AlignedBytes,
    pub(super) dense: Vec<f32>,
    /// One row for each thread.
    scratch: Vec<f32>,
}

impl Activations {
    pub fn new(isa: Isa, kind: ActivationKind) -> Self {
        let quantized = AlignedBytes::zeroed(0);
        Self { kind, isa, rows: 0, width: 0, quantized, dense: Vec::new(), scratch: Vec::new() }
    }

    /// Makes `rows` rows of `width` values. `fill(i, state, out)` writes row i to `out` (`width` values, to be written
    /// in full) and may change its row of `state`, which holds `rows` equal rows. Allocates only when it grows.
    pub fn fill(
        &mut self,
        rows: usize,
        width: usize,
        state: &mut [f32],
        pool: &Pool,
        fill: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
    ) {
        let padded = width.next_multiple_of(BLOCK);
        (self.rows, self.width) = (rows, width);
        match self.kind {
            ActivationKind::Quantized => self.quantized.grow(rows * padded / BLOCK * ROW_BLOCK_BYTES),
            ActivationKind::Dense if self.dense.len() < rows * padded => self.dense.resize(rows * padded, 0.0),
            ActivationKind::Dense => {}
        }
        if self.scratch.len() < pool.threads() * padded {
            self.scratch.resize(pool.threads() * padded, 0.0);
        }
        let (kind, isa) = (self.kind, self.isa);
        let state_width = state.len().checked_div(rows).unwrap_or(0);
        let (state, scratch) = (DisjointMut::new(state), DisjointMut::new(&mut self.scratch));
        let dense = DisjointMut::new(&mut self.dense);
        let records = DisjointMut::new(self.quantized.as_mut_slice());
        let one_row = |worker: usize, row: usize| {
            // SAFETY: rows of the state are disjoint, and each row is filled once.
            let state = unsafe { state.range(row * state_width..(row + 1) * state_width) };
            let out = match kind {
                // SAFETY: a worker has one row of scratch, and runs one chunk at a time.
                ActivationKind::Quantized => unsafe { scratch.range(worker * padded..(worker + 1) * padded) },
                // SAFETY: rows are disjoint; the buffer holds `rows` padded rows.
                ActivationKind::Dense => unsafe { dense.range(row * padded..(row + 1) * padded) },
            };
            fill(row, state, &mut out[..width]);
            out[width..].fill(0.0);
            if kind == ActivationKind::Quantized {
                quantize_row(isa, out, &records, TilePlan::new(rows, isa), row);
            }
        };
        let parts = if rows * width < SERIAL_VALUES { 1 } else { pool.threads() * 4 };
        pool.ranges(rows, parts, &|worker, range| range.for_each(|row| one_row(worker, row)));
    }

    pub(super) fn blocks(&self) -> usize {
        self.width.div_ceil(BLOCK)
    }
}

/// How rows are divided into tiles.
#[derive(Clone, Copy)]
pub(super) struct TilePlan {
    rows: usize,
    pub(super) tiles: usize,
}

impl TilePlan {
    pub(super) fn new(rows: usize, isa: Isa) -> Self {
        Self { rows, tiles: rows.div_ceil(isa.tile_rows()) }
    }
    /// First row of a tile; of the tile past the last: the number of rows.
    pub(super) fn start(self, tile: usize) -> usize {
        self.rows * tile / self.tiles
    }
    fn tile_of(self, row: usize) -> (usize, usize) {
        let tile = ((row + 1) * self.tiles - 1) / self.rows;
        (self.start(tile), self.start(tile + 1) - self.start(tile))
    }
}

/// Quantizes a padded row into its places in the records.
fn quantize_row(isa: Isa, x: &[f32], records: &DisjointMut<'_, u8>, plan: TilePlan, row: usize) {
    let blocks = x.len() / BLOCK;
    let (first, tile_rows) = plan.tile_of(row);
    let lane = row - first;
    assert!((first + tile_rows) * blocks * ROW_BLOCK_BYTES <= records.len(), "room for every row was made");
    for (b, x) in x.as_chunks::<BLOCK>().0.iter().enumerate() {
        let mut q = [0i8; BLOCK];
        let (d, sum) = match isa.kind() {
            Kind::Portable => quantize_block(x, &mut q),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa` of these kinds exists only where AVX2 was detected.
            Kind::Avx2 | Kind::Avx512Vnni => unsafe { super::avx2::quantize_block(x, &mut q) },
        };
        let record = (first * blocks + b * tile_rows) * ROW_BLOCK_BYTES;
        let tail = record + tile_rows * BLOCK + lane * 4;
        let put = |at: usize, bytes: &[u8]| {
            // SAFETY: inside the buffer (checked above), and no other row writes these bytes.
            unsafe { records.range(at..at + bytes.len()).copy_from_slice(bytes) };
        };
        put(record + lane * BLOCK, &q.map(|q| q as u8));
        put(tail, &d.to_ne_bytes());
        put(tail + tile_rows * 4, &(d * sum as f32).to_ne_bytes());
        put(tail + tile_rows * 8, &(-128i32).wrapping_mul(sum).to_ne_bytes());
    }
}

/// `q = round(x / d)` with `d = max|x| / 127`; returns d and the sum of q. The greatest magnitude is found on the bits,
/// where not-a-number and infinity are the greatest of all, so they end in d and are not lost.
pub(super) fn quantize_block(x: &[f32; BLOCK], q: &mut [i8; BLOCK]) -> (f32, i32) {
    let max = f32::from_bits(x.iter().map(|x| x.abs().to_bits()).max().unwrap_or(0));
    let inverse = if max > 0.0 { 127.0 / max } else { 0.0 };
    let mut sum = 0;
    for (q, &x) in q.iter_mut().zip(x) {
        *q = (x * inverse).round_ties_even() as i8;
        sum += i32::from(*q);
    }
    (max / 127.0, sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantizing_is_the_same_on_every_instruction_set_and_keeps_not_a_number() {
        let mut x = [0.0f32; 96];
        for (i, x) in x.iter_mut().enumerate() {
            *x = ((i * 7919 % 997) as f32 - 498.0) / 31.0;
        }
        x[40] = f32::NAN;
        let pool = Pool::new(1).unwrap();
        let bytes = |isa| {
            let mut acts = Activations::new(isa, ActivationKind::Quantized);
            acts.fill(1, 90, &mut [], &pool, |_, _, out| out.copy_from_slice(&x[..90]));
            acts.quantized.as_slice()[..3 * ROW_BLOCK_BYTES].to_vec()
        };
        let reference = bytes(Isa::available()[0]);
        assert!(f32::from_ne_bytes(reference[ROW_BLOCK_BYTES + 32..][..4].try_into().unwrap()).is_nan());
        for isa in Isa::available() {
            let found = bytes(isa);
            assert_eq!(found[..ROW_BLOCK_BYTES], reference[..ROW_BLOCK_BYTES], "{}", isa.name());
            assert_eq!(found[2 * ROW_BLOCK_BYTES..], reference[2 * ROW_BLOCK_BYTES..], "{}", isa.name());
            assert!(f32::from_ne_bytes(found[ROW_BLOCK_BYTES + 32..][..4].try_into().unwrap()).is_nan());
        }
    }

    #[test]
    fn tiles_are_even_and_cover_every_row() {
        for isa in Isa::available() {
            for rows in 1..70 {
                let plan = TilePlan::new(rows, isa);
                assert_eq!(plan.start(plan.tiles), rows);
                for row in 0..rows {
                    let (first, n) = plan.tile_of(row);
                    assert!(first <= row && row < first + n && n <= isa.tile_rows());
                }
            }
        }
    }
}
