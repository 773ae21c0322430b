//! Liveness, readiness and metrics: public, and independent of load.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::request::Readiness;
use crate::http::problem::{Problem, ProblemBody};
use crate::http::state::AppState;

/// The state of the server.
#[derive(Debug, Serialize, ToSchema)]
pub struct Status {
    #[schema(example = "ready")]
    pub status: &'static str,
}

/// Says that the process runs and answers. Restart it when this fails.
#[utoipa::path(get, path = "/livez", tag = "operations", responses((status = 200, description = "It runs", body = Status)))]
pub async fn livez() -> Json<Status> {
    Json(Status { status: "alive" })
}

/// Says whether requests are taken: the model is loaded, makes progress, and no shutdown has begun.
#[utoipa::path(get, path = "/readyz", tag = "operations", responses(
    (status = 200, description = "Requests are taken", body = Status),
    (status = 503, description = "The reason is in `detail`, e.g. `model loading`",
     body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn readyz(State(state): State<AppState>) -> Result<Json<Status>, Problem> {
    if state.drain().is_started() {
        return Err(Problem::not_ready("draining"));
    }
    match state.generator().readiness() {
        Readiness::Ready => Ok(Json(Status { status: "ready" })),
        Readiness::NotReady(reason) => Err(Problem::not_ready(reason)),
    }
}

/// All metrics in the Prometheus text format.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses(
    (status = 200, description = "Prometheus text format", body = String, content_type = "text/plain"),
))]
pub async fn metrics(State(state): State<AppState>) -> Response {
    let text = state.metrics().map(crate::telemetry::metrics::Metrics::render).unwrap_or_default();
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}
