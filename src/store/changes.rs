//! How a store tells of changes: what others have changed is heard by a [`Watch`], and what it was is read.
//!
//! Others are other instances on a Postgres server, and other processes on an SQLite file. What this process commits
//! itself it knows without asking.

use std::collections::HashMap;
use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::StoreError;
use super::postgres::{PostgresScan, PostgresWatch};
use super::sqlite::{SqliteScan, SqliteWatch};
use crate::domain::message::{Event, Message};
use crate::domain::rocket::Rocket;
use crate::domain::text::Channel;

/// What new messages did to one rocket, as far as it matters to those who follow only some rockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touch {
    /// How many messages were new; 0 if that is not known.
    pub applied: u32,
    /// A launch was among them: type, mission and status may have changed.
    pub launched: bool,
    /// A change of mission was.
    pub mission_changed: bool,
    /// An explosion was: the status may have changed.
    pub exploded: bool,
}

impl Touch {
    /// Of a rocket of which nobody knows what was done to it.
    pub const UNKNOWN: Self = Self { applied: 0, launched: true, mission_changed: true, exploded: true };

    /// Of one new message.
    pub fn of(message: &Message) -> Self {
        Self {
            applied: 1,
            launched: matches!(message.event, Event::Launched { .. }),
            mission_changed: matches!(message.event, Event::MissionChanged { .. }),
            exploded: matches!(message.event, Event::Exploded { .. }),
        }
    }

    /// Adds what other messages did.
    pub fn add(&mut self, other: Self) {
        let known = self.applied > 0 && other.applied > 0;
        self.applied = if known { self.applied.saturating_add(other.applied) } else { 0 };
        self.launched |= other.launched;
        self.mission_changed |= other.mission_changed;
        self.exploded |= other.exploded;
    }
}

/// Which rockets have changed.
pub type Touches = HashMap<Channel, Touch>;

/// What a watch heard.
#[derive(Debug)]
pub enum Heard {
    /// Others have changed these rockets.
    Touches(Touches),
    /// Others have changed something: look for it.
    Something,
}

/// Finds the rockets that anybody has changed since it last looked. It compares what is stored, and no clocks: those of
/// other machines and processes may say anything.
#[derive(Debug)]
pub enum ChangeScan {
    /// There are no others.
    Nobody,
    /// Any process may change the file.
    Sqlite(SqliteScan),
    /// Any client may change the server's tables.
    Postgres(PostgresScan),
}

/// What rows held when they were last looked at. 16 bytes are kept for each, also when it is gone.
#[derive(Debug, Default)]
pub(super) struct Fingerprints {
    hasher: RandomState,
    /// By the hash of the channel.
    seen: HashMap<u64, u64>,
}

impl Fingerprints {
    /// Whether a rocket's row holds something else than at the last look; `hash` hashes what it holds.
    pub(super) fn has_changed<E>(
        &mut self,
        channel: &str,
        hash: impl FnOnce(&mut DefaultHasher) -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut hasher = self.hasher.build_hasher();
        hash(&mut hasher)?;
        let fingerprint = hasher.finish();
        Ok(self.seen.insert(self.hasher.hash_one(channel), fingerprint) != Some(fingerprint))
    }
}

/// What a scan found.
#[derive(Debug)]
pub enum Scanned {
    /// Some rockets, as they are now, that have changed or may have. There may be more.
    Rockets(Vec<Rocket>),
    /// Nothing more has changed up to the begin of this look.
    Done,
    /// It is another database now: everything may have changed, and rockets may be gone.
    AnotherDatabase,
}

impl ChangeScan {
    /// The next of the changed rockets. After [`Scanned::Done`] another look begins. After an error the same one is repeated.
    pub async fn next(&mut self) -> Result<Scanned, StoreError> {
        match self {
            Self::Nobody => Ok(Scanned::Done),
            Self::Sqlite(scan) => scan.next().await,
            Self::Postgres(scan) => scan.next().await,
        }
    }
}

/// Hears of what others change.
#[derive(Debug)]
pub enum Watch {
    /// There are no others.
    Nobody,
    /// Other processes on the same file.
    Sqlite(SqliteWatch),
    /// Other instances on the same server.
    Postgres(Box<PostgresWatch>),
}

impl Watch {
    /// Waits until something is heard. After an error, make another watch.
    pub async fn hear(&mut self) -> Result<Heard, StoreError> {
        match self {
            Self::Nobody => std::future::pending().await,
            Self::Sqlite(watch) => watch.hear().await,
            Self::Postgres(watch) => watch.hear().await,
        }
    }

    /// How often to look though nothing was heard: who has committed may have died before it told.
    pub fn look_every(&self) -> Option<Duration> {
        match self {
            Self::Nobody | Self::Sqlite(_) => None,
            Self::Postgres(_) => Some(Duration::from_secs(5)),
        }
    }
}
