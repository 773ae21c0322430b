//! The decoder against candle-transformers on the same weights, and its promises about batches.

use std::collections::HashMap;

use adquill::model::config::{Architecture, DecoderConfig, RopePairing, RopeScaling};
use adquill::model::decoder::{Decoder, DecoderOptions, LoadError, Precision};
use adquill::model::gguf::Gguf;
use adquill::model::step::{BlockId, LogitsWanted, SequenceSlice, StepError, StepModel};
use adquill::model::weights::{WeightView, Weights, WeightsError};
use candle_core::quantized::{GgmlDType, gguf_file};
use candle_core::{DType, Device, Tensor};
use candle_nn::{Activation, VarBuilder};
use candle_transformers::models::{llama, mistral, quantized_llama, qwen2, qwen3};

use crate::support::memory_weights::MemoryWeights;
use crate::support::model::default_model;
use crate::support::tiny_model::{NamedTensor, TinyModel, hugging_face_name};

const EPS: f32 = 1e-5;

fn options(precision: Precision, n_blocks: usize) -> DecoderOptions {
    DecoderOptions { precision, threads: 2, block_size: 16, n_blocks }
}

fn config(tiny: &TinyModel) -> DecoderConfig {
    DecoderConfig {
        architecture: tiny.architecture,
        n_layers: tiny.n_layers,
        hidden_size: tiny.hidden_size,
        intermediate_size: tiny.intermediate_size,
        n_heads: tiny.n_heads,
        n_kv_heads: tiny.n_kv_heads,
        head_dim: tiny.head_dim,
        vocab_size: tiny.vocab_size(),
        context_length: tiny.context_length,
        rms_norm_eps: EPS,
        rope_theta: tiny.rope_theta,
        rope_pairing: RopePairing::Halves,
        rope_scaling: tiny.rope_scaling.clone(),
        sliding_window: tiny.sliding_window,
    }
}

fn decoder(tiny: &TinyModel, precision: Precision) -> Decoder {
    let weights = MemoryWeights::from_f32(tiny.tensors());
    Decoder::load(&config(tiny), &weights, options(precision, 64)).unwrap()
}

/// Tokens that look random, the same in every run.
fn tokens(n: usize, seed: u64, vocab: usize) -> Vec<u32> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 33) as usize % vocab
    };
    (0..n).map(|_| next() as u32).collect()
}

fn slice<'a>(tokens: &'a [u32], position: usize, blocks: &'a [BlockId], logits: LogitsWanted) -> SequenceSlice<'a> {
    SequenceSlice { tokens, position, blocks, logits }
}

/// Logits of every token of a sequence, run in one step.
fn all_logits(decoder: &mut Decoder, tokens: &[u32], blocks: &[BlockId]) -> Vec<f32> {
    let mut logits = Vec::new();
    decoder.forward(&[slice(tokens, 0, blocks, LogitsWanted::All)], &mut logits).unwrap();
    logits
}

fn argmax(row: &[f32]) -> u32 {
    row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0 as u32
}

fn max_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn var_builder(tensors: &[NamedTensor]) -> VarBuilder<'static> {
    let map: HashMap<String, Tensor> = tensors
        .iter()
        .map(|(name, shape, data)| {
            (hugging_face_name(name), Tensor::from_slice(data, shape.as_slice(), &Device::Cpu).unwrap())
        })
        .collect();
    VarBuilder::from_tensors(map, DType::F32, &Device::Cpu)
}

/// A model of candle's: tokens and their position to the last token's logits.
type Reference = Box<dyn FnMut(&[u32], usize) -> Vec<f32>>;

fn last_row(logits: &Tensor) -> Vec<f32> {
    logits.flatten_all().unwrap().to_vec1().unwrap()
}

fn batch_of_one(tokens: &[u32]) -> Tensor {
    Tensor::from_slice(tokens, (1, tokens.len()), &Device::Cpu).unwrap()
}

