//! Group commit: whoever has messages waits in one bounded queue, and all that wait when a commit ends go into the
//! next one together. Each is answered after its commit, with its own outcome.
//!
//! [`Ingest`] is the queue's entrance, the `committer` its other end, [`ndjson`] turns bytes into messages for the
//! HTTP API and for [`file`](mod@file)s alike. No HTTP, no SQL and no rule about messages lives here.

mod committer;
pub mod file;
pub mod ndjson;

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot};

use self::committer::{Committer, Queue};
use crate::domain::batch::Outcome;
use crate::domain::message::Message;
use crate::store::{Store, StoreError};

/// The bounds of the queue.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many bytes of input may wait or be committed at a time. Whoever comes later waits for room.
    pub queued_bytes: u32,
    /// How long a caller waits for room, and then for its turn, before it is told to come again later.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { queued_bytes: 64 * 1024 * 1024, patience: Duration::from_secs(5) }
    }
}

/// Why messages were not taken. Sending them again is safe.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IngestError {
    /// There was no room in the queue, or no turn, in time.
    #[error("more messages arrive than can be stored, and the wait for a place took too long")]
    Overloaded,
    /// The store failed. Shared, for all of a batch fail together.
    #[error("the store can't take messages now: {0}")]
    Store(Arc<str>),
    /// The service is stopping.
    #[error("the service is stopping")]
    Stopping,
}

/// What became of a caller's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many were new.
    pub applied: u64,
    /// How many had been processed before.
    pub duplicates: u64,
}

impl Tally {
    /// Counts outcomes.
    pub fn of(outcomes: &[Outcome]) -> Self {
        let applied = outcomes.iter().filter(|outcome| **outcome == Outcome::Applied).count() as u64;
        Self { applied, duplicates: outcomes.len() as u64 - applied }
    }

    /// Adds other messages' outcomes.
    pub fn add(&mut self, other: Self) {
        self.applied += other.applied;
        self.duplicates += other.duplicates;
    }
}

/// One or many messages of one caller, committed together.
#[derive(Debug)]
pub enum Parcel {
    /// One message, without an allocation around it.
    One(Message),
    /// Any number of messages; none to ask whether the store could commit some.
    Many(Vec<Message>),
}

impl Parcel {
    fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(messages) => messages.len(),
        }
    }
}

type Answer = Result<Tally, IngestError>;

/// What waits in the queue.
enum Entry {
    Job(Job),
    /// Everything that was queued before is to be committed, nothing that comes after.
    Stop,
}

/// A parcel in the queue.
struct Job {
    parcel: Parcel,
    /// How much of the queue's bound it takes until it is answered.
    bytes: u32,
    queued_at: Instant,
    answer: oneshot::Sender<Answer>,
}

/// The way in for messages. Clones are the same queue.
#[derive(Clone, Debug)]
pub struct Ingest {
    queue: mpsc::Sender<Entry>,
    room: Arc<Semaphore>,
    limits: Limits,
}

/// A parcel's place in the queue: its answer is to come.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Answer>);

impl Pending {
    /// Waits until the parcel is committed, or isn't.
    pub async fn answer(self) -> Answer {
        self.0.await.unwrap_or(Err(IngestError::Stopping))
    }
}

impl Ingest {
    /// Starts the committers, each on a thread of its own. They end after [`stop`](Self::stop).
    pub fn start(store: &Store, limits: Limits) -> Result<(Self, Vec<JoinHandle<()>>), StoreError> {
        let (queue, entries) = mpsc::channel();
        let entries = Queue::new(entries);
        let room = Arc::new(Semaphore::new(limits.queued_bytes as usize));
        let start_one = |_| {
            let committer = Committer::new(store.clone(), store.writer()?, Arc::clone(&room), limits.patience);
            let entries = Arc::clone(&entries);
            let thread = std::thread::Builder::new().name("committer".to_owned());
            thread.spawn(move || committer.run(&entries)).map_err(StoreError::Thread)
        };
        let threads = (0..store.writers()).map(start_one).collect::<Result<_, _>>()?;
        Ok((Self { queue, room, limits }, threads))
    }

    /// Queues messages that took `bytes` of input, waiting for room if there is none.
    pub async fn queue(&self, parcel: Parcel, bytes: usize) -> Result<Pending, IngestError> {
        // One caller can't ask for more than the whole queue.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.limits.queued_bytes);
        match self.room.try_acquire_many(bytes) {
            Ok(permit) => permit.forget(),
            Err(_) => {
                let room = tokio::time::timeout(self.limits.patience, self.room.acquire_many(bytes)).await;
                room.map_err(|_| IngestError::Overloaded)?.map_err(|_| IngestError::Stopping)?.forget();
            }
        }
        let (answer, pending) = oneshot::channel();
        let job = Job { parcel, bytes, queued_at: Instant::now(), answer };
        self.queue.send(Entry::Job(job)).map_err(|_| IngestError::Stopping)?;
        Ok(Pending(pending))
    }

    /// Commits messages that took `bytes` of input, together with whatever else waits.
    pub async fn commit(&self, parcel: Parcel, bytes: usize) -> Answer {
        self.queue(parcel, bytes).await?.answer().await
    }

    /// Lets the committers end once everything that is queued now is committed and answered; join their threads to know.
    /// Whoever comes later is told that the service is stopping.
    pub fn stop(&self) {
        // If the committers are gone already, so be it.
        let _ = self.queue.send(Entry::Stop);
    }

    /// Whether a message could be committed now.
    pub async fn probe(&self) -> Result<(), IngestError> {
        self.commit(Parcel::Many(Vec::new()), 0).await.map(|_| ())
    }
}
