//! `GET /stats`, `GET /reports` and `GET /reports/{name}`.

use actix_web::http::header::{self, Accept, Header, HeaderName, Quality};
use actix_web::mime::Mime;
use actix_web::{HttpRequest, HttpResponse, web};

use super::json;
use crate::http::extract::query;
use crate::http::middleware::response_budget;
use crate::http::problem::Problem;
use crate::http::state::State;
use crate::store::report::{Report, ReportRows};
use crate::wire;
use crate::wire::report::{ReportInfo, ReportList, RowObject, camel_case};
use crate::wire::schema::{FleetTotals, ReportJson};

/// A header with the number of rows in the response, if the report has more.
static TRUNCATED_AT: HeaderName = HeaderName::from_static("report-truncated-at");

/// The maximum number of rows in a response, because all of it is in memory. The command line and
/// the views have no limit.
const MAX_ROWS: usize = 10_000;

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

/// One report, as JSON or CSV.
///
/// A response has at most 10,000 rows. If there are more, it has the header `Report-Truncated-At`,
/// and the JSON has `"truncated": true`. The command line and the database's views have no limit.
#[utoipa::path(
    get,
    path = "/reports/{name}",
    operation_id = "getReport",
    tag = "Reports",
    params(("name" = Report, Path, description = "The name of the report.")),
    responses(
        (status = 200, description = "The rows, as JSON, or as CSV to clients whose Accept prefers \
                                      it.", content(
            (ReportJson = "application/json"),
            (String = "text/csv")
        )),
        (status = 400, description = "There are parameters; this takes none."),
        (status = 404, description = "There is no such report.")
    )
)]
pub(in crate::http) async fn one(
    request: HttpRequest,
    name: web::Path<String>,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    query::expect_none(request.query_string())?;
    let report = Report::ALL.into_iter().find(|report| report.name() == *name);
    let report = report
        .ok_or_else(|| Problem::not_found("There is no such report; GET /reports lists them."))?;
    let report = read(&state, report).await?;
    let mut response = HttpResponse::Ok();
    response.insert_header((header::VARY, "Accept"));
    if report.truncated {
        response.insert_header((TRUNCATED_AT.clone(), MAX_ROWS.to_string()));
    }
    if wants_csv(&request) {
        let csv = wire::report::csv(&report).map_err(Problem::unavailable)?;
        return Ok(response
            .content_type("text/csv; charset=utf-8")
            .body(response_budget::into_bytes(csv)));
    }
    let body = wire::report::json(&report).map_err(Problem::unavailable)?;
    Ok(response.content_type("application/json").body(response_budget::into_bytes(body)))
}

/// Reads the totals of the fleet. Dashboards and Prometheus read them often, so they don't wait for
/// slower reads.
pub(in crate::http) async fn totals(state: &State) -> Result<ReportRows, Problem> {
    let store = state.store.clone();
    state.or_unavailable(
        state.totals_limit.read(async move { store.report(Report::Fleet, 1).await }).await?,
    )
}

async fn read(state: &State, report: Report) -> Result<ReportRows, Problem> {
    if report == Report::Fleet {
        return totals(state).await;
    }
    let store = state.store.clone();
    state.or_unavailable(
        state.long_read_limit.read(async move { store.report(report, MAX_ROWS).await }).await?,
    )
}

/// Whether the client prefers CSV to JSON (RFC 9110, section 12.5.1). A client that accepts neither
/// gets JSON.
fn wants_csv(request: &HttpRequest) -> bool {
    let Ok(accept) = Accept::parse(request) else { return false };
    quality(&accept, "text", "csv") > quality(&accept, "application", "json")
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
