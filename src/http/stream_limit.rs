//! A concurrency limit for streams that take memory for as long as their clients like. A request
//! that would wait too long gets 503.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;

/// How long a request waits for a permit.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct StreamLimit(Arc<Semaphore>);

impl StreamLimit {
    pub(super) fn new(max_concurrent: usize) -> Self {
        Self(Arc::new(Semaphore::new(max_concurrent)))
    }

    /// Waits for a permit, which a stream keeps until it ends.
    pub(super) async fn permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        match tokio::time::timeout(PERMIT_TIMEOUT, Arc::clone(&self.0).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => unreachable!("the semaphore is never closed"),
            Err(_) => Err(Problem::unavailable("too many streams of this kind are open")),
        }
    }
}
