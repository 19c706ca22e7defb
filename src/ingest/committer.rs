//! The exit of a queue: a thread that takes everything that is queued, commits it as one batch, and
//! answers.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::OwnedSemaphorePermit;

use super::{CommitResult, IngestError, QueueEntry, QueuedSubmission, Submission, Tally};
use crate::domain::batch::Outcome;
use crate::domain::message::Message;
use crate::domain::timestamp::Timestamp;
use crate::feed::Feed;
use crate::metrics::{Metrics, StoreOperation};
use crate::store::{Store, StoreError, Writer};

/// While single messages arrive, a batch may take this many times as long as a small one does: they
/// wait for its end, and then for the end of their own.
const SMALL_BATCHES: u32 = 4;
/// The bounds of that time.
const BATCH_TIME: RangeInclusive<Duration> = Duration::from_millis(2)..=Duration::from_secs(1);
/// How long a small batch is taken to be before there was one.
const FIRST_SMALL_BATCH: Duration = Duration::from_millis(1);
/// How long a batch may take if no single message has arrived lately. Large batches of new rockets
/// are more efficient, because they share more pages.
const BATCH_TIME_OF_STREAMS: Duration = Duration::from_secs(1);
/// The meaning of "lately".
const LATELY: Duration = Duration::from_secs(2);
/// The bounds of a batch's size, however long the messages take.
const FEWEST_MESSAGES: usize = 64;
const MOST_MESSAGES: usize = 32_768;
/// The size of the first batch, before their speed is known.
const FIRST_MESSAGES: usize = 4_096;

/// If the last wait was shorter than this and the last batch had few callers, the thread spins this
/// long before it sleeps: waking it takes about as long as a sync of the disk. With more callers,
/// other threads need the processor.
const SPIN_TIME: Duration = Duration::from_micros(200);
/// The most callers that count as few.
const FEW_CALLERS: usize = 3;

/// How large batches may be.
struct Pace {
    /// The current size limit of a batch.
    limit: usize,
    /// How long small batches of single messages take; it follows their median. Most of it is the
    /// sync of the disk.
    small_batch: Duration,
    /// When the last single message was queued.
    last_single: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { limit: FIRST_MESSAGES, small_batch: FIRST_SMALL_BATCH, last_single: None }
    }
}

impl Pace {
    /// How long a batch may take now.
    fn batch_time(&self) -> Duration {
        let is_recent = |single: Instant| single.elapsed() < LATELY;
        if !self.last_single.is_some_and(is_recent) {
            return BATCH_TIME_OF_STREAMS;
        }
        (self.small_batch * SMALL_BATCHES).clamp(*BATCH_TIME.start(), *BATCH_TIME.end())
    }

    /// Sets the size of the next batch by the time that the last one took.
    fn learn(&mut self, messages: usize, has_stream: bool, took: Duration) {
        // The new rockets of a stream take much longer than the sync, even if there are few.
        if messages < FEWEST_MESSAGES && !has_stream {
            // By steps, so that a few that a checkpoint has held up count as little as others.
            let step = self.small_batch / 8;
            self.small_batch = took.clamp(self.small_batch - step, self.small_batch + step);
        }
        self.limit = next_limit(self.limit, self.batch_time(), messages, took);
    }
}

/// The size of the next batch that fits into `time`, given that the last batch `took` this long. A
/// message of a new rocket takes many times as long as one of a known rocket, especially on
/// Postgres. Small batches say nothing about that: most of their time is the sync of the disk.
fn next_limit(limit: usize, time: Duration, messages: usize, took: Duration) -> usize {
    if messages < FEWEST_MESSAGES {
        return limit;
    }
    let in_time = messages as f64 * time.as_secs_f64() / took.as_secs_f64().max(1e-6);
    let next = if took > time {
        in_time as usize
    } else if messages >= limit && took < time / 2 {
        limit.saturating_mul(2)
    } else {
        limit
    };
    next.clamp(FEWEST_MESSAGES, MOST_MESSAGES)
}

/// Jobs that wait for a batch. Single messages go first, because their senders wait for each
/// answer.
#[derive(Default)]
struct Queued {
    singles: VecDeque<QueuedSubmission>,
    streams: VecDeque<QueuedSubmission>,
}

impl Queued {
    fn is_empty(&self) -> bool {
        self.singles.is_empty() && self.streams.is_empty()
    }

    fn add(&mut self, job: QueuedSubmission) {
        if job.is_single() { self.singles.push_back(job) } else { self.streams.push_back(job) }
    }

