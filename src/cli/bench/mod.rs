//! `adquill bench`: speed on this machine, printed so that anyone can repeat it.

mod client;
mod load;
mod report;
mod service;

use std::net::SocketAddr;

use anyhow::Context;
use clap::Subcommand;

use crate::config::Config;

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// What the service costs around an engine: requests to a generator that answers at once.
    Service {
        /// Requests measured, after a warm-up.
        #[arg(long, default_value_t = 2000)]
        requests: usize,
        #[arg(long)]
        json: bool,
    },
    /// Many clients at once against a running server.
    Load {
        /// Where the server listens.
        #[arg(long, default_value = "127.0.0.1:8080")]
        addr: SocketAddr,
        #[arg(long, default_value_t = 64)]
        clients: usize,
        /// Variants that each asks for.
        #[arg(long, default_value_t = 3)]
        n: usize,
        #[arg(long, default_value_t = 1)]
        rounds: usize,
        #[arg(long)]
        json: bool,
    },
}

/// Runs one benchmark and prints its figures.
pub fn run(command: &BenchCommand, _config: &Config) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the async runtime cannot be started")?;
    match *command {
        BenchCommand::Service { requests, json } => runtime.block_on(service::run(requests, json)),
        BenchCommand::Load { addr, clients, n, rounds, json } => {
            runtime.block_on(load::run(addr, clients, n, rounds, json))
        }
    }
}
