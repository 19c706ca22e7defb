//! `GET /metrics`.

use std::time::{Duration, SystemTime};

use actix_web::{HttpResponse, web};

use crate::domain::timestamp::Timestamp;
use crate::http::problem::Problem;
use crate::http::routes::reports::totals;
use crate::http::state::State;

/// How long to wait for the totals of the fleet. Prometheus's default timeout is ten seconds.
const FLEET_TIMEOUT: Duration = Duration::from_secs(2);

/// Metrics for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "getMetrics",
    tag = "Service",
    responses((status = 200, description = "The metrics in the Prometheus text format.",
               content_type = "text/plain", body = String))
)]
pub(in crate::http) async fn show(state: web::Data<State>) -> Result<HttpResponse, Problem> {
    // If the store fails, the other metrics still work, and matter most.
    let fleet = tokio::time::timeout(FLEET_TIMEOUT, totals(&state)).await;
    let gaps = state.gap_totals.get(&state.store, &state.metrics).await;
    let subscribers = i64::try_from(state.feed.followers()).unwrap_or(i64::MAX);
    let text = state.metrics.encode(
        state.ingest.queued_bytes(),
        subscribers,
        fleet.ok().and_then(Result::ok).as_ref(),
        gaps.map(|gaps| (gaps, Timestamp::from_system_time(SystemTime::now()))),
    );
    let text = text.map_err(Problem::unavailable)?;
    Ok(HttpResponse::Ok().content_type(prometheus::TEXT_FORMAT).body(text))
}
