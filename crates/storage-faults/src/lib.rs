//! Faults of storage, for tests: a simulated [`disk`] that fails and loses power, and an SQLite
//! that syncs nothing.
//!
//! A program that uses this crate calls its functions in place of the C library's, everywhere and
//! for its whole life. So only a test binary of its own may depend on it.

pub mod disk;
pub mod synchronous_off;
