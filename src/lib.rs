//! Rocket Monitor takes the messages that rockets send about themselves, at least once and in any order, and always
//! knows what is known of every rocket: as of everything that arrived (best-effort), and as of the unbroken sequence
//! from message 1 (exact).
//!
//! # Map
//!
//! The data goes one way down and its outcome back:
//!
//! ```text
//! http (extract, answer) -> ingest (queue, group commit) -> domain (fold) -> store (sqlite | postgres)
//!                        <- outcome of each message      <- what to write
//! ```
//!
//! | module | what lives there | what must not |
//! |---|---|---|
//! | [`domain`] | messages, the associative fold, processed ranges, both views | HTTP, SQL, threads, the clock |
//! | [`ingest`] | the bounded queue, group commit, newline-delimited JSON | rules about messages, SQL, HTTP |
//! | [`feed`] | what has changed, for those who follow | anything a committer would have to wait for |
//! | [`store`] | opening, migrating, committing, reading, auditing | rules about messages |
//! | [`http`] | extract, call, answer | SQL, folding, batching |
//! | [`access`] | the tokens of who may write and read | HTTP |
//! | [`metrics`] | what is counted and timed while the service runs | labels with many values |
//! | [`terminal`] | what makes text of senders and files safe to print | printing itself |
//! | [`report_text`] | reports as CSV, tables and JSON | what the reports are, which the store's catalogue says |
//! | [`cli`] | what each command asks for, and how it ends | what the commands do |
//! | [`fleet`] | the simulated fleet, with a fold of its own to compare with | anything that the service uses |
//!
//! # The life of a message
//!
//! 1. `POST /messages` reads the body, at most 64 KiB, and [`domain::parse`] makes a valid
//!    [`Message`](domain::message::Message) of it, or a list of all of its faults. Its texts are slices of the body.
//! 2. [`ingest::Ingest`] queues it. When the queue is full, or the store stuck, it is refused at once; the parts of a
//!    stream wait for room, and not for ever.
//! 3. A committer, a thread, takes all that waits. While it commits one batch, the next one gathers. SQLite has one
//!    committer; Postgres has two, each for its own channels.
//! 4. The store opens a write transaction. For each channel of the [`Batch`](domain::batch::Batch), in the order of the
//!    keys, it has the few processed ranges around the new numbers, which it knows from the batches before or loads; the
//!    domain [joins](domain::ranges::join) them, which tells new messages from duplicates; the store writes the ranges that
//!    changed, and adds what the new messages come to, to the channel's row in `rockets`. SQLite goes from channel to
//!    channel; Postgres does each step for all channels at once.
//! 5. The transaction is committed, which for SQLite means that the write-ahead log is synced to the disk. Only then the
//!    request is answered, with its own outcome.
//! 6. The committer tells the [`feed`] which rockets it has touched. Its thread reads them as they are now, and event
//!    streams take what changed at their own pace.
//!
//! # Invariants
//!
//! - What is acknowledged is on disk. What is answered 503 may be sent again.
//! - A row of `rockets` is the combination of its channel's ranges; ranges neither overlap nor touch; there is no row
//!   without ranges, and there are no ranges without a row. `check` audits all of it.
//! - Everything that a batch decides on is read inside its own write transaction, under its locks, or was known before and
//!   is found there to be as it was: by the file's `data_version` in SQLite, by the rocket's `last_received` in Postgres,
//!   which is later with every change. So any number of processes can write to one file, or to one server.
//! - Every statement's keys and joins include the channel, so that Postgres's tables can be distributed by it.
//! - Memory is bounded: the queue by bytes, lines and bodies by 64 KiB, connections by the files that the system allows, large
//!   answers by the room that they have together. What is kept of processed numbers grows with the gaps, not with the
//!   messages.
//! - What may take long takes its turn, and whoever would wait for long is told to come later.
//! - Of a commit that fails nothing is ever seen: an SQLite file is held open, so that no new reader of the log takes for
//!   committed what could not be synced.

pub mod access;
pub mod cli;
pub mod domain;
pub mod feed;
pub mod fleet;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod http;
pub mod ingest;
pub mod metrics;
pub mod report_text;
pub mod store;
pub mod terminal;
