//! A concurrency limit for slow reads, such as a report on the whole fleet. All other reads stay
//! fast, and a request that would wait too long gets 503.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::problem::Problem;
use crate::domain::rocket::View;
use crate::store::query::{RocketQuery, Sort};

/// How long to wait for a permit.
const PATIENCE: Duration = Duration::from_secs(1);

/// A page with more rockets than this needs a permit.
const SHORT_PAGE: usize = 100;

#[derive(Debug)]
pub(super) struct Turns(Semaphore);

impl Turns {
    /// Allows `at_a_time` concurrent reads.
    pub(super) fn new(at_a_time: usize) -> Self {
        Self(Semaphore::new(at_a_time))
    }

    /// Waits for a permit, which lasts until it is dropped.
    pub(super) async fn wait(&self) -> Result<SemaphorePermit<'_>, Problem> {
        match tokio::time::timeout(PATIENCE, self.0.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(Problem::unavailable("too many requests of this kind are running")),
        }
    }
}

impl Turns {
    /// Waits without a timeout, for readers such as streams that read a little at a time.
    pub(super) async fn wait_patiently(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.0.acquire().await.ok()
    }
}

/// Whether a page may take long: because it is large, or because the rockets must be sorted for it.
pub(super) fn is_long(query: &RocketQuery) -> bool {
    let filters = &query.filters;
    let one_rocket = filters.channel.is_some();
    let filtered = filters.rocket_type.is_some() || filters.mission.is_some() || filters.status.is_some();
    let sorts_matches = filtered && matches!(query.sort, Sort::Speed | Sort::LatestUpdate);
    query.limit > SHORT_PAGE || !one_rocket && (query.view == View::Exact || sorts_matches)
}
