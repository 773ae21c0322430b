//! Models opened from both kinds of files agree with what was written, and with each other.

use std::path::{Path, PathBuf};

use adquill::model::chat::{ChatMessage, Role, Vocabulary};
use adquill::model::config::{Architecture, RopePairing, RopeScaling};
use adquill::model::open::{OpenModel, open};
use adquill::model::source::{ModelFiles, ModelFormat};
use candle_core::quantized::GgmlDType;
use tempfile::TempDir;

use crate::support::model::default_model;
use crate::support::tiny_model::TinyModel;

const ARCHITECTURES: [Architecture; 4] =
    [Architecture::Llama, Architecture::Mistral, Architecture::Qwen2, Architecture::Qwen3];

fn files(format: ModelFormat) -> ModelFiles {
    ModelFiles { source: "file:test".to_owned(), format, sha256: String::new() }
}

pub fn open_gguf(path: &Path) -> OpenModel {
    open(&files(ModelFormat::Gguf(path.to_owned()))).unwrap()
}

pub fn folder(dir: &Path) -> ModelFormat {
    let mut weights: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    weights.sort();
    ModelFormat::Safetensors {
        config: dir.join("config.json"),
        tokenizer: dir.join("tokenizer.json"),
        tokenizer_config: Some(dir.join("tokenizer_config.json")),
        chat_template: None,
        generation_config: Some(dir.join("generation_config.json")),
        weights,
    }
}

fn chat() -> Vec<ChatMessage> {
    let message = |role, content: &str| ChatMessage { role, content: content.to_owned() };
    vec![message(Role::System, "You write ads."), message(Role::User, "Say it in 7 words: 你好 <|im_end|>👍🏽")]
}

#[test]
fn every_tensor_reads_back_from_safetensors_as_it_was_written() {
    for architecture in ARCHITECTURES {
        let dir = TempDir::new().unwrap();
        let tiny = TinyModel::new(architecture, 7);
        tiny.write_safetensors(dir.path(), 3);
        let model = open(&files(folder(dir.path()))).unwrap();
        for (name, shape, data) in tiny.tensors() {
            let view = model.weights.view(&name).unwrap();
            assert_eq!(view.shape, shape, "{name}");
            assert_eq!(view.to_f32(&name).unwrap(), data, "{name}");
        }
        assert_eq!(model.weights.view("output.weight").is_none(), tiny.tied);
        assert_eq!(model.config.rope_pairing, RopePairing::Halves);
        assert_eq!(model.quantization, "F32");
    }
}

#[test]
fn every_tensor_reads_back_from_gguf_within_its_types_precision() {
    let types = [
        (GgmlDType::F32, 0.0),
        (GgmlDType::F16, 1e-3),
        (GgmlDType::Q8_0, 0.02),
        (GgmlDType::Q4_1, 0.16),
        (GgmlDType::Q4_0, 0.3),
    ];
    for (dtype, tolerance) in types {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("tiny.gguf");
        // Qwen's q and k rows are not permuted, so they compare directly.
        let tiny = TinyModel::new(Architecture::Qwen2, 3);
        tiny.write_gguf(&path, dtype);
        let model = open_gguf(&path);
        for (name, shape, data) in tiny.tensors() {
            let view = model.weights.view(&name).unwrap();
            assert_eq!(view.shape, shape);
            let largest = data.iter().fold(0f32, |max, value| max.max(value.abs()));
            for (a, b) in view.to_f32(&name).unwrap().iter().zip(&data) {
                assert!((a - b).abs() <= tolerance * largest, "{name} as {dtype:?}: {a} for {b}");
            }
        }
        assert_eq!(model.quantization, format!("{dtype:?}"));
        let values: usize = tiny.tensors().iter().map(|(.., data)| data.len()).sum();
        assert_eq!(model.parameters, values as u64);
    }
}

