//! A fork-join pool with a hand-over of less than a microsecond, which stays fast on a machine it has to share.
//!
//! A job is a number of chunks claimed through one atomic word. The caller works too and waits for claimed chunks only,
//! never for a worker to turn up: a barrier that waits for every worker costs a scheduler time slice for each of a
//! step's hundred jobs as soon as other processes use the cores. Idle workers spin briefly, then park.

use std::any::Any;
use std::cell::Cell;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Threads that run the chunks of one job at a time. It can be sent but not shared (not `Sync`), so there is never a
/// second caller, and a chunk cannot start a job itself.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<thread::JoinHandle<()>>,
    not_sync: PhantomData<Cell<()>>,
}

/// Rounds of `pause` before a worker parks: about 100 us, longer than the serial gap between two jobs of a step.
const SPINS_BEFORE_PARK: usize = 5_000;
/// Rounds of `pause` before the caller yields its core to a worker that was preempted inside a chunk.
const SPINS_BEFORE_YIELD: usize = 500;
/// Low bits of the state word: chunks not yet claimed. The other 40 number the jobs, enough for a year at 30,000 jobs a
/// second.
const CHUNK_BITS: u32 = 24;
const CHUNK_MASK: u64 = (1 << CHUNK_BITS) - 1;

/// Keeps a word that threads contend for away from its neighbors' cache lines.
#[repr(align(128))]
struct Padded<T>(T);

struct Shared {
    /// Job number and unclaimed chunks in one word, so that a claim can never mix two jobs up.
    state: Padded<AtomicU64>,
    finished: Padded<AtomicUsize>,
    job: Padded<AtomicPtr<Job>>,
    asleep: Vec<Padded<AtomicBool>>,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// A closure with its type erased; it lives on the caller's stack until every chunk is finished.
struct Job {
    closure: *const (),
    run: unsafe fn(*const (), usize, usize),
}

impl Pool {
    /// A pool of `threads` threads, the caller among them; 0 counts as 1.
    ///
    /// # Errors
    /// When the system refuses to start a thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let threads = threads.max(1);
        let shared = Arc::new(Shared {
            state: Padded(AtomicU64::new(0)),
            finished: Padded(AtomicUsize::new(0)),
            job: Padded(AtomicPtr::new(std::ptr::null_mut())),
            asleep: (1..threads).map(|_| Padded(AtomicBool::new(false))).collect(),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let mut pool = Self { shared, workers: Vec::with_capacity(threads - 1), not_sync: PhantomData };
        for worker in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let thread = thread::Builder::new().name(format!("kernel-{worker}"));
            pool.workers.push(thread.spawn(move || shared.serve(worker))?);
        }
        Ok(pool)
    }

    /// Threads, the caller included. Worker numbers are below it.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `f(worker, i)` once for each `i` below `n` on whichever threads are free; returns when all are finished.
    /// The caller is worker 0. A panic in a chunk goes on in the caller after the others are finished.
    pub fn chunks<F: Fn(usize, usize) + Sync>(&self, n: usize, f: &F) {
        if self.workers.is_empty() || n <= 1 || n as u64 > CHUNK_MASK {
            return (0..n).for_each(|i| f(0, i));
        }
        unsafe fn run<F: Fn(usize, usize)>(closure: *const (), worker: usize, i: usize) {
            // SAFETY: `closure` is the `&F` of the job in hand, whose caller waits until it is finished.
            unsafe { (*closure.cast::<F>())(worker, i) }
        }
        let job = Job { closure: std::ptr::from_ref(f).cast(), run: run::<F> };
        let shared = &*self.shared;
        let number = ((shared.state.0.load(Relaxed) >> CHUNK_BITS) + 1) & (u64::MAX >> CHUNK_BITS);
        shared.finished.0.store(0, Relaxed);
        shared.job.0.store(std::ptr::from_ref(&job).cast_mut(), Relaxed);
        shared.state.0.store(number << CHUNK_BITS | n as u64, SeqCst);
        for (worker, asleep) in self.workers.iter().zip(&shared.asleep) {
            if asleep.0.load(SeqCst) {
                worker.thread().unpark();
            }
        }
        shared.work(0, number);
        let mut spins = 0;
        while shared.finished.0.load(Acquire) != n {
            std::hint::spin_loop();
            spins += 1;
            if spins > SPINS_BEFORE_YIELD {
                thread::yield_now();
            }
        }
        let payload = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(payload) = payload {
            resume_unwind(payload);
        }
    }

