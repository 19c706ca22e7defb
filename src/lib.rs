//! Rocket Monitor receives the messages of rockets, at least once and in any order, and serves the
//! state of every rocket in two views: best-effort (all messages that arrived) and exact (the
//! unbroken sequence from message 1).
//!
//! # Map
//!
//! Data flows down, outcomes flow back:
//!
//! ```text
//! http (extract, answer) -> ingest (queue, group commit) -> store (load -> domain: join -> write)
//!                        <- outcome of each message      <- outcomes
//! ```
//!
//! | module | contents | must not contain |
//! |---|---|---|
//! | [`domain`] | messages, the associative fold, processed ranges, both views | HTTP, SQL, threads, the clock |
//! | [`ingest`] | the bounded queue, group commit, newline-delimited JSON | rules about messages, SQL, HTTP |
//! | [`feed`] | recent changes, for event streams | anything that a committer would wait for |
//! | [`store`] | opening, migrating, committing, reading, auditing | rules about messages |
//! | [`http`] | extract, call, answer | SQL, folding, batching |
//! | [`tokens`] | write and read tokens | HTTP |
//! | [`metrics`] | counters, timings and gauges of the service | labels with many values |
//! | [`terminal`] | escaping of text from senders and files | printing itself |
//! | [`report_text`] | reports as CSV, tables and JSON | the definition of the reports (in the store) |
//! | [`cli`] | the arguments and exit statuses of each command | what the commands do |
//! | [`fleet`] | the fleet simulator, with a fold of its own to compare with | anything that the service uses |
//!
//! # The life of a message
//!
//! 1. `POST /messages` reads the body, at most 64 KiB, and [`domain::parse`] turns it into a valid
//!    [`Message`](domain::message::Message) or a list of all its faults. Its texts are slices of
//!    the body.
//! 2. [`ingest::Ingest`] queues it. If the queue is full or the store is stuck, the message is
//!    rejected at once; parts of a stream wait for room, for a limited time.
//! 3. A committer, which is a thread, takes everything that is queued. While it commits one batch,
//!    the next one gathers. There is one committer; on a cluster, one for each bucket of channels.
//! 4. The store opens a write transaction. For each channel of the
//!    [`Batch`](domain::batch::Batch), in key order, it gets the few processed ranges around the
//!    new numbers, from its cache or from the tables. The domain [joins](domain::ranges::join) the
//!    messages to them, which separates new messages from duplicates. The store writes the changed
//!    ranges, and adds the sum of the new messages to the channel's row in `rockets`. SQLite
//!    proceeds channel by channel; Postgres does each step for all channels at once.
//! 5. The transaction is committed, which for SQLite means that the write-ahead log is synced to
//!    disk. Only then is the request answered, with its own outcome.
//! 6. The committer reports the changed rockets to the [`feed`]. The feed's thread reads their
//!    current state, and event streams take the changes at their own pace.
//!
//! # Invariants
//!
//! - What is acknowledged is on disk. What got 503 may be sent again.
//! - A row of `rockets` is the combination of its channel's ranges. Ranges neither overlap nor
//!   touch. There is no row without ranges, and there are no ranges without a row. `check` audits
//!   all of this.
//! - Everything that a batch's result depends on is read inside its own write transaction, under
//!   its locks, or comes from a cache that the transaction finds to be current: by the mark of the
//!   last commit in the index of SQLite's log, and by the rocket's `last_received`, which grows
//!   with every change, in Postgres. So any number of processes can write to one file, or to one
//!   server.
//! - Every statement of a batch on Postgres names one bucket, so that a cluster runs it on one
//!   node.
//! - Memory is bounded: the queue by bytes, lines and bodies by 64 KiB, connections by the limit on
//!   open files, large responses by a common budget. The record of processed numbers grows with the
//!   gaps, not with the messages.
//! - Slow reads have a concurrency limit. A request that would wait too long gets 503.
//! - Nothing of a failed commit is ever visible: an SQLite file is held open, so that no new reader
//!   of the log treats as committed what could not be synced.

pub mod cli;
pub mod domain;
pub mod feed;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod http;
pub mod ingest;
pub mod metrics;
pub mod service;
pub mod simulator;
pub mod store;
pub mod terminal;
pub mod tokens;
pub mod wire;