fn llama_config(tiny: &TinyModel) -> llama::Config {
    let rope_scaling = match tiny.rope_scaling {
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context_length } => {
            Some(llama::Llama3RopeConfig {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings: original_context_length,
                rope_type: llama::Llama3RopeType::Llama3,
            })
        }
        _ => None,
    };
    llama::Config {
        hidden_size: tiny.hidden_size,
        intermediate_size: tiny.intermediate_size,
        vocab_size: tiny.vocab_size(),
        num_hidden_layers: tiny.n_layers,
        num_attention_heads: tiny.n_heads,
        num_key_value_heads: tiny.n_kv_heads,
        use_flash_attn: false,
        rms_norm_eps: f64::from(EPS),
        rope_theta: tiny.rope_theta,
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling,
        max_position_embeddings: tiny.context_length,
        tie_word_embeddings: tiny.tied,
    }
}

fn llama_reference(config: llama::Config, vb: VarBuilder<'static>) -> Reference {
    let model = llama::Llama::load(vb, &config).unwrap();
    let mut cache = llama::Cache::new(true, DType::F32, &config, &Device::Cpu).unwrap();
    Box::new(move |tokens, position| last_row(&model.forward(&batch_of_one(tokens), position, &mut cache).unwrap()))
}

fn reference(tiny: &TinyModel) -> Reference {
    let mut tensors = tiny.tensors();
    if tiny.tied && tiny.architecture == Architecture::Mistral {
        // candle's mistral knows no tied head, so it gets the embeddings under the head's name as well.
        let (_, shape, data) = tensors[0].clone();
        tensors.push(("output.weight".to_owned(), shape, data));
    }
    let vb = var_builder(&tensors);
    let (rope_theta, rms_norm_eps) = (f64::from(tiny.rope_theta), f64::from(EPS));
    match tiny.architecture {
        Architecture::Llama => llama_reference(llama_config(tiny), vb),
        Architecture::Mistral => {
            let config = mistral::Config {
                vocab_size: tiny.vocab_size(),
                hidden_size: tiny.hidden_size,
                intermediate_size: tiny.intermediate_size,
                num_hidden_layers: tiny.n_layers,
                num_attention_heads: tiny.n_heads,
                head_dim: Some(tiny.head_dim),
                num_key_value_heads: tiny.n_kv_heads,
                hidden_act: Activation::Silu,
                max_position_embeddings: tiny.context_length,
                rms_norm_eps,
                rope_theta,
                sliding_window: None,
                use_flash_attn: false,
            };
            let mut model = mistral::Model::new(&config, vb).unwrap();
            Box::new(move |tokens, position| last_row(&model.forward(&batch_of_one(tokens), position).unwrap()))
        }
        Architecture::Qwen2 => {
            let mut model = qwen2::ModelForCausalLM::new(&qwen2_config(tiny), vb).unwrap();
            Box::new(move |tokens, position| last_row(&model.forward(&batch_of_one(tokens), position).unwrap()))
        }
        Architecture::Qwen3 => {
            let config = qwen3::Config {
                vocab_size: tiny.vocab_size(),
                hidden_size: tiny.hidden_size,
                intermediate_size: tiny.intermediate_size,
                num_hidden_layers: tiny.n_layers,
                num_attention_heads: tiny.n_heads,
                head_dim: tiny.head_dim,
                attention_bias: false,
                num_key_value_heads: tiny.n_kv_heads,
                max_position_embeddings: tiny.context_length,
                sliding_window: None,
                max_window_layers: 0,
                tie_word_embeddings: tiny.tied,
                rope_theta,
                rms_norm_eps,
                use_sliding_window: false,
                hidden_act: Activation::Silu,
            };
            let mut model = qwen3::ModelForCausalLM::new(&config, vb).unwrap();
            Box::new(move |tokens, position| last_row(&model.forward(&batch_of_one(tokens), position).unwrap()))
        }
    }
}

fn qwen2_config(tiny: &TinyModel) -> qwen2::Config {
    qwen2::Config {
        vocab_size: tiny.vocab_size(),
        hidden_size: tiny.hidden_size,
        intermediate_size: tiny.intermediate_size,
        num_hidden_layers: tiny.n_layers,
        num_attention_heads: tiny.n_heads,
        num_key_value_heads: tiny.n_kv_heads,
        max_position_embeddings: tiny.context_length,
        sliding_window: tiny.context_length,
        max_window_layers: 0,
        tie_word_embeddings: tiny.tied,
        rope_theta: f64::from(tiny.rope_theta),
        rms_norm_eps: f64::from(EPS),
        use_sliding_window: false,
        hidden_act: Activation::Silu,
    }
}

