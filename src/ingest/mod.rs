//! Group commit: messages wait in a bounded queue, and everything that is queued when a commit ends
//! goes into the next one. Each caller is answered after its commit, with its own outcome.
//!
//! [`Ingest`] is the sending end of the queue, and a `committer` its receiving end. A store may
//! have several partitions; then each has its own queue and committer, so that a batch is for one
//! partition. [`activity`] keeps what was committed in the last hour. [`file`](mod@file) ingests
//! files without a queue. No HTTP, no SQL and no rules about messages belong here.

pub mod activity;
mod committer;
pub mod file;
pub mod preview;

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use self::activity::Activity;
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
    /// The limit for streams. A stream waits when it is used up, and so does its sender. It is
    /// separate, so that a stream neither uses up the limit of single messages nor makes them wait
    /// long behind it.
    pub stream_bytes: u32,
    /// How long a stream waits for a permit, and a single message for its batch, before it is
    /// rejected.
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
    /// The queue was full, or the message waited too long.
    #[error("messages arrive faster than the database can store them")]
    Overloaded,
    /// The store makes no progress.
    #[error("the database has been busy with earlier messages for more than a second")]
    Stalled,
    /// The store failed. Only the log shows the reason. It is shared, because all messages of a
    /// batch fail together.
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
    /// At least one message.
    Many(Vec<Message>),
    /// No message: probes whether the store can commit.
    Probe,
}

impl Submission {
    fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(messages) => messages.len(),
            Self::Probe => 0,
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

/// A submission in the queue.
struct QueuedSubmission {
    submission: Submission,
    /// Its share of the queue's capacity, held until the caller is answered.
    permit: OwnedSemaphorePermit,
    queued_at: Instant,
    answer: oneshot::Sender<CommitResult>,
}

impl QueuedSubmission {
    /// Whether its caller waits for this answer alone.
    fn is_single(&self) -> bool {
        matches!(self.submission, Submission::One(_) | Submission::Probe)
    }
}

/// A committer's queue and health.
#[derive(Debug)]
struct Queue {
    entries: mpsc::Sender<QueueEntry>,
    health: Arc<CommitterHealth>,
}

/// Submits messages to the queue. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ingest {
    /// One queue for each partition of the store, with its own committer.
    queues: Arc<[Queue]>,
    store: Store,
    single_permits: Arc<Semaphore>,
    stream_permits: Arc<Semaphore>,
    limits: Limits,
    activity: Arc<Activity>,
}

/// The most messages in a part of a stream. While there is a stream, each batch holds one of its
/// parts, for which the batch's single messages wait.
const MAX_STREAM_PART: usize = 64;

/// Divides messages into parts, in their order.
fn split_stream(messages: Vec<Message>) -> Vec<Vec<Message>> {
    if messages.len() <= MAX_STREAM_PART {
        return vec![messages];
    }
    let mut rest = messages.into_iter();
    std::iter::from_fn(|| {
        Some(rest.by_ref().take(MAX_STREAM_PART).collect::<Vec<_>>())
            .filter(|part| !part.is_empty())
    })
    .collect()
}

/// The receipt for queued messages; their outcomes arrive later.
#[derive(Debug)]
pub struct Receipt {
    first: oneshot::Receiver<CommitResult>,
    /// The answers of the other parts, if the messages were divided.
    others: Vec<oneshot::Receiver<CommitResult>>,
}

impl Receipt {
    /// Waits until the messages are committed or have failed. If a part failed, the result is that
    /// failure.
    pub async fn answer(self) -> CommitResult {
        let mut tally = receive(self.first).await;
        for other in self.others {
            let answer = receive(other).await;
            tally = tally.and_then(|mut tally| {
                tally.add(answer?);
                Ok(tally)
            });
        }
        tally
    }
}

async fn receive(pending: oneshot::Receiver<CommitResult>) -> CommitResult {
    pending.await.unwrap_or_else(|_| Err(IngestError::Store("the commit was interrupted".into())))
}

