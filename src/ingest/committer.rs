//! The receiving end of a queue: a thread that takes everything that is queued, commits it as one
//! batch, and answers the callers.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::OwnedSemaphorePermit;

use super::activity::Activity;
use super::{CommitResult, IngestError, QueueEntry, QueuedSubmission, Submission, Tally};
use crate::domain::batch::Outcome;
use crate::domain::message::Message;
use crate::domain::timestamp::Timestamp;
use crate::feed::Feed;
use crate::metrics::{Metrics, StoreOperation};
use crate::store::fault_injection::FailurePoint;
use crate::store::{Store, StoreError, Writer};

/// While single messages arrive, a batch may take this many times as long as a small one does. A
/// message waits for the end of the current batch, and then for the end of its own.
const SMALL_BATCHES: u32 = 4;
/// The bounds of the time that a batch may take while single messages arrive.
const BATCH_TIME: RangeInclusive<Duration> = Duration::from_millis(2)..=Duration::from_secs(1);
/// The assumed time of a small batch, before one was measured.
const INITIAL_SMALL_BATCH: Duration = Duration::from_millis(1);
/// How long a batch may take if no single message has arrived recently. Large batches of new
/// rockets are more efficient, because they share more pages.
const STREAM_BATCH_TIME: Duration = Duration::from_secs(1);
/// A single message has arrived recently if it did so within this time.
const RECENT: Duration = Duration::from_secs(2);
/// The bounds of a batch's size, however long the messages take.
const MIN_MESSAGES: usize = 64;
const MAX_MESSAGES: usize = 32_768;
/// The limit of the first batch, before the rate is known.
const INITIAL_LIMIT: usize = 4_096;

/// If the last wait was shorter than this and the last batch had few callers, the thread spins this
/// long before it sleeps: waking it takes about as long as a sync of the disk. With more callers,
/// other threads need the processor.
const SPIN_TIME: Duration = Duration::from_micros(200);
/// The thread spins only if the last batch had at most this many callers.
const MAX_CALLERS_TO_SPIN: usize = 3;

/// Adapts the size of batches to the time that they take.
struct BatchSizer {
    /// The current size limit of a batch.
    limit: usize,
    /// How long small batches of single messages take; it follows their median. Most of it is the
    /// sync of the disk.
    small_batch: Duration,
    /// When the last single message was queued.
    last_single: Option<Instant>,
}

impl Default for BatchSizer {
    fn default() -> Self {
        Self { limit: INITIAL_LIMIT, small_batch: INITIAL_SMALL_BATCH, last_single: None }
    }
}

impl BatchSizer {
    /// How long a batch may take now.
    fn batch_time(&self) -> Duration {
        let is_recent = |single: Instant| single.elapsed() < RECENT;
        if !self.last_single.is_some_and(is_recent) {
            return STREAM_BATCH_TIME;
        }
        (self.small_batch * SMALL_BATCHES).clamp(*BATCH_TIME.start(), *BATCH_TIME.end())
    }

    /// Sets the limit of the next batch from the time that the last one took.
    fn record(&mut self, messages: usize, has_stream: bool, took: Duration) {
        // The new rockets of a stream take much longer than the sync, even if there are few.
        if messages < MIN_MESSAGES && !has_stream {
            // By steps, so that a few batches that a checkpoint has delayed have little effect.
            let step = self.small_batch / 8;
            self.small_batch = took.clamp(self.small_batch - step, self.small_batch + step);
        }
        self.limit = next_limit(self.limit, self.batch_time(), messages, took);
    }
}

