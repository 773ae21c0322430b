//! Integer matrix kernels in plain Rust, with the layout and the integer arithmetic of the AVX2 ones.

use half::f16;

use super::activations::{BLOCK, ROW_BLOCK_BYTES};
use super::matrix::{Kernel, KernelArgs};
use super::pack::{Q4_RECORD_BYTES_PER_COLUMN, q8_data_offset};

const COLUMNS: usize = 8;

/// The 4-bit kernel for `rows` rows (1 to 4).
pub(super) fn q4_kernel(rows: usize) -> Kernel {
    match rows {
        1 => q4::<1>,
        2 => q4::<2>,
        3 => q4::<3>,
        _ => q4::<4>,
    }
}

/// The 8-bit kernel for `rows` rows (1 to 4).
pub(super) fn q8_kernel(rows: usize) -> Kernel {
    match rows {
        1 => q8::<1>,
        2 => q8::<2>,
        3 => q8::<3>,
        _ => q8::<4>,
    }
}

fn half_at(bytes: &[u8], i: usize) -> f32 {
    f16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f32()
}

fn float_at(bytes: &[u8], i: usize) -> f32 {
    f32::from_ne_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
}

unsafe fn q4<const R: usize>(args: KernelArgs) {
    let KernelArgs { weights, activations, blocks, out, stride, ahead: _ } = args;
    let record = COLUMNS * Q4_RECORD_BYTES_PER_COLUMN;
    // SAFETY: `matmul` made sure that the group holds `blocks` records and the tile R rows of `blocks` blocks.
    let (weights, activations) = unsafe {
        (
            std::slice::from_raw_parts(weights, blocks * record),
            std::slice::from_raw_parts(activations, blocks * R * ROW_BLOCK_BYTES),
        )
    };
    let mut acc = [[0.0f32; COLUMNS]; R];
    for (w, a) in weights.chunks_exact(record).zip(activations.chunks_exact(R * ROW_BLOCK_BYTES)) {
        let scales = &a[R * BLOCK..];
        for (r, acc) in acc.iter_mut().enumerate() {
            let q = &a[r * BLOCK..][..BLOCK];
            for (c, acc) in acc.iter_mut().enumerate() {
                let mut sum = 0i32;
                for i in 0..16 {
                    let nibbles = w[i / 4 * COLUMNS * 4 + c * 4 + i % 4];
                    sum += i32::from(nibbles & 15) * i32::from(q[i] as i8);
                    sum += i32::from(nibbles >> 4) * i32::from(q[16 + i] as i8);
                }
                *acc += half_at(&w[COLUMNS * 18..], c) * float_at(scales, R + r);
                *acc += sum as f32 * (half_at(&w[COLUMNS * 16..], c) * float_at(scales, r));
            }
        }
    }
    for (r, acc) in acc.into_iter().enumerate() {
        // SAFETY: out has R rows of 8 columns at `stride`.
        unsafe { out.add(r * stride).cast::<[f32; COLUMNS]>().write_unaligned(acc) };
    }
}

unsafe fn q8<const R: usize>(args: KernelArgs) {
    let KernelArgs { weights, activations, blocks, out, stride, ahead: _ } = args;
    let offset = q8_data_offset(blocks, COLUMNS);
    // SAFETY: as in `q4`.
    let (weights, activations) = unsafe {
        (
            std::slice::from_raw_parts(weights, offset + blocks * COLUMNS * BLOCK),
            std::slice::from_raw_parts(activations, blocks * R * ROW_BLOCK_BYTES),
        )
    };
    let (scales, data) = weights.split_at(offset);
    let mut acc = [[0.0f32; COLUMNS]; R];
    for (b, a) in activations.chunks_exact(R * ROW_BLOCK_BYTES).enumerate() {
        let w = &data[b * COLUMNS * BLOCK..][..COLUMNS * BLOCK];
        for (r, acc) in acc.iter_mut().enumerate() {
            let q = &a[r * BLOCK..][..BLOCK];
            for (c, acc) in acc.iter_mut().enumerate() {
                let sum: i32 = (0..BLOCK)
                    .map(|k| i32::from(w[k / 4 * COLUMNS * 4 + c * 4 + k % 4] as i8) * i32::from(q[k] as i8))
                    .sum();
                *acc += sum as f32 * (half_at(scales, b * COLUMNS + c) * float_at(&a[R * BLOCK..], r));
            }
        }
    }
    for (r, acc) in acc.into_iter().enumerate() {
        // SAFETY: as in `q4`.
        unsafe { out.add(r * stride).cast::<[f32; COLUMNS]>().write_unaligned(acc) };
    }
}
