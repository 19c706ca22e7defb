//! What happens to messages when the disk or the power fails, on a simulated
//! [disk](storage_faults::disk).
//!
//! This is a separate binary because `storage_faults` intercepts the calls between SQLite and the
//! system for the whole process.
#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod failing;
#[path = "../integration/figures.rs"]
mod figures;
mod fleet;
#[path = "../integration/postgres.rs"]
mod postgres;
mod power;
#[path = "../integration/support.rs"]
mod support;
