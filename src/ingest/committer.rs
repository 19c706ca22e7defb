//! The other end of a queue: one thread that takes all that waits, commits it as one batch, and answers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::OwnedSemaphorePermit;

use super::{Answer, Entry, IngestError, Job, Parcel, Tally};
use crate::domain::batch::Outcome;
use crate::domain::message::Message;
use crate::domain::timestamp::Timestamp;
use crate::feed::Feed;
use crate::metrics::{Metrics, StoreOperation};
use crate::store::{Store, StoreError, Writer};

/// A batch that has this many messages takes no more: its transaction should not hold up those who come next for long.
const FULL_BATCH: usize = 32_768;

/// Nobody has come for so long: some of what commits have put off is done. And again a while later, when whoever watches
/// for other processes has looked, and can tell their commits from those of this one again.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(400)];
/// And so often while nobody comes, for others may have written.
const LONG_PAUSE: Duration = Duration::from_secs(1);
/// A pause in between, if there is more to do, so that another process that waits for the write lock gets it.
const SHORT_PAUSE: Duration = Duration::from_millis(1);

/// If the last batch came within this time and was of few callers, the next one is looked out for as long before the thread
/// goes to sleep: waking it takes about as long as a sync of the disk. With more of them others need the processor.
const LOOKOUT: Duration = Duration::from_micros(200);
/// So many callers are few.
const FEW_CALLERS: usize = 3;

/// Why a batch takes no more jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BatchStop {
    /// It has enough messages.
    Full,
    /// Nobody else waits. There is no lingering for company: while this batch commits, the next one gathers.
    QueueEmpty,
}

/// Whether a batch of so many messages closes, with so many jobs known to wait for it, and why.
fn batch_stop(messages: usize, another_waits: bool) -> Option<BatchStop> {
    if messages >= FULL_BATCH {
        Some(BatchStop::Full)
    } else if !another_waits {
        Some(BatchStop::QueueEmpty)
    } else {
        None
    }
}

/// Who is told what becomes of batches.
pub(super) struct Observers {
    pub(super) feed: Feed,
    pub(super) metrics: Metrics,
}

pub(super) struct Committer {
    store: Store,
    observers: Observers,
    /// None after a failure: the next batch starts with a fresh one.
    writer: Option<Writer>,
    progress: Arc<Progress>,
    patience: Duration,
    /// It was said that the last try to tidy up failed.
    tidying_failed: bool,
    /// The last batch was of few callers.
    few_callers: bool,
    /// It came soon after the one before it.
    in_a_row: bool,
}

/// Since when a committer has been at the batch that it is at, if it is at one.
#[derive(Debug)]
pub(super) struct Progress {
    started: Instant,
    /// In microseconds after the start, plus one; zero if it is idle.
    busy_since: AtomicU64,
}

impl Default for Progress {
    fn default() -> Self {
        Self { started: Instant::now(), busy_since: AtomicU64::new(0) }
    }
}

impl Progress {
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn begins(&self) {
        self.busy_since.store(self.now() + 1, Ordering::Relaxed);
    }

    fn ends(&self) {
        self.busy_since.store(0, Ordering::Relaxed);
    }

    /// Whether it has been at one batch for longer than this.
    pub(super) fn is_stalled(&self, longer_than: Duration) -> bool {
        match self.busy_since.load(Ordering::Relaxed) {
            0 => false,
            since => u128::from(self.now().saturating_sub(since - 1)) > longer_than.as_micros(),
        }
    }
}

/// Who waits for a part of a batch.
struct Waiting {
    messages: usize,
    room: OwnedSemaphorePermit,
    answer: tokio::sync::oneshot::Sender<Answer>,
}

#[derive(Default)]
struct Gathered {
    messages: Vec<Message>,
    waiting: Vec<Waiting>,
}

impl Committer {
    pub(super) fn new(
        store: Store,
        writer: Writer,
        observers: Observers,
        progress: Arc<Progress>,
        patience: Duration,
    ) -> Self {
        let (tidying_failed, few_callers, in_a_row) = (false, false, false);
        Self { store, observers, writer: Some(writer), progress, patience, tidying_failed, few_callers, in_a_row }
    }

    /// Commits until it is told to stop.
    pub(super) fn run(mut self, queue: &Receiver<Entry>) {
        let mut next = None;
        let mut used = Vec::new();
        while let Some(Entry::Job(first)) = next.take().or_else(|| self.wait(queue)) {
            let mut batch = Gathered { messages: used, waiting: Vec::new() };
            next = self.gather(first, queue, &mut batch);
            self.few_callers = batch.waiting.len() <= FEW_CALLERS;
            self.progress.begins();
            let outcome = self.commit(&batch.messages);
            self.progress.ends();
            let in_vain = outcome.as_ref().is_err_and(StoreError::was_waited_for);
            if in_vain && !matches!(next, Some(Entry::Stop)) {
                next = Self::gather_all(next, queue, &mut batch);
            }
            Self::answer(batch.waiting, outcome);
            // The memory of one batch is the next one's: new pages take the system longer than filling them.
            used = batch.messages;
            used.clear();
        }
        self.tidy();
    }

    /// Waits for the next entry.
    fn wait(&mut self, queue: &Receiver<Entry>) -> Option<Entry> {
        let idle_since = Instant::now();
        let entry = if self.in_a_row && self.few_callers { Self::look_out(queue, idle_since) } else { None };
        let entry = entry.or_else(|| self.sleep(queue));
        self.in_a_row = idle_since.elapsed() < LOOKOUT;
        entry
    }

