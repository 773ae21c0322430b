//! `POST /v1/ad-copy`, whole or as a stream.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use super::stream;
use crate::http::auth::Principal;
use crate::http::json::ApiJson;
use crate::http::middleware::observe::RequestFacts;
use crate::http::openapi::{self, WriteProblems};
use crate::http::problem::Problem;
use crate::http::request_id::RequestId;
use crate::http::state::AppState;
use crate::http::wire::ad_copy::AdCopyBody;
use crate::http::wire::ad_copy_answer::{AdCopyAnswer, SseEvent};

/// Left to the service before the overall bound, so that its fallback can still answer.
const MARGIN: Duration = Duration::from_millis(500);

/// Writes ad copy for one product.
///
/// With `"stream": true` or `accept: text/event-stream` the answer is an event stream.
#[utoipa::path(post, path = "/v1/ad-copy", tag = "copy",
    request_body(content = AdCopyBody, examples(
        ("whole" = (summary = "An object with everything", value = json!(openapi::example_request()))),
        ("short" = (summary = "A product in one string", value = json!({"product": "智能手机 | 高像素相机 | 强大处理器"}))),
    )),
    responses(
        (status = 200, description = "The copy", content(
            (AdCopyAnswer = "application/json", example = json!(openapi::example_answer())),
            (SseEvent = "text/event-stream"),
        )),
        WriteProblems,
    ))]
pub async fn write(
    State(state): State<AppState>,
    Extension(principal): Extension<Principal>,
    Extension(id): Extension<RequestId>,
    Extension(facts): Extension<RequestFacts>,
    headers: HeaderMap,
    ApiJson(call): ApiJson<AdCopyBody>,
) -> Result<Response, Problem> {
    let mut request = call.request;
    request.cache_scope = principal.cache_scope();
    let bound = state.http().request_timeout();
    let longest = bound.checked_sub(MARGIN).filter(|longest| !longest.is_zero()).unwrap_or(bound);
    request.deadline = request.deadline.map(|deadline| deadline.min(longest));
    if call.stream || accepts_events(&headers) {
        let events = state.ad_copy().stream(request)?;
        return Ok(stream::respond(events, &state, id, facts));
    }
    let answer = state.ad_copy().write(request).await?;
    facts.set_tokens(answer.usage.prompt_tokens, answer.usage.completion_tokens);
    Ok(Json(AdCopyAnswer::from(answer)).into_response())
}

/// The client names the media type of event streams, and does not refuse it.
fn accepts_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let named = parts.next().is_some_and(|range| range.eq_ignore_ascii_case("text/event-stream"));
        named && !parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_header_asks_for_a_stream_only_by_name() {
        let accepts = |value: &str| accepts_events(&HeaderMap::from_iter([(header::ACCEPT, value.parse().unwrap())]));
        assert!(accepts("text/event-stream"));
        assert!(accepts("application/json, Text/Event-Stream; q=0.5"));
        assert!(!accepts("*/*"));
        assert!(!accepts("text/event-stream;q=0, application/json"));
    }
}
