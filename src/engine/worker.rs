//! The thread that owns the model: waits for work, runs one step after another, and tells callers what came of it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::kv::KvBlocks;
use super::live::{LiveRequest, Next, Ticket};
use super::observe::{self, StepFigures};
use super::prefix::CacheKey;
use super::processors::SilentTokens;
use super::request::{GenerationError, ModelInfo};
use super::scheduler::{Admission, Plan, PlannedSlice, Scheduler, SchedulerLimits, Work};
use super::sequence::RequestId;
use super::shared::{Phase, Shared, State};
use super::softmax::normalize;
use super::writer::WriterScratch;
use crate::model::chat::Vocabulary;
use crate::model::step::{BlockId, LogitsWanted, SequenceSlice, StepModel};

/// Between attempts to run a step while the model is broken.
const BACKOFF: Duration = Duration::from_secs(1);

pub(super) struct Worker {
    shared: Arc<Shared>,
    model: Box<dyn StepModel>,
    vocabulary: Arc<dyn Vocabulary>,
    silent: SilentTokens,
    /// Names the weights in the prefix cache.
    model_version: u64,
    scheduler: Scheduler,
    live: HashMap<RequestId, LiveRequest>,
    logits: Vec<f32>,
    scratch: WriterScratch,
}

/// Why a step gave no logits. Logged once, where it is handled.
#[derive(Debug)]
struct StepFailure(String);

impl Worker {
    pub fn new(
        shared: Arc<Shared>,
        model: Box<dyn StepModel>,
        vocabulary: Arc<dyn Vocabulary>,
        info: &ModelInfo,
    ) -> Self {
        let config = &shared.config;
        let limits = SchedulerLimits {
            max_running_sequences: config.max_running_sequences,
            step_token_budget: config.step_token_budget,
            block_size: model.block_size().max(1),
        };
        let scheduler = Scheduler::new(limits, KvBlocks::new(model.n_blocks(), config.prefix_cache));
        Self {
            silent: SilentTokens::of(vocabulary.as_ref(), model.vocab_size()),
            model_version: version_of(info),
            scheduler,
            live: HashMap::new(),
            logits: Vec::new(),
            scratch: WriterScratch::default(),
            shared,
            model,
            vocabulary,
        }
    }

    /// Runs until the owner stops it. Everything accepted has its last event then.
    pub fn run(mut self) {
        while self.next_turn() {
            self.drop_ended();
            self.step();
        }
        let shared = Arc::clone(&self.shared);
        let left = shared.lock().queue.take_all();
        left.iter().for_each(|waiting| waiting.item.fail(GenerationError::Stopped));
        self.live.values().for_each(|request| request.ticket.fail(GenerationError::Stopped));
    }

