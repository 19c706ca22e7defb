//! Parses requests: bodies, query strings and cursors.

pub(in crate::http) mod body;
pub(in crate::http) mod cursor;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub(in crate::http) mod query;
pub(super) mod read_ahead;
