//! The waiting room: bounded by requests and tokens, interactive before batch, with aging. Pure; `now` is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::request::Priority;

/// What may wait at most, and how long a batch request waits before it counts as interactive.
#[derive(Debug, Clone, Copy)]
pub struct QueueLimits {
    pub requests: usize,
    pub tokens: usize,
    pub aging: Duration,
}

/// Someone waiting.
#[derive(Debug)]
pub struct Waiting<T> {
    pub priority: Priority,
    /// The most tokens that the request can become, prompt included.
    pub tokens: usize,
    pub since: Instant,
    pub deadline: Option<Instant>,
    pub item: T,
}

/// Why a request may not wait. Nothing of it was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFull {
    pub waiting_tokens: usize,
    pub limit_tokens: usize,
}

/// Who left the queue without being served.
#[derive(Debug)]
pub struct Swept<T> {
    pub expired: Vec<Waiting<T>>,
    pub cancelled: Vec<Waiting<T>>,
}

/// First come, first served within each of two lanes.
#[derive(Debug)]
pub struct Queue<T> {
    limits: QueueLimits,
    interactive: VecDeque<Waiting<T>>,
    batch: VecDeque<Waiting<T>>,
    tokens: usize,
}

impl<T> Queue<T> {
    pub fn new(limits: QueueLimits) -> Self {
        Self { limits, interactive: VecDeque::new(), batch: VecDeque::new(), tokens: 0 }
    }

