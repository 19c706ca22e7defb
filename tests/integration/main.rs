//! All integration tests in one binary, because linking SQLite and the web server takes long enough
//! once.
//!
//! `tests/README.md` says where a test goes, and what [`testkit`] has for it.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// A table of cases may be longer than a screen.
#![allow(clippy::too_many_lines)]

mod api;
mod cli;
mod dashboard;
mod database;
mod deployment;
mod durability;
mod fold;
mod instances;