    /// The next job for a batch. Each batch takes at least one part of a stream, so that streams
    /// make progress.
    fn next(&mut self, batch_has_stream: bool, is_full: bool) -> Option<QueuedSubmission> {
        match (is_full, batch_has_stream) {
            (true, true) => None,
            (true, false) => self.streams.pop_front(),
            (false, _) => self.singles.pop_front().or_else(|| self.streams.pop_front()),
        }
    }

    fn take_all(&mut self) -> impl Iterator<Item = QueuedSubmission> {
        self.singles.drain(..).chain(self.streams.drain(..))
    }
}

/// What is notified of the outcome of batches.
pub(super) struct Observers {
    pub(super) feed: Feed,
    pub(super) metrics: Metrics,
}

pub(super) struct Committer {
    store: Store,
    /// The part of the store that its batches are for.
    partition: usize,
    observers: Observers,
    /// None after a failure: the next batch starts with a fresh one.
    writer: Option<Writer>,
    progress: Arc<CommitterHealth>,
    patience: Duration,
    queued: Queued,
    pace: Pace,
    /// Commit what is queued, and then end.
    is_stopping: bool,
    /// The last batch had few callers.
    few_callers: bool,
    /// It arrived soon after the previous one.
    in_a_row: bool,
}

/// Since when a committer has been busy with its current batch, and whether the last one failed.
#[derive(Debug)]
pub(super) struct CommitterHealth {
    started: Instant,
    /// In microseconds after `started`, plus one; zero when idle.
    busy_since: AtomicU64,
    /// The last batch was not committed.
    has_failed: AtomicBool,
}

impl Default for CommitterHealth {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            busy_since: AtomicU64::new(0),
            has_failed: AtomicBool::new(false),
        }
    }
}

impl CommitterHealth {
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn begins(&self) {
        self.busy_since.store(self.now() + 1, Ordering::Relaxed);
    }

    fn ends(&self) {
        self.busy_since.store(0, Ordering::Relaxed);
    }

    /// Whether the last batch was not committed.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Whether the current batch has been running for longer than this.
    pub(super) fn is_stalled(&self, longer_than: Duration) -> bool {
        match self.busy_since.load(Ordering::Relaxed) {
            0 => false,
            since => u128::from(self.now().saturating_sub(since - 1)) > longer_than.as_micros(),
        }
    }
}

/// A caller that waits for its part of a batch.
struct Caller {
    messages: usize,
    room: OwnedSemaphorePermit,
    answer: tokio::sync::oneshot::Sender<CommitResult>,
}

#[derive(Default)]
struct PendingBatch {
    messages: Vec<Message>,
    waiting: Vec<Caller>,
    /// Some of the messages are from a stream.
    has_stream: bool,
}

