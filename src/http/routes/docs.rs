//! The OpenAPI document, the pages that show it, and the root. Pages load nothing from elsewhere.

use std::sync::{Arc, LazyLock};

use axum::extract::Path;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use utoipa_swagger_ui::Config;

use crate::http::openapi;
use crate::http::problem::Problem;

/// Scripts and styles of our own only. The pages set styles on elements and show images from data.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub async fn root() -> Redirect {
    Redirect::to("/docs/")
}

pub async fn document() -> Response {
    static DOCUMENT: LazyLock<String> = LazyLock::new(openapi::document);
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], DOCUMENT.as_str()).into_response()
}

pub async fn index() -> Result<Response, Problem> {
    page("index.html")
}

pub async fn asset(Path(path): Path<String>) -> Result<Response, Problem> {
    page(&path)
}

fn page(path: &str) -> Result<Response, Problem> {
    // The badge of the default settings asks a validator elsewhere.
    let config = Config::new(["/openapi.json"]).validator_url("none");
    let served = utoipa_swagger_ui::serve(path, Arc::new(config));
    let file = served.map_err(|error| Problem::internal(error.to_string()))?;
    let Some(file) = file else {
        return Err(Problem::not_found(&format!("/docs/{path}").chars().take(200).collect::<String>()));
    };
    let mut response = file.bytes.into_owned().into_response();
    let headers = response.headers_mut();
    if let Ok(content_type) = HeaderValue::from_str(&file.content_type) {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    if file.gzpipped {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    Ok(response)
}
