//! Who may come in: key, scope, rate, and room for one more request. Around the routes under `/v1` only.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use super::observe::RequestFacts;
use crate::http::auth::{Principal, Scope};
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
    response.map(|inner| Body::new(PermittedBody { inner, _permit: permit }))
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

struct PermittedBody {
    inner: Body,
    _permit: OwnedSemaphorePermit,
}

impl hyper::body::Body for PermittedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
