//! What the engine's tests share: a byte vocabulary, a small deterministic model, a manual clock, an event collector.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::config::Config;
use super::handle::{Engine, EngineHandle, Loaded};
use super::request::{
    Candidate, Generation, GenerationError, GenerationEvent, GenerationRequest, GenerationStats, ModelInfo, Priority,
};
use super::sampling::tests::greedy;
use super::shared::Clock;
use crate::model::chat::{ChatMessage, PromptError, Role, Vocabulary};
use crate::model::step::{BlockId, LogitsWanted, SequenceSlice, StepError, StepModel};

/// One token for each byte, an end token and a control token.
pub struct ByteVocabulary;

impl ByteVocabulary {
    pub const END: u32 = 256;
    pub const CONTROL: u32 = 257;
    pub const SIZE: usize = 258;
    const BYTES: [u8; 256] = {
        let mut bytes = [0; 256];
        let mut i = 0;
        while i < 256 {
            bytes[i] = i as u8;
            i += 1;
        }
        bytes
    };
}

impl Vocabulary for ByteVocabulary {
    fn encode_chat(&self, messages: &[ChatMessage], prefix: &str) -> Result<Vec<u32>, PromptError> {
        let text = messages.iter().map(|m| m.content.as_str()).chain([prefix]).collect::<String>();
        if text.contains("unrenderable") {
            return Err(PromptError { reason: "as asked".to_owned() });
        }
        Ok(text.bytes().map(u32::from).collect())
    }

    fn token_bytes(&self, token: u32) -> &[u8] {
        Self::BYTES.get(token as usize).map(std::slice::from_ref).unwrap_or_default()
    }

    fn is_end(&self, token: u32) -> bool {
        token == Self::END
    }

    fn is_control(&self, token: u32) -> bool {
        token == Self::END || token == Self::CONTROL
    }
}

/// What a step of the fake model does besides computing.
pub enum Act {
    Compute,
    Fail,
    Panic,
    /// Rows of NaN for the slice at this index.
    Poison(usize),
}

