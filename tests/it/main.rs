//! All black-box tests, in one binary. Each module is a subject; `support` is what they share.

mod sources;
mod http_api;
mod http_server;
mod openapi;
mod support;
