//! REST: routes, wire types, middleware and the server that carries them. Knows the use cases, not how they work.

pub mod auth;
pub mod config;
pub mod drain;
pub mod fields;
mod held_body;
pub mod json;
mod middleware;
pub mod openapi;
pub mod problem;
mod request_id;
mod router;
mod routes;
pub mod server;
mod state;
#[cfg(test)]
mod testing;
mod text;
mod wire;

pub use config::Config;
pub use drain::Drain;
pub use openapi::openapi;
pub use router::{admin_router, router};
pub use server::{Server, ServerError};
pub use state::AppState;
