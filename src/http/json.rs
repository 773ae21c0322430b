//! The body extractor: JSON in, a domain value out, or one problem that lists everything wrong with it.
//!
//! Refuses in this order: not JSON by its content type (415), too large (413, before reading when announced), too slow
//! (408), not well-formed (400), fields that do not fit (422, all of them). Knows no request type in particular.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::config::Config;
use super::fields::{self, FieldErrors};
use super::problem::Problem;
use super::state::AppState;

/// What a body means, once its JSON has the right types.
pub trait Wire: DeserializeOwned {
    type Domain;

    /// Checks every field and converts. `None` only after at least one error was added.
    fn parse(self, errors: &mut FieldErrors) -> Option<Self::Domain>;
}

/// A valid body, converted.
#[derive(Debug)]
pub struct ApiJson<W: Wire>(pub W::Domain);

impl<W: Wire> FromRequest<AppState> for ApiJson<W> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        check_content_type(request.headers())?;
        let bytes = read(request, state.http()).await?;
        parse_json::<W>(&bytes).map(Self)
    }
}

/// Parses a whole body.
///
/// # Errors
/// 400 when it is not one JSON value, 422 with every invalid field otherwise.
pub fn parse_json<W: Wire>(bytes: &[u8]) -> Result<W::Domain, Problem> {
    let value = parse_value(bytes)?;
    if !value.is_object() {
        let mut errors = FieldErrors::default();
        errors.add("", format!("the body must be an object, not {}", fields::kind_of(&value)));
        return Err(Problem::invalid_fields(errors.into_vec()));
    }
    let mut errors = FieldErrors::default();
    let domain = fields::decode::<W>(value, &mut errors).and_then(|wire| wire.parse(&mut errors));
    match domain {
        Some(domain) if errors.is_empty() => Ok(domain),
        _ => Err(Problem::invalid_fields(errors.into_vec())),
    }
}

fn parse_value(bytes: &[u8]) -> Result<Value, Problem> {
    if bytes.is_empty() {
        return Err(Problem::malformed_body("the body is empty"));
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(Problem::malformed_body("the body begins with a byte order mark; send plain UTF-8"));
    }
    if let Err(error) = std::str::from_utf8(bytes) {
        return Err(Problem::malformed_body(format!("the body is not UTF-8 from byte {} on", error.valid_up_to())));
    }
    // serde_json refuses more than 128 levels, so depth cannot exhaust the stack.
    serde_json::from_slice(bytes).map_err(|error| Problem::malformed_body(error.to_string()))
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Err(Problem::unsupported_media_type(None));
    };
    let given = String::from_utf8_lossy(value.as_bytes());
    let mut parts = given.split(';');
    let essence = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json") && essence.len() > 17);
    let is_utf8 = parts.all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            let charset = value.trim().trim_matches('"');
            charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("utf8")
        }
        _ => true,
    });
    if is_json && is_utf8 {
        return Ok(());
    }
    Err(Problem::unsupported_media_type(Some(&given.chars().take(100).collect::<String>())))
}

async fn read(request: Request, config: &Config) -> Result<Bytes, Problem> {
    let limit = config.max_body_bytes;
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if let Some(length) = announced.and_then(|length| length.parse::<u64>().ok())
        && length > limit as u64
    {
        return Err(Problem::body_too_large(limit, Some(length)));
    }
    let body = Limited::new(request.into_body(), limit);
    match tokio::time::timeout(config.body_timeout(), collect(body)).await {
        Err(_) => Err(Problem::body_timeout(config.body_timeout_ms)),
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::body_too_large(limit, None)),
        // The client is gone or broke the framing; nobody reads this answer.
        Ok(Err(_)) => Err(Problem::malformed_body("the body ended before it was complete")),
    }
}

async fn collect(body: Limited<Body>) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    Ok(body.collect().await?.to_bytes())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    #[derive(Default)]
    struct Order {
        name: Option<String>,
        tags: Vec<String>,
        #[serde(deserialize_with = "fields::integer")]
        count: Option<u64>,
    }

    impl Wire for Order {
        type Domain = Order;

        fn parse(self, errors: &mut FieldErrors) -> Option<Order> {
            let count = errors.range("/count", self.count, 1, 20);
            errors.texts("/tags", self.tags.clone(), 3, 4);
            Some(Order { count, ..self })
        }
    }

    fn problems(json: &str) -> Vec<(String, String)> {
        let body = parse_json::<Order>(json.as_bytes()).unwrap_err().body("id");
        body.errors.into_iter().map(|error| (error.pointer, error.detail)).collect()
    }

    #[test]
    fn everything_wrong_is_listed_at_once() {
        let found = problems(r#"{"nmae": 1, "tags": ["ok", 5, "long one", 7], "count": 21}"#);
        let pointers: Vec<&str> = found.iter().map(|(pointer, _)| pointer.as_str()).collect();
        assert_eq!(pointers, ["/nmae", "/tags/1", "/tags/3", "/count", "/tags/2"]);
        assert_eq!(found[0].1, "no such field; did you mean \"name\"?");
        assert_eq!(found[3].1, "must be from 1 to 20, not 21");
    }

    #[test]
    fn a_whole_number_with_a_fraction_of_zero_is_an_integer() {
        assert_eq!(parse_json::<Order>(br#"{"count": 1.0}"#).unwrap().count, Some(1));
        assert_eq!(problems(r#"{"count": 1.5}"#)[0].1, "must be an integer, not 1.5");
        assert_eq!(problems(r#"{"count": -1}"#)[0].1, "must not be negative, not -1");
        assert_eq!(problems(r#"{"count": 1e300}"#)[0].0, "/count");
    }

    #[test]
    fn malformed_bodies_are_400_with_a_place() {
        let deep = "[".repeat(100_000);
        for (body, part) in [
            ("", "empty"),
            ("{\"a\": 1,}", "line 1 column 9"),
            ("{} x", "trailing characters"),
            ("\u{feff}{}", "byte order mark"),
            (deep.as_str(), "recursion limit"),
            ("{\"count\": 1e999}", "out of range"),
        ] {
            let problem = parse_json::<Order>(body.as_bytes()).unwrap_err();
            assert_eq!(problem.status().as_u16(), 400);
            assert!(problem.body("").detail.contains(part), "{problem:?}");
        }
        assert!(parse_json::<Order>(b"{\"name\": \"\xff\"}").unwrap_err().body("").detail.contains("byte 10"));
    }

    #[test]
    fn a_body_that_is_no_object_is_named() {
        assert_eq!(problems("[1]"), [(String::new(), "the body must be an object, not an array".to_owned())]);
    }

    #[test]
    fn the_content_type_must_be_json_in_utf8() {
        let check = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
            check_content_type(&headers).map_err(|problem| problem.status().as_u16())
        };
        assert_eq!(check("application/json; charset=UTF-8"), Ok(()));
        assert_eq!(check("application/vnd.ads+json"), Ok(()));
        assert_eq!(check("text/plain"), Err(415));
        assert_eq!(check("application/json; charset=gbk"), Err(415));
        assert_eq!(check("application/+json"), Err(415));
    }
}
