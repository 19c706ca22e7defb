//! How things look outside: messages and streams of them as JSON, rockets and reports as JSON, CSV
//! and tables, and the schemas of all of these.
//!
//! HTTP, files, the command line and the API's description share these formats. The rules are in
//! the [domain](crate::domain), which knows no format.

pub(crate) mod activity;
pub(crate) mod export;
mod fast_path;
pub(crate) mod loss;
mod members;
pub mod message;
pub(crate) mod missing;
pub mod ndjson;
pub mod report;
pub(crate) mod rocket;
pub(crate) mod schema;
pub(crate) mod shorten;
pub(crate) mod types;