/// The committer threads, which must be waited for after [`Ingest::stop`].
#[derive(Debug)]
pub struct Committers {
    threads: Vec<JoinHandle<()>>,
    /// Disconnected once all have ended.
    running: mpsc::Receiver<()>,
}

impl Committers {
    /// Waits until they have ended, but not longer than `patience`. The error says why some
    /// messages may not be committed.
    pub fn wait(self, patience: Duration) -> Result<(), &'static str> {
        match self.running.recv_timeout(patience) {
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let all_ended = self.threads.into_iter().all(|thread| thread.join().is_ok());
                if all_ended { Ok(()) } else { Err("a committer thread panicked") }
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
        let activity = Arc::<Activity>::default();
        for partition in 0..store.partitions() {
            let (queue, entries) = mpsc::channel();
            let observers = Observers {
                feed: feed.clone(),
                metrics: metrics.clone(),
                activity: Arc::clone(&activity),
            };
            let health = Arc::<CommitterHealth>::default();
            let committer = Committer::new(
                store.clone(),
                partition,
                observers,
                Arc::clone(&health),
                limits.patience,
            )?;
            let thread = std::thread::Builder::new().name("committer".to_owned());
            let end = ends.clone();
            let run = move || {
                committer.run(&entries);
                drop(end);
            };
            threads.push(thread.spawn(run).map_err(StoreError::Thread)?);
            queues.push(Queue { entries: queue, health });
        }
        let ingest = Self {
            queues: queues.into(),
            store: store.clone(),
            single_permits: Arc::new(Semaphore::new(limits.single_bytes as usize)),
            stream_permits: Arc::new(Semaphore::new(limits.stream_bytes as usize)),
            limits,
            activity,
        };
        Ok((ingest, Committers { threads, running }))
    }

    /// Queues messages that took `bytes` of input. If the queue is full, a single message is
    /// rejected, and a stream's messages wait.
    pub async fn queue(
        &self,
        submission: Submission,
        bytes: usize,
    ) -> Result<Receipt, IngestError> {
        match submission {
            Submission::One(message) => self.queue_one(message, bytes),
            Submission::Many(messages) => {
                let permit = self.stream_permit(bytes).await?;
                self.send_parts(messages, permit)
            }
            Submission::Probe => {
                let permit = self.stream_permit(bytes).await?;
                let probes = self.queues.iter().map(|queue| (queue, Submission::Probe)).collect();
                Self::send_all(probes, permit)
            }
        }
    }

    fn queue_one(&self, message: Message, bytes: usize) -> Result<Receipt, IngestError> {
        let queue = &self.queues[self.queue_of(&message)];
        if queue.health.is_stalled(self.limits.stall) {
            return Err(IngestError::Stalled);
        }
        let permits = permits(bytes, self.limits.single_bytes);
        let permit = Arc::clone(&self.single_permits).try_acquire_many_owned(permits);
        let permit = permit.map_err(|_| IngestError::Overloaded)?;
        let first = Self::send(queue, Submission::One(message), permit)?;
        Ok(Receipt { first, others: Vec::new() })
    }

    async fn stream_permit(&self, bytes: usize) -> Result<OwnedSemaphorePermit, IngestError> {
        // A single caller can't reserve more than the whole capacity.
        let permits = permits(bytes, self.limits.stream_bytes);
        let permit = Arc::clone(&self.stream_permits).acquire_many_owned(permits);
        let permit = tokio::time::timeout(self.limits.patience, permit).await;
        permit.map_err(|_| IngestError::Overloaded)?.map_err(|_| IngestError::Stopping)
    }

