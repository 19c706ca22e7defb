//! Changes in a store: a [`Watch`](super::Watch) receives notifications of other processes'
//! changes, and a [`ChangeScan`](super::ChangeScan) finds the changed rockets.
//!
//! Other processes are the other instances on a Postgres server, and other users of an SQLite file.
//! The committers report this process's own changes.

use std::collections::HashMap;
use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};

use serde::{Deserialize, Serialize};

use crate::domain::message::{Event, Message};
use crate::domain::rocket::Rocket;
use crate::domain::text::Channel;

/// What new messages may have changed in one rocket, as far as filters depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeHint {
    /// The number of new messages; 0 if unknown.
    pub applied: u32,
    /// There was a launch: type, mission and status may have changed.
    pub launched: bool,
    /// There was a mission change.
    pub mission_changed: bool,
    /// There was an explosion: the status may have changed.
    pub exploded: bool,
}

impl ChangeHint {
    /// An unknown change of a rocket.
    pub const UNKNOWN: Self =
        Self { applied: 0, launched: true, mission_changed: true, exploded: true };

    /// Losses were declared or withdrawn. No filter depends on them.
    pub const LOSSES: Self =
        Self { applied: 0, launched: false, mission_changed: false, exploded: false };

    /// The change by one new message.
    pub fn of(message: &Message) -> Self {
        Self {
            applied: 1,
            launched: matches!(message.event, Event::Launched { .. }),
            mission_changed: matches!(message.event, Event::MissionChanged { .. }),
            exploded: matches!(message.event, Event::Exploded { .. }),
        }
    }

    /// Adds the changes by other messages.
    pub fn add(&mut self, other: Self) {
        let is_known = self.applied > 0 && other.applied > 0;
        self.applied = if is_known { self.applied.saturating_add(other.applied) } else { 0 };
        self.launched |= other.launched;
        self.mission_changed |= other.mission_changed;
        self.exploded |= other.exploded;
    }
}

pub type ChangeHints = HashMap<Channel, ChangeHint>;

/// A received notification.
#[derive(Debug)]
pub enum Notified {
    /// Other processes have changed these rockets.
    ChangeHints(ChangeHints),
    /// Other processes have changed unspecified rockets; a scan must find them.
    Unspecified,
}

/// Hashes of the rows at the last scan: 16 bytes per row, also for rows that have been removed.
#[derive(Debug, Default)]
pub(super) struct Fingerprints {
    hasher: RandomState,
    /// The hash of each row, by the hash of its channel.
    rows: HashMap<u64, u64>,
}

impl Fingerprints {
    /// Whether a rocket's row differs from the last scan. `hash` hashes its contents.
    pub(super) fn has_changed<E>(
        &mut self,
        channel: &str,
        hash: impl FnOnce(&mut DefaultHasher) -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut hasher = self.hasher.build_hasher();
        hash(&mut hasher)?;
        let fingerprint = hasher.finish();
        Ok(self.rows.insert(self.hasher.hash_one(channel), fingerprint) != Some(fingerprint))
    }
}

/// A result of a scan.
#[derive(Debug)]
pub enum ScanProgress {
    /// The current state of some rockets that have changed, or may have. There may be more.
    Rockets(Vec<Rocket>),
    /// The scan has found every rocket that had changed before it started.
    Done,
    /// The path now names another database: everything may have changed, and rockets may be gone.
    AnotherDatabase,
}
