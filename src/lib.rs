//! Rocket Monitor receives the messages of rockets, at least once and in any order, and serves the
//! state of every rocket in two views: best-effort (all messages that arrived) and exact (the
//! unbroken sequence from message 1).
//!
//! # Map
//!
//! Calls go to the right, outcomes come back:
//!
//! ```text
//! http, with wire -> ingest (queue, committer) -> store::Writer (load, fold, write, commit)
//!                                     |               |
//!                                     v               v
//!                                   feed            domain (the fold)
//! ```
//!
//! A store calls the fold inside its transaction. When a commit is durable, its committer reports
//! the changes to the feed, and answers the senders.
//!
//! | module | contents | must not contain |
//! |---|---|---|
//! | [`domain`] | messages, the associative fold, both views | formats, SQL, threads, the clock |
//! | [`wire`] | messages, rockets and reports as JSON, CSV and tables | rules about messages, SQL |
//! | [`ingest`] | the bounded queue, group commit, files | rules about messages, SQL, HTTP |
//! | [`feed`] | recent changes, for event streams | what a committer would wait for, SQL, HTTP |
//! | [`store`] | opening, migrating, committing, reading, auditing | rules about messages |
//! | [`http`] | extract, call, answer | SQL, folding, batching |
//! | [`service`] | starting and stopping the parts in the right order | what the parts do |
//! | [`simulator`] | a fleet with a fold of its own, to compare with | the service's own fold |
//! | [`resend`] | asks what a service lacks of a file, and sends it | arguments, printing |
//! | [`exchange`] | exports, merging them, and exchanging them with a service | formats, SQL |
//! | [`client`] | requests to a running service | what they are for |
//! | [`cli`] | arguments, output and exit statuses of each command | what the commands do |
//! | [`encoding`], [`input`] | decoding of gzip and zstd; files | HTTP |
//! | [`tokens`] | write and read tokens | HTTP |
//! | [`metrics`] | counters, timings and gauges of the service | labels with many values |
//! | [`terminal`] | escaping of text from senders and files | printing |
//!
//! [`domain`] uses no other module, [`store`] only [`domain`]; [`feed`] and [`wire`] use both.
//! Nothing uses [`cli`].
//!
//! # More
//!
//! `docs/architecture.md` follows a message, a read and a change through the files. It has the
//! invariants and where they are tested, the threads and what a panic does in each, the bounds of
//! memory, and a glossary. `docs/decisions` records why things are as they are. Each `mod.rs`
//! describes its own files.

pub mod cli;
pub mod client;
pub mod domain;
pub mod encoding;
pub mod exchange;
pub mod feed;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod http;
pub mod ingest;
pub mod input;
pub mod metrics;
pub mod resend;
pub mod service;
pub mod simulator;
pub mod store;
pub mod terminal;
pub mod tokens;
pub mod wire;
