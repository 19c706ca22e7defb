//! Reads a body ahead of the response to it.
//!
//! A client may send its whole body before it reads any of the response. If the service then read
//! no more than it could answer, both would wait for each other. So a task reads on while the
//! response waits for its client, within bounds; beyond them, the client must read.

use std::sync::Arc;

use actix_web::rt::task::JoinHandle;
use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::body::Body;
use crate::http::problem::Problem;

/// The most that is read ahead of one response, in bytes.
const MAX_BYTES: u32 = 8 * 1024 * 1024;
/// The most that is read ahead of all responses, in bytes.
const MAX_TOTAL_BYTES: usize = 64 * 1024 * 1024;
/// What a part takes beside its bytes: clients can send parts of one byte.
const PART_BYTES: usize = 128;

/// The bytes that may be read ahead of all responses together. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::http) struct ReadAheadBudget(Arc<Semaphore>);

impl Default for ReadAheadBudget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_TOTAL_BYTES)))
    }
}

/// A body that a task reads. The task ends when this is dropped.
pub(in crate::http) struct ReadAhead {
    parts: UnboundedReceiver<Part>,
    task: JoinHandle<()>,
}

/// A part of the body, or why there is no more, with its shares of the budgets.
type Part = (Result<Bytes, Problem>, Shares);
type Shares = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

impl ReadAhead {
    pub(in crate::http) fn start(body: Body, budget: &ReadAheadBudget) -> Self {
        let (sender, parts) = unbounded_channel();
        let task = actix_web::rt::spawn(read(body, sender, budget.clone()));
        Self { parts, task }
    }

    /// The next part of the body; `None` at its end.
    pub(in crate::http) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        // Once the part is taken, the task may read another.
        self.parts.recv().await.map(|(part, _)| part).transpose()
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(mut body: Body, parts: UnboundedSender<Part>, budget: ReadAheadBudget) {
    let own = Arc::new(Semaphore::new(MAX_BYTES as usize));
    while let Some(part) = body.next_chunk(None).await.transpose() {
        // A copy, because the part may keep a larger buffer alive.
        let part = part.map(|part| Bytes::copy_from_slice(&part));
        let bytes = part.as_ref().map_or(0, Bytes::len) + PART_BYTES;
        let bytes = u32::try_from(bytes).unwrap_or(MAX_BYTES).min(MAX_BYTES);
        let total = Arc::clone(&budget.0).try_acquire_many_owned(bytes).ok();
        // If the total budget is used up, a part waits until those before it are taken.
        let share = if total.is_some() { bytes } else { MAX_BYTES };
        let Ok(own) = Arc::clone(&own).acquire_many_owned(share).await else {
            unreachable!("the semaphore is never closed")
        };
        let is_last = part.is_err();
        if parts.send((part, (own, total))).is_err() || is_last {
            break;
        }
    }
}
