//! Connections over real sockets: slow, silent, deaf, too many, and the end of the server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adquill::http::{Config, Drain, auth, router};
use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use crate::support::http::{TestServer, loading, read_to_close, state};

const LIVEZ: &[u8] = b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

fn config() -> Config {
    Config {
        header_timeout_ms: 300,
        idle_timeout_ms: 900,
        write_timeout_ms: 500,
        body_timeout_ms: 300,
        ..Config::default()
    }
}

async fn service(config: Config) -> TestServer {
    let drain = Drain::default();
    let app = router(&state(loading(), &drain, config.clone(), &auth::Config::default()));
    TestServer::start(app, config, drain).await
}

#[tokio::test]
async fn half_a_header_is_closed_in_time_and_others_are_served_meanwhile() {
    let server = service(config()).await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET /livez HTTP/1.1\r\nhost:").await.unwrap();
    let started = Instant::now();
    assert!(server.exchange(LIVEZ).await.starts_with("HTTP/1.1 200"));
    assert_eq!(read_to_close(&mut slow).await, "");
    assert!(started.elapsed() >= Duration::from_millis(250));
}

#[tokio::test]
async fn a_silent_connection_and_a_kept_one_are_closed_when_idle() {
    let server = service(config()).await;
    let mut silent = server.connect().await;
    let mut kept = server.connect().await;
    kept.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(read_to_close(&mut silent).await, "");
    assert!(read_to_close(&mut kept).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_slow_body_is_answered_408() {
    let server = service(config()).await;
    let head = "POST /v1/ad-copy HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{";
    let answer = server.exchange(head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("/problems/body-timeout"), "{answer}");
}

#[tokio::test]
async fn a_client_that_still_sends_sees_why_it_was_refused() {
    let server = service(config()).await;
    let mut stream = server.connect().await;
    let head =
        "POST /v1/ad-copy HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 3000000\r\n\r\n";
    let mut request = head.as_bytes().to_vec();
    request.resize(request.len() + 3_000_000, b' ');
    stream.write_all(&request).await.unwrap();
    let answer = read_to_close(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn an_unread_response_is_cut_off_and_its_work_dropped() {
    let dropped = Arc::new(Notify::new());
    let on_drop = Arc::clone(&dropped);
    let app = Router::new().route("/", get(move || endless(Arc::clone(&on_drop))));
    let server = TestServer::start(app, config(), Drain::default()).await;
    let mut deaf = server.connect().await;
    deaf.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), dropped.notified()).await.expect("the body is dropped");
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_handler() {
    let dropped = Arc::new(Notify::new());
    let entered = Arc::new(Notify::new());
    let (on_drop, on_enter) = (Arc::clone(&dropped), Arc::clone(&entered));
    let handler = move || {
        let (guard, entered) = (NotifyOnDrop(Arc::clone(&on_drop)), Arc::clone(&on_enter));
        async move {
            let _guard = guard;
            entered.notify_one();
            std::future::pending::<()>().await;
        }
    };
    let server = TestServer::start(Router::new().route("/", post(handler)), config(), Drain::default()).await;
    let mut client = server.connect().await;
    client.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    entered.notified().await;
    drop(client);
    tokio::time::timeout(Duration::from_secs(10), dropped.notified()).await.expect("the handler is dropped");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let server = service(Config { max_connections: 1, idle_timeout_ms: 60_000, ..config() }).await;
    let mut first = server.connect().await;
    first.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    first.read_exact(&mut head).await.unwrap();
    let answer = read_to_close(&mut server.connect().await).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: "), "{answer}");
    assert!(answer.contains("/problems/overloaded"), "{answer}");
}

#[tokio::test]
async fn http2_without_tls_is_spoken() {
    let server = service(config()).await;
    let mut client = server.connect().await;
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00").await.unwrap();
    let mut frame = [0; 9];
    client.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame[3], 4, "the first frame holds settings");
}

#[tokio::test]
async fn a_drain_finishes_what_was_accepted_and_takes_no_more() {
    let (entered, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (on_enter, gate) = (Arc::clone(&entered), Arc::clone(&go_on));
    let handler = move || {
        let (entered, gate) = (Arc::clone(&on_enter), Arc::clone(&gate));
        async move {
            entered.notify_one();
            gate.notified().await;
            "finished"
        }
    };
    let server = TestServer::start(Router::new().route("/", get(handler)), config(), Drain::default()).await;
    let mut idle = server.connect().await;
    let mut client = server.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    entered.notified().await;
    server.drain.start();
    assert_eq!(read_to_close(&mut idle).await, "", "an idle connection is closed");
    assert!(tokio::net::TcpStream::connect(server.addr).await.is_err(), "no new connection is taken");
    go_on.notify_one();
    assert!(read_to_close(&mut client).await.ends_with("finished"));
    server.task.await.unwrap();
}

#[tokio::test]
async fn when_the_grace_is_over_a_request_gets_its_last_answer() {
    let server = service(Config { drain_grace_ms: 200, body_timeout_ms: 60_000, ..config() }).await;
    let mut client = server.connect().await;
    let head = "POST /v1/ad-copy HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\
                expect: 100-continue\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    // The server asks for the body: the handler runs.
    let mut interim = [0; 25];
    client.read_exact(&mut interim).await.unwrap();
    server.drain.start();
    let answer = read_to_close(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("/problems/draining"), "{answer}");
    server.task.await.unwrap();
}

struct NotifyOnDrop(Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

async fn endless(dropped: Arc<Notify>) -> Body {
    let guard = NotifyOnDrop(dropped);
    Body::from_stream(futures_util::stream::repeat_with(move || {
        let _held = &guard;
        Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[0; 65536]))
    }))
}
