//! Writes one candidate: from a row of logits to a token, its text, and whether it ends here. Pure.

use super::detokenizer::Detokenizer;
use super::processors::{DecodingState, ProcessorChain, SilentTokens};
use super::request::{Candidate, FinishReason, SamplingParams};
use super::sampling::{Sampler, SamplingScratch};
use super::softmax::Normalization;
use super::stop_texts::{Released, StopTexts};
use crate::model::chat::Vocabulary;

/// What a row of logits led to.
#[derive(Debug, PartialEq)]
pub enum Written {
    /// The candidate goes on with `token`. `delta` may be empty.
    More { token: u32, delta: String },
    /// It ended; `delta` is the last of its text.
    Ended { delta: String, reason: FinishReason },
}

/// Every token is masked: nothing can be chosen.
#[derive(Debug, PartialEq, Eq)]
pub struct NothingToChoose;

/// Buffers that writers share.
#[derive(Debug, Default)]
pub struct WriterScratch {
    row: Vec<f32>,
    sampling: SamplingScratch,
}

/// One candidate as it grows.
pub struct Writer {
    sampler: Sampler,
    processors: ProcessorChain,
    detokenizer: Detokenizer,
    stops: StopTexts,
    max_new_tokens: usize,
    tokens: Vec<u32>,
    /// Sum of the tokens' log-probabilities under the unmodified distribution.
    logprobs: f64,
    text: String,
}

impl Writer {
    pub fn new(params: &SamplingParams, candidate: usize, silent: &SilentTokens) -> Self {
        Self {
            sampler: Sampler::new(params, candidate),
            processors: ProcessorChain::new(params, silent),
            detokenizer: Detokenizer::default(),
            stops: StopTexts::new(&params.stop),
            max_new_tokens: params.max_new_tokens,
            tokens: Vec::new(),
            logprobs: 0.0,
            text: String::new(),
        }
    }

    /// Tokens chosen so far, an end token included.
    pub fn n_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Tokens that may still come.
    pub fn remaining(&self) -> usize {
        self.max_new_tokens.saturating_sub(self.tokens.len())
    }

    /// Chooses the next token from `row`, whose normalization is given.
    ///
    /// # Errors
    /// [`NothingToChoose`] when the processors left no token.
    pub fn write(
        &mut self,
        row: &[f32],
        normalization: Normalization,
        vocabulary: &dyn Vocabulary,
        scratch: &mut WriterScratch,
    ) -> Result<Written, NothingToChoose> {
        scratch.row.clear();
        scratch.row.extend_from_slice(row);
        let state = DecodingState { generated: &self.tokens, remaining: self.remaining() };
        self.processors.process(state, &mut scratch.row);
        let token = self.sampler.sample(&scratch.row, &mut scratch.sampling).ok_or(NothingToChoose)?;
        self.processors.accept(token);
        self.tokens.push(token);
        self.logprobs += f64::from(row[token as usize] - normalization.log_sum);

        if vocabulary.is_end(token) {
            return Ok(self.end(FinishReason::Stop, String::new()));
        }
        let piece = self.detokenizer.push(vocabulary.token_bytes(token));
        match self.stops.push(&piece) {
            Released::Stopped(delta) => {
                self.text.push_str(&delta);
                Ok(Written::Ended { delta, reason: FinishReason::Stop })
            }
            Released::Text(delta) if self.remaining() == 0 => Ok(self.end(FinishReason::Length, delta)),
            Released::Text(delta) => {
                self.text.push_str(&delta);
                Ok(Written::More { token, delta })
            }
        }
    }

    /// Ends the candidate where it is and returns the last of its text, which had been held back.
    pub fn cut(&mut self) -> String {
        let piece = self.detokenizer.finish();
        let delta = match self.stops.push(&piece) {
            Released::Text(text) => text + &self.stops.finish(),
            Released::Stopped(text) => text,
        };
        self.text.push_str(&delta);
        delta
    }

    /// The finished candidate.
    pub fn into_candidate(self, index: usize, finish_reason: FinishReason) -> Candidate {
        let tokens = self.tokens.len();
        let mean_logprob = if tokens == 0 { 0.0 } else { (self.logprobs / tokens as f64) as f32 };
        Candidate { index, text: self.text, finish_reason, tokens, mean_logprob }
    }

