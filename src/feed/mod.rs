//! What has changed, for those who follow: committers say which rockets they have touched, and a thread of its own reads
//! these as they are now, at most ten times a second each, and keeps the latest for followers to take at their own pace.
//!
//! Neither does a committer ever wait for a follower, nor does a follower cost more memory than it is sent at a time:
//! who is so slow that what it was still to be told has been dropped, is cut off, and begins anew. While nobody follows,
//! nothing is read. `recent` keeps the changes, `reader` is the thread. No HTTP lives here, and no SQL.

mod reader;
mod recent;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::domain::batch::Outcome;
use crate::domain::message::Message;
use crate::domain::text::Channel;
use crate::store::changes::{Touch, Touches};
use crate::store::{Store, StoreError};
use reader::Reader;
use recent::Recent;
pub use recent::{Change, Cursor, Told};

/// How many touched rockets wait to be read; if there are more, all that were received lately are looked at.
const MOST_TOUCHED: usize = 65_536;
/// How many may follow at a time.
const MOST_FOLLOWERS: usize = 4_096;

/// How long who begins to follow waits for the store.
const LISTENING_TIMEOUT: Duration = Duration::from_secs(3);

/// Why nobody can begin to follow now.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum NotNow {
    /// As many follow as may.
    #[error("too many clients are following changes")]
    TooMany,
    /// What others change can't be heard.
    #[error("changes can't be read from the database now")]
    Deaf,
}

/// Takes what has changed. Clones are the same.
#[derive(Clone, Debug)]
pub struct Feed {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Whether touches are to be read: somebody follows, or did a short while ago.
    is_followed: AtomicBool,
    /// Whether touches are to be told to others, even if nobody follows here.
    is_to_tell: bool,
    followers: AtomicUsize,
    /// When there was a follower last; none if that is so long ago that touches are not read any more.
    followed: Mutex<Option<Instant>>,
    touched: Mutex<Touched>,
    wake_reader: Notify,
    wake_teller: Notify,
    stop: Notify,
    recent: Mutex<Recent>,
    /// Whether what others change is heard.
    listening: watch::Sender<bool>,
    /// The end of the changes.
    end: watch::Sender<u64>,
}

/// What has been touched and not been read yet.
#[derive(Debug, Default)]
struct Touched {
    touches: Touches,
    /// There were too many, or it is not known which.
    others: bool,
    /// What others are still to be told.
    untold: Touches,
}

impl Touched {
    fn add(&mut self, channel: &Channel, touch: Touch) {
        self.others |= !add(&mut self.touches, channel, touch);
    }
}

/// Adds a touch, if there is room for it.
fn add(touches: &mut Touches, channel: &Channel, touch: Touch) -> bool {
    if let Some(before) = touches.get_mut(channel) {
        before.add(touch);
        return true;
    }
    let has_room = touches.len() < MOST_TOUCHED;
    if has_room {
        touches.insert(channel.detached(), touch);
    }
    has_room
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked while he held it left it whole: nothing is changed in two steps.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Feed {
    /// Starts the thread that reads. It ends after [`stop`](Self::stop).
    pub fn start(store: &Store) -> Result<(Self, JoinHandle<()>), StoreError> {
        let shared = Arc::new(Shared {
            is_followed: AtomicBool::new(false),
            is_to_tell: store.is_to_tell(),
            followers: AtomicUsize::new(0),
            followed: Mutex::default(),
            touched: Mutex::default(),
            wake_reader: Notify::new(),
            wake_teller: Notify::new(),
            stop: Notify::new(),
            recent: Mutex::new(Recent::new(reader::new_epoch())),
            listening: watch::Sender::new(false),
            end: watch::Sender::new(0),
        });
        let reader = Reader::new(store.clone(), Arc::clone(&shared))?;
        let thread = std::thread::Builder::new().name("feed".to_owned());
        let thread = thread.spawn(move || reader.run()).map_err(StoreError::Thread)?;
        Ok((Self { shared }, thread))
    }

    /// Says what became of committed messages; without outcomes, which is after a failure, all may have been committed.
    pub fn touch(&self, messages: &[Message], outcomes: Option<&[Outcome]>) {
        let shared = &self.shared;
        let is_followed = shared.is_followed.load(Ordering::SeqCst);
        if !is_followed && !shared.is_to_tell {
            return;
        }
        let mut touched = lock(&shared.touched);
        for (index, message) in messages.iter().enumerate() {
            let touch = match outcomes.map(|outcomes| outcomes.get(index)) {
                Some(Some(Outcome::Applied)) => Touch::of(message),
                Some(_) => continue,
                None => Touch::UNKNOWN,
            };
            if is_followed {
                touched.add(&message.channel, touch);
            }
            if shared.is_to_tell {
                // If there are too many, that is told.
                add(&mut touched.untold, &message.channel, touch);
            }
        }
        drop(touched);
        shared.wake_reader.notify_one();
        shared.wake_teller.notify_one();
    }

    /// Begins to follow: at a place that is still known, or else at the end. Whatever is committed from then on, here or
    /// elsewhere, will be told.
    pub async fn follow(&self, from: Option<Cursor>) -> Result<Follower, NotNow> {
        let mut follower = self.register().ok_or(NotNow::TooMany)?;
        let mut listening = self.shared.listening.subscribe();
        match tokio::time::timeout(LISTENING_TIMEOUT, listening.wait_for(|listening| *listening)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return Err(NotNow::Deaf),
        }
        let recent = lock(&self.shared.recent);
        follower.cursor = from.filter(|cursor| recent.knows(*cursor)).unwrap_or(recent.cursor());
        drop(recent);
        Ok(follower)
    }

    /// A follower that has no place yet, from whose making on touches are gathered; none if too many follow.
    fn register(&self) -> Option<Follower> {
        let shared = &self.shared;
        // Held until all is in place, so that the reader doesn't stop in between.
        let mut followed = lock(&shared.followed);
        if shared.followers.load(Ordering::SeqCst) >= MOST_FOLLOWERS {
            return None;
        }
        shared.followers.fetch_add(1, Ordering::SeqCst);
        *followed = Some(Instant::now());
        shared.is_followed.store(true, Ordering::SeqCst);
        drop(followed);
        shared.wake_reader.notify_one();
        let cursor = Cursor { epoch: 0, position: 0 };
        Some(Follower { end: shared.end.subscribe(), shared: Arc::clone(shared), cursor })
    }

    /// How many follow.
    pub fn followers(&self) -> usize {
        self.shared.followers.load(Ordering::SeqCst)
    }

    /// Lets the thread end.
    pub fn stop(&self) {
        self.shared.stop.notify_one();
    }
}

/// Follows the changes.
#[derive(Debug)]
pub struct Follower {
    shared: Arc<Shared>,
    end: watch::Receiver<u64>,
    cursor: Cursor,
}

impl Follower {
    /// Where it is: what is before has been taken.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Takes the next changes, at most so many; none if it has been too slow, and some are gone.
    pub fn take(&mut self, limit: usize) -> Option<Vec<Arc<Change>>> {
        // Seen before it is looked at: whatever comes later wakes.
        self.end.borrow_and_update();
        let changes = lock(&self.shared.recent).since(self.cursor, limit)?;
        if let Some(last) = changes.last() {
            self.cursor.position = last.position;
        }
        Some(changes)
    }

    /// Waits until there may be more.
    pub async fn wait(&mut self) {
        if self.end.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        *lock(&self.shared.followed) = Some(Instant::now());
        self.shared.followers.fetch_sub(1, Ordering::SeqCst);
    }
}
