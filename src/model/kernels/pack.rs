//! Weights of a file repacked into the kernels' layouts, group by group and in parallel.

use half::f16;

use super::activations::BLOCK;
use super::aligned::AlignedBytes;
use super::matrix::{Layout, Matrix};
use super::{DisjointMut, Isa, Pool};

/// Bytes per block and column of the 4-bit layout: 16 of nibbles, 2 of scale, 2 of offset.
pub(super) const Q4_RECORD_BYTES_PER_COLUMN: usize = 20;

/// Where an 8-bit group's data begin, after its scales.
pub(super) fn q8_data_offset(blocks: usize, columns: usize) -> usize {
    (blocks * columns * 2).next_multiple_of(64)
}

/// How a tensor's rows are stored. Each row is `inputs` values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceFormat {
    /// Blocks of 32: `f16` d, 16 bytes of nibbles q. w = d (q - 8).
    Q4_0,
    /// Blocks of 32: `f16` d, `f16` m, 16 bytes of nibbles. w = d q + m.
    Q4_1,
    /// Blocks of 32: `f16` d, 32 `i8`. w = d q.
    Q8_0,
    /// Anything else, read as `f32` rows.
    Rows,
}

/// One tensor of a matrix; several are joined along their outputs.
pub trait MatrixSource: Sync {
    /// What went wrong, naming the tensor.
    type Error: Send;

    fn outputs(&self) -> usize;
    fn format(&self) -> SourceFormat;
    /// The tensor as stored: exactly `outputs` rows of blocks, unless the format is [`SourceFormat::Rows`].
    fn bytes(&self) -> &[u8];
    /// Row `output` as `f32`, every value finite.
    ///
    /// # Errors
    /// When the row cannot be read, or a value of it is not finite.
    fn row(&self, output: usize, out: &mut [f32]) -> Result<(), Self::Error>;
    /// The error of a scale that is not finite.
    fn not_finite(&self) -> Self::Error;
}

/// Packs tensors of `inputs` inputs as one matrix: dense `f32`, or 4 bits where all of them are Q4 and 8 bits
/// otherwise. Q4_0, Q4_1 and Q8_0 keep their values exactly.
///
/// # Errors
/// The first [`MatrixSource`] error met.
///
/// # Panics
/// When a source's bytes are fewer than its shape needs.
pub fn pack_matrix<S: MatrixSource>(
    isa: Isa,
    dense: bool,
    inputs: usize,
    sources: &[S],
    pool: &Pool,
) -> Result<Matrix, S::Error> {
    let is_q4 = |s: &S| match s.format() {
        SourceFormat::Q4_1 => true,
        SourceFormat::Q4_0 => q4_0_fits(s.bytes()),
        _ => false,
    };
    let layout = match dense {
        true => Layout::Dense,
        false if inputs.is_multiple_of(BLOCK) && sources.iter().all(is_q4) => Layout::Q4,
        false => Layout::Q8,
    };
    let outputs = sources.iter().map(MatrixSource::outputs).sum::<usize>();
    let (columns, group_bytes) = (layout.group_columns(isa), layout.group_bytes(isa, inputs));
    let mut bytes = AlignedBytes::zeroed(outputs.div_ceil(columns) * group_bytes);
    let error = std::sync::Mutex::new(None);
    DisjointMut::for_each_part(bytes.as_mut_slice(), group_bytes, pool, |_, group, part| {
        let mut row = vec![0.0; inputs];
        for c in 0..columns.min(outputs - group * columns) {
            let mut output = group * columns + c;
            let mut sources = sources.iter();
            let Some(source) = sources.find(|s| {
                let here = output < s.outputs();
                output -= if here { 0 } else { s.outputs() };
                here
            }) else {
                continue;
            };
            let mut column = Column { part: &mut *part, columns, c, inputs };
            let packed = match (layout, source.format()) {
                (Layout::Q4, format) => column.put_q4(source, output, format == SourceFormat::Q4_1),
                (Layout::Q8, SourceFormat::Q8_0) => column.put_q8(source, output),
                (Layout::Q8, _) => source.row(output, &mut row).and_then(|()| column.put_quantized(source, &row)),
                (Layout::Dense, _) => source.row(output, &mut row).map(|()| column.put_dense(&row)),
            };
            if let Err(e) = packed {
                error.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(e);
                return;
            }
        }
    });
    match error.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(Matrix { isa, layout, outputs, inputs, bytes }),
    }
}

