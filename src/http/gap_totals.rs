//! The totals of all gaps, for the metrics.
//!
//! Reading them means reading all processed ranges. An index in the order of `first_received` would
//! make that cheap, but each message that begins a range would have to write to it. So the totals
//! are read seldom, however often they are requested.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::query::GapTotals;
use crate::metrics::{Metrics, StoreOperation};
use crate::store::Store;

/// How long to wait for a read that has begun.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after a read, as a multiple of its duration: reads take at most 2% of the time.
const PAUSE_FACTOR: u32 = 50;
const MIN_PAUSE: Duration = Duration::from_secs(1);

/// The totals that were read last.
#[derive(Debug, Default)]
pub(super) struct GapTotalsCache {
    /// The time from which they may be read again. Locked during a read, so there is one at a time.
    next_read: Arc<tokio::sync::Mutex<Option<Instant>>>,
    latest: Arc<Mutex<Option<GapTotals>>>,
}

impl GapTotalsCache {
    /// The totals: read now, if it is time for that, or as last read. None if they could not be
    /// read.
    pub(super) async fn get(&self, store: &Store, metrics: &Metrics) -> Option<GapTotals> {
        if let Ok(mut next_read) = Arc::clone(&self.next_read).try_lock_owned()
            && next_read.is_none_or(|time| time <= Instant::now())
        {
            let (store, metrics) = (store.clone(), metrics.clone());
            let latest = Arc::clone(&self.latest);
            // A request that no longer waits doesn't end the read.
            let read = actix_web::rt::spawn(async move {
                let started = Instant::now();
                let totals = store.gap_totals().await;
                if totals.is_err() {
                    metrics.store_failed(StoreOperation::Read);
                }
                *lock(&latest) = totals.ok();
                *next_read = Some(Instant::now() + pause_after(started.elapsed()));
            });
            let _ = tokio::time::timeout(READ_TIMEOUT, read).await;
        }
        *lock(&self.latest)
    }
}

fn pause_after(read: Duration) -> Duration {
    MIN_PAUSE.max(read.saturating_mul(PAUSE_FACTOR))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under this lock leaves the data consistent, because it is changed in one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::domain::message::example::{faster, time};
    use crate::store::{Database, OpenOptions};

    #[test]
    fn totals_are_read_again_only_after_a_pause() {
        let store = Store::open(&Database::Memory, &OpenOptions::default()).unwrap();
        let metrics = Metrics::new([]).unwrap();
        let cache = GapTotalsCache::default();
        let none = GapTotals { oldest: None, lost: 0 };
        actix_web::rt::System::new().block_on(async {
            assert_eq!(cache.get(&store, &metrics).await, Some(none));
            store.writer().unwrap().commit(&[faster(1).numbered(3)], time(7)).unwrap();
            // As if the pause were long, and then over.
            *cache.next_read.lock().await = Some(Instant::now() + Duration::from_secs(60));
            assert_eq!(cache.get(&store, &metrics).await, Some(none));
            *cache.next_read.lock().await = Some(Instant::now());
            let oldest = GapTotals { oldest: Some(time(7)), lost: 0 };
            assert_eq!(cache.get(&store, &metrics).await, Some(oldest));
            assert!(cache.next_read.lock().await.unwrap() > Instant::now());
            // During another read, the latest totals are returned at once.
            let reading = cache.next_read.lock().await;
            assert_eq!(cache.get(&store, &metrics).await, Some(oldest));
            drop(reading);
        });
    }

    #[test]
    fn long_reads_have_long_pauses() {
        assert_eq!(pause_after(Duration::from_millis(3)), MIN_PAUSE);
        assert_eq!(pause_after(Duration::from_secs(2)), Duration::from_secs(100));
    }
}
