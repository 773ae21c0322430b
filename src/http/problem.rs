//! Problem details (RFC 9457), and the one place that knows which failure has which status code.
//!
//! The rule: 4xx is the caller's and must not be retried, except `429`, its own rate. `503` with `Retry-After` is ours
//! and passes. `504` is a deadline. `500` is anything else; its cause is for the log only.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::request::{GenerationError, Refusal};
use crate::service::ad_copy::AdCopyError;

/// The media type of every error body.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) into the request's body; empty: the whole body.
    #[schema(example = "/n")]
    pub pointer: String,
    #[schema(example = "must be from 1 to 20, not 21")]
    pub detail: String,
}

/// An error response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    kind: Kind,
    detail: String,
    errors: Vec<FieldError>,
    retry_after: Option<Duration>,
    headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<String>,
}

/// Every kind of failure that a client can meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    MalformedBody,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    BodyTimeout,
    BodyTooLarge,
    UriTooLong,
    UnsupportedMediaType,
    InvalidFields,
    RateLimited,
    Internal,
    QueueFull,
    NotReady,
    Draining,
    Overloaded,
    DeadlinePassed,
}

impl Kind {
    /// Status, slug of the type, title.
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::MalformedBody => (StatusCode::BAD_REQUEST, "malformed-body", "The body is not well-formed JSON"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", "A valid API key is required"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "The API key lacks the scope"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "Nothing is found here"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The method is not allowed here")
            }
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "body-timeout", "The body did not arrive in time"),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large"),
            Self::UriTooLong => (StatusCode::URI_TOO_LONG, "uri-too-long", "The URI is too long"),
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body must be JSON")
            }
            Self::InvalidFields => (StatusCode::UNPROCESSABLE_ENTITY, "invalid-fields", "Fields are invalid"),
            Self::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "rate-limited", "The client is over its rate"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
            Self::QueueFull => (StatusCode::SERVICE_UNAVAILABLE, "queue-full", "The queue is full"),
            Self::NotReady => (StatusCode::SERVICE_UNAVAILABLE, "not-ready", "The server is not ready"),
            Self::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining", "The server is shutting down"),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "The server is busy"),
            Self::DeadlinePassed => (StatusCode::GATEWAY_TIMEOUT, "deadline-passed", "The deadline passed"),
        }
    }
}

/// The wire form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// Names the kind of problem; stable.
    #[serde(rename = "type")]
    #[schema(example = "/problems/invalid-fields")]
    pub kind: String,
    #[schema(example = "Fields are invalid")]
    pub title: String,
    #[schema(example = 422, minimum = 400, maximum = 599)]
    pub status: u16,
    #[schema(example = "1 field is invalid")]
    pub detail: String,
    /// The request's id, as in `x-request-id`.
    #[schema(example = "0199d0a2-7c1e-7b52-9a0e-0d6d4c1f0a11")]
    pub instance: String,
    /// One entry for each invalid field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub errors: Vec<FieldError>,
}

