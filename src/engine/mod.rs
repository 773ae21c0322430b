//! The batching engine: one worker thread that owns the model, and cheap handles to it.

pub mod request;
