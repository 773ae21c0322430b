//! The command line: flags to settings, settings to a subcommand.

pub mod bench;
pub mod generate;
mod healthcheck;
pub mod models;
mod settings;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};

use crate::app;
use crate::config::{ConfigErrors, Effective, Flag};
use crate::engine::request::Readiness;
use crate::service::ad_copy::AdCopyService;
use crate::service::library::Library;
use crate::telemetry::logs;

/// Exit code of a command line or of settings that cannot be used.
const UNUSABLE: u8 = 2;
/// How long `generate` waits for the model, a first download included.
const LOAD_LIMIT: Duration = Duration::from_secs(1800);

/// Writes marketing text with a language model on this machine.
#[derive(Debug, Parser)]
#[command(
    name = "adquill",
    version,
    about,
    max_term_width = 100,
    after_help = "Settings: defaults < file < environment (ADQUILL_<SECTION>__<KEY>) < flags. `adquill config` prints them."
)]
struct Cli {
    /// Settings file (TOML); also by the variable ADQUILL_CONFIG.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the HTTP interface.
    Serve(ServeArgs),
    /// Writes copy without a server, e.g. `adquill generate --product "TrailLite 40 | waterproof | 900 g"`.
    Generate {
        #[command(flatten)]
        model: ModelArgs,
        #[command(flatten)]
        args: generate::GenerateArgs,
    },
    /// Lists, fetches and checks models.
    Models {
        #[command(subcommand)]
        command: models::ModelsCommand,
    },
    /// Prints the settings in force and where each comes from; secrets are masked.
    Config {
        /// As JSON: an array of {key, value, origin}.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        serve: ServeArgs,
    },
    /// Prints the OpenAPI document of the HTTP interface.
    Openapi,
    /// Measures speed on this machine.
    Bench {
        #[command(flatten)]
        model: ModelArgs,
        #[command(subcommand)]
        command: bench::BenchCommand,
    },
    /// Exits with 0 when the server on this machine lives: for containers.
    Healthcheck,
}

/// Flags of `serve`; each overrides a setting.
#[derive(Debug, Args)]
struct ServeArgs {
    /// Where to listen [setting: http.addr; default: 127.0.0.1:8080].
    #[arg(long, value_name = "IP:PORT")]
    addr: Option<String>,
    /// Second listener for health and metrics only [setting: http.admin_addr].
    #[arg(long, value_name = "IP:PORT")]
    admin_addr: Option<String>,
    #[command(flatten)]
    model: ModelArgs,
    /// `human` or `json` [setting: log.format].
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Allow a public address without API keys.
    #[arg(long)]
    insecure: bool,
}

#[derive(Debug, Args)]
struct ModelArgs {
    /// A model source (hf:, wheel:, file:) or the id of a known model [setting: models.generator].
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Threads of the decoder; 0: as many as this process may use [setting: engine.threads].
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

impl ModelArgs {
    fn flags(&self) -> Vec<Flag> {
        let threads = self.threads.map(|threads| ("engine.threads", threads.to_string()));
        self.model.clone().map(|model| ("models.generator", model)).into_iter().chain(threads).collect()
    }
}

impl ServeArgs {
    fn flags(&self) -> Vec<Flag> {
        let mut flags = self.model.flags();
        for (key, value) in
            [("http.addr", &self.addr), ("http.admin_addr", &self.admin_addr), ("log.format", &self.log_format)]
        {
            flags.extend(value.clone().map(|value| (key, value)));
        }
        flags
    }
}

/// Parses the command line and carries it out.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    match carry_out(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::debug!(?error, "failed");
            eprintln!("adquill: {error:#}");
            if error.is::<ConfigErrors>() { ExitCode::from(UNUSABLE) } else { ExitCode::FAILURE }
        }
    }
}

fn carry_out(cli: Cli) -> anyhow::Result<()> {
    let settings = |flags: &[Flag]| Effective::load(cli.config.clone(), flags);
    match cli.command {
        Command::Serve(args) => {
            let config = settings(&args.flags())?.config;
            logs::init(&config.log)?;
            runtime()?.block_on(app::serve(&config, args.insecure))
        }
        Command::Generate { model, args } => {
            let config = settings(&model.flags())?.config;
            generate(&config, args)
        }
        Command::Models { command } => models::run(&command, &settings(&[])?.config.models),
        Command::Config { json, serve } => settings::print(&settings(&serve.flags())?, json),
        Command::Openapi => settings::print_openapi(),
        Command::Bench { model, command } => bench::run(&command, &settings(&model.flags())?.config),
        Command::Healthcheck => healthcheck::run(&settings(&[])?.config.http),
    }
}

fn generate(config: &crate::config::Config, args: generate::GenerateArgs) -> anyhow::Result<()> {
    let library = Library::embedded().context("the data that ships with the program")?;
    let (engine, handle) = app::start_engine(config);
    if let Readiness::NotReady(reason) = handle.wait_loaded(LOAD_LIMIT) {
        bail!("{reason}");
    }
    let service = AdCopyService::new(std::sync::Arc::new(handle), std::sync::Arc::new(library));
    let result = runtime()?.block_on(generate::run(args, &service));
    drop(engine);
    result
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the async runtime cannot be started")
}
