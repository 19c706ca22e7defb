//! Group commit: messages wait in a bounded queue, and everything that is queued when a commit ends
//! goes into the next one. Each caller is answered after its commit, with its own outcome.
//!
//! [`Ingest`] is the entrance of the queue, and a `committer` its exit. A store may have several
//! partitions; then each has its own queue and committer, so that a batch is for one partition.
//! [`file`](mod@file) ingests files without a queue. No HTTP, no SQL and no rules about messages
//! belong here.

mod committer;
pub mod file;

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use self::committer::{Committer, CommitterHealth, Observers};
use crate::domain::batch::Outcome;
use crate::domain::message::Message;
use crate::feed::Feed;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};

/// The bounds of the queue.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most bytes of single messages that may be queued or being committed. When they are used
    /// up, new single messages are rejected at once.
    pub single_bytes: u32,
    /// The limit for streams, which wait for room, and with them their senders. It is
    /// separate, so that a stream neither takes the room of single messages nor makes them wait
    /// long behind it.
    pub stream_bytes: u32,
    /// How long a stream waits for room, and a single message for its batch, before it is rejected.
    pub patience: Duration,
    /// Single messages are rejected at once when the current batch has been running for this long.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            single_bytes: 64 * 1024 * 1024,
            stream_bytes: 16 * 1024 * 1024,
            patience: Duration::from_secs(5),
            stall: Duration::from_secs(1),
        }
    }
}

/// Why messages were not accepted. It is safe to send them again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IngestError {
    /// The queue had no room, or the message waited too long.
    #[error("messages arrive faster than the database can store them")]
    Overloaded,
    /// The store makes no progress.
    #[error("the database has been busy with earlier messages for more than a second")]
    Stalled,
    /// The store failed, for this reason, which only the log shows. Shared, because all of a batch
    /// fails together.
    #[error("the database can't store messages now")]
    Store(Arc<str>),
    /// The service is stopping.
    #[error("the service is stopping")]
    Stopping,
}

/// The outcome of a caller's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The number of new messages.
    pub applied: u64,
    /// The number of messages that had been processed before.
    pub duplicates: u64,
}

impl Tally {
    /// Counts outcomes.
    pub fn of(outcomes: &[Outcome]) -> Self {
        let applied =
            outcomes.iter().filter(|outcome| **outcome == Outcome::Applied).count() as u64;
        Self { applied, duplicates: outcomes.len() as u64 - applied }
    }

    /// Adds the outcomes of other messages.
    pub fn add(&mut self, other: Self) {
        self.applied += other.applied;
        self.duplicates += other.duplicates;
    }
}

/// One or many messages of one caller, committed together.
#[derive(Debug)]
pub enum Submission {
    /// One message, without an extra allocation.
    One(Message),
    /// Any number of messages. An empty list probes whether the store can commit.
    Many(Vec<Message>),
}

impl Submission {
    fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(messages) => messages.len(),
        }
    }
}

type CommitResult = Result<Tally, IngestError>;

/// An entry of the queue.
enum QueueEntry {
    Submission(QueuedSubmission),
    /// Commit everything that was queued before, and nothing after.
    Stop,
}

/// A parcel in the queue.
struct QueuedSubmission {
    submission: Submission,
    /// Its share of the queue's capacity, held until it is answered.
    room: OwnedSemaphorePermit,
    queued_at: Instant,
    answer: oneshot::Sender<CommitResult>,
}

impl QueuedSubmission {
    /// Whether its sender waits for this answer alone. That is also true for a probe.
    fn is_single(&self) -> bool {
        match &self.submission {
            Submission::One(_) => true,
            Submission::Many(messages) => messages.is_empty(),
        }
    }
}

/// A committer's queue and progress.
#[derive(Debug)]
struct Queue {
    entries: mpsc::Sender<QueueEntry>,
    progress: Arc<CommitterHealth>,
}

/// The entrance for messages. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ingest {
    /// One queue for each partition of the store, with its own committer.
    queues: Arc<[Queue]>,
    store: Store,
    room_for_singles: Arc<Semaphore>,
    room_for_streams: Arc<Semaphore>,
    limits: Limits,
}

/// The most messages of a stream that go into a batch together: single messages wait for a batch
/// that holds at least that many, if there is a stream.
const MAX_STREAM_PART: usize = 64;