/// The norm of the difference, against the norm of `b`.
fn relative_difference(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let error: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    (error / b.iter().map(|&b| square(b)).sum::<f64>()).sqrt()
}

/// Greedy decoding beside candle's model: same tokens, logits within 1e-3 at every step.
fn agrees_with_candle(tiny: &TinyModel) {
    let mut ours = decoder(tiny, Precision::F32);
    let mut theirs = reference(tiny);
    let blocks: Vec<BlockId> = (0..16).rev().collect();
    let mut input = tokens(37, tiny.seed, tiny.vocab_size());
    let mut position = 0;
    let mut logits = Vec::new();
    for step in 0..64 {
        ours.forward(&[slice(&input, position, &blocks, LogitsWanted::Last)], &mut logits).unwrap();
        let expected = theirs(&input, position);
        let difference = max_difference(&logits, &expected);
        assert!(difference < 1e-3, "{:?}, step {step}: logits differ by {difference}", tiny.architecture);
        assert_eq!(argmax(&logits), argmax(&expected), "{:?}, step {step}", tiny.architecture);
        position += input.len();
        input = vec![argmax(&logits)];
    }
}

#[test]
fn small_models_of_every_architecture_agree_with_candle() {
    use Architecture::{Llama, Mistral, Qwen2, Qwen3};
    for (architecture, seed) in [(Llama, 1), (Mistral, 2), (Qwen2, 3), (Qwen3, 4)] {
        for tied in [false, true] {
            agrees_with_candle(&TinyModel { tied, ..TinyModel::new(architecture, seed) });
        }
    }
}

#[test]
fn llama3_rope_scaling_and_odd_widths_agree_with_candle() {
    let rope_scaling =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context_length: 64 };
    agrees_with_candle(&TinyModel { rope_scaling, ..TinyModel::new(Architecture::Llama, 5) });
    // Neither a multiple of 32 nor of the kernels' columns; one KV head for all.
    let odd = TinyModel {
        hidden_size: 60,
        intermediate_size: 75,
        n_heads: 3,
        n_kv_heads: 1,
        head_dim: 20,
        ..TinyModel::new(Architecture::Llama, 6)
    };
    agrees_with_candle(&odd);
}

#[test]
fn a_sliding_window_forgets_what_lies_before_it() {
    let tiny = TinyModel { n_layers: 1, sliding_window: Some(20), ..TinyModel::new(Architecture::Mistral, 7) };
    let mut windowed = decoder(&tiny, Precision::F32);
    let blocks: Vec<BlockId> = (0..8).collect();
    let vocab = tiny.vocab_size();
    let mut text = tokens(100, 8, vocab);
    let before = all_logits(&mut windowed, &text, &blocks);
    text[79] = (text[79] + 1) % vocab as u32;
    let after = all_logits(&mut windowed, &text, &blocks);
    let row = |logits: &[f32], i: usize| logits[i * vocab..(i + 1) * vocab].to_vec();
    assert_ne!(row(&before, 98), row(&after, 98), "position 79 is the last of 20 that 98 sees");
    assert_eq!(row(&before, 99), row(&after, 99), "99 no longer sees position 79");
}

/// Every token's logits of a sequence run alone and in one piece.
fn alone(tiny: &TinyModel, precision: Precision, text: &[u32]) -> Vec<f32> {
    all_logits(&mut decoder(tiny, precision), text, &[0, 1, 2, 3, 4, 5, 6, 7])
}

