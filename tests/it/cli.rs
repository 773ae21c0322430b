//! The command line from outside.

use serde_json::Value;

use crate::support::model::default_model;
use crate::support::server::adquill;

fn output(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = adquill().args(arguments).output().expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn config_prints_settings_with_their_origin() {
    let (code, out, _) = output(&["config", "--addr", "127.0.0.1:9999", "--json"]);
    assert_eq!(code, Some(0));
    let settings: Vec<Value> = serde_json::from_str(&out).unwrap();
    let addr = settings.iter().find(|setting| setting["key"] == "http.addr").unwrap();
    assert_eq!((addr["value"].as_str(), addr["origin"].as_str()), (Some("127.0.0.1:9999"), Some("flag")));
}

#[test]
fn settings_that_cannot_be_used_end_with_2_and_say_all_that_is_wrong() {
    let output = adquill()
        .args(["serve", "--addr", "nowhere"])
        .env("ADQUILL_ENGINE__THREDS", "2")
        .output()
        .expect("the binary runs");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("http.addr") && error.contains("engine.threds") && error.contains("threads"), "{error}");
}

#[test]
fn a_public_address_needs_keys_or_insecure() {
    let (code, _, error) = output(&["serve", "--addr", "0.0.0.0:0"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("auth.keys") && error.contains("--insecure"), "{error}");
}

#[test]
fn a_model_that_cannot_be_loaded_ends_the_server_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.gguf");
    std::fs::write(&path, b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff").unwrap();
    let source = format!("file:{}", path.display());
    let (code, _, error) = output(&["serve", "--addr", "127.0.0.1:0", "--model", &source]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("broken.gguf"), "{error}");
    assert!(!error.contains("panicked"), "{error}");
}

#[test]
fn generate_writes_copy_without_a_server() {
    let source = format!("file:{}", default_model().display());
    let product = "TrailLite 40 | waterproof | 900 g";
    let arguments = ["generate", "--model", &source, "--product", product, "--n", "2", "--seed", "1", "--json"];
    let (code, out, error) = output(&arguments);
    assert_eq!(code, Some(0), "{error}");
    assert!(out.contains("TrailLite") || out.to_lowercase().contains("waterproof") || out.contains("900"), "{out}");
}
