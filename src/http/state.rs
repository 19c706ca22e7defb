//! The state that handlers share.

use tokio::sync::watch;

use super::concurrency_limit::ConcurrencyLimit;
use super::extract::read_ahead::ReadAheadBudget;
use super::gap_totals::GapTotalsCache;
use super::problem::Problem;
use super::readiness::Readiness;
use crate::feed::Feed;
use crate::ingest::Ingest;
use crate::metrics::{Metrics, StoreOperation};
use crate::store::{Store, StoreError};

pub(super) struct State {
    pub(super) store: Store,
    pub(super) ingest: Ingest,
    pub(super) feed: Feed,
    pub(super) metrics: Metrics,
    /// Limits reports and large pages.
    pub(super) long_read_limit: ConcurrencyLimit,
    /// Limits other pages whose query may search all rockets. They are much faster, so they never
    /// wait for reports.
    pub(super) search_limit: ConcurrencyLimit,
    /// Limits reads of the fleet's totals, which never wait for reports.
    pub(super) totals_limit: ConcurrencyLimit,
    /// The totals of all gaps, which are read one at a time.
    pub(super) gap_totals: GapTotalsCache,
    /// Limits changes by operators: declared losses, forgotten rockets.
    pub(super) change_limit: ConcurrencyLimit,
    /// Limits the pages of snapshots.
    pub(super) snapshot_limit: ConcurrencyLimit,
    /// Limits the reads for streams of questions.
    pub(super) missing_limit: ConcurrencyLimit,
    /// Limits streams of questions.
    pub(super) missing_streams: ConcurrencyLimit,
    /// Limits encoded streams that take much memory to decode.
    pub(super) zstd_streams: ConcurrencyLimit,
    /// Limits exports, each of which has a page of rockets in memory.
    pub(super) export_streams: ConcurrencyLimit,
    /// Limits merges, each of which may have a long line in memory.
    pub(super) merge_streams: ConcurrencyLimit,
    pub(super) read_ahead: ReadAheadBudget,
    pub(super) readiness: Readiness,
    /// Becomes true when the service stops.
    pub(super) stopping: watch::Receiver<bool>,
}

impl State {
    /// Maps a failed change by an operator to a 503, and counts it.
    pub(super) fn or_not_changed<T>(&self, changed: Result<T, StoreError>) -> Result<T, Problem> {
        changed.map_err(|error| {
            self.metrics.store_failed(StoreOperation::Commit);
            Problem::unavailable("the database can't store changes now").with_reason(error)
        })
    }

    /// Maps a failed read to a 503, and counts it.
    pub(super) fn or_unavailable<T>(&self, read: Result<T, StoreError>) -> Result<T, Problem> {
        read.map_err(|error| {
            self.metrics.store_failed(StoreOperation::Read);
            Problem::unavailable("the database can't be read now").with_reason(error)
        })
    }
}
