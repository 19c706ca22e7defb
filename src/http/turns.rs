//! Reads that may take long, such as a report on the whole fleet: a few at a time, so that all others are quick, and whoever
//! would wait for long is told to come later.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::problem::Problem;
use crate::domain::rocket::View;
use crate::store::query::{RocketQuery, Sort};

/// How long to wait for a turn.
const PATIENCE: Duration = Duration::from_secs(1);

/// A page with more rockets takes its turn.
const SHORT_PAGE: usize = 100;

/// The turns.
#[derive(Debug)]
pub(super) struct Turns(Semaphore);

impl Turns {
    /// With so many at a time.
    pub(super) fn new(at_a_time: usize) -> Self {
        Self(Semaphore::new(at_a_time))
    }

    /// Waits for a turn, which lasts until it is dropped.
    pub(super) async fn wait(&self) -> Result<SemaphorePermit<'_>, Problem> {
        match tokio::time::timeout(PATIENCE, self.0.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(Problem::unavailable("too many requests of this kind are running")),
        }
    }
}

impl Turns {
    /// The same for who reads a little at a time for long, such as a stream: nobody else waits for that one.
    pub(super) async fn wait_patiently(&self) -> Option<SemaphorePermit<'_>> {
        // Nobody closes it.
        self.0.acquire().await.ok()
    }
}

/// Whether a page may take long: because it is large, or because rockets have to be sorted for it.
pub(super) fn is_long(query: &RocketQuery) -> bool {
    let filters = &query.filters;
    let one_rocket = filters.channel.is_some();
    let filtered = filters.rocket_type.is_some() || filters.mission.is_some() || filters.status.is_some();
    let sorts_matches = filtered && matches!(query.sort, Sort::Speed | Sort::LatestUpdate);
    query.limit > SHORT_PAGE || !one_rocket && (query.view == View::Exact || sorts_matches)
}
