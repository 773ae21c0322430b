//! `adquill bench load`: many clients at once against a running server; counts what they get.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::client::Client;
use super::report::{Quantiles, print};

/// A request that is not answered within this hangs.
const HANG_LIMIT: Duration = Duration::from_secs(120);

/// What one client saw.
struct Seen {
    status: u16,
    retry_after: bool,
    time: Duration,
    completion_tokens: u64,
    model_variants: usize,
    variants: usize,
}

/// `clients` ask for `n` variants each at the same moment, `rounds` times.
pub async fn run(addr: SocketAddr, clients: usize, n: usize, rounds: usize, as_json: bool) -> anyhow::Result<()> {
    ensure!(clients > 0 && rounds > 0, "at least one client and one round are needed");
    let barrier = Arc::new(Barrier::new(clients));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        tasks.spawn(one_client(addr, client, n, rounds, Arc::clone(&barrier)));
    }
    let mut seen = Vec::with_capacity(clients * rounds);
    while let Some(joined) = tasks.join_next().await {
        seen.extend(joined??);
    }
    let seconds = started.elapsed().as_secs_f64();
    let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
    let mut refused_without_hint = 0;
    for one in &seen {
        *statuses.entry(one.status).or_default() += 1;
        refused_without_hint += usize::from(matches!(one.status, 429 | 503) && !one.retry_after);
    }
    let tokens: u64 = seen.iter().map(|one| one.completion_tokens).sum();
    let times = |accepted: bool| -> Vec<Duration> {
        seen.iter().filter(|one| (one.status == 200) == accepted).map(|one| one.time).collect()
    };
    let rows = vec![
        ("answered".to_owned(), Quantiles::of(&mut times(true))),
        ("refused".to_owned(), Quantiles::of(&mut times(false))),
    ];
    let facts = json!({
        "clients": clients, "variants_each": n, "rounds": rounds, "statuses": statuses,
        "refused_without_retry_after": refused_without_hint, "seconds": seconds,
        "completion_tokens_per_second": tokens as f64 / seconds,
        "variants": seen.iter().map(|one| one.variants).sum::<usize>(),
        "variants_by_model": seen.iter().map(|one| one.model_variants).sum::<usize>(),
    });
    print("load (all clients at once)", &rows, facts, as_json)
}

async fn one_client(
    addr: SocketAddr,
    client: usize,
    n: usize,
    rounds: usize,
    barrier: Arc<Barrier>,
) -> anyhow::Result<Vec<Seen>> {
    let mut connection = Client::connect(addr).await;
    let mut seen = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let body = json!({
            "product": {"name": format!("TrailLite {client}"), "category": "hiking backpack",
                        "attributes": ["waterproof", "900 g", "3-year warranty"], "price": "$89"},
            "n": n, "sampling": {"seed": client * rounds + round},
        })
        .to_string();
        barrier.wait().await;
        let started = Instant::now();
        let connection = match &mut connection {
            Ok(connection) => connection,
            Err(error) => anyhow::bail!("{error:#}"),
        };
        let answer = tokio::time::timeout(HANG_LIMIT, connection.post("/v1/ad-copy", &body))
            .await
            .map_err(|_| anyhow::anyhow!("a request hung for {} s", HANG_LIMIT.as_secs()))??;
        let time = started.elapsed();
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let variants = value["variants"].as_array().map(Vec::as_slice).unwrap_or_default();
        seen.push(Seen {
            status: answer.status.as_u16(),
            retry_after: answer.retry_after,
            time,
            completion_tokens: value["usage"]["completion_tokens"].as_u64().unwrap_or_default(),
            model_variants: variants.iter().filter(|variant| variant["source"] == "model").count(),
            variants: variants.len(),
        });
    }
    Ok(seen)
}
