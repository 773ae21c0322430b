//! The texts gathered for one field: cleaned, checked, without near-duplicates, best first.

use std::collections::BTreeMap;

use crate::domain::brief::{Brief, Language};
use crate::domain::channel;
use crate::domain::check::similar::{NEAR_DUPLICATE, Shape};
use crate::domain::check::{Ground, Rejection};
use crate::domain::clean::clean;
use crate::domain::rank::{self, Facts};
use crate::engine::request::{Candidate, FinishReason};
use crate::service::ad_copy::{Dropped, Field, FieldLength, Scores, Source};

/// What texts are judged by, the same for all fields of a request.
pub struct Judge<'a> {
    pub brief: &'a Brief,
    pub language: Language,
    pub ground: Ground<'a>,
    pub facts: Facts,
}

/// One usable text.
#[derive(Debug, Clone)]
pub struct Text {
    pub text: String,
    pub source: Source,
    pub facts_used: Vec<String>,
    pub finish_reason: FinishReason,
    scores: rank::Scores,
    shape: Shape,
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
            let cleaned = clean(&candidate.text, finished, field, judge.language, &judge.ground);
            let on_topic = cleaned
                .and_then(|text| if judge.ground.is_on_topic(&text) { Ok(text) } else { Err(Rejection::OffTopic) });
            match on_topic {
                Ok(text) => {
                    let logprob = Some(candidate.mean_logprob);
                    self.add(text, Source::Model, logprob, candidate.finish_reason, field, judge);
                }
                Err(rejection) => self.drop_one(rejection),
            }
        }
        // Best first; among equals the earlier candidate.
        self.texts.sort_by(|a, b| rank::total(&b.scores, 1.0).total_cmp(&rank::total(&a.scores, 1.0)));
    }

    /// Takes composed texts, until `wanted` are there; they stay behind the model's.
    pub fn add_composed(&mut self, texts: Vec<String>, wanted: usize, field: &channel::Field, judge: &Judge<'_>) {
        for text in texts {
            if self.len() >= wanted {
                return;
            }
            self.add(text, Source::Template, None, FinishReason::Stop, field, judge);
        }
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
        if let Err(rejection) = judge.ground.check(&text, field) {
            tracing::debug!(text, rejection = rejection.as_str(), "dropped");
            return self.drop_one(rejection);
        }
        let shape = Shape::of(&text);
        if shape.nearest(self.texts.iter().map(|other| &other.shape)) >= NEAR_DUPLICATE {
            return self.drop_one(Rejection::NearDuplicate);
        }
        let facts_used = judge.facts.used(&text);
        let fill = field.unit.fill(&text, field.max, judge.language);
        let scores = rank::scores(&text, facts_used.len(), &judge.facts, &judge.brief.keywords, mean_logprob, fill);
        self.texts.push(Text { text, source, facts_used, finish_reason, scores, shape });
    }

    fn drop_one(&mut self, rejection: Rejection) {
        *self.dropped.entry(rejection.as_str()).or_default() += 1;
    }
}

impl Text {
    /// As a field of a variant.
    pub fn field(&self, field: &channel::Field) -> Field {
        Field {
            name: field.name.clone(),
            text: self.text.clone(),
            length: FieldLength {
                count: field.unit.count(&self.text),
                max: field.max,
                unit: field.unit.as_str(),
                rule: field.rule.clone(),
            },
        }
    }

    /// Its scores beside better texts, and the total.
    pub fn scores_beside(&self, better: &[Text]) -> (Scores, f32) {
        let novelty = 1.0 - self.shape.nearest(better.iter().map(|other| &other.shape));
        let rank::Scores { coverage, fluency, fill, .. } = self.scores;
        (Scores { coverage, fluency, novelty, fill }, rank::total(&self.scores, novelty))
    }
}

/// Sums what the pools dropped.
pub fn all_dropped(pools: Vec<Pool>) -> Vec<Dropped> {
    let mut sums: BTreeMap<&'static str, usize> = BTreeMap::new();
    for (reason, count) in pools.into_iter().flat_map(|pool| pool.dropped) {
        *sums.entry(reason).or_default() += count;
    }
    sums.into_iter().map(|(reason, count)| Dropped { reason, count }).collect()
}
