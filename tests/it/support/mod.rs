//! What the tests share.

pub mod memory_weights;
pub mod tiny_model;
