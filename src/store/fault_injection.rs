//! Fault injection: named points at which a test can make a write fail, or delay it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::StoreError;

/// A point in the processing of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePoint {
    /// Before anything is read (on SQLite inside the transaction, on Postgres before it).
    BeforeLoad,
    /// Everything is locked and loaded, but nothing is written (only on Postgres, between its two
    /// round trips).
    BeforeWrites,
    /// Everything is written, but not committed.
    BeforeCommit,
    /// Committed, but no caller has been answered.
    AfterCommit,
}

impl FailurePoint {
    /// Every point.
    pub const ALL: [Self; 4] =
        [Self::BeforeLoad, Self::BeforeWrites, Self::BeforeCommit, Self::AfterCommit];

    fn name(self) -> &'static str {
        match self {
            Self::BeforeLoad => "before the load",
            Self::BeforeWrites => "before the writes",
            Self::BeforeCommit => "before the commit",
            Self::AfterCommit => "after the commit",
        }
    }
}

/// Called by each batch at each point. Returns whether the batch fails there.
type Observer = Box<dyn Fn(FailurePoint) -> bool + Send + Sync>;

#[derive(Default)]
struct Plan {
    /// How many more batches fail at each point.
    left: [AtomicU32; FailurePoint::ALL.len()],
    observer: Option<Observer>,
}

/// Which of the next batches fail, and where; none by default. Clones share the plan.
#[derive(Clone, Default)]
pub struct Failures {
    plan: Option<Arc<Plan>>,
}

impl fmt::Debug for Failures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Failures")
            .field("plannable", &self.are_plannable())
            .finish_non_exhaustive()
    }
}

impl Failures {
    /// Faults that can be planned while the store is open.
    pub fn plannable() -> Self {
        Self { plan: Some(Arc::default()) }
    }

    /// Faults that `observer` decides on at each point. It may block.
    pub fn decided_by(observer: impl Fn(FailurePoint) -> bool + Send + Sync + 'static) -> Self {
        Self {
            plan: Some(Arc::new(Plan { observer: Some(Box::new(observer)), ..Plan::default() })),
        }
    }

    /// Whether faults can be planned at all.
    pub fn are_plannable(&self) -> bool {
        self.plan.is_some()
    }

    /// Makes the next `count` batches that reach the point fail there.
    pub fn plan(&self, point: FailurePoint, count: u32) {
        if let Some(left) = self.plan.as_ref().and_then(|plan| plan.left.get(point as usize)) {
            left.store(count, Ordering::SeqCst);
        }
    }

    /// Fails if that was planned or decided.
    pub fn check(&self, point: FailurePoint) -> Result<(), StoreError> {
        let Some(plan) = &self.plan else { return Ok(()) };
        let decided = plan.observer.as_ref().is_some_and(|fails| fails(point));
        let take = |left: u32| left.checked_sub(1);
        let planned = plan.left.get(point as usize).is_some_and(|left| {
            left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
        });
        if decided || planned { Err(StoreError::Injected(point.name())) } else { Ok(()) }
    }
}
