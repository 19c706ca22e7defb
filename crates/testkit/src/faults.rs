//! How often faults are injected, and with which result: rarely in `./run test`, and often in
//! `./run faults`, which prints the figures.

use std::fmt::Display;

/// Set by `./run faults`.
const LONG: &str = "ROCKET_MONITOR_FAULTS";

/// Whether this is `./run faults`.
pub fn are_wanted() -> bool {
    std::env::var_os(LONG).is_some()
}

/// How many times to try.
pub fn times(in_tests: u64, in_faults: u64) -> u64 {
    if are_wanted() { in_faults } else { in_tests }
}

/// Prints a row of the table of figures, if wanted: the test, the number of faults, and the result.
pub fn row(test: &str, faults: impl Display, outcome: impl Display) {
    if are_wanted() {
        println!("| {test} | {faults} | {outcome} |");
    }
}
