//! Integer matrix kernels for AVX-512 with VNNI.
//!
//! A kernel computes R rows x 16 columns over the whole of K; a group of weights is 16 columns, a vector of it 16
//! columns x 4 k. `vpdpbusd` multiplies unsigned weights by signed activations and adds in i32, so nothing saturates.

#![expect(
    clippy::needless_range_loop,
    reason = "iterator adapters are compiled without the features and then not inlined: five times slower"
)]

use std::arch::x86_64::*;

use super::activations::{BLOCK, ROW_BLOCK_BYTES};
use super::avx2::prefetch;
use super::matrix::{Kernel, KernelArgs};
use super::pack::{Q4_RECORD_BYTES_PER_COLUMN, q8_data_offset};

const COLUMNS: usize = 16;

/// The 4-bit kernel for `rows` rows (1 to 8).
pub(super) fn q4_kernel(rows: usize) -> Kernel {
    match rows {
        1 => q4::<1>,
        2 => q4::<2>,
        3 => q4::<3>,
        4 => q4::<4>,
        5 => q4::<5>,
        6 => q4::<6>,
        7 => q4::<7>,
        _ => q4::<8>,
    }
}

/// The 8-bit kernel for `rows` rows (1 to 8).
pub(super) fn q8_kernel(rows: usize) -> Kernel {
    match rows {
        1 => q8::<1>,
        2 => q8::<2>,
        3 => q8::<3>,
        4 => q8::<4>,
        5 => q8::<5>,
        6 => q8::<6>,
        7 => q8::<7>,
        _ => q8::<8>,
    }
}

/// Four activations in every lane.
#[inline(always)]
unsafe fn broadcast4(from: *const u8) -> __m512i {
    // SAFETY: the caller's pointer is valid for four bytes, and AVX-512 was detected.
    unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
}

#[inline(always)]
unsafe fn load_halves(from: *const u8) -> __m512 {
    // SAFETY: the caller's pointer is valid for 32 bytes, and AVX-512 was detected.
    unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn q4<const R: usize>(args: KernelArgs) {
    let KernelArgs { mut weights, mut activations, blocks, out, stride, ahead } = args;
    // SAFETY: `matmul` made sure that the group holds `blocks` records, the tile R rows of `blocks` blocks, and that
    // out has R rows of 16 columns at `stride`.
    unsafe {
        let low = _mm512_set1_epi8(15);
        let mut acc = [_mm512_setzero_ps(); R];
        for _ in 0..blocks {
            if ahead > 0 {
                prefetch::<5>(weights.wrapping_add(ahead));
            }
            let mut sums = [_mm512_setzero_si512(); R];
            for i in 0..4 {
                let x = _mm512_load_si512(weights.add(i * 64).cast());
                let first = _mm512_and_si512(x, low);
                let second = _mm512_and_si512(_mm512_srli_epi16::<4>(x), low);
                for r in 0..R {
                    sums[r] = _mm512_dpbusd_epi32(sums[r], first, broadcast4(activations.add(r * BLOCK + i * 4)));
                }
                for r in 0..R {
                    sums[r] = _mm512_dpbusd_epi32(sums[r], second, broadcast4(activations.add(r * BLOCK + 16 + i * 4)));
                }
            }
            let d = load_halves(weights.add(256));
            let m = load_halves(weights.add(288));
            let scales = activations.add(R * BLOCK).cast::<f32>();
            for r in 0..R {
                let a = _mm512_set1_ps(scales.add(r).read_unaligned());
                let s = _mm512_set1_ps(scales.add(R + r).read_unaligned());
                acc[r] = _mm512_fmadd_ps(m, s, acc[r]);
                acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r]), _mm512_mul_ps(d, a), acc[r]);
            }
            weights = weights.add(COLUMNS * Q4_RECORD_BYTES_PER_COLUMN);
            activations = activations.add(R * ROW_BLOCK_BYTES);
        }
        for (r, acc) in acc.into_iter().enumerate() {
            _mm512_storeu_ps(out.add(r * stride), acc);
        }
    }
}

/// Weights become unsigned by adding 128; the activations' record holds what that adds to the sum, negated.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn q8<const R: usize>(args: KernelArgs) {
    let KernelArgs { weights, mut activations, blocks, out, stride, ahead } = args;
    // SAFETY: as in `q4`.
    unsafe {
        let flip = _mm512_set1_epi8(-128);
        let mut acc = [_mm512_setzero_ps(); R];
        let mut scales = weights;
        let mut data = weights.add(q8_data_offset(blocks, COLUMNS));
        for _ in 0..blocks {
            if ahead > 0 {
                prefetch::<8>(data.wrapping_add(ahead));
            }
            let tail = activations.add(R * BLOCK);
            let mut sums = [_mm512_setzero_si512(); R];
            for r in 0..R {
                sums[r] = broadcast4(tail.add(R * 8 + r * 4));
            }
            for j in 0..8 {
                let x = _mm512_xor_si512(_mm512_load_si512(data.add(j * 64).cast()), flip);
                for r in 0..R {
                    sums[r] = _mm512_dpbusd_epi32(sums[r], x, broadcast4(activations.add(r * BLOCK + j * 4)));
                }
            }
            let d = load_halves(scales);
            for r in 0..R {
                let a = _mm512_set1_ps(tail.add(r * 4).cast::<f32>().read_unaligned());
                acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r]), _mm512_mul_ps(d, a), acc[r]);
            }
            scales = scales.add(COLUMNS * 2);
            data = data.add(COLUMNS * BLOCK);
            activations = activations.add(R * ROW_BLOCK_BYTES);
        }
        for (r, acc) in acc.into_iter().enumerate() {
            _mm512_storeu_ps(out.add(r * stride), acc);
        }
    }
}
