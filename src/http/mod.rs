//! The HTTP API: extract, call, answer. No SQL and no fold here.
//!
//! - `server` listens and starts the workers.
//! - `middleware` wraps every request: connections, access, budgets, common headers.
//! - `access` has the access rules.
//! - `routes` has the table of routes, and one file for the handlers of each resource.
//! - `extract` parses requests: bodies, query strings, cursors.
//! - `problem` is the only place where an error becomes a response.

mod access;
mod concurrency_limit;
mod extract;
mod gap_totals;
mod middleware;
mod openapi;
mod problem;
mod readiness;
mod routes;
mod server;
mod state;

pub use access::Access;
#[cfg(any(test, fuzzing))]
pub(crate) use extract::fuzzing;
pub use routes::paths;
pub use server::{Capacity, Server, Stopper};