/// The limit with which the next batch fits into `time`, if the last batch `took` this long. A
/// message of a new rocket takes many times as long as one of a known rocket, especially on
/// Postgres. Small batches say nothing about that: most of their time is the sync of the disk.
fn next_limit(limit: usize, time: Duration, messages: usize, took: Duration) -> usize {
    if messages < MIN_MESSAGES {
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
    next.clamp(MIN_MESSAGES, MAX_MESSAGES)
}

/// Submissions that wait for a batch. Single messages go first, because their senders wait for each
/// answer.
#[derive(Default)]
struct Backlog {
    singles: VecDeque<QueuedSubmission>,
    streams: VecDeque<QueuedSubmission>,
}

impl Backlog {
    fn is_empty(&self) -> bool {
        self.singles.is_empty() && self.streams.is_empty()
    }

    fn push(&mut self, queued: QueuedSubmission) {
        if queued.is_single() {
            self.singles.push_back(queued);
        } else {
            self.streams.push_back(queued);
        }
    }

    /// The next submission for a batch. Each batch takes at least one part of a stream, so that
    /// streams make progress.
    fn pop(&mut self, batch_has_stream: bool, is_full: bool) -> Option<QueuedSubmission> {
        match (is_full, batch_has_stream) {
            (true, true) => None,
            (true, false) => self.streams.pop_front(),
            (false, _) => self.singles.pop_front().or_else(|| self.streams.pop_front()),
        }
    }

    fn drain(&mut self) -> impl Iterator<Item = QueuedSubmission> {
        self.singles.drain(..).chain(self.streams.drain(..))
    }
}

/// They are notified of the outcome of each batch.
pub(super) struct Observers {
    pub(super) feed: Feed,
    pub(super) metrics: Metrics,
    pub(super) activity: Arc<Activity>,
}

pub(super) struct Committer {
    store: Store,
    /// The partition of the store that its batches are for.
    partition: usize,
    observers: Observers,
    /// None after a failure: the next batch starts with a new one.
    writer: Option<Writer>,
    health: Arc<CommitterHealth>,
    patience: Duration,
    backlog: Backlog,
    sizer: BatchSizer,
    /// The thread ends once everything queued is committed.
    is_stopping: bool,
    /// The last batch had few callers.
    had_few_callers: bool,
    /// The last wait for an entry was short.
    was_wait_short: bool,
}

/// When a committer started its current batch, and whether the last one failed.
#[derive(Debug)]
pub(super) struct CommitterHealth {
    started: Instant,
    /// In microseconds after `started`, plus one; zero when idle.
    busy_since: AtomicU64,
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

    fn batch_started(&self) {
        self.busy_since.store(self.now() + 1, Ordering::Relaxed);
    }

    fn batch_ended(&self) {
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
    permit: OwnedSemaphorePermit,
    answer: tokio::sync::oneshot::Sender<CommitResult>,
}

#[derive(Default)]
struct PendingBatch {
    messages: Vec<Message>,
    callers: Vec<Caller>,
    /// Some messages are from a stream.
    has_stream: bool,
}

impl Committer {
    pub(super) fn new(
        store: Store,
        partition: usize,
        observers: Observers,
        health: Arc<CommitterHealth>,
        patience: Duration,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            writer: Some(store.writer()?),
            store,
            partition,
            observers,
            health,
            patience,
            backlog: Backlog::default(),
            sizer: BatchSizer::default(),
            is_stopping: false,
            had_few_callers: false,
            was_wait_short: false,
        })
    }

    /// Commits batches until the queue has a [`QueueEntry::Stop`].
    pub(super) fn run(mut self, queue: &Receiver<QueueEntry>) {
        let mut reusable = Vec::new();
        while self.fill(queue) {
            let batch = AssertUnwindSafe(|| self.run_batch(queue, &mut reusable));
            // A defect that one batch triggers must not end the thread that commits all others.
            // This batch's callers get an error, because the panic drops their channels.
            if catch_unwind(batch).is_err() {
                tracing::error!("a batch was not answered, because the committer panicked");
                self.health.batch_ended();
                self.health.has_failed.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Commits one batch, and answers its callers.
    fn run_batch(&mut self, queue: &Receiver<QueueEntry>, reusable: &mut Vec<Message>) {
        let mut batch = self.next_batch(std::mem::take(reusable));
        self.had_few_callers = batch.callers.len() <= MAX_CALLERS_TO_SPIN;
        // There are none if all submissions had waited too long.
        if !batch.callers.is_empty() {
            self.health.batch_started();
            let started = Instant::now();
            let outcome = self.commit(&batch.messages);
            self.sizer.record(batch.messages.len(), batch.has_stream, started.elapsed());
            self.health.batch_ended();
            self.health.has_failed.store(outcome.is_err(), Ordering::Relaxed);
            if outcome.as_ref().is_err_and(StoreError::is_timeout) {
                self.fail_queued(queue, &mut batch);
            }
            Self::answer(batch.callers, outcome);
        }
        // The batch's memory is reused, because the system takes longer to map new pages than it
        // takes to fill them.
        *reusable = batch.messages;
        reusable.clear();
    }

    /// Moves everything from the queue to the backlog, and waits if there is nothing. Returns false
    /// at the end.
    fn fill(&mut self, queue: &Receiver<QueueEntry>) -> bool {
        while self.backlog.is_empty() && !self.is_stopping {
            let entry = self.wait(queue);
            self.enqueue(entry.unwrap_or(QueueEntry::Stop));
        }
        self.drain(queue);
        !self.backlog.is_empty()
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
            QueueEntry::Submission(queued) => {
                if matches!(queued.submission, Submission::One(_)) {
                    self.sizer.last_single = Some(queued.queued_at);
                }
                self.backlog.push(queued);
            }
            QueueEntry::Stop => self.is_stopping = true,
        }
    }

    /// Waits for the next entry. None if no sender is left.
    fn wait(&mut self, queue: &Receiver<QueueEntry>) -> Option<QueueEntry> {
        let idle_since = Instant::now();
        let entry = if self.was_wait_short && self.had_few_callers {
            Self::spin(queue, idle_since)
        } else {
            None
        };
        let entry = entry.or_else(|| queue.recv().ok());
        self.was_wait_short = idle_since.elapsed() < SPIN_TIME;
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

    /// Makes a batch of the backlog, in reused memory. It does not wait for more messages: those of
    /// the next batch arrive while this one commits.
    fn next_batch(&mut self, reusable: Vec<Message>) -> PendingBatch {
        let mut batch = PendingBatch { messages: reusable, ..PendingBatch::default() };
        loop {
            let is_full = batch.messages.len() >= self.sizer.limit;
            let Some(queued) = self.backlog.pop(batch.has_stream, is_full) else { return batch };
            batch.has_stream |= !queued.is_single();
            self.add(queued, &mut batch);
        }
    }

    /// Adds the callers of everything queued behind a batch that has timed out, so that they fail
    /// with it: their batch would wait as long, and then fail too.
    fn fail_queued(&mut self, queue: &Receiver<QueueEntry>, batch: &mut PendingBatch) {
        self.drain(queue);
        for QueuedSubmission { submission, permit, answer, .. } in self.backlog.drain() {
            batch.callers.push(Caller { messages: submission.len(), permit, answer });
        }
    }

    /// Adds a submission to the batch, or rejects it if its caller has waited too long. Parts of
    /// streams are never rejected here.
    fn add(&self, queued: QueuedSubmission, batch: &mut PendingBatch) {
        let has_waited_too_long = queued.is_single() && queued.queued_at.elapsed() > self.patience;
        let QueuedSubmission { submission, permit, queued_at, answer } = queued;
        if has_waited_too_long {
            drop(permit);
            // The caller may be gone.
            let _ = answer.send(Err(IngestError::Overloaded));
            return;
        }
        self.observers.metrics.waited(queued_at);
        batch.callers.push(Caller { messages: submission.len(), permit, answer });
        match submission {
            Submission::One(message) => batch.messages.push(message),
            Submission::Many(messages) => batch.messages.extend(messages),
            Submission::Probe => {}
        }
    }

    /// Commits a batch, and reports the outcome. A batch without messages holds only probes.
    fn commit(&mut self, messages: &[Message]) -> Result<Vec<Outcome>, StoreError> {
        let (started, now) = (Instant::now(), Timestamp::from_system_time(SystemTime::now()));
        let outcomes = self.try_commit(messages, now);
        let Observers { feed, metrics, activity } = &self.observers;
        if outcomes.is_err() {
            metrics.store_failed(StoreOperation::Commit);
        }
        if !messages.is_empty() {
            self.store.failures().check(FailurePoint::BeforeReport)?;
            feed.report(messages, outcomes.as_deref().ok());
            metrics.committed(messages, outcomes.as_deref().ok(), started.elapsed());
            if let Ok(outcomes) = &outcomes {
                activity.record(messages, outcomes, now);
            }
        }
        outcomes
    }

    fn try_commit(
        &mut self,
        messages: &[Message],
        now: Timestamp,
    ) -> Result<Vec<Outcome>, StoreError> {
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.store.writer()?,
        };
        // After a panic, the feed still needs the rockets that may have changed.
        let committed = catch_unwind(AssertUnwindSafe(|| {
            if messages.is_empty() {
                return writer.probe(self.partition).map(|()| Vec::new());
            }
            let outcomes = writer.commit(messages, now)?;
            // Otherwise, messages without an outcome would be acknowledged.
            assert_eq!(outcomes.len(), messages.len(), "a commit has an outcome for each message");
            Ok(outcomes)
        }));
        let outcomes = committed.unwrap_or(Err(StoreError::BrokenOff))?;
        self.writer = Some(writer);
        Ok(outcomes)
    }

    fn answer(callers: Vec<Caller>, outcome: Result<Vec<Outcome>, StoreError>) {
        let outcome = outcome.map_err(|error| {
            tracing::error!(%error, callers = callers.len(), "a batch was not committed");
            IngestError::Store(error.to_string().into())
        });
        let mut from = 0;
        for Caller { messages, permit, answer } in callers {
            drop(permit);
            let tally =
                outcome.as_ref().map(|outcomes| Tally::of(&outcomes[from..from + messages]));
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

    /// A submission of this many messages.
    fn queued(messages: usize) -> QueuedSubmission {
        let message = crate::domain::message::example::faster(1);
        let submission = match messages {
            0 => Submission::Probe,
            1 => Submission::One(message),
            _ => Submission::Many(vec![message; messages]),
        };
        let permit = Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().unwrap();
        QueuedSubmission {
            submission,
            permit,
            queued_at: Instant::now(),
            answer: tokio::sync::oneshot::channel().0,
        }
    }

    #[test]
    fn single_messages_go_first_and_each_batch_takes_a_part_of_a_stream() {
        let mut backlog = Backlog::default();
        for messages in [700, 1, 600, 1, 0] {
            backlog.push(queued(messages));
        }
        let mut next =
            |has_stream, is_full| backlog.pop(has_stream, is_full).map(|it| it.submission.len());
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
    fn the_time_of_a_small_batch_is_measured_without_streams() {
        let mut sizer = BatchSizer { last_single: Some(Instant::now()), ..BatchSizer::default() };
        for _ in 0..100 {
            sizer.record(3, false, Duration::from_millis(2));
            sizer.record(3, false, Duration::from_millis(2));
            sizer.record(3, false, Duration::from_millis(500));
            sizer.record(3, false, Duration::from_millis(2));
            sizer.record(MIN_MESSAGES, false, Duration::from_millis(50));
            sizer.record(MIN_MESSAGES - 1, true, Duration::from_millis(50));
        }
        let time = sizer.batch_time();
        assert!(time.abs_diff(Duration::from_millis(8)) < Duration::from_millis(2), "{time:?}");
    }

    #[test]
    fn the_limit_follows_the_time_that_a_batch_takes() {
        for (limit, messages, millis, next) in [
            // Slow: as many as would have fit.
            (4_096, 4_096, 400, 1_024),
            (32_768, 8_000, 1_000, 800),
            (4_096, 1_000, 60_000, MIN_MESSAGES),
            // Slow, but too few to be the cause.
            (4_096, 0, 2_000, 4_096),
            (4_096, MIN_MESSAGES - 1, 2_000, 4_096),
            // Fast and full: more. Fast but not full says nothing.
            (4_096, 4_096, 20, 8_192),
            (4_096, 5_000, 49, 8_192),
            (4_096, 1_000, 1, 4_096),
            (MAX_MESSAGES, 40_000, 1, MAX_MESSAGES),
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
        assert_eq!(next_limit(4_096, STREAM_BATCH_TIME, 4_096, took), 8_192);
    }
}
