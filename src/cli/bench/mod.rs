//! `adquill bench`: speed on this machine.

use clap::Subcommand;

use crate::config::Config;

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {}

pub fn run(command: &BenchCommand, _config: &Config) -> anyhow::Result<()> {
    match *command {}
}
