//! Small seeded random models, written as a GGUF file or as a Hugging Face folder, for logic tests.
//!
//! Both forms hold the same weights and the same vocabulary, so whatever reads them must agree.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use adquill::model::config::{Architecture, RopeScaling};
use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// A tensor: GGUF name, row-major shape (`[outputs, inputs]` or `[n]`), values.
pub type NamedTensor = (String, Vec<usize>, Vec<f32>);

/// ChatML, as the tiny models' chat template.
pub const CHATML: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + \
    message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// The control tokens, which stand after the bytes and the merges.
pub const CONTROL_TOKENS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// What to write. Change fields by struct update: `TinyModel { tied: true, ..TinyModel::new(arch, seed) }`.
#[derive(Debug, Clone)]
pub struct TinyModel {
    pub architecture: Architecture,
    pub seed: u64,
    pub n_layers: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub context_length: usize,
    pub rope_theta: f32,
    /// `Divisors` cannot be written as safetensors; GGUF stores `Llama3` as divisors.
    pub rope_scaling: RopeScaling,
    pub sliding_window: Option<usize>,
    /// No `output.weight`.
    pub tied: bool,
    /// Biases of q, k and v.
    pub attention_bias: bool,
}

impl TinyModel {
    /// Two layers of width 64 with grouped-query attention. Qwen2 has biases, qwen3 a head wider than `hidden / heads`,
    /// llama and qwen2 an output head of their own, mistral and qwen3 a tied one.
    pub fn new(architecture: Architecture, seed: u64) -> Self {
        Self {
            architecture,
            seed,
            n_layers: 2,
            hidden_size: 64,
            intermediate_size: 96,
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: if architecture == Architecture::Qwen3 { 32 } else { 16 },
            context_length: 256,
            rope_theta: 10_000.0,
            rope_scaling: RopeScaling::None,
            sliding_window: None,
            tied: matches!(architecture, Architecture::Mistral | Architecture::Qwen3),
            attention_bias: architecture == Architecture::Qwen2,
        }
    }

    pub fn vocab_size(&self) -> usize {
        vocabulary().len()
    }

    /// The weights under GGUF's names, rows of q and k in Hugging Face's order ([`RopePairing::Halves`]).
    ///
    /// [`RopePairing::Halves`]: adquill::model::config::RopePairing::Halves
    pub fn tensors(&self) -> Vec<NamedTensor> {
        let (hidden, ffn) = (self.hidden_size, self.intermediate_size);
        let (q, kv) = (self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim);
        let mut tensors = vec![
            self.matrix("token_embd.weight", self.vocab_size(), hidden, 1.0),
            self.vector("output_norm.weight", hidden, 1.0),
        ];
        if !self.tied {
            tensors.push(self.matrix("output.weight", self.vocab_size(), hidden, 1.0));
        }
        for i in 0..self.n_layers {
            let name = |part: &str| format!("blk.{i}.{part}");
            let scale = |inputs: usize| 1.7 / (inputs as f32).sqrt();
            tensors.push(self.vector(&name("attn_norm.weight"), hidden, 1.0));
            tensors.push(self.matrix(&name("attn_q.weight"), q, hidden, scale(hidden)));
            tensors.push(self.matrix(&name("attn_k.weight"), kv, hidden, scale(hidden)));
            tensors.push(self.matrix(&name("attn_v.weight"), kv, hidden, scale(hidden)));
            tensors.push(self.matrix(&name("attn_output.weight"), hidden, q, scale(q)));
            if self.attention_bias {
                tensors.push(self.vector(&name("attn_q.bias"), q, 0.0));
                tensors.push(self.vector(&name("attn_k.bias"), kv, 0.0));
                tensors.push(self.vector(&name("attn_v.bias"), kv, 0.0));
            }
            if self.architecture == Architecture::Qwen3 {
                tensors.push(self.vector(&name("attn_q_norm.weight"), self.head_dim, 1.0));
                tensors.push(self.vector(&name("attn_k_norm.weight"), self.head_dim, 1.0));
            }
            tensors.push(self.vector(&name("ffn_norm.weight"), hidden, 1.0));
            tensors.push(self.matrix(&name("ffn_gate.weight"), ffn, hidden, scale(hidden)));
            tensors.push(self.matrix(&name("ffn_up.weight"), ffn, hidden, scale(hidden)));
            tensors.push(self.matrix(&name("ffn_down.weight"), hidden, ffn, scale(ffn)));
        }
        tensors
    }

