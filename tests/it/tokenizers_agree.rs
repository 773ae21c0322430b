//! The tokenizer equals Hugging Face's, built here from JSON text that is written independently of the product.

use std::path::Path;

use adquill::model::gguf::Gguf;
use adquill::model::tokenizer::Tokenizer;
use serde_json::{Value, json};

use crate::support::model::default_model;

/// What the texts are made of: languages, emoji with joiners, digits, white space, control tokens, odd characters.
const FRAGMENTS: [&str; 26] = [
    "Buy now",
    " and save 50% on 1,299.99!",
    "限时优惠,全场五折起。",
    "夏日清凉装备",
    "무료 배송",
    "セール開催中",
    "Größe – naïve café",
    "Скидка до 30%",
    "خصم اليوم",
    "👨‍👩‍👧‍👦👍🏽",
    "🇨🇳🎉",
    "١٢٣ ½ ⅷ 第3章",
    "\n\n",
    "\t \t",
    "      ",
    " \n \r\n  ",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|im_",
    "it's we'LL I'm DON'T",
    "e\u{301}\u{200b}\u{feff}",
    "C++ & <b>HTML</b> #tag @user",
    "https://example.com/?q=1&r=2",
    "\u{0}\u{1b}",
    "￥９９ ＡＢＣ",
];

fn texts() -> Vec<String> {
    let pairs = FRAGMENTS.iter().flat_map(|a| FRAGMENTS.iter().map(move |b| format!("{a}{b}")));
    let singles = FRAGMENTS.iter().map(|fragment| (*fragment).to_owned());
    singles.chain(pairs).chain([String::new(), FRAGMENTS.concat()]).collect()
}

/// SmolLM2's `tokenizer.json` as Hugging Face publishes it, with the vocabulary and merges of the GGUF file.
fn smollm2_reference(path: &Path) -> tokenizers::Tokenizer {
    let gguf = Gguf::open(path).unwrap();
    let metadata = gguf.metadata();
    let tokens = metadata.strings("tokenizer.ggml.tokens").unwrap().unwrap();
    let types = metadata.integers("tokenizer.ggml.token_type").unwrap().unwrap();
    let merges = metadata.strings("tokenizer.ggml.merges").unwrap().unwrap();
    let vocab: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
    let added: Vec<Value> = tokens
        .iter()
        .zip(types)
        .enumerate()
        .filter(|(_, (_, kind))| *kind == 3)
        .map(|(id, (token, _))| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        })
        .collect();
    assert!(added.len() > 10);
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let definition = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": true}, byte_level]},
        "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": "<|endoftext|>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": merges},
    });
    definition.to_string().parse().unwrap()
}

#[test]
fn the_default_models_tokenizer_equals_hugging_faces() {
    let path = default_model();
    let reference = smollm2_reference(&path);
    let ours = Tokenizer::from_gguf(Gguf::open(&path).unwrap().metadata()).unwrap();
    let texts = texts();
    assert!(texts.len() >= 200);
    for text in texts {
        let expected = reference.encode(text.as_str(), false).unwrap();
        let ids = ours.encode(&text).unwrap();
        assert_eq!(ids, expected.get_ids(), "{text:?}");
        assert_eq!(ours.decode(&ids), reference.decode(&ids, true).unwrap(), "{text:?}");
    }
}

#[test]
fn the_default_models_special_tokens_are_known() {
    let tokenizer = Tokenizer::from_gguf(Gguf::open(&default_model()).unwrap().metadata()).unwrap();
    let [start, end, text_end] =
        ["<|im_start|>", "<|im_end|>", "<|endoftext|>"].map(|token| tokenizer.token_id(token).unwrap());
    assert_eq!(tokenizer.end_tokens(), [text_end, end]);
    assert!(tokenizer.is_control(start) && !tokenizer.is_end(start));
    assert!(!tokenizer.special_tokens().add_bos);
    assert_eq!(tokenizer.token_bytes(start), b"");
    assert_eq!(tokenizer.encode("<|im_start|>").unwrap(), [start]);
    let neutral = tokenizer.neutralize("a<|im_<|im_end|>start|>b");
    assert_eq!(neutral, "ab");
}

#[test]
fn the_longest_text_is_tokenized_in_bounded_time_and_a_longer_one_refused() {
    let tokenizer = Tokenizer::from_gguf(Gguf::open(&default_model()).unwrap().metadata()).unwrap();
    for unit in [" ", "a", "\n", " \n", "好", "1", "'", "<|im_"] {
        let text = unit.repeat(adquill::model::tokenizer::MAX_TEXT_BYTES / unit.len());
        assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap()), text);
        assert!(tokenizer.encode(&format!("{text}too long")).is_err());
    }
}

/// A SentencePiece vocabulary has scores in GGUF, and Hugging Face derives merges from them; the fixture holds what its
/// converter made of a random vocabulary, in which many merges compete.
#[test]
fn a_sentencepiece_tokenizer_equals_hugging_faces_conversion() {
    use candle_core::quantized::gguf_file::{self, Value as V};

    let fixture: Value = serde_json::from_str(include_str!("fixtures/sentencepiece.json")).unwrap();
    let list = |key: &str| fixture[key].as_array().unwrap().clone();
    let tokens: Vec<V> = list("tokens").iter().map(|t| V::String(t.as_str().unwrap().to_owned())).collect();
    let scores: Vec<V> = list("scores").iter().map(|s| V::F32(s.as_f64().unwrap() as f32)).collect();
    let types = (0..tokens.len())
        .map(|id| {
            V::I32(match id {
                0 => 2,
                1 | 2 => 3,
                3..=258 => 6,
                _ => 1,
            })
        })
        .collect();
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("sentencepiece.gguf");
    let metadata = [
        ("tokenizer.ggml.model", V::String("llama".to_owned())),
        ("tokenizer.ggml.tokens", V::Array(tokens)),
        ("tokenizer.ggml.scores", V::Array(scores)),
        ("tokenizer.ggml.token_type", V::Array(types)),
        ("tokenizer.ggml.bos_token_id", V::U32(1)),
        ("tokenizer.ggml.eos_token_id", V::U32(2)),
    ];
    let metadata: Vec<(&str, &V)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    gguf_file::write(&mut std::fs::File::create(&path).unwrap(), &metadata, &[]).unwrap();

    let tokenizer = Tokenizer::from_gguf(Gguf::open(&path).unwrap().metadata()).unwrap();
    for (text, ids) in list("texts").iter().zip(list("ids")) {
        let expected: Vec<u32> = serde_json::from_value(ids).unwrap();
        assert_eq!(tokenizer.encode(text.as_str().unwrap()).unwrap(), expected, "{text}");
    }
    assert!(tokenizer.special_tokens().add_bos && tokenizer.is_end(2));
    let ids = tokenizer.encode("好é a").unwrap();
    assert_eq!(tokenizer.decode(&ids), " 好é a");
}
