//! The outermost layer: request id, one log line and the metrics of each request, and the bodies of problems.
//!
//! A request ends when its body was sent or dropped, so the figures of a stream cover the whole stream. Bodies, queries
//! and keys are never logged.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Body as _, Frame, SizeHint};

use crate::http::problem::Problem;
use crate::http::request_id::{self, RequestId};
use crate::telemetry::metrics::{HTTP_REQUEST_SECONDS, HTTP_REQUESTS_IN_FLIGHT, HTTP_REQUESTS_TOTAL};

/// What only handlers learn, for the log line. In the request's extensions.
#[derive(Debug, Clone, Default)]
pub struct RequestFacts {
    shared: Arc<Facts>,
}

#[derive(Debug, Default)]
struct Facts {
    key: OnceLock<String>,
    /// Prompt and completion tokens.
    tokens: OnceLock<(usize, usize)>,
    /// The problem that ended a stream, which its status cannot tell.
    stream_problem: OnceLock<Problem>,
}

impl RequestFacts {
    pub fn set_key(&self, name: &str) {
        // The first one stays; a request has one key.
        let _ = self.shared.key.set(name.to_owned());
    }

    pub fn set_tokens(&self, prompt: usize, completion: usize) {
        let _ = self.shared.tokens.set((prompt, completion));
    }

    pub fn set_stream_problem(&self, problem: Problem) {
        let _ = self.shared.stream_problem.set(problem);
    }
}

/// Unmatched paths share one label: callers must not be able to make labels.
const UNMATCHED: &str = "<unmatched>";
/// Logged when the client left before there was a response.
const CLIENT_CLOSED: u16 = 499;

pub async fn observe(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let facts = RequestFacts::default();
    let mut record = Record {
        id: id.clone(),
        facts: facts.clone(),
        method: method_label(request.method()),
        route: request.extensions().get::<MatchedPath>().cloned(),
        started: Instant::now(),
        status: CLIENT_CLOSED,
        bytes: 0,
        complete: false,
        problem: None,
    };
    metrics::gauge!(HTTP_REQUESTS_IN_FLIGHT).increment(1.0);
    request.extensions_mut().insert(id.clone());
    request.extensions_mut().insert(facts);
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        // Headers that other layers added, such as Allow, stay.
        let (parts, body) = problem.respond(id.as_str()).into_parts();
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().extend(parts.headers);
        *response.body_mut() = body;
        record.problem = Some(problem);
    }
    record.status = response.status().as_u16();
    let headers = response.headers_mut();
    if let Some(value) = id.header_value() {
        headers.insert(request_id::HEADER, value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::REFERRER_POLICY).or_insert(HeaderValue::from_static("no-referrer"));
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    response.map(|inner| {
        // hyper does not ask an empty body for its end.
        record.complete = inner.is_end_stream();
        Body::new(ObservedBody { inner, record })
    })
}

/// Everything of one request's line; written when dropped.
struct Record {
    id: RequestId,
    facts: RequestFacts,
    method: &'static str,
    route: Option<MatchedPath>,
    started: Instant,
    status: u16,
    bytes: u64,
    complete: bool,
    problem: Option<Problem>,
}

impl Drop for Record {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        let route = self.route.as_ref().map_or(UNMATCHED, MatchedPath::as_str).to_owned();
        metrics::gauge!(HTTP_REQUESTS_IN_FLIGHT).decrement(1.0);
        metrics::histogram!(HTTP_REQUEST_SECONDS, "route" => route.clone()).record(elapsed.as_secs_f64());
        let status = self.status.to_string();
        let labels = [("route", route.clone()), ("method", self.method.to_owned()), ("status", status)];
        metrics::counter!(HTTP_REQUESTS_TOTAL, &labels).increment(1);
        let facts = &self.facts.shared;
        let problem = facts.stream_problem.get().or(self.problem.as_ref());
        let cause = problem.and_then(Problem::cause);
        let tokens = facts.tokens.get();
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    id = self.id.as_str(),
                    method = self.method,
                    route,
                    status = self.status,
                    ms = elapsed.as_secs_f64() * 1e3,
                    bytes = self.bytes,
                    complete = self.complete,
                    key = facts.key.get().map(String::as_str).filter(|name| !name.is_empty()),
                    prompt_tokens = tokens.map(|(prompt, _)| prompt),
                    completion_tokens = tokens.map(|(_, completion)| completion),
                    problem = problem.map(Problem::slug),
                    cause,
                    "request"
                )
            };
        }
        match cause {
            Some(_) => line!(error),
            None => line!(info),
        }
    }
}

struct ObservedBody {
    inner: Body,
    record: Record,
}

impl hyper::body::Body for ObservedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.record.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                // With a known length hyper stops at the last byte and never sees the end.
                self.record.complete = self.inner.is_end_stream();
            }
            Poll::Ready(None) => self.record.complete = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Callers may invent methods; labels are the known ones.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}