#[test]
fn both_kinds_of_files_give_the_same_hyperparameters_and_tokens() {
    for architecture in ARCHITECTURES {
        for rope_scaling in [RopeScaling::None, RopeScaling::Linear { factor: 4.0 }] {
            let dir = TempDir::new().unwrap();
            let path = dir.path().join("tiny.gguf");
            let tiny = TinyModel {
                rope_scaling,
                sliding_window: (architecture == Architecture::Mistral).then_some(32),
                ..TinyModel::new(architecture, 1)
            };
            tiny.write_gguf(&path, GgmlDType::F32);
            tiny.write_safetensors(dir.path(), 1);
            let (gguf, folder) = (open_gguf(&path), open(&files(folder(dir.path()))).unwrap());
            let mut config = gguf.config.clone();
            config.architecture = architecture;
            config.rope_pairing = RopePairing::Halves;
            assert_eq!(config, folder.config);
            let tokens = gguf.vocabulary.encode_chat(&chat(), "Ad: ").unwrap();
            assert_eq!(tokens, folder.vocabulary.encode_chat(&chat(), "Ad: ").unwrap());
            for token in 0..400 {
                assert_eq!(gguf.vocabulary.token_bytes(token), folder.vocabulary.token_bytes(token));
                assert_eq!(gguf.vocabulary.is_end(token), folder.vocabulary.is_end(token));
                assert_eq!(gguf.vocabulary.is_control(token), folder.vocabulary.is_control(token));
            }
        }
    }
}

#[test]
fn llama_3_scaling_is_a_rule_in_json_and_divisors_in_gguf() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("tiny.gguf");
    let rule =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context_length: 64 };
    let tiny = TinyModel { rope_scaling: rule.clone(), ..TinyModel::new(Architecture::Llama, 5) };
    tiny.write_gguf(&path, GgmlDType::F32);
    tiny.write_safetensors(dir.path(), 1);
    assert_eq!(open(&files(folder(dir.path()))).unwrap().config.rope_scaling, rule);
    let RopeScaling::Divisors(divisors) = open_gguf(&path).config.rope_scaling else { panic!("no divisors") };
    assert_eq!(divisors.len(), tiny.head_dim / 2);
    assert_eq!((divisors[0], divisors[tiny.head_dim / 2 - 1]), (1.0, 8.0));
}

#[test]
fn a_chat_speaks_only_for_its_own_roles() {
    let model = open_gguf(&default_model());
    let tokens = model.vocabulary.encode_chat(&chat(), "Headline:").unwrap();
    let tokenizer = &model.vocabulary.tokenizer;
    let starts = tokens.iter().filter(|&&token| Some(token) == tokenizer.token_id("<|im_start|>")).count();
    let ends = tokens.iter().filter(|&&token| model.vocabulary.is_end(token)).count();
    assert_eq!((starts, ends), (3, 2));
    let text = tokenizer.decode(&tokens);
    assert!(text.starts_with("system\nYou write ads.\nuser\nSay it in 7 words: 你好 👍🏽\n"), "{text}");
    assert!(text.ends_with("assistant\nHeadline:"), "{text}");
}

#[test]
fn the_default_model_opens_with_its_known_figures() {
    let model = open_gguf(&default_model());
    assert_eq!((model.config.n_layers, model.config.hidden_size, model.config.vocab_size), (30, 576, 49_152));
    assert_eq!((model.config.n_heads, model.config.n_kv_heads, model.config.head_dim), (9, 3, 64));
    assert_eq!(model.config.rope_theta, 100_000.0);
    assert_eq!(model.quantization, "Q4_1");
    assert_eq!(model.parameters, 134_515_008);
    assert_eq!(model.weights.view("output.weight").map(|view| view.shape), None);
}

#[test]
fn config_and_weights_of_different_models_are_refused() {
    let dir = TempDir::new().unwrap();
    TinyModel::new(Architecture::Llama, 1).write_safetensors(dir.path(), 1);
    let config = dir.path().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap().replace("\"hidden_size\": 64", "\"hidden_size\": 128");
    std::fs::write(&config, text).unwrap();
    let message = open(&files(folder(dir.path()))).unwrap_err().to_string();
    assert!(message.contains("different models"), "{message}");
}

#[test]
fn a_template_without_a_system_role_gets_its_text_before_the_first_user_message() {
    use adquill::model::chat_template::{ChatTemplate, ChatTokenizer};

    let tokenizer = open_gguf(&default_model()).vocabulary.tokenizer.clone();
    let source = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}\
        [{{ m.role }}] {{ m.content }}\n{% endfor %}";
    let template = ChatTemplate::new(Some(source), &tokenizer).unwrap();
    let vocabulary = ChatTokenizer { tokenizer, template };
    let tokens = vocabulary.encode_chat(&chat(), "").unwrap();
    let text = vocabulary.tokenizer.decode(&tokens);
    assert_eq!(text, "[user] You write ads.\n\nSay it in 7 words: 你好 👍🏽\n");
    let hopeless = ChatTemplate::new(Some("{{ raise_exception('never') }}"), &vocabulary.tokenizer);
    assert!(hopeless.unwrap_err().to_string().contains("one user message"));
}
