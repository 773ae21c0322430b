//! What a caller asks of a generator, and what it gets back. The seam between use cases and engines.

use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::mpsc;

pub use crate::model::chat::{ChatMessage, Role};

/// How the next token is chosen. Greedy when `temperature` is 0.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    pub temperature: f32,
    /// Keep the k likeliest; 0: all.
    pub top_k: usize,
    /// Keep the likeliest whose probabilities reach p; 1.0: all.
    pub top_p: f32,
    /// Keep tokens with at least this share of the likeliest one's probability; 0.0: all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens generated so far; 1.0: none.
    pub repetition_penalty: f32,
    /// Candidate `i` samples with a generator seeded by `(seed, i)`.
    pub seed: u64,
    /// Generated tokens at most.
    pub max_new_tokens: usize,
    /// Texts that end a candidate; they are not part of it.
    pub stop: Vec<String>,
}

/// Interactive requests go first; waiting batch requests age into them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    Batch,
    Interactive,
}

/// A prompt and how often and how to continue it.
#[derive(Debug, Clone)]
pub struct GenerationRequest {
    pub messages: Vec<ChatMessage>,
    /// The candidates' common beginning, put after the assistant's header; part of no text returned. May be empty.
    pub prefix: String,
    /// Candidates that share the prompt's prefill.
    pub candidates: usize,
    pub sampling: SamplingParams,
    pub priority: Priority,
    /// Past this the request is given up, wherever it is: in the queue, in prefill or while decoding.
    pub deadline: Option<Instant>,
    /// Requests of different scopes (tenants) never share cached prompt blocks.
    pub cache_scope: u64,
}

/// Why a candidate ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model's end token or a stop text.
    Stop,
    /// `max_new_tokens` or the context's end.
    Length,
    /// The request's deadline; the text is what there was.
    Deadline,
}

impl FinishReason {
    /// The wire form and the metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Deadline => "deadline",
        }
    }
}

/// A finished candidate.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub index: usize,
    pub text: String,
    pub finish_reason: FinishReason,
    pub tokens: usize,
    /// Mean natural log-probability of the tokens under the unmodified distribution (temperature 1, no penalties).
    pub mean_logprob: f32,
}

/// Figures of a whole request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GenerationStats {
    pub prompt_tokens: usize,
    /// Of them, found in the prefix cache.
    pub cached_prompt_tokens: usize,
    pub completion_tokens: usize,
    /// From submission until the first step that worked on it.
    pub queue: Duration,
    /// From submission until the first token.
    pub ttft: Duration,
}

/// What happens to a request after it was accepted, in order; `Done` or `Failed` is the last.
#[derive(Debug, Clone)]
pub enum GenerationEvent {
    /// More text of a candidate: whole characters only.
    Text {
        candidate: usize,
        delta: String,
    },
    Finished(Candidate),
    Done(GenerationStats),
    Failed(GenerationError),
}

/// Why an accepted request ended without (more) candidates.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GenerationError {
    /// The deadline passed before the first token.
    #[error("the deadline passed after {waited_ms} ms, before the first token")]
    DeadlinePassed { waited_ms: u64 },
    /// The step that held this request failed; others go on.
    #[error("a step of the model failed")]
    StepFailed,
    /// The engine stopped.
    #[error("the engine stopped")]
    Stopped,
}

/// Why a request was not accepted. Nothing of it was kept.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("the queue is full: {waiting_tokens} tokens wait, at most {limit_tokens} may")]
    QueueFull { waiting_tokens: usize, limit_tokens: usize, retry_after: Duration },
    #[error("{reason}")]
    NotReady { reason: String, retry_after: Duration },
    #[error("the server is shutting down")]
    Draining,
    #[error("the prompt has {tokens} tokens, at most {limit} fit")]
    PromptTooLong { tokens: usize, limit: usize },
    #[error("the request cannot be run: {reason}")]
    Prompt { reason: String },
}

/// An accepted request. Dropping it cancels it: its blocks are free within one step.
#[derive(Debug)]
pub struct Generation {
    pub events: mpsc::Receiver<GenerationEvent>,
}

/// What callers may know of an engine at any time, also while it loads.
#[derive(Debug, Clone, PartialEq)]
pub enum Readiness {
    Ready,
    /// Why not, in words for `/readyz`: `model loading`, `draining`, `engine stalled for 12 s`, ...
    NotReady(String),
}

/// The model behind a generator.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// E.g. `smollm2-135m-instruct`; versioned parts (an adapter) are joined by `+`.
    pub id: String,
    pub architecture: String,
    pub quantization: String,
    pub parameters: u64,
    pub context_length: usize,
    pub vocab_size: usize,
    /// ISO 639-1 codes that the model writes well; empty: unknown, so all.
    pub languages: Vec<String>,
    /// Where it came from, as configured.
    pub source: String,
    /// SHA-256 of the weights file, lower-case hex.
    pub sha256: String,
}

/// Writes candidates: locally, or (later) through a remote engine. Cheap to share.
pub trait Generator: Send + Sync {
    /// Takes a request into the queue, or refuses it at once. Never waits.
    ///
    /// # Errors
    /// A [`Refusal`] says whether and when to try again.
    fn submit(&self, request: GenerationRequest) -> Result<Generation, Refusal>;
    fn readiness(&self) -> Readiness;
    /// `None` until the model is loaded.
    fn model(&self) -> Option<ModelInfo>;
}
