//! `GET /activity`.

use actix_web::{HttpRequest, HttpResponse, web};

use super::json;
use crate::http::extract::query;
use crate::http::problem::Problem;
use crate::http::state::State;
use crate::wire::activity::ActivityJson;

/// What this instance has committed lately.
///
/// The number of messages in the last hour, and the latest explosions. An instance keeps this in
/// memory: it starts empty, and has nothing of other instances on the same database.
#[utoipa::path(
    get,
    path = "/activity",
    operation_id = "getActivity",
    tag = "Reports",
    responses(
        (status = 200, description = "The activity of this instance.", body = ActivityJson),
        (status = 400, description = "There are parameters; this takes none.")
    )
)]
pub(in crate::http) async fn show(
    request: HttpRequest,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    query::expect_none(request.query_string())?;
    let activity = state.ingest.activity().snapshot();
    Ok(json(HttpResponse::Ok(), &ActivityJson::new(&activity)))
}
