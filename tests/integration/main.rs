//! Every test that needs more than one module, in one binary: linking SQLite and the web server once takes long enough.
//!
//! What a test of the service needs is in [`support`]; the fold that results are compared with, which shares no code
//! with the service's own, is in [`oracle`]. Tests of the API run on each backend by [`support::conformance`].
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod binary;
mod browser;
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
mod postgres;
mod postgres_urls;
mod reporting;
mod schema;
mod support;
mod termination;
mod upgrade;
