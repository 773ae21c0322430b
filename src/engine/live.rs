//! A request on the engine's side: from its ticket in the queue to its last event. Knows no blocks and no tensors.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::observe;
use super::processors::SilentTokens;
use super::request::{FinishReason, GenerationError, GenerationEvent, GenerationStats, SamplingParams};
use super::sequence::RequestId;
use super::softmax::Normalization;
use super::writer::{NothingToChoose, Writer, WriterScratch, Written};
use crate::model::chat::Vocabulary;

/// An accepted request. `sampling.max_new_tokens` is what fits.
#[derive(Debug)]
pub(super) struct Ticket {
    pub id: RequestId,
    pub prompt: Arc<[u32]>,
    pub candidates: usize,
    pub sampling: SamplingParams,
    pub cache_scope: u64,
    pub submitted: Instant,
    pub deadline: Option<Instant>,
    pub events: mpsc::Sender<GenerationEvent>,
}

impl Ticket {
    /// Events that a request can have at most: a text for each token (what is held back comes with the last one or in
    /// place of one that never came), the end of each candidate, and the end of all. A channel of this capacity is
    /// never full, so the worker never waits for a client.
    pub fn event_capacity(candidates: usize, max_new_tokens: usize) -> usize {
        candidates * max_new_tokens + candidates + 2
    }

    /// Whether the caller has left.
    pub fn is_cancelled(&self) -> bool {
        self.events.is_closed()
    }

    /// Ends the request with an error.
    pub fn fail(&self, error: GenerationError) {
        observe::request_failed(&error);
        // A caller that has left needs no answer.
        let _ = self.events.try_send(GenerationEvent::Failed(error));
    }

    pub fn deadline_passed(&self, now: Instant) -> GenerationError {
        let waited = now.saturating_duration_since(self.submitted).as_millis();
        GenerationError::DeadlinePassed { waited_ms: u64::try_from(waited).unwrap_or(u64::MAX) }
    }
}

/// A request that runs.
pub(super) struct LiveRequest {
    pub ticket: Ticket,
    /// `None` once a candidate is finished.
    writers: Vec<Option<Progress>>,
    started: Option<Instant>,
    first_token: Option<Instant>,
    stats: GenerationStats,
}

struct Progress {
    writer: Writer,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
}

/// What the worker tells the scheduler.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Token(u32),
    CandidateFinished,
}

impl LiveRequest {
    pub fn new(ticket: Ticket, silent: &SilentTokens) -> Self {
        let progress = |candidate| {
            let writer = Writer::new(&ticket.sampling, candidate, silent);
            Some(Progress { writer, first_token: None, last_token: None })
        };
        Self {
            writers: (0..ticket.candidates).map(progress).collect(),
            started: None,
            first_token: None,
            stats: GenerationStats { prompt_tokens: ticket.prompt.len(), ..GenerationStats::default() },
            ticket,
        }
    }

    /// A step is about to work on the request.
    pub fn start(&mut self, now: Instant) {
        if self.started.is_none() {
            self.started = Some(now);
            self.stats.queue = now.saturating_duration_since(self.ticket.submitted);
            observe::started(self.stats.queue, self.ticket.prompt.len());
        }
    }

    /// The prefix cache spared `tokens` of the prompt.
    pub fn add_cached(&mut self, tokens: usize) {
        self.stats.cached_prompt_tokens += tokens;
        observe::prefix_hit(tokens);
    }

    /// Candidates that are not finished.
    pub fn unfinished(&self) -> Vec<usize> {
        self.writers.iter().enumerate().filter_map(|(index, writer)| writer.as_ref().map(|_| index)).collect()
    }

    /// The most tokens that the request may still cost.
    pub fn remaining_tokens(&self) -> usize {
        let prompt = if self.first_token.is_none() { self.ticket.prompt.len() } else { 0 };
        prompt + self.writers.iter().flatten().map(|progress| progress.writer.remaining()).sum::<usize>()
    }

    /// A candidate has logits: chooses its token and tells the caller.
    ///
    /// # Errors
    /// [`NothingToChoose`] when no token is left to choose; the request should fail.
    pub fn write(
        &mut self,
        candidate: usize,
        row: &[f32],
        normalization: Normalization,
        vocabulary: &dyn Vocabulary,
        scratch: &mut WriterScratch,
        now: Instant,
    ) -> Result<Next, NothingToChoose> {
        let progress = self.writers.get_mut(candidate).and_then(Option::as_mut).ok_or(NothingToChoose)?;
        let written = progress.writer.write(row, normalization, vocabulary, scratch)?;
        observe::token(progress.last_token.map(|last| now.saturating_duration_since(last)));
        progress.first_token.get_or_insert(now);
        progress.last_token = Some(now);
        self.stats.completion_tokens += 1;
        if self.first_token.is_none() {
            self.first_token = Some(now);
            self.stats.ttft = now.saturating_duration_since(self.ticket.submitted);
            observe::first_token(self.stats.ttft);
        }
        Ok(match written {
            Written::More { token, delta } => {
                self.send_text(candidate, delta);
                Next::Token(token)
            }
            Written::Ended { delta, reason } => {
                self.send_text(candidate, delta);
                self.finish(candidate, reason, now);
                Next::CandidateFinished
            }
        })
    }

    /// The deadline passed: candidates end with what they have, or the request fails if it has nothing.
    pub fn expire(mut self, now: Instant) {
        if self.first_token.is_none() {
            self.ticket.fail(self.ticket.deadline_passed(now));
            return;
        }
        for candidate in self.unfinished() {
            let delta = self.writers[candidate].as_mut().map(|progress| progress.writer.cut()).unwrap_or_default();
            self.send_text(candidate, delta);
            self.finish(candidate, FinishReason::Deadline, now);
        }
    }

    /// Ends a candidate, and the request with its last one.
    fn finish(&mut self, candidate: usize, reason: FinishReason, now: Instant) {
        let Some(progress) = self.writers[candidate].take() else { return };
        let between = |first: Instant, last: Instant| last.saturating_duration_since(first);
        let decoding = progress.first_token.zip(progress.last_token).map_or(Duration::ZERO, |(f, l)| between(f, l));
        observe::candidate_finished(reason, decoding, progress.writer.n_tokens());
        self.send(GenerationEvent::Finished(progress.writer.into_candidate(candidate, reason)));
        if self.writers.iter().all(Option::is_none) {
            observe::request_done(now.saturating_duration_since(self.ticket.submitted));
            self.send(GenerationEvent::Done(self.stats));
        }
    }

    fn send_text(&self, candidate: usize, delta: String) {
        if !delta.is_empty() {
            self.send(GenerationEvent::Text { candidate, delta });
        }
    }

    fn send(&self, event: GenerationEvent) {
        // Never full, see `Ticket::event_capacity`; a caller that has left is noticed by the next step.
        let _ = self.ticket.events.try_send(event);
    }
}