    fn end(&mut self, reason: FinishReason, mut delta: String) -> Written {
        self.text.push_str(&delta);
        delta.push_str(&self.cut());
        Written::Ended { delta, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sampling::tests::greedy;
    use super::super::softmax::normalize;
    use super::super::testing::ByteVocabulary;
    use super::*;

    /// Writes greedily whatever `bytes` say, each token with a logit of 1 above the rest.
    fn write(writer: &mut Writer, tokens: &[u32]) -> Vec<Written> {
        let mut scratch = WriterScratch::default();
        let row = |token: u32| {
            let mut row = vec![0.0; ByteVocabulary::SIZE];
            row[token as usize] = 1.0;
            row
        };
        tokens
            .iter()
            .map(|&token| {
                let row = row(token);
                writer.write(&row, normalize(&row).unwrap(), &ByteVocabulary, &mut scratch).unwrap()
            })
            .collect()
    }

    fn writer(params: &SamplingParams) -> Writer {
        Writer::new(params, 0, &SilentTokens::of(&ByteVocabulary, ByteVocabulary::SIZE))
    }

    fn more(token: u8, delta: &str) -> Written {
        Written::More { token: token.into(), delta: delta.to_owned() }
    }

    fn ended(delta: &str, reason: FinishReason) -> Written {
        Written::Ended { delta: delta.to_owned(), reason }
    }

    #[test]
    fn the_end_token_ends_a_candidate_and_counts_as_a_token() {
        let mut writer = writer(&greedy());
        let written = write(&mut writer, &[b'h'.into(), b'i'.into(), ByteVocabulary::END]);
        assert_eq!(written, [more(b'h', "h"), more(b'i', "i"), ended("", FinishReason::Stop)]);
        let candidate = writer.into_candidate(3, FinishReason::Stop);
        assert_eq!((candidate.index, candidate.text.as_str(), candidate.tokens), (3, "hi", 3));
    }

    #[test]
    fn the_limit_ends_a_candidate_and_releases_what_was_held() {
        let params = SamplingParams { max_new_tokens: 3, stop: vec!["abcd".into()], ..greedy() };
        let mut writer = writer(&params);
        let written = write(&mut writer, &[b'a'.into(), b'b'.into(), b'c'.into()]);
        assert_eq!(written, [more(b'a', ""), more(b'b', ""), ended("abc", FinishReason::Length)]);
        assert_eq!(writer.into_candidate(0, FinishReason::Length).text, "abc");
    }

    #[test]
    fn a_character_cut_by_the_limit_is_replaced() {
        let params = SamplingParams { max_new_tokens: 2, ..greedy() };
        let mut writer = writer(&params);
        assert_eq!(write(&mut writer, &[0xE6, 0x9C]), [more(0xE6, ""), ended("\u{FFFD}", FinishReason::Length)]);
    }

    #[test]
    fn a_stop_text_ends_a_candidate_before_it() {
        let params = SamplingParams { stop: vec!["\n\n".into()], ..greedy() };
        let mut writer = writer(&params);
        let written = write(&mut writer, &[b'a'.into(), b'\n'.into(), b'\n'.into()]);
        assert_eq!(written, [more(b'a', "a"), more(b'\n', ""), ended("", FinishReason::Stop)]);
        assert_eq!(writer.into_candidate(0, FinishReason::Stop).text, "a");
    }

    #[test]
    fn a_cut_candidate_keeps_what_it_had() {
        let params = SamplingParams { stop: vec!["bc".into()], ..greedy() };
        let mut writer = writer(&params);
        assert_eq!(write(&mut writer, &[b'a'.into(), b'b'.into()]), [more(b'a', "a"), more(b'b', "")]);
        assert_eq!(writer.cut(), "b");
        assert_eq!(writer.into_candidate(0, FinishReason::Deadline).text, "ab");
    }

    #[test]
    fn the_mean_log_probability_ignores_temperature_and_penalties() {
        let params = SamplingParams { temperature: 0.01, repetition_penalty: 1.01, ..greedy() };
        let mut writer = writer(&params);
        write(&mut writer, &[b'a'.into(), b'a'.into()]);
        let e = std::f64::consts::E;
        let expected = (e / (e + (ByteVocabulary::SIZE - 1) as f64)).ln() as f32;
        let mean = writer.into_candidate(0, FinishReason::Stop).mean_logprob;
        assert!((mean - expected).abs() < 1e-5, "{mean} is not {expected}");
    }
}