#[test]
fn a_row_is_bit_equal_alone_and_in_a_ragged_batch_however_its_prompt_is_chunked() {
    for architecture in [Architecture::Llama, Architecture::Qwen3] {
        for precision in [Precision::Packed, Precision::F32] {
            let tiny = TinyModel::new(architecture, 11);
            let vocab = tiny.vocab_size();
            let texts: Vec<Vec<u32>> = (0..5).map(|i| tokens(40 + 13 * i, 20 + i as u64, vocab)).collect();
            let expected: Vec<Vec<f32>> = texts.iter().map(|t| alone(&tiny, precision, t)).collect();
            let mut batched = decoder(&tiny, precision);
            // Blocks of the sequences are interleaved, in reverse.
            let blocks: Vec<Vec<BlockId>> = (0..5).map(|i| (0..8).map(|b| 63 - (b * 5 + i)).collect()).collect();
            let mut done = [0; 5];
            let mut logits = Vec::new();
            for step in 0.. {
                // Chunks of 1 to 17 tokens; a sequence sits out every third step.
                let parts: Vec<(usize, usize)> = (0..5)
                    .filter(|i| (step + i) % 3 != 0 && done[*i] < texts[*i].len())
                    .map(|i| (i, (1 + (step * 7 + i * 5) % 17).min(texts[i].len() - done[i])))
                    .collect();
                if done.iter().zip(&texts).all(|(d, t)| *d == t.len()) {
                    break;
                }
                let batch: Vec<SequenceSlice<'_>> = parts
                    .iter()
                    .map(|&(i, n)| slice(&texts[i][done[i]..done[i] + n], done[i], &blocks[i], LogitsWanted::All))
                    .collect();
                batched.forward(&batch, &mut logits).unwrap();
                let mut rows = logits.chunks_exact(vocab);
                for (i, n) in parts {
                    for position in done[i]..done[i] + n {
                        assert_eq!(rows.next().unwrap(), &expected[i][position * vocab..(position + 1) * vocab]);
                    }
                    done[i] += n;
                }
                assert!(rows.next().is_none());
            }
        }
    }
}

#[test]
fn only_wanted_rows_are_returned_in_the_order_of_the_slices() {
    let tiny = TinyModel::new(Architecture::Qwen2, 12);
    let vocab = tiny.vocab_size();
    let text = tokens(20, 1, vocab);
    let expected = alone(&tiny, Precision::Packed, &text);
    let mut model = decoder(&tiny, Precision::Packed);
    let mut logits = vec![1.0; 7];
    let batch = [
        slice(&text, 0, &[1, 2], LogitsWanted::None),
        slice(&text, 0, &[3, 4], LogitsWanted::Last),
        slice(&text[..3], 0, &[5], LogitsWanted::All),
    ];
    model.forward(&batch, &mut logits).unwrap();
    assert_eq!(logits.len(), 4 * vocab);
    assert_eq!(logits[..vocab], expected[19 * vocab..]);
    assert_eq!(logits[vocab..], expected[..3 * vocab]);
    model.forward(&[], &mut logits).unwrap();
    assert!(logits.is_empty());
}

#[test]
fn a_copied_block_continues_a_sequence_like_the_original() {
    for precision in [Precision::Packed, Precision::F32] {
        let tiny = TinyModel::new(Architecture::Llama, 13);
        let text = tokens(30, 2, tiny.vocab_size());
        let mut model = decoder(&tiny, precision);
        let mut logits = Vec::new();
        model.forward(&[slice(&text[..25], 0, &[0, 1], LogitsWanted::None)], &mut logits).unwrap();
        model.copy_block(1, 9);
        model.copy_block(1, 1000);
        let batch =
            [slice(&text[25..], 25, &[0, 1], LogitsWanted::All), slice(&text[25..], 25, &[0, 9], LogitsWanted::All)];
        model.forward(&batch, &mut logits).unwrap();
        let (original, copy) = logits.split_at(logits.len() / 2);
        assert_eq!(original, copy);
    }
}

#[test]
fn bad_slices_are_refused_and_the_cache_stays_usable() {
    let tiny = TinyModel::new(Architecture::Llama, 14);
    let vocab = tiny.vocab_size();
    let text = tokens(20, 3, vocab);
    let mut model = decoder(&tiny, Precision::Packed);
    let mut logits = Vec::new();
    let long: Vec<BlockId> = (0..17).collect();
    let mut error = |tokens: &[u32], position, blocks: &[BlockId]| {
        model.forward(&[slice(tokens, position, blocks, LogitsWanted::Last)], &mut logits).unwrap_err()
    };
    assert!(matches!(error(&[], 0, &[0]), StepError::EmptySlice));
    assert!(matches!(error(&text, 0, &[0]), StepError::TooFewBlocks { needed: 2, given: 1, .. }));
    assert!(matches!(error(&text, 0, &[0, 64]), StepError::NoSuchBlock { block: 64, n_blocks: 64 }));
    assert!(matches!(error(&text, 240, &long), StepError::ContextExceeded { context_length: 256, .. }));
    assert!(matches!(error(&text, usize::MAX, &long), StepError::ContextExceeded { .. }));
    assert!(matches!(error(&[vocab as u32], 0, &[0]), StepError::TokenOutOfRange { .. }));
    let after = all_logits(&mut model, &text, &[0, 1]);
    assert_eq!(after, alone(&tiny, Precision::Packed, &text));
}

