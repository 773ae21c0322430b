//! Settings of the HTTP side: addresses, limits and timeouts. Knows nothing of files or the environment.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The `http` section. Every limit has a default that suits one machine behind a load balancer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen. Port 0 takes a free one.
    pub addr: SocketAddr,
    /// A second listener for health and metrics only; `/metrics` then leaves the first.
    pub admin_addr: Option<SocketAddr>,
    /// Open connections at most, over both listeners each; one more is answered `503` and closed.
    pub max_connections: usize,
    /// Requests under `/v1` in progress at most; one more is answered `503`.
    pub max_in_flight: usize,
    /// Concurrent HTTP/2 streams of one connection.
    pub max_http2_streams: u32,
    /// From a request's first byte, or a fresh HTTP/1 connection's, until its headers are complete.
    pub header_timeout_ms: u64,
    /// A connection without a request in progress is closed after this, also one that never sent a byte.
    pub idle_timeout_ms: u64,
    /// A request's body is complete after this, counted from its headers.
    pub body_timeout_ms: u64,
    /// A client that takes no byte of a response for this long is cut off.
    pub write_timeout_ms: u64,
    /// A request is answered, a stream ended, after this at the latest. Caps every `deadline_ms`.
    pub request_timeout_ms: u64,
    /// JSON bodies at most, in bytes.
    pub max_body_bytes: usize,
    /// Bytes of a request's line and headers at most, over all headers.
    pub max_header_bytes: usize,
    /// Path and query at most, in bytes.
    pub max_uri_bytes: usize,
    /// A comment is sent into a silent event stream after this, so that proxies keep it open.
    pub sse_keep_alive_ms: u64,
    /// On shutdown: readiness is off, but connections are still accepted for this long. Lets a load balancer notice.
    pub drain_delay_ms: u64,
    /// On shutdown: accepted requests may take this long to finish; what remains gets a final error.
    pub drain_grace_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            addr: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
            admin_addr: None,
            max_connections: 1024,
            max_in_flight: 256,
            max_http2_streams: 128,
            header_timeout_ms: 10_000,
            idle_timeout_ms: 30_000,
            body_timeout_ms: 15_000,
            write_timeout_ms: 20_000,
            request_timeout_ms: 60_000,
            max_body_bytes: 1024 * 1024,
            max_header_bytes: 64 * 1024,
            max_uri_bytes: 8 * 1024,
            sse_keep_alive_ms: 15_000,
            drain_delay_ms: 0,
            drain_grace_ms: 25_000,
        }
    }
}

/// The smallest header buffer that hyper takes.
const MIN_HEADER_BYTES: usize = 8 * 1024;

impl Config {
    /// Every mistake in the values: the key below `http.`, and a message that states limit and given value.
    pub fn mistakes(&self) -> Vec<(&'static str, String)> {
        let mut mistakes = Vec::new();
        let mut at_least = |key: &'static str, given: u64, least: u64| {
            if given < least {
                mistakes.push((key, format!("must be at least {least}, not {given}")));
            }
        };
        at_least("max_connections", self.max_connections as u64, 1);
        at_least("max_in_flight", self.max_in_flight as u64, 1);
        at_least("max_http2_streams", u64::from(self.max_http2_streams), 1);
        at_least("header_timeout_ms", self.header_timeout_ms, 1);
        at_least("idle_timeout_ms", self.idle_timeout_ms, 1);
        at_least("body_timeout_ms", self.body_timeout_ms, 1);
        at_least("write_timeout_ms", self.write_timeout_ms, 1);
        at_least("request_timeout_ms", self.request_timeout_ms, 1);
        at_least("max_body_bytes", self.max_body_bytes as u64, 1024);
        at_least("max_header_bytes", self.max_header_bytes as u64, MIN_HEADER_BYTES as u64);
        at_least("max_uri_bytes", self.max_uri_bytes as u64, 64);
        at_least("sse_keep_alive_ms", self.sse_keep_alive_ms, 100);
        // A semaphore holds no more permits than this.
        for (key, given) in [("max_connections", self.max_connections), ("max_in_flight", self.max_in_flight)] {
            let most = tokio::sync::Semaphore::MAX_PERMITS;
            if given > most {
                mistakes.push((key, format!("must be at most {most}, not {given}")));
            }
        }
        mistakes
    }

    pub(super) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    pub(super) fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms)
    }

    pub(super) fn sse_keep_alive(&self) -> Duration {
        Duration::from_millis(self.sse_keep_alive_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn the_defaults_hold_no_mistake() {
        assert_eq!(Config::default().mistakes(), Vec::new());
    }

    #[test]
    fn every_mistake_is_reported_with_its_key_and_value() {
        let config = Config { max_connections: 0, max_header_bytes: 100, ..Config::default() };
        let mistakes = config.mistakes();
        assert_eq!(mistakes[0], ("max_connections", "must be at least 1, not 0".to_owned()));
        assert_eq!(mistakes[1], ("max_header_bytes", "must be at least 8192, not 100".to_owned()));
    }
}
