//! The thread that reads changed rockets, notifies other instances, and receives their
//! notifications.

use std::cell::Cell;
use std::collections::HashSet;
use std::hash::BuildHasher;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::change_log::ChangeLog;
use super::{FeedState, MAX_PENDING, lock};
use crate::domain::query::{Filters, Order, RocketQuery, SilentFor, Sort};
use crate::domain::rocket::View;
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
use crate::store::changes::{ChangeHint, ChangeHints, Notified, ScanProgress};
use crate::store::{ChangeScan, Store, StoreError};

/// The shortest time between two events of a rocket.
const MIN_PAUSE: Duration = Duration::from_millis(100);
/// The longest delay of a change, however long reading takes.
const MAX_PAUSE: Duration = Duration::from_millis(600);
/// The pause after a read is at least this many times as long as the read.
const PAUSE_FACTOR: u32 = 16;
/// The target for the maximum number of events per second to all followers together: about 50 MB.
/// Longer pauses merge more changes of a rocket to one event.
const MAX_EVENTS_PER_SECOND: u64 = 100_000;
/// How long changes are collected after the last follower has left.
const RETENTION: Duration = Duration::from_secs(60);
/// How many rockets are read at a time.
const READ_CHUNK: usize = 512;
/// How long a check for silent rockets may take, and the bounds of the pause between two checks,
/// which is also this many times as long as the check.
const MAX_CHECK: Duration = Duration::from_millis(200);
const MIN_CHECK_PAUSE: Duration = Duration::from_millis(500);
const MAX_CHECK_PAUSE: Duration = Duration::from_secs(5);
const CHECK_PAUSE_FACTOR: u32 = 4;
/// The time is checked this often, because the clock may be set while nothing is due.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);
/// How many silent rockets are read at a time. Each read searches the fleet.
const SILENT_CHUNK: usize = 4_096;
/// How long to wait after a failure.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A number that no other sequence of changes has.
pub(super) fn new_epoch() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    foldhash::fast::RandomState::default().hash_one((std::process::id(), now.as_nanos()))
}

fn system_time() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}

pub(super) struct ChangeReader {
    store: Store,
    shared: Arc<FeedState>,
    runtime: Runtime,
    /// How many changes were logged since the last pause.
    logged: Cell<u64>,
    /// The last read failed, and that is in the program's log.
    is_failing: Cell<bool>,
    /// No check for silent rockets starts before.
    next_check: Cell<Instant>,
}

/// What is open while there are followers.
#[derive(Default)]
struct Following {
    /// None if other processes' changes can't be received now.
    subscription: Option<Subscription>,
    /// It outlives failures of the subscription, because it finds the changes missed meanwhile.
    scan_state: Option<ScanState>,
}

/// Finds other processes' changes, with or without a notification.
struct ScanState {
    scan: ChangeScan,
    /// The removed rockets at the last scan.
    forgotten: HashSet<(Channel, Timestamp)>,
}

/// The subscription to other processes' changes, while there are followers.
struct Subscription {
    notified: mpsc::Receiver<Notified>,
    task: JoinHandle<()>,
    scan_interval: Option<Duration>,
    next_scan: Option<Instant>,
}

