//! The scheduler by plain numbers, and its invariants under random traffic.

use proptest::prelude::*;

use super::*;

const KEY: CacheKey = CacheKey { model: 1, scope: 0 };

fn scheduler(n_blocks: usize, max_running_sequences: usize, step_token_budget: usize) -> Scheduler {
    let limits = SchedulerLimits { max_running_sequences, step_token_budget, block_size: 4 };
    Scheduler::new(limits, KvBlocks::new(n_blocks, true))
}

fn admission(id: u64, prompt: std::ops::Range<u32>, candidates: usize, max_new_tokens: usize) -> Admission {
    Admission { id: RequestId(id), prompt: prompt.collect(), candidates, max_new_tokens, cache_key: KEY }
}

/// Computes a plan: every candidate that has logits goes on with token 7.
fn step(scheduler: &mut Scheduler) -> Plan {
    let plan = scheduler.plan();
    scheduler.advance(&plan);
    plan
}

fn shape(plan: &Plan) -> Vec<(u64, Work, usize, usize)> {
    plan.slices.iter().map(|s| (s.request.0, s.work, s.position, s.tokens.len())).collect()
}

const PART: Work = Work::Prefill { last: false };
const LAST: Work = Work::Prefill { last: true };

#[test]
fn running_sequences_come_first_and_prompts_share_the_rest_of_the_budget() {
    let mut scheduler = scheduler(100, 8, 12);
    assert!(scheduler.admit(admission(1, 0..5, 2, 8)));
    step(&mut scheduler);
    assert!(scheduler.admit(admission(2, 100..130, 1, 8)));
    let decode = |candidate| Work::Decode { candidate };
    // 12 tokens: two decode; ten are left, of which eight fill whole blocks.
    assert_eq!(shape(&step(&mut scheduler)), [(1, decode(0), 5, 1), (1, decode(1), 5, 1), (2, PART, 0, 8)]);
    assert_eq!(shape(&step(&mut scheduler)), [(1, decode(0), 6, 1), (1, decode(1), 6, 1), (2, PART, 8, 8)]);
}

#[test]
fn the_last_chunk_ends_with_the_prompt() {
    let mut scheduler = scheduler(100, 8, 12);
    assert!(scheduler.admit(admission(1, 0..14, 1, 8)));
    assert_eq!(shape(&step(&mut scheduler)), [(1, PART, 0, 12)]);
    assert_eq!(shape(&step(&mut scheduler)), [(1, LAST, 12, 2)]);
    assert_eq!(shape(&step(&mut scheduler)), [(1, Work::Decode { candidate: 0 }, 14, 1)]);
}

#[test]
fn candidates_share_full_blocks_and_copy_the_last_partial_one() {
    let mut scheduler = scheduler(100, 8, 64);
    assert!(scheduler.admit(admission(1, 0..6, 3, 8)));
    step(&mut scheduler);
    assert_eq!(scheduler.kv().n_used(), 2, "one prompt, whatever the candidates");
    let plan = step(&mut scheduler);
    let tables: Vec<_> = plan.slices.iter().map(|slice| slice.blocks.clone()).collect();
    assert!(tables.iter().all(|table| table[0] == tables[0][0]));
    let last: HashSet<_> = tables.iter().map(|table| table[1]).collect();
    assert_eq!(last.len(), 3, "each writes into its own block");
    assert_eq!(plan.copies.len(), 2, "the last one to write needs no copy");
    assert_eq!(scheduler.kv().n_used(), 4);
}

#[test]
fn a_prompt_of_full_blocks_needs_no_copy() {
    let mut scheduler = scheduler(100, 8, 64);
    assert!(scheduler.admit(admission(1, 0..8, 3, 8)));
    step(&mut scheduler);
    assert_eq!(step(&mut scheduler).copies, []);
    assert_eq!(scheduler.kv().n_used(), 5);
}

#[test]
fn a_request_is_not_admitted_unless_all_it_can_need_is_free() {
    let mut scheduler = scheduler(6, 8, 64);
    // 4 prompt tokens in one block; 9 new ones need 8 slots, two more blocks.
    assert!(scheduler.admit(admission(1, 0..4, 1, 9)));
    assert!(!scheduler.admit(admission(2, 0..4, 2, 9)));
    assert!(scheduler.admit(admission(3, 0..4, 1, 9)));
    scheduler.remove(RequestId(1));
    assert!(!scheduler.admit(admission(2, 0..4, 2, 9)));
    scheduler.remove(RequestId(3));
    assert!(scheduler.admit(admission(2, 0..4, 2, 9)));
}

