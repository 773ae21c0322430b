//! Chooses the next token from a row of logits. Pure; sorts no more than it keeps.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::request::SamplingParams;
use super::softmax::{exp_nonpositive, maximum, sum_of_exponentials};

/// One candidate's way of choosing. What it chooses depends on its logits, seed and index alone.
#[derive(Debug)]
pub struct Sampler {
    temperature: f32,
    top_k: usize,
    top_p: f32,
    min_p: f32,
    random: ChaCha8Rng,
}

/// Buffers that samplers share, so that a step allocates nothing.
#[derive(Debug, Default)]
pub struct SamplingScratch {
    kept: Vec<Weighted>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Weighted {
    logit: f32,
    weight: f32,
    token: u32,
}

impl Sampler {
    /// Candidates of one seed use different streams of the same generator.
    pub fn new(params: &SamplingParams, candidate: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(params.seed);
        random.set_stream(candidate as u64);
        Self { temperature: params.temperature, top_k: params.top_k, top_p: params.top_p, min_p: params.min_p, random }
    }

    /// The next token, or `None` when every one is masked. `logits` must hold no NaN.
    ///
    /// The order is Hugging Face's: temperature, top-k, top-p over what top-k kept; min-p compares with the likeliest.
    /// Among equal logits the lower token id is the likelier.
    pub fn sample(&mut self, logits: &[f32], scratch: &mut SamplingScratch) -> Option<u32> {
        let max = maximum(logits);
        if !max.is_finite() {
            return None;
        }
        if self.temperature <= 0.0 {
            return logits.iter().position(|&logit| logit == max).and_then(|token| u32::try_from(token).ok());
        }
        let inverse_temperature = self.temperature.recip().min(f32::MAX);
        let weight = |logit: f32| exp_nonpositive((logit - max) * inverse_temperature);
        let point = self.random.random::<f64>();
        if self.top_k == 0 && self.top_p >= 1.0 {
            // Nothing to rank: two passes over the row.
            let floor = self.min_p;
            let kept = |logit: &f32| Some(weight(*logit)).filter(|&w| w > 0.0 && w >= floor);
            let total: f64 = logits.iter().filter_map(kept).map(f64::from).sum();
            let tokens = logits.iter().enumerate().filter_map(|(t, logit)| Some((t as u32, kept(logit)?)));
            return draw(tokens, point * total);
        }
        self.keep_likeliest(logits, max, inverse_temperature, &mut scratch.kept);
        let total: f64 = scratch.kept.iter().map(|kept| f64::from(kept.weight)).sum();
        draw(scratch.kept.iter().map(|kept| (kept.token, kept.weight)), point * total)
    }

    /// Fills `kept` with the tokens that top-k, top-p and min-p leave, likeliest first.
    fn keep_likeliest(&self, logits: &[f32], max: f32, inverse_temperature: f32, kept: &mut Vec<Weighted>) {
        let (mut k, total) = if self.top_k > 0 {
            (self.top_k.min(logits.len()), None)
        } else {
            // Enough for most; grown until it holds the share wanted.
            (64.min(logits.len()), Some(sum_of_exponentials(logits, max, inverse_temperature)))
        };
        loop {
            largest(logits, k, kept);
            for entry in kept.iter_mut() {
                entry.weight = exp_nonpositive((entry.logit - max) * inverse_temperature);
            }
            let wanted = self.top_p * total.unwrap_or_else(|| kept.iter().map(|entry| entry.weight).sum());
            let mut reached = 0.0;
            let enough = kept.iter().position(|entry| {
                reached += entry.weight;
                reached >= wanted
            });
            match enough {
                Some(last) => kept.truncate(last + 1),
                None if total.is_some() && kept.len() == k && k < logits.len() => {
                    k = (k * 8).min(logits.len());
                    continue;
                }
                None => {}
            }
            break;
        }
        // The first has weight 1, so it always stays.
        let stays = kept.iter().take_while(|entry| entry.weight > 0.0 && entry.weight >= self.min_p).count();
        kept.truncate(stays.max(1));
    }
}

/// The `k` largest logits in descending order, in one pass: a buffer is cut back to `k` whenever it is full.
fn largest(logits: &[f32], k: usize, kept: &mut Vec<Weighted>) {
    let descending = |a: &Weighted, b: &Weighted| b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token));
    let capacity = k.saturating_mul(2).max(256);
    let mut threshold = f32::NEG_INFINITY;
    kept.clear();
    for (token, &logit) in logits.iter().enumerate() {
        if logit > threshold {
            kept.push(Weighted { logit, weight: 0.0, token: token as u32 });
            if kept.len() == capacity && k < capacity {
                kept.select_nth_unstable_by(k - 1, descending);
                kept.truncate(k);
                threshold = kept[k - 1].logit;
            }
        }
    }
    kept.sort_unstable_by(descending);
    kept.truncate(k);
}

/// The token at `point` when weights are laid end to end; the last one when rounding passes the end.
fn draw(weights: impl Iterator<Item = (u32, f32)>, mut point: f64) -> Option<u32> {
    let mut last = None;
    for (token, weight) in weights {
        last = Some(token);
        point -= f64::from(weight);
        if point < 0.0 {
            break;
        }
    }
    last
}

#[cfg(test)]
#[path = "sampling_tests.rs"]
pub(in crate::engine) mod tests;