#[test]
fn a_value_that_is_not_a_number_fails_the_step_and_does_not_leak_into_reused_blocks() {
    for precision in [Precision::Packed, Precision::F32] {
        let tiny = TinyModel::new(Architecture::Llama, 15);
        let mut weights = MemoryWeights::from_f32(tiny.tensors());
        // Only token 7 has a great first coordinate, and the last norm turns that into an infinite one.
        let row = tiny.hidden_size * 4;
        let embeddings = &mut weights.0.get_mut("token_embd.weight").unwrap().2;
        for (i, x) in embeddings.chunks_exact_mut(row).enumerate() {
            x[..4].copy_from_slice(&(if i == 7 { 1e6f32 } else { 0.0 }).to_le_bytes());
        }
        // The second layer sees NaN: infinity times zero in its norm's outputs.
        weights.0.get_mut("blk.0.attn_norm.weight").unwrap().2[..4].copy_from_slice(&3e38f32.to_le_bytes());
        let mut model = Decoder::load(&config(&tiny), &weights, options(precision, 8)).unwrap();
        let (good, bad) = (tokens(20, 4, 7), vec![7u32; 30]);
        let expected = all_logits(&mut model, &good, &[4, 5]);
        let mut logits = Vec::new();
        let result = model.forward(&[slice(&bad, 0, &[0, 1], LogitsWanted::Last)], &mut logits);
        assert!(matches!(result, Err(StepError::NotANumber)), "{precision:?}");
        assert!(logits.is_empty());
        assert_eq!(all_logits(&mut model, &good, &[0, 1]), expected, "{precision:?}: reused blocks");
    }
}

#[test]
fn hostile_weights_and_options_end_in_clear_errors() {
    let tiny = TinyModel::new(Architecture::Qwen2, 16);
    let good = MemoryWeights::from_f32(tiny.tensors());
    let load = |weights: &MemoryWeights, options| Decoder::load(&config(&tiny), weights, options).err().unwrap();
    let usual = options(Precision::Packed, 8);

    let mut weights = good.clone();
    weights.0.remove("blk.1.ffn_up.weight");
    assert_eq!(load(&weights, usual).to_string(), "tensor blk.1.ffn_up.weight is missing");
    let mut weights = good.clone();
    weights.0.remove("blk.0.attn_k.bias");
    assert!(matches!(load(&weights, usual), LoadError::Weights(WeightsError::Missing { .. })));
    let mut weights = good.clone();
    weights.0.get_mut("output_norm.weight").unwrap().0 = vec![63];
    assert!(matches!(load(&weights, usual), LoadError::Weights(WeightsError::Shape { .. })));
    let mut weights = good.clone();
    weights.0.get_mut("output.weight").unwrap().2.pop();
    assert!(matches!(load(&weights, usual), LoadError::Weights(WeightsError::Shape { .. })));
    for bad in [f32::NAN, f32::INFINITY] {
        let mut weights = good.clone();
        weights.0.get_mut("blk.1.attn_v.weight").unwrap().2[..4].copy_from_slice(&bad.to_le_bytes());
        for precision in [Precision::Packed, Precision::F32] {
            let error = load(&weights, options(precision, 8)).to_string();
            assert_eq!(error, "tensor blk.1.attn_v.weight holds a value that is not finite (NaN or infinity)");
        }
    }
    // A quantized tensor with an infinite scale.
    let mut weights = good.clone();
    let (n, k) = (tiny.hidden_size, tiny.intermediate_size);
    let mut blocks = vec![0u8; n * k / 32 * 20];
    blocks[20 * 3..][..2].copy_from_slice(&0x7c00u16.to_le_bytes());
    weights.0.insert("blk.0.ffn_down.weight".to_owned(), (vec![n, k], GgmlDType::Q4_1, blocks));
    assert!(matches!(load(&weights, usual), LoadError::Weights(WeightsError::NotFinite { .. })));

    assert!(matches!(load(&good, DecoderOptions { block_size: 24, ..usual }), LoadError::BlockSize { given: 24 }));
    assert!(matches!(load(&good, DecoderOptions { threads: 0, ..usual }), LoadError::Threads { .. }));
    let huge = DecoderOptions { n_blocks: usize::MAX, ..usual };
    assert!(matches!(load(&good, huge), LoadError::CacheTooLarge { .. }));
}

