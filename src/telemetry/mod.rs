//! Logs and metrics of the whole process.

pub mod logs;
pub mod metrics;
