//! Failing storage.
