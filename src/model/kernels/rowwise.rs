//! Operations on one row at a time: RMS norm, gated SiLU, rotary embedding, addition.

use super::isa::for_each_isa;
use super::lanes::LANES;

for_each_isa! {
    /// `out = x / sqrt(mean(x^2) + eps) * weight`, all of one length.
    pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) = rms_norm_body
}
for_each_isa! {
    /// [`rms_norm`] of a row onto itself.
    pub fn rms_norm_in_place(x: &mut [f32], weight: &[f32], eps: f32) = rms_norm_in_place_body
}
for_each_isa! {
    /// `x += y`.
    pub fn add_assign(x: &mut [f32], y: &[f32]) = add_assign_body
}
for_each_isa! {
    /// `out = silu(gate) * up`, with `silu(x) = x / (1 + exp(-x))`.
    pub fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) = silu_mul_body
}
for_each_isa! {
    /// Turns the pairs `(2i, 2i + 1)` of a head by the angles whose cosines and sines are given, `head.len() / 2` each.
    pub fn rope_adjacent(head: &mut [f32], cos: &[f32], sin: &[f32]) = rope_adjacent_body
}
for_each_isa! {
    /// Turns the pairs `(i, i + d/2)` of a head of `d` coordinates; angles as in [`rope_adjacent`].
    pub fn rope_halves(head: &mut [f32], cos: &[f32], sin: &[f32]) = rope_halves_body
}
for_each_isa! {
    /// Softmax of `scores[start..end]` in place, not divided by the sum, which goes to `sum`. The other scores become 0.
    /// A not-a-number among them makes the sum one too.
    pub(super) fn softmax_unscaled(scores: &mut [f32], start: usize, end: usize, sum: &mut f32) = softmax_body
}

#[inline(always)]
fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `exp` to about 2 units in the last place for -87 <= x <= 88, clamped outside; keeps not-a-number. After Cephes'
/// `expf`: `2^n * p(r)` with `r = x - n ln 2`. Branch-free, so that the loops around it vectorize.
#[inline(always)]
fn exp<const FMA: bool>(x: f32) -> f32 {
    /// 1.5 * 2^23: adding it rounds to the nearest integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = mul_add::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add::<FMA>(n, -0.693_359_4, x);
    let r = mul_add::<FMA>(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_66, 0.5] {
        p = mul_add::<FMA>(p, r, c);
    }
    let p = mul_add::<FMA>(p * r, r, r) + 1.0;
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()))
}

/// Sum of `f(x)` with a fixed order: sixteen partial sums, then those.
#[inline(always)]
fn lane_sum(x: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = f(x, *lane);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = f(x, *lane);
    }
    lanes.iter().sum()
}

#[inline(always)]
fn inverse_rms<const FMA: bool>(x: &[f32], eps: f32) -> f32 {
    let mean = lane_sum(x, |x, sum| mul_add::<FMA>(x, x, sum)) / x.len() as f32;
    1.0 / (mean + eps).sqrt()
}

#[inline(always)]
fn rms_norm_in_place_body<const FMA: bool>(x: &mut [f32], weight: &[f32], eps: f32) {
    let scale = inverse_rms::<FMA>(x, eps);
    for (x, &w) in x.iter_mut().zip(weight) {
        *x = *x * scale * w;
    }
}

#[inline(always)]
fn rms_norm_body<const FMA: bool>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let scale = inverse_rms::<FMA>(x, eps);
    for ((o, &x), &w) in out.iter_mut().zip(x).zip(weight) {
        *o = x * scale * w;
    }
}

#[inline(always)]
fn add_assign_body<const FMA: bool>(x: &mut [f32], y: &[f32]) {
    for (x, &y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

#[inline(always)]
fn silu_mul_body<const FMA: bool>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((o, &g), &u) in out.iter_mut().zip(gate).zip(up) {
        *o = g / (1.0 + exp::<FMA>(-g)) * u;
    }
}

#[inline(always)]
fn rope_adjacent_body<const FMA: bool>(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    for ((pair, &c), &s) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
        let (a, b) = (pair[0], pair[1]);
        pair[0] = a * c - b * s;
        pair[1] = a * s + b * c;
    }
}

