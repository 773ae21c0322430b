//! The batching engine: one worker thread that owns the model, and cheap handles to it.
//!
//! `queue`, `blocks`, `prefix`, `kv`, `sequence`, `scheduler`, `door` and all that turns logits into text (`softmax`,
//! `sampling`, `processors`, `detokenizer`, `stop_texts`, `writer`) are pure. `live`, `shared`, `worker` and `handle`
//! join them with channels and a thread.

pub mod blocks;
pub mod config;
pub mod detokenizer;
pub mod door;
pub mod echo;
pub mod handle;
pub mod kv;
mod live;
pub mod observe;
pub mod prefix;
pub mod processors;
pub mod queue;
pub mod request;
pub mod sampling;
pub mod scheduler;
pub mod sequence;
mod shared;
pub mod softmax;
pub mod stop_texts;
mod worker;
pub mod writer;

pub use config::Config;
pub use echo::EchoGenerator;
pub use handle::{Engine, EngineHandle, Loaded};

#[cfg(test)]
mod testing;
#[cfg(test)]
mod worker_tests;
