//! Ad copy for one product.

use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::mpsc;

use crate::domain::brief::{Brief, Language};
use crate::engine::request::{FinishReason, GenerationError, Generator, Priority, Refusal};
use crate::service::job::Job;
use crate::service::library::Library;

/// Events that may wait for a slow reader; the job then waits, the engine does not.
const EVENTS: usize = 64;

/// What the caller left open is `None`; defaults come from the prompt data.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SamplingChoice {
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<usize>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
    pub seed: Option<u64>,
    pub max_new_tokens: Option<usize>,
}

/// What to do when the model cannot answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    Template,
    None,
}

/// A validated request for ad copy.
#[derive(Debug, Clone)]
pub struct AdCopyRequest {
    pub brief: Brief,
    /// Variants wanted, 1 to [`MAX_VARIANTS`].
    pub n: usize,
    pub sampling: SamplingChoice,
    /// Answered within this, counted from the call.
    pub deadline: Option<Duration>,
    pub fallback: Fallback,
    pub priority: Priority,
    /// Whose prompt cache this may share.
    pub cache_scope: u64,
}

/// Writes ad copy. Cheap to clone.
#[derive(Clone)]
pub struct AdCopyService {
    generator: Arc<dyn Generator>,
    library: Arc<Library>,
}

impl AdCopyService {
    pub fn new(generator: Arc<dyn Generator>, library: Arc<Library>) -> Self {
        Self { generator, library }
    }

    /// Starts writing. Errors of the request itself (unknown channel, refusal with [`Fallback::None`]) come back at
    /// once; later ones as [`AdCopyEvent::Failed`]. Dropping the receiver cancels the work.
    ///
    /// # Errors
    /// See [`AdCopyError`].
    pub fn stream(&self, request: AdCopyRequest) -> Result<mpsc::Receiver<AdCopyEvent>, AdCopyError> {
        let started = Instant::now();
        let (job, first) = Job::prepare(Arc::clone(&self.generator), Arc::clone(&self.library), request, started)?;
        let (events, receiver) = mpsc::channel(EVENTS);
        tokio::spawn(job.run(first, events));
        Ok(receiver)
    }

    /// The same, folded into the final answer.
    ///
    /// # Errors
    /// See [`AdCopyError`].
    pub async fn write(&self, request: AdCopyRequest) -> Result<AdCopy, AdCopyError> {
        let mut events = self.stream(request)?;
        while let Some(event) = events.recv().await {
            match event {
                AdCopyEvent::Done(answer) => return Ok(*answer),
                AdCopyEvent::Failed(error) => return Err(error),
                AdCopyEvent::Token { .. } | AdCopyEvent::Variant(_) => {}
            }
        }
        Err(AdCopyError::Generation(GenerationError::Stopped))
    }
}

/// Variants that one request may ask for.
pub const MAX_VARIANTS: usize = 20;

/// Who wrote a variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Model,
    Template,
    Cache,
}

/// A field's length in the channel's own unit.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldLength {
    pub count: usize,
    pub max: usize,
    pub unit: &'static str,
    /// `channel.field@version` of the rule.
    pub rule: String,
}

/// One text of a field, named as the channel names it.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    pub name: String,
    pub text: String,
    pub length: FieldLength,
}

/// Each in 0..=1, higher is better.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Scores {
    /// Share of the brief's facts that the text mentions.
    pub coverage: f32,
    /// From the model's mean log-probability; 0.5 for templates.
    pub fluency: f32,
    /// Distance to the nearest better-ranked variant.
    pub novelty: f32,
    /// Length over limit.
    pub fill: f32,
}

/// A finished, checked variant.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    pub id: String,
    /// In the channel's order.
    pub fields: Vec<Field>,
    /// The fields' texts, joined by newlines.
    pub text: String,
    pub source: Source,
    pub score: f32,
    pub scores: Scores,
    pub facts_used: Vec<String>,
    pub ungrounded: Vec<String>,
    pub finish_reason: FinishReason,
}

/// Candidates that were not returned, by reason: `over_limit`, `near_duplicate`, `banned_term`, `ungrounded`, ...
#[derive(Debug, Clone, PartialEq)]
pub struct Dropped {
    pub reason: &'static str,
    pub count: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
    pub cached_prompt_tokens: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    pub queue: Duration,
    pub ttft: Duration,
    pub total: Duration,
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub struct AdCopy {
    /// `gen_` and a UUID v7.
    pub id: String,
    /// RFC 3339, UTC.
    pub created: jiff::Timestamp,
    /// Id of the model, or `template` when none was asked.
    pub model: String,
    pub language: Language,
    pub channel: String,
    /// Best first; at least one.
    pub variants: Vec<Variant>,
    /// The seed that was used: the caller's, or a random one. Asking again with it gives the same texts.
    pub seed: u64,
    /// For a whole channel with several fields: each field's distinct texts, best first.
    pub assets: Option<Vec<(String, Vec<String>)>>,
    pub dropped: Vec<Dropped>,
    pub usage: Usage,
    pub timing: Timing,
}

/// Progress of a streamed request; `Done` or `Failed` is the last.
#[derive(Debug, Clone)]
pub enum AdCopyEvent {
    /// Unchecked text as the model writes it.
    Token {
        variant: usize,
        field: String,
        text: String,
    },
    /// A checked variant.
    Variant(Box<Variant>),
    Done(Box<AdCopy>),
    Failed(AdCopyError),
}

#[derive(Debug, Clone, PartialEq, Error)]
pub enum AdCopyError {
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// Only with [`Fallback::None`].
    #[error("the deadline of {deadline_ms} ms passed")]
    DeadlinePassed { deadline_ms: u64 },
    #[error("generation failed: {0}")]
    Generation(#[from] GenerationError),
    #[error("no channel is called {given:?}{}", nearest(.suggestion))]
    UnknownChannel { given: String, suggestion: Option<String> },
    #[error("no brand kit is called {given:?}{}", nearest(.suggestion))]
    UnknownBrandKit { given: String, suggestion: Option<String> },
    /// Only with [`Fallback::None`].
    #[error("the model {model} does not write {language}")]
    LanguageUnsupported { model: String, language: &'static str },
    /// Nothing that was written passed the checks; only with [`Fallback::None`].
    #[error("no candidate of {candidates} passed the checks")]
    NothingUsable { candidates: usize },
}

fn nearest(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map(|s| format!("; did you mean {s:?}?")).unwrap_or_default()
}
