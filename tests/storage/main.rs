//! What happens to messages when the disk or the power fails, on a simulated [`disk`].
//!
//! This is a separate binary because it intercepts the calls between SQLite and the system for the
//! whole process.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod disk;
mod failing;
mod fleet;
mod power;
mod synchronous_off;
