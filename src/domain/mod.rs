//! The rules: what a valid message is, how messages fold into a rocket's state, which numbers are
//! processed.
//!
//! Plain values in, plain values out. Nothing here knows HTTP, SQL, threads or the clock; time is
//! passed in. Both stores and every input (HTTP, file) use this module, so that each rule exists
//! once.
//!
//! Read it in this order: [`message`] (what arrives), [`summary`] (the associative fold),
//! [`ranges`] (the processed numbers, each range with its summary), [`speed_blocks`] (what makes
//! ranges mergeable), [`merge`] (two databases become one), [`batch`] (many messages joined to the
//! stored ranges), [`losses`] (gaps that are given up), [`rocket`] (the two views), [`missing`]
//! (which numbers are not processed) and [`numbers`] (sets of numbers).

pub mod batch;
pub mod losses;
pub mod merge;
pub mod message;
pub mod missing;
pub mod numbers;
pub mod query;
pub mod ranges;
pub mod rocket;
pub mod speed_blocks;
pub mod summary;
pub mod text;
pub mod timestamp;
