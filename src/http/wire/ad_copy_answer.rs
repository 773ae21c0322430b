//! The answers of `POST /v1/ad-copy`: the whole one, and the events of a stream.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::domain::brief::Language;
use crate::service::ad_copy::{AdCopy, Dropped, Field, FieldLength, Scores, Source, Timing, Usage, Variant};

/// Ad copy.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdCopy)]
pub struct AdCopyAnswer {
    #[serde(flatten)]
    pub head: AnswerHead,
    /// Best first.
    pub variants: Vec<VariantBody>,
    #[serde(flatten)]
    pub tail: AnswerTail,
}

/// What was written, and by which model.
#[derive(Debug, Serialize, ToSchema)]
pub struct AnswerHead {
    #[schema(example = "gen_0199d0a27c1e7b529a0e0d6d4c1f0a11")]
    pub id: String,
    /// RFC 3339, UTC.
    #[schema(format = DateTime)]
    pub created: String,
    /// `template` when no model was asked.
    #[schema(example = "smollm2-135m-instruct")]
    pub model: String,
    #[schema(example = "en")]
    pub language: &'static str,
    #[schema(example = "google_rsa.headline")]
    pub channel: String,
}

/// Reasons, labels and figures of an answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct AnswerTail {
    /// For a whole channel: each field's distinct texts, best first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, required = false)]
    pub assets: Option<Map<String, Value>>,
    pub why: WhyBody,
    /// The caller's, or the one that was drawn; the same request with it gives the same text.
    pub seed: u64,
    pub labels: LabelsBody,
    pub usage: UsageBody,
    pub timing: TimingBody,
}

/// A finished, checked variant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Variant)]
pub struct VariantBody {
    pub id: String,
    /// Text by field name.
    #[schema(value_type = Object, example = json!({"headline": "Dry gear, light shoulders"}))]
    pub fields: Map<String, Value>,
    /// The fields' texts, joined by line breaks.
    pub text: String,
    /// `model`, `template` or `cache`.
    #[schema(example = "model")]
    pub source: &'static str,
    /// 0 to 1, higher is better.
    pub score: f32,
    pub scores: ScoresBody,
    /// Length by field name.
    pub length: BTreeMap<String, LengthBody>,
    pub policy: PolicyBody,
    pub grounding: GroundingBody,
    /// `stop`, `length` or `deadline`.
    #[schema(example = "stop")]
    pub finish_reason: &'static str,
}

/// What a score is made of, each 0 to 1.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Scores)]
pub struct ScoresBody {
    pub coverage: f32,
    pub fluency: f32,
    pub novelty: f32,
    pub fill: f32,
}

/// A field's length in the channel's own unit.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Length)]
pub struct LengthBody {
    pub count: usize,
    pub max: usize,
    #[schema(example = "display_width")]
    pub unit: &'static str,
    #[schema(example = "google_rsa.headline@2026-02")]
    pub rule: String,
}

/// The verdict of the policy packs that apply.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Policy)]
pub struct PolicyBody {
    #[schema(example = "allow")]
    pub verdict: &'static str,
    #[schema(value_type = Vec<Object>)]
    pub findings: Vec<Value>,
}

/// Facts of the request that the text uses, and claims that no fact supports.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Grounding)]
pub struct GroundingBody {
    pub facts_used: Vec<String>,
    pub ungrounded: Vec<String>,
}

/// Why these variants.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Why)]
pub struct WhyBody {
    #[schema(value_type = Vec<Object>)]
    pub profile_features: Vec<Value>,
    pub dropped: Vec<DroppedBody>,
}

/// Candidates that were not returned.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Dropped)]
pub struct DroppedBody {
    #[schema(example = "near_duplicate")]
    pub reason: &'static str,
    pub count: usize,
}

/// Marks the text as made by a machine.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Labels)]
pub struct LabelsBody {
    pub ai_generated: bool,
    #[schema(example = "AI-generated")]
    pub notice: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Usage)]
pub struct UsageBody {
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
    pub cached_prompt_tokens: usize,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Timing)]
pub struct TimingBody {
    pub queue_ms: u64,
    pub ttft_ms: u64,
    pub total_ms: u64,
}

/// `event: token`: unchecked text as the model writes it.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenEvent {
    pub variant: usize,
    pub field: String,
    pub text: String,
}

