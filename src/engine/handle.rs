//! The engine's owner and its handles: start, submit, drain, stop.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::config::Config;
use super::door::{Capacity, retry_after};
use super::live::Ticket;
use super::observe;
use super::queue::Waiting;
use super::request::{Generation, GenerationRequest, Generator, ModelInfo, Readiness, Refusal};
use super::sequence::RequestId;
use super::shared::{Clock, Door, Phase, Shared, State};
use super::worker::{Worker, panic_text};
use crate::model::chat::Vocabulary;
use crate::model::step::StepModel;

/// How long the worker may take to end after it was told to: longer than any step, shorter than an operator waits.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A model, ready to run.
pub struct Loaded {
    pub model: Box<dyn StepModel>,
    pub vocabulary: Arc<dyn Vocabulary>,
    pub info: ModelInfo,
}

/// Owns the worker thread. Dropping it stops the engine at once: what is accepted fails with `Stopped`.
pub struct Engine {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Submits requests. Cheap to clone.
#[derive(Clone)]
pub struct EngineHandle {
    shared: Arc<Shared>,
}

impl Engine {
    /// Starts the worker thread, which loads the model first. Returns at once; until then nothing is accepted.
    pub fn start(
        config: Config,
        load: impl FnOnce() -> Result<Loaded, String> + Send + 'static,
    ) -> (Self, EngineHandle) {
        Self::start_with_clock(config, Arc::new(Instant::now), load)
    }

    pub(super) fn start_with_clock(
        config: Config,
        clock: Clock,
        load: impl FnOnce() -> Result<Loaded, String> + Send + 'static,
    ) -> (Self, EngineHandle) {
        let shared = Arc::new(Shared::new(config, clock));
        let for_thread = Arc::clone(&shared);
        let spawned = std::thread::Builder::new().name("engine".to_owned()).spawn(move || {
            // Whatever ends the thread, no one waits for it in vain.
            let ended = catch_unwind(AssertUnwindSafe(|| load_and_run(&for_thread, load)));
            if let Err(panic) = ended {
                tracing::error!(reason = panic_text(panic.as_ref()), "the engine's thread panicked");
            }
            let mut state = for_thread.lock();
            state.queue.take_all();
            if !matches!(state.phase, Phase::LoadFailed(_)) {
                state.phase = Phase::Stopped;
            }
            state.running_requests = 0;
            drop(state);
            for_thread.changed.notify_all();
        });
        let thread = match spawned {
            Ok(thread) => Some(thread),
            Err(error) => {
                shared.set_phase(Phase::LoadFailed(format!("its thread cannot be started: {error}")));
                None
            }
        };
        let handle = EngineHandle { shared: Arc::clone(&shared) };
        (Self { shared, thread }, handle)
    }

    /// Refuses new requests from now on. What is accepted goes on.
    pub fn drain(&self) {
        self.shared.lock().draining = true;
        self.shared.changed.notify_all();
    }

    /// Blocks until nothing waits or runs, at most `limit`. Returns whether it is so.
    pub fn wait_idle(&self, limit: Duration) -> bool {
        self.shared.wait_until(limit, |state| state.queue.is_empty() && state.running_requests == 0)
    }

    /// Drains, gives what is accepted `grace` to finish, and stops; the rest gets `Failed(Stopped)`. Blocks: an async
    /// caller runs it on a blocking thread. Returns whether everything was finished.
    pub fn shutdown(mut self, grace: Duration) -> bool {
        self.drain();
        let finished = self.wait_idle(grace);
        self.stop();
        finished
    }

    fn stop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        {
            let mut state = self.shared.lock();
            state.draining = true;
            state.stop = true;
        }
        self.shared.work.notify_all();
        self.shared.changed.notify_all();
        let ended = |state: &State| matches!(state.phase, Phase::Stopped | Phase::LoadFailed(_));
        if self.shared.wait_until(STOP_LIMIT, ended) {
            if thread.join().is_err() {
                tracing::error!("the engine's thread panicked at its end");
            }
        } else {
            // It loads a model or hangs in a step: it cannot be interrupted, and waiting on would hang the process.
            tracing::warn!(limit_seconds = STOP_LIMIT.as_secs(), "the engine's thread did not end and is left behind");
        }
    }
}

#[cfg(test)]
impl Engine {
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }
}

