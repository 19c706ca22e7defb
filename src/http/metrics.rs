//! `GET /metrics`, and the counting of requests.

use std::time::{Duration, Instant};

use actix_web::body::MessageBody;
use actix_web::dev::ServiceResponse;
use actix_web::{HttpResponse, web};

use super::State;
use super::problem::Problem;
use super::reports::totals;
use crate::metrics::{Metrics, ROUTES};

/// How long to wait for the totals of the fleet. Prometheus's default timeout is ten seconds.
const FLEET_PATIENCE: Duration = Duration::from_secs(2);

/// Metrics for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "getMetrics",
    tag = "Service",
    responses((status = 200, description = "The metrics in the Prometheus text format.", content_type = "text/plain", body = String))
)]
pub(super) async fn show(state: web::Data<State>) -> Result<HttpResponse, Problem> {
    // If the store is down, the other metrics still work, and matter most.
    let fleet = tokio::time::timeout(FLEET_PATIENCE, totals(&state)).await;
    let subscribers = i64::try_from(state.feed.followers()).unwrap_or(i64::MAX);
    let text = state.metrics.encode(
        state.ingest.queued_bytes(),
        subscribers,
        fleet.ok().and_then(Result::ok).as_ref(),
    );
    let text = text.map_err(Problem::unavailable)?;
    Ok(HttpResponse::Ok().content_type(prometheus::TEXT_FORMAT).body(text))
}

/// Counts a request that was answered.
pub(super) fn count<B: MessageBody>(
    metrics: &Metrics,
    response: &ServiceResponse<B>,
    started: Instant,
) {
    let request = response.request();
    let place = |wanted: &str| ROUTES.iter().position(|route| *route == wanted);
    // Fast path: the common routes are recognized without matching the pattern again.
    let route = match request.path() {
        "/messages" => place("/messages"),
        path if path
            .strip_prefix("/rockets/")
            .is_some_and(|rest| !rest.is_empty() && !rest.contains('/')) =>
        {
            place("/rockets/{channel}")
        }
        _ => request.match_pattern().and_then(|pattern| place(&pattern)),
    };
    metrics.answered(route.unwrap_or(0), response.status().as_u16(), started.elapsed());
}
