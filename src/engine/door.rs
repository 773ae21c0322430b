//! What a request must fit before it may wait, and when a refused one should come again. Pure.

use std::time::Duration;

use super::config::Config;
use super::request::{GenerationRequest, Refusal};
use super::sequence::Footprint;
use crate::model::step::StepModel;

/// Stop texts that one request may have, and bytes of each: more would make matching costlier than decoding.
const MAX_STOP_TEXTS: usize = 32;
const MAX_STOP_BYTES: usize = 256;

/// The largest request that can ever run.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    pub context_length: usize,
    pub block_size: usize,
    pub n_blocks: usize,
    pub max_candidates: usize,
    pub max_new_tokens: usize,
    pub max_waiting_tokens: usize,
}

/// A request that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    /// As asked, or as many as the context and the configuration allow.
    pub max_new_tokens: usize,
    /// The most tokens it can become; what it counts in the queue.
    pub tokens: usize,
}

impl Capacity {
    pub fn new(config: &Config, model: &dyn StepModel) -> Self {
        Self {
            context_length: model.context_length(),
            block_size: model.block_size().max(1),
            n_blocks: model.n_blocks(),
            max_candidates: config.max_candidates.min(config.max_running_sequences),
            max_new_tokens: config.max_new_tokens,
            max_waiting_tokens: config.max_waiting_tokens,
        }
    }

    /// Checks what does not need the tokens.
    ///
    /// # Errors
    /// [`Refusal::Prompt`] for numbers that no caller should ask for; the edge checks them with better words.
    pub fn check_request(&self, request: &GenerationRequest) -> Result<(), Refusal> {
        let sampling = &request.sampling;
        let refuse = |reason: String| Err(Refusal::Prompt { reason });
        if request.candidates == 0 || request.candidates > self.max_candidates {
            return refuse(format!(
                "{} candidates are asked for, 1 to {} can be",
                request.candidates, self.max_candidates
            ));
        }
        if sampling.max_new_tokens == 0 {
            return refuse("0 new tokens are asked for, at least 1 is needed".to_owned());
        }
        let numbers = [
            ("temperature", sampling.temperature, 0.0),
            ("top_p", sampling.top_p, f32::MIN_POSITIVE),
            ("min_p", sampling.min_p, 0.0),
            ("repetition_penalty", sampling.repetition_penalty, f32::MIN_POSITIVE),
        ];
        if let Some((name, given, least)) = numbers.into_iter().find(|(_, n, least)| !n.is_finite() || n < least) {
            return refuse(format!("{name} is {given}, at least {least} is needed"));
        }
        if sampling.stop.len() > MAX_STOP_TEXTS {
            return refuse(format!("{} stop texts are given, at most {MAX_STOP_TEXTS} may be", sampling.stop.len()));
        }
        if let Some(long) = sampling.stop.iter().map(String::len).find(|&bytes| bytes > MAX_STOP_BYTES) {
            return refuse(format!("a stop text has {long} bytes, at most {MAX_STOP_BYTES} may be"));
        }
        Ok(())
    }

    /// Checks a prompt of so many tokens.
    ///
    /// # Errors
    /// [`Refusal::PromptTooLong`] when it could not run even alone, with the longest prompt that could.
    pub fn fit(&self, prompt_tokens: usize, candidates: usize, max_new_tokens: usize) -> Result<Fit, Refusal> {
        if prompt_tokens == 0 {
            return Err(Refusal::Prompt { reason: "it has no tokens".to_owned() });
        }
        self.try_fit(prompt_tokens, candidates, max_new_tokens).ok_or_else(|| {
            let longest = prompt_tokens.min(self.context_length);
            let limit = (1..longest).rev().find(|&t| self.try_fit(t, candidates, max_new_tokens).is_some());
            Refusal::PromptTooLong { tokens: prompt_tokens, limit: limit.unwrap_or(0) }
        })
    }

    fn try_fit(&self, prompt_tokens: usize, candidates: usize, max_new_tokens: usize) -> Option<Fit> {
        let room = self.context_length.checked_sub(prompt_tokens).filter(|&room| room > 0)?;
        let max_new_tokens = max_new_tokens.min(self.max_new_tokens).min(room);
        let footprint = Footprint::new(prompt_tokens, max_new_tokens, self.block_size);
        let tokens = prompt_tokens.saturating_add(candidates.saturating_mul(max_new_tokens));
        (footprint.total(candidates) <= self.n_blocks && tokens <= self.max_waiting_tokens)
            .then_some(Fit { max_new_tokens, tokens })
    }
}

