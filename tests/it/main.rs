//! All black-box tests, in one binary. Each module is a subject; `support` is what they share.

mod cli;
mod http_api;
mod http_server;
mod openapi;
mod serve;
mod sources;
mod support;
