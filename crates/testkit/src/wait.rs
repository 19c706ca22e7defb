//! Waiting: tests poll with a deadline, and never sleep for a time that should be enough.

use std::time::{Duration, Instant};

/// The longest time that anything may take in a test.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Polls until the condition holds.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::yield_now();
    }
}
