//! `GET /livez` and `GET /readyz`.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use serde_json::json;

use super::State;
use super::problem::Problem;

/// How long the store may take to show that it works.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the process runs and answers.
#[utoipa::path(
    get,
    path = "/livez",
    operation_id = "getLiveness",
    tag = "Service",
    responses((status = 200, description = "The process runs.", body = super::schema::Health))
)]
pub(super) async fn live() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "live" }))
}

/// Whether a message could be stored now.
///
/// A message sent now would be stored: the store was asked to, just now, in the queue behind all others.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "getReadiness",
    tag = "Service",
    responses(
        (status = 200, description = "A message could be stored.", body = super::schema::Health, example = json!({ "status": "ready" })),
        (status = 503, description = "No message could be stored; the detail says why.")
    )
)]
pub(super) async fn ready(state: web::Data<State>) -> Result<HttpResponse, Problem> {
    match tokio::time::timeout(PROBE_TIMEOUT, state.ingest.probe()).await {
        Ok(Ok(())) => Ok(HttpResponse::Ok().json(json!({ "status": "ready" }))),
        Ok(Err(error)) => Err(Problem::unavailable(error)),
        Err(_) => {
            Err(Problem::unavailable(format!("the store has not answered for {} seconds", PROBE_TIMEOUT.as_secs())))
        }
    }
}
