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
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
use crate::store::changes::{ChangeHint, ChangeHints, Notified, ScanProgress};
use crate::store::{ChangeScan, Store, StoreError};

/// The shortest time between two events of a rocket.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// The longest delay of a change, however long reading takes.
const LONGEST_PAUSE: Duration = Duration::from_millis(600);
/// Reading takes at most one part in this many of the time.
const SHARE: u32 = 16;
/// The most events per second to all followers together, as far as merging can achieve it: about 50
/// MB.
const EVENTS_A_SECOND: u64 = 100_000;
/// How long changes are kept after the last follower has left.
const KEPT: Duration = Duration::from_secs(60);
/// How many rockets are read at a time.
const READ: usize = 512;
/// How long to wait after a store failure.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// A number that no other sequence of changes has.
pub(super) fn new_epoch() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    foldhash::fast::RandomState::default().hash_one((std::process::id(), now.as_nanos()))
}

pub(super) struct ChangeReader {
    store: Store,
    shared: Arc<FeedState>,
    runtime: Runtime,
    /// How many changes were added since the last check.
    kept: Cell<u64>,
    /// Reading changes fails, and that has been logged.
    failing: Cell<bool>,
}

/// What is open while there are followers.
#[derive(Default)]
struct Following {
    /// None if other processes' changes can't be received now.
    subscription: Option<Subscription>,
    /// Kept across failures, because it finds what was missed in the meantime.
    scan_state: Option<ScanState>,
}

/// How other processes' changes are found, with or without a notification.
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

