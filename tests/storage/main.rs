//! What happens to messages when the disk or the power fails, on a simulated
//! [disk](storage_faults::disk).
//!
//! This is a separate binary because `storage_faults` intercepts the calls between SQLite and the
//! system for the whole process.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod failing;
mod fleet;
mod power;
