//! What becomes of messages when the disk fails, or the power: on a [`disk`] of the tests' own making.
//!
//! This is a binary beside the integration tests because it puts itself between SQLite and the system, for the whole
//! process.
#![allow(missing_docs, unreachable_pub, dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod disk;
mod failing;
#[path = "../integration/figures.rs"]
mod figures;
mod fleet;
#[path = "../integration/postgres.rs"]
mod postgres;
mod power;
#[path = "../integration/support.rs"]
mod support;
mod synchronous_off;
