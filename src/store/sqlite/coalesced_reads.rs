//! Coalesces concurrent reads of rockets by the connections of a worker.
//!
//! In an embedded store, starting and ending a read transaction takes longer than finding a rocket,
//! and the workers contend for it. The shared snapshot starts after the last request of the group,
//! so each request sees everything that was committed before it.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::sync::oneshot;

use super::SqliteStore;
use super::read::{ShortRead, TooManyRows};
use crate::domain::query::RocketWithGaps;
use crate::domain::rocket::View;
use crate::domain::text::Channel;
use crate::store::StoreError;

type ReadResult = Result<Option<RocketWithGaps>, StoreError>;

/// The pending reads of one worker. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CoalescedReads {
    store: SqliteStore,
    pending: Rc<RefCell<Vec<PendingRead>>>,
}

#[derive(Debug)]
struct PendingRead {
    channel: Channel,
    view: View,
    answer: oneshot::Sender<Result<ShortRead, StoreError>>,
}

impl CoalescedReads {
    /// Reads rockets from this store.
    pub(in crate::store) fn new(store: SqliteStore) -> Self {
        Self { store, pending: Rc::default() }
    }

    /// See [`Reader::rocket`](crate::store::Reader::rocket).
    pub(in crate::store) async fn rocket(&self, channel: &Channel, view: View) -> ReadResult {
        let (answer, result) = oneshot::channel();
        let is_first = {
            let mut pending = self.pending.borrow_mut();
            pending.push(PendingRead { channel: channel.clone(), view, answer });
            pending.len() == 1
        };
        if is_first {
            // It runs after the connections that are ready now.
            tokio::task::spawn_local(self.clone().read_pending());
        }
        let found = match result.await.unwrap_or(Err(StoreError::BrokenOff))? {
            Ok(found) => found,
            Err(TooManyRows) => self.store.rocket_at_length(channel, view).await?,
        };
        Ok(found.map(|found| found.into_view(view)))
    }

    async fn read_pending(self) {
        let reads = std::mem::take(&mut *self.pending.borrow_mut());
        let requests = reads.iter().map(|read| (&read.channel, read.view));
        match self.store.rockets_in_short(requests) {
            Ok(found) => {
                assert_eq!(found.len(), reads.len(), "each read has one result");
                for (read, found) in reads.into_iter().zip(found) {
                    // The client may be gone.
                    let _ = read.answer.send(Ok(found));
                }
            }
            // Perhaps only one of the reads fails.
            Err(_) => {
                for PendingRead { channel, view, answer } in reads {
                    let _ = answer.send(self.store.rocket_in_short(&channel, view));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::task::{Context, Waker};

    use super::*;
    use crate::domain::message::example::launched;
    use crate::domain::timestamp::Timestamp;
    use crate::store::OpenOptions;

    /// Reads all channels concurrently.
    async fn read_all(reads: &CoalescedReads, channels: &[&str]) -> Vec<ReadResult> {
        let pending = channels.iter().map(|channel| {
            let (reads, channel) = (reads.clone(), Channel::new(channel.to_string()).unwrap());
            let mut read = Box::pin(async move { reads.rocket(&channel, View::BestEffort).await });
            assert!(read.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            read
        });
        let mut found = Vec::new();
        for read in pending.collect::<Vec<_>>() {
            found.push(read.await);
        }
        found
    }

    #[test]
    fn each_read_has_its_own_result_or_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rockets.db");
        let store = SqliteStore::open(&path, &OpenOptions::default()).unwrap();
        let messages: Vec<_> =
            (0..100).map(|rocket| launched("T", rocket, "M").on(&format!("r{rocket}"))).collect();
        store
            .writer()
            .unwrap()
            .commit(&messages, Timestamp::parse("2026-01-01T00:00:00Z").unwrap())
            .unwrap();
        let reads = CoalescedReads::new(store);
        actix_web::rt::System::new().block_on(async {
            let channels = ["r7", "unknown", "r99", "r7", "r50"];
            let speeds = |found: Vec<ReadResult>| -> Vec<Option<i64>> {
                found
                    .into_iter()
                    .map(|found| found.unwrap().map(|found| found.rocket.state.speed))
                    .collect()
            };
            let expected = [Some(7), None, Some(99), Some(7), Some(50)];
            assert_eq!(speeds(read_all(&reads, &channels).await), expected);

            let other = rusqlite::Connection::open(&path).unwrap();
            other
                .execute("UPDATE rockets SET latest_update = 'never' WHERE channel = 'r99'", [])
                .unwrap();
            let mut found = read_all(&reads, &channels).await;
            assert!(matches!(found.remove(2), Err(StoreError::Damaged(_))));
            assert_eq!(speeds(found), [Some(7), None, Some(7), Some(50)]);
            other
                .execute("UPDATE rockets SET latest_update = '2022-02-02T19:39:05.000000Z'", [])
                .unwrap();
            assert_eq!(speeds(read_all(&reads, &channels).await), expected);
        });
    }
}
