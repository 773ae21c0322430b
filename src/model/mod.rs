//! Model files, their formats, and the decoder that runs them. Knows nothing of requests, queues or HTTP.

pub mod chat;
pub mod chat_template;
pub mod config;
pub mod decoder;
pub mod gguf;
pub mod kernels;
pub mod kv_cache;
pub mod mapped_file;
pub mod open;
pub mod safetensors;
pub mod source;
pub mod step;
pub mod tokenizer;
pub mod weights;