#[test]
fn no_more_sequences_run_than_may() {
    let mut scheduler = scheduler(100, 3, 64);
    assert!(scheduler.admit(admission(1, 0..4, 2, 2)));
    assert!(!scheduler.admit(admission(2, 0..4, 2, 2)));
    step(&mut scheduler);
    scheduler.finish(RequestId(1), 0);
    assert!(scheduler.admit(admission(2, 0..4, 2, 2)));
    assert_eq!(scheduler.running_sequences(), 3);
}

#[test]
fn a_later_prompt_that_begins_alike_adopts_full_blocks_but_never_the_last_token() {
    let mut scheduler = scheduler(100, 8, 64);
    assert!(scheduler.admit(admission(1, 0..12, 1, 4)));
    step(&mut scheduler);
    scheduler.finish(RequestId(1), 0);
    assert!(scheduler.is_idle());
    assert!(scheduler.admit(admission(2, 0..12, 1, 4)));
    let plan = step(&mut scheduler);
    assert_eq!(plan.cached, [(RequestId(2), 8)]);
    assert_eq!(shape(&plan), [(2, LAST, 8, 4)]);
}

#[test]
fn prompts_that_begin_alike_and_come_together_compute_their_beginning_once() {
    let mut scheduler = scheduler(100, 8, 64);
    for id in 1..=3 {
        let prompt: Vec<u32> = (0..8).chain([100 + id as u32, 200]).collect();
        assert!(scheduler.admit(Admission { prompt: prompt.into(), ..admission(id, 0..1, 1, 4) }));
    }
    assert_eq!(shape(&step(&mut scheduler)), [(1, LAST, 0, 10)]);
    let plan = step(&mut scheduler);
    assert_eq!(plan.cached, [(RequestId(2), 8), (RequestId(3), 8)]);
    assert_eq!(shape(&plan)[1..], [(2, LAST, 8, 2), (3, LAST, 8, 2)]);
}

#[test]
fn other_scopes_compute_the_same_beginning_themselves() {
    let mut scheduler = scheduler(100, 8, 64);
    assert!(scheduler.admit(admission(1, 0..12, 1, 4)));
    let other = CacheKey { model: 1, scope: 9 };
    assert!(scheduler.admit(Admission { cache_key: other, ..admission(2, 0..12, 1, 4) }));
    let plan = step(&mut scheduler);
    assert_eq!(shape(&plan), [(1, LAST, 0, 12), (2, LAST, 0, 12)]);
    assert_eq!(plan.cached, []);
}

#[test]
fn removal_in_prefill_frees_blocks_and_promises() {
    let mut scheduler = scheduler(20, 8, 8);
    assert!(scheduler.admit(admission(1, 0..30, 2, 8)));
    step(&mut scheduler);
    assert!(scheduler.kv().n_used() > 0);
    scheduler.remove(RequestId(1));
    assert_eq!((scheduler.kv().n_used(), scheduler.kv().n_reserved()), (0, 0));
    assert!(scheduler.is_idle());
}

#[test]
fn forgotten_prefixes_are_computed_again() {
    let mut scheduler = scheduler(100, 8, 8);
    assert!(scheduler.admit(admission(1, 0..12, 1, 4)));
    step(&mut scheduler);
    scheduler.forget_prefixes();
    step(&mut scheduler);
    assert!(scheduler.admit(admission(2, 0..12, 1, 4)));
    let plan = step(&mut scheduler);
    assert_eq!(plan.cached, []);
}

#[derive(Debug, Clone)]
enum Op {
    Admit { begins: u32, prompt: usize, candidates: usize, max_new: usize },
    Step,
    Finish { pick: usize },
    Remove { pick: usize },
    Forget,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0u32..3, 1usize..30, 1usize..5, 1usize..12)
            .prop_map(|(begins, prompt, candidates, max_new)| Op::Admit { begins, prompt, candidates, max_new }),
        8 => Just(Op::Step),
        2 => any::<usize>().prop_map(|pick| Op::Finish { pick }),
        1 => any::<usize>().prop_map(|pick| Op::Remove { pick }),
        1 => Just(Op::Forget),
    ]
}

/// What the test knows of a candidate: how many tokens it may still have.
struct Alive {
    id: RequestId,
    candidate: usize,
    left: usize,
}

