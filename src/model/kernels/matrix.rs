//! A weight matrix in one of the kernels' layouts, and the product of activations with it.

use half::f16;

use super::activations::{ActivationKind, Activations, BLOCK, ROW_BLOCK_BYTES, TilePlan};
use super::aligned::AlignedBytes;
use super::isa::{Isa, Kind};
use super::lanes::LANES;
use super::pack::{Q4_RECORD_BYTES_PER_COLUMN, q8_data_offset};
use super::{DisjointMut, Pool, dense, portable};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// A matrix of `outputs` x `inputs`, packed in groups of columns (a column of the product is an output).
pub struct Matrix {
    pub(super) isa: Isa,
    pub(super) layout: Layout,
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    /// Groups of columns one after the other, each of [`Layout::group_bytes`].
    pub(super) bytes: AlignedBytes,
}

/// How a group of columns is stored. C is [`Isa::group_columns`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// One record per block of 32 k: 4 vectors of C columns x 4 bytes (byte i of a column: k = i in the low nibble,
    /// k = 16 + i in the high one, which is GGUF's own pairing), C `f16` scales d, C `f16` offsets m. w = d q + m.
    Q4,
    /// C `f16` scales per block, padded to 64 bytes, then per block 8 vectors of C columns x 4 `i8`. w = d q.
    Q8,
    /// Per k 16 columns of `f32`.
    Dense,
}

/// What a kernel reads and writes: a group of columns times a tile of rows.
#[derive(Clone, Copy)]
pub(super) struct KernelArgs {
    pub(super) weights: *const u8,
    pub(super) activations: *const u8,
    pub(super) blocks: usize,
    pub(super) out: *mut f32,
    /// Floats from one row of `out` to the next.
    pub(super) stride: usize,
    /// Bytes to prefetch ahead of the weights, or 0.
    pub(super) ahead: usize,
}

pub(super) type Kernel = unsafe fn(KernelArgs);

/// Prefetch distance where a matrix is read once (a single tile of rows): the hardware prefetcher alone does not keep
/// enough lines in flight.
const AHEAD_BYTES: usize = 2048;
const MAX_TILE_ROWS: usize = 8;

impl Layout {
    pub(super) fn group_columns(self, isa: Isa) -> usize {
        match self {
            Self::Q4 | Self::Q8 => isa.group_columns(),
            Self::Dense => LANES,
        }
    }

    pub(super) fn group_bytes(self, isa: Isa, inputs: usize) -> usize {
        let (blocks, columns) = (inputs.div_ceil(BLOCK), self.group_columns(isa));
        match self {
            Self::Q4 => blocks * columns * Q4_RECORD_BYTES_PER_COLUMN,
            Self::Q8 => q8_data_offset(blocks, columns) + blocks * columns * BLOCK,
            Self::Dense => blocks * BLOCK * columns * size_of::<f32>(),
        }
    }

    fn kernel(self, isa: Isa, rows: usize) -> Kernel {
        match (self, isa.kind()) {
            (Self::Dense, _) => dense::kernel(isa, rows),
            (Self::Q4, Kind::Portable) => portable::q4_kernel(rows),
            (Self::Q8, Kind::Portable) => portable::q8_kernel(rows),
            #[cfg(target_arch = "x86_64")]
            (Self::Q4, Kind::Avx2) => avx2::q4_kernel(rows),
            #[cfg(target_arch = "x86_64")]
            (Self::Q8, Kind::Avx2) => avx2::q8_kernel(rows),
            #[cfg(target_arch = "x86_64")]
            (Self::Q4, Kind::Avx512Vnni) => avx512::q4_kernel(rows),
            #[cfg(target_arch = "x86_64")]
            (Self::Q8, Kind::Avx512Vnni) => avx512::q8_kernel(rows),
        }
    }
}

impl Matrix {
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Bytes that the packed weights take.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Writes the weights of one output (an embedding, if this is a table of them) to `out`, as they are stored.
    ///
    /// # Panics
    /// When `output` or the length of `out` does not fit the matrix.
    pub fn read_output(&self, output: usize, out: &mut [f32]) {
        assert!(output < self.outputs && out.len() == self.inputs, "output {output} of {}", self.outputs);
        let columns = self.layout.group_columns(self.isa);
        let group_bytes = self.layout.group_bytes(self.isa, self.inputs);
        let group = &self.bytes.as_slice()[output / columns * group_bytes..][..group_bytes];
        let c = output % columns;
        let half = |bytes: &[u8], i: usize| f16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f32();
        match self.layout {
            Layout::Q4 => {
                let records = group.chunks_exact(columns * Q4_RECORD_BYTES_PER_COLUMN);
                for (out, record) in out.chunks_mut(BLOCK).zip(records) {
                    let (d, m) = (half(&record[columns * 16..], c), half(&record[columns * 18..], c));
                    for (k, out) in out.iter_mut().enumerate() {
                        let byte = record[k % 16 / 4 * columns * 4 + c * 4 + k % 4];
                        *out = d * f32::from(if k < 16 { byte & 15 } else { byte >> 4 }) + m;
                    }
                }
            }
            Layout::Q8 => {
                let (scales, data) = group.split_at(q8_data_offset(self.inputs.div_ceil(BLOCK), columns));
                for (b, out) in out.chunks_mut(BLOCK).enumerate() {
                    let d = half(scales, b * columns + c);
                    for (k, out) in out.iter_mut().enumerate() {
                        let byte = data[b * columns * BLOCK + k / 4 * columns * 4 + c * 4 + k % 4];
                        *out = d * f32::from(byte as i8);
                    }
                }
            }
            Layout::Dense => {
                for (k, out) in out.iter_mut().enumerate() {
                    let at = (k * columns + c) * 4;
                    *out = f32::from_ne_bytes([group[at], group[at + 1], group[at + 2], group[at + 3]]);
                }
            }
        }
    }
}

