//! Routes, problems and middleware, without sockets.

use std::sync::Arc;

use adquill::engine::request::{Readiness, Refusal};
use adquill::http::{Config, Drain, auth, router};
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tower::ServiceExt as _;

use crate::support::http::{Refusing, loading, state};

const GOOD: &str =
    r#"{"product": {"name": "TrailLite 40", "attributes": ["waterproof", "900 g"]}, "n": 2, "fallback": "none"}"#;

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    json: Value,
    text: String,
}

async fn ask(app: axum::Router, request: Request<Body>) -> Answer {
    let response = app.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Answer { status: parts.status, headers: parts.headers, json, text: String::from_utf8_lossy(&bytes).into_owned() }
}

fn app() -> axum::Router {
    router(&state(loading(), &Drain::default(), Config::default(), &auth::Config::default()))
}

fn app_with_keys() -> axum::Router {
    let key = |name: &str, scopes: &[auth::Scope]| auth::KeyConfig {
        name: name.to_owned(),
        sha256: Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect(),
        scopes: scopes.to_vec(),
        requests_per_minute: Some(2),
    };
    let keys = vec![key("writer", &[auth::Scope::Generate]), key("reader", &[auth::Scope::Read])];
    let auth = auth::Config { keys, requests_per_minute: None };
    router(&state(loading(), &Drain::default(), Config::default(), &auth))
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

fn post(body: impl Into<Body>) -> Request<Body> {
    Request::post("/v1/ad-copy").header("content-type", "application/json").body(body.into()).unwrap()
}

fn assert_problem(answer: &Answer, status: u16, slug: &str) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert_eq!(answer.json["type"], format!("/problems/{slug}"));
    assert_eq!(answer.json["status"], status);
    assert!(answer.json["title"].is_string() && answer.json["detail"].is_string());
    assert_eq!(answer.json["instance"], answer.headers["x-request-id"].to_str().unwrap());
    if matches!(status, 429 | 503) {
        let after: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!(after >= 1);
    }
}

