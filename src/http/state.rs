//! What handlers and middleware share: services, limits and the drain. Cheap to clone.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::auth::{self, Authenticator};
use super::config::Config;
use super::drain::Drain;
use crate::engine::request::Generator;
use crate::service::ad_copy::AdCopyService;
use crate::telemetry::metrics::Metrics;

/// Everything the routes need.
#[derive(Clone)]
pub struct AppState {
    shared: Arc<Shared>,
}

struct Shared {
    ad_copy: AdCopyService,
    generator: Arc<dyn Generator>,
    authenticator: Authenticator,
    metrics: Option<Metrics>,
    drain: Drain,
    http: Config,
    in_flight: Arc<Semaphore>,
}

impl AppState {
    /// `generator` is asked for readiness and models only; copy is written through the service. Without `metrics`,
    /// `/metrics` is empty.
    ///
    /// # Errors
    /// Every key that cannot be used, see [`auth::KeyError`].
    pub fn new(
        ad_copy: AdCopyService,
        generator: Arc<dyn Generator>,
        metrics: Option<Metrics>,
        drain: Drain,
        http: Config,
        auth: &auth::Config,
    ) -> Result<Self, Vec<auth::KeyError>> {
        let authenticator = Authenticator::new(auth)?;
        let in_flight = Arc::new(Semaphore::new(http.max_in_flight.min(Semaphore::MAX_PERMITS)));
        Ok(Self { shared: Arc::new(Shared { ad_copy, generator, authenticator, metrics, drain, http, in_flight }) })
    }

    pub fn ad_copy(&self) -> &AdCopyService {
        &self.shared.ad_copy
    }

    pub fn generator(&self) -> &dyn Generator {
        self.shared.generator.as_ref()
    }

    pub fn drain(&self) -> &Drain {
        &self.shared.drain
    }

    pub fn http(&self) -> &Config {
        &self.shared.http
    }

    pub(super) fn authenticator(&self) -> &Authenticator {
        &self.shared.authenticator
    }

    pub(super) fn metrics(&self) -> Option<&Metrics> {
        self.shared.metrics.as_ref()
    }

    /// One permit for each request in progress under `/v1`.
    pub(super) fn in_flight(&self) -> &Arc<Semaphore> {
        &self.shared.in_flight
    }
}
