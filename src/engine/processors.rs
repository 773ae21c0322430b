//! What changes logits before a token is chosen: the place for every constraint that acts while decoding. Pure.

use std::sync::Arc;

use super::request::SamplingParams;
use crate::model::chat::Vocabulary;

/// What a processor may know of its candidate.
#[derive(Debug, Clone, Copy)]
pub struct DecodingState<'a> {
    /// Tokens generated so far.
    pub generated: &'a [u32],
    /// Tokens that may still come, this one included.
    pub remaining: usize,
}

/// Changes one candidate's logits before each choice, and learns each choice. Has state; is never shared.
pub trait LogitsProcessor: Send {
    /// `logits` has one value for each token of the vocabulary. Negative infinity forbids a token. A processor must
    /// leave at least one token: a row that is masked entirely fails the request.
    fn process(&mut self, state: DecodingState<'_>, logits: &mut [f32]);

    /// `token` was chosen.
    fn accept(&mut self, token: u32);
}

/// One candidate's processors in the order in which they act: forbidding ones last, so that nothing lifts a ban.
pub struct ProcessorChain(Vec<Box<dyn LogitsProcessor>>);

impl ProcessorChain {
    /// The processors that `params` ask for, and the suppression of silent tokens. Constraints of a request join
    /// between the two.
    pub fn new(params: &SamplingParams, silent: &SilentTokens) -> Self {
        let mut chain: Vec<Box<dyn LogitsProcessor>> = Vec::with_capacity(2);
        if params.repetition_penalty != 1.0 {
            chain.push(Box::new(RepetitionPenalty::new(params.repetition_penalty)));
        }
        chain.push(Box::new(silent.clone()));
        Self(chain)
    }

    pub fn process(&mut self, state: DecodingState<'_>, logits: &mut [f32]) {
        for processor in &mut self.0 {
            processor.process(state, logits);
        }
    }

    pub fn accept(&mut self, token: u32) {
        for processor in &mut self.0 {
            processor.accept(token);
        }
    }
}

/// Divides positive and multiplies negative logits of tokens generated so far (Keskar et al. 2019, "CTRL", 4.1; the
/// sign rule is Hugging Face's). Prompt tokens are not penalized: a product's name should be repeated.
#[derive(Debug)]
pub struct RepetitionPenalty {
    penalty: f32,
    /// Distinct, in order of their first use.
    seen: Vec<u32>,
}

impl RepetitionPenalty {
    pub fn new(penalty: f32) -> Self {
        Self { penalty, seen: Vec::new() }
    }
}

impl LogitsProcessor for RepetitionPenalty {
    fn process(&mut self, _: DecodingState<'_>, logits: &mut [f32]) {
        for &token in &self.seen {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = if *logit > 0.0 { *logit / self.penalty } else { *logit * self.penalty };
            }
        }
    }

    fn accept(&mut self, token: u32) {
        if !self.seen.contains(&token) {
            self.seen.push(token);
        }
    }
}

/// Tokens that are never sampled: control tokens that do not end a turn, and ids without a text (a padded vocabulary).
/// Found once for a vocabulary, then shared.
#[derive(Debug, Clone)]
pub struct SilentTokens(Arc<[u32]>);

impl SilentTokens {
    pub fn of(vocabulary: &dyn Vocabulary, vocab_size: usize) -> Self {
        let silent = |&token: &u32| {
            !vocabulary.is_end(token) && (vocabulary.is_control(token) || vocabulary.token_bytes(token).is_empty())
        };
        Self((0..u32::try_from(vocab_size).unwrap_or(u32::MAX)).filter(silent).collect())
    }
}

impl LogitsProcessor for SilentTokens {
    fn process(&mut self, _: DecodingState<'_>, logits: &mut [f32]) {
        for &token in self.0.iter() {
            logits[token as usize] = f32::NEG_INFINITY;
        }
    }

    fn accept(&mut self, _: u32) {}
}

#[cfg(test)]
mod tests {
    use super::super::sampling::tests::greedy;
    use super::super::testing::ByteVocabulary;
    use super::*;

    const STATE: DecodingState<'_> = DecodingState { generated: &[], remaining: 1 };

    #[test]
    fn the_penalty_lowers_positive_and_negative_logits_of_used_tokens_only_and_once() {
        let mut penalty = RepetitionPenalty::new(2.0);
        penalty.accept(0);
        penalty.accept(1);
        penalty.accept(1);
        let mut logits = [4.0, -4.0, 4.0];
        penalty.process(STATE, &mut logits);
        assert_eq!(logits, [2.0, -8.0, 4.0]);
    }

    #[test]
    fn a_masked_token_stays_masked_under_the_penalty() {
        let mut penalty = RepetitionPenalty::new(1.5);
        penalty.accept(0);
        let mut logits = [f32::NEG_INFINITY];
        penalty.process(STATE, &mut logits);
        assert_eq!(logits, [f32::NEG_INFINITY]);
    }

    #[test]
    fn control_tokens_and_ids_without_text_are_silenced_but_end_tokens_are_not() {
        let vocabulary = ByteVocabulary;
        let size = ByteVocabulary::SIZE + 3;
        let mut logits = vec![0.0; size];
        SilentTokens::of(&vocabulary, size).process(STATE, &mut logits);
        let masked: Vec<_> = (0..size).filter(|&t| logits[t] == f32::NEG_INFINITY).collect();
        let control = ByteVocabulary::CONTROL as usize;
        assert_eq!(masked, [control, size - 3, size - 2, size - 1]);
    }

    #[test]
    fn a_chain_penalizes_what_was_accepted_and_keeps_silent_tokens_masked() {
        let silent = SilentTokens(Arc::from([2]));
        let mut chain = ProcessorChain::new(&SamplingParams { repetition_penalty: 2.0, ..greedy() }, &silent);
        chain.accept(0);
        let mut logits = [1.0; 4];
        chain.process(STATE, &mut logits);
        assert_eq!(logits, [0.5, 1.0, f32::NEG_INFINITY, 1.0]);
    }
}
