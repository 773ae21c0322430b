//! The Prometheus recorder: buckets, descriptions, upkeep and the text that `/metrics` serves.

use std::time::Duration;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use thiserror::Error;

/// Counter of answered requests, by `route`, `method` and `status`.
pub const HTTP_REQUESTS_TOTAL: &str = "adquill_http_requests_total";
/// Histogram of the time from headers to the body's end, by `route`.
pub const HTTP_REQUEST_SECONDS: &str = "adquill_http_request_seconds";
/// Gauge of requests in progress.
pub const HTTP_REQUESTS_IN_FLIGHT: &str = "adquill_http_requests_in_flight";
/// Gauge of open connections.
pub const HTTP_CONNECTIONS: &str = "adquill_http_connections";
/// Counter of connections ended by the server, by `reason`.
pub const HTTP_CONNECTIONS_CLOSED_TOTAL: &str = "adquill_http_connections_closed_total";

/// From one decode step of a small model to a long request, in seconds.
const SECONDS_BUCKETS: [f64; 17] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0];
/// Token counts of a prompt or an answer.
const TOKENS_BUCKETS: [f64; 12] = [1.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 8192.0];
/// Sequences in one step.
const SIZE_BUCKETS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];
/// Samples wait in memory until they are drained; without upkeep they pile up when nobody scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug, Error)]
pub enum MetricsError {
    /// Also when a recorder is there already.
    #[error("the metrics recorder cannot be installed")]
    Install(#[source] BuildError),
}

/// Handle to the installed recorder. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// Installs the recorder of this process. Once only.
    ///
    /// # Errors
    /// See [`MetricsError`].
    pub fn install() -> Result<Self, MetricsError> {
        let handle = builder().and_then(PrometheusBuilder::install_recorder).map_err(MetricsError::Install)?;
        describe();
        Ok(Self { handle })
    }

    /// All metrics in the Prometheus text format.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Drains samples every few seconds, for ever. Run it as a task for as long as the process serves.
    pub async fn run_upkeep(self) {
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.handle.run_upkeep();
        }
    }
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_tokens".to_owned()), &TOKENS_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_size".to_owned()), &SIZE_BUCKETS)
}

fn describe() {
    describe_counter!(HTTP_REQUESTS_TOTAL, "Answered HTTP requests; status 499: the client left first");
    describe_histogram!(HTTP_REQUEST_SECONDS, Unit::Seconds, "From a request's headers to the end of its response");
    describe_gauge!(HTTP_REQUESTS_IN_FLIGHT, "HTTP requests in progress");
    describe_gauge!(HTTP_CONNECTIONS, "Open HTTP connections");
    describe_counter!(HTTP_CONNECTIONS_CLOSED_TOTAL, "Connections that the server ended before the client did");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_get_buckets_and_not_quantiles() {
        let recorder = builder().unwrap().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            metrics::histogram!(HTTP_REQUEST_SECONDS, "route" => "/v1/ad-copy").record(0.3);
        });
        let text = recorder.handle().render();
        assert!(text.contains("adquill_http_request_seconds_bucket{route=\"/v1/ad-copy\",le=\"0.25\"} 0"), "{text}");
        assert!(text.contains("adquill_http_request_seconds_bucket{route=\"/v1/ad-copy\",le=\"0.5\"} 1"), "{text}");
    }
}
