//! Integer matrix kernels for AVX2, and the quantizing of activations.
//!
//! A kernel computes R rows x 8 columns over the whole of K; a group of weights is 8 columns, a vector of it 8 columns
//! x 4 k. R accumulators of `f32` and R of integers stay in registers, so R <= 4 leaves room for the weights.

#![expect(
    clippy::needless_range_loop,
    reason = "iterator adapters are compiled without the features and then not inlined: five times slower"
)]

use std::arch::x86_64::*;

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

/// Four activations in every lane; a load without a shuffle.
#[inline(always)]
unsafe fn broadcast4(from: *const u8) -> __m256i {
    // SAFETY: the caller's pointer is valid for four bytes, and AVX2 was detected.
    unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
}

#[inline(always)]
unsafe fn load_halves(from: *const u8) -> __m256 {
    // SAFETY: the caller's pointer is valid for 16 bytes, and F16C was detected.
    unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
}

/// Asks for `LINES` cache lines at an address that may lie past the matrix.
#[inline(always)]
pub(super) unsafe fn prefetch<const LINES: usize>(from: *const u8) {
    for i in 0..LINES {
        // SAFETY: prefetching never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(i * 64).cast()) };
    }
}

/// Per block and row: 8 `maddubs` and 7 adds in i16 (8 * 15 * 127 * 2 = 30,480 fits), one widening `madd`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn q4<const R: usize>(args: KernelArgs) {
    let KernelArgs { mut weights, mut activations, blocks, out, stride, ahead } = args;
    // SAFETY: `matmul` made sure that the group holds `blocks` records, the tile R rows of `blocks` blocks, and that
    // out has R rows of 8 columns at `stride`.
    unsafe {
        let low = _mm256_set1_epi8(15);
        let ones = _mm256_set1_epi16(1);
        let mut acc = [_mm256_setzero_ps(); R];
        for _ in 0..blocks {
            if ahead > 0 {
                prefetch::<3>(weights.wrapping_add(ahead));
            }
            let mut sums = [_mm256_setzero_si256(); R];
            for i in 0..4 {
                let x = _mm256_load_si256(weights.add(i * 32).cast());
                let first = _mm256_and_si256(x, low);
                let second = _mm256_and_si256(_mm256_srli_epi16::<4>(x), low);
                for r in 0..R {
                    let a = broadcast4(activations.add(r * BLOCK + i * 4));
                    sums[r] = _mm256_add_epi16(sums[r], _mm256_maddubs_epi16(first, a));
                }
                for r in 0..R {
                    let a = broadcast4(activations.add(r * BLOCK + 16 + i * 4));
                    sums[r] = _mm256_add_epi16(sums[r], _mm256_maddubs_epi16(second, a));
                }
            }
            let d = load_halves(weights.add(128));
            let m = load_halves(weights.add(144));
            let scales = activations.add(R * BLOCK).cast::<f32>();
            for r in 0..R {
                let a = _mm256_set1_ps(scales.add(r).read_unaligned());
                let s = _mm256_set1_ps(scales.add(R + r).read_unaligned());
                let v = _mm256_cvtepi32_ps(_mm256_madd_epi16(sums[r], ones));
                acc[r] = _mm256_fmadd_ps(m, s, acc[r]);
                acc[r] = _mm256_fmadd_ps(v, _mm256_mul_ps(d, a), acc[r]);
            }
            weights = weights.add(COLUMNS * Q4_RECORD_BYTES_PER_COLUMN);
            activations = activations.add(R * ROW_BLOCK_BYTES);
        }
        for (r, acc) in acc.into_iter().enumerate() {
            _mm256_storeu_ps(out.add(r * stride), acc);
        }
    }
}