/// When a refused caller should come again: after the backlog is worked off at the speed measured, 1 to 30 s, spread
/// by a quarter so that those refused together do not come back together. `nth` is any number that differs each time.
pub fn retry_after(backlog_tokens: usize, tokens_per_second: f32, nth: u64) -> Duration {
    let seconds = (backlog_tokens as f64 / f64::from(tokens_per_second).max(1.0)).clamp(1.0, 24.0);
    let spread = splitmix64(nth) as f64 / u64::MAX as f64;
    Duration::from_secs_f64(seconds * (1.0 + 0.25 * spread))
}

/// Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
fn splitmix64(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::super::testing::request;
    use super::*;

    const CAPACITY: Capacity = Capacity {
        context_length: 64,
        block_size: 4,
        n_blocks: 20,
        max_candidates: 4,
        max_new_tokens: 16,
        max_waiting_tokens: 100,
    };

    #[test]
    fn new_tokens_are_limited_by_the_configuration_and_the_context() {
        assert_eq!(CAPACITY.fit(8, 1, 100), Ok(Fit { max_new_tokens: 16, tokens: 24 }));
        assert_eq!(CAPACITY.fit(60, 1, 100), Ok(Fit { max_new_tokens: 4, tokens: 64 }));
    }

    #[test]
    fn a_prompt_that_fills_the_context_is_too_long() {
        assert_eq!(CAPACITY.fit(64, 1, 4), Err(Refusal::PromptTooLong { tokens: 64, limit: 63 }));
        assert!(CAPACITY.fit(63, 1, 4).is_ok());
    }

    #[test]
    fn the_limit_told_is_the_longest_prompt_that_fits_with_these_candidates() {
        let Err(Refusal::PromptTooLong { tokens: 50, limit }) = CAPACITY.fit(50, 4, 16) else {
            panic!("12 prompt blocks and four times 5 others are more than 20");
        };
        assert!(CAPACITY.fit(limit, 4, 16).is_ok());
        assert!(CAPACITY.fit(limit + 1, 4, 16).is_err());
    }

    #[test]
    fn what_could_not_even_wait_alone_is_refused() {
        let narrow = Capacity { max_waiting_tokens: 10, ..CAPACITY };
        assert_eq!(narrow.fit(8, 1, 3), Err(Refusal::PromptTooLong { tokens: 8, limit: 7 }));
        assert_eq!(narrow.fit(8, 3, 16), Err(Refusal::PromptTooLong { tokens: 8, limit: 0 }));
    }

    #[test]
    fn senseless_numbers_are_refused() {
        let good = request("a");
        assert_eq!(CAPACITY.check_request(&good), Ok(()));
        let mut bad = vec![good.clone(); 7];
        bad[0].candidates = 0;
        bad[1].candidates = 5;
        bad[2].sampling.max_new_tokens = 0;
        bad[3].sampling.temperature = f32::NAN;
        bad[4].sampling.repetition_penalty = 0.0;
        bad[5].sampling.stop = vec!["x".repeat(257)];
        bad[6].sampling.stop = vec!["x".to_owned(); 33];
        for request in bad {
            assert!(matches!(CAPACITY.check_request(&request), Err(Refusal::Prompt { .. })), "{request:?}");
        }
    }

    #[test]
    fn callers_come_again_when_the_backlog_is_done_within_1_to_30_seconds() {
        for nth in 0..1000 {
            let after = |tokens| retry_after(tokens, 100.0, nth).as_secs_f64();
            assert!((1.0..=1.25).contains(&after(0)));
            assert!((10.0..=12.5).contains(&after(1000)));
            assert!((24.0..=30.0).contains(&after(1_000_000)));
        }
    }

    #[test]
    fn those_refused_together_are_spread() {
        let times: std::collections::HashSet<_> = (0..100).map(|nth| retry_after(1000, 100.0, nth)).collect();
        assert_eq!(times.len(), 100);
    }
}
