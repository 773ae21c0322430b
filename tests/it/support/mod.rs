//! What the tests share.

pub mod hub;
pub mod model;
pub mod tiny_model;
