//! `adquill generate`: copy without a server.

use std::io::{self, Write};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use crate::domain::brief::{Audience, Brief, Language, Product};
use crate::engine::request::Priority;
use crate::service::ad_copy::{AdCopy, AdCopyRequest, AdCopyService, Fallback, MAX_VARIANTS, SamplingChoice, Source};

/// What to write.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Name and facts, separated by `|`, `;` or lines: "TrailLite 40 | waterproof | 900 g".
    #[arg(long)]
    product: String,
    /// A channel or one field of it, e.g. google_rsa or google_rsa.headline.
    #[arg(long, default_value = "generic")]
    channel: String,
    /// en or zh; detected when absent.
    #[arg(long, value_parser = language)]
    language: Option<Language>,
    /// E.g. friendly.
    #[arg(long)]
    tone: Option<String>,
    /// Whom the copy speaks to, e.g. "weekend hikers".
    #[arg(long)]
    audience: Option<String>,
    /// Must stand in the text; may be repeated.
    #[arg(long = "keyword")]
    keywords: Vec<String>,
    /// Must not stand in the text; may be repeated.
    #[arg(long = "ban")]
    banned_terms: Vec<String>,
    /// A brand kit's id.
    #[arg(long)]
    brand_kit: Option<String>,
    /// Variants.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=MAX_VARIANTS as i64))]
    n: u8,
    /// Repeats a run: the same seed, model and brief give the same texts.
    #[arg(long)]
    seed: Option<u64>,
    /// The model's own texts only: no templates.
    #[arg(long)]
    no_templates: bool,
    /// Everything that is known of each variant, as JSON.
    #[arg(long)]
    json: bool,
}

/// Writes the variants to stdout, one after the other.
pub async fn run(args: GenerateArgs, service: &AdCopyService) -> anyhow::Result<()> {
    let product = Product::parse(&args.product).context("--product")?;
    let request = AdCopyRequest {
        brief: Brief {
            product,
            audience: Audience { segment: args.audience, ..Audience::default() },
            channel: args.channel,
            language: args.language,
            industry: None,
            tone: args.tone,
            keywords: args.keywords,
            banned_terms: args.banned_terms,
            brand_kit: args.brand_kit,
        },
        n: usize::from(args.n),
        sampling: SamplingChoice { seed: args.seed, ..SamplingChoice::default() },
        deadline: None,
        fallback: if args.no_templates { Fallback::None } else { Fallback::Template },
        priority: Priority::Interactive,
        cache_scope: 0,
    };
    let answer = service.write(request).await?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&as_json(&answer))?)?;
        return Ok(());
    }
    for (index, variant) in answer.variants.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        for field in &variant.fields {
            let length = &field.length;
            writeln!(out, "{}", field.text)?;
            let by = source_name(variant.source);
            writeln!(
                out,
                "    {} {}/{} {}, by {by}, score {:.2}",
                field.name, length.count, length.max, length.unit, variant.score
            )?;
        }
    }
    Ok(())
}

fn as_json(answer: &AdCopy) -> serde_json::Value {
    let variants: Vec<_> = answer
        .variants
        .iter()
        .map(|variant| {
            let fields: serde_json::Map<_, _> =
                variant.fields.iter().map(|field| (field.name.clone(), json!(field.text))).collect();
            json!({"fields": fields, "text": variant.text, "source": source_name(variant.source), "score": variant.score,
                   "facts_used": variant.facts_used})
        })
        .collect();
    let dropped: Vec<_> =
        answer.dropped.iter().map(|dropped| json!({"reason": dropped.reason, "count": dropped.count})).collect();
    json!({"model": answer.model, "language": answer.language.code(), "channel": answer.channel, "seed": answer.seed,
           "variants": variants, "dropped": dropped})
}

fn source_name(source: Source) -> &'static str {
    match source {
        Source::Model => "model",
        Source::Template => "template",
        Source::Cache => "cache",
    }
}

fn language(text: &str) -> Result<Language, String> {
    match text {
        "en" => Ok(Language::En),
        "zh" => Ok(Language::Zh),
        other => Err(format!("{other:?} is neither en nor zh")),
    }
}
