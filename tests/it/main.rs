//! All black-box tests, in one binary. Each module is a subject; `support` is what they share.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed step of a test is a failed test")]

mod http_api;
mod http_server;
mod openapi;
mod support;
