//! Broken and hostile model files end in one error: no panic, no allocation by what a header claims.

use std::path::Path;
use std::time::Instant;

use adquill::model::config::Architecture;
use adquill::model::gguf::Header;
use adquill::model::open::open;
use adquill::model::source::{ModelFiles, ModelFormat};
use candle_core::quantized::GgmlDType;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::open_models::folder;
use crate::support::tiny_model::TinyModel;

/// Opens the file and reads every tensor; an error's whole chain as text, or `None` when all went well.
fn outcome(format: ModelFormat) -> Option<String> {
    let files = ModelFiles { source: "file:test".to_owned(), format, sha256: String::new() };
    match open(&files) {
        Ok(model) => TinyModel::new(Architecture::Llama, 9)
            .tensors()
            .iter()
            .filter_map(|(name, ..)| Some(model.weights.view(name)?.to_f32(name).err()?.to_string()))
            .next(),
        Err(error) => Some(format!("{:#}", anyhow::Error::from(error))),
    }
}

fn gguf(path: &Path) -> Option<String> {
    outcome(ModelFormat::Gguf(path.to_owned()))
}

fn tiny_gguf(dir: &TempDir) -> Vec<u8> {
    let path = dir.path().join("tiny.gguf");
    TinyModel::new(Architecture::Llama, 9).write_gguf(&path, GgmlDType::Q4_1);
    std::fs::read(path).unwrap()
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let dir = TempDir::new().unwrap();
    let bytes = tiny_gguf(&dir);
    // The last tensor ends within the last 32 bytes, which pad it.
    for cut in 0..bytes.len() - 32 {
        assert!(Header::parse(&bytes[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_partial_download_is_called_one() {
    let dir = TempDir::new().unwrap();
    let bytes = tiny_gguf(&dir);
    let path = dir.path().join("cut.gguf");
    for cut in [bytes.len() / 50, bytes.len() / 2] {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let message = gguf(&path).unwrap();
        assert!(message.contains("partial download") && message.contains("cut.gguf"), "{message}");
    }
}

#[test]
fn scales_that_are_not_finite_are_found() {
    let dir = TempDir::new().unwrap();
    let mut bytes = tiny_gguf(&dir);
    // The tensor data is the file's end; every Q4_1 block there begins with its scale.
    let end = bytes.len();
    for offset in (end - 20_000..end - 64).step_by(4) {
        bytes[offset..offset + 2].copy_from_slice(&half::f16::NAN.to_le_bytes());
    }
    let path = dir.path().join("nan.gguf");
    std::fs::write(&path, &bytes).unwrap();
    let message = gguf(&path).unwrap();
    assert!(message.contains("not finite"), "{message}");
}

#[test]
fn folders_with_broken_files_are_refused() {
    let cases: [(&str, &str, &str); 9] = [
        ("config.json", "{", "not the JSON"),
        ("config.json", "{\"model_type\": \"gpt2\"}", "config.json"),
        ("tokenizer.json", "{}", "tokenizer.json"),
        ("tokenizer.json", "{\"model\": {\"type\": \"Unigram\", \"vocab\": [[\"a\", 0]]}}", "Unigram"),
        ("tokenizer.json", "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 4000000000}}}", "at most"),
        // Its product is no token, on which the tokenizers crate itself panics.
        (
            "tokenizer.json",
            "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1}, \"merges\": [\"a b\"]}}",
            "merge 0",
        ),
        ("tokenizer_config.json", "{\"chat_template\": \"{% for %}\"}", "chat template"),
        ("generation_config.json", "{\"eos_token_id\": 99999}", "99999"),
        ("model-00001-of-00001.safetensors", "\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}", "header"),
    ];
    for (file, content, expected) in cases {
        let dir = TempDir::new().unwrap();
        TinyModel::new(Architecture::Llama, 9).write_safetensors(dir.path(), 1);
        std::fs::write(dir.path().join(file), content).unwrap();
        let message = outcome(folder(dir.path())).unwrap();
        assert!(message.contains(expected), "{file}: {message}");
    }
}

#[test]
fn safetensors_offsets_that_overflow_are_refused() {
    let header = format!(
        "{{\"a\":{{\"dtype\":\"F32\",\"shape\":[{n}],\"data_offsets\":[0,{bytes}]}}}}",
        n = u64::MAX / 32,
        bytes = u64::MAX / 32 * 4
    );
    let dir = TempDir::new().unwrap();
    TinyModel::new(Architecture::Llama, 9).write_safetensors(dir.path(), 1);
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    std::fs::write(dir.path().join("model-00001-of-00001.safetensors"), bytes).unwrap();
    let message = outcome(folder(dir.path())).unwrap();
    assert!(message.contains("partial download"), "{message}");
}

#[test]
fn a_folder_or_an_empty_file_is_no_model() {
    let dir = TempDir::new().unwrap();
    assert!(gguf(dir.path()).unwrap().contains("not a regular file"));
    let path = dir.path().join("empty.gguf");
    std::fs::write(&path, "").unwrap();
    assert!(gguf(&path).unwrap().contains("empty"));
}

#[test]
fn flipped_bits_never_panic() {
    let dir = TempDir::new().unwrap();
    let bytes = tiny_gguf(&dir);
    let path = dir.path().join("flipped.gguf");
    // The header, where every bit has a meaning, is some 12 KiB of the file.
    let header = bytes.len().min(14_000);
    let flips = prop::collection::vec((prop_oneof![9 => 0..header, 1 => 0..bytes.len()], 0..8u8), 1..6);
    let started = Instant::now();
    proptest!(ProptestConfig::with_cases(3000), |(flips in flips)| {
        let mut broken = bytes.clone();
        for (at, bit) in flips {
            broken[at] ^= 1 << bit;
        }
        std::fs::write(&path, &broken).unwrap();
        if let Some(message) = gguf(&path) {
            prop_assert!(!message.is_empty() && message.len() < 4096, "{message}");
        }
    });
    println!("3000 broken files in {:?}", started.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn random_headers_never_panic(tail in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend_from_slice(&tail);
        let _ = Header::parse(&bytes);
    }
}
