//! All black-box tests, in one binary. Each module is a subject; `support` is what they share.

mod decoder;
mod support;
