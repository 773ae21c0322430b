//! AdQuill: marketing copy from a language model, batched, over HTTP.
//!
//! The rooms of the house and who may use whom are described in `src/ARCHITECTURE.md`.

pub mod app;
pub mod cli;
pub mod config;
pub mod domain;
pub mod engine;
pub mod http;
pub mod model;
pub mod service;
pub mod shutdown;
pub mod telemetry;