    /// Divides messages among the queues, and into parts.
    fn send_parts(
        &self,
        messages: Vec<Message>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Receipt, IngestError> {
        let mut by_queue: Vec<Vec<Message>> = self.queues.iter().map(|_| Vec::new()).collect();
        if let [only] = &mut *by_queue {
            *only = messages;
        } else {
            for message in messages {
                by_queue[self.queue_of(&message)].push(message);
            }
        }
        let parts = self.queues.iter().zip(by_queue).filter(|(_, messages)| !messages.is_empty());
        let parts = parts.flat_map(|(queue, messages)| {
            let parts = split_stream(messages).into_iter();
            parts.map(move |part| (queue, Submission::Many(part)))
        });
        Self::send_all(parts.collect(), permit)
    }

    /// Sends the parts of one submission. Each holds its share of the permit; the first part also
    /// holds the remainder.
    fn send_all(
        mut parts: Vec<(&Queue, Submission)>,
        mut permit: OwnedSemaphorePermit,
    ) -> Result<Receipt, IngestError> {
        assert!(!parts.is_empty(), "a submission has at least one message, or is a probe");
        let share = permit.num_permits() / parts.len();
        let mut others = Vec::new();
        for (queue, part) in parts.split_off(1) {
            let Some(permit) = permit.split(share) else {
                unreachable!("the shares of all parts add up to no more than the permit")
            };
            others.push(Self::send(queue, part, permit)?);
        }
        let Some((queue, part)) = parts.pop() else {
            unreachable!("the first part was not split off")
        };
        Ok(Receipt { first: Self::send(queue, part, permit)?, others })
    }

    fn send(
        queue: &Queue,
        submission: Submission,
        permit: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<CommitResult>, IngestError> {
        let (answer, pending) = oneshot::channel();
        let queued = QueuedSubmission { submission, permit, queued_at: Instant::now(), answer };
        queue.entries.send(QueueEntry::Submission(queued)).map_err(|_| IngestError::Stopping)?;
        Ok(pending)
    }

    /// The queue for a message's channel.
    fn queue_of(&self, message: &Message) -> usize {
        self.store.partition_of(&message.channel)
    }

    /// Commits messages that took `bytes` of input, together with whatever else is queued.
    pub async fn commit(&self, submission: Submission, bytes: usize) -> CommitResult {
        self.queue(submission, bytes).await?.answer().await
    }

    /// Makes the committers end once everything queued now is committed and answered. Later
    /// messages are rejected with [`IngestError::Stopping`].
    pub fn stop(&self) {
        for queue in &*self.queues {
            // The committer may have ended already.
            let _ = queue.entries.send(QueueEntry::Stop);
        }
    }

    /// What was committed in the last hour.
    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    /// How many bytes of input are queued or being committed.
    pub fn queued_bytes(&self) -> i64 {
        let used = |permits: &Semaphore, limit: u32| {
            i64::from(limit).saturating_sub_unsigned(permits.available_permits() as u64)
        };
        used(&self.single_permits, self.limits.single_bytes)
            + used(&self.stream_permits, self.limits.stream_bytes)
    }

    /// How many committers failed to commit their last batch, or the last [`probe`](Self::probe).
    pub fn failing(&self) -> usize {
        self.queues.iter().filter(|queue| queue.health.has_failed()).count()
    }

    /// Whether a message can be committed now.
    pub async fn probe(&self) -> Result<(), IngestError> {
        self.commit(Submission::Probe, 0).await.map(|_| ())
    }
}

/// The permits for this many bytes, which are at most all.
fn permits(bytes: usize, limit: u32) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX).min(limit)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_stream_is_split_into_small_parts() {
        let message = crate::domain::message::example::faster(1);
        for (count, sizes) in [
            (1, vec![1]),
            (MAX_STREAM_PART, vec![MAX_STREAM_PART]),
            (MAX_STREAM_PART + 1, vec![MAX_STREAM_PART, 1]),
            (3 * MAX_STREAM_PART, vec![MAX_STREAM_PART; 3]),
        ] {
            let parts = split_stream(vec![message.clone(); count]);
            assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), sizes);
        }
    }
}
