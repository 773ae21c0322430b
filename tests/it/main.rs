//! All black-box tests, in one binary. Each module is a subject; `support` is what they share.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail by panicking")]

mod cli;
mod decoder;
mod hostile_files;
mod http_api;
mod http_server;
mod open_models;
mod openapi;
mod serve;
mod sources;
mod support;
mod tokenizers_agree;