impl Problem {
    fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), errors: Vec::new(), retry_after: None, headers: Vec::new(), cause: None }
    }

    fn retry(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    pub fn malformed_body(detail: impl Into<String>) -> Self {
        Self::new(Kind::MalformedBody, detail)
    }

    pub fn body_timeout(limit_ms: u64) -> Self {
        Self::new(Kind::BodyTimeout, format!("the body must arrive within {limit_ms} ms"))
    }

    /// `given_bytes` is known when the client announced it.
    pub fn body_too_large(limit_bytes: usize, given_bytes: Option<u64>) -> Self {
        let given = given_bytes.map(|given| format!(", not {given}")).unwrap_or_default();
        Self::new(Kind::BodyTooLarge, format!("the body may have at most {limit_bytes} bytes{given}"))
    }

    pub fn uri_too_long(limit_bytes: usize, given_bytes: usize) -> Self {
        let detail = format!("path and query may have at most {limit_bytes} bytes, not {given_bytes}");
        Self::new(Kind::UriTooLong, detail)
    }

    pub fn unsupported_media_type(given: Option<&str>) -> Self {
        let detail = match given {
            Some(given) => format!("content-type must be application/json in UTF-8, not {given:?}"),
            None => "content-type must be application/json; none is given".to_owned(),
        };
        Self::new(Kind::UnsupportedMediaType, detail)
    }

    pub fn invalid_fields(errors: Vec<FieldError>) -> Self {
        let detail = match errors.len() {
            1 => "1 field is invalid".to_owned(),
            count => format!("{count} fields are invalid"),
        };
        Self { errors, ..Self::new(Kind::InvalidFields, detail) }
    }

    fn invalid_field(pointer: &str, detail: String) -> Self {
        Self::invalid_fields(vec![FieldError { pointer: pointer.to_owned(), detail }])
    }

    pub fn unauthorized(detail: &'static str) -> Self {
        let challenge = HeaderValue::from_static("Bearer realm=\"adquill\"");
        Self { headers: vec![(header::WWW_AUTHENTICATE, challenge)], ..Self::new(Kind::Unauthorized, detail) }
    }

    pub fn forbidden(scope: &'static str) -> Self {
        Self::new(Kind::Forbidden, format!("this needs a key with the scope {scope:?}"))
    }

    pub fn not_found(path: &str) -> Self {
        Self::new(Kind::NotFound, format!("nothing is found at {path:?}"))
    }

    /// The `Allow` header is added by the router.
    pub fn method_not_allowed(method: &str) -> Self {
        Self::new(Kind::MethodNotAllowed, format!("{method} is not allowed here; the allow header lists what is"))
    }

    pub fn rate_limited(requests_per_minute: u32, retry_after: Duration) -> Self {
        let detail = format!("this client may send {requests_per_minute} requests a minute");
        Self::new(Kind::RateLimited, detail).retry(retry_after)
    }

    pub fn too_many_in_flight(limit: usize) -> Self {
        let detail = format!("{limit} requests are in progress, no more are taken");
        Self::new(Kind::Overloaded, detail).retry(spread_retry())
    }

    pub fn too_many_connections(limit: usize) -> Self {
        let detail = format!("{limit} connections are open, no more are taken");
        Self::new(Kind::Overloaded, detail).retry(spread_retry())
    }

    pub fn not_ready(reason: impl Into<String>) -> Self {
        Self::new(Kind::NotReady, reason).retry(spread_retry())
    }

    pub fn draining() -> Self {
        Self::new(Kind::Draining, "the server is shutting down; another may answer").retry(spread_retry())
    }

    /// The overall bound on a request passed.
    pub fn request_timeout(limit_ms: u64) -> Self {
        Self::new(Kind::DeadlinePassed, format!("the request was not answered within {limit_ms} ms"))
    }

    /// `cause` goes to the log, never to the client.
    pub fn internal(cause: impl Into<String>) -> Self {
        let problem = Self::new(Kind::Internal, "something failed on our side; the log has it under this request's id");
        Self { cause: Some(cause.into()), ..problem }
    }

    pub fn status(&self) -> StatusCode {
        self.kind.parts().0
    }

    /// Stable name of the kind, e.g. `queue-full`.
    pub fn slug(&self) -> &'static str {
        self.kind.parts().1
    }

    /// For the log only.
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// The wire form; `instance` is the request's id.
    pub fn body(&self, instance: &str) -> ProblemBody {
        let (status, slug, title) = self.kind.parts();
        ProblemBody {
            kind: format!("/problems/{slug}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.detail.clone(),
            instance: instance.to_owned(),
            errors: self.errors.clone(),
        }
    }

    /// The complete response.
    pub fn respond(&self, instance: &str) -> Response<Body> {
        // Serialization of strings and numbers into memory does not fail; an empty body would still be a valid answer.
        let body = serde_json::to_vec(&self.body(instance)).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        self.add_headers(headers);
        response
    }

    /// For a connection that is refused before any request is read: a whole HTTP/1.1 response.
    pub fn respond_raw(&self, instance: &str) -> Vec<u8> {
        let body = serde_json::to_string(&self.body(instance)).unwrap_or_default();
        let retry = self.retry_after.map_or_else(|| 1, seconds);
        format!(
            "HTTP/1.1 {}\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {}\r\nretry-after: {retry}\r\n\
             x-request-id: {instance}\r\nconnection: close\r\n\r\n{body}",
            self.status(),
            body.len(),
        )
        .into_bytes()
    }

    fn add_headers(&self, headers: &mut HeaderMap) {
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds(after)));
        }
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
    }
}

