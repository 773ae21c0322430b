//! `adquill bench`: speed on this machine, printed so that anyone can repeat it.

mod client;
mod engine;
mod load;
mod report;
mod service;

use std::net::SocketAddr;

use anyhow::bail;
use clap::Subcommand;

use super::runtime;
use crate::config::Config;
use crate::model::source::{self, Cache, ModelFormat, fetch};

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// The decoder beside candle's own quantized llama, on the same file by turns; the model must be a llama GGUF.
    Engine {
        #[arg(long)]
        json: bool,
    },
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
pub fn run(command: &BenchCommand, config: &Config) -> anyhow::Result<()> {
    match *command {
        BenchCommand::Engine { json } => {
            let cache = Cache::open(&config.models)?;
            let files = fetch(&config.models.source()?, &cache, source::for_stderr().as_ref())?;
            let ModelFormat::Gguf(path) = files.format else { bail!("candle's quantized llama runs GGUF files only") };
            engine::run(&path, config.engine.resolved_threads(), json, &mut std::io::stdout().lock())
        }
        BenchCommand::Service { requests, json } => runtime()?.block_on(service::run(requests, json)),
        BenchCommand::Load { addr, clients, n, rounds, json } => {
            runtime()?.block_on(load::run(addr, clients, n, rounds, json))
        }
    }
}
