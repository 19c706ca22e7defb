//! `GET /rockets` and `GET /rockets/{channel}`.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use bytestring::ByteString;
use serde::Serialize;

use super::problem::Problem;
use super::{State, cursor, params};
use crate::domain::rocket::Rocket;
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;

/// One page of rockets.
pub(super) async fn list(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Problem> {
    let query = params::rockets(request.query_string())?;
    let page = state.store.rockets(query.clone()).await?;
    let next_cursor = page.next.map(|position| cursor::encode(&query, &position));
    let mut response = HttpResponse::Ok();
    if let Some(cursor) = &next_cursor {
        response.append_header((header::LINK, next_link(request.query_string(), cursor)));
    }
    let rockets = page.rockets.iter().map(|rocket| RocketJson::new(rocket, None)).collect();
    Ok(json(response, &PageJson { rockets, next_cursor }))
}

/// One rocket.
pub(super) async fn one(
    request: HttpRequest,
    channel: web::Path<String>,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let view = params::rocket(request.query_string())?;
    let never_heard_of = || Problem::not_found("No message of this channel has been processed.");
    // What can't be a channel was never heard of.
    let channel = Channel::new(ByteString::from(channel.into_inner())).map_err(|_| never_heard_of())?;
    let found = state.store.rocket(&channel, view).await?.ok_or_else(never_heard_of)?;
    Ok(json(HttpResponse::Ok(), &RocketJson::new(&found.rocket, Some(&found.gaps))))
}

pub(super) fn json(mut response: actix_web::HttpResponseBuilder, body: &impl Serialize) -> HttpResponse {
    match serde_json::to_vec(body) {
        Ok(body) => response.content_type("application/json").body(body),
        Err(_) => HttpResponse::InternalServerError().finish(),
    }
}

/// The same question with another cursor, relative to the resource.
fn next_link(query_string: &str, cursor: &str) -> String {
    let kept = query_string.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
    let mut pairs: Vec<&str> = kept.collect();
    let cursor = format!("cursor={cursor}");
    pairs.push(&cursor);
    format!("</rockets?{}>; rel=\"next\"", pairs.join("&"))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PageJson<'r> {
    rockets: Vec<RocketJson<'r>>,
    next_cursor: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RocketJson<'r> {
    channel: &'r str,
    status: &'static str,
    #[serde(rename = "type")]
    rocket_type: Option<&'r str>,
    speed: i64,
    mission: Option<&'r str>,
    exploded_reason: Option<&'r str>,
    latest_mission_message: Option<i64>,
    latest_exploded_message: Option<i64>,
    latest_update: Option<Timestamp>,
    last_received: Timestamp,
    messages: MessagesJson<'r>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MessagesJson<'r> {
    processed: i64,
    complete_through: i64,
    highest: i64,
    missing: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
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
            messages: MessagesJson {
                processed: progress.processed,
                complete_through: progress.complete_through,
                highest: progress.highest,
                missing: progress.missing(),
                gaps,
            },
        }
    }
}
