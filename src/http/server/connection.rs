//! One connection, from accept to close.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::clock::{Clock, Timeouts};
use super::io::{SharedClock, WatchedStream};
use crate::http::config::Config;
use crate::http::held_body::HeldBody;
use crate::telemetry::metrics::HTTP_CONNECTIONS_CLOSED_TOTAL;

/// What every connection is held to.
#[derive(Clone)]
pub struct Limits {
    builder: Builder<TokioExecutor>,
    timeouts: Timeouts,
}

/// HTTP/1 headers of one request at most.
const MAX_HEADERS: usize = 100;
/// Bytes of responses that one HTTP/2 stream may hold for a slow client.
const HTTP2_SEND_BUFFER_BYTES: usize = 64 * 1024;

impl Limits {
    pub fn new(config: &Config) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        // The clock watches headers; hyper's own timeout would also close kept-alive connections that are merely idle.
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_headers(MAX_HEADERS)
            .max_buf_size(config.max_header_bytes);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(config.max_http2_streams)
            .max_header_list_size(u32::try_from(config.max_header_bytes).unwrap_or(u32::MAX))
            .max_send_buf_size(HTTP2_SEND_BUFFER_BYTES);
        let timeouts = Timeouts {
            header: Duration::from_millis(config.header_timeout_ms),
            idle: Duration::from_millis(config.idle_timeout_ms),
            write: Duration::from_millis(config.write_timeout_ms),
        };
        Self { builder, timeouts }
    }
}

/// Serves until the client leaves, a limit is passed, or, once `finishing` is cancelled, the last request is answered.
pub async fn serve(stream: TcpStream, router: Router, limits: Limits, finishing: CancellationToken) {
    // Tokens of a stream must not wait for more of them. A socket that refuses this works all the same.
    let _ = stream.set_nodelay(true);
    let clock = SharedClock::new(Clock::new(limits.timeouts, Instant::now()));
    let tick = clock.lock().tick();
    let io = TokioIo::new(WatchedStream::new(stream, clock.clone()));
    let requests = clock.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let running = Running::new(requests.clone());
        let router = router.clone();
        async move {
            let response = match router.oneshot(request.map(Body::new)).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            Ok::<_, Infallible>(response.map(|inner| HeldBody::new(inner, running)))
        }
    });
    let connection = limits.builder.serve_connection(io, service);
    tokio::pin!(connection);
    let mut is_finishing = false;
    let mut ticks = tokio::time::interval(tick);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            ended = &mut connection => {
                // The client's doing: broken framing, or gone.
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection failed");
                }
                return;
            }
            () = finishing.cancelled(), if !is_finishing => {
                is_finishing = true;
                connection.as_mut().graceful_shutdown();
            }
            _ = ticks.tick() => {
                let expired = clock.lock().expired(Instant::now());
                if let Some(expired) = expired {
                    metrics::counter!(HTTP_CONNECTIONS_CLOSED_TOTAL, "reason" => expired.as_str()).increment(1);
                    return;
                }
            }
        }
    }
}

/// A request in progress, until its response was sent or dropped.
struct Running(SharedClock);

impl Running {
    fn new(clock: SharedClock) -> Self {
        clock.lock().request_started();
        Self(clock)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().request_ended(Instant::now());
    }
}
