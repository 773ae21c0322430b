//! The use cases. They join domain and engine, and know neither HTTP nor files.

pub mod ad_copy;
#[cfg(test)]
mod ad_copy_tests;
mod job;
pub mod library;
mod pool;
