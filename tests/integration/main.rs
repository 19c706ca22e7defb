//! All integration tests in one binary, because linking SQLite and the web server takes long enough
//! once.
//!
//! [`support`] has what tests of the service need. [`oracle`] has the fold that results are
//! compared with; it shares no code with the service's own. [`support::conformance`] runs the API
//! tests on each backend.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod binary;
mod browser;
mod citus;
mod command_line;
mod crash;
mod dashboard;
mod described;
mod disks;
mod events;
mod failures;
mod figures;
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
mod oracle;
mod outages;
mod output;
mod overload;
mod plans;
mod postgres;
mod postgres_urls;
mod reporting;
mod schema;
mod support;
mod termination;
mod upgrade;
