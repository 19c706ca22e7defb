//! A concurrency limit for slow reads, such as a report on the whole fleet. All other reads stay
//! fast, and a request that would wait too long gets 503.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;
use crate::domain::query::RocketQuery;
use crate::domain::rocket::View;

/// How long a request waits for a permit.
const PATIENCE: Duration = Duration::from_secs(1);

/// A page with more rockets than this is a large one.
const SHORT_PAGE: usize = 100;

#[derive(Debug)]
pub(super) struct ReadLimit(Arc<Semaphore>);

impl ReadLimit {
    /// Allows `at_a_time` concurrent reads.
    pub(super) fn new(at_a_time: usize) -> Self {
        Self(Arc::new(Semaphore::new(at_a_time)))
    }

    /// Reads as soon as there is a permit. A request that waits too long for one gets 503.
    pub(super) async fn read<T: 'static>(
        &self,
        read: impl Future<Output = T> + 'static,
    ) -> Result<T, Problem> {
        let permit = tokio::time::timeout(PATIENCE, self.permit()).await;
        let permit = permit
            .map_err(|_| Problem::unavailable("too many requests of this kind are running"))?;
        Ok(finish(permit, read).await)
    }

    /// Reads as soon as there is a permit, however long that takes. For streams, which read a
    /// little at a time.
    pub(super) async fn read_when_free<T: 'static>(
        &self,
        read: impl Future<Output = T> + 'static,
    ) -> T {
        finish(self.permit().await, read).await
    }

    #[expect(clippy::expect_used, reason = "nothing closes the semaphore")]
    async fn permit(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.0).acquire_owned().await.expect("nothing closes the semaphore")
    }
}

/// Reads, and then releases the permit. A read that has begun is not cancelled when its client
/// disconnects: the store's thread would go on without a permit.
async fn finish<T: 'static>(
    permit: OwnedSemaphorePermit,
    read: impl Future<Output = T> + 'static,
) -> T {
    let reading = actix_web::rt::spawn(async move {
        let answer = read.await;
        drop(permit);
        answer
    });
    match reading.await {
        Ok(answer) => answer,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// How long a page may take to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadCost {
    /// As long as its rockets: they are next to each other.
    Short,
    /// All rockets may have to be searched for it.
    Search,
    /// It is large, or the exact view of all rockets has to be read for it.
    Long,
}

impl ReadCost {
    pub(super) fn of(query: &RocketQuery) -> Self {
        let is_one_rocket = query.filters.channel.is_some();
        if !is_one_rocket && (query.view == View::Exact || query.limit > SHORT_PAGE) {
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
    fn a_read_that_nobody_waits_for_keeps_its_permit_until_it_ends() {
        actix_web::rt::System::new().block_on(async {
            let limit = ReadLimit::new(1);
            let (end, ended) = oneshot::channel::<()>();
            // Its client leaves at once.
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
