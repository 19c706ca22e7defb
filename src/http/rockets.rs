//! `GET /rockets` and `GET /rockets/{channel}`.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use bytestring::ByteString;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Serialize;
use utoipa::ToSchema;

use super::coalesced_reads::CoalescedReads;
use super::params::Views;
use super::problem::Problem;
use super::read_limit::ReadCost;
use super::{State as Service, cursor, params, response_budget};
use crate::domain::rocket::{Progress, Rocket, RocketState};
use crate::domain::text::{Channel, Text};
use crate::domain::timestamp::Timestamp;
use crate::store::{RocketInBothViews, RocketWithGaps};

/// One page of rockets.
#[utoipa::path(
    get,
    path = "/rockets",
    operation_id = "listRockets",
    tag = "Rockets",
    params(
        ("sort" = Option<SortName>, Query, description = "The sort key; `latestUpdate` by \
                                                          default."),
        ("order" = Option<OrderName>, Query, description = "By default `desc` for latestUpdate and \
                                                            speed, `asc` for the others. Nulls \
                                                            come last in either order; ties break \
                                                            by channel."),
        ("channel" = Option<String>, Query, min_length = 1, max_length = 255, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$", description = "Only this channel."),
        ("type" = Option<String>, Query, min_length = 1, max_length = 255, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$", description = "Only rockets of this type."),
        ("mission" = Option<String>, Query, min_length = 1, max_length = 255, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$", description = "Only rockets of this mission."),
        ("status" = Option<StatusName>, Query, description = "Only rockets with this status."),
        ("view" = Option<ViewName>, Query, description = "`best-effort` by default."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "At most this many rockets; 100 by default."),
        ("cursor" = Option<String>, Query, pattern = "^[A-Za-z0-9_-]+$", description = "The `nextCursor` of the previous page, with the same sort, order, filters and view.")
    ),
    responses(
        (status = 200, description = "The page.", body = PageJson, headers(
            ("Link" = String, description = "The next page, if there is one, as `rel=\"next\"`.")
        )),
        (status = 400, description = "A parameter is unknown, repeated or bad; `errors` names them.")
    )
)]
pub(super) async fn list(
    request: HttpRequest,
    state: web::Data<Service>,
) -> Result<HttpResponse, Problem> {
    let query = params::rockets(request.query_string())?;
    let read = {
        let (store, query) = (state.store.clone(), query.clone());
        async move { store.rockets(query).await }
    };
    let page = match ReadCost::of(&query) {
        ReadCost::Short => read.await,
        ReadCost::Search => state.searches.read(read).await?,
        ReadCost::Long => state.long_reads.read(read).await?,
    };
    let page = state.read(page)?;
    let next_cursor = page.next.map(|position| cursor::encode(&query, &position));
    let mut response = HttpResponse::Ok();
    if let Some(cursor) = &next_cursor {
        response.append_header((header::LINK, next_link(request.query_string(), cursor)));
    }
    let rockets = page.rockets.iter().map(|rocket| RocketJson::new(rocket, None)).collect();
    Ok(json(response, &PageJson { rockets, next_cursor }))
}

/// One rocket.
#[utoipa::path(
    get,
    path = "/rockets/{channel}",
    operation_id = "getRocket",
    tag = "Rockets",
    params(
        ("channel" = String, Path, description = "Percent-encoded. For `.` and `..`, use `GET \
                                                  /rockets?channel=`.", min_length = 1, max_length = 255, example = "193270a9-c9cf-404a-8f83-838e71d9ae67"),
        ("view" = Option<ViewsName>, Query, description = "`best-effort` by default; `both` \
                                                           returns both views from one snapshot.")
    ),
    responses(
        (status = 200, description = "The rocket, with its first 100 gaps.", body = OneRocketJson),
        (status = 400, description = "A parameter is unknown, repeated or bad."),
        (status = 404, description = "No message of this channel has been processed.")
    )
)]
pub(super) async fn one(
    request: HttpRequest,
    channel: web::Path<String>,
    state: web::Data<Service>,
    lookups: web::Data<CoalescedReads>,
) -> Result<HttpResponse, Problem> {
    let views = params::rocket(request.query_string())?;
    let never_heard_of = || Problem::not_found("No message of this channel has been processed.");
    // A text that can't be a channel is a channel without messages. The path parameter has U+FFFD
    // in place of bytes that are not UTF-8, so check the path itself.
    if percent_decode_str(request.path()).decode_utf8().is_err() {
        return Err(never_heard_of());
    }
    let channel =
        Channel::new(ByteString::from(channel.into_inner())).map_err(|_| never_heard_of())?;
    match views {
        Views::One(view) => {
            let found =
                state.read(lookups.rocket(channel, view).await)?.ok_or_else(never_heard_of)?;
            Ok(json(HttpResponse::Ok(), &RocketJson::new(&found.rocket, Some(&found.gaps))))
        }
        Views::Both => {
            let found = state
                .read(state.store.rocket_in_both_views(&channel).await)?
                .ok_or_else(never_heard_of)?;
            Ok(json(HttpResponse::Ok(), &BothViewsJson::new(&found)))
        }
    }
}

