//! The batching engine: one worker thread that owns the model, and cheap handles to it.

pub mod blocks;
pub mod config;
pub mod kv;
pub mod prefix;
pub mod queue;
pub mod request;
pub mod scheduler;
pub mod sequence;
