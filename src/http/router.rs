//! Joins routes and middleware.

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::middleware::{admit, guard, observe};
use super::routes::{ad_copy, docs, fallback, health, models};
use super::state::AppState;

/// The service: everything of the contract. `/metrics` is left out when a second listener serves it.
pub fn router(state: &AppState) -> Router {
    let (api, _) = api(state).split_for_parts();
    let operations = operations();
    let router = match state.http().admin_addr {
        Some(_) => api.merge(operations),
        None => api.merge(operations).merge(metrics()),
    };
    let router = router
        .route("/", get(docs::root))
        .route("/openapi.json", get(docs::document))
        .route("/docs", get(docs::root))
        .route("/docs/", get(docs::index))
        .route("/docs/{*path}", get(docs::asset));
    finish(router, state)
}

/// Health and metrics only, for the second listener.
pub fn admin_router(state: &AppState) -> Router {
    finish(operations().merge(metrics()), state)
}

/// Every documented route, without state: the OpenAPI document is made of these.
pub(super) fn documented() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(ad_copy::write))
        .routes(routes!(models::list))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
}

fn api(state: &AppState) -> OpenApiRouter<AppState> {
    let generate = from_fn_with_state(state.clone(), admit::generate);
    let read = from_fn_with_state(state.clone(), admit::read);
    let write = OpenApiRouter::new().routes(routes!(ad_copy::write)).route_layer(generate);
    write.merge(OpenApiRouter::new().routes(routes!(models::list)).route_layer(read))
}

fn operations() -> Router<AppState> {
    Router::new().route("/livez", get(health::livez)).route("/readyz", get(health::readyz))
}

fn metrics() -> Router<AppState> {
    Router::new().route("/metrics", get(health::metrics))
}

fn finish(router: Router<AppState>, state: &AppState) -> Router {
    router
        .fallback(fallback::not_found)
        .method_not_allowed_fallback(fallback::method_not_allowed)
        .layer(from_fn_with_state(state.clone(), guard::guard))
        .layer(from_fn(observe::observe))
        .with_state(state.clone())
}
