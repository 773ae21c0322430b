//! The engine's metrics: names, units and labels in one place. Labels are fixed words, so their number is bounded.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::request::{FinishReason, GenerationError, Refusal};

/// What a step left behind.
#[derive(Debug, Clone, Copy)]
pub struct StepFigures {
    pub batch_sequences: usize,
    pub waiting_requests: usize,
    pub running_sequences: usize,
    pub kv_blocks_used: usize,
    pub kv_blocks_total: usize,
}

/// Tells the recorder what the metrics mean. Call it once after the recorder is installed.
pub fn describe() {
    for (name, help) in [
        ("adquill_ttft_seconds", "From submission until a request's first token."),
        ("adquill_tpot_seconds", "Mean time for each token of a candidate after its first."),
        ("adquill_itl_seconds", "Between two successive tokens of a candidate."),
        ("adquill_queue_seconds", "From submission until the first step that worked on a request."),
        ("adquill_generation_seconds", "From submission until a request was done."),
        ("adquill_step_seconds", "One forward pass."),
    ] {
        describe_histogram!(name, Unit::Seconds, help);
    }
    describe_histogram!("adquill_batch_sequences", Unit::Count, "Sequences in a step.");
    for (name, help) in [
        ("adquill_requests_waiting", "Requests in the queue."),
        ("adquill_sequences_running", "Candidates in prefill or decoding."),
        ("adquill_kv_blocks_used", "KV cache blocks that sequences use."),
        ("adquill_kv_blocks_total", "KV cache blocks."),
    ] {
        describe_gauge!(name, Unit::Count, help);
    }
    for (name, help) in [
        ("adquill_prefix_cache_hit_tokens_total", "Prompt tokens found in the prefix cache."),
        ("adquill_prompt_tokens_total", "Prompt tokens of requests that started, cached ones included."),
        ("adquill_completion_tokens_total", "Tokens generated."),
        ("adquill_finish_total", "Candidates and requests that ended, by reason."),
        ("adquill_refusals_total", "Requests that were not accepted, by reason."),
        ("adquill_step_failures_total", "Steps that failed."),
    ] {
        describe_counter!(name, Unit::Count, help);
    }
}

pub(super) fn refused(refusal: &Refusal) {
    let reason = match refusal {
        Refusal::QueueFull { .. } => "queue_full",
        Refusal::NotReady { .. } => "not_ready",
        Refusal::Draining => "draining",
        Refusal::PromptTooLong { .. } => "prompt_too_long",
        Refusal::Prompt { .. } => "prompt",
    };
    counter!("adquill_refusals_total", "reason" => reason).increment(1);
}

pub(super) fn started(queue: Duration, prompt_tokens: usize) {
    histogram!("adquill_queue_seconds").record(queue);
    counter!("adquill_prompt_tokens_total").increment(prompt_tokens as u64);
}

pub(super) fn prefix_hit(tokens: usize) {
    counter!("adquill_prefix_cache_hit_tokens_total").increment(tokens as u64);
}

pub(super) fn first_token(ttft: Duration) {
    histogram!("adquill_ttft_seconds").record(ttft);
}

pub(super) fn token(since_the_last: Option<Duration>) {
    counter!("adquill_completion_tokens_total").increment(1);
    if let Some(gap) = since_the_last {
        histogram!("adquill_itl_seconds").record(gap);
    }
}

/// `decoding`: from the candidate's first token to its last of `tokens`.
pub(super) fn candidate_finished(reason: FinishReason, decoding: Duration, tokens: usize) {
    counter!("adquill_finish_total", "reason" => reason.as_str()).increment(1);
    if tokens > 1 {
        histogram!("adquill_tpot_seconds").record(decoding.as_secs_f64() / (tokens - 1) as f64);
    }
}

pub(super) fn request_done(total: Duration) {
    histogram!("adquill_generation_seconds").record(total);
}

pub(super) fn request_cancelled() {
    counter!("adquill_finish_total", "reason" => "cancelled").increment(1);
}

pub(super) fn request_failed(error: &GenerationError) {
    let reason = match error {
        GenerationError::DeadlinePassed { .. } => "deadline_passed",
        GenerationError::StepFailed => "step_failed",
        GenerationError::Stopped => "stopped",
    };
    counter!("adquill_finish_total", "reason" => reason).increment(1);
}

pub(super) fn step_failed() {
    counter!("adquill_step_failures_total").increment(1);
}

pub(super) fn step(figures: StepFigures, took: Duration) {
    histogram!("adquill_batch_sequences").record(figures.batch_sequences as f64);
    histogram!("adquill_step_seconds").record(took);
    levels(figures);
}

/// The gauges alone: also when the engine falls idle.
pub(super) fn levels(figures: StepFigures) {
    gauge!("adquill_requests_waiting").set(figures.waiting_requests as f64);
    gauge!("adquill_sequences_running").set(figures.running_sequences as f64);
    gauge!("adquill_kv_blocks_used").set(figures.kv_blocks_used as f64);
    gauge!("adquill_kv_blocks_total").set(figures.kv_blocks_total as f64);
}
