//! The engine as a whole, over a small model whose logits show what its blocks hold. Waits on events, never on time.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::config::Config;
use super::handle::{Engine, Loaded};
use super::request::{
    FinishReason, Generation, GenerationError, GenerationEvent, GenerationRequest, Generator, Priority, Readiness,
    Refusal,
};
use super::testing::{Act, FakeModel, ManualClock, PATIENCE, TestEngine, collect, engine, engine_with_clock, request};
use crate::model::step::SequenceSlice;

fn config() -> Config {
    Config { max_running_sequences: 16, max_candidates: 16, step_token_budget: 24, ..Config::default() }
}

fn plain(n_blocks: usize) -> TestEngine {
    engine(config(), n_blocks, |_| Act::Compute)
}

/// What a fake model does in a step.
trait Hook: FnMut(&[SequenceSlice<'_>]) -> Act + Send + 'static {}
impl<T: FnMut(&[SequenceSlice<'_>]) -> Act + Send + 'static> Hook for T {}

/// A hook that reports each step by its slices' lengths and waits for leave before it computes.
fn gated() -> (impl Hook, Receiver<Vec<usize>>, Sender<Act>) {
    let (report, steps) = channel();
    let (leave, gate) = channel();
    let hook = move |batch: &[SequenceSlice<'_>]| {
        let _ = report.send(batch.iter().map(|slice| slice.tokens.len()).collect::<Vec<_>>());
        // A test that ended no longer holds the gate.
        gate.recv().unwrap_or(Act::Compute)
    };
    (hook, steps, leave)
}

fn next(steps: &Receiver<Vec<usize>>) -> Vec<usize> {
    steps.recv_timeout(PATIENCE).expect("a step")
}

fn submit(test: &TestEngine, request: GenerationRequest) -> Generation {
    test.handle.submit(request).expect("accepted")
}

fn candidates(content: &str, candidates: usize, max_new_tokens: usize) -> GenerationRequest {
    let mut request = request(content);
    request.candidates = candidates;
    request.sampling.max_new_tokens = max_new_tokens;
    request
}

fn sampled(content: &str, seed: u64) -> GenerationRequest {
    let mut request = candidates(content, 2, 20);
    request.sampling.temperature = 1.0;
    request.sampling.seed = seed;
    request.sampling.top_p = 0.95;
    request
}

/// Blocks that sequences use once everything is quiet, seen by a request that needs every block there is.
fn assert_all_blocks_free(test: &TestEngine, n_blocks: usize) {
    assert!(n_blocks * FakeModel::BLOCK < FakeModel::CONTEXT);
    let prompt = "z".repeat(n_blocks * FakeModel::BLOCK);
    let outcome = collect(submit(test, candidates(&prompt, 1, 1)));
    assert_eq!(outcome.candidates.len(), 1);
}

#[test]
fn greedy_text_is_what_the_model_says_alone_and_among_15_others() {
    let test = plain(512);
    let prompts: Vec<String> = (0..16).map(|i| format!("prompt number {i} {}", "x".repeat(i * 3))).collect();
    let expected: Vec<String> = prompts.iter().map(|prompt| FakeModel::greedy(prompt, 40)).collect();
    let alone = collect(submit(&test, candidates(&prompts[3], 1, 40)));
    assert_eq!(alone.texts(), [&expected[3]]);
    let running: Vec<Generation> = prompts.iter().map(|prompt| submit(&test, candidates(prompt, 1, 40))).collect();
    for (generation, expected) in running.into_iter().zip(&expected) {
        assert_eq!(collect(generation).texts(), [expected]);
    }
}

#[test]
fn candidates_share_one_prefill_and_write_into_their_own_blocks() {
    let test = plain(128);
    let mut asked = sampled("a prompt of 22 chars!!", 5);
    asked.candidates = 4;
    let together = collect(submit(&test, asked.clone()));
    assert_eq!(test.log.lock().unwrap()[0], 22, "one prompt for four candidates");
    assert_eq!(together.stats().prompt_tokens, 22);
    let distinct: std::collections::HashSet<_> = together.texts().into_iter().collect();
    assert_eq!(distinct.len(), 4, "each has its own random numbers: {:?}", together.texts());
    // Candidate 0 is the same when it is the only one: no other wrote into its blocks.
    asked.candidates = 1;
    assert_eq!(collect(submit(&test, asked)).texts(), [together.texts()[0]]);
    let greedy = collect(submit(&test, candidates("another prompt of 26 chars", 3, 30)));
    let expected = FakeModel::greedy("another prompt of 26 chars", 30);
    assert_eq!(greedy.texts(), [&expected, &expected, &expected]);
}

#[test]
fn sampled_text_does_not_depend_on_load() {
    let test = plain(512);
    let alone = collect(submit(&test, sampled("the same request", 42)));
    let others: Vec<Generation> = (0..5).map(|seed| submit(&test, sampled("someone else", seed))).collect();
    let busy = collect(submit(&test, sampled("the same request", 42)));
    others.into_iter().for_each(|other| drop(collect(other)));
    assert_eq!(alone.texts(), busy.texts());
    let logprobs = |o: &super::testing::Outcome| o.candidates.iter().map(|c| c.mean_logprob).collect::<Vec<_>>();
    assert_eq!(logprobs(&alone), logprobs(&busy));
    assert_ne!(alone.texts(), collect(submit(&test, sampled("the same request", 43))).texts());
}

#[test]
fn a_prompt_that_came_before_is_not_computed_again_within_its_scope_only() {
    let test = plain(128);
    let prompt = "twenty letters here!";
    let first = collect(submit(&test, request(prompt)));
    assert_eq!(first.stats().cached_prompt_tokens, 0);
    let again = collect(submit(&test, request(prompt)));
    assert_eq!(again.stats().cached_prompt_tokens, 16, "all full blocks but the one of the last token");
    assert_eq!(again.texts(), first.texts());
    let other = collect(submit(&test, GenerationRequest { cache_scope: 7, ..request(prompt) }));
    assert_eq!(other.stats().cached_prompt_tokens, 0);
    assert_eq!(other.texts(), first.texts());
}

#[test]
fn without_the_prefix_cache_nothing_is_reused() {
    let test = engine(Config { prefix_cache: false, ..config() }, 128, |_| Act::Compute);
    collect(submit(&test, request("twenty letters here!")));
    assert_eq!(collect(submit(&test, request("twenty letters here!"))).stats().cached_prompt_tokens, 0);
}

#[test]
fn long_prompts_are_computed_in_chunks_while_others_decode() {
    let (hook, steps, leave) = gated();
    let test = engine(config(), 128, hook);
    let short = submit(&test, candidates("short", 1, 30));
    assert_eq!(next(&steps), [5]);
    let long = submit(&test, candidates(&"long".repeat(15), 1, 2));
    leave.send(Act::Compute).unwrap();
    // 24 tokens: one decodes, the chunk ends with a block.
    for expected in [vec![1, 20], vec![1, 20], vec![1, 20], vec![1, 1]] {
        assert_eq!(next(&steps), expected);
        leave.send(Act::Compute).unwrap();
    }
    drop(leave);
    assert_eq!(collect(long).texts(), [FakeModel::greedy(&"long".repeat(15), 2)]);
    assert_eq!(collect(short).texts(), [FakeModel::greedy("short", 30)]);
}

#[test]
fn a_cancelled_request_leaves_queue_prefill_and_decode_and_frees_its_blocks_within_a_step() {
    let (hook, steps, leave) = gated();
    let test = engine(config(), 32, hook);
    // 29 blocks are promised to the first, so the second waits.
    let decoding = submit(&test, candidates("first", 1, 110));
    assert_eq!(next(&steps), [5]);
    let queued = submit(&test, candidates("second", 1, 110));
    leave.send(Act::Compute).unwrap();
    assert_eq!(next(&steps), [1]);
    drop(queued);
    drop(decoding);
    let prefilling = submit(&test, candidates(&"third".repeat(10), 1, 70));
    leave.send(Act::Compute).unwrap();
    assert_eq!(next(&steps), [24], "the third needs the blocks of the first");
    drop(prefilling);
    let last = submit(&test, candidates("last", 1, 110));
    leave.send(Act::Compute).unwrap();
    assert_eq!(next(&steps), [4], "the prefill did not go on");
    drop(leave);
    assert_eq!(collect(last).texts(), [FakeModel::greedy("last", 110)]);
    assert_all_blocks_free(&test, 32);
}

#[test]
fn a_deadline_that_passes_in_the_queue_means_the_request_never_starts() {
    let (hook, steps, leave) = gated();
    let test = engine(config(), 32, hook);
    let running = submit(&test, candidates("first", 1, 110));
    next(&steps);
    let deadline = Some(test.clock.now() + Duration::from_millis(300));
    let waiting = submit(&test, GenerationRequest { deadline, ..candidates("second", 1, 110) });
    test.clock.advance(Duration::from_millis(300));
    drop(leave);
    assert_eq!(collect(waiting).error(), GenerationError::DeadlinePassed { waited_ms: 300 });
    assert_eq!(collect(running).texts(), [FakeModel::greedy("first", 110)]);
}

#[test]
fn a_deadline_in_prefill_fails_and_one_while_decoding_returns_what_there_is() {
    let (hook, steps, leave) = gated();
    let test = engine(config(), 60, hook);
    let deadline = Some(test.clock.now() + Duration::from_millis(10));
    let decoding = submit(&test, GenerationRequest { deadline, ..candidates("decoding", 2, 20) });
    assert_eq!(next(&steps), [8]);
    let prefilling = submit(&test, GenerationRequest { deadline, ..candidates(&"x".repeat(60), 1, 20) });
    leave.send(Act::Compute).unwrap();
    assert_eq!(next(&steps), [1, 1, 20]);
    test.clock.advance(Duration::from_millis(10));
    drop(leave);
    let outcome = collect(decoding);
    let expected = FakeModel::greedy("decoding", 2);
    assert_eq!(outcome.texts(), [&expected, &expected]);
    assert!(outcome.candidates.iter().all(|c| c.finish_reason == FinishReason::Deadline));
    assert_eq!(outcome.stats().completion_tokens, 4);
    assert_eq!(collect(prefilling).error(), GenerationError::DeadlinePassed { waited_ms: 10 });
    assert_all_blocks_free(&test, 60);
}

fn a_bad_step_fails_only_its_sequences(bad: Act) {
    let (hook, steps, leave) = gated();
    // One sequence runs at a time, so the other two wait while the step fails.
    let test = engine(Config { max_running_sequences: 1, max_candidates: 1, ..config() }, 60, hook);
    let poisoned = submit(&test, request("poisoned"));
    next(&steps);
    let others: Vec<Generation> = ["one", "two"].map(|prompt| submit(&test, request(prompt))).into();
    leave.send(bad).unwrap();
    assert_eq!(collect(poisoned).error(), GenerationError::StepFailed);
    // The probe is under way: readiness is off, and yet nobody is turned away.
    assert_eq!(next(&steps), [1]);
    assert_eq!(test.handle.readiness(), Readiness::NotReady("recovering from a failed step".to_owned()));
    let later = submit(&test, request("poisoned"));
    drop(leave);
    for (generation, prompt) in others.into_iter().zip(["one", "two"]) {
        assert_eq!(collect(generation).texts(), [FakeModel::greedy(prompt, 8)]);
    }
    assert_eq!(collect(later).texts(), [FakeModel::greedy("poisoned", 8)]);
    assert_eq!(test.handle.readiness(), Readiness::Ready);
    assert_all_blocks_free(&test, 60);
}

#[test]
fn an_error_in_a_step_fails_only_its_sequences() {
    a_bad_step_fails_only_its_sequences(Act::Fail);
}

#[test]
fn a_panic_in_a_step_fails_only_its_sequences() {
    a_bad_step_fails_only_its_sequences(Act::Panic);
}

#[test]
fn a_row_of_nan_fails_only_its_request() {
    let (hook, steps, leave) = gated();
    let test = engine(config(), 64, hook);
    let good = submit(&test, request("good"));
    assert_eq!(next(&steps), [4]);
    let bad = submit(&test, request("bad"));
    leave.send(Act::Compute).unwrap();
    assert_eq!(next(&steps), [1, 3]);
    leave.send(Act::Poison(1)).unwrap();
    drop(leave);
    assert_eq!(collect(bad).error(), GenerationError::StepFailed);
    assert_eq!(collect(good).texts(), [FakeModel::greedy("good", 8)]);
}

#[test]
fn a_model_that_stays_broken_leaves_no_one_waiting_and_is_used_again_when_it_works() {
    let (hook, steps, leave) = gated();
    let test = engine(Config { max_running_sequences: 1, max_candidates: 1, ..config() }, 64, hook);
    let first = submit(&test, request("first"));
    next(&steps);
    let waiting = submit(&test, request("waiting"));
    leave.send(Act::Fail).unwrap();
    leave.send(Act::Fail).unwrap();
    assert_eq!(collect(first).error(), GenerationError::StepFailed);
    assert_eq!(next(&steps), [1], "the probe that fails");
    assert_eq!(collect(waiting).error(), GenerationError::StepFailed);
    assert_eq!(next(&steps), [1], "the probe that succeeds");
    let refusal = test.handle.submit(request("later")).unwrap_err();
    assert!(matches!(refusal, Refusal::NotReady { .. }), "{refusal:?}");
    drop(leave);
    let ready = |state: &super::shared::State| state.phase == super::shared::Phase::Serving;
    assert!(test.engine.shared().wait_until(PATIENCE, ready));
    assert_eq!(collect(submit(&test, request("later"))).texts(), [FakeModel::greedy("later", 8)]);
}

#[test]
fn a_client_that_never_reads_holds_up_no_one() {
    let test = plain(256);
    let silent = submit(&test, candidates("never read", 4, 50));
    for i in 0..20 {
        let prompt = format!("reader {i}");
        assert_eq!(collect(submit(&test, request(&prompt))).texts(), [FakeModel::greedy(&prompt, 8)]);
    }
    assert!(test.engine.wait_idle(PATIENCE));
    let late = collect(silent);
    assert_eq!(late.texts(), vec![FakeModel::greedy("never read", 50); 4]);
}

#[test]
fn interactive_requests_overtake_batch_requests_in_the_queue() {
    let (hook, steps, leave) = gated();
    let test = engine(Config { max_running_sequences: 1, max_candidates: 1, ..config() }, 64, hook);
    let running = submit(&test, candidates("running", 1, 1));
    next(&steps);
    let batch = submit(&test, GenerationRequest { priority: Priority::Batch, ..candidates("batch", 1, 1) });
    let interactive = submit(&test, candidates("interactive", 1, 1));
    leave.send(Act::Compute).unwrap();
    assert_eq!(next(&steps), ["interactive".len()]);
    leave.send(Act::Compute).unwrap();
    assert_eq!(next(&steps), ["batch".len()]);
    drop(leave);
    for generation in [running, batch, interactive] {
        assert_eq!(collect(generation).candidates.len(), 1);
    }
}

#[test]
fn a_full_queue_refuses_at_once_and_says_when_to_come_again() {
    let (hook, steps, leave) = gated();
    let config = Config { max_running_sequences: 1, max_candidates: 1, max_waiting_requests: 2, ..config() };
    let test = engine(config, 64, hook);
    let mut accepted = vec![submit(&test, request("running"))];
    next(&steps);
    accepted.extend(["one", "two"].map(|prompt| submit(&test, request(prompt))));
    let Err(Refusal::QueueFull { waiting_tokens, limit_tokens, retry_after }) = test.handle.submit(request("three"))
    else {
        panic!("the queue holds two");
    };
    assert_eq!((waiting_tokens, limit_tokens), (22, 32_768));
    assert!((Duration::from_secs(1)..=Duration::from_secs(30)).contains(&retry_after));
    drop(leave);
    for generation in accepted {
        assert_eq!(collect(generation).candidates.len(), 1);
    }
}

#[test]
fn what_can_never_run_is_refused_at_the_door() {
    let test = plain(16);
    let refusal = |request| test.handle.submit(request).unwrap_err();
    let long = refusal(request(&"x".repeat(FakeModel::CONTEXT)));
    assert!(matches!(long, Refusal::PromptTooLong { tokens: FakeModel::CONTEXT, .. }), "{long:?}");
    assert!(matches!(refusal(candidates("x", 16, 60)), Refusal::PromptTooLong { .. }));
    assert!(matches!(refusal(candidates("x", 17, 1)), Refusal::Prompt { .. }));
    assert!(matches!(refusal(request("unrenderable")), Refusal::Prompt { .. }));
    assert!(matches!(refusal(request("")), Refusal::Prompt { .. }));
}

#[test]
fn draining_refuses_new_work_and_finishes_what_was_accepted() {
    let (hook, steps, leave) = gated();
    let test = engine(config(), 64, hook);
    let accepted = submit(&test, request("accepted"));
    next(&steps);
    test.engine.drain();
    assert_eq!(test.handle.submit(request("late")).unwrap_err(), Refusal::Draining);
    assert_eq!(test.handle.readiness(), Readiness::NotReady("draining".to_owned()));
    drop(leave);
    assert!(test.engine.shutdown(PATIENCE), "everything was finished");
    assert_eq!(collect(accepted).texts(), [FakeModel::greedy("accepted", 8)]);
    assert_eq!(test.handle.readiness(), Readiness::NotReady("stopped".to_owned()));
}

#[test]
fn what_is_not_finished_within_the_grace_is_told_that_the_engine_stopped() {
    let (hook, steps, leave) = gated();
    let test = engine(Config { max_running_sequences: 1, max_candidates: 1, ..config() }, 64, hook);
    let (running, waiting) = (submit(&test, request("running")), submit(&test, request("waiting")));
    next(&steps);
    let (engine, shared) = (test.engine, test.handle.clone());
    let stopping = std::thread::spawn(move || engine.shutdown(Duration::ZERO));
    // The step is let go only after the engine was told to stop.
    assert!(shared.shared().wait_until(PATIENCE, |state| state.stop));
    leave.send(Act::Compute).unwrap();
    assert!(!stopping.join().unwrap());
    assert_eq!(collect(running).error(), GenerationError::Stopped);
    assert_eq!(collect(waiting).error(), GenerationError::Stopped);
}

#[test]
fn nothing_is_accepted_until_the_model_is_loaded() {
    let (loaded, load) = channel::<Result<Loaded, String>>();
    let (engine, handle) = Engine::start(config(), move || load.recv().unwrap());
    assert_eq!(handle.readiness(), Readiness::NotReady("model loading".to_owned()));
    assert_eq!(handle.model(), None);
    let refusal = handle.submit(request("early")).unwrap_err();
    assert!(matches!(&refusal, Refusal::NotReady { reason, .. } if reason == "model loading"), "{refusal:?}");
    loaded.send(Ok(super::testing::loaded(FakeModel::new(64, Box::new(|_| Act::Compute))))).unwrap();
    assert_eq!(handle.wait_loaded(PATIENCE), Readiness::Ready);
    assert_eq!(handle.model().unwrap().id, "fake");
    assert_eq!(collect(handle.submit(request("now")).unwrap()).texts(), [FakeModel::greedy("now", 8)]);
    drop(engine);
}

#[test]
fn a_failed_load_is_told_and_stays() {
    let (engine, handle) = Engine::start(config(), || Err("the file is truncated".to_owned()));
    let told = Readiness::NotReady("the model could not be loaded: the file is truncated".to_owned());
    assert_eq!(handle.wait_loaded(PATIENCE), told);
    assert!(matches!(handle.submit(request("x")), Err(Refusal::NotReady { .. })));
    assert!(engine.shutdown(PATIENCE));
    assert_eq!(handle.readiness(), told);
    let (_engine, handle) = Engine::start(config(), || panic!("as asked"));
    let told = Readiness::NotReady("the model could not be loaded: the loader panicked: as asked".to_owned());
    assert_eq!(handle.wait_loaded(PATIENCE), told);
}

#[test]
fn a_step_that_lasts_too_long_is_a_stall_and_a_busy_engine_is_ready() {
    let (hook, steps, leave) = gated();
    let test = engine_with_clock(config(), 64, ManualClock::new(), hook);
    let slow = submit(&test, request("slow"));
    next(&steps);
    test.clock.advance(Duration::from_secs(30));
    assert_eq!(test.handle.readiness(), Readiness::Ready, "busy, and no more");
    test.clock.advance(Duration::from_secs(5));
    assert_eq!(test.handle.readiness(), Readiness::NotReady("engine stalled for 35 s".to_owned()));
    assert!(matches!(test.handle.submit(request("x")), Err(Refusal::NotReady { .. })));
    leave.send(Act::Compute).unwrap();
    next(&steps);
    assert_eq!(test.handle.readiness(), Readiness::Ready);
    drop(leave);
    assert_eq!(collect(slow).texts(), [FakeModel::greedy("slow", 8)]);
}

#[test]
fn text_comes_as_it_is_written() {
    let (hook, steps, leave) = gated();
    let test = engine(config(), 64, hook);
    let mut generation = submit(&test, candidates("stream", 1, 3));
    let expected = FakeModel::greedy("stream", 3);
    next(&steps);
    leave.send(Act::Compute).unwrap();
    // The second step has not been let go, and yet the first text is there.
    assert!(matches!(generation.events.blocking_recv(),
        Some(GenerationEvent::Text { candidate: 0, delta }) if delta == expected[..1]));
    drop(leave);
    while generation.events.blocking_recv().is_some() {}
}

#[test]
fn a_crowd_is_answered_or_refused_and_everything_is_free_afterwards() {
    let config = Config { max_waiting_requests: 24, ..config() };
    let test = engine(config, 60, |_| Act::Compute);
    let outcomes: Vec<bool> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..64)
            .map(|i| {
                let handle = test.handle.clone();
                scope.spawn(move || match handle.submit(sampled(&format!("client {i} asks"), i)) {
                    Ok(generation) => {
                        assert_eq!(collect(generation).candidates.len(), 2);
                        true
                    }
                    Err(Refusal::QueueFull { .. }) => false,
                    Err(other) => panic!("{other:?}"),
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert!(outcomes.iter().any(|&answered| answered));
    assert!(test.engine.wait_idle(PATIENCE));
    assert_all_blocks_free(&test, 60);
}
