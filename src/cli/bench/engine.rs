//! `adquill bench`: how fast this machine runs a model, beside candle's own quantized llama in the same process.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};
use candle_core::quantized::gguf_file;
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;
use serde::Serialize;

use crate::model::decoder::{Decoder, DecoderOptions, Precision};
use crate::model::gguf::Gguf;
use crate::model::step::{BlockId, LogitsWanted, SequenceSlice, StepModel};

/// Tokens of the prompt before decoding is timed.
const PROMPT_TOKENS: usize = 128;
/// Tokens decoded per sequence while timed.
const NEW_TOKENS: usize = 64;
/// Tokens of the prompt whose prefill is timed.
const PREFILL_TOKENS: usize = 512;
/// Timed runs of each case, after one that warms up.
const RUNS: usize = 3;
const BLOCK_SIZE: usize = 16;

/// What `bench` prints as JSON.
#[derive(Debug, Serialize)]
pub struct Report {
    pub threads: usize,
    pub instruction_set: &'static str,
    pub load_seconds: f64,
    pub weights_bytes: usize,
    pub cases: Vec<Case>,
}

/// One case: tokens per second of all sequences together.
#[derive(Debug, Serialize)]
pub struct Case {
    pub name: &'static str,
    pub median_tokens_per_second: f64,
    pub lowest: f64,
    pub highest: f64,
    /// Against candle's case of the same kind.
    pub ratio_to_candle: f64,
}

