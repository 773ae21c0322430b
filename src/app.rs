//! The composition root: settings in, a running service out, and its orderly end. The one place that sees all parts.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::engine::request::{Generator, ModelInfo, Readiness};
use crate::engine::{self, Engine, EngineHandle, Loaded};
use crate::http::{AppState, Drain, Server, admin_router, router};
use crate::model::decoder::{Decoder, DecoderOptions, Precision};
use crate::model::open::open;
use crate::model::source::{self, Cache, ModelFiles, fetch, known_models};
use crate::service::ad_copy::AdCopyService;
use crate::service::library::Library;
use crate::shutdown;
use crate::telemetry::metrics::Metrics;

/// What the engine may still take after the server has answered everybody.
const ENGINE_GRACE: Duration = Duration::from_secs(2);

/// Serves until the process is told to stop. The server listens before the model is there; `/readyz` tells.
///
/// # Errors
/// When an address cannot be had, the data that ships is broken, or the model cannot be loaded.
pub async fn serve(config: &Config, insecure: bool) -> anyhow::Result<()> {
    refuse_open_address(config, insecure)?;
    let metrics = Metrics::install().context("metrics")?;
    engine::observe::describe();
    let library = Arc::new(Library::embedded().context("the data that ships with the program")?);
    let server = Server::bind(&config.http).await?;
    tracing::info!(address = %server.local_addr(), "listening");
    if let Some(address) = server.admin_addr() {
        tracing::info!(%address, "listening for health and metrics");
    }
    let (engine, handle) = start_engine(config);
    let generator: Arc<dyn Generator> = Arc::new(handle.clone());
    let drain = Drain::new(CancellationToken::new());
    let state = AppState::new(
        AdCopyService::new(Arc::clone(&generator), library),
        generator,
        Some(metrics.clone()),
        drain.clone(),
        config.http.clone(),
        &config.auth,
    )
    .map_err(|errors| anyhow::anyhow!("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
    tokio::spawn(metrics.run_upkeep());
    tokio::spawn(shutdown::drain_on_signal(drain.clone()));
    let load_failure = watch_load(handle, drain.clone());
    server.serve(router(&state), admin_router(&state), drain).await;
    tracing::info!("every request is answered, stopping");
    let finished = tokio::task::spawn_blocking(move || engine.shutdown(ENGINE_GRACE)).await?;
    if !finished {
        tracing::warn!("the engine was stopped with work left");
    }
    match load_failure.await {
        Ok(Some(reason)) => bail!("{reason}"),
        Ok(None) | Err(_) => Ok(()),
    }
}

/// Starts the engine; its thread fetches, opens and packs the model.
pub fn start_engine(config: &Config) -> (Engine, EngineHandle) {
    let (models, settings) = (config.models.clone(), config.engine.clone());
    Engine::start(config.engine.clone(), move || load(&models, &settings).map_err(|error| format!("{error:#}")))
}

fn load(models: &source::Config, engine: &engine::Config) -> anyhow::Result<Loaded> {
    let started = std::time::Instant::now();
    let source = models.source()?;
    let cache = Cache::open(models)?;
    let files = fetch(&source, &cache, source::for_stderr().as_ref())?;
    let opened = open(&files)?;
    let options = DecoderOptions {
        precision: Precision::Packed,
        threads: engine.resolved_threads(),
        block_size: engine.block_size,
        n_blocks: engine.resolved_kv_blocks(),
    };
    let decoder = Decoder::load(&opened.config, opened.weights.as_ref(), options)
        .with_context(|| format!("the model {source} cannot be used"))?;
    let info = ModelInfo {
        id: model_id(&source, &files),
        architecture: opened.config.architecture.as_str().to_owned(),
        quantization: opened.quantization.clone(),
        parameters: opened.parameters,
        context_length: opened.config.context_length,
        vocab_size: opened.config.vocab_size,
        languages: languages(&source),
        source: files.source.clone(),
        sha256: files.sha256.clone(),
    };
    tracing::info!(model = info.id, seconds = started.elapsed().as_secs_f32(), "the model is loaded");
    Ok(Loaded { model: Box::new(decoder), vocabulary: opened.vocabulary, info })
}

/// The id of a known model, else the weights' file name without its ending, in lower case.
fn model_id(source: &source::ModelSource, files: &ModelFiles) -> String {
    let name = source.origin.to_string();
    let known = known_models().ok().and_then(|models| models.iter().find(|model| model.source == name));
    if let Some(model) = known {
        return model.id.clone();
    }
    let stem = files
        .format
        .weights()
        .first()
        .and_then(|path| path.file_stem())
        .map(|stem| stem.to_string_lossy().to_lowercase());
    stem.unwrap_or_else(|| "model".to_owned())
}

fn languages(source: &source::ModelSource) -> Vec<String> {
    let name = source.origin.to_string();
    let known = known_models().ok().and_then(|models| models.iter().find(|model| model.source == name));
    known.map(|model| model.languages.clone()).unwrap_or_default()
}

/// Ends the service when the model cannot be loaded: an orchestrator restarts it, a person reads why.
fn watch_load(handle: EngineHandle, drain: Drain) -> tokio::sync::oneshot::Receiver<Option<String>> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let failure = loop {
            let readiness = handle.wait_loaded(Duration::from_millis(200));
            match (handle.model().is_some(), readiness) {
                (true, _) => break None,
                (false, Readiness::NotReady(reason)) if handle.load_failed() => break Some(reason),
                (false, _) if drain.is_started() => break None,
                (false, _) => {}
            }
        };
        if failure.is_some() {
            drain.start();
        }
        // Nobody listens any more when the server ended first.
        let _ = sender.send(failure);
    });
    receiver
}

/// Without keys everyone who reaches the address may use it, so it must be this machine only.
fn refuse_open_address(config: &Config, insecure: bool) -> anyhow::Result<()> {
    let addr = config.http.addr;
    if config.auth.keys.is_empty() && !addr.ip().is_loopback() && !insecure {
        bail!(
            "http.addr {addr} can be reached from other machines and auth.keys is empty: \
             add a key, or listen on 127.0.0.1, or allow everyone with --insecure"
        );
    }
    Ok(())
}
