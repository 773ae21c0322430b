//! What the tests share.

pub mod http;
pub mod hub;
pub mod memory_weights;
pub mod model;
pub mod server;
pub mod tiny_model;