/// Divides messages in their order; none are one piece.
fn split_stream(messages: Vec<Message>) -> Vec<Vec<Message>> {
    if messages.len() <= MAX_STREAM_PART {
        return vec![messages];
    }
    let mut rest = messages.into_iter();
    std::iter::from_fn(|| {
        Some(rest.by_ref().take(MAX_STREAM_PART).collect::<Vec<_>>())
            .filter(|piece| !piece.is_empty())
    })
    .collect()
}

/// The receipt for queued messages; their outcomes arrive later.
#[derive(Debug)]
pub struct Receipt {
    first: oneshot::Receiver<CommitResult>,
    /// The answers of the other queues, if the messages were divided.
    others: Vec<oneshot::Receiver<CommitResult>>,
}

impl Receipt {
    /// Waits until the messages are committed or have failed. If a part failed, the result is that
    /// failure.
    pub async fn answer(self) -> CommitResult {
        let mut tally = answer_of(self.first).await;
        for other in self.others {
            let answer = answer_of(other).await;
            tally = tally.and_then(|mut tally| {
                tally.add(answer?);
                Ok(tally)
            });
        }
        tally
    }
}

async fn answer_of(pending: oneshot::Receiver<CommitResult>) -> CommitResult {
    pending.await.unwrap_or(Err(IngestError::Stopping))
}

/// The committer threads, which must be waited for after [`Ingest::stop`].
#[derive(Debug)]
pub struct Committers {
    threads: Vec<JoinHandle<()>>,
    /// Disconnected once all have ended.
    running: mpsc::Receiver<()>,
}

impl Committers {
    /// Waits until they have ended, but not longer than `patience`. The error says why not
    /// everything was committed.
    pub fn wait(self, patience: Duration) -> Result<(), &'static str> {
        match self.running.recv_timeout(patience) {
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let ended_well = self.threads.into_iter().all(|thread| thread.join().is_ok());
                if ended_well { Ok(()) } else { Err("a committer thread panicked") }
            }
            // Nothing is ever sent.
            Ok(()) | Err(mpsc::RecvTimeoutError::Timeout) => {
                Err("the store did not answer in time")
            }
        }
    }
}

impl Ingest {
    /// Starts a committer for each partition of the store, each on its own thread. They end after
    /// [`stop`](Self::stop).
    pub fn start(
        store: &Store,
        feed: &Feed,
        metrics: &Metrics,
        limits: Limits,
    ) -> Result<(Self, Committers), StoreError> {
        let (mut queues, mut threads) = (Vec::new(), Vec::new());
        let (ends, running) = mpsc::channel::<()>();
        for partition in 0..store.partitions() {
            let (queue, entries) = mpsc::channel();
            let observers = Observers { feed: feed.clone(), metrics: metrics.clone() };
            let progress = Arc::<CommitterHealth>::default();
            let committer = Committer::new(
                store.clone(),
                partition,
                observers,
                Arc::clone(&progress),
                limits.patience,
            )?;
            let thread = std::thread::Builder::new().name("committer".to_owned());
            let end = ends.clone();
            let run = move || {
                committer.run(&entries);
                drop(end);
            };
            threads.push(thread.spawn(run).map_err(StoreError::Thread)?);
            queues.push(Queue { entries: queue, progress });
        }
        let ingest = Self {
            queues: queues.into(),
            store: store.clone(),
            room_for_singles: Arc::new(Semaphore::new(limits.single_bytes as usize)),
            room_for_streams: Arc::new(Semaphore::new(limits.stream_bytes as usize)),
            limits,
        };
        Ok((ingest, Committers { threads, running }))
    }

    /// Queues messages that took `bytes` of input. Without room, a single message is rejected, and
    /// a stream's messages wait.
    pub async fn queue(
        &self,
        submission: Submission,
        bytes: usize,
    ) -> Result<Receipt, IngestError> {
        match submission {
            Submission::One(message) => self.queue_one(message, bytes),
            Submission::Many(messages) => {
                let room = self.wait_for_room(bytes).await?;
                self.send_divided(messages, room)
            }
        }
    }

    fn queue_one(&self, message: Message, bytes: usize) -> Result<Receipt, IngestError> {
        let queue = &self.queues[self.queue_of(&message)];
        if queue.progress.is_stalled(self.limits.stall) {
            return Err(IngestError::Stalled);
        }
        let bytes = at_most(bytes, self.limits.single_bytes);
        let room = Arc::clone(&self.room_for_singles).try_acquire_many_owned(bytes);
        let room = room.map_err(|_| IngestError::Overloaded)?;
        Ok(Receipt {
            first: Self::send(queue, Submission::One(message), room)?,
            others: Vec::new(),
        })
    }

