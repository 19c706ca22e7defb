//! `GET /livez` and `GET /readyz`.

use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::http::problem::Problem;
use crate::http::state::State;
use crate::wire::schema::Health;

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
