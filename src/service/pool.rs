//! The texts gathered for one field: cleaned, checked, without near-duplicates, best first.

use std::collections::BTreeMap;

use crate::domain::brief::{Brief, Language};
use crate::domain::channel;
use crate::domain::check::{Facts, Passed, check, near_duplicate};
use crate::domain::clean::clean;
use crate::domain::rank;
use crate::engine::request::{Candidate, FinishReason};
use crate::service::ad_copy::{Dropped, Field, FieldLength, Scores, Source};

/// What candidates are judged by, the same for all fields of a request.
pub struct Judge<'a> {
    pub brief: &'a Brief,
    pub language: Language,
    pub facts: Facts,
    pub keywords: &'a [String],
    pub banned_terms: &'a [String],
}

/// One usable text.
#[derive(Debug, Clone)]
pub struct Text {
    pub text: String,
    pub source: Source,
    pub scores: rank::Scores,
    pub passed: Passed,
    pub finish_reason: FinishReason,
}

/// The usable texts of one field, and why others were dropped.
#[derive(Debug, Default)]
pub struct Pool {
    texts: Vec<Text>,
    dropped: BTreeMap<&'static str, usize>,
}

impl Pool {
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    pub fn texts(&self) -> &[Text] {
        &self.texts
    }

    /// Takes the candidates of one round, in order of their index, so that the outcome does not depend on which
    /// finished first.
    pub fn add_candidates(&mut self, mut candidates: Vec<Candidate>, field: &channel::Field, judge: &Judge<'_>) {
        candidates.sort_by_key(|candidate| candidate.index);
        for candidate in candidates {
            let finished = candidate.finish_reason == FinishReason::Stop;
            match clean(&candidate.text, finished, field, judge.brief) {
                Ok(text) => {
                    let logprob = Some(candidate.mean_logprob);
                    self.add(text, Source::Model, logprob, candidate.finish_reason, field, judge);
                }
                Err(unusable) => self.drop_one(unusable.as_str()),
            }
        }
        self.rank();
    }

    /// Takes composed texts; they stay behind the model's.
    pub fn add_composed(&mut self, texts: Vec<String>, wanted: usize, field: &channel::Field, judge: &Judge<'_>) {
        for text in texts {
            if self.len() >= wanted {
                return;
            }
            self.add(text, Source::Template, None, FinishReason::Stop, field, judge);
        }
    }

    pub fn dropped(self) -> BTreeMap<&'static str, usize> {
        self.dropped
    }

    fn add(
        &mut self,
        text: String,
        source: Source,
        mean_logprob: Option<f32>,
        finish_reason: FinishReason,
        field: &channel::Field,
        judge: &Judge<'_>,
    ) {
        if self.texts.iter().any(|other| near_duplicate(&other.text, &text)) {
            return self.drop_one("near_duplicate");
        }
        match check(&text, field, judge.language, &judge.facts, judge.banned_terms) {
            Ok(passed) => {
                let count = passed.count;
                let scores =
                    rank::scores(&text, &passed, &judge.facts, judge.keywords, mean_logprob, count, field.max);
                self.texts.push(Text { text, source, scores, passed, finish_reason });
            }
            Err(violation) => self.drop_one(violation.reason()),
        }
    }

    /// Best first; among equals the earlier candidate.
    fn rank(&mut self) {
        self.texts.sort_by(|a, b| rank::total(&b.scores, 1.0).total_cmp(&rank::total(&a.scores, 1.0)));
    }

    fn drop_one(&mut self, reason: &'static str) {
        *self.dropped.entry(reason).or_default() += 1;
    }
}

impl Text {
    /// As a field of a variant.
    pub fn field(&self, field: &channel::Field) -> Field {
        Field {
            name: field.name.clone(),
            text: self.text.clone(),
            length: FieldLength {
                count: self.passed.count,
                max: field.max,
                unit: field.unit.as_str(),
                rule: field.rule.clone(),
            },
        }
    }

    /// Its scores with its novelty beside better texts.
    pub fn scores_beside(&self, better: &[&str]) -> (Scores, f32) {
        let novelty = rank::novelty(&self.text, better);
        let rank::Scores { coverage, fluency, fill, .. } = self.scores;
        (Scores { coverage, fluency, novelty, fill }, rank::total(&self.scores, novelty))
    }
}

/// Sums what the pools dropped.
pub fn all_dropped(pools: Vec<Pool>) -> Vec<Dropped> {
    let mut sums: BTreeMap<&'static str, usize> = BTreeMap::new();
    for (reason, count) in pools.into_iter().flat_map(Pool::dropped) {
        *sums.entry(reason).or_default() += count;
    }
    sums.into_iter().map(|(reason, count)| Dropped { reason, count }).collect()
}
