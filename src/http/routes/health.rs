//! `GET /livez` and `GET /readyz`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::{HttpResponse, web};
use serde_json::json;
use tokio::sync::Mutex;

use crate::http::problem::Problem;
use crate::http::state::State;
use crate::ingest::{Ingest, IngestError};
use crate::wire::schema::Health;

/// How long a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the result of a probe is reused.
const PROBE_TTL: Duration = Duration::from_millis(900);

/// Whether the process is alive.
#[utoipa::path(
    get,
    path = "/livez",
    operation_id = "getLiveness",
    tag = "Service",
    responses((status = 200, description = "The process is running.", body = Health))
)]
pub(in crate::http) async fn live() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "live" }))
}

/// The result of the last probe. It is reused for a short time, because a probe writes to the
/// store's disk.
#[derive(Default)]
pub(in crate::http) struct Readiness {
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
    async fn probe(&self, ingest: &Ingest) -> Result<(), Arc<str>> {
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

/// Whether a message can be stored now.
///
/// The answer comes from a probe less than a second old, which went through the queue and the store
/// like a message. Newer failures invalidate it.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "getReadiness",
    tag = "Service",
    responses(
        (status = 200, description = "The service can store messages.", body = Health,
         example = json!({ "status": "ready" })),
        (status = 503, description = "The service can't store messages; its log says why.")
    )
)]
pub(in crate::http) async fn ready(state: web::Data<State>) -> Result<HttpResponse, Problem> {
    match state.readiness.probe(&state.ingest).await {
        Ok(()) => Ok(HttpResponse::Ok().json(json!({ "status": "ready" }))),
        Err(reason) => {
            Err(Problem::unavailable("the database can't store messages now").with_reason(reason))
        }
    }
}
