//! Decides what the next step computes. Pure: no clock, no tensor, no text.
//!
//! Running sequences come first with one token each; the rest of the budget goes to prompts in the order in which they
//! were admitted. Admission reserves all that a request can ever need, so nothing is preempted and nothing deadlocks.

use std::collections::HashSet;
use std::sync::Arc;

use super::kv::KvBlocks;
use super::prefix::CacheKey;
use super::sequence::{Footprint, RequestId, RunningRequest};
use crate::model::step::BlockId;

/// What a step may hold.
#[derive(Debug, Clone, Copy)]
pub struct SchedulerLimits {
    pub max_running_sequences: usize,
    pub step_token_budget: usize,
    pub block_size: usize,
}

/// A request that asks to run.
#[derive(Debug, Clone)]
pub struct Admission {
    pub id: RequestId,
    /// Never empty.
    pub prompt: Arc<[u32]>,
    pub candidates: usize,
    pub max_new_tokens: usize,
    pub cache_key: CacheKey,
}

/// What a part of a step works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A chunk of the prompt; `last` when it ends the prompt, and then its last logits are wanted.
    Prefill { last: bool },
    /// One candidate's newest token; its logits are wanted.
    Decode { candidate: usize },
}

/// One sequence's part of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedSlice {
    pub request: RequestId,
    pub work: Work,
    pub tokens: Vec<u32>,
    pub position: usize,
    pub blocks: Vec<BlockId>,
}

/// One step.
#[derive(Debug, Default)]
pub struct Plan {
    /// To be done in order before the forward pass: `(from, to)`.
    pub copies: Vec<(BlockId, BlockId)>,
    pub slices: Vec<PlannedSlice>,
    /// Prompt tokens that the prefix cache spared, by request.
    pub cached: Vec<(RequestId, usize)>,
    /// Requests whose reservation fell short; empty unless the engine itself is wrong.
    pub broken: Vec<RequestId>,
}

impl Plan {
    /// Tokens that the step computes.
    pub fn tokens(&self) -> usize {
        self.slices.iter().map(|slice| slice.tokens.len()).sum()
    }
}

/// The running requests and their blocks.
#[derive(Debug)]
pub struct Scheduler {
    limits: SchedulerLimits,
    kv: KvBlocks,
    /// In the order of admission.
    requests: Vec<RunningRequest>,
}

impl Scheduler {
    pub fn new(limits: SchedulerLimits, kv: KvBlocks) -> Self {
        Self { limits, kv, requests: Vec::new() }
    }

    pub fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    pub fn kv(&self) -> &KvBlocks {
        &self.kv
    }

    /// Candidates that run, in prefill too.
    pub fn running_sequences(&self) -> usize {
        self.requests.iter().flat_map(|request| &request.sequences).filter(|sequence| !sequence.finished).count()
    }

    /// Lets a request in if sequences and blocks for all of it can be had; changes nothing otherwise.
    pub fn admit(&mut self, admission: Admission) -> bool {
        let Admission { id, prompt, candidates, max_new_tokens, cache_key } = admission;
        debug_assert!(!prompt.is_empty() && candidates > 0, "the door lets no empty request through");
        if self.running_sequences() + candidates > self.limits.max_running_sequences {
            return false;
        }
        let footprint = Footprint::new(prompt.len(), max_new_tokens, self.limits.block_size);
        if !self.kv.reserve(footprint.total(candidates)) {
            return false;
        }
        self.requests.push(RunningRequest::new(id, prompt, candidates, footprint, Some(cache_key)));
        true
    }

    /// The next step. Blocks are handed out as it is made, so every plan must be followed by [`Scheduler::advance`]
    /// or by the removal of its requests.
    pub fn plan(&mut self) -> Plan {
        let mut plan = Plan::default();
        self.plan_decode(&mut plan);
        self.plan_prefill(&mut plan);
        plan
    }

    /// The step was computed: positions move on, full prompt blocks are offered to others, finished prompts fork.
    pub fn advance(&mut self, plan: &Plan) {
        for slice in &plan.slices {
            let Some(request) = self.requests.iter_mut().find(|request| request.id == slice.request) else { continue };
            match slice.work {
                Work::Prefill { .. } => {
                    request.advance_prefill(slice.tokens.len(), self.limits.block_size, &mut self.kv);
                }
                Work::Decode { candidate } => request.sequences[candidate].position += slice.tokens.len(),
            }
        }
    }