/// `out[row][first_column + j] = sum_k activations[row][k] * matrix[j][k]` for every row and output j; `out` has rows
/// of `stride` floats. Groups of columns are spread over the pool's threads.
///
/// # Panics
/// When the shapes or the kinds of matrix and activations do not fit each other, or `out` is too short.
pub fn matmul(
    matrix: &Matrix,
    activations: &Activations,
    out: &mut [f32],
    stride: usize,
    first_column: usize,
    pool: &Pool,
) {
    let dense = matrix.layout == Layout::Dense;
    assert!(dense == (activations.kind == ActivationKind::Dense) && matrix.isa == activations.isa, "one kind of rows");
    assert_eq!(matrix.inputs, activations.width, "a matrix and its activations have one width");
    assert!(first_column + matrix.outputs <= stride && out.len() >= activations.rows * stride, "out has room");
    if activations.rows == 0 {
        return;
    }
    let job = Job { matrix, activations, out: DisjointMut::new(out), stride, first_column };
    let groups = matrix.outputs.div_ceil(matrix.layout.group_columns(matrix.isa));
    // Enough chunks that a preempted thread loses little, and each long enough to be worth a claim.
    let parts = pool.threads() * if groups > 1024 { 16 } else { 4 };
    pool.ranges(groups, parts, &|_, groups| job.run(groups));
}

struct Job<'a> {
    matrix: &'a Matrix,
    activations: &'a Activations,
    out: DisjointMut<'a, f32>,
    stride: usize,
    first_column: usize,
}

impl Job<'_> {
    /// Groups outer, tiles of rows inner: the group in hand stays in the first cache while the rows stream past, and
    /// each tile prefetches its share of the next group.
    fn run(&self, groups: std::ops::Range<usize>) {
        let (matrix, acts, isa) = (self.matrix, self.activations, self.matrix.isa);
        let columns = matrix.layout.group_columns(isa);
        let group_bytes = matrix.layout.group_bytes(isa, matrix.inputs);
        let plan = TilePlan::new(acts.rows, isa);
        let (rows, blocks, row_bytes) = match matrix.layout {
            Layout::Dense => (acts.dense.as_ptr().cast::<u8>(), acts.blocks() * BLOCK, acts.blocks() * BLOCK * 4),
            _ => (acts.quantized.as_slice().as_ptr(), acts.blocks(), acts.blocks() * ROW_BLOCK_BYTES),
        };
        let ahead = if plan.tiles == 1 { AHEAD_BYTES } else { 0 };
        for group in groups {
            let weights = matrix.bytes.as_slice()[group * group_bytes..][..group_bytes].as_ptr();
            let valid = columns.min(matrix.outputs - group * columns);
            for tile in 0..plan.tiles {
                if plan.tiles > 1 {
                    self.prefetch_share(weights.wrapping_add(group_bytes), group_bytes, plan.tiles, tile);
                }
                let (row, end) = (plan.start(tile), plan.start(tile + 1));
                let kernel = matrix.layout.kernel(isa, end - row);
                let at = row * self.stride + self.first_column + group * columns;
                let mut spill = [0.0f32; MAX_TILE_ROWS * LANES];
                let whole = valid == columns;
                // SAFETY: the group was sliced above; the activations hold `rows` rows of that width and layout
                // (`fill` made room); out has room for every row and column (asserted in `matmul`), and this group's
                // columns are written by this chunk only. A group with padding columns goes through `spill`, which
                // holds the greatest tile. The kernel's instruction set was detected.
                unsafe {
                    let out = if whole { self.out.as_ptr().add(at) } else { spill.as_mut_ptr() };
                    let stride = if whole { self.stride } else { columns };
                    let activations = rows.add(row * row_bytes);
                    kernel(KernelArgs { weights, activations, blocks, out, stride, ahead });
                    if !whole {
                        for (r, row) in spill.chunks_exact(columns).take(end - row).enumerate() {
                            let at = at + r * self.stride;
                            self.out.range(at..at + valid).copy_from_slice(&row[..valid]);
                        }
                    }
                }
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn prefetch_share(&self, next: *const u8, group_bytes: usize, tiles: usize, tile: usize) {
        let share = group_bytes.div_ceil(tiles).next_multiple_of(64);
        for line in 0..share / 64 {
            // SAFETY: prefetching never faults, whatever the address.
            unsafe { avx2::prefetch::<1>(next.wrapping_add(tile * share + line * 64)) };
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn prefetch_share(&self, _next: *const u8, _group_bytes: usize, _tiles: usize, _tile: usize) {}
}
