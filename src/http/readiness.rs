//! Whether the service can store messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::ingest::{Ingest, IngestError};

/// How long a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the result of a probe is reused.
const PROBE_TTL: Duration = Duration::from_millis(900);

/// The result of the last probe. It is reused for a short time, because a probe writes to the
/// store's disk.
#[derive(Default)]
pub(super) struct Readiness {
    last: Mutex<Option<ProbeResult>>,
}

struct ProbeResult {
    at: Instant,
    /// The error says why the store can't take messages.
    result: Result<(), Arc<str>>,
    /// The number of failing committers at that time. If it has changed since, the result is
    /// outdated.
    failing: usize,
}

impl Readiness {
    /// Whether a message can be stored, or could be a moment ago. Concurrent callers share one
    /// probe.
    pub(super) async fn probe(&self, ingest: &Ingest) -> Result<(), Arc<str>> {
        let mut last = self.last.lock().await;
        let is_valid = |probed: &&ProbeResult| {
            probed.at.elapsed() < PROBE_TTL && probed.failing == ingest.failing()
        };
        if let Some(probed) = last.as_ref().filter(is_valid) {
            return probed.result.clone();
        }
        let result = match tokio::time::timeout(PROBE_TIMEOUT, ingest.probe()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(IngestError::Store(reason))) => Err(reason),
            Ok(Err(error)) => Err(error.to_string().into()),
            Err(_) => {
                Err(format!("the store has not answered for {} seconds", PROBE_TIMEOUT.as_secs())
                    .into())
            }
        };
        *last = Some(ProbeResult {
            at: Instant::now(),
            result: result.clone(),
            failing: ingest.failing(),
        });
        result
    }
}