    /// Writes one GGUF file; matrices as `dtype`, vectors as F32. The widths are multiples of 32, not of 256.
    pub fn write_gguf(&self, path: &Path, dtype: GgmlDType) {
        let metadata = self.gguf_metadata();
        let metadata: Vec<(&str, &gguf_file::Value)> = metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
        let tensors = self.gguf_tensors(dtype);
        let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, t)| (name.as_str(), t)).collect();
        let mut file = File::create(path).unwrap();
        gguf_file::write(&mut file, &metadata, &tensors).unwrap();
    }

    /// Writes a Hugging Face folder: `config.json`, `tokenizer.json`, `tokenizer_config.json`,
    /// `generation_config.json` and F32 weights in `shards` files, `model-00001-of-0000N.safetensors` and so on.
    pub fn write_safetensors(&self, dir: &Path, shards: usize) {
        let tensors: Vec<NamedTensor> =
            self.tensors().into_iter().map(|(name, shape, data)| (hugging_face_name(&name), shape, data)).collect();
        for (i, shard) in tensors.chunks(tensors.len().div_ceil(shards)).enumerate() {
            let map: std::collections::HashMap<String, Tensor> =
                shard.iter().map(|(name, shape, data)| (name.clone(), tensor(shape, data))).collect();
            let name = format!("model-{:05}-of-{shards:05}.safetensors", i + 1);
            candle_core::safetensors::save(&map, dir.join(name)).unwrap();
        }
        write_json(&dir.join("config.json"), &self.hugging_face_config());
        write_json(&dir.join("tokenizer.json"), &self.tokenizer_json());
        write_json(
            &dir.join("tokenizer_config.json"),
            &json!({"chat_template": CHATML, "eos_token": "<|im_end|>", "bos_token": null}),
        );
        write_json(&dir.join("generation_config.json"), &json!({"eos_token_id": [token_id("<|im_end|>")]}));
    }

    /// The vocabulary as Hugging Face's `tokenizer.json`.
    pub fn tokenizer_json(&self) -> Value {
        let vocab: BTreeMap<String, usize> = vocabulary().into_iter().enumerate().map(|(i, t)| (t, i)).collect();
        let added: Vec<Value> = CONTROL_TOKENS
            .iter()
            .map(|token| {
                json!({"id": vocab[*token], "content": token, "special": true, "normalized": false,
                    "single_word": false, "lstrip": false, "rstrip": false})
            })
            .collect();
        let byte_level = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
        let (normalizer, first) = if self.is_qwen() {
            let pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
            let split =
                json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
            (json!({"type": "NFC"}), split)
        } else {
            (Value::Null, json!({"type": "Digits", "individual_digits": true}))
        };
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [first, byte_level(!self.is_qwen())]},
            "post_processor": null, "decoder": byte_level(true),
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab,
                "merges": merges().iter().map(|(a, b)| format!("{a} {b}")).collect::<Vec<_>>()},
        })
    }

    fn is_qwen(&self) -> bool {
        matches!(self.architecture, Architecture::Qwen2 | Architecture::Qwen3)
    }

    fn matrix(&self, name: &str, outputs: usize, inputs: usize, scale: f32) -> NamedTensor {
        let mut rng = self.rng(name);
        let data = (0..outputs * inputs).map(|_| (rng.random::<f32>() * 2.0 - 1.0) * scale).collect();
        (name.to_owned(), vec![outputs, inputs], data)
    }

    fn vector(&self, name: &str, n: usize, around: f32) -> NamedTensor {
        let mut rng = self.rng(name);
        let data = (0..n).map(|_| around + (rng.random::<f32>() * 2.0 - 1.0) * 0.2).collect();
        (name.to_owned(), vec![n], data)
    }

    /// Each tensor has a generator of its own, so adding one does not change the others.
    fn rng(&self, name: &str) -> ChaCha8Rng {
        let hash = name.bytes().fold(self.seed, |h, b| h.wrapping_mul(0x100_0000_01b3).wrapping_add(u64::from(b) + 1));
        ChaCha8Rng::seed_from_u64(hash)
    }

    fn gguf_tensors(&self, dtype: GgmlDType) -> Vec<(String, QTensor)> {
        let permuted = matches!(self.architecture, Architecture::Llama | Architecture::Mistral);
        let mut tensors: Vec<NamedTensor> = self.tensors();
        if let Some(divisors) = self.rope_divisors() {
            tensors.push(("rope_freqs.weight".to_owned(), vec![divisors.len()], divisors));
        }
        tensors
            .into_iter()
            .map(|(name, shape, mut data)| {
                if permuted && (name.contains("attn_q.") || name.contains("attn_k.")) {
                    data = interleave_halves(&data, self.head_dim, data.len() / shape[0]);
                }
                let dtype = if shape.len() == 1 { GgmlDType::F32 } else { dtype };
                let quantized = QTensor::quantize(&tensor(&shape, &data), dtype).unwrap();
                (name, quantized)
            })
            .collect()
    }

    /// Llama 3's rule as one divisor per frequency, the way llama.cpp's converter writes it.
    fn rope_divisors(&self) -> Option<Vec<f32>> {
        let RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context_length } =
            self.rope_scaling
        else {
            if let RopeScaling::Divisors(divisors) = &self.rope_scaling {
                return Some(divisors.clone());
            }
            return None;
        };
        let original = original_context_length as f32;
        let divisor = |i: usize| {
            let exponent = (2 * i) as f32 / self.head_dim as f32;
            let wavelength = 2.0 * std::f32::consts::PI * self.rope_theta.powf(exponent);
            if wavelength < original / high_freq_factor {
                1.0
            } else if wavelength > original / low_freq_factor {
                factor
            } else {
                let smooth = (original / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
        };
        Some((0..self.head_dim / 2).map(divisor).collect())
    }

    fn gguf_metadata(&self) -> Vec<(String, gguf_file::Value)> {
        use gguf_file::Value as V;
        let arch = match self.architecture {
            Architecture::Mistral => "llama",
            other => other.as_str(),
        };
        let text = |s: &str| V::String(s.to_owned());
        let texts = |v: Vec<String>| V::Array(v.into_iter().map(V::String).collect());
        let number = |n: usize| V::U32(n as u32);
        let types =
            vocabulary().iter().map(|t| V::I32(if CONTROL_TOKENS.contains(&t.as_str()) { 3 } else { 1 })).collect();
        let mut metadata = vec![
            ("general.architecture".to_owned(), text(arch)),
            ("general.name".to_owned(), text("tiny")),
            (format!("{arch}.block_count"), number(self.n_layers)),
            (format!("{arch}.context_length"), number(self.context_length)),
            (format!("{arch}.embedding_length"), number(self.hidden_size)),
            (format!("{arch}.feed_forward_length"), number(self.intermediate_size)),
            (format!("{arch}.attention.head_count"), number(self.n_heads)),
            (format!("{arch}.attention.head_count_kv"), number(self.n_kv_heads)),
            (format!("{arch}.attention.key_length"), number(self.head_dim)),
            (format!("{arch}.attention.value_length"), number(self.head_dim)),
            (format!("{arch}.rope.dimension_count"), number(self.head_dim)),
            (format!("{arch}.rope.freq_base"), V::F32(self.rope_theta)),
            (format!("{arch}.attention.layer_norm_rms_epsilon"), V::F32(1e-5)),
            ("tokenizer.ggml.model".to_owned(), text("gpt2")),
            ("tokenizer.ggml.pre".to_owned(), text(if self.is_qwen() { "qwen2" } else { "smollm" })),
            ("tokenizer.ggml.tokens".to_owned(), texts(vocabulary())),
            ("tokenizer.ggml.token_type".to_owned(), V::Array(types)),
            ("tokenizer.ggml.merges".to_owned(), texts(merges().iter().map(|(a, b)| format!("{a} {b}")).collect())),
            ("tokenizer.ggml.eos_token_id".to_owned(), number(token_id("<|im_end|>"))),
            ("tokenizer.ggml.add_bos_token".to_owned(), V::Bool(false)),
            ("tokenizer.chat_template".to_owned(), text(CHATML)),
        ];
        if let Some(window) = self.sliding_window {
            metadata.push((format!("{arch}.attention.sliding_window"), number(window)));
        }
        if let RopeScaling::Linear { factor } = self.rope_scaling {
            metadata.push((format!("{arch}.rope.scaling.type"), text("linear")));
            metadata.push((format!("{arch}.rope.scaling.factor"), V::F32(factor)));
        }
        metadata
    }

    fn hugging_face_config(&self) -> Value {
        let rope_scaling = match &self.rope_scaling {
            RopeScaling::None => Value::Null,
            RopeScaling::Linear { factor } => json!({"type": "linear", "factor": factor}),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context_length } => json!({
                "rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor, "original_max_position_embeddings": original_context_length}),
            RopeScaling::Divisors(_) => panic!("config.json cannot say divisors"),
        };
        let mut config = json!({
            "model_type": self.architecture.as_str(), "hidden_act": "silu", "num_hidden_layers": self.n_layers,
            "hidden_size": self.hidden_size, "intermediate_size": self.intermediate_size,
            "num_attention_heads": self.n_heads, "num_key_value_heads": self.n_kv_heads, "head_dim": self.head_dim,
            "max_position_embeddings": self.context_length, "rms_norm_eps": 1e-5, "rope_theta": self.rope_theta,
            "rope_scaling": rope_scaling, "tie_word_embeddings": self.tied, "vocab_size": self.vocab_size(),
            "sliding_window": self.sliding_window, "attention_bias": self.attention_bias,
        });
        if self.is_qwen() {
            config["use_sliding_window"] = json!(self.sliding_window.is_some());
            config["max_window_layers"] = json!(0);
        }
        config
    }
}

/// The name of a token's place in the vocabulary.
pub fn token_id(token: &str) -> usize {
    vocabulary().iter().position(|t| t == token).unwrap()
}

/// 256 bytes, the products of the merges, the control tokens.
fn vocabulary() -> Vec<String> {
    let mut tokens: Vec<String> = (0..=255u8).map(|b| byte_char(b).to_string()).collect();
    tokens.extend(merges().iter().map(|(a, b)| format!("{a}{b}")));
    tokens.extend(CONTROL_TOKENS.map(str::to_owned));
    tokens
}

/// Merges of a few English and Chinese pieces; `Ġ` is a space.
fn merges() -> Vec<(String, String)> {
    let pairs = "Ġ t|h e|Ġt he|i n|Ġ a|e r|o n|r e|Ġ s|n d|Ġa nd|in g|a l|Ġ f|o r|Ġf or|e n|Ġ b|o u|y ou|t h|s t|Ċ Ċ|Ġ Ġ|å ¥|å¥ ½|ç ļ|çļ Ħ";
    pairs
        .split('|')
        .map(|pair| {
            let (a, b) = pair.split_once(' ').unwrap();
            (a.to_owned(), b.to_owned())
        })
        .collect()
}

/// GPT-2's printable stand-in for a byte.
fn byte_char(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        return char::from(byte);
    }
    let rank = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(256 + rank).unwrap()
}