enum WakeReason {
    /// This process has committed changes, or it is time to check for followers or silent rockets.
    Local,
    /// Other processes have committed changes; none if the subscription failed.
    Notified(Option<Notified>),
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ChangeReader {
    pub(super) fn new(store: Store, shared: Arc<FeedState>) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StoreError::Thread)?;
        Ok(Self {
            store,
            shared,
            runtime,
            logged: Cell::new(0),
            is_failing: Cell::new(false),
            next_check: Cell::new(Instant::now()),
        })
    }

    /// Reads and notifies until the feed stops.
    pub(super) fn run(self) {
        // A defect that one change triggers must not end the event streams for good.
        while catch_unwind(AssertUnwindSafe(|| self.run_until_stopped())).is_err() {
            tracing::error!("reading changes panicked; all event streams start again");
            self.restart();
        }
    }

    fn run_until_stopped(&self) {
        self.runtime.block_on(async {
            tokio::select! {
                () = self.read_loop() => {}
                () = self.notify_loop() => {}
                () = self.shared.stop.notified() => {}
            }
        });
    }

    /// Changes may have been missed in a panic. A new epoch makes all followers begin with a
    /// snapshot.
    fn restart(&self) {
        *lock(&self.shared.log) = ChangeLog::new(new_epoch());
        self.shared.end.send_replace(0);
        self.shared.is_subscribed.send_replace(false);
        self.shared.wake_reader.notify_one();
        self.shared.wake_notifier.notify_one();
        // A panic that repeats itself must not keep a processor busy.
        std::thread::sleep(RETRY_PAUSE);
    }

    async fn read_loop(&self) {
        let mut following = Following::default();
        let mut next_read = Instant::now();
        loop {
            self.wait(&mut following.subscription).await;
            let subscribed = self.ensure_subscribed(&mut following).await;
            tokio::time::sleep_until(next_read).await;
            let started = Instant::now();
            let done = match subscribed {
                Ok(()) => self.read_changes(&mut following).await,
                Err(error) => Err(error),
            };
            if done.is_ok() && following.subscription.is_some() && self.is_failing.replace(false) {
                tracing::info!("changes can be read again");
            }
            let pause = match done {
                Ok(()) => (started.elapsed() * PAUSE_FACTOR)
                    .max(self.time_to_send())
                    .clamp(MIN_PAUSE, MAX_PAUSE),
                Err(error) => {
                    // Log the first failure, not each retry.
                    if self.is_failing.replace(true) {
                        tracing::debug!(%error, "changes still can't be read");
                    } else {
                        tracing::warn!(%error, "changes can't be read; event streams are \
                                                unavailable");
                    }
                    self.unsubscribe(&mut following.subscription);
                    RETRY_PAUSE
                }
            };
            next_read = started + pause;
        }
    }

    /// How long it may take to send followers the changes of this round.
    fn time_to_send(&self) -> Duration {
        let followers = self.shared.followers.load(Ordering::SeqCst) as u64;
        Duration::from_micros(self.logged.take() * followers * 1_000_000 / MAX_EVENTS_PER_SECOND)
    }

    /// Subscribes to other processes' changes once there is a follower, and scans for changes
    /// missed before.
    async fn ensure_subscribed(&self, following: &mut Following) -> Result<(), StoreError> {
        if following.subscription.is_none() && self.shared.followers.load(Ordering::SeqCst) > 0 {
            let subscription = self.subscribe().await?;
            // New followers read the current state, so only changes from here on must be found.
            if let Some(scan_state) = &mut following.scan_state {
                // Changes may have been missed without a subscription.
                scan_state.scan.rewind();
                lock(&self.shared.pending).needs_scan = true;
            } else {
                let scan = self.store.change_scan().await?;
                let forgotten = self.store.forgotten().await?.into_iter().collect();
                following.scan_state = Some(ScanState { scan, forgotten });
            }
            following.subscription = Some(subscription);
            self.shared.is_subscribed.send_replace(true);
        }
        Ok(())
    }

    /// Changes may be missed from now on. A scan finds them once the store works again.
    fn unsubscribe(&self, subscription: &mut Option<Subscription>) {
        *subscription = None;
        self.shared.is_subscribed.send_replace(false);
        lock(&self.shared.pending).needs_scan = true;
        self.shared.wake_reader.notify_one();
    }

    /// Waits until there is something to do.
    async fn wait(&self, subscription: &mut Option<Subscription>) {
        let next_check = subscription.as_ref().and_then(|_| self.next_silence_check());
        let notified = async {
            match subscription {
                Some(subscription) => {
                    let scan_for_changes = async {
                        match subscription.next_scan {
                            Some(time) => tokio::time::sleep_until(time).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        notified = subscription.notified.recv() => WakeReason::Notified(notified),
                        () = scan_for_changes => WakeReason::Notified(Some(Notified::Unspecified)),
                    }
                }
                None => std::future::pending().await,
            }
        };
        let is_followed = self.shared.is_followed.load(Ordering::SeqCst);
        let notified = tokio::select! {
            notified = notified => notified,
            () = self.shared.wake_reader.notified() => WakeReason::Local,
            () = tokio::time::sleep_until(next_check.unwrap_or_else(Instant::now)),
                if next_check.is_some() => WakeReason::Local,
            // Checks whether there are still followers.
            () = tokio::time::sleep(RETENTION), if is_followed => WakeReason::Local,
        };
        match notified {
            WakeReason::Local => {}
            WakeReason::Notified(Some(notified)) => self.add_notified(notified),
            WakeReason::Notified(None) => self.unsubscribe(subscription),
        }
        // Notifications may arrive faster than this thread reads.
        if let Some(subscription) = subscription {
            while let Ok(notified) = subscription.notified.try_recv() {
                self.add_notified(notified);
            }
        }
    }

    /// Adds another process's changes to the pending ones.
    fn add_notified(&self, notified: Notified) {
        let mut pending = lock(&self.shared.pending);
        match notified {
            Notified::ChangeHints(hints) => {
                hints.iter().for_each(|(channel, hint)| pending.add(channel, *hint))
            }
            Notified::Unspecified => pending.needs_scan = true,
        }
    }

    /// Reads and logs the changed rockets.
    async fn read_changes(&self, following: &mut Following) -> Result<(), StoreError> {
        let Some((hints, needs_scan)) = self.take_pending() else {
            *following = Following::default();
            return Ok(());
        };
        let may_have_removals = self.read_hinted(hints).await?;
        let Following { subscription: Some(subscription), scan_state: Some(scan_state) } =
            following
        else {
            return Ok(());
        };
        if needs_scan {
            self.scan_for_changes(scan_state).await?;
            subscription.next_scan = subscription.scan_interval.map(|time| Instant::now() + time);
        } else if may_have_removals {
            self.scan_for_removals(scan_state).await?;
        }
        self.check_silences().await
    }

    /// When to check for silent rockets; none if nobody wants to know.
    fn next_silence_check(&self) -> Option<Instant> {
        let due = lock(&self.shared.log).silences.next_due()?;
        let micros = due.unix_micros() - system_time().unix_micros();
        let wait = Duration::from_micros(u64::try_from(micros).unwrap_or(0)).min(CLOCK_INTERVAL);
        Some(self.next_check.get().max(Instant::now() + wait))
    }

    /// Logs the rockets that have become silent for as long as followers want to know.
    async fn check_silences(&self) -> Result<(), StoreError> {
        let started = Instant::now();
        if started < self.next_check.get() {
            return Ok(());
        }
        let now = system_time();
        let due = {
            let mut log = lock(&self.shared.log);
            if log.silences.is_clock_set_back(now) {
                *log = ChangeLog::new(new_epoch());
                self.shared.end.send_replace(0);
                return Ok(());
            }
            log.silences.start_check(now, RETENTION)
        };
        for (silent_for, checked) in due {
            // The others stay due.
            if started.elapsed() > MAX_CHECK {
                break;
            }
            let after = silent_for.cutoff(checked);
            let next_due = if self.log_silent(silent_for, after, now).await? {
                now
            } else {
                // None is silent for this long now. The first that was received may be the next.
                let first = self.store.first_received_after(after).await?;
                first.unwrap_or(now).plus(silent_for.duration())
            };
            lock(&self.shared.log).silences.end_check(silent_for, now, next_due);
        }
        let pause = started.elapsed() * CHECK_PAUSE_FACTOR;
        self.next_check.set(Instant::now() + pause.clamp(MIN_CHECK_PAUSE, MAX_CHECK_PAUSE));
        Ok(())
    }

    /// Logs the rockets that are silent for this long, and were received after this time. Returns
    /// whether there are any.
    async fn log_silent(
        &self,
        silent_for: SilentFor,
        received_after: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut query = RocketQuery {
            view: View::BestEffort,
            sort: Sort::Channel,
            order: Order::Asc,
            filters: Filters { silent_for: Some(silent_for), ..Filters::default() },
            now,
            received_after: Some(received_after),
            after: None,
            limit: SILENT_CHUNK,
            with_total: false,
        };
        let mut is_any = false;
        loop {
            let page = self.store.rockets(query.clone()).await?;
            is_any |= !page.rockets.is_empty();
            self.log_changes(|log| page.rockets.into_iter().for_each(|it| log.add_silent(it)));
            if page.next.is_none() {
                return Ok(is_any);
            }
            query.after = page.next;
            // Followers get these before the rest is read.
            tokio::task::yield_now().await;
        }
    }

    /// Notifies other instances of changes, with or without followers here.
    async fn notify_loop(&self) {
        let Some(notifier) = &self.shared.notifier else {
            return std::future::pending().await;
        };
        loop {
            self.shared.wake_notifier.notified().await;
            let hints = std::mem::take(&mut lock(&self.shared.pending).unsent);
            if hints.is_empty() {
                continue;
            }
            let hints = Some(&hints).filter(|hints| hints.len() < MAX_PENDING);
            // An instance that misses this finds the changes by a scan.
            if let Err(error) = notifier.notify(hints).await {
                tracing::debug!(%error, "could not notify other instances");
            }
            tokio::time::sleep(MIN_PAUSE).await;
        }
    }

    /// Takes the reported changes; none if there have been no followers for a while. From then on
    /// changes are not collected, and a client that reconnects later starts again.
    fn take_pending(&self) -> Option<(ChangeHints, bool)> {
        let shared = &self.shared;
        let mut last_followed = lock(&shared.last_followed);
        let is_followed = shared.followers.load(Ordering::SeqCst) > 0
            || last_followed.is_some_and(|at| at.elapsed() < RETENTION);
        if !is_followed && last_followed.take().is_some() {
            shared.is_followed.store(false, Ordering::SeqCst);
            shared.is_subscribed.send_replace(false);
            *lock(&shared.log) = ChangeLog::new(new_epoch());
        }
        let mut pending = lock(&shared.pending);
        let taken = (std::mem::take(&mut pending.hints), std::mem::take(&mut pending.needs_scan));
        is_followed.then_some(taken)
    }

    async fn subscribe(&self) -> Result<Subscription, StoreError> {
        let mut watch = self.store.watch().await?;
        let scan_interval = watch.scan_interval();
        let (sender, notified) = mpsc::channel(64);
        let task = tokio::spawn(async move {
            // After the first error the channel closes, and a new watch is created.
            while let Ok(notified) = watch.recv().await {
                if sender.send(notified).await.is_err() {
                    break;
                }
            }
        });
        let next_scan = scan_interval.map(|time| Instant::now() + time);
        Ok(Subscription { notified, task, scan_interval, next_scan })
    }

    /// Reads and logs the current state of the hinted rockets. Returns whether some of them don't
    /// exist: only the tombstones tell which were removed.
    async fn read_hinted(&self, hints: ChangeHints) -> Result<bool, StoreError> {
        let mut may_have_removals = false;
        let channels: Vec<Channel> = hints.keys().cloned().collect();
        for part in channels.chunks(READ_CHUNK) {
            let rockets = self.store.rockets_of(part).await?;
            let found: HashSet<Channel> =
                rockets.iter().map(|rocket| rocket.channel.clone()).collect();
            self.log_changes(|log| {
                for rocket in rockets {
                    let Some(hint) = hints.get(&rocket.channel) else {
                        unreachable!("the store returns only rockets of the given channels")
                    };
                    // A scan may have found this state before.
                    if log.has_change(&rocket, *hint) {
                        continue;
                    }
                    log.add(rocket.channel.clone(), Some(rocket), *hint);
                }
                // The other rockets were removed, or never stored, which followers must not see.
                for channel in part.iter().filter(|channel| !found.contains(channel)) {
                    may_have_removals = true;
                    if log.has_rocket(channel) {
                        log.add(channel.clone(), None, ChangeHint::UNKNOWN);
                    }
                }
            });
            // Followers get these before the rest is read.
            tokio::task::yield_now().await;
        }
        Ok(may_have_removals)
    }

    /// Finds all rockets that any process has changed or removed since the last scan.
    async fn scan_for_changes(&self, scan_state: &mut ScanState) -> Result<(), StoreError> {
        loop {
            match scan_state.scan.next().await? {
                ScanProgress::Done => break,
                ScanProgress::AnotherDatabase => {
                    // Followers are disconnected, and start with a new snapshot.
                    *lock(&self.shared.log) = ChangeLog::new(new_epoch());
                    self.shared.end.send_replace(0);
                }
                ScanProgress::Rockets(rockets) => self.log_changes(|log| {
                    for rocket in rockets {
                        if !log.has_state(&rocket) {
                            log.add(rocket.channel.clone(), Some(rocket), ChangeHint::UNKNOWN);
                        }
                    }
                }),
            }
            tokio::task::yield_now().await;
        }
        self.scan_for_removals(scan_state).await
    }

    async fn scan_for_removals(&self, scan_state: &mut ScanState) -> Result<(), StoreError> {
        let forgotten: HashSet<_> = self.store.forgotten().await?.into_iter().collect();
        let new: Vec<Channel> = forgotten
            .difference(&scan_state.forgotten)
            .map(|(channel, _)| channel.clone())
            .collect();
        for part in new.chunks(READ_CHUNK) {
            let existing: HashSet<Channel> = self
                .store
                .rockets_of(part)
                .await?
                .into_iter()
                .map(|rocket| rocket.channel)
                .collect();
            self.log_changes(|log| {
                for channel in part.iter().filter(|channel| !existing.contains(channel)) {
                    if !log.is_forgotten(channel) {
                        log.add(channel.clone(), None, ChangeHint::UNKNOWN);
                    }
                }
            });
        }
        scan_state.forgotten = forgotten;
        Ok(())
    }

    /// Adds changes to the log, and wakes followers.
    fn log_changes(&self, change: impl FnOnce(&mut ChangeLog)) {
        let mut log = lock(&self.shared.log);
        let before = log.cursor().position;
        change(&mut log);
        let end = log.cursor().position;
        drop(log);
        self.logged.set(self.logged.get() + end - before);
        if end != before {
            self.shared.end.send_replace(end);
        }
    }
}
