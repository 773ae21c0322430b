//! The decoder's inner loops: packed matrices, attention over a block cache, and row-wise operations.
//!
//! All `unsafe` code of the model lives here, behind wrappers that check shapes. The kernels know nothing of
//! architectures, files or sequences. Every loop accumulates a row in an order that depends on that row alone, so a
//! row's result is bit for bit the same whatever rows are computed beside it.

mod activations;
mod aligned;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod dense;
mod isa;
mod lanes;
mod matrix;
mod pack;
mod pool;
mod portable;
mod rowwise;
mod shared;
#[cfg(test)]
mod tests;

pub use activations::{ActivationKind, Activations};
pub use aligned::bytes_of;
pub use attention::{Attention, AttentionShape, KvLayer, KvWriter, RowPlace, Tile, attend, query_rows_per_tile};
pub use isa::Isa;
pub use matrix::{Matrix, matmul};
pub use pack::{MatrixSource, SourceFormat, pack_matrix};
pub use pool::Pool;
pub use rowwise::{add_assign, rms_norm, rms_norm_in_place, rope_adjacent, rope_halves, silu_mul};
pub use shared::DisjointMut;