/// Rows `[first half, second half]` of each head become pairs `(0, half), (1, half + 1), ...` side by side.
fn interleave_halves(data: &[f32], head_dim: usize, row: usize) -> Vec<f32> {
    let half = head_dim / 2;
    let mut out = Vec::with_capacity(data.len());
    for head in data.chunks(head_dim * row) {
        for i in 0..half {
            out.extend_from_slice(&head[i * row..(i + 1) * row]);
            out.extend_from_slice(&head[(half + i) * row..(half + i + 1) * row]);
        }
    }
    out
}

/// Hugging Face's name of a tensor.
pub fn hugging_face_name(name: &str) -> String {
    match name {
        "token_embd.weight" => return "model.embed_tokens.weight".to_owned(),
        "output.weight" => return "lm_head.weight".to_owned(),
        "output_norm.weight" => return "model.norm.weight".to_owned(),
        _ => {}
    }
    let mut parts = name.splitn(3, '.');
    let (_, layer, rest) = (parts.next(), parts.next().unwrap(), parts.next().unwrap());
    let (part, kind) = rest.rsplit_once('.').unwrap();
    let part = match part {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        other => panic!("no such part: {other}"),
    };
    format!("model.layers.{layer}.{part}.{kind}")
}

fn tensor(shape: &[usize], data: &[f32]) -> Tensor {
    Tensor::from_slice(data, shape, &Device::Cpu).unwrap()
}

fn write_json(path: &Path, value: &Value) {
    std::fs::write(path, serde_json::to_vec_pretty(value).unwrap()).unwrap();
}