/// Times candle and the decoder on one GGUF file by turns, and prints a table or JSON to `out`.
///
/// # Errors
/// When the file cannot be read or is no llama model, which is all that the stock implementation runs.
pub fn run(model: &Path, threads: usize, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let report = engine(model, threads)?;
    if json {
        serde_json::to_writer_pretty(&mut *out, &report)?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(
        out,
        "{} threads, {}, {:.1} MB of weights, loaded in {:.2} s",
        report.threads,
        report.instruction_set,
        report.weights_bytes as f64 / 1e6,
        report.load_seconds
    )?;
    writeln!(out, "{:24}{:>12}{:>20}{:>12}", "case", "tok/s", "lowest-highest", "x candle")?;
    for case in &report.cases {
        let spread = format!("{:.0}-{:.0}", case.lowest, case.highest);
        let (name, median) = (case.name, case.median_tokens_per_second);
        writeln!(out, "{name:24}{median:>12.1}{spread:>20}{:>12.2}", case.ratio_to_candle)?;
    }
    Ok(())
}

/// The engine's part: decoding and prefill without the service around it.
fn engine(path: &Path, threads: usize) -> anyhow::Result<Report> {
    // candle's kernels run on rayon's global pool, which is built once. If something built it before, its size stays.
    let mut candle = Stock::load(path)?;
    let gguf = Gguf::open(path).context("the model cannot be opened")?;
    let config = gguf.decoder_config().context("the model's hyperparameters cannot be read")?;
    let most = 16 * (PROMPT_TOKENS + NEW_TOKENS).div_ceil(BLOCK_SIZE);
    let n_blocks = most.max(PREFILL_TOKENS.div_ceil(BLOCK_SIZE));
    if config.context_length < PREFILL_TOKENS {
        bail!("the model's context of {} tokens is shorter than {PREFILL_TOKENS}", config.context_length);
    }
    let started = Instant::now();
    let options = DecoderOptions { precision: Precision::Packed, threads, block_size: BLOCK_SIZE, n_blocks };
    let mut ours = Decoder::load(&config, &gguf, options).context("the model cannot be loaded")?;
    let load_seconds = started.elapsed().as_secs_f64();
    let vocab = config.vocab_size as u32;

    const NAMES: [&str; 6] =
        ["candle decode, alone", "decode, alone", "decode, 4", "decode, 16", "candle prefill, 512", "prefill, 512"];
    let mut samples: [Vec<f64>; 6] = Default::default();
    for run in 0..=RUNS {
        let speeds = [
            candle.decode(vocab)?,
            decode(&mut ours, 1)?,
            decode(&mut ours, 4)?,
            decode(&mut ours, 16)?,
            candle.prefill(vocab)?,
            prefill(&mut ours)?,
        ];
        if run > 0 {
            samples.iter_mut().zip(speeds).for_each(|(s, speed)| s.push(speed));
        }
    }
    let medians = samples.each_mut().map(|s| {
        s.sort_by(f64::total_cmp);
        s[RUNS / 2]
    });
    let cases = (0..6)
        .map(|i| Case {
            name: NAMES[i],
            median_tokens_per_second: medians[i],
            lowest: samples[i][0],
            highest: samples[i][RUNS - 1],
            ratio_to_candle: medians[i] / medians[if i < 4 { 0 } else { 4 }],
        })
        .collect();
    let (instruction_set, weights_bytes) = (ours.instruction_set(), ours.weights_bytes());
    Ok(Report { threads, instruction_set, load_seconds, weights_bytes, cases })
}

/// Tokens that no two sequences share.
fn tokens(n: usize, sequence: usize, vocab: u32) -> Vec<u32> {
    (0..n).map(|i| (i * 7919 + sequence * 104_729 + 11) as u32 % vocab).collect()
}

fn argmax(row: &[f32]) -> u32 {
    let mut best = 0;
    for (i, x) in row.iter().enumerate() {
        if *x > row[best] {
            best = i;
        }
    }
    best as u32
}

/// Greedy decoding of `n` sequences at once.
fn decode(model: &mut Decoder, n: usize) -> anyhow::Result<f64> {
    let vocab = model.vocab_size();
    let each = (PROMPT_TOKENS + NEW_TOKENS).div_ceil(BLOCK_SIZE);
    let blocks: Vec<Vec<BlockId>> =
        (0..n).map(|i| (i * each..(i + 1) * each).map(|b| b as BlockId).collect()).collect();
    let mut logits = Vec::new();
    let mut next = Vec::new();
    for (i, blocks) in blocks.iter().enumerate() {
        let prompt = tokens(PROMPT_TOKENS, i, vocab as u32);
        let slice = SequenceSlice { tokens: &prompt, position: 0, blocks, logits: LogitsWanted::Last };
        model.forward(&[slice], &mut logits)?;
        next.push([argmax(&logits)]);
    }
    let started = Instant::now();
    for position in PROMPT_TOKENS..PROMPT_TOKENS + NEW_TOKENS {
        let batch: Vec<SequenceSlice<'_>> = next
            .iter()
            .zip(&blocks)
            .map(|(tokens, blocks)| SequenceSlice { tokens, position, blocks, logits: LogitsWanted::Last })
            .collect();
        model.forward(&batch, &mut logits)?;
        for (token, row) in next.iter_mut().zip(logits.chunks_exact(vocab)) {
            *token = [argmax(row)];
        }
    }
    Ok((n * NEW_TOKENS) as f64 / started.elapsed().as_secs_f64())
}

fn prefill(model: &mut Decoder) -> anyhow::Result<f64> {
    let prompt = tokens(PREFILL_TOKENS, 0, model.vocab_size() as u32);
    let blocks: Vec<BlockId> = (0..PREFILL_TOKENS.div_ceil(BLOCK_SIZE) as BlockId).collect();
    let mut logits = Vec::new();
    let started = Instant::now();
    let slice = SequenceSlice { tokens: &prompt, position: 0, blocks: &blocks, logits: LogitsWanted::Last };
    model.forward(&[slice], &mut logits)?;
    Ok(PREFILL_TOKENS as f64 / started.elapsed().as_secs_f64())
}

/// candle's quantized llama as it comes.
struct Stock {
    model: ModelWeights,
}

impl Stock {
    fn load(path: &Path) -> anyhow::Result<Self> {
        let mut file = File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
        let content = gguf_file::Content::read(&mut file)?;
        Ok(Self { model: ModelWeights::from_gguf(content, &mut file, &Device::Cpu)? })
    }

    fn step(&mut self, tokens: &[u32], position: usize) -> anyhow::Result<u32> {
        let input = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        Ok(argmax(&self.model.forward(&input, position)?.squeeze(0)?.to_vec1::<f32>()?))
    }

    fn decode(&mut self, vocab: u32) -> anyhow::Result<f64> {
        self.model.clear_kv_cache();
        let mut next = self.step(&tokens(PROMPT_TOKENS, 0, vocab), 0)?;
        let started = Instant::now();
        for position in PROMPT_TOKENS..PROMPT_TOKENS + NEW_TOKENS {
            next = self.step(&[next], position)?;
        }
        Ok(NEW_TOKENS as f64 / started.elapsed().as_secs_f64())
    }

    fn prefill(&mut self, vocab: u32) -> anyhow::Result<f64> {
        self.model.clear_kv_cache();
        let prompt = tokens(PREFILL_TOKENS, 0, vocab);
        let started = Instant::now();
        self.step(&prompt, 0)?;
        Ok(PREFILL_TOKENS as f64 / started.elapsed().as_secs_f64())
    }
}
