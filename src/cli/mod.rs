//! The subcommands.

pub mod bench;
pub mod generate;
pub mod models;