/// The problem travels in the response's extensions: the outermost layer knows the request's id and renders the body.
impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<AdCopyError> for Problem {
    fn from(error: AdCopyError) -> Self {
        let detail = error.to_string();
        match error {
            AdCopyError::Refused(refusal) => refusal.into(),
            AdCopyError::Generation(error) => error.into(),
            AdCopyError::DeadlinePassed { .. } => Self::new(Kind::DeadlinePassed, detail),
            AdCopyError::UnknownChannel { .. } => Self::invalid_field("/channel", detail),
            AdCopyError::UnknownBrandKit { .. } => Self::invalid_field("/brand_kit", detail),
            AdCopyError::LanguageUnsupported { .. } => Self::invalid_field("/language", detail),
            AdCopyError::NothingUsable { .. } => {
                Self::invalid_field("/fallback", format!("{detail}; \"template\" would have answered"))
            }
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::QueueFull { retry_after, .. } => Self::new(Kind::QueueFull, detail).retry(retry_after),
            Refusal::NotReady { retry_after, .. } => Self::new(Kind::NotReady, detail).retry(retry_after),
            Refusal::Draining => Self::draining(),
            Refusal::PromptTooLong { .. } => Self::invalid_field("/product", detail),
            Refusal::Prompt { .. } => Self::internal(detail),
        }
    }
}

impl From<GenerationError> for Problem {
    fn from(error: GenerationError) -> Self {
        let detail = error.to_string();
        match error {
            GenerationError::DeadlinePassed { .. } => Self::new(Kind::DeadlinePassed, detail),
            GenerationError::StepFailed => Self::internal(detail),
            GenerationError::Stopped => Self::not_ready(detail),
        }
    }
}

/// Whole seconds, never 0: a client that is told 0 comes back at once.
fn seconds(after: Duration) -> u64 {
    after.as_millis().div_ceil(1000).clamp(1, 3600) as u64
}

/// 1 to 5 s in turn, so that clients that are refused together do not return together.
fn spread_retry() -> Duration {
    static TURN: AtomicU64 = AtomicU64::new(0);
    Duration::from_secs(1 + TURN.fetch_add(1, Ordering::Relaxed) % 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(problem: impl Into<Problem>) -> u16 {
        problem.into().status().as_u16()
    }

    #[test]
    fn each_failure_has_the_status_of_the_contract() {
        let second = Duration::from_secs(1);
        assert_eq!(status(Refusal::QueueFull { waiting_tokens: 9, limit_tokens: 8, retry_after: second }), 503);
        assert_eq!(status(Refusal::NotReady { reason: "model loading".into(), retry_after: second }), 503);
        assert_eq!(status(Refusal::Draining), 503);
        assert_eq!(status(Refusal::PromptTooLong { tokens: 9, limit: 8 }), 422);
        assert_eq!(status(Refusal::Prompt { reason: String::new() }), 500);
        assert_eq!(status(GenerationError::DeadlinePassed { waited_ms: 1 }), 504);
        assert_eq!(status(GenerationError::StepFailed), 500);
        assert_eq!(status(GenerationError::Stopped), 503);
        assert_eq!(status(AdCopyError::DeadlinePassed { deadline_ms: 1 }), 504);
        assert_eq!(status(AdCopyError::UnknownChannel { given: "x".into(), suggestion: None }), 422);
        assert_eq!(status(AdCopyError::UnknownBrandKit { given: "x".into(), suggestion: None }), 422);
        assert_eq!(status(AdCopyError::LanguageUnsupported { model: "m".into(), language: "zh" }), 422);
        assert_eq!(status(AdCopyError::NothingUsable { candidates: 3 }), 422);
    }

    #[test]
    fn an_unknown_channel_points_at_the_field_and_names_the_nearest() {
        let error = AdCopyError::UnknownChannel { given: "gogle".into(), suggestion: Some("google_rsa".into()) };
        let body = Problem::from(error).body("id");
        assert_eq!(body.errors[0].pointer, "/channel");
        assert!(body.errors[0].detail.contains("google_rsa"), "{:?}", body.errors);
    }

    #[test]
    fn every_503_and_429_says_when_to_come_back() {
        for problem in [
            Problem::draining(),
            Problem::not_ready("x"),
            Problem::too_many_in_flight(1),
            Problem::from(Refusal::QueueFull { waiting_tokens: 1, limit_tokens: 1, retry_after: Duration::ZERO }),
            Problem::from(GenerationError::Stopped),
            Problem::rate_limited(1, Duration::from_millis(1001)),
        ] {
            let response = problem.respond("id");
            let after: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((1..=5).contains(&after), "{problem:?}: {after}");
        }
    }

    #[test]
    fn an_internal_cause_stays_out_of_the_body() {
        let problem = Problem::internal("secret path");
        assert_eq!(problem.cause(), Some("secret path"));
        assert!(!serde_json::to_string(&problem.body("id")).unwrap().contains("secret"));
    }
}
