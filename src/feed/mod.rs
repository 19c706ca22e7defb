//! Recent changes, for followers: committers report the rockets that they have changed. A dedicated
//! thread reads the current state of each of these rockets at most ten times a second, and logs the
//! latest change of each rocket. Followers take the changes at their own pace.
//!
//! Committers never wait for followers, and a follower costs no more memory than one chunk. A
//! follower that falls behind the retained changes is disconnected, and starts again. Without
//! followers, nothing is read. `change_log` retains the changes, `reader` is the thread, `silences`
//! is about rockets that change by time alone. No HTTP and no SQL belong here.

mod change_log;
mod reader;
mod silences;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, watch};

use crate::domain::batch::Outcome;
use crate::domain::message::Message;
use crate::domain::query::SilentFor;
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
use crate::store::changes::{ChangeHint, ChangeHints};
use crate::store::{Notifier, Store, StoreError};
use change_log::ChangeLog;
pub use change_log::{Cursor, Delivery, RocketChange};
use reader::ChangeReader;
use silences::Token;

/// The maximum number of changed rockets that wait to be read. If there are more, a scan finds all
/// changed rockets.
const MAX_PENDING: usize = 65_536;
/// The maximum number of followers at a time.
const MAX_FOLLOWERS: usize = 4_096;

/// How long a new follower waits for the subscription to other processes' changes.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a client can't follow changes now.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum FollowError {
    /// There are too many followers.
    #[error("too many clients are following changes")]
    TooMany,
    /// They follow too many different silences.
    #[error("clients are following too many different values of silentFor")]
    TooManySilences,
    /// Other processes' changes can't be received.
    #[error("changes can't be read from the database now")]
    Unavailable,
}

/// Receives and distributes changes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Feed {
    shared: Arc<FeedState>,
}

#[derive(Debug)]
struct FeedState {
    /// Whether changes are collected: there is a follower, or there was one recently.
    is_followed: AtomicBool,
    /// Notifies other instances, even without followers here. None if they need no notification.
    notifier: Option<Notifier>,
    followers: AtomicUsize,
    /// When there last was a follower; none if changes are no longer collected.
    last_followed: Mutex<Option<Instant>>,
    pending: Mutex<PendingChanges>,
    wake_reader: Notify,
    wake_notifier: Notify,
    stop: Notify,
    log: Mutex<ChangeLog>,
    /// Whether other processes' changes are received.
    is_subscribed: watch::Sender<bool>,
    /// The position of the latest change.
    end: watch::Sender<u64>,
}

/// Changes that have been reported and not yet read.
#[derive(Debug, Default)]
struct PendingChanges {
    hints: ChangeHints,
    /// Other rockets may have changed, too: there were too many hints, or the changes are
    /// unspecified.
    needs_scan: bool,
    /// The hints that have not been sent to other instances.
    unsent: ChangeHints,
}

impl PendingChanges {
    fn add(&mut self, channel: &Channel, hint: ChangeHint) {
        self.needs_scan |= !add(&mut self.hints, channel, hint);
    }
}

