//! The HTTP API. Handlers extract, call and respond; there is no SQL and no fold here.
//!
//! - `server` listens and starts the workers.
//! - `middleware` wraps every request: connections, access, budgets, common headers.
//! - `routes` has the table of routes, and one file for the handlers of each resource.
//! - `extract` parses requests: bodies, query strings, cursors.
//! - `problem` is the only place where an error becomes a response.

mod extract;
mod middleware;
mod openapi;
mod problem;
mod read_limit;
mod routes;
mod server;
mod state;

#[cfg(any(test, fuzzing))]
pub(crate) use extract::fuzzing;
pub use middleware::auth::Access;
pub use routes::paths;
pub use server::{Capacity, Server, Stopper};
