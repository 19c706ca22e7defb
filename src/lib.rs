//! temp
pub mod cli;
pub mod domain;
pub mod fleet;
pub mod http;
pub mod ingest;
pub mod store;