#[cfg(test)]
impl EngineHandle {
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

fn load_and_run(shared: &Arc<Shared>, load: impl FnOnce() -> Result<Loaded, String>) {
    let loaded = match catch_unwind(AssertUnwindSafe(load)) {
        Ok(Ok(loaded)) => loaded,
        Ok(Err(reason)) => return shared.set_phase(Phase::LoadFailed(reason)),
        Err(panic) => {
            return shared.set_phase(Phase::LoadFailed(format!("the loader panicked: {}", panic_text(panic.as_ref()))));
        }
    };
    let Loaded { model, vocabulary, info } = loaded;
    let capacity = Capacity::new(&shared.config, model.as_ref());
    let worker = Worker::new(Arc::clone(shared), model, Arc::clone(&vocabulary), &info);
    // Set once, by this thread only.
    let _ = shared.door.set(Door { vocabulary, info, capacity });
    shared.set_phase(Phase::Serving);
    worker.run();
}

impl EngineHandle {
    /// Blocks until the model is loaded or cannot be, at most `limit`, and tells how it stands then.
    pub fn wait_loaded(&self, limit: Duration) -> Readiness {
        self.shared.wait_until(limit, |state| state.phase != Phase::Loading);
        self.shared.readiness()
    }

    /// Whether the model could not be loaded; it will not be tried again.
    pub fn load_failed(&self) -> bool {
        matches!(self.shared.lock().phase, Phase::LoadFailed(_))
    }

    fn try_submit(&self, request: GenerationRequest) -> Result<Generation, Refusal> {
        self.check_open()?;
        let Some(door) = self.shared.door.get() else { return Err(self.not_ready("model loading".to_owned())) };
        door.capacity.check_request(&request)?;
        let prompt = door
            .vocabulary
            .encode_chat(&request.messages, &request.prefix)
            .map_err(|error| Refusal::Prompt { reason: format!("its prompt cannot be rendered: {error}") })?;
        let fit = door.capacity.fit(prompt.len(), request.candidates, request.sampling.max_new_tokens)?;
        let (events, receiver) = mpsc::channel(Ticket::event_capacity(request.candidates, fit.max_new_tokens));
        let submitted = self.shared.now();
        let mut sampling = request.sampling;
        sampling.max_new_tokens = fit.max_new_tokens;

        let mut state = self.shared.lock();
        // Things may have changed while the prompt was rendered.
        self.check_phase(&state)?;
        let id = RequestId(state.next_id);
        let pushed = state.queue.push(Waiting {
            priority: request.priority,
            tokens: fit.tokens,
            since: submitted,
            deadline: request.deadline,
            item: Ticket {
                id,
                prompt: prompt.into(),
                candidates: request.candidates,
                sampling,
                cache_scope: request.cache_scope,
                submitted,
                deadline: request.deadline,
                events,
            },
        });
        state.next_id += 1;
        if pushed.is_err() {
            return Err(self.queue_full(&state));
        }
        drop(state);
        self.shared.work.notify_one();
        Ok(Generation { events: receiver })
    }

    /// Refuses, before any work is done on the prompt, what would be refused anyhow.
    fn check_open(&self) -> Result<(), Refusal> {
        if let Some(lasted) = self.shared.stall() {
            return Err(self.not_ready(format!("engine stalled for {} s", lasted.as_secs())));
        }
        let state = self.shared.lock();
        self.check_phase(&state)?;
        state.queue.room_for(1).map_err(|_| self.queue_full(&state))
    }

    fn check_phase(&self, state: &State) -> Result<(), Refusal> {
        match &state.phase {
            Phase::Stopped => Err(Refusal::Draining),
            _ if state.draining => Err(Refusal::Draining),
            Phase::Loading => Err(self.not_ready("model loading".to_owned())),
            Phase::LoadFailed(reason) => Err(self.not_ready(format!("the model could not be loaded: {reason}"))),
            Phase::Broken => Err(self.not_ready("steps of the model fail".to_owned())),
            // One failed step is no reason to turn others away.
            Phase::Serving | Phase::Recovering => Ok(()),
        }
    }

    fn not_ready(&self, reason: String) -> Refusal {
        Refusal::NotReady { reason, retry_after: Duration::from_secs(2) }
    }

    fn queue_full(&self, state: &State) -> Refusal {
        let waiting_tokens = state.queue.tokens();
        let backlog = waiting_tokens + state.running_tokens;
        // Before the first step nothing is measured; a slow guess sends callers away for longer, which is safe.
        let speed = Some(self.shared.tokens_per_second()).filter(|&speed| speed > 0.0).unwrap_or(100.0);
        let nth = self.shared.next_refusal();
        Refusal::QueueFull {
            waiting_tokens,
            limit_tokens: self.shared.config.max_waiting_tokens,
            retry_after: retry_after(backlog, speed, nth),
        }
    }
}

impl Generator for EngineHandle {
    fn submit(&self, request: GenerationRequest) -> Result<Generation, Refusal> {
        self.try_submit(request).inspect_err(observe::refused)
    }

    fn readiness(&self) -> Readiness {
        self.shared.readiness()
    }

    fn model(&self) -> Option<ModelInfo> {
        self.shared.door.get().map(|door| door.info.clone())
    }
}