/// `event: done`: the last event of a stream that went well.
#[derive(Debug, Serialize, ToSchema)]
pub struct DoneEvent {
    #[serde(flatten)]
    pub head: AnswerHead,
    /// Ids of the variants that the answer holds, best first.
    pub ranking: Vec<String>,
    #[serde(flatten)]
    pub tail: AnswerTail,
}

/// One event of a stream. `data` holds JSON: a `TokenEvent`, a `Variant`, a `DoneEvent` or a `Problem`.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "documents the stream; events are written by axum")]
pub struct SseEvent {
    /// `token`, `variant`, and one last `done` or `error`.
    #[schema(pattern = "^(token|variant|done|error)$")]
    pub event: String,
    #[schema(content_media_type = "application/json")]
    pub data: String,
}

impl From<AdCopy> for AdCopyAnswer {
    fn from(mut answer: AdCopy) -> Self {
        let variants = std::mem::take(&mut answer.variants);
        let (head, tail) = split(answer);
        Self { head, variants: variants.into_iter().map(VariantBody::from).collect(), tail }
    }
}

impl From<AdCopy> for DoneEvent {
    fn from(mut answer: AdCopy) -> Self {
        let ranking = std::mem::take(&mut answer.variants).into_iter().map(|variant| variant.id).collect();
        let (head, tail) = split(answer);
        Self { head, ranking, tail }
    }
}

fn split(answer: AdCopy) -> (AnswerHead, AnswerTail) {
    let notice = match answer.language {
        Language::En => "AI-generated",
        Language::Zh => "AI生成",
    };
    let head = AnswerHead {
        id: answer.id,
        created: answer.created.to_string(),
        model: answer.model,
        language: answer.language.code(),
        channel: answer.channel,
    };
    let assets = answer.assets.map(|assets| {
        assets.into_iter().map(|(field, texts)| (field, texts.into_iter().map(Value::String).collect())).collect()
    });
    let dropped = answer.dropped.into_iter().map(DroppedBody::from).collect();
    let tail = AnswerTail {
        assets,
        why: WhyBody { profile_features: Vec::new(), dropped },
        seed: answer.seed,
        labels: LabelsBody { ai_generated: true, notice },
        usage: answer.usage.into(),
        timing: answer.timing.into(),
    };
    (head, tail)
}

impl From<Variant> for VariantBody {
    fn from(variant: Variant) -> Self {
        let mut fields = Map::new();
        let mut length = BTreeMap::new();
        for Field { name, text, length: measured } in variant.fields {
            length.insert(name.clone(), measured.into());
            fields.insert(name, Value::String(text));
        }
        Self {
            id: variant.id,
            fields,
            text: variant.text,
            source: match variant.source {
                Source::Model => "model",
                Source::Template => "template",
                Source::Cache => "cache",
            },
            score: rounded(variant.score),
            scores: variant.scores.into(),
            length,
            policy: PolicyBody { verdict: "allow", findings: Vec::new() },
            grounding: GroundingBody { facts_used: variant.facts_used, ungrounded: variant.ungrounded },
            finish_reason: variant.finish_reason.as_str(),
        }
    }
}

impl From<FieldLength> for LengthBody {
    fn from(length: FieldLength) -> Self {
        Self { count: length.count, max: length.max, unit: length.unit, rule: length.rule }
    }
}

impl From<Scores> for ScoresBody {
    fn from(scores: Scores) -> Self {
        Self {
            coverage: rounded(scores.coverage),
            fluency: rounded(scores.fluency),
            novelty: rounded(scores.novelty),
            fill: rounded(scores.fill),
        }
    }
}

impl From<Dropped> for DroppedBody {
    fn from(dropped: Dropped) -> Self {
        Self { reason: dropped.reason, count: dropped.count }
    }
}

impl From<Usage> for UsageBody {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            cached_prompt_tokens: usage.cached_prompt_tokens,
        }
    }
}

impl From<Timing> for TimingBody {
    fn from(timing: Timing) -> Self {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self { queue_ms: ms(timing.queue), ttft_ms: ms(timing.ttft), total_ms: ms(timing.total) }
    }
}

/// Three digits say all that a score means.
fn rounded(score: f32) -> f32 {
    if score.is_finite() { (score * 1000.0).round() / 1000.0 } else { 0.0 }
}
