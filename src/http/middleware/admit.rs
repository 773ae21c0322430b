//! Who may come in: key, scope, rate, and room for one more request. Around the routes under `/v1` only.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::OwnedSemaphorePermit;

use super::observe::RequestFacts;
use crate::http::auth::{Principal, Scope};
use crate::http::held_body::HeldBody;
use crate::http::problem::Problem;
use crate::http::state::AppState;

/// Lets a request with the scope `generate` pass.
pub async fn generate(State(state): State<AppState>, request: Request, next: Next) -> Response {
    admit(&state, Scope::Generate, request, next).await
}

/// Lets a request with the scope `read` pass.
pub async fn read(State(state): State<AppState>, request: Request, next: Next) -> Response {
    admit(&state, Scope::Read, request, next).await
}

async fn admit(state: &AppState, scope: Scope, mut request: Request, next: Next) -> Response {
    let (principal, permit) = match enter(state, scope, &request) {
        Ok(entered) => entered,
        Err(problem) => return problem.into_response(),
    };
    request.extensions_mut().insert(principal);
    let response = next.run(request).await;
    // A stream holds its place until it ends.
    response.map(|inner| Body::new(HeldBody::new(inner, permit)))
}

fn enter(state: &AppState, scope: Scope, request: &Request) -> Result<(Principal, OwnedSemaphorePermit), Problem> {
    let authenticator = state.authenticator();
    let principal = authenticator.authenticate(request.headers())?;
    if let Some(facts) = request.extensions().get::<RequestFacts>() {
        facts.set_key(principal.name());
    }
    principal.require(scope)?;
    authenticator.admit(&principal)?;
    let permit = Arc::clone(state.in_flight())
        .try_acquire_owned()
        .map_err(|_| Problem::too_many_in_flight(state.http().max_in_flight))?;
    Ok((principal, permit))
}
