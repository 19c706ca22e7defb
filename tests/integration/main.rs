//! All integration tests in one binary, because linking SQLite and the web server takes long enough
//! once.
//!
//! `tests/README.md` says where a test goes, and what [`testkit`] has for it.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod binary;
mod citus;
mod command_line;
mod crash;
mod dashboard;
mod described;
mod disks;
mod events;
mod failures;
mod files;
mod fold;
mod headers;
mod hostile;
mod instances;
mod interleavings;
mod limits;
mod listing;
mod messages;
mod operating;
mod outages;
mod output;
mod overload;
mod plans;
mod postgres_urls;
mod reporting;
mod schema;
mod termination;
mod upgrade;