#[tokio::test]
async fn the_caller_s_mistakes_are_problems() {
    assert_problem(&ask(app(), get("/nothing")).await, 404, "not-found");
    let wrong_method = ask(app(), get("/v1/ad-copy")).await;
    assert_problem(&wrong_method, 405, "method-not-allowed");
    assert_eq!(wrong_method.headers["allow"], "POST");
    assert_problem(&ask(app(), post("{")).await, 400, "malformed-body");
    let plain = Request::post("/v1/ad-copy").body(Body::from(GOOD)).unwrap();
    assert_problem(&ask(app(), plain).await, 415, "unsupported-media-type");
    assert_problem(&ask(app(), post("x".repeat(1024 * 1024 + 1))).await, 413, "body-too-large");
    let long = format!("/v1/models?{}", "x".repeat(9000));
    assert_problem(&ask(app(), get(&long)).await, 414, "uri-too-long");
    let invalid = ask(app(), post(r#"{"product": "x", "n": 0, "chanel": "sms"}"#)).await;
    assert_problem(&invalid, 422, "invalid-fields");
    assert_eq!(invalid.json["errors"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn an_announced_body_is_refused_before_it_is_read() {
    let body = Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let request = Request::post("/v1/ad-copy")
        .header("content-type", "application/json")
        .header("content-length", "10000000")
        .body(body)
        .unwrap();
    let answer = ask(app(), request).await;
    assert_problem(&answer, 413, "body-too-large");
    assert!(answer.text.contains("at most 1048576 bytes, not 10000000"));
}

#[tokio::test]
async fn keys_scopes_and_rates_are_kept() {
    let app = app_with_keys();
    let with_key = |mut request: Request<Body>, key: &str| {
        request.headers_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
        request
    };
    let missing = ask(app.clone(), get("/v1/models")).await;
    assert_problem(&missing, 401, "unauthorized");
    assert!(missing.headers.contains_key("www-authenticate"));
    assert_problem(&ask(app.clone(), with_key(get("/v1/models"), "nobody")).await, 401, "unauthorized");
    assert_problem(&ask(app.clone(), with_key(get("/v1/models"), "writer")).await, 403, "forbidden");
    assert_eq!(ask(app.clone(), with_key(get("/v1/models"), "reader")).await.status, 200);
    assert_eq!(ask(app.clone(), with_key(get("/v1/models"), "reader")).await.status, 200);
    assert_problem(&ask(app.clone(), with_key(get("/v1/models"), "reader")).await, 429, "rate-limited");
    assert_eq!(ask(app, get("/livez")).await.status, 200, "health is public");
}

#[tokio::test]
async fn readiness_says_why_not() {
    assert_eq!(ask(app(), get("/livez")).await.status, 200);
    let loading_answer = ask(app(), get("/readyz")).await;
    assert_problem(&loading_answer, 503, "not-ready");
    assert_eq!(loading_answer.json["detail"], "model loading");
    let refusal = Refusal::Draining;
    let ready = Arc::new(Refusing { refusal, readiness: Readiness::Ready, asked: 0.into() });
    let drain = Drain::default();
    let app = router(&state(ready, &drain, Config::default(), &auth::Config::default()));
    assert_eq!(ask(app.clone(), get("/readyz")).await.json["status"], "ready");
    drain.start();
    assert_eq!(ask(app, get("/readyz")).await.json["detail"], "draining");
}

#[tokio::test]
async fn a_sane_request_id_comes_back_on_every_answer() {
    for path in ["/livez", "/nothing"] {
        let mut request = get(path);
        request.headers_mut().insert("x-request-id", "trace-7".parse().unwrap());
        let answer = ask(app(), request).await;
        assert_eq!(answer.headers["x-request-id"], "trace-7");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    }
    assert_eq!(ask(app(), get("/livez")).await.headers["x-request-id"].len(), 36);
}

#[tokio::test]
async fn room_is_limited() {
    let config = Config { max_in_flight: 1, body_timeout_ms: 60_000, ..Config::default() };
    let app = router(&state(loading(), &Drain::default(), config, &auth::Config::default()));
    let (entered, has_entered) = tokio::sync::oneshot::channel();
    let body = futures_util::stream::once(async move {
        let _ = entered.send(());
        std::future::pending::<Result<bytes::Bytes, std::io::Error>>().await
    });
    let hanging = tokio::spawn(ask(app.clone(), post(Body::from_stream(body))));
    has_entered.await.unwrap();
    assert_problem(&ask(app.clone(), get("/v1/models")).await, 503, "overloaded");
    assert_eq!(ask(app.clone(), get("/livez")).await.status, 200, "health has always room");
    hanging.abort();
    let _ = hanging.await;
    assert_eq!(ask(app, get("/v1/models")).await.status, 200, "the place of a dropped request is free");
}

#[tokio::test]
async fn a_body_that_never_comes_and_a_request_without_an_end_are_bounded() {
    let never = || Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let app = |config| router(&state(loading(), &Drain::default(), config, &auth::Config::default()));
    let slow_body = app(Config { body_timeout_ms: 50, ..Config::default() });
    assert_problem(&ask(slow_body, post(never())).await, 408, "body-timeout");
    let no_end = app(Config { request_timeout_ms: 50, ..Config::default() });
    assert_problem(&ask(no_end, post(never())).await, 504, "deadline-passed");
}

#[tokio::test]
async fn the_documentation_needs_nothing_from_elsewhere() {
    let root = ask(app(), get("/")).await;
    assert_eq!((root.status.as_u16(), root.headers["location"].to_str().unwrap()), (303, "/docs/"));
    for path in ["/docs/", "/docs/swagger-initializer.js"] {
        let page = ask(app(), get(path)).await;
        assert_eq!(page.status, 200);
        assert!(!page.text.contains("://"), "{path} names another host: {}", page.text);
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'"));
    }
    let html = ask(app(), get("/docs/")).await.text;
    for source in html.split("src=\"").skip(1).chain(html.split("href=\"").skip(1)) {
        let asset = source.split('"').next().unwrap().trim_start_matches("./");
        assert_eq!(ask(app(), get(&format!("/docs/{asset}"))).await.status, 200, "{asset}");
    }
    assert_problem(&ask(app(), get("/docs/none.js")).await, 404, "not-found");
    let document = ask(app(), get("/openapi.json")).await;
    assert_eq!(document.json["openapi"], "3.1.0");
}

#[tokio::test]
async fn a_thousand_malformed_requests_are_the_caller_s_fault() {
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let app = app();
    let pieces =
        ["\"", "{", "]", "null", "1e999", "\u{feff}", "\\ud800", ",", "-1", "\u{0}", "[[[[", "\u{202e}", "true"];
    let mut refused = 0;
    for _ in 0..1000 {
        let mut body = GOOD.as_bytes().to_vec();
        for _ in 0..=below(&mut random, 4) {
            let at = below(&mut random, body.len() + 1);
            match below(&mut random, 4) {
                0 => body.truncate(at),
                1 => {
                    let piece = pieces[below(&mut random, pieces.len())];
                    body.splice(at..at, piece.bytes());
                }
                2 if at < body.len() => body[at] = below(&mut random, 256) as u8,
                _ if at < body.len() => drop(body.remove(at)),
                _ => body.push(b'}'),
            }
        }
        // What is still valid meets a model that loads; that 503 is no fault of the parser.
        let answer = ask(app.clone(), post(body.clone())).await;
        let status = answer.status.as_u16();
        assert!(
            status < 500 || answer.json["detail"] == "model loading",
            "{status}: {}",
            String::from_utf8_lossy(&body)
        );
        refused += usize::from((400..500).contains(&status));
    }
    assert!(refused > 500, "the mutations break the body: {refused}");
}

fn below(random: &mut TestRng, limit: usize) -> usize {
    use proptest::prelude::Rng as _;
    random.next_u64() as usize % limit.max(1)
}