pub(super) fn json(
    mut response: actix_web::HttpResponseBuilder,
    body: &impl Serialize,
) -> HttpResponse {
    match serde_json::to_vec(body) {
        Ok(body) => {
            response.content_type("application/json").body(response_budget::into_bytes(body))
        }
        Err(_) => HttpResponse::InternalServerError().finish(),
    }
}

/// The URL of the same query with another cursor. The parameters are encoded again, whatever
/// encoding the client chose.
fn next_link(query_string: &str, cursor: &str) -> String {
    let kept = params::pairs(query_string).filter(|(name, _)| name != "cursor");
    let pairs = kept.chain([("cursor".into(), cursor.into())]).map(|(name, value)| {
        let encode = |text| utf8_percent_encode(text, UNRESERVED).to_string();
        format!("{}={}", encode(&name), encode(&value))
    });
    format!("</rockets?{}>; rel=\"next\"", pairs.collect::<Vec<_>>().join("&"))
}

/// Everything but the unreserved characters of a URI.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A page of rockets.
#[derive(Serialize, ToSchema)]
#[schema(as = Page)]
#[serde(rename_all = "camelCase")]
struct PageJson<'r> {
    rockets: Vec<RocketJson<'r>>,
    /// The `cursor` of the next page; null on the last.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// The state of a rocket in one view.
#[derive(Serialize, ToSchema)]
#[schema(as = Rocket, example = json!({
    "channel": "193270a9-c9cf-404a-8f83-838e71d9ae67", "status": "launched", "type": "Falcon-9", "speed": 3500,
    "mission": "SHUTTLE_MIR", "explodedReason": null, "latestMissionMessage": 4, "latestExplodedMessage": null,
    "latestUpdate": "2022-02-02T18:39:05.863370Z", "lastReceived": "2026-11-23T10:00:00.000123Z",
    "messages": { "processed": 6, "completeThrough": 4, "highest": 7, "missing": 1, "gaps": [[5, 5]] }
}))]
#[serde(rename_all = "camelCase")]
pub(super) struct RocketJson<'r> {
    channel: &'r str,
    #[schema(value_type = StatusName)]
    status: &'static str,
    #[serde(rename = "type")]
    #[schema(required)]
    rocket_type: Option<&'r str>,
    speed: i64,
    #[schema(required)]
    mission: Option<&'r str>,
    #[schema(required)]
    exploded_reason: Option<&'r str>,
    #[schema(required)]
    latest_mission_message: Option<i64>,
    #[schema(required)]
    latest_exploded_message: Option<i64>,
    #[schema(value_type = Option<String>, format = DateTime, required)]
    latest_update: Option<Timestamp>,
    /// When the service last received a new message of this rocket, by the service's clock.
    #[schema(value_type = String, format = DateTime)]
    last_received: Timestamp,
    messages: MessagesJson<'r>,
}

/// Both views of a rocket, from one snapshot.
#[derive(Serialize, ToSchema)]
#[schema(as = RocketInBothViews)]
#[serde(rename_all = "camelCase")]
struct BothViewsJson<'r> {
    channel: &'r str,
    /// When the service last received a new message of this rocket, by the service's clock.
    #[schema(value_type = String, format = DateTime)]
    last_received: Timestamp,
    best_effort: StateJson<'r>,
    exact: StateJson<'r>,
    messages: MessagesJson<'r>,
}

/// A rocket's state in one view.
#[derive(Serialize, ToSchema)]
#[schema(as = RocketState)]
#[serde(rename_all = "camelCase")]
struct StateJson<'r> {
    #[schema(value_type = StatusName)]
    status: &'static str,
    #[serde(rename = "type")]
    #[schema(required)]
    rocket_type: Option<&'r str>,
    speed: i64,
    #[schema(required)]
    mission: Option<&'r str>,
    #[schema(required)]
    exploded_reason: Option<&'r str>,
    #[schema(required)]
    latest_mission_message: Option<i64>,
    #[schema(required)]
    latest_exploded_message: Option<i64>,
    #[schema(value_type = Option<String>, format = DateTime, required)]
    latest_update: Option<Timestamp>,
}

