//! What the tests share.

pub mod tiny_model;
