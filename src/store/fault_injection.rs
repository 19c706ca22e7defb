//! Fault injection: named points at which a test can make a store fail or panic, or delay it. It is
//! part of the program, because the tests run the program that users run; a check without a plan
//! costs one comparison.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::StoreError;

/// A point in the processing of a batch or a read.
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
    /// Committed, before the feed and the metrics learn of it.
    BeforeReport,
    /// Before a request reads.
    BeforeRead,
    /// Before changed rockets are read for followers.
    BeforeReadOfChanges,
}

impl FailurePoint {
    pub const ALL: [Self; 7] = [
        Self::BeforeLoad,
        Self::BeforeWrites,
        Self::BeforeCommit,
        Self::AfterCommit,
        Self::BeforeReport,
        Self::BeforeRead,
        Self::BeforeReadOfChanges,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::BeforeLoad => "before the load",
            Self::BeforeWrites => "before the writes",
            Self::BeforeCommit => "before the commit",
            Self::AfterCommit => "after the commit",
            Self::BeforeReport => "before the report",
            Self::BeforeRead => "before the read",
            Self::BeforeReadOfChanges => "before the read of changes",
        }
    }
}

/// Called at each point. Returns whether the work fails there.
type Observer = Box<dyn Fn(FailurePoint) -> bool + Send + Sync>;

#[derive(Default)]
struct Plan {
    /// How many more times work fails at each point.
    errors: [AtomicU32; FailurePoint::ALL.len()],
    /// How many more times a thread panics at each point.
    panics: [AtomicU32; FailurePoint::ALL.len()],
    observer: Option<Observer>,
}

/// What fails next, and where; nothing by default. Clones share the plan.
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

    /// Makes the next `count` batches or reads that reach the point fail there.
    pub fn plan(&self, point: FailurePoint, count: u32) {
        if let Some(plan) = &self.plan {
            plan.errors[point as usize].store(count, Ordering::SeqCst);
        }
    }

    /// Makes the next `count` threads that reach the point panic there.
    pub fn plan_panic(&self, point: FailurePoint, count: u32) {
        if let Some(plan) = &self.plan {
            plan.panics[point as usize].store(count, Ordering::SeqCst);
        }
    }

    /// Fails if that was planned or decided.
    #[expect(clippy::panic, reason = "only a test plans it")]
    pub fn check(&self, point: FailurePoint) -> Result<(), StoreError> {
        let Some(plan) = &self.plan else { return Ok(()) };
        if decrement(&plan.panics[point as usize]) {
            panic!("a panic was injected {}", point.name());
        }
        let is_decided = plan.observer.as_ref().is_some_and(|fails| fails(point));
        if decrement(&plan.errors[point as usize]) || is_decided {
            Err(StoreError::Injected(point.name()))
        } else {
            Ok(())
        }
    }
}

/// Decrements a counter. Returns false if it is zero.
fn decrement(counter: &AtomicU32) -> bool {
    let decremented = |count: u32| count.checked_sub(1);
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, decremented).is_ok()
}