proptest! {
    #[test]
    fn plans_keep_every_promise_under_random_traffic(ops in proptest::collection::vec(op(), 1..200)) {
        let mut scheduler = scheduler(24, 6, 9);
        // Content of the cache by slot, as a model would have it: (token, position).
        let mut cache = vec![[None::<(u32, usize)>; 4]; 24];
        let mut contexts: std::collections::HashMap<(RequestId, usize), Vec<u32>> = Default::default();
        let mut alive: Vec<Alive> = Vec::new();
        let mut next_id = 0;
        for op in ops {
            match op {
                Op::Admit { begins, prompt, candidates, max_new } => {
                    next_id += 1;
                    let id = RequestId(next_id);
                    let tokens: Vec<u32> = (0..prompt as u32).map(|i| begins * 100 + i).collect();
                    let admission =
                        Admission { id, prompt: tokens.clone().into(), candidates, max_new_tokens: max_new, cache_key: KEY };
                    if scheduler.admit(admission) {
                        for candidate in 0..candidates {
                            alive.push(Alive { id, candidate, left: max_new });
                            contexts.insert((id, candidate), tokens.clone());
                        }
                    }
                }
                Op::Step => {
                    let busy = !scheduler.is_idle();
                    let plan = scheduler.plan();
                    prop_assert!(plan.broken.is_empty());
                    prop_assert!(plan.tokens() <= 9 && (plan.tokens() > 0) == busy);
                    for &(from, to) in &plan.copies {
                        cache[to as usize] = cache[from as usize];
                    }
                    let mut written = HashSet::new();
                    for slice in &plan.slices {
                        for (i, &token) in slice.tokens.iter().enumerate() {
                            let at = slice.position + i;
                            let slot = (slice.blocks[at / 4], at % 4);
                            prop_assert!(written.insert(slot), "two sequences write into one slot");
                            cache[slot.0 as usize][slot.1] = Some((token, at));
                        }
                    }
                    // Every sequence finds its own tokens, and nobody else's, in the blocks it was given.
                    for slice in &plan.slices {
                        let candidate = if let Work::Decode { candidate } = slice.work { candidate } else { 0 };
                        if let Some(context) = contexts.get(&(slice.request, candidate)) {
                            for (at, &token) in context.iter().enumerate().take(slice.position + slice.tokens.len()) {
                                prop_assert_eq!(cache[slice.blocks[at / 4] as usize][at % 4], Some((token, at)));
                            }
                        }
                    }
                    scheduler.advance(&plan);
                    for slice in &plan.slices {
                        let forked: Vec<usize> = match slice.work {
                            Work::Prefill { last: false } => continue,
                            Work::Prefill { last: true } => {
                                alive.iter().filter(|a| a.id == slice.request).map(|a| a.candidate).collect()
                            }
                            Work::Decode { candidate } => vec![candidate],
                        };
                        for candidate in forked {
                            let index = alive.iter().position(|a| a.id == slice.request && a.candidate == candidate);
                            let Some(index) = index else { continue };
                            alive[index].left -= 1;
                            let token = 1000 * slice.request.0 as u32 + candidate as u32 * 100 + alive[index].left as u32;
                            contexts.entry((slice.request, candidate)).or_default().push(token);
                            scheduler.push_token(slice.request, candidate, token);
                            if alive[index].left == 0 {
                                alive.remove(index);
                                scheduler.finish(slice.request, candidate);
                            }
                        }
                    }
                }
                Op::Finish { pick } if !alive.is_empty() => {
                    // Only a candidate whose prompt is done may finish.
                    let at = pick % alive.len();
                    let (id, candidate) = (alive[at].id, alive[at].candidate);
                    if !scheduler.requests.iter().any(|r| r.id == id && r.is_prefilling()) {
                        alive.remove(at);
                        scheduler.finish(id, candidate);
                    }
                }
                Op::Remove { pick } if !alive.is_empty() => {
                    let id = alive[pick % alive.len()].id;
                    alive.retain(|a| a.id != id);
                    scheduler.remove(id);
                }
                Op::Forget => scheduler.forget_prefixes(),
                Op::Finish { .. } | Op::Remove { .. } => {}
            }
            prop_assert_eq!(scheduler.running_sequences(), alive.len());
            prop_assert!(alive.len() <= 6);
            prop_assert!(scheduler.kv().n_used() + scheduler.kv().n_reserved() <= 24);
        }
        let ids: Vec<_> = alive.iter().map(|a| a.id).collect();
        for id in ids {
            scheduler.remove(id);
        }
        prop_assert!(scheduler.is_idle());
        prop_assert_eq!((scheduler.kv().n_used(), scheduler.kv().n_reserved()), (0, 0));
        scheduler.forget_prefixes();
        prop_assert!(scheduler.admit(admission(u64::MAX, 0..96, 1, 1)), "all blocks can be had again");
    }
}