impl<'r> StateJson<'r> {
    fn new(state: &'r RocketState) -> Self {
        Self {
            status: state.status.name(),
            rocket_type: state.rocket_type.as_ref().map(Text::as_str),
            speed: state.speed,
            mission: state.mission.as_ref().map(Text::as_str),
            exploded_reason: state.exploded_reason.as_ref().map(Text::as_str),
            latest_mission_message: state.latest_mission_message,
            latest_exploded_message: state.latest_exploded_message,
            latest_update: state.latest_update,
        }
    }
}

impl<'r> BothViewsJson<'r> {
    fn new(found: &'r RocketInBothViews) -> Self {
        let RocketWithGaps { rocket, gaps } = &found.best_effort;
        Self {
            channel: rocket.channel.as_str(),
            last_received: rocket.last_received,
            best_effort: StateJson::new(&rocket.state),
            exact: StateJson::new(&found.exact),
            messages: MessagesJson::new(&rocket.progress, Some(gaps)),
        }
    }
}

/// A rocket in the requested view or views.
#[derive(ToSchema)]
#[schema(as = OneRocket)]
#[serde(untagged)]
#[allow(dead_code)]
enum OneRocketJson<'r> {
    OneView(RocketJson<'r>),
    BothViews(BothViewsJson<'r>),
}

/// Which messages have been processed. Both views have the same numbers.
#[derive(Serialize, ToSchema)]
#[schema(as = Progress)]
#[serde(rename_all = "camelCase")]
struct MessagesJson<'r> {
    processed: i64,
    complete_through: i64,
    highest: i64,
    missing: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The first 100 missing ranges below the highest number, both ends inclusive; not in lists.
    #[schema(value_type = Option<Vec<[i64; 2]>>)]
    gaps: Option<&'r [(i64, i64)]>,
}

impl<'r> RocketJson<'r> {
    pub(super) fn new(rocket: &'r Rocket, gaps: Option<&'r [(i64, i64)]>) -> Self {
        let Rocket { channel, state, last_received, progress } = rocket;
        Self {
            channel: channel.as_str(),
            status: state.status.name(),
            rocket_type: state.rocket_type.as_ref().map(|text| text.as_str()),
            speed: state.speed,
            mission: state.mission.as_ref().map(|text| text.as_str()),
            exploded_reason: state.exploded_reason.as_ref().map(|text| text.as_str()),
            latest_mission_message: state.latest_mission_message,
            latest_exploded_message: state.latest_exploded_message,
            latest_update: state.latest_update,
            last_received: *last_received,
            messages: MessagesJson::new(progress, gaps),
        }
    }
}

impl<'r> MessagesJson<'r> {
    fn new(progress: &Progress, gaps: Option<&'r [(i64, i64)]>) -> Self {
        Self {
            processed: progress.processed,
            complete_through: progress.complete_through,
            highest: progress.highest,
            missing: progress.missing(),
            gaps,
        }
    }
}

/// The phase of a rocket's life. An exploded rocket stays exploded.
#[derive(ToSchema)]
#[schema(as = Status, rename_all = "camelCase")]
#[allow(dead_code)]
pub(super) enum StatusName {
    AwaitingLaunch,
    Launched,
    Exploded,
}

/// Which messages count: all that were processed, or the unbroken sequence from message 1.
#[derive(ToSchema)]
#[schema(as = View, rename_all = "kebab-case")]
#[allow(dead_code)]
pub(super) enum ViewName {
    BestEffort,
    Exact,
}

/// Which messages count; `both` returns both views.
#[derive(ToSchema)]
#[schema(as = Views, rename_all = "kebab-case")]
#[allow(dead_code)]
pub(super) enum ViewsName {
    BestEffort,
    Exact,
    Both,
}

/// The sort key of rockets.
#[derive(ToSchema)]
#[schema(as = Sort, rename_all = "camelCase")]
#[allow(dead_code)]
pub(super) enum SortName {
    LatestUpdate,
    Channel,
    Type,
    Speed,
    Mission,
    Status,
}

/// Ascending or descending.
#[derive(ToSchema)]
#[schema(as = Order, rename_all = "camelCase")]
#[allow(dead_code)]
pub(super) enum OrderName {
    Asc,
    Desc,
}