    /// Sleeps until there is work, sweeps the queue, and lets in who fits. `false` when the engine is to stop.
    fn next_turn(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        loop {
            if state.stop {
                return false;
            }
            if !state.queue.is_empty() || !self.live.is_empty() {
                break;
            }
            state.running_requests = 0;
            state.running_tokens = 0;
            observe::levels(self.figures(&state, 0));
            shared.changed.notify_all();
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let now = shared.now();
        let swept = state.queue.sweep(now, Ticket::is_cancelled);
        while let Some(next) = state.queue.peek(now) {
            if !self.scheduler.admit(admission(&next.item, self.model_version)) {
                break;
            }
            if let Some(admitted) = state.queue.pop(now) {
                self.live.insert(admitted.item.id, LiveRequest::new(admitted.item, &self.silent));
            }
        }
        state.running_requests = self.live.len();
        state.running_tokens = self.live.values().map(LiveRequest::remaining_tokens).sum();
        drop(state);
        swept.cancelled.iter().for_each(|_| observe::request_cancelled());
        swept.expired.iter().for_each(|waiting| waiting.item.fail(waiting.item.deadline_passed(now)));
        true
    }

    /// Drops running requests whose caller left or whose deadline passed. Their blocks are free before the step.
    fn drop_ended(&mut self) {
        let now = self.shared.now();
        let ended = |request: &LiveRequest| {
            request.ticket.is_cancelled() || request.ticket.deadline.is_some_and(|deadline| deadline <= now)
        };
        let ids: Vec<RequestId> = self.live.iter().filter(|(_, r)| ended(r)).map(|(&id, _)| id).collect();
        for id in ids {
            self.scheduler.remove(id);
            match self.live.remove(&id) {
                Some(request) if request.ticket.is_cancelled() => observe::request_cancelled(),
                Some(request) => request.expire(now),
                None => {}
            }
        }
    }

    fn step(&mut self) {
        let plan = self.scheduler.plan();
        for &id in &plan.broken {
            tracing::error!(request = id.0, "a request needs more blocks than it reserved");
            self.fail(id);
        }
        if plan.slices.is_empty() {
            return;
        }
        let began = self.shared.now();
        for slice in &plan.slices {
            if let Some(request) = self.live.get_mut(&slice.request) {
                request.start(began);
            }
        }
        for &(id, tokens) in &plan.cached {
            if let Some(request) = self.live.get_mut(&id) {
                request.add_cached(tokens);
            }
        }
        match self.compute(&plan.copies, &plan.slices) {
            Ok(took) => {
                self.scheduler.advance(&plan);
                self.write(&plan);
                self.prove();
                let figures = self.figures(&self.shared.lock(), plan.slices.len());
                observe::step(figures, took);
            }
            Err(failure) => self.recover(&plan, &failure),
        }
    }

    /// One forward pass, its copies first. The only place where the model runs.
    fn compute(&mut self, copies: &[(BlockId, BlockId)], planned: &[PlannedSlice]) -> Result<Duration, StepFailure> {
        let slices: Vec<SequenceSlice<'_>> = planned.iter().map(to_slice).collect();
        let rows = planned.iter().filter(|slice| wants_logits(slice.work)).count();
        let (model, logits) = (&mut self.model, &mut self.logits);
        let began = Instant::now();
        self.shared.begin_step();
        // After a panic the model is used on: its cache may be undefined in the slots of these slices only, and their
        // requests fail; the prefix cache is forgotten as well.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            copies.iter().for_each(|&(from, to)| model.copy_block(from, to));
            model.forward(&slices, logits)
        }));
        let outcome = match outcome {
            Ok(Ok(())) if logits.len() == rows * model.vocab_size() => Ok(began.elapsed()),
            Ok(Ok(())) => Err(StepFailure(format!("{rows} rows of logits were wanted, {} values came", logits.len()))),
            Ok(Err(error)) => Err(StepFailure(error.to_string())),
            Err(panic) => Err(StepFailure(format!("panicked: {}", panic_text(panic.as_ref())))),
        };
        let tokens = planned.iter().map(|slice| slice.tokens.len()).sum();
        self.shared.end_step(tokens, began.elapsed(), outcome.is_ok());
        outcome
    }

    /// Gives every candidate that has logits its next token.
    fn write(&mut self, plan: &Plan) {
        let now = self.shared.now();
        let logits = std::mem::take(&mut self.logits);
        let rows = logits.chunks_exact(self.model.vocab_size().max(1));
        for (slice, row) in plan.slices.iter().filter(|slice| wants_logits(slice.work)).zip(rows) {
            let Some(request) = self.live.get_mut(&slice.request) else { continue };
            let candidates = match slice.work {
                Work::Decode { candidate } => vec![candidate],
                Work::Prefill { .. } => request.unfinished(),
            };
            let Some(normalization) = normalize(row) else {
                tracing::error!(request = slice.request.0, "the logits of a request hold values that are not finite");
                // What this request computed may be in the prefix cache.
                self.scheduler.forget_prefixes();
                self.fail(slice.request);
                continue;
            };
            for candidate in candidates {
                let next =
                    request.write(candidate, row, normalization, self.vocabulary.as_ref(), &mut self.scratch, now);
                match next {
                    Ok(Next::Token(token)) => self.scheduler.push_token(slice.request, candidate, token),
                    Ok(Next::CandidateFinished) => self.scheduler.finish(slice.request, candidate),
                    Err(_) => {
                        tracing::error!(request = slice.request.0, "every token of a request is masked");
                        self.fail(slice.request);
                        break;
                    }
                }
            }
            if self.live.get(&slice.request).is_some_and(|request| request.unfinished().is_empty()) {
                self.live.remove(&slice.request);
            }
        }
        self.logits = logits;
    }

    /// A step failed: its requests fail, what is cached is forgotten, and readiness is off until a step succeeds.
    fn recover(&mut self, plan: &Plan, failure: &StepFailure) {
        tracing::error!(sequences = plan.slices.len(), reason = failure.0, "a step of the model failed");
        observe::step_failed();
        self.shared.set_phase(Phase::Recovering);
        for slice in &plan.slices {
            self.fail(slice.request);
        }
        self.scheduler.forget_prefixes();
        // Others that run prove with their own next step whether the model still works.
        if self.live.is_empty() && !self.probe() {
            self.wait_out_breakage();
        }
    }

    /// The model is broken: nothing that waits can be served. Tries again until it works or the engine stops.
    fn wait_out_breakage(&mut self) {
        let shared = Arc::clone(&self.shared);
        shared.set_phase(Phase::Broken);
        loop {
            let state = shared.lock();
            let (mut state, _) = shared
                .work
                .wait_timeout_while(state, BACKOFF, |state| !state.stop && state.queue.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
            let left = state.queue.take_all();
            state.running_requests = 0;
            state.running_tokens = 0;
            let stop = state.stop;
            drop(state);
            shared.changed.notify_all();
            let error = if stop { GenerationError::Stopped } else { GenerationError::StepFailed };
            left.into_iter().for_each(|waiting| waiting.item.fail(error.clone()));
            if stop || self.probe() {
                return;
            }
        }
    }

    /// Runs a step of one token in a block of nobody. Returns whether the model works.
    fn probe(&mut self) -> bool {
        let Some(block) = self.scheduler.borrow_block() else { return false };
        let slice = PlannedSlice {
            request: RequestId(u64::MAX),
            work: Work::Decode { candidate: 0 },
            tokens: vec![0],
            position: 0,
            blocks: vec![block],
        };
        let works = self.compute(&[], &[slice]).is_ok() && normalize(&self.logits).is_some();
        self.scheduler.return_block(block);
        if works {
            self.prove();
        } else {
            observe::step_failed();
        }
        works
    }

    /// A step succeeded.
    fn prove(&self) {
        let recovered = {
            let mut state = self.shared.lock();
            let recovered = matches!(state.phase, Phase::Recovering | Phase::Broken);
            if recovered {
                state.phase = Phase::Serving;
            }
            recovered
        };
        if recovered {
            tracing::info!("steps of the model succeed again");
            self.shared.changed.notify_all();
        }
    }

    fn fail(&mut self, id: RequestId) {
        self.scheduler.remove(id);
        if let Some(request) = self.live.remove(&id) {
            request.ticket.fail(GenerationError::StepFailed);
        }
    }

    fn figures(&self, state: &State, batch_sequences: usize) -> StepFigures {
        StepFigures {
            batch_sequences,
            waiting_requests: state.queue.len(),
            running_sequences: self.scheduler.running_sequences(),
            kv_blocks_used: self.scheduler.kv().n_used(),
            kv_blocks_total: self.scheduler.kv().n_blocks(),
        }
    }
}

fn admission(ticket: &Ticket, model_version: u64) -> Admission {
    Admission {
        id: ticket.id,
        prompt: Arc::clone(&ticket.prompt),
        candidates: ticket.candidates,
        max_new_tokens: ticket.sampling.max_new_tokens,
        cache_key: CacheKey { model: model_version, scope: ticket.cache_scope },
    }
}

fn wants_logits(work: Work) -> bool {
    !matches!(work, Work::Prefill { last: false })
}

fn to_slice(slice: &PlannedSlice) -> SequenceSlice<'_> {
    SequenceSlice {
        tokens: &slice.tokens,
        position: slice.position,
        blocks: &slice.blocks,
        logits: if wants_logits(slice.work) { LogitsWanted::Last } else { LogitsWanted::None },
    }
}

/// A number that differs between models, adapters included.
fn version_of(info: &ModelInfo) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (&info.id, &info.sha256).hash(&mut hasher);
    hasher.finish()
}

/// The words of a panic, where it has any.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no reason given".to_owned())
}
