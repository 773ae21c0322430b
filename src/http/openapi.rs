//! The OpenAPI 3.1 document: what the routes say of themselves, and what they have in common.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, ObjectBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder, Type,
};
use utoipa::{IntoResponses, OpenApi as _};

use super::problem::{self, FieldError, ProblemBody};
use super::router;
use super::wire::ad_copy_answer::{DoneEvent, TokenEvent};

/// The request of the contract's example.
pub const EXAMPLE_REQUEST: &str = r#"{
  "product": {"name": "TrailLite 40", "brand": "Norrbo", "category": "hiking backpack",
              "attributes": ["waterproof", "900 g", "3-year warranty"],
              "price": "$89", "list_price": "$119", "offer": "free returns"},
  "audience": {"segment": "weekend hikers", "interests": ["camping"], "pain_points": ["heavy packs"]},
  "user_id": "u-17", "channel": "google_rsa.headline", "language": "en", "industry": "retail", "tone": "friendly",
  "keywords": ["backpack"], "banned_terms": ["cheap"], "n": 3,
  "sampling": {"temperature": 0.8, "top_p": 0.95, "top_k": 40, "repetition_penalty": 1.1, "seed": 7,
               "max_new_tokens": 64},
  "deadline_ms": 2000, "fallback": "template", "stream": false
}"#;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "AdQuill",
        description = "Marketing copy from a language model. Errors are problem details (RFC 9457).",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "copy", description = "Writing"),
        (name = "models", description = "Who writes"),
        (name = "operations", description = "Health and metrics"),
    ),
    components(schemas(ProblemBody, FieldError, TokenEvent, DoneEvent)),
)]
struct Base;

/// The document of this version.
pub fn openapi() -> OpenApi {
    let mut document = Base::openapi();
    document.merge(router::documented().into_openapi());
    let components = document.components.get_or_insert_default();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    let header = ApiKey::Header(ApiKeyValue::new("x-api-key"));
    components.add_security_scheme("api_key", SecurityScheme::ApiKey(header));
    for (path, item) in &mut document.paths.paths {
        let public = !path.starts_with("/v1/");
        for operation in [&mut item.get, &mut item.post, &mut item.put, &mut item.delete].into_iter().flatten() {
            let none: [&str; 0] = [];
            operation.security = Some(if public {
                Vec::new()
            } else {
                // The empty alternative: a server without keys asks for none.
                vec![
                    SecurityRequirement::new("bearer", none),
                    SecurityRequirement::new("api_key", none),
                    SecurityRequirement::default(),
                ]
            });
        }
    }
    document
}

/// As it is served and committed: pretty, with a last line break.
pub fn document() -> String {
    // Serialization of the document's own types into memory does not fail.
    let mut text = openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

pub(super) fn example_request() -> Value {
    serde_json::from_str(EXAMPLE_REQUEST).unwrap_or_default()
}

pub(super) fn example_answer() -> Value {
    json!({
        "id": "gen_0199d0a27c1e7b529a0e0d6d4c1f0a11", "created": "2026-01-01T00:00:00Z",
        "model": "smollm2-135m-instruct", "language": "en", "channel": "google_rsa.headline",
        "variants": [{
            "id": "var_0199d0a27c1e7b529a0e0d6d4c1f0a12", "fields": {"headline": "Dry gear, light shoulders"},
            "text": "Dry gear, light shoulders", "source": "model", "score": 0.83,
            "scores": {"coverage": 0.67, "fluency": 0.9, "novelty": 1.0, "fill": 0.83},
            "length": {"headline": {"count": 25, "max": 30, "unit": "display_width",
                                    "rule": "google_rsa.headline@2026-02"}},
            "policy": {"verdict": "allow", "findings": []},
            "grounding": {"facts_used": ["waterproof"], "ungrounded": []}, "finish_reason": "stop"
        }],
        "why": {"profile_features": [], "dropped": [{"reason": "near_duplicate", "count": 2}]},
        "seed": 7, "labels": {"ai_generated": true, "notice": "AI-generated"},
        "usage": {"prompt_tokens": 212, "completion_tokens": 41, "cached_prompt_tokens": 180},
        "timing": {"queue_ms": 1, "ttft_ms": 60, "total_ms": 340}
    })
}

/// What every route behind a key may answer.
pub struct ReadProblems;

impl IntoResponses for ReadProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[
            ("401", "The key is missing or wrong"),
            ("403", "The key lacks the scope"),
            ("429", "The client is over its rate"),
            ("500", "Anything else; the log has the cause"),
            ("503", "The server is busy, loading or shutting down"),
            ("504", "The deadline passed"),
        ])
    }
}

/// What every route that takes a JSON body may answer.
pub struct WriteProblems;

impl IntoResponses for WriteProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut all = ReadProblems::responses();
        all.extend(problems(&[
            ("400", "The body is not well-formed JSON"),
            ("408", "The body did not arrive in time"),
            ("413", "The body is too large"),
            ("415", "The body is not JSON"),
            ("422", "Fields are invalid; `errors` lists all of them"),
        ]));
        all
    }
}

fn problems(of: &[(&str, &str)]) -> BTreeMap<String, RefOr<Response>> {
    let schema = Ref::from_schema_name("Problem");
    let problem = |(status, description): &(&str, &str)| {
        let content = ContentBuilder::new().schema(Some(schema.clone())).build();
        let mut response = ResponseBuilder::new().description(*description).content(problem::CONTENT_TYPE, content);
        if matches!(*status, "429" | "503") {
            let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).build();
            let header = HeaderBuilder::new().schema(Some(seconds)).description(Some("Seconds to wait")).build();
            response = response.header("Retry-After", header);
        }
        ((*status).to_owned(), RefOr::T(response.build()))
    };
    of.iter().map(problem).collect()
}
