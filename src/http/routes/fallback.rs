//! Answers where no route matches.

use axum::http::{Method, Uri};

use crate::http::problem::Problem;

pub async fn not_found(uri: Uri) -> Problem {
    Problem::not_found(&uri.path().chars().take(200).collect::<String>())
}

pub async fn method_not_allowed(method: Method) -> Problem {
    Problem::method_not_allowed(&method.as_str().chars().take(32).collect::<String>())
}
