//! What the worker, the handles and the owner share: the queue, the engine's phase, and its pulse.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::config::Config;
use super::door::Capacity;
use super::live::Ticket;
use super::queue::{Queue, QueueLimits};
use super::request::{ModelInfo, Readiness};
use crate::model::chat::Vocabulary;

/// Tells the time; tests bring their own.
pub(super) type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// Where the engine is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    Loading,
    LoadFailed(String),
    Serving,
    /// A step failed, and none has succeeded since.
    Recovering,
    /// The step that was to prove recovery failed too; new requests are refused until one succeeds.
    Broken,
    Stopped,
}

/// Guarded by one lock that is held for moments only, never during a step.
pub(super) struct State {
    pub phase: Phase,
    /// No new requests.
    pub draining: bool,
    /// The worker is to fail what is left and end.
    pub stop: bool,
    pub queue: Queue<Ticket>,
    pub running_requests: usize,
    /// The most tokens that running requests may still cost.
    pub running_tokens: usize,
    pub next_id: u64,
}

/// Known once the model is loaded.
pub(super) struct Door {
    pub vocabulary: Arc<dyn Vocabulary>,
    pub info: ModelInfo,
    pub capacity: Capacity,
}

pub(super) struct Shared {
    pub config: Config,
    pub clock: Clock,
    pub door: OnceLock<Door>,
    state: Mutex<State>,
    /// There is something to do for the worker.
    pub work: Condvar,
    /// The phase changed, or the engine fell idle.
    pub changed: Condvar,
    origin: Instant,
    /// When the step under way began, in milliseconds after `origin`, plus 1; 0 between steps.
    step_began: AtomicU64,
    /// Bits of an `f32`.
    tokens_per_second: AtomicU32,
    refusals: AtomicU64,
}

impl Shared {
    pub fn new(config: Config, clock: Clock) -> Self {
        let limits = QueueLimits {
            requests: config.max_waiting_requests,
            tokens: config.max_waiting_tokens,
            aging: config.aging(),
        };
        let state = State {
            phase: Phase::Loading,
            draining: false,
            stop: false,
            queue: Queue::new(limits),
            running_requests: 0,
            running_tokens: 0,
            next_id: 0,
        };
        Self {
            origin: clock(),
            config,
            clock,
            door: OnceLock::new(),
            state: Mutex::new(state),
            work: Condvar::new(),
            changed: Condvar::new(),
            step_began: AtomicU64::new(0),
            tokens_per_second: AtomicU32::new(0),
            refusals: AtomicU64::new(0),
        }
    }

    pub fn now(&self) -> Instant {
        (self.clock)()
    }

    /// A panic while the lock was held leaves counts that are still consistent: each change is a single call.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_phase(&self, phase: Phase) {
        self.lock().phase = phase;
        self.changed.notify_all();
    }

    /// Waits until `done` holds, at most `limit` of real time. Returns whether it does.
    pub fn wait_until(&self, limit: Duration, done: impl Fn(&State) -> bool) -> bool {
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), limit, |state| !done(state))
            .unwrap_or_else(PoisonError::into_inner);
        done(&state)
    }

    pub fn begin_step(&self) {
        let millis = self.now().saturating_duration_since(self.origin).as_millis();
        self.step_began.store(u64::try_from(millis).unwrap_or(u64::MAX - 1) + 1, Ordering::Relaxed);
    }

    /// Ends a step of `tokens`; a good one counts for the speed measured.
    pub fn end_step(&self, tokens: usize, took: Duration, good: bool) {
        self.step_began.store(0, Ordering::Relaxed);
        if good && !took.is_zero() {
            // Only the worker writes, so load and store need not be one.
            let (speed, before) = (tokens as f32 / took.as_secs_f32(), self.tokens_per_second());
            let mean = if before == 0.0 { speed } else { 0.9 * before + 0.1 * speed };
            self.tokens_per_second.store(mean.to_bits(), Ordering::Relaxed);
        }
    }

    /// Moving average over steps; 0 before the first.
    pub fn tokens_per_second(&self) -> f32 {
        f32::from_bits(self.tokens_per_second.load(Ordering::Relaxed))
    }

    /// A number that differs with each refusal.
    pub fn next_refusal(&self) -> u64 {
        self.refusals.fetch_add(1, Ordering::Relaxed)
    }

    /// How long the step under way has lasted, if that is longer than a step may.
    pub fn stall(&self) -> Option<Duration> {
        let began = self.step_began.load(Ordering::Relaxed).checked_sub(1)?;
        let lasted = self.now().saturating_duration_since(self.origin).checked_sub(Duration::from_millis(began))?;
        (lasted > Duration::from_secs(self.config.stall_seconds)).then_some(lasted)
    }

    pub fn readiness(&self) -> Readiness {
        let reason = {
            let state = self.lock();
            match &state.phase {
                Phase::Loading => "model loading".to_owned(),
                Phase::LoadFailed(reason) => format!("the model could not be loaded: {reason}"),
                Phase::Stopped => "stopped".to_owned(),
                _ if state.draining => "draining".to_owned(),
                Phase::Recovering => "recovering from a failed step".to_owned(),
                Phase::Broken => "steps of the model fail".to_owned(),
                Phase::Serving => String::new(),
            }
        };
        if !reason.is_empty() {
            return Readiness::NotReady(reason);
        }
        match self.stall() {
            Some(lasted) => Readiness::NotReady(format!("engine stalled for {} s", lasted.as_secs())),
            None => Readiness::Ready,
        }
    }
}