type Hook = Box<dyn FnMut(&[SequenceSlice<'_>]) -> Act + Send>;

/// Logits are a hash of all tokens that the sequence's blocks hold, so a wrong table or a missed copy shows.
pub struct FakeModel {
    slots: Vec<[Option<(u32, usize)>; FakeModel::BLOCK]>,
    pub log: Arc<Mutex<Vec<usize>>>,
    hook: Hook,
}

impl FakeModel {
    pub const BLOCK: usize = 4;
    pub const CONTEXT: usize = 256;

    pub fn new(n_blocks: usize, hook: Hook) -> Self {
        Self { slots: vec![[None; Self::BLOCK]; n_blocks], log: Arc::default(), hook }
    }

    /// The row after `context`: letters mostly, the end token seldom.
    pub fn row(context: &[u32]) -> Vec<f32> {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for &token in context {
            hash = (hash ^ u64::from(token)).wrapping_mul(0x0100_0000_01b3);
        }
        let mut row = vec![-20.0; ByteVocabulary::SIZE];
        for (i, letter) in (b'a'..=b'z').enumerate() {
            row[letter as usize] = ((hash >> (i % 48)) % 97) as f32 / 16.0;
        }
        row[ByteVocabulary::END as usize] = if hash.is_multiple_of(41) { 9.0 } else { -20.0 };
        row
    }

    /// What greedy decoding gives, computed without an engine.
    pub fn greedy(prompt: &str, max_new_tokens: usize) -> String {
        let mut context: Vec<u32> = prompt.bytes().map(u32::from).collect();
        let mut text = String::new();
        for _ in 0..max_new_tokens {
            let row = Self::row(&context);
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let token = row.iter().position(|&logit| logit == max).unwrap() as u32;
            if token == ByteVocabulary::END {
                break;
            }
            text.push(char::from(token as u8));
            context.push(token);
        }
        text
    }
}

impl StepModel for FakeModel {
    fn vocab_size(&self) -> usize {
        ByteVocabulary::SIZE
    }

    fn context_length(&self) -> usize {
        Self::CONTEXT
    }

    fn block_size(&self) -> usize {
        Self::BLOCK
    }

    fn n_blocks(&self) -> usize {
        self.slots.len()
    }

    fn forward(&mut self, batch: &[SequenceSlice<'_>], logits: &mut Vec<f32>) -> Result<(), StepError> {
        logits.clear();
        let act = (self.hook)(batch);
        match act {
            Act::Fail => return Err(StepError::NotANumber),
            Act::Panic => panic!("as asked"),
            Act::Compute | Act::Poison(_) => {}
        }
        self.log.lock().unwrap().push(batch.iter().map(|slice| slice.tokens.len()).sum());
        for slice in batch {
            for (i, &token) in slice.tokens.iter().enumerate() {
                let at = slice.position + i;
                self.slots[slice.blocks[at / Self::BLOCK] as usize][at % Self::BLOCK] = Some((token, at));
            }
        }
        for (index, slice) in batch.iter().enumerate() {
            let slot = |at: usize| self.slots[slice.blocks[at / Self::BLOCK] as usize][at % Self::BLOCK];
            let context: Vec<u32> = (0..slice.position + slice.tokens.len())
                .map(|at| match slot(at) {
                    Some((token, written)) if written == at => token,
                    // A slot that was never written, or for another position: a value no right context has.
                    _ => 99_999,
                })
                .collect();
            if slice.logits == LogitsWanted::Last {
                let poisoned = matches!(act, Act::Poison(slice) if slice == index);
                logits.extend(Self::row(&context).into_iter().map(|logit| if poisoned { f32::NAN } else { logit }));
            }
        }
        Ok(())
    }

    fn copy_block(&mut self, from: BlockId, to: BlockId) {
        self.slots[to as usize] = self.slots[from as usize];
    }
}

/// Goes only when it is told to.
#[derive(Clone)]
pub struct ManualClock(Arc<Mutex<Instant>>);

impl ManualClock {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub fn now(&self) -> Instant {
        *self.0.lock().unwrap()
    }

    pub fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }

    pub fn clock(&self) -> Clock {
        let clock = self.clone();
        Arc::new(move || clock.now())
    }
}

/// An engine over a fake model.
pub struct TestEngine {
    pub engine: Engine,
    pub handle: EngineHandle,
    pub clock: ManualClock,
    /// Tokens of each step.
    pub log: Arc<Mutex<Vec<usize>>>,
}

/// Starts an engine whose model has `n_blocks` and does in each step what `hook` says.
pub fn engine(
    config: Config,
    n_blocks: usize,
    hook: impl FnMut(&[SequenceSlice<'_>]) -> Act + Send + 'static,
) -> TestEngine {
    let clock = ManualClock::new();
    engine_with_clock(config, n_blocks, clock, hook)
}

pub fn engine_with_clock(
    config: Config,
    n_blocks: usize,
    clock: ManualClock,
    hook: impl FnMut(&[SequenceSlice<'_>]) -> Act + Send + 'static,
) -> TestEngine {
    let model = FakeModel::new(n_blocks, Box::new(hook));
    let log = Arc::clone(&model.log);
    let (engine, handle) = Engine::start_with_clock(config, clock.clock(), move || Ok(loaded(model)));
    handle.wait_loaded(PATIENCE);
    TestEngine { engine, handle, clock, log }
}

/// No test should ever wait so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn loaded(model: FakeModel) -> Loaded {
    let info = ModelInfo {
        id: "fake".to_owned(),
        architecture: "hash".to_owned(),
        quantization: "none".to_owned(),
        parameters: 0,
        context_length: FakeModel::CONTEXT,
        vocab_size: ByteVocabulary::SIZE,
        languages: Vec::new(),
        source: "test".to_owned(),
        sha256: String::new(),
    };
    Loaded { model: Box::new(model), vocabulary: Arc::new(ByteVocabulary), info }
}

/// A greedy request for one candidate of 8 tokens.
pub fn request(content: &str) -> GenerationRequest {
    GenerationRequest {
        messages: vec![ChatMessage { role: Role::User, content: content.to_owned() }],
        prefix: String::new(),
        candidates: 1,
        sampling: greedy(),
        priority: Priority::Interactive,
        deadline: None,
        cache_scope: 0,
    }
}

/// All that came of a request.
#[derive(Debug)]
pub struct Outcome {
    pub candidates: Vec<Candidate>,
    /// The texts of the deltas, joined, by candidate.
    pub streamed: Vec<String>,
    pub end: Option<Result<GenerationStats, GenerationError>>,
}

impl Outcome {
    pub fn texts(&self) -> Vec<&str> {
        self.candidates.iter().map(|candidate| candidate.text.as_str()).collect()
    }

    pub fn stats(&self) -> GenerationStats {
        self.end.clone().unwrap().unwrap()
    }

    pub fn error(&self) -> GenerationError {
        self.end.clone().unwrap().unwrap_err()
    }
}

/// Reads a request's events to their end; checks their order, and that deltas and texts agree.
pub fn collect(mut generation: Generation) -> Outcome {
    let mut outcome = Outcome { candidates: Vec::new(), streamed: Vec::new(), end: None };
    while let Some(event) = generation.events.blocking_recv() {
        assert!(outcome.end.is_none(), "{event:?} came after the last event");
        match event {
            GenerationEvent::Text { candidate, delta } => {
                assert!(!outcome.candidates.iter().any(|c| c.index == candidate), "text after the end");
                outcome.streamed.resize(outcome.streamed.len().max(candidate + 1), String::new());
                outcome.streamed[candidate].push_str(&delta);
            }
            GenerationEvent::Finished(candidate) => {
                let streamed = outcome.streamed.get(candidate.index).map_or("", String::as_str);
                assert_eq!(streamed, candidate.text);
                outcome.candidates.push(candidate);
            }
            GenerationEvent::Done(stats) => outcome.end = Some(Ok(stats)),
            GenerationEvent::Failed(error) => outcome.end = Some(Err(error)),
        }
    }
    outcome.candidates.sort_by_key(|candidate| candidate.index);
    outcome
}
