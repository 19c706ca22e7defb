//! `GET /livez` and `GET /readyz`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::{HttpResponse, web};
use serde_json::json;
use tokio::sync::Mutex;

use super::State;
use super::problem::Problem;
use crate::ingest::{Ingest, IngestError};

/// How long the store may take to show that it works.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// For how long an answer is repeated.
const VALID_FOR: Duration = Duration::from_millis(900);

/// Whether the process runs and answers.
#[utoipa::path(
    get,
    path = "/livez",
    operation_id = "getLiveness",
    tag = "Service",
    responses((status = 200, description = "The process is running.", body = super::schema::Health))
)]
pub(super) async fn live() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "live" }))
}

/// What the store last said, for everybody who asks soon after: asking it writes to its disk.
#[derive(Default)]
pub(super) struct Readiness {
    last: Mutex<Option<Asked>>,
}

struct Asked {
    at: Instant,
    /// Why not, if not.
    answer: Result<(), Arc<str>>,
    /// How many committers failed then: if others do now, with messages that came since, the answer is out of date.
    failing: usize,
}

impl Readiness {
    /// Whether a message could be stored, or could be a moment ago. One asks, and the others wait for its answer.
    async fn ask(&self, ingest: &Ingest) -> Result<(), Arc<str>> {
        let mut last = self.last.lock().await;
        let is_valid = |asked: &&Asked| asked.at.elapsed() < VALID_FOR && asked.failing == ingest.failing();
        if let Some(asked) = last.as_ref().filter(is_valid) {
            return asked.answer.clone();
        }
        let answer = match tokio::time::timeout(PROBE_TIMEOUT, ingest.probe()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(IngestError::Store(reason))) => Err(reason),
            Ok(Err(error)) => Err(error.to_string().into()),
            Err(_) => Err(format!("the store has not answered for {} seconds", PROBE_TIMEOUT.as_secs()).into()),
        };
        *last = Some(Asked { at: Instant::now(), answer: answer.clone(), failing: ingest.failing() });
        answer
    }
}

/// Whether a message could be stored now.
///
/// The store did what it does with a message, in the queue behind all others, less than a second ago, and nothing that came
/// since shows otherwise.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "getReadiness",
    tag = "Service",
    responses(
        (status = 200, description = "The service can store messages.", body = super::schema::Health, example = json!({ "status": "ready" })),
        (status = 503, description = "The service can't store messages; the detail says why.")
    )
)]
pub(super) async fn ready(state: web::Data<State>) -> Result<HttpResponse, Problem> {
    match state.readiness.ask(&state.ingest).await {
        Ok(()) => Ok(HttpResponse::Ok().json(json!({ "status": "ready" }))),
        Err(reason) => Err(Problem::unavailable("the database can't store messages now").because(reason)),
    }
}
