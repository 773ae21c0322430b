//! `GET /v1/models`.

use axum::Json;
use axum::extract::State;

use crate::engine::request::Readiness;
use crate::http::openapi::ReadProblems;
use crate::http::state::AppState;
use crate::http::wire::models::{ModelBody, ModelsAnswer};

/// Lists the models of this server; none while it loads.
#[utoipa::path(get, path = "/v1/models", tag = "models", responses(
    (status = 200, description = "The models", body = ModelsAnswer),
    ReadProblems,
))]
pub async fn list(State(state): State<AppState>) -> Json<ModelsAnswer> {
    let ready = state.generator().readiness() == Readiness::Ready;
    let models = state.generator().model().map(|model| ModelBody::new(model, ready));
    Json(ModelsAnswer { models: models.into_iter().collect() })
}