#[inline(always)]
fn rope_halves_body<const FMA: bool>(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = head.split_at_mut(head.len() / 2);
    for (((a, b), &c), &s) in first.iter_mut().zip(second).zip(cos).zip(sin) {
        let (x, y) = (*a, *b);
        *a = x * c - y * s;
        *b = x * s + y * c;
    }
}

#[inline(always)]
fn softmax_body<const FMA: bool>(scores: &mut [f32], start: usize, end: usize, sum: &mut f32) {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in scores[start..end].chunks(LANES) {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    let max = lanes.iter().fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max });
    scores[..start].fill(0.0);
    scores[end..].fill(0.0);
    for x in &mut scores[start..end] {
        *x = exp::<FMA>(*x - max);
    }
    // Over the whole slice, so that a position always falls into the same partial sum.
    *sum = lane_sum(scores, |x, sum| sum + x);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kernels::Isa;

    #[test]
    fn exp_is_within_three_units_in_the_last_place() {
        for i in 0..=20_000 {
            let x = -87.0 + 175.0 * i as f32 / 20_000.0;
            let exact = f64::from(x).exp();
            for y in [exp::<true>(x), exp::<false>(x)] {
                assert!((f64::from(y) / exact - 1.0).abs() < 3.6e-7, "exp({x}) = {y}, not {exact}");
            }
        }
        assert!(exp::<true>(f32::NAN).is_nan());
    }

    #[test]
    fn rms_norm_and_silu_agree_with_their_formulas_on_every_instruction_set() {
        let x: Vec<f32> = (0..77).map(|i| ((i * 37 % 101) as f32 - 50.0) / 9.0).collect();
        let w: Vec<f32> = (0..77).map(|i| 0.5 + i as f32 / 77.0).collect();
        let mean = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / 77.0;
        for isa in Isa::available() {
            let mut out = vec![0.0; 77];
            rms_norm(isa, &x, &w, 1e-5, &mut out);
            for i in 0..77 {
                let exact = f64::from(x[i]) / (mean + 1e-5).sqrt() * f64::from(w[i]);
                assert!((f64::from(out[i]) - exact).abs() < 1e-5);
            }
            silu_mul(isa, &x, &w, &mut out);
            for i in 0..77 {
                let exact = f64::from(x[i]) / (1.0 + (-f64::from(x[i])).exp()) * f64::from(w[i]);
                assert!((f64::from(out[i]) - exact).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn softmax_leaves_masked_positions_at_zero_and_reports_not_a_number() {
        for isa in Isa::available() {
            let mut scores: Vec<f32> = (0..48).map(|i| (i as f32 * 0.7).sin() * 4.0).collect();
            let exact: f64 = scores[5..40].iter().map(|&x| f64::from(x).exp()).sum();
            let e20 = f64::from(scores[20]).exp();
            let mut sum = 0.0;
            softmax_unscaled(isa, &mut scores, 5, 40, &mut sum);
            assert!(scores[..5].iter().chain(&scores[40..]).all(|&x| x == 0.0));
            assert!((f64::from(scores[20] / sum) - e20 / exact).abs() < 1e-6);
            scores[7] = f32::NAN;
            softmax_unscaled(isa, &mut scores, 5, 40, &mut sum);
            assert!(sum.is_nan());
        }
    }

    #[test]
    fn both_rope_pairings_turn_the_same_plane() {
        let (cos, sin) = ([0.8f32, 0.6], [0.6f32, 0.8]);
        for isa in Isa::available() {
            let mut adjacent = [1.0, 2.0, 3.0, 4.0];
            let mut halves = [1.0, 3.0, 2.0, 4.0];
            rope_adjacent(isa, &mut adjacent, &cos, &sin);
            rope_halves(isa, &mut halves, &cos, &sin);
            assert_eq!(adjacent, [halves[0], halves[2], halves[1], halves[3]]);
            assert!((adjacent[0] - (0.8 - 1.2)).abs() < 1e-6);
        }
    }
}
