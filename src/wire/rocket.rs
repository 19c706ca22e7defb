//! Rockets as JSON.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::query::{RocketInBothViews, RocketWithGaps};
use crate::domain::rocket::{Progress, Rocket, RocketState, Status};
use crate::domain::text::Text;
use crate::domain::timestamp::Timestamp;

/// A page of rockets.
#[derive(Serialize, ToSchema)]
#[schema(as = Page)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PageJson<'r> {
    pub(crate) rockets: Vec<RocketJson<'r>>,
    /// The `cursor` of the next page; null on the last.
    #[schema(required)]
    pub(crate) next_cursor: Option<String>,
    /// With `total=true`: how many rockets match the filters, on all pages together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) total: Option<i64>,
}

/// The state of a rocket in one view.
#[derive(Serialize, ToSchema)]
#[schema(as = Rocket, example = json!({
    "channel": "193270a9-c9cf-404a-8f83-838e71d9ae67", "status": "launched",
    "type": "Falcon-9", "speed": 3500, "mission": "SHUTTLE_MIR", "explodedReason": null,
    "latestMissionMessage": 4, "latestExplodedMessage": null,
    "latestUpdate": "2022-02-02T18:39:05.863370Z", "lastReceived": "2026-11-23T10:00:00.000123Z",
    "messages": {
        "processed": 6, "completeThrough": 4, "highest": 7, "missing": 1, "exactThrough": 4,
        "lost": 0, "gaps": [[5, 5]]
    }
}))]
#[serde(rename_all = "camelCase")]
pub(crate) struct RocketJson<'r> {
    channel: &'r str,
    #[schema(value_type = Status)]
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
pub(crate) struct BothViewsJson<'r> {
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
    #[schema(value_type = Status)]
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
    pub(crate) fn new(found: &'r RocketInBothViews) -> Self {
        let RocketWithGaps { rocket, gaps } = &found.best_effort;
        Self {
            channel: rocket.channel.as_str(),
            last_received: rocket.last_received,
            best_effort: StateJson::new(&rocket.state),
            exact: StateJson::new(found.exact.as_ref().unwrap_or(&rocket.state)),
            messages: MessagesJson::new(&rocket.progress, Some(gaps)),
        }
    }
}

/// A rocket in the requested view or views.
#[derive(ToSchema)]
#[schema(as = OneRocket)]
#[serde(untagged)]
#[allow(dead_code)]
pub(crate) enum OneRocketJson<'r> {
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
    /// The highest number up to which every number is processed or declared lost. The exact view
    /// ends here.
    exact_through: i64,
    /// How many missing numbers below `highest` are declared lost.
    lost: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The first 100 missing ranges below the highest number, both ends inclusive; not in lists.
    #[schema(value_type = Option<Vec<[i64; 2]>>)]
    gaps: Option<&'r [(i64, i64)]>,
}

impl<'r> RocketJson<'r> {
    pub(crate) fn new(rocket: &'r Rocket, gaps: Option<&'r [(i64, i64)]>) -> Self {
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
            exact_through: progress.exact_through,
            lost: progress.lost,
            gaps,
        }
    }
}