/// Signed times signed by `maddubs(|w|, sign(a, w))`, widened every time (128 * 127 * 2 = 32,512 fits). Exact.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn q8<const R: usize>(args: KernelArgs) {
    let KernelArgs { weights, mut activations, blocks, out, stride, ahead } = args;
    // SAFETY: as in `q4`.
    unsafe {
        let ones = _mm256_set1_epi16(1);
        let mut acc = [_mm256_setzero_ps(); R];
        let mut scales = weights;
        let mut data = weights.add(q8_data_offset(blocks, COLUMNS));
        for _ in 0..blocks {
            if ahead > 0 {
                prefetch::<4>(data.wrapping_add(ahead));
            }
            let mut sums = [_mm256_setzero_si256(); R];
            for j in 0..8 {
                let x = _mm256_load_si256(data.add(j * 32).cast());
                let magnitude = _mm256_abs_epi8(x);
                for r in 0..R {
                    let a = _mm256_sign_epi8(broadcast4(activations.add(r * BLOCK + j * 4)), x);
                    let products = _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, a), ones);
                    sums[r] = _mm256_add_epi32(sums[r], products);
                }
            }
            let d = load_halves(scales);
            let row_scales = activations.add(R * BLOCK).cast::<f32>();
            for r in 0..R {
                let a = _mm256_set1_ps(row_scales.add(r).read_unaligned());
                acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[r]), _mm256_mul_ps(d, a), acc[r]);
            }
            scales = scales.add(COLUMNS * 2);
            data = data.add(COLUMNS * BLOCK);
            activations = activations.add(R * ROW_BLOCK_BYTES);
        }
        for (r, acc) in acc.into_iter().enumerate() {
            _mm256_storeu_ps(out.add(r * stride), acc);
        }
    }
}

/// As [`super::activations::quantize_block`].
#[target_feature(enable = "avx2")]
pub(super) fn quantize_block(x: &[f32; BLOCK], q: &mut [i8; BLOCK]) -> (f32, i32) {
    let sign = _mm256_set1_ps(-0.0);
    // SAFETY: each load and the store stay inside the arrays of 32.
    unsafe {
        let v0 = _mm256_loadu_ps(x.as_ptr());
        let v1 = _mm256_loadu_ps(x.as_ptr().add(8));
        let v2 = _mm256_loadu_ps(x.as_ptr().add(16));
        let v3 = _mm256_loadu_ps(x.as_ptr().add(24));
        let m01 = _mm256_max_epi32(
            _mm256_castps_si256(_mm256_andnot_ps(sign, v0)),
            _mm256_castps_si256(_mm256_andnot_ps(sign, v1)),
        );
        let m23 = _mm256_max_epi32(
            _mm256_castps_si256(_mm256_andnot_ps(sign, v2)),
            _mm256_castps_si256(_mm256_andnot_ps(sign, v3)),
        );
        let m = _mm256_max_epi32(m01, m23);
        let m = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256::<1>(m));
        let m = _mm_max_epi32(m, _mm_shuffle_epi32::<0b01_00_11_10>(m));
        let m = _mm_max_epi32(m, _mm_shuffle_epi32::<0b10_11_00_01>(m));
        let max = f32::from_bits(_mm_cvtsi128_si32(m) as u32);
        let inverse = _mm256_set1_ps(if max > 0.0 { 127.0 / max } else { 0.0 });
        let q0 = _mm256_cvtps_epi32(_mm256_mul_ps(v0, inverse));
        let q1 = _mm256_cvtps_epi32(_mm256_mul_ps(v1, inverse));
        let q2 = _mm256_cvtps_epi32(_mm256_mul_ps(v2, inverse));
        let q3 = _mm256_cvtps_epi32(_mm256_mul_ps(v3, inverse));
        let s = _mm256_add_epi32(_mm256_add_epi32(q0, q1), _mm256_add_epi32(q2, q3));
        let s = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256::<1>(s));
        let s = _mm_add_epi32(s, _mm_shuffle_epi32::<0b01_00_11_10>(s));
        let s = _mm_add_epi32(s, _mm_shuffle_epi32::<0b10_11_00_01>(s));
        let bytes = _mm256_packs_epi16(_mm256_packs_epi32(q0, q1), _mm256_packs_epi32(q2, q3));
        let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        _mm256_storeu_si256(q.as_mut_ptr().cast(), _mm256_permutevar8x32_epi32(bytes, order));
        (max / 127.0, _mm_cvtsi128_si32(s))
    }
}
