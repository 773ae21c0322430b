//! The `f32` matrix kernel: R rows x 16 columns over the whole of K, one multiply-add after the other.

#![expect(
    clippy::needless_range_loop,
    reason = "iterator adapters are compiled without the features and then not inlined: five times slower"
)]

use super::isa::{Isa, Kind};
use super::lanes::{LANES, Lanes, Plain};
#[cfg(target_arch = "x86_64")]
use super::lanes::{Ymm2, Zmm};
use super::matrix::{Kernel, KernelArgs};

/// The kernel for `rows` rows, at most [`Isa::tile_rows`]. `KernelArgs::blocks` is the padded K, which is also the
/// stride of the activations.
pub(super) fn kernel(isa: Isa, rows: usize) -> Kernel {
    match isa.kind() {
        Kind::Portable => match rows {
            1 => body::<Plain, 1>,
            2 => body::<Plain, 2>,
            3 => body::<Plain, 3>,
            _ => body::<Plain, 4>,
        },
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => match rows {
            1 => avx2::<1>,
            2 => avx2::<2>,
            3 => avx2::<3>,
            _ => avx2::<4>,
        },
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512Vnni => match rows {
            1 => avx512::<1>,
            2 => avx512::<2>,
            3 => avx512::<3>,
            4 => avx512::<4>,
            5 => avx512::<5>,
            6 => avx512::<6>,
            7 => avx512::<7>,
            _ => avx512::<8>,
        },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<const R: usize>(args: KernelArgs) {
    // SAFETY: the caller's promises are passed on.
    unsafe { body::<Ymm2, R>(args) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn avx512<const R: usize>(args: KernelArgs) {
    // SAFETY: the caller's promises are passed on.
    unsafe { body::<Zmm, R>(args) }
}

#[inline(always)]
unsafe fn body<V: Lanes, const R: usize>(args: KernelArgs) {
    let (weights, activations) = (args.weights.cast::<f32>(), args.activations.cast::<f32>());
    // SAFETY: `matmul` made sure that the group holds `blocks` vectors, the tile R rows of `blocks` values, and that
    // out has R rows of 16 columns at `stride`.
    unsafe {
        let mut acc = [V::splat(0.0); R];
        for k in 0..args.blocks {
            let w = V::load(weights.add(k * LANES));
            for r in 0..R {
                acc[r] = w.mul_add(V::splat(*activations.add(r * args.blocks + k)), acc[r]);
            }
        }
        for (r, acc) in acc.into_iter().enumerate() {
            acc.store(args.out.add(r * args.stride));
        }
    }
}