/// Why the reader wakes up.
enum WakeReason {
    /// Something was changed here, or it is time to check for followers.
    Locally,
    /// Other processes changed something; none if the subscription failed.
    By(Option<Notified>),
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
        Ok(Self { store, shared, runtime, kept: Cell::new(0), failing: Cell::new(false) })
    }

    /// Reads and notifies until the feed stops.
    pub(super) fn run(self) {
        // A defect that one change triggers must not end the event streams for good.
        while catch_unwind(AssertUnwindSafe(|| self.run_until_stopped())).is_err() {
            tracing::error!("reading changes panicked; all event streams start again");
            self.start_again();
        }
    }

    fn run_until_stopped(&self) {
        self.runtime.block_on(async {
            tokio::select! {
                () = self.read_forever() => {}
                () = self.notify_forever() => {}
                () = self.shared.stop.notified() => {}
            }
        });
    }

    /// After a panic it is unknown what was missed. A new epoch makes all followers begin with a
    /// snapshot.
    fn start_again(&self) {
        *lock(&self.shared.log) = ChangeLog::new(new_epoch());
        self.shared.end.send_replace(0);
        self.shared.is_subscribed.send_replace(false);
        self.shared.wake_reader.notify_one();
        self.shared.wake_notifier.notify_one();
        // A panic that repeats itself must not keep a processor busy.
        std::thread::sleep(AFTER_FAILURE);
    }

    async fn read_forever(&self) {
        let mut following = Following::default();
        let mut next_round = Instant::now();
        loop {
            self.wait(&mut following.subscription).await;
            let listened = self.keep_listening(&mut following).await;
            tokio::time::sleep_until(next_round).await;
            let started = Instant::now();
            let done = match listened {
                Ok(()) => self.round(&mut following).await,
                Err(error) => Err(error),
            };
            if done.is_ok() && following.subscription.is_some() && self.failing.replace(false) {
                tracing::info!("changes can be read again");
            }
            let pause = match done {
                Ok(()) => (started.elapsed() * SHARE)
                    .max(self.time_to_send())
                    .clamp(SHORTEST_PAUSE, LONGEST_PAUSE),
                Err(error) => {
                    // Log the first failure, not each retry.
                    if self.failing.replace(true) {
                        tracing::debug!(%error, "changes still can't be read");
                    } else {
                        tracing::warn!(%error, "changes can't be read; event streams are \
                                                unavailable");
                    }
                    self.stop_listening(&mut following.subscription);
                    AFTER_FAILURE
                }
            };
            next_round = started + pause;
        }
    }

    /// How long it may take to send followers the changes of this round.
    fn time_to_send(&self) -> Duration {
        let followers = self.shared.followers.load(Ordering::SeqCst) as u64;
        Duration::from_micros(self.kept.take() * followers * 1_000_000 / EVENTS_A_SECOND)
    }

    /// Subscribes to other processes' changes once there is a follower, and scans for changes
    /// missed before.
    async fn keep_listening(&self, following: &mut Following) -> Result<(), StoreError> {
        if following.subscription.is_none() && self.shared.followers.load(Ordering::SeqCst) > 0 {
            let subscription = self.listen().await?;
            // New followers read the current state, so only changes from here on must be found.
            if following.scan_state.is_some() {
                // Changes may have been missed while nobody listened.
                lock(&self.shared.pending).others = true;
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

    /// After a failure it is unknown what was missed. A scan finds it once the store works again.
    fn stop_listening(&self, subscription: &mut Option<Subscription>) {
        *subscription = None;
        self.shared.is_subscribed.send_replace(false);
        lock(&self.shared.pending).others = true;
        self.shared.wake_reader.notify_one();
    }

    /// Waits until there is something to do.
    async fn wait(&self, subscription: &mut Option<Subscription>) {
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
                        notified = subscription.notified.recv() => WakeReason::By(notified),
                        () = scan_for_changes => WakeReason::By(Some(Notified::Something)),
                    }
                }
                None => std::future::pending().await,
            }
        };
        let is_followed = self.shared.is_followed.load(Ordering::SeqCst);
        let notified = tokio::select! {
            notified = notified => notified,
            () = self.shared.wake_reader.notified() => WakeReason::Locally,
            // Checks whether there are still followers.
            () = tokio::time::sleep(KEPT), if is_followed => WakeReason::Locally,
        };
        match notified {
            WakeReason::Locally => {}
            WakeReason::By(Some(notified)) => self.note(notified),
            WakeReason::By(None) => self.stop_listening(subscription),
        }
        // Notifications may arrive faster than rounds follow one another.
        if let Some(subscription) = subscription {
            while let Ok(notified) = subscription.notified.try_recv() {
                self.note(notified);
            }
        }
    }

    /// Notes what another process has reported.
    fn note(&self, notified: Notified) {
        let mut pending = lock(&self.shared.pending);
        match notified {
            Notified::ChangeHints(hints) => {
                hints.iter().for_each(|(channel, hint)| pending.add(channel, *hint))
            }
            Notified::Something => pending.others = true,
        }
    }

    /// Reads and keeps the changed rockets.
    async fn round(&self, following: &mut Following) -> Result<(), StoreError> {
        let Some((hints, others)) = self.take() else {
            *following = Following::default();
            return Ok(());
        };
        self.read(hints).await?;
        let Following { subscription: Some(subscription), scan_state: Some(scan_state) } =
            following
        else {
            return Ok(());
        };
        if others {
            self.scan_for_changes(scan_state).await?;
            subscription.next_scan = subscription.scan_interval.map(|time| Instant::now() + time);
        }
        Ok(())
    }

    /// Notifies other instances of changes, with or without followers here.
    async fn notify_forever(&self) {
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
            tokio::time::sleep(SHORTEST_PAUSE).await;
        }
    }

    /// Takes the reported changes; none if there have been no followers for a while. From then on
    /// changes are not collected, and a client that reconnects later starts again.
    fn take(&self) -> Option<(ChangeHints, bool)> {
        let shared = &self.shared;
        let mut followed = lock(&shared.followed);
        let is_followed = shared.followers.load(Ordering::SeqCst) > 0
            || followed.is_some_and(|at| at.elapsed() < KEPT);
        if !is_followed && followed.take().is_some() {
            shared.is_followed.store(false, Ordering::SeqCst);
            shared.is_subscribed.send_replace(false);
            *lock(&shared.log) = ChangeLog::new(new_epoch());
        }
        let mut pending = lock(&shared.pending);
        let taken = (std::mem::take(&mut pending.hints), std::mem::take(&mut pending.others));
        is_followed.then_some(taken)
    }

    async fn listen(&self) -> Result<Subscription, StoreError> {
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

    /// Reads the current state of changed rockets.
    async fn read(&self, hints: ChangeHints) -> Result<(), StoreError> {
        let channels: Vec<Channel> = hints.keys().cloned().collect();
        for part in channels.chunks(READ) {
            let rockets = self.store.rockets_of(part).await?;
            let found: HashSet<Channel> =
                rockets.iter().map(|rocket| rocket.channel.clone()).collect();
            self.keep(|log| {
                for rocket in rockets {
                    // A scan may have found this state before.
                    if log.has(&rocket) {
                        continue;
                    }
                    let hint = hints.get(&rocket.channel).copied().unwrap_or(ChangeHint::UNKNOWN);
                    log.add(rocket.channel.clone(), Some(rocket), hint);
                }
                // The others were removed, which a scan also finds, or were never stored: followers
                // must not see those.
                for channel in part.iter().filter(|channel| !found.contains(channel)) {
                    if log.has_rocket(channel) {
                        log.add(channel.clone(), None, ChangeHint::UNKNOWN);
                    }
                }
            });
            // Followers needn't wait for the rest.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Scans for everything that has changed or was removed since the last scan, by whichever
    /// process.
    async fn scan_for_changes(&self, scan_state: &mut ScanState) -> Result<(), StoreError> {
        loop {
            match scan_state.scan.next().await? {
                ScanProgress::Done => break,
                ScanProgress::AnotherDatabase => {
                    // Followers are disconnected, and start with a new snapshot.
                    *lock(&self.shared.log) = ChangeLog::new(new_epoch());
                    self.shared.end.send_replace(0);
                }
                ScanProgress::Rockets(rockets) => self.keep(|log| {
                    for rocket in rockets {
                        if !log.has(&rocket) {
                            log.add(rocket.channel.clone(), Some(rocket), ChangeHint::UNKNOWN);
                        }
                    }
                }),
            }
            tokio::task::yield_now().await;
        }
        self.find_forgotten(scan_state).await
    }

    async fn find_forgotten(&self, scan_state: &mut ScanState) -> Result<(), StoreError> {
        let forgotten: HashSet<_> = self.store.forgotten().await?.into_iter().collect();
        let new: Vec<Channel> = forgotten
            .difference(&scan_state.forgotten)
            .map(|(channel, _)| channel.clone())
            .collect();
        for part in new.chunks(READ) {
            let existing: HashSet<Channel> = self
                .store
                .rockets_of(part)
                .await?
                .into_iter()
                .map(|rocket| rocket.channel)
                .collect();
            self.keep(|log| {
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

    /// Applies a change, and wakes followers.
    fn keep(&self, change: impl FnOnce(&mut ChangeLog)) {
        let mut log = lock(&self.shared.log);
        let before = log.cursor().position;
        change(&mut log);
        let end = log.cursor().position;
        drop(log);
        self.kept.set(self.kept.get() + end - before);
        if end != before {
            self.shared.end.send_replace(end);
        }
    }
}
