//! Exponentials over whole rows of logits, fast enough to do for every token. Pure.

/// `e^x` to about 2 units in the last place for `x <= 0`, and exactly 0 below -87 (so also for masked logits).
///
/// Cephes' `expf` (range reduction by ln 2 in two parts, then a polynomial), written without calls and branches so
/// that loops over it are vectorized. Inputs above 0 are not needed here: rows are shifted by their maximum.
#[inline]
pub fn exp_nonpositive(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves an integer in the low bits.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Not `max`, which would turn a NaN into a number.
    let bounded = if x < -87.0 { -87.0 } else { x };
    let shifted = bounded * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = bounded - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4_f32;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let mantissa = p * r * r + r + 1.0;
    // The low bits of `shifted` are n in two's complement: 2^n by its exponent field.
    let scale = f32::from_bits(shifted.to_bits().wrapping_shl(23).wrapping_add(127 << 23));
    if x < -87.0 { 0.0 } else { mantissa * scale }
}

/// A row's normalization: `log p(token) = logits[token] - log_sum`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalization {
    pub max: f32,
    pub log_sum: f32,
}

/// `None` when the row holds a NaN or an infinity above, or is masked entirely: nothing can be sampled from it.
pub fn normalize(logits: &[f32]) -> Option<Normalization> {
    let max = maximum(logits);
    let sum = sum_of_exponentials(logits, max, 1.0);
    let log_sum = max + sum.ln();
    (max.is_finite() && log_sum.is_finite()).then_some(Normalization { max, log_sum })
}

/// The largest value; negative infinity for an empty row. NaNs are passed over.
pub fn maximum(logits: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 8];
    let (chunks, rest) = logits.as_chunks::<8>();
    for chunk in chunks {
        for (lane, &logit) in lanes.iter_mut().zip(chunk) {
            *lane = if logit > *lane { logit } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// `sum(e^((logit - max) * inverse_temperature))`. The order of summation is fixed, so the result is the same always.
pub fn sum_of_exponentials(logits: &[f32], max: f32, inverse_temperature: f32) -> f32 {
    let mut lanes = [0.0_f32; 8];
    let (chunks, rest) = logits.as_chunks::<8>();
    for chunk in chunks {
        for (lane, &logit) in lanes.iter_mut().zip(chunk) {
            *lane += exp_nonpositive((logit - max) * inverse_temperature);
        }
    }
    for (lane, &logit) in lanes.iter_mut().zip(rest) {
        *lane += exp_nonpositive((logit - max) * inverse_temperature);
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_agree_with_the_exact_ones() {
        for i in 0..87_000 {
            let x = -(i as f32) / 1000.0;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp_nonpositive(x)) - exact).abs() / exact;
            assert!(error < 3e-7, "e^{x} is off by {error}");
        }
        assert_eq!(exp_nonpositive(0.0), 1.0);
    }

    #[test]
    fn a_masked_logit_has_no_weight_at_all() {
        assert_eq!(exp_nonpositive(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp_nonpositive(-1e30), 0.0);
    }

    #[test]
    fn log_probabilities_sum_to_one() {
        let logits: Vec<f32> = (0..1003).map(|i| ((i * 37) % 101) as f32 / 7.0).collect();
        let norm = normalize(&logits).unwrap();
        let total: f64 = logits.iter().map(|&l| f64::from(l - norm.log_sum).exp()).sum();
        assert!((total - 1.0).abs() < 1e-5, "{total}");
        assert_eq!(norm.max, 100.0 / 7.0);
    }

    #[test]
    fn rows_that_cannot_be_sampled_from_are_told() {
        assert_eq!(normalize(&[0.0, f32::NAN, 1.0]), None);
        assert_eq!(normalize(&[0.0, f32::INFINITY]), None);
        assert_eq!(normalize(&[f32::NEG_INFINITY; 9]), None);
        assert_eq!(normalize(&[]), None);
        assert!(normalize(&[f32::NEG_INFINITY, -3.0]).is_some());
    }
}
