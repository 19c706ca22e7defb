//! `GET /stats`, `GET /reports` and `GET /reports/{name}`.

use actix_web::http::header::{self, Accept, Header, Quality};
use actix_web::mime::Mime;
use actix_web::{HttpRequest, HttpResponse, web};

use super::{json, next_link};
use crate::http::extract::{cursor, query};
use crate::http::middleware::response_budget;
use crate::http::problem::Problem;
use crate::http::state::State;
use crate::store::report::{Report, ReportQuery, ReportRows};
use crate::wire::report::{ReportInfo, ReportList, RowObject, Syntax, camel_case, encode};
use crate::wire::schema::{FleetTotals, ReportJson, ReportLines};

/// The totals of the fleet: the only row of the report `fleet`.
#[utoipa::path(
    get,
    path = "/stats",
    operation_id = "getStats",
    tag = "Reports",
    responses(
        (status = 200, description = "The totals.", body = FleetTotals),
        (status = 400, description = "There are parameters; this takes none.")
    )
)]
pub(in crate::http) async fn stats(
    request: HttpRequest,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    query::expect_none(request.query_string())?;
    let report = totals(&state).await?;
    let [row] = &*report.rows else {
        unreachable!("the view aggregates without grouping, so it is one row")
    };
    Ok(json(HttpResponse::Ok(), &RowObject::new(report.report, row)))
}

/// The available reports.
#[utoipa::path(
    get,
    path = "/reports",
    operation_id = "listReports",
    tag = "Reports",
    responses(
        (status = 200, description = "Their names and columns, and the views of the database that \
                                      they are read from.", body = ReportList),
        (status = 400, description = "There are parameters; this takes none.")
    )
)]
pub(in crate::http) async fn list(request: HttpRequest) -> Result<HttpResponse, Problem> {
    query::expect_none(request.query_string())?;
    let reports = Report::ALL.map(|report| ReportInfo {
        name: report.name(),
        description: report.description(),
        view: report.view(),
        columns: report.columns().iter().map(|(name, _)| camel_case(name)).collect(),
    });
    Ok(json(HttpResponse::Ok(), &ReportList { reports: &reports }))
}

/// One page of a report, as JSON, CSV or NDJSON.
///
/// All pages together have every row. CSV has a line with the columns on each page.
#[utoipa::path(
    get,
    path = "/reports/{name}",
    operation_id = "getReport",
    tag = "Reports",
    params(
        ("name" = Report, Path, description = "The name of the report."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 10000,
         description = "At most this many rows; 1,000 by default."),
        ("cursor" = Option<String>, Query, pattern = "^[A-Za-z0-9_-]+$",
         description = "The `nextCursor` of the previous page of the same report. It is in the \
                        URL of the Link header, too.")
    ),
    responses(
        (status = 200, description = "The rows, as JSON, or as CSV or NDJSON (a row on each line) \
                                      to clients whose Accept prefers it.", content(
            (ReportJson = "application/json"),
            (String = "text/csv"),
            (ReportLines = "application/x-ndjson")
        ), headers(
            ("Link" = String, description = "The next page, if there is one, as `rel=\"next\"`.")
        )),
        (status = 400, description = "A parameter is unknown, repeated or bad; `errors` names \
                                      them."),
        (status = 404, description = "There is no such report.")
    )
)]
pub(in crate::http) async fn one(
    request: HttpRequest,
    name: web::Path<String>,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let report = Report::ALL.into_iter().find(|report| report.name() == *name);
    let report = report
        .ok_or_else(|| Problem::not_found("There is no such report; GET /reports lists them."))?;
    let query = query::report(request.query_string(), report)?;
    let page = read(&state, query).await?;
    let next_cursor = page.next.as_ref().map(|position| cursor::encode_report(report, position));
    let mut response = HttpResponse::Ok();
    response.insert_header((header::VARY, "Accept"));
    if let Some(cursor) = &next_cursor {
        let link = next_link(request.path(), request.query_string(), cursor);
        response.insert_header((header::LINK, link));
    }
    let (syntax, content_type) = preferred_syntax(&request);
    let body = encode(&page, syntax, next_cursor.as_deref()).map_err(Problem::unavailable)?;
    Ok(response.content_type(content_type).body(response_budget::into_bytes(body)))
}

/// Reads the totals of the fleet. Dashboards and Prometheus read them often, so they don't wait for
/// slower reads.
pub(in crate::http) async fn totals(state: &State) -> Result<ReportRows, Problem> {
    let store = state.store.clone();
    state.or_unavailable(
        state
            .totals_limit
            .read(async move { store.report(ReportQuery::all(Report::Fleet)).await })
            .await?,
    )
}

async fn read(state: &State, query: ReportQuery) -> Result<ReportRows, Problem> {
    if query.report == Report::Fleet {
        return totals(state).await;
    }
    let store = state.store.clone();
    state
        .or_unavailable(state.long_read_limit.read(async move { store.report(query).await }).await?)
}

/// The syntax that the client prefers (RFC 9110, section 12.5.1), and its media type. Of equal ones
/// it is JSON before CSV before NDJSON. A client that accepts none of them gets JSON.
fn preferred_syntax(request: &HttpRequest) -> (Syntax, &'static str) {
    let json = (Syntax::Json, "application/json");
    let Ok(accept) = Accept::parse(request) else { return json };
    let mut preferred = (quality(&accept, "application", "json"), json);
    for (media_type, offer) in [
        (("text", "csv"), (Syntax::Csv, "text/csv; charset=utf-8")),
        (("application", "x-ndjson"), (Syntax::Ndjson, "application/x-ndjson")),
    ] {
        let quality = quality(&accept, media_type.0, media_type.1);
        if quality > preferred.0 {
            preferred = (quality, offer);
        }
    }
    preferred.1
}

/// How much a client prefers a media type: the quality of the most specific range that matches it.
fn quality(accept: &Accept, wanted_type: &str, wanted_subtype: &str) -> Quality {
    // All responses are UTF-8, and CSV always has a header line (RFC 4180).
    let is_satisfied = |name: &str, value: &str| match name {
        "charset" => value.eq_ignore_ascii_case("utf-8"),
        "header" => value.eq_ignore_ascii_case("present"),
        _ => false,
    };
    let specificity = |range: &Mime| match (range.type_().as_str(), range.subtype().as_str()) {
        _ if range.params().any(|(name, value)| !is_satisfied(name.as_str(), value.as_str())) => {
            None
        }
        (own_type, subtype) if own_type == wanted_type && subtype == wanted_subtype => {
            Some(3 + range.params().count())
        }
        (own_type, "*") if own_type == wanted_type => Some(2),
        ("*", "*") => Some(1),
        _ => None,
    };
    let ranges = accept.iter().filter_map(|range| Some((specificity(&range.item)?, range.quality)));
    ranges
        .max_by_key(|(specificity, quality)| (*specificity, *quality))
        .map_or(Quality::ZERO, |(_, quality)| quality)
}
