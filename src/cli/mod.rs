//! The subcommands.

pub mod generate;
pub mod models;
