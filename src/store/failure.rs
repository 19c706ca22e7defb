//! Failures on purpose: the named points at which a test can make a write fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::StoreError;

/// A point on the way of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePoint {
    /// In the transaction, before anything is read.
    BeforeLoad,
    /// Everything is written, but not committed.
    BeforeCommit,
    /// Committed, but nobody has been answered.
    AfterCommit,
}

impl FailurePoint {
    /// Every point.
    pub const ALL: [Self; 3] = [Self::BeforeLoad, Self::BeforeCommit, Self::AfterCommit];

    fn name(self) -> &'static str {
        match self {
            Self::BeforeLoad => "before the load",
            Self::BeforeCommit => "before the commit",
            Self::AfterCommit => "after the commit",
        }
    }
}

/// Which of the next batches fail, and where. The default is: none. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    planned: Option<Arc<[AtomicU32; 3]>>,
}

impl Failures {
    /// Failures that can be planned while the store is open.
    pub fn plannable() -> Self {
        Self { planned: Some(Arc::default()) }
    }

    /// Whether failures can be planned at all.
    pub fn are_plannable(&self) -> bool {
        self.planned.is_some()
    }

    /// Lets the next `count` batches that reach the point fail there.
    pub fn plan(&self, point: FailurePoint, count: u32) {
        if let Some(left) = self.left(point) {
            left.store(count, Ordering::SeqCst);
        }
    }

    /// Fails if that was planned.
    pub fn check(&self, point: FailurePoint) -> Result<(), StoreError> {
        let take = |left: u32| left.checked_sub(1);
        match self.left(point).map(|left| left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)) {
            Some(Ok(_)) => Err(StoreError::Injected(point.name())),
            Some(Err(_)) | None => Ok(()),
        }
    }

    fn left(&self, point: FailurePoint) -> Option<&AtomicU32> {
        self.planned.as_ref()?.get(point as usize)
    }
}