/// Adds a hint. Returns false if there are too many.
fn add(hints: &mut ChangeHints, channel: &Channel, hint: ChangeHint) -> bool {
    if let Some(existing) = hints.get_mut(channel) {
        existing.add(hint);
        return true;
    }
    let fits = hints.len() < MAX_PENDING;
    if fits {
        hints.insert(channel.detached(), hint);
    }
    fits
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under this lock leaves the data consistent, because nothing is changed in two steps.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Feed {
    /// Starts the thread. It ends after [`stop`](Self::stop).
    pub fn start(store: &Store) -> Result<(Self, JoinHandle<()>), StoreError> {
        let shared = Arc::new(FeedState {
            is_followed: AtomicBool::new(false),
            notifier: store.notifier(),
            followers: AtomicUsize::new(0),
            last_followed: Mutex::default(),
            pending: Mutex::default(),
            wake_reader: Notify::new(),
            wake_notifier: Notify::new(),
            stop: Notify::new(),
            log: Mutex::new(ChangeLog::new(reader::new_epoch())),
            is_subscribed: watch::Sender::new(false),
            end: watch::Sender::new(0),
        });
        let reader = ChangeReader::new(store.clone(), Arc::clone(&shared))?;
        let thread = std::thread::Builder::new().name("feed".to_owned());
        let thread = thread.spawn(move || reader.run()).map_err(StoreError::Thread)?;
        Ok((Self { shared }, thread))
    }

    /// Reports committed messages. Without outcomes, after a failure, all of them may have been
    /// committed.
    pub fn report(&self, messages: &[Message], outcomes: Option<&[Outcome]>) {
        let shared = &self.shared;
        let is_followed = shared.is_followed.load(Ordering::SeqCst);
        if !is_followed && shared.notifier.is_none() {
            return;
        }
        let mut pending = lock(&shared.pending);
        for (index, message) in messages.iter().enumerate() {
            let hint = match outcomes.map(|outcomes| outcomes[index]) {
                Some(Outcome::Applied) => ChangeHint::of(message),
                Some(Outcome::Duplicate) => continue,
                None => ChangeHint::UNKNOWN,
            };
            if is_followed {
                pending.add(&message.channel, hint);
            }
            if shared.notifier.is_some() {
                // If there are too many, other instances are notified of unspecified changes.
                add(&mut pending.unsent, &message.channel, hint);
            }
        }
        drop(pending);
        shared.wake_reader.notify_one();
        shared.wake_notifier.notify_one();
    }

    /// Reports other changes of rockets, which are committed or may be. The store has notified
    /// other instances.
    pub fn report_changed<'c>(
        &self,
        channels: impl IntoIterator<Item = &'c Channel>,
        hint: ChangeHint,
    ) {
        if self.shared.is_followed.load(Ordering::SeqCst) {
            let mut pending = lock(&self.shared.pending);
            channels.into_iter().for_each(|channel| pending.add(channel, hint));
            drop(pending);
            self.shared.wake_reader.notify_one();
        }
    }

    /// Starts to follow: at `from` if the changes since then are retained, or else at the end.
    /// Delivers everything that is committed from now on, here or elsewhere, and if `silent_for` is
    /// given, every rocket that becomes silent for this long.
    pub async fn follow(
        &self,
        from: Option<Cursor>,
        silent_for: Option<SilentFor>,
    ) -> Result<Follower, FollowError> {
        let mut follower = self.register().ok_or(FollowError::TooMany)?;
        let mut subscribed = self.shared.is_subscribed.subscribe();
        let subscribed = subscribed.wait_for(|is_subscribed| *is_subscribed);
        match tokio::time::timeout(SUBSCRIBE_TIMEOUT, subscribed).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return Err(FollowError::Unavailable),
        }
        let mut log = lock(&self.shared.log);
        let end = log.cursor();
        let from = from.filter(|from| {
            log.retains(*from)
                && silent_for.is_none_or(|silent_for| {
                    log.silences.is_complete_since(silent_for, from.position)
                })
        });
        (follower.cursor, follower.is_resumed) = (from.unwrap_or(end), from.is_some());
        if let Some(silent_for) = silent_for {
            let now = Timestamp::from_system_time(SystemTime::now());
            let token = log.silences.follow(silent_for, end.position, now);
            follower.silence = Some(token.ok_or(FollowError::TooManySilences)?);
            follower.now = log.silences.now();
        }
        drop(log);
        // A silence may be due before the reader's next check.
        self.shared.wake_reader.notify_one();
        Ok(follower)
    }

    /// A follower without a position. From now on changes are collected for it. None if there are
    /// too many followers.
    fn register(&self) -> Option<Follower> {
        let shared = &self.shared;
        // Locked to the end, so that the reader doesn't stop collecting in between.
        let mut last_followed = lock(&shared.last_followed);
        if shared.followers.load(Ordering::SeqCst) >= MAX_FOLLOWERS {
            return None;
        }
        shared.followers.fetch_add(1, Ordering::SeqCst);
        *last_followed = Some(Instant::now());
        shared.is_followed.store(true, Ordering::SeqCst);
        drop(last_followed);
        shared.wake_reader.notify_one();
        Some(Follower {
            end: shared.end.subscribe(),
            shared: Arc::clone(shared),
            cursor: Cursor { epoch: 0, position: 0 },
            is_resumed: false,
            silence: None,
            now: Timestamp::FIRST,
        })
    }

    pub fn followers(&self) -> usize {
        self.shared.followers.load(Ordering::SeqCst)
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.shared.stop.notify_one();
    }
}

#[derive(Debug)]
pub struct Follower {
    shared: Arc<FeedState>,
    end: watch::Receiver<u64>,
    cursor: Cursor,
    is_resumed: bool,
    /// Held, so that its silence is checked.
    silence: Option<Token>,
    now: Timestamp,
}

impl Follower {
    /// The follower's position: all changes before it have been taken.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Whether it follows from where the client has left off.
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// The time at which rockets are silent or not, if it follows a silence: for a snapshot, or for
    /// the changes that were taken last.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Takes the next changes, at most `limit`; none if the follower was too slow and some are no
    /// longer retained.
    pub fn take(&mut self, limit: usize) -> Option<Vec<Arc<RocketChange>>> {
        // Marked as seen first, so that any later change wakes the follower.
        self.end.borrow_and_update();
        let log = lock(&self.shared.log);
        let changes = log.since(self.cursor, limit)?;
        if self.silence.is_some() {
            self.now = log.silences.now();
        }
        drop(log);
        if let Some(last) = changes.last() {
            self.cursor.position = last.position;
        }
        Some(changes)
    }

    /// Waits until there may be more changes.
    pub async fn wait(&mut self) {
        if self.end.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        *lock(&self.shared.last_followed) = Some(Instant::now());
        self.shared.followers.fetch_sub(1, Ordering::SeqCst);
    }
}