    /// Splits `0..n` into at most `parts` even ranges and runs `f(worker, range)` for each.
    pub fn ranges<F: Fn(usize, std::ops::Range<usize>) + Sync>(&self, n: usize, parts: usize, f: &F) {
        let parts = parts.min(n);
        self.chunks(parts, &|worker, i| f(worker, n * i / parts..n * (i + 1) / parts));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches its chunks' panics, so there is nothing to learn from its result.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn serve(&self, worker: usize) {
        let (mut seen, mut spins) = (0, 0);
        let asleep = &self.asleep[worker - 1].0;
        while !self.stop.load(Relaxed) {
            let number = self.state.0.load(Acquire) >> CHUNK_BITS;
            if number != seen {
                (seen, spins) = (number, 0);
                self.work(worker, number);
            } else if spins < SPINS_BEFORE_PARK {
                spins += 1;
                std::hint::spin_loop();
            } else {
                // Sequentially consistent with `chunks`: either this sees its job or it sees this asleep.
                asleep.store(true, SeqCst);
                if self.state.0.load(SeqCst) >> CHUNK_BITS == seen && !self.stop.load(SeqCst) {
                    thread::park();
                }
                asleep.store(false, SeqCst);
            }
        }
    }

    /// Claims and runs chunks of job `number`, the last first, until none is left.
    fn work(&self, worker: usize, number: u64) {
        loop {
            let state = self.state.0.load(Acquire);
            let job = self.job.0.load(Relaxed);
            let unclaimed = (state & CHUNK_MASK) as usize;
            if state >> CHUNK_BITS != number || unclaimed == 0 {
                return;
            }
            if self.state.0.compare_exchange_weak(state, state - 1, AcqRel, Relaxed).is_err() {
                continue;
            }
            let i = unclaimed - 1;
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                // SAFETY: the claim succeeded on a word that holds the job's number, so the job has an unfinished
                // chunk: its caller still waits, and `job`, read before the claim, is still the current one.
                unsafe { ((*job).run)((*job).closure, worker, i) }
            }));
            if let Err(payload) = outcome {
                self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
            }
            self.finished.0.fetch_add(1, Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_runs_exactly_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads).unwrap();
            for n in [0, 1, 2, 3, 64, 1000] {
                let counts: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
                pool.chunks(n, &|worker, i| {
                    assert!(worker < threads);
                    counts[i].fetch_add(1, Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Relaxed) == 1), "{threads} threads, {n} chunks");
            }
        }
    }

    #[test]
    fn many_short_jobs_follow_each_other_and_parked_workers_do_not_block_them() {
        let pool = Pool::new(3).unwrap();
        let total = AtomicUsize::new(0);
        for round in 0..20_000 {
            if round % 5_000 == 0 {
                // Long enough for the workers to park.
                thread::sleep(std::time::Duration::from_millis(5));
            }
            pool.chunks(7, &|_, i| {
                total.fetch_add(i, Relaxed);
            });
        }
        assert_eq!(total.load(Relaxed), 20_000 * 21);
    }

    #[test]
    fn a_panic_in_a_chunk_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(2).unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            pool.chunks(16, &|_, i| assert!(i != 9, "chunk nine"));
        }));
        assert!(outcome.is_err());
        let ran = AtomicUsize::new(0);
        pool.chunks(16, &|_, _| {
            ran.fetch_add(1, Relaxed);
        });
        assert_eq!(ran.load(Relaxed), 16);
    }

    #[test]
    fn ranges_cover_everything_without_overlap() {
        let pool = Pool::new(2).unwrap();
        let counts: Vec<AtomicUsize> = (0..101).map(|_| AtomicUsize::new(0)).collect();
        pool.ranges(101, 8, &|_, range| {
            for i in range {
                counts[i].fetch_add(1, Relaxed);
            }
        });
        assert!(counts.iter().all(|c| c.load(Relaxed) == 1));
    }
}