    async fn wait_for_room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, IngestError> {
        // A single caller can't reserve more than the whole capacity.
        let bytes = at_most(bytes, self.limits.stream_bytes);
        let room = Arc::clone(&self.room_for_streams).acquire_many_owned(bytes);
        let room = tokio::time::timeout(self.limits.patience, room).await;
        room.map_err(|_| IngestError::Overloaded)?.map_err(|_| IngestError::Stopping)
    }

    /// Divides messages among the queues. An empty list probes each committer.
    fn send_divided(
        &self,
        messages: Vec<Message>,
        mut room: OwnedSemaphorePermit,
    ) -> Result<Receipt, IngestError> {
        let asking = messages.is_empty();
        let mut parts: Vec<Vec<Message>> = self.queues.iter().map(|_| Vec::new()).collect();
        if let [only] = &mut *parts {
            *only = messages;
        } else {
            for message in messages {
                parts[self.queue_of(&message)].push(message);
            }
        }
        let parts = self.queues.iter().zip(parts).filter(|(_, part)| asking || !part.is_empty());
        let mut parts: Vec<_> = parts
            .flat_map(|(queue, part)| {
                split_stream(part).into_iter().map(move |piece| (queue, piece))
            })
            .collect();
        // Each part holds its share of the room; the first also holds the remainder.
        let share = room.num_permits() / parts.len().max(1);
        let mut others = Vec::new();
        for (queue, part) in parts.split_off(parts.len().min(1)) {
            let Some(room) = room.split(share) else {
                unreachable!("the shares are no more than the whole")
            };
            others.push(Self::send(queue, Submission::Many(part), room)?);
        }
        let Some((queue, part)) = parts.pop() else { unreachable!("no messages are a part, too") };
        Ok(Receipt { first: Self::send(queue, Submission::Many(part), room)?, others })
    }

    fn send(
        queue: &Queue,
        submission: Submission,
        room: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<CommitResult>, IngestError> {
        let (answer, pending) = oneshot::channel();
        let job = QueuedSubmission { submission, room, queued_at: Instant::now(), answer };
        queue.entries.send(QueueEntry::Submission(job)).map_err(|_| IngestError::Stopping)?;
        Ok(pending)
    }

    /// The queue for a message's channel.
    fn queue_of(&self, message: &Message) -> usize {
        self.store.partition_of(&message.channel)
    }

    /// Commits messages that took `bytes` of input, together with what else is queued.
    pub async fn commit(&self, submission: Submission, bytes: usize) -> CommitResult {
        self.queue(submission, bytes).await?.answer().await
    }

    /// Tells the committers to end once everything queued now is committed and answered. Later
    /// messages are rejected as stopping.
    pub fn stop(&self) {
        for queue in &*self.queues {
            // The committer may have ended already.
            let _ = queue.entries.send(QueueEntry::Stop);
        }
    }

    /// How many bytes of input are queued or being committed.
    pub fn queued_bytes(&self) -> i64 {
        let taken = |room: &Semaphore, all: u32| {
            i64::from(all).saturating_sub_unsigned(room.available_permits() as u64)
        };
        taken(&self.room_for_singles, self.limits.single_bytes)
            + taken(&self.room_for_streams, self.limits.stream_bytes)
    }

    /// How many committers failed to commit their last batch, or the last [`probe`](Self::probe).
    pub fn failing(&self) -> usize {
        self.queues.iter().filter(|queue| queue.progress.has_failed()).count()
    }

    /// Whether a message can be committed now.
    pub async fn probe(&self) -> Result<(), IngestError> {
        self.commit(Submission::Many(Vec::new()), 0).await.map(|_| ())
    }
}

fn at_most(bytes: usize, most: u32) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX).min(most)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pieces_are_small() {
        let message = br#"{"metadata": {"channel": "r", "messageNumber": 1,
                           "messageTime": "2022-02-02T19:39:05Z",
                           "messageType": "RocketSpeedIncreased"},
                           "message": {"by": 1}}"#;
        let message = crate::wire::message::parse(message.as_slice().to_vec().into()).unwrap();
        for (count, sizes) in [
            (0, vec![0]),
            (MAX_STREAM_PART, vec![MAX_STREAM_PART]),
            (MAX_STREAM_PART + 1, vec![MAX_STREAM_PART, 1]),
            (3 * MAX_STREAM_PART, vec![MAX_STREAM_PART; 3]),
        ] {
            let pieces = split_stream(vec![message.clone(); count]);
            assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), sizes);
        }
    }
}
