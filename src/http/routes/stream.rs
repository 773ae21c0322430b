//! The event stream of a request: bounded in time, and always ended by one `done` or `error` event.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use serde::Serialize;
use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;

use crate::http::drain::Drain;
use crate::http::middleware::observe::RequestFacts;
use crate::http::problem::Problem;
use crate::http::request_id::RequestId;
use crate::http::state::AppState;
use crate::http::wire::ad_copy_answer::{DoneEvent, TokenEvent, VariantBody};
use crate::service::ad_copy::AdCopyEvent;

/// Dropping the response drops the receiver, which cancels the work.
pub fn respond(events: Receiver<AdCopyEvent>, state: &AppState, id: RequestId, facts: RequestFacts) -> Response {
    let config = state.http();
    let writer = Writer {
        events: Some(events),
        deadline: Instant::now() + config.request_timeout(),
        limit: config.request_timeout(),
        drain: state.drain().clone(),
        id,
        facts,
    };
    let keep_alive = KeepAlive::new().interval(config.sse_keep_alive());
    let mut response = Sse::new(writer.into_stream()).keep_alive(keep_alive).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Some proxies hold a response back unless told not to.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

struct Writer {
    /// Taken when the last event was written.
    events: Option<Receiver<AdCopyEvent>>,
    deadline: Instant,
    limit: Duration,
    drain: Drain,
    id: RequestId,
    facts: RequestFacts,
}

impl Writer {
    fn into_stream(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut writer| async move {
            let event = writer.next().await?;
            Some((Ok(event), writer))
        })
    }

    async fn next(&mut self) -> Option<Event> {
        let events = self.events.as_mut()?;
        let received = tokio::select! {
            biased;
            event = events.recv() => Ok(event),
            () = tokio::time::sleep_until(self.deadline) => {
                Err(Problem::request_timeout(self.limit.as_millis() as u64))
            }
            () = self.drain.closing() => Err(Problem::draining()),
        };
        Some(match received {
            Ok(Some(AdCopyEvent::Token { variant, field, text })) => {
                self.event("token", &TokenEvent { variant, field, text })
            }
            Ok(Some(AdCopyEvent::Variant(variant))) => self.event("variant", &VariantBody::from(*variant)),
            Ok(Some(AdCopyEvent::Done(answer))) => {
                self.events = None;
                self.facts.set_tokens(answer.usage.prompt_tokens, answer.usage.completion_tokens);
                self.event("done", &DoneEvent::from(*answer))
            }
            Ok(Some(AdCopyEvent::Failed(error))) => self.fail(error.into()),
            Ok(None) => self.fail(Problem::internal("the copy service ended without a last event")),
            Err(problem) => self.fail(problem),
        })
    }

    fn event(&mut self, name: &'static str, data: &impl Serialize) -> Event {
        match Event::default().event(name).json_data(data) {
            Ok(event) => event,
            Err(error) => self.fail(Problem::internal(format!("an event cannot be serialized: {error}"))),
        }
    }

    /// The last event of a stream that went wrong.
    fn fail(&mut self, problem: Problem) -> Event {
        self.events = None;
        let body = serde_json::to_string(&problem.body(self.id.as_str())).unwrap_or_default();
        self.facts.set_stream_problem(problem);
        Event::default().event("error").data(body)
    }
}
