//! Keeps a handler from failing badly: too long a URI, a panic, no end.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;

use crate::http::problem::Problem;
use crate::http::state::AppState;

/// Answers for a handler that panics, takes longer than the overall bound, or is still busy when a drain ends.
///
/// The bound ends at the response's head; a stream keeps it itself.
pub async fn guard(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let config = state.http();
    let uri_bytes = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    if uri_bytes > config.max_uri_bytes {
        return Problem::uri_too_long(config.max_uri_bytes, uri_bytes).into_response();
    }
    // The handler is not used again after a panic, so no broken state of it is seen.
    let handled = AssertUnwindSafe(next.run(request)).catch_unwind();
    tokio::select! {
        biased;
        handled = handled => handled
            .unwrap_or_else(|panic| Problem::internal(format!("a handler panicked: {}", message(&*panic))).into_response()),
        () = tokio::time::sleep(config.request_timeout()) => {
            Problem::request_timeout(config.request_timeout_ms).into_response()
        }
        () = state.drain().closing() => Problem::draining().into_response(),
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("of unknown type")
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::{from_fn, from_fn_with_state};
    use axum::routing::get;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::http::middleware::observe::observe;
    use crate::http::{Config, testing};

    #[tokio::test]
    async fn a_panic_is_a_500_with_a_fixed_text() {
        let state = testing::state(Config::default());
        let app = Router::new()
            .route(
                "/",
                get(async || {
                    if true {
                        panic!("secret of the handler")
                    }
                }),
            )
            .layer(from_fn_with_state(state, guard))
            .layer(from_fn(observe));
        let response = app.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status().as_u16(), 500);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(!String::from_utf8_lossy(&body).contains("secret"));
    }
}