/// The default model's file.
/// A file's tensors as `f32`, with q and k rows back in Hugging Face's order.
fn dequantized(gguf: &Gguf, config: &DecoderConfig) -> Vec<NamedTensor> {
    let names: Vec<String> = gguf.tensors().map(|(name, _)| name.to_owned()).collect();
    let read = |name: String| {
        let WeightView { shape, dtype, bytes } = gguf.view(&name).unwrap();
        let tensor =
            candle_core::quantized::ggml_file::qtensor_from_ggml(dtype, bytes, shape.clone(), &Device::Cpu).unwrap();
        let data: Vec<f32> = last_row(&tensor.dequantize(&Device::Cpu).unwrap());
        let permuted = name.contains("attn_q.") || name.contains("attn_k.");
        let data = if permuted { halves(&data, config.head_dim, shape[1]) } else { data };
        (name, shape, data)
    };
    names.into_iter().map(read).collect()
}

/// Rows `(0, 1), (2, 3), ...` of each head to `(0, d/2), (1, d/2 + 1), ...`.
fn halves(data: &[f32], head_dim: usize, width: usize) -> Vec<f32> {
    let mut out = vec![0.0; data.len()];
    let heads = data.chunks_exact(head_dim * width).zip(out.chunks_exact_mut(head_dim * width));
    for (from, to) in heads {
        for i in 0..head_dim {
            let target = i / 2 + i % 2 * (head_dim / 2);
            to[target * width..][..width].copy_from_slice(&from[i * width..][..width]);
        }
    }
    out
}

#[test]
fn the_real_model_in_f32_says_what_candle_says_for_64_tokens_on_20_prompts() {
    let gguf = Gguf::open(&default_model()).unwrap();
    let config = gguf.decoder_config().unwrap();
    let vocab = config.vocab_size;
    let mut ours = Decoder::load(&config, &gguf, options(Precision::F32, 20 * 8)).unwrap();
    let mut texts: Vec<Vec<u32>> = (0..20).map(|i| tokens(8 + i * 2, 100 + i as u64, vocab)).collect();
    let prompts: Vec<usize> = texts.iter().map(Vec::len).collect();
    let blocks: Vec<Vec<BlockId>> = (0..20).map(|i| (i * 8..i * 8 + 8).collect()).collect();
    let mut done = [0; 20];
    let mut rows: Vec<Vec<f32>> = vec![Vec::new(); 20];
    let mut logits = Vec::new();
    for _ in 0..64 {
        let batch: Vec<SequenceSlice<'_>> =
            (0..20).map(|i| slice(&texts[i][done[i]..], done[i], &blocks[i], LogitsWanted::Last)).collect();
        ours.forward(&batch, &mut logits).unwrap();
        for (i, row) in logits.chunks_exact(vocab).enumerate() {
            done[i] = texts[i].len();
            texts[i].push(argmax(row));
            rows[i].extend_from_slice(row);
        }
    }
    // candle's llama returns the last token's logits only; its qwen2 without biases is the same model and returns all
    // hidden states, so that one pass over a whole text checks its 64 greedy choices.
    let tensors = dequantized(&gguf, &config);
    let tiny = TinyModel {
        n_layers: config.n_layers,
        hidden_size: config.hidden_size,
        intermediate_size: config.intermediate_size,
        n_heads: config.n_heads,
        n_kv_heads: config.n_kv_heads,
        head_dim: config.head_dim,
        context_length: 256,
        rope_theta: config.rope_theta,
        tied: true,
        ..TinyModel::new(Architecture::Llama, 0)
    };
    let mut with_biases = tensors.clone();
    let (q, kv) = (config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim);
    for i in 0..config.n_layers {
        for (part, n) in [("q", q), ("k", kv), ("v", kv)] {
            with_biases.push((format!("blk.{i}.attn_{part}.bias"), vec![n], vec![0.0; n]));
        }
    }
    let qwen = qwen2::Config { vocab_size: vocab, ..qwen2_config(&tiny) };
    let mut hidden = qwen2::Model::new(&qwen, var_builder(&with_biases)).unwrap();
    let (_, shape, data) = tensors.iter().find(|(name, ..)| name == "token_embd.weight").unwrap();
    let head = Tensor::from_slice(data, shape.as_slice(), &Device::Cpu).unwrap().t().unwrap();
    for i in 0..20 {
        hidden.clear_kv_cache();
        let n = texts[i].len() - 1;
        let states = hidden.forward(&batch_of_one(&texts[i][..n]), 0, None).unwrap().squeeze(0).unwrap();
        let states = states.narrow(0, prompts[i] - 1, 64).unwrap();
        let expected = last_row(&states.matmul(&head).unwrap());
        let difference = max_difference(&rows[i], &expected);
        assert!(difference < 1e-3, "prompt {i}: logits differ by {difference}");
        for (step, row) in expected.chunks_exact(vocab).enumerate() {
            assert_eq!(argmax(row), texts[i][prompts[i] + step], "prompt {i}, token {step}");
        }
    }
    // And the llama implementation itself, step by step, on one prompt.
    let llama_config = llama::Config { vocab_size: vocab, ..llama_config(&tiny) };
    let mut llama = llama_reference(llama_config, var_builder(&tensors));
    let mut expected = llama(&texts[3][..prompts[3]], 0);
    for step in 0..64 {
        let position = prompts[3] + step;
        assert!(max_difference(&rows[3][step * vocab..(step + 1) * vocab], &expected) < 1e-3, "token {step}");
        assert_eq!(argmax(&expected), texts[3][position]);
        expected = llama(&texts[3][position..=position], position);
    }
}

