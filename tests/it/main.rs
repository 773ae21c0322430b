//! All black-box tests, in one binary. Each module is a subject; `support` is what they share.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod hostile_files;
mod open_models;
mod sources;
mod support;
mod tokenizers_agree;
