//! The handlers, one file for each subject.

pub mod ad_copy;
pub mod docs;
pub mod fallback;
pub mod health;
pub mod models;
pub mod stream;
