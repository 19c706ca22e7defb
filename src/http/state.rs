//! What handlers share.

use tokio::sync::watch;

use super::problem::Problem;
use super::read_limit::ReadLimit;
use super::routes::health::Readiness;
use crate::feed::Feed;
use crate::ingest::Ingest;
use crate::metrics::{Metrics, StoreOperation};
use crate::store::{Store, StoreError};

/// The state that handlers share.
pub(super) struct State {
    pub(super) store: Store,
    pub(super) ingest: Ingest,
    pub(super) feed: Feed,
    pub(super) metrics: Metrics,
    /// The limit for slow reads: as many as there are workers.
    pub(super) long_reads: ReadLimit,
    /// The limit for pages for which all rockets may be searched. They are much faster, so they
    /// never wait for slow reads.
    pub(super) searches: ReadLimit,
    /// The limit for reads of the fleet's totals, which never wait for slow reads.
    pub(super) totals: ReadLimit,
    /// The limit for the pages of snapshots.
    pub(super) snapshots: ReadLimit,
    pub(super) readiness: Readiness,
    /// Becomes true when the service stops.
    pub(super) stopping: watch::Receiver<bool>,
}

impl State {
    /// Maps a failed read to a 503, and counts it.
    pub(super) fn or_unavailable<T>(&self, read: Result<T, StoreError>) -> Result<T, Problem> {
        read.map_err(|error| {
            self.metrics.store_failed(StoreOperation::Read);
            Problem::unavailable("the database can't be read now").because(error)
        })
    }
}