    fn look_out(queue: &Receiver<Entry>, since: Instant) -> Option<Entry> {
        while since.elapsed() < LOOKOUT {
            if let Ok(entry) = queue.try_recv() {
                return Some(entry);
            }
            // Whoever has something to do goes first.
            std::thread::yield_now();
        }
        None
    }

    /// Sleeps until the next entry, and uses pauses to tidy up.
    fn sleep(&mut self, queue: &Receiver<Entry>) -> Option<Entry> {
        let mut pauses = PAUSES.into_iter();
        let mut more = false;
        loop {
            let pause = if more { SHORT_PAUSE } else { pauses.next().unwrap_or(LONG_PAUSE) };
            match queue.recv_timeout(pause) {
                Ok(entry) => return Some(entry),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => more = self.tidy(),
            }
        }
    }

    /// Whether there is more to do.
    fn tidy(&mut self) -> bool {
        self.progress.begins();
        let tidied = self.try_tidy();
        self.progress.ends();
        // Nobody waits for this, and a later pause tries again.
        if let Err(error) = &tidied
            && !self.tidying_failed
        {
            tracing::warn!(%error, "could not tidy up");
        }
        self.tidying_failed = tidied.is_err();
        if tidied.is_err() {
            // As after any other failure.
            self.writer = None;
        }
        tidied.unwrap_or(false)
    }

    fn try_tidy(&mut self) -> Result<bool, StoreError> {
        if self.tidying_failed && self.writer.is_none() {
            self.writer = Some(self.store.writer()?);
        }
        self.writer.as_mut().map_or(Ok(false), Writer::tidy)
    }

    /// Fills a batch; gives back the entry that found no place in it.
    fn gather(&self, first: Job, queue: &Receiver<Entry>, batch: &mut Gathered) -> Option<Entry> {
        self.take(first, batch);
        loop {
            let next = queue.try_recv().ok();
            if let Some(stop) = batch_stop(batch.messages.len(), next.is_some()) {
                tracing::trace!(messages = batch.messages.len(), ?stop, "batch");
                return next;
            }
            match next {
                Some(Entry::Job(job)) => self.take(job, batch),
                stop => return stop,
            }
        }
    }

    /// Adds whoever waits behind a batch that has failed after a long wait: they would wait as long, and then be told
    /// the same. Gives back what was to be done next but for jobs.
    fn gather_all(next: Option<Entry>, queue: &Receiver<Entry>, batch: &mut Gathered) -> Option<Entry> {
        for entry in next.into_iter().chain(queue.try_iter()) {
            match entry {
                Entry::Job(Job { parcel, room, answer, .. }) => {
                    batch.waiting.push(Waiting { messages: parcel.len(), room, answer });
                }
                Entry::Stop => return Some(Entry::Stop),
            }
        }
        None
    }

    /// Adds a job to the batch, or turns it away if its caller has waited too long.
    fn take(&self, job: Job, batch: &mut Gathered) {
        let Job { parcel, room, queued_at, answer } = job;
        if queued_at.elapsed() > self.patience {
            drop(room);
            // The caller may be gone.
            let _ = answer.send(Err(IngestError::Overloaded));
            return;
        }
        self.observers.metrics.waited(queued_at);
        batch.waiting.push(Waiting { messages: parcel.len(), room, answer });
        match parcel {
            Parcel::One(message) => batch.messages.push(message),
            Parcel::Many(messages) => batch.messages.extend(messages),
        }
    }

    /// Commits a batch, and tells what became of it; no messages ask whether some could be committed.
    fn commit(&mut self, messages: &[Message]) -> Result<Vec<Outcome>, StoreError> {
        let started = Instant::now();
        let outcomes = self.try_commit(messages);
        let Observers { feed, metrics } = &self.observers;
        if outcomes.is_err() {
            metrics.store_failed(StoreOperation::Commit);
        }
        if !messages.is_empty() {
            feed.touch(messages, outcomes.as_deref().ok());
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
        // A defect that one batch brings to light must not end the thread that all others need.
        let committed = catch_unwind(AssertUnwindSafe(|| {
            if messages.is_empty() { writer.probe().map(|()| Vec::new()) } else { writer.commit(messages, now) }
        }));
        let outcomes = committed.unwrap_or(Err(StoreError::BrokenOff))?;
        self.writer = Some(writer);
        Ok(outcomes)
    }

    fn answer(waiting: Vec<Waiting>, outcome: Result<Vec<Outcome>, StoreError>) {
        let outcome = outcome.map_err(|error| {
            tracing::error!(%error, callers = waiting.len(), "a batch was not committed");
            IngestError::Store(error.to_string().into())
        });
        let mut from = 0;
        for Waiting { messages, room, answer } in waiting {
            drop(room);
            let tally = outcome.as_ref().map(|outcomes| {
                let mine = outcomes.get(from..from + messages).unwrap_or_default();
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
    use super::*;

    #[test]
    fn a_batch_closes_when_it_is_full_or_nobody_waits() {
        for (messages, another_waits, stop) in [
            (0, true, None),
            (1, true, None),
            (FULL_BATCH - 1, true, None),
            (1, false, Some(BatchStop::QueueEmpty)),
            (FULL_BATCH, true, Some(BatchStop::Full)),
            (FULL_BATCH + 500, false, Some(BatchStop::Full)),
        ] {
            assert_eq!(batch_stop(messages, another_waits), stop, "{messages} {another_waits}");
        }
    }
}