    pub fn len(&self) -> usize {
        self.interactive.len() + self.batch.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens that wait.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Whether `tokens` more would fit.
    ///
    /// # Errors
    /// [`QueueFull`] when they would not.
    pub fn room_for(&self, tokens: usize) -> Result<(), QueueFull> {
        if self.len() < self.limits.requests && tokens <= self.limits.tokens.saturating_sub(self.tokens) {
            Ok(())
        } else {
            Err(QueueFull { waiting_tokens: self.tokens, limit_tokens: self.limits.tokens })
        }
    }

    /// Appends to the lane of the request's priority.
    ///
    /// # Errors
    /// [`QueueFull`] when either bound would be passed.
    pub fn push(&mut self, waiting: Waiting<T>) -> Result<(), QueueFull> {
        self.room_for(waiting.tokens)?;
        self.tokens += waiting.tokens;
        match waiting.priority {
            Priority::Interactive => self.interactive.push_back(waiting),
            Priority::Batch => self.batch.push_back(waiting),
        }
        Ok(())
    }

    /// Who is served next.
    pub fn peek(&self, now: Instant) -> Option<&Waiting<T>> {
        if self.batch_is_next(now) { self.batch.front() } else { self.interactive.front() }
    }

    /// Takes out who is served next.
    pub fn pop(&mut self, now: Instant) -> Option<Waiting<T>> {
        let next = if self.batch_is_next(now) { self.batch.pop_front() } else { self.interactive.pop_front() }?;
        self.tokens -= next.tokens;
        Some(next)
    }

    /// Takes out everyone whose deadline passed or whose caller left.
    pub fn sweep(&mut self, now: Instant, is_cancelled: impl Fn(&T) -> bool) -> Swept<T> {
        let mut swept = Swept { expired: Vec::new(), cancelled: Vec::new() };
        let goes = |w: &Waiting<T>| is_cancelled(&w.item) || w.deadline.is_some_and(|deadline| deadline <= now);
        for lane in [&mut self.interactive, &mut self.batch] {
            // The common case moves nothing.
            if !lane.iter().any(goes) {
                continue;
            }
            for waiting in std::mem::take(lane) {
                if is_cancelled(&waiting.item) {
                    self.tokens -= waiting.tokens;
                    swept.cancelled.push(waiting);
                } else if waiting.deadline.is_some_and(|deadline| deadline <= now) {
                    self.tokens -= waiting.tokens;
                    swept.expired.push(waiting);
                } else {
                    lane.push_back(waiting);
                }
            }
        }
        swept
    }

    /// Empties the queue.
    pub fn take_all(&mut self) -> Vec<Waiting<T>> {
        self.tokens = 0;
        self.interactive.drain(..).chain(self.batch.drain(..)).collect()
    }

    /// A batch request goes first when no interactive one waits, or when it aged and came before the interactive one.
    fn batch_is_next(&self, now: Instant) -> bool {
        match (self.batch.front(), self.interactive.front()) {
            (Some(_), None) => true,
            (Some(batch), Some(interactive)) => {
                now.saturating_duration_since(batch.since) >= self.limits.aging && batch.since <= interactive.since
            }
            (None, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: QueueLimits = QueueLimits { requests: 8, tokens: 100, aging: Duration::from_millis(50) };

    fn waiting(item: usize, priority: Priority, tokens: usize, since: Instant) -> Waiting<usize> {
        Waiting { priority, tokens, since, deadline: None, item }
    }

    fn order(queue: &mut Queue<usize>, now: Instant) -> Vec<usize> {
        std::iter::from_fn(|| queue.pop(now).map(|w| w.item)).collect()
    }

    #[test]
    fn interactive_goes_before_batch_and_each_lane_is_first_come_first_served() {
        let now = Instant::now();
        let mut queue = Queue::new(LIMITS);
        for (item, priority) in
            [(0, Priority::Batch), (1, Priority::Interactive), (2, Priority::Batch), (3, Priority::Interactive)]
        {
            queue.push(waiting(item, priority, 1, now)).unwrap();
        }
        assert_eq!(order(&mut queue, now), [1, 3, 0, 2]);
    }

    #[test]
    fn a_batch_request_that_aged_goes_before_interactive_ones_that_came_later() {
        let start = Instant::now();
        let mut queue = Queue::new(LIMITS);
        queue.push(waiting(0, Priority::Interactive, 1, start)).unwrap();
        queue.push(waiting(1, Priority::Batch, 1, start + Duration::from_millis(1))).unwrap();
        queue.push(waiting(2, Priority::Interactive, 1, start + Duration::from_millis(2))).unwrap();
        assert_eq!(order(&mut queue, start + Duration::from_millis(51)), [0, 1, 2]);
    }

    #[test]
    fn a_batch_request_that_has_not_aged_yet_waits() {
        let start = Instant::now();
        let mut queue = Queue::new(LIMITS);
        queue.push(waiting(0, Priority::Batch, 1, start)).unwrap();
        queue.push(waiting(1, Priority::Interactive, 1, start + Duration::from_millis(40))).unwrap();
        assert_eq!(queue.peek(start + Duration::from_millis(49)).unwrap().item, 1);
        assert_eq!(queue.peek(start + Duration::from_millis(50)).unwrap().item, 0);
    }

    #[test]
    fn tokens_are_bounded_and_the_refusal_says_how_many_wait() {
        let now = Instant::now();
        let mut queue = Queue::new(LIMITS);
        queue.push(waiting(0, Priority::Interactive, 60, now)).unwrap();
        let full = queue.push(waiting(1, Priority::Interactive, 41, now)).unwrap_err();
        assert_eq!(full, QueueFull { waiting_tokens: 60, limit_tokens: 100 });
        queue.push(waiting(2, Priority::Interactive, 40, now)).unwrap();
        assert_eq!((queue.len(), queue.tokens()), (2, 100));
    }

    #[test]
    fn requests_are_bounded_in_both_lanes_together() {
        let now = Instant::now();
        let mut queue = Queue::new(LIMITS);
        for item in 0..8 {
            let priority = if item % 2 == 0 { Priority::Batch } else { Priority::Interactive };
            queue.push(waiting(item, priority, 1, now)).unwrap();
        }
        assert!(queue.push(waiting(9, Priority::Interactive, 1, now)).is_err());
        queue.pop(now).unwrap();
        assert!(queue.push(waiting(9, Priority::Interactive, 1, now)).is_ok());
    }

    #[test]
    fn a_sweep_takes_out_the_expired_and_the_cancelled_and_their_tokens() {
        let now = Instant::now();
        let mut queue = Queue::new(LIMITS);
        for item in 0..6 {
            let deadline = (item == 1 || item == 4).then_some(now);
            queue.push(Waiting { deadline, ..waiting(item, Priority::Interactive, 10, now) }).unwrap();
        }
        let swept = queue.sweep(now, |&item| item == 2 || item == 4);
        assert_eq!(swept.expired.iter().map(|w| w.item).collect::<Vec<_>>(), [1]);
        assert_eq!(swept.cancelled.iter().map(|w| w.item).collect::<Vec<_>>(), [2, 4], "nobody is told twice");
        assert_eq!(queue.tokens(), 30);
        assert_eq!(order(&mut queue, now), [0, 3, 5]);
    }

    #[test]
    fn a_deadline_in_the_future_does_not_expire() {
        let now = Instant::now();
        let mut queue = Queue::new(LIMITS);
        let deadline = Some(now + Duration::from_nanos(1));
        queue.push(Waiting { deadline, ..waiting(0, Priority::Batch, 1, now) }).unwrap();
        assert!(queue.sweep(now, |_| false).expired.is_empty());
        assert_eq!(queue.len(), 1);
    }

    #[derive(Debug, Clone)]
    enum Op {
        Push { batch: bool, tokens: usize, lifetime_ms: Option<u64> },
        Pop,
        Sweep { cancel_every: usize },
        Wait { ms: u64 },
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (any::<bool>(), 0usize..40, proptest::option::of(0u64..60))
                .prop_map(|(batch, tokens, lifetime_ms)| Op::Push { batch, tokens, lifetime_ms }),
            2 => Just(Op::Pop),
            1 => (1usize..6).prop_map(|cancel_every| Op::Sweep { cancel_every }),
            2 => (0u64..30).prop_map(|ms| Op::Wait { ms }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

        /// 100 cases of 1000 operations each.
        #[test]
        fn the_bounds_hold_and_everyone_leaves_exactly_once(ops in proptest::collection::vec(op(), 1000)) {
            let mut now = Instant::now();
            let mut queue = Queue::new(LIMITS);
            let (mut accepted, mut left) = (0usize, std::collections::HashSet::new());
            for op in ops {
                match op {
                    Op::Push { batch, tokens, lifetime_ms } => {
                        let priority = if batch { Priority::Batch } else { Priority::Interactive };
                        let deadline = lifetime_ms.map(|ms| now + Duration::from_millis(ms));
                        let had_room = queue.len() < 8 && queue.tokens() + tokens <= 100;
                        let pushed = queue.push(Waiting { deadline, ..waiting(accepted, priority, tokens, now) });
                        prop_assert_eq!(pushed.is_ok(), had_room);
                        accepted += usize::from(had_room);
                    }
                    Op::Pop => {
                        if let Some(next) = queue.pop(now) {
                            prop_assert!(left.insert(next.item));
                        }
                    }
                    Op::Sweep { cancel_every } => {
                        let swept = queue.sweep(now, |item| item % cancel_every == 0);
                        for gone in swept.expired.iter().chain(&swept.cancelled) {
                            prop_assert!(left.insert(gone.item));
                        }
                    }
                    Op::Wait { ms } => now += Duration::from_millis(ms),
                }
                prop_assert!(queue.len() <= 8 && queue.tokens() <= 100);
                prop_assert_eq!(queue.len(), accepted - left.len());
            }
            for rest in queue.take_all() {
                prop_assert!(left.insert(rest.item));
            }
            prop_assert_eq!((left.len(), queue.tokens()), (accepted, 0));
        }
    }
}
