//! Concurrency limits: for slow reads, such as a report on the whole fleet, so that all other reads
//! stay fast, and for streams that take memory for as long as their clients like. A request that
//! would wait too long gets 503.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;
use crate::domain::query::RocketQuery;
use crate::domain::rocket::View;

/// How long a request waits for a permit.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(1);

/// A page of more rockets is a long read.
const MAX_SHORT_PAGE_ROCKETS: usize = 100;

#[derive(Debug)]
pub(super) struct ConcurrencyLimit(Arc<Semaphore>);

impl ConcurrencyLimit {
    pub(super) fn new(max_concurrent: usize) -> Self {
        Self(Arc::new(Semaphore::new(max_concurrent)))
    }

    /// Waits for a permit. The error, after too long a wait, is a 503.
    pub(super) async fn permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let permit = tokio::time::timeout(PERMIT_TIMEOUT, self.permit_without_timeout()).await;
        permit.map_err(|_| Problem::unavailable("too many requests of this kind are running"))
    }

    /// Waits for a permit, and reads. The error, after too long a wait, is a 503.
    pub(super) async fn read<T: 'static>(
        &self,
        read: impl Future<Output = T> + 'static,
    ) -> Result<T, Problem> {
        Ok(read_with_permit(self.permit().await?, read).await)
    }

    /// Waits for a permit as long as it takes, and reads. Streams use this: they read a little at a
    /// time.
    pub(super) async fn read_without_timeout<T: 'static>(
        &self,
        read: impl Future<Output = T> + 'static,
    ) -> T {
        read_with_permit(self.permit_without_timeout().await, read).await
    }

    #[expect(clippy::expect_used, reason = "the semaphore is never closed")]
    async fn permit_without_timeout(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.0).acquire_owned().await.expect("the semaphore is never closed")
    }
}

/// Reads, and then releases the permit. A disconnect of the client doesn't cancel the read, because
/// the store's thread would continue without a permit.
async fn read_with_permit<T: 'static>(
    permit: OwnedSemaphorePermit,
    read: impl Future<Output = T> + 'static,
) -> T {
    let reading = actix_web::rt::spawn(async move {
        let result = read.await;
        drop(permit);
        result
    });
    match reading.await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// How expensive a page is to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadCost {
    /// It reads only the rockets that it returns, which are next to each other.
    Short,
    /// It may search all rockets.
    Search,
    /// It is large, or reads the exact view of all rockets.
    Long,
}

impl ReadCost {
    pub(super) fn from_query(query: &RocketQuery) -> Self {
        let is_one_rocket = query.filters.channel.is_some();
        if !is_one_rocket && (query.view == View::Exact || query.limit > MAX_SHORT_PAGE_ROCKETS) {
            Self::Long
        } else if query.searches_fleet() {
            Self::Search
        } else {
            Self::Short
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn an_abandoned_read_keeps_its_permit_until_it_ends() {
        actix_web::rt::System::new().block_on(async {
            let limit = ConcurrencyLimit::new(1);
            let (end, ended) = oneshot::channel::<()>();
            // Dropping the future stands for the client's disconnect.
            assert!(limit.read(ended).now_or_never().is_none());
            let mut next = std::pin::pin!(limit.read(async {}));
            assert!(next.as_mut().now_or_never().is_none());
            tokio::task::yield_now().await;
            assert!(next.as_mut().now_or_never().is_none());
            end.send(()).unwrap();
            next.await.unwrap();
        });
    }
}