    /// The candidate goes on with `token`.
    pub fn push_token(&mut self, id: RequestId, candidate: usize, token: u32) {
        if let Some(request) = self.requests.iter_mut().find(|request| request.id == id) {
            request.sequences[candidate].next = token;
        }
    }

    /// The candidate ended: its blocks are free at once, and its request is gone with its last candidate.
    pub fn finish(&mut self, id: RequestId, candidate: usize) {
        let Some(request) = self.requests.iter_mut().find(|request| request.id == id) else { return };
        let sequence = &mut request.sequences[candidate];
        sequence.finished = true;
        sequence.table.release(&mut self.kv);
        if request.sequences.iter().all(|sequence| sequence.finished) {
            self.remove(id);
        }
    }

    /// Drops a request, wherever it is, and frees its blocks.
    pub fn remove(&mut self, id: RequestId) {
        if let Some(index) = self.requests.iter().position(|request| request.id == id) {
            let mut request = self.requests.remove(index);
            request.release(&mut self.kv);
        }
    }

    /// Gives up all that is cached and not in use.
    pub fn forget_prefixes(&mut self) {
        self.kv.forget_prefixes();
        for request in &mut self.requests {
            // Its blocks are still good for itself; it only cannot be found by others any more.
            request.place = None;
        }
    }

    /// A block of nobody, for a step that belongs to no request.
    pub fn borrow_block(&mut self) -> Option<BlockId> {
        if self.kv.reserve(1) { self.kv.allocate() } else { None }
    }

    pub fn return_block(&mut self, block: BlockId) {
        self.kv.release(block);
    }

    fn plan_decode(&mut self, plan: &mut Plan) {
        let block_size = self.limits.block_size;
        for request in self.requests.iter_mut().filter(|request| !request.is_prefilling()) {
            for (candidate, sequence) in request.sequences.iter_mut().enumerate().filter(|(_, s)| !s.finished) {
                let position = sequence.position;
                let index = position / block_size;
                let owned = if index < sequence.table.blocks.len() {
                    sequence.table.own(index, &mut self.kv).map(|copy| plan.copies.extend(copy)).is_ok()
                } else {
                    sequence.table.grow_to(position + 1, block_size, &mut self.kv)
                };
                if !owned {
                    plan.broken.push(request.id);
                    break;
                }
                plan.slices.push(PlannedSlice {
                    request: request.id,
                    work: Work::Decode { candidate },
                    tokens: vec![sequence.next],
                    position,
                    blocks: sequence.table.blocks.clone(),
                });
            }
        }
    }

    fn plan_prefill(&mut self, plan: &mut Plan) {
        let block_size = self.limits.block_size;
        let mut budget = self.limits.step_token_budget.saturating_sub(plan.slices.len());
        // What this step computes already. Whoever needs the same waits for a step and then adopts it.
        let mut underway = HashSet::new();
        for request in self.requests.iter_mut().filter(|request| request.is_prefilling()) {
            if budget == 0 {
                break;
            }
            let spared = request.adopt_prefix(block_size, &mut self.kv);
            if spared > 0 {
                plan.cached.push((request.id, spared));
            }
            if let Some((place, tokens)) = request.next_block(block_size)
                && !underway.insert((place, tokens.to_vec()))
            {
                continue;
            }
            let end = chunk_end(request.computed, request.prompt.len(), budget, block_size);
            if !request.table.grow_to(end, block_size, &mut self.kv) {
                plan.broken.push(request.id);
                continue;
            }
            budget -= end - request.computed;
            plan.slices.push(PlannedSlice {
                request: request.id,
                work: Work::Prefill { last: end == request.prompt.len() },
                tokens: request.prompt[request.computed..end].to_vec(),
                position: request.computed,
                blocks: request.table.blocks.clone(),
            });
        }
    }
}

/// Where a chunk ends that starts at `start`: with the prompt or the budget, and then at a block's border if it can,
/// so that the next step may find its next block in the prefix cache.
fn chunk_end(start: usize, prompt: usize, budget: usize, block_size: usize) -> usize {
    if prompt - start <= budget {
        return prompt;
    }
    let end = start + budget;
    let aligned = end / block_size * block_size;
    if aligned > start { aligned } else { end }
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