/// Whether every offset -8 d is a finite `f16`; it is then exact.
fn q4_0_fits(bytes: &[u8]) -> bool {
    bytes.chunks_exact(18).all(|b| {
        let d = f16::from_le_bytes([b[0], b[1]]);
        !d.is_finite() || f16::from_f32(-8.0 * d.to_f32()).is_finite()
    })
}

/// A column's place in its group.
struct Column<'a> {
    part: &'a mut [u8],
    columns: usize,
    c: usize,
    inputs: usize,
}

impl Column<'_> {
    fn put_q4<S: MatrixSource>(&mut self, source: &S, output: usize, has_offset: bool) -> Result<(), S::Error> {
        let (columns, c) = (self.columns, self.c);
        let (block_bytes, record_bytes) = (if has_offset { 20 } else { 18 }, columns * Q4_RECORD_BYTES_PER_COLUMN);
        let blocks = self.inputs / BLOCK;
        let row = &source.bytes()[output * blocks * block_bytes..][..blocks * block_bytes];
        for (block, record) in row.chunks_exact(block_bytes).zip(self.part.chunks_exact_mut(record_bytes)) {
            let d = f16::from_le_bytes([block[0], block[1]]);
            let m = match has_offset {
                true => f16::from_le_bytes([block[2], block[3]]),
                false => f16::from_f32(-8.0 * d.to_f32()),
            };
            if !d.is_finite() || !m.is_finite() {
                return Err(source.not_finite());
            }
            for (i, four) in block[block_bytes - 16..].chunks_exact(4).enumerate() {
                record[i * columns * 4 + c * 4..][..4].copy_from_slice(four);
            }
            record[columns * 16 + c * 2..][..2].copy_from_slice(&d.to_le_bytes());
            record[columns * 18 + c * 2..][..2].copy_from_slice(&m.to_le_bytes());
        }
        Ok(())
    }

    fn put_q8<S: MatrixSource>(&mut self, source: &S, output: usize) -> Result<(), S::Error> {
        let blocks = self.inputs / BLOCK;
        let row = &source.bytes()[output * blocks * 34..][..blocks * 34];
        for (b, block) in row.chunks_exact(34).enumerate() {
            let d = f16::from_le_bytes([block[0], block[1]]);
            if !d.is_finite() {
                return Err(source.not_finite());
            }
            self.put_q8_block(b, d, &block[2..]);
        }
        Ok(())
    }

    /// Quantizes to blocks of 32 as Q8_0 does, with the scale that is stored.
    fn put_quantized<S: MatrixSource>(&mut self, source: &S, row: &[f32]) -> Result<(), S::Error> {
        for (b, x) in row.chunks(BLOCK).enumerate() {
            let d = f16::from_f32(x.iter().fold(0.0f32, |max, x| max.max(x.abs())) / 127.0);
            if !d.is_finite() {
                return Err(source.not_finite());
            }
            let inverse = if d.to_f32() > 0.0 { 1.0 / d.to_f32() } else { 0.0 };
            let mut q = [0u8; BLOCK];
            for (q, x) in q.iter_mut().zip(x) {
                *q = (x * inverse).round_ties_even().clamp(-127.0, 127.0) as i8 as u8;
            }
            self.put_q8_block(b, d, &q);
        }
        Ok(())
    }

    fn put_q8_block(&mut self, b: usize, d: f16, q: &[u8]) {
        let (columns, c) = (self.columns, self.c);
        self.part[(b * columns + c) * 2..][..2].copy_from_slice(&d.to_le_bytes());
        let data = q8_data_offset(self.inputs.div_ceil(BLOCK), columns) + b * columns * BLOCK;
        for (i, four) in q.chunks_exact(4).enumerate() {
            self.part[data + i * columns * 4 + c * 4..][..4].copy_from_slice(four);
        }
    }

    fn put_dense(&mut self, row: &[f32]) {
        for (k, x) in row.iter().enumerate() {
            self.part[(k * self.columns + self.c) * 4..][..4].copy_from_slice(&x.to_ne_bytes());
        }
    }
}
