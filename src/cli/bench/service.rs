//! `adquill bench service`: what the service costs around an engine, measured with a generator that answers at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;

use super::client::Client;
use super::report::{Quantiles, print};
use crate::engine::EchoGenerator;
use crate::engine::request::Generator;
use crate::http::{AppState, Config, Drain, Server, admin_router, auth, router};
use crate::service::ad_copy::AdCopyService;
use crate::service::library::Library;

const BODY: &str = r#"{"product": {"name": "TrailLite 40", "brand": "Norrbo", "category": "hiking backpack",
 "attributes": ["waterproof", "900 g", "3-year warranty"], "price": "$89"}, "channel": "google_rsa.headline", "n": 3}"#;
const WARM_UP: usize = 200;

/// Asks one request after the other over one connection, on the loopback.
pub async fn run(requests: usize, as_json: bool) -> anyhow::Result<()> {
    let config = Config { addr: ([127, 0, 0, 1], 0).into(), ..Config::default() };
    let generator: Arc<dyn Generator> = Arc::new(EchoGenerator);
    let library = Arc::new(Library::embedded().context("the data that ships with the program")?);
    let drain = Drain::default();
    let service = AdCopyService::new(Arc::clone(&generator), library);
    let state = AppState::new(service, generator, None, drain.clone(), config.clone(), &auth::Config::default())
        .map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
    let server = Server::bind(&config).await?;
    let addr = server.local_addr();
    let serving = tokio::spawn(server.serve(router(&state), admin_router(&state), drain.clone()));
    let mut client = Client::connect(addr).await?;
    let mut times = Vec::with_capacity(requests);
    for request in 0..WARM_UP + requests {
        let started = Instant::now();
        let answer = client.post("/v1/ad-copy", BODY).await?;
        let time = started.elapsed();
        ensure!(answer.status.is_success(), "{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
        if request >= WARM_UP {
            times.push(time);
        }
    }
    drop(client);
    drain.start();
    // Nothing is in progress, so this is quick.
    tokio::time::timeout(Duration::from_secs(5), serving).await??;
    let quantiles = Quantiles::of(&mut times);
    let rows = vec![("round trip".to_owned(), quantiles)];
    print(
        "service overhead (echo generator, 3 variants, one connection)",
        &rows,
        json!({"requests": requests}),
        as_json,
    )
}
