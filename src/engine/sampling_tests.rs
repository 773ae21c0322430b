//! Sampling against a plain implementation that sorts everything.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

pub fn greedy() -> SamplingParams {
    SamplingParams {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        seed: 0,
        max_new_tokens: 8,
        stop: Vec::new(),
    }
}

fn draws(params: &SamplingParams, logits: &[f32], n: usize) -> BTreeMap<u32, usize> {
    let (mut sampler, mut scratch) = (Sampler::new(params, 0), SamplingScratch::default());
    let mut counts = BTreeMap::new();
    for _ in 0..n {
        *counts.entry(sampler.sample(logits, &mut scratch).unwrap()).or_default() += 1;
    }
    counts
}

/// The tokens that may be drawn, by sorting the whole vocabulary.
fn support(params: &SamplingParams, logits: &[f32]) -> Vec<u32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut all: Vec<(u32, f64)> =
        logits.iter().enumerate().map(|(t, &l)| (t as u32, f64::from((l - max) / params.temperature).exp())).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if params.top_k > 0 {
        all.truncate(params.top_k);
    }
    let total: f64 = all.iter().map(|(_, w)| w).sum();
    let mut reached = 0.0;
    let mut kept = Vec::new();
    for (token, weight) in all {
        if weight < f64::from(params.min_p) {
            break;
        }
        kept.push(token);
        reached += weight;
        if params.top_p < 1.0 && reached >= f64::from(params.top_p) * total {
            break;
        }
    }
    kept.sort_unstable();
    kept
}

#[test]
fn greedy_takes_the_largest_and_of_equals_the_first() {
    let mut sampler = Sampler::new(&greedy(), 0);
    let mut scratch = SamplingScratch::default();
    assert_eq!(sampler.sample(&[1.0, 3.0, 3.0, 2.0], &mut scratch), Some(1));
    assert_eq!(sampler.sample(&[f32::NEG_INFINITY; 3], &mut scratch), None);
}

#[test]
fn the_same_seed_and_candidate_choose_the_same_and_others_do_not() {
    let logits: Vec<f32> = (0..500).map(|i| (i % 17) as f32 / 4.0).collect();
    let choose = |seed, candidate| {
        let params = SamplingParams { temperature: 1.0, seed, ..greedy() };
        let (mut sampler, mut scratch) = (Sampler::new(&params, candidate), SamplingScratch::default());
        (0..32).map(|_| sampler.sample(&logits, &mut scratch).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(choose(7, 0), choose(7, 0));
    assert_ne!(choose(7, 0), choose(7, 1));
    assert_ne!(choose(7, 0), choose(8, 0));
}

#[test]
fn frequencies_follow_the_probabilities() {
    // Probabilities 1/2, 1/4, 1/8, 1/8.
    let logits = [2.0_f32.ln() * 2.0, 2.0_f32.ln(), 0.0, 0.0];
    for (top_k, top_p) in [(0, 1.0), (4, 1.0), (0, 0.9999)] {
        let params = SamplingParams { temperature: 1.0, top_k, top_p, ..greedy() };
        let counts = draws(&params, &logits, 40_000);
        for (token, expected) in [(0, 20_000.0), (1, 10_000.0), (2, 5_000.0), (3, 5_000.0)] {
            let off = (counts[&token] as f64 - expected).abs() / expected;
            assert!(off < 0.05, "token {token} came {} times of {expected}", counts[&token]);
        }
    }
}

#[test]
fn a_low_temperature_sharpens() {
    let logits = [1.0, 0.9];
    let counts = draws(&SamplingParams { temperature: 0.01, ..greedy() }, &logits, 1000);
    assert!(counts[&0] > 990);
}

#[test]
fn top_k_of_one_is_greedy() {
    let counts = draws(&SamplingParams { temperature: 5.0, top_k: 1, ..greedy() }, &[0.0, 0.2, 0.1], 100);
    assert_eq!(counts, BTreeMap::from([(1, 100)]));
}

#[test]
fn a_flat_row_needs_more_than_the_first_guess_to_reach_top_p() {
    let params = SamplingParams { temperature: 1.0, top_p: 0.9, ..greedy() };
    let logits = vec![0.0; 2000];
    let counts = draws(&params, &logits, 60_000);
    assert!((1750..=1801).contains(&counts.len()), "{}", counts.len());
    assert!(counts.keys().all(|&token| token < 1801));
}

#[test]
fn masked_tokens_are_never_drawn() {
    let mut logits = vec![0.0; 100];
    logits[10..].fill(f32::NEG_INFINITY);
    for (top_k, top_p) in [(0, 1.0), (50, 1.0), (0, 0.95)] {
        let params = SamplingParams { temperature: 2.0, top_k, top_p, ..greedy() };
        assert!(draws(&params, &logits, 2000).keys().all(|&token| token < 10));
    }
}

proptest! {
    #[test]
    fn only_tokens_that_the_filters_leave_are_drawn(
        logits in proptest::collection::vec(-8.0f32..8.0, 1..700),
        temperature in 0.2f32..3.0,
        top_k in 0usize..80,
        top_p in prop_oneof![Just(1.0f32), 0.05f32..0.999],
        min_p in prop_oneof![Just(0.0f32), 0.0f32..0.9],
        seed: u64,
    ) {
        let params = SamplingParams { temperature, top_k, top_p, min_p, seed, ..greedy() };
        let allowed = support(&params, &logits);
        let drawn = draws(&params, &logits, 64);
        // Sums in f32 and f64 may differ by a token at the very border.
        let wider = SamplingParams { top_p: (top_p * 1.0001).min(1.0), min_p: min_p * 0.9999, ..params };
        let border = support(&wider, &logits);
        prop_assert!(drawn.keys().all(|token| allowed.contains(token) || border.contains(token)));
    }

    #[test]
    fn the_largest_are_those_that_sorting_finds(
        logits in proptest::collection::vec(prop_oneof![-3i32..3, -1000i32..1000], 1..3000),
        k in 1usize..400,
    ) {
        let logits: Vec<f32> = logits.into_iter().map(|l| l as f32).collect();
        let mut kept = Vec::new();
        largest(&logits, k.min(logits.len()), &mut kept);
        let mut sorted: Vec<(f32, u32)> = logits.iter().enumerate().map(|(t, &l)| (l, t as u32)).collect();
        sorted.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        sorted.truncate(k);
        prop_assert_eq!(kept.iter().map(|w| (w.logit, w.token)).collect::<Vec<_>>(), sorted);
    }
}