impl Committer {
    pub(super) fn new(
        store: Store,
        partition: usize,
        observers: Observers,
        progress: Arc<CommitterHealth>,
        patience: Duration,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            writer: Some(store.writer()?),
            store,
            partition,
            observers,
            progress,
            patience,
            queued: Queued::default(),
            pace: Pace::default(),
            is_stopping: false,
            few_callers: false,
            in_a_row: false,
        })
    }

    /// Commits until it is asked to stop.
    pub(super) fn run(mut self, queue: &Receiver<QueueEntry>) {
        let mut used = Vec::new();
        while self.fill(queue) {
            let mut batch = self.gather(used);
            self.few_callers = batch.waiting.len() <= FEW_CALLERS;
            if batch.waiting.is_empty() {
                // All its jobs had waited too long.
                used = batch.messages;
                continue;
            }
            self.progress.begins();
            let started = Instant::now();
            let outcome = self.commit(&batch.messages);
            self.pace.learn(batch.messages.len(), batch.has_stream, started.elapsed());
            self.progress.ends();
            self.progress.has_failed.store(outcome.is_err(), Ordering::Relaxed);
            if outcome.as_ref().is_err_and(StoreError::is_timeout) {
                self.fail_queued(queue, &mut batch);
            }
            Self::answer(batch.waiting, outcome);
            // The batch's memory is reused: getting new pages from the system takes longer than
            // filling them.
            used = batch.messages;
            used.clear();
        }
    }

    /// Takes in everything that is queued, and waits if there is nothing. Returns false at the end.
    fn fill(&mut self, queue: &Receiver<QueueEntry>) -> bool {
        while self.queued.is_empty() && !self.is_stopping {
            let entry = self.wait(queue);
            self.enqueue(entry.unwrap_or(QueueEntry::Stop));
        }
        self.drain(queue);
        !self.queued.is_empty()
    }

    fn drain(&mut self, queue: &Receiver<QueueEntry>) {
        while !self.is_stopping
            && let Ok(entry) = queue.try_recv()
        {
            self.enqueue(entry);
        }
    }

    fn enqueue(&mut self, entry: QueueEntry) {
        match entry {
            QueueEntry::Submission(job) => {
                if matches!(job.submission, Submission::One(_)) {
                    self.pace.last_single = Some(job.queued_at);
                }
                self.queued.add(job);
            }
            QueueEntry::Stop => self.is_stopping = true,
        }
    }

    /// Waits for the next entry.
    fn wait(&mut self, queue: &Receiver<QueueEntry>) -> Option<QueueEntry> {
        let idle_since = Instant::now();
        let entry =
            if self.in_a_row && self.few_callers { Self::spin(queue, idle_since) } else { None };
        let entry = entry.or_else(|| queue.recv().ok());
        self.in_a_row = idle_since.elapsed() < SPIN_TIME;
        entry
    }

    fn spin(queue: &Receiver<QueueEntry>, since: Instant) -> Option<QueueEntry> {
        while since.elapsed() < SPIN_TIME {
            if let Ok(entry) = queue.try_recv() {
                return Some(entry);
            }
            // Other runnable threads go first.
            std::thread::yield_now();
        }
        None
    }

    /// Makes a batch of what is queued, in reused memory. It does not wait for more: while this
    /// batch commits, the next one gathers.
    fn gather(&mut self, used: Vec<Message>) -> PendingBatch {
        let mut batch = PendingBatch { messages: used, ..PendingBatch::default() };
        loop {
            let is_full = batch.messages.len() >= self.pace.limit;
            let Some(job) = self.queued.next(batch.has_stream, is_full) else { return batch };
            batch.has_stream |= !job.is_single();
            self.take(job, &mut batch);
        }
    }

    /// Fails everything queued behind a batch that has failed by a timeout: it would wait as long,
    /// and then fail too.
    fn fail_queued(&mut self, queue: &Receiver<QueueEntry>, batch: &mut PendingBatch) {
        self.drain(queue);
        for QueuedSubmission { submission, room, answer, .. } in self.queued.take_all() {
            batch.waiting.push(Caller { messages: submission.len(), room, answer });
        }
    }

    /// Adds a job to the batch, or rejects it if its caller has waited too long. Stream parts are
    /// never rejected here.
    fn take(&self, job: QueuedSubmission, batch: &mut PendingBatch) {
        let has_waited_too_long = job.is_single() && job.queued_at.elapsed() > self.patience;
        let QueuedSubmission { submission, room, queued_at, answer } = job;
        if has_waited_too_long {
            drop(room);
            // The caller may be gone.
            let _ = answer.send(Err(IngestError::Overloaded));
            return;
        }
        self.observers.metrics.waited(queued_at);
        batch.waiting.push(Caller { messages: submission.len(), room, answer });
        match submission {
            Submission::One(message) => batch.messages.push(message),
            Submission::Many(messages) => batch.messages.extend(messages),
        }
    }

    /// Commits a batch, and reports the outcome. An empty batch is a probe.
    fn commit(&mut self, messages: &[Message]) -> Result<Vec<Outcome>, StoreError> {
        let started = Instant::now();
        let outcomes = self.try_commit(messages);
        let Observers { feed, metrics } = &self.observers;
        if outcomes.is_err() {
            metrics.store_failed(StoreOperation::Commit);
        }
        if !messages.is_empty() {
            feed.report(messages, outcomes.as_deref().ok());
            metrics.committed(messages, outcomes.as_deref().ok(), started.elapsed());
        }
        outcomes
    }

    fn try_commit(&mut self, messages: &[Message]) -> Result<Vec<Outcome>, StoreError> {
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.store.writer()?,
        };
        let now = Timestamp::from_system_time(SystemTime::now());
        // A bug that one batch triggers must not end the thread that all others need.
        let committed = catch_unwind(AssertUnwindSafe(|| {
            if messages.is_empty() {
                return writer.probe(self.partition).map(|()| Vec::new());
            }
            let outcomes = writer.commit(messages, now)?;
            // Otherwise messages would be acknowledged whose outcome nobody knows.
            assert_eq!(outcomes.len(), messages.len(), "there is an outcome for each message");
            Ok(outcomes)
        }));
        let outcomes = committed.unwrap_or(Err(StoreError::BrokenOff))?;
        self.writer = Some(writer);
        Ok(outcomes)
    }

    fn answer(waiting: Vec<Caller>, outcome: Result<Vec<Outcome>, StoreError>) {
        let outcome = outcome.map_err(|error| {
            tracing::error!(%error, callers = waiting.len(), "a batch was not committed");
            IngestError::Store(error.to_string().into())
        });
        let mut from = 0;
        for Caller { messages, room, answer } in waiting {
            drop(room);
            let tally = outcome.as_ref().map(|outcomes| {
                let (_, rest) = outcomes.split_at(from);
                let (mine, _) = rest.split_at(messages);
                Tally::of(mine)
            });
            from += messages;
            // The caller may be gone.
            let _ = answer.send(tally.map_err(Clone::clone));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A job of this many messages.
    fn job(messages: usize) -> QueuedSubmission {
        let message = br#"{"metadata": {"channel": "r", "messageNumber": 1,
                           "messageTime": "2022-02-02T19:39:05Z",
                           "messageType": "RocketSpeedIncreased"},
                           "message": {"by": 1}}"#;
        let message = crate::wire::message::parse(message.as_slice().to_vec().into()).unwrap();
        let submission = if messages == 1 {
            Submission::One(message)
        } else {
            Submission::Many(vec![message; messages])
        };
        let room = Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().unwrap();
        QueuedSubmission {
            submission,
            room,
            queued_at: Instant::now(),
            answer: tokio::sync::oneshot::channel().0,
        }
    }

    #[test]
    fn single_messages_go_first_and_each_batch_takes_a_part_of_a_stream() {
        let mut queued = Queued::default();
        for messages in [700, 1, 600, 1, 0] {
            queued.add(job(messages));
        }
        let mut next =
            |has_stream, is_full| queued.next(has_stream, is_full).map(|job| job.submission.len());
        assert_eq!(next(false, false), Some(1));
        assert_eq!(next(false, false), Some(1));
        assert_eq!(next(false, false), Some(0), "a probe");
        // However full the batch is, one part of a stream goes in.
        assert_eq!(next(false, true), Some(700));
        assert_eq!(next(true, true), None);
        assert_eq!(next(true, false), Some(600));
        assert_eq!(next(true, false), None);
    }

    #[test]
    fn only_batches_of_single_messages_tell_how_long_a_small_one_takes() {
        let mut pace = Pace { last_single: Some(Instant::now()), ..Pace::default() };
        for _ in 0..100 {
            pace.learn(3, false, Duration::from_millis(2));
            pace.learn(3, false, Duration::from_millis(2));
            pace.learn(3, false, Duration::from_millis(500));
            pace.learn(3, false, Duration::from_millis(2));
            pace.learn(FEWEST_MESSAGES, false, Duration::from_millis(50));
            pace.learn(FEWEST_MESSAGES - 1, true, Duration::from_millis(50));
        }
        let time = pace.batch_time();
        assert!(time.abs_diff(Duration::from_millis(8)) < Duration::from_millis(2), "{time:?}");
    }

    #[test]
    fn a_batch_takes_what_can_be_committed_in_time() {
        for (limit, messages, millis, next) in [
            // Slow: take what would have fit.
            (4_096, 4_096, 400, 1_024),
            (32_768, 8_000, 1_000, 800),
            (4_096, 1_000, 60_000, FEWEST_MESSAGES),
            // Slow, but too few to tell why.
            (4_096, 0, 2_000, 4_096),
            (4_096, FEWEST_MESSAGES - 1, 2_000, 4_096),
            // Fast and full: take more. Fast but not full means nothing.
            (4_096, 4_096, 20, 8_192),
            (4_096, 5_000, 49, 8_192),
            (4_096, 1_000, 1, 4_096),
            (MOST_MESSAGES, 40_000, 1, MOST_MESSAGES),
            // About right.
            (4_096, 4_096, 80, 4_096),
        ] {
            let took = Duration::from_millis(millis);
            assert_eq!(
                next_limit(limit, Duration::from_millis(100), messages, took),
                next,
                "{limit} {messages} {millis}"
            );
        }
        // Without single messages, a batch may take longer.
        let took = Duration::from_millis(400);
        assert_eq!(next_limit(4_096, BATCH_TIME_OF_STREAMS, 4_096, took), 8_192);
    }
}