#[test]
fn the_real_model_packed_is_as_close_to_f32_as_candles_quantized_llama() {
    let path = default_model();
    let gguf = Gguf::open(&path).unwrap();
    let config = gguf.decoder_config().unwrap();
    let vocab = config.vocab_size;
    let mut packed = Decoder::load(&config, &gguf, options(Precision::Packed, 8)).unwrap();
    let mut exact = Decoder::load(&config, &gguf, options(Precision::F32, 8)).unwrap();
    let mut file = std::fs::File::open(&path).unwrap();
    let content = gguf_file::Content::read(&mut file).unwrap();
    let mut stock = quantized_llama::ModelWeights::from_gguf(content, &mut file, &Device::Cpu).unwrap();
    let (mut ours, mut theirs, mut count) = (0.0, 0.0, 0.0);
    for seed in 0..4 {
        // What the model itself writes, as random tokens are nothing a model was made for.
        let mut text = tokens(4, 300 + seed, vocab);
        let (mut logits, mut position) = (Vec::new(), 0);
        while text.len() < 48 {
            let batch = [slice(&text[position..], position, &[2, 0, 1], LogitsWanted::Last)];
            exact.forward(&batch, &mut logits).unwrap();
            position = text.len();
            text.push(argmax(&logits));
        }
        let (a, b) = (all_logits(&mut packed, &text, &[2, 0, 1]), all_logits(&mut exact, &text, &[2, 0, 1]));
        stock.clear_kv_cache();
        for position in 0..text.len() {
            let row = position * vocab..(position + 1) * vocab;
            let stock_row = last_row(&stock.forward(&batch_of_one(&text[position..=position]), position).unwrap());
            ours += relative_difference(&a[row.clone()], &b[row.clone()]);
            theirs += relative_difference(&stock_row, &b[row]);
            count += 1.0;
        }
    }
    let (ours, theirs) = (ours / count, theirs / count);
    // Both round activations to 8 bits, which is nearly all of the difference.
    println!("mean relative difference from f32: packed {ours:.4}, candle's quantized llama {theirs:.4}");
    assert!(ours < 1.1 * theirs, "packed differs by {ours} from f32, candle's quantized llama by {theirs}");
    assert!(ours < 0.04, "packed differs by {ours} from f32");
}
