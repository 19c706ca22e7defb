//! Types only for the API description: messages as [`parse`](super::message::parse) accepts them,
//! with their bounds, and the rows of reports. They are never instantiated.
#![allow(dead_code)]

use std::borrow::Cow;

use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::types::names;
use crate::domain::message::{EventType, MessageNumber, SpeedChange};
use crate::domain::text::{Channel, Text};
use crate::domain::timestamp::Timestamp;
use crate::store::report::Report;

/// A message about a rocket. Unknown members are ignored; a duplicated member is an error.
#[derive(ToSchema)]
#[schema(as = Message, examples(json!({
    "metadata": {
        "channel": "193270a9-c9cf-404a-8f83-838e71d9ae67", "messageNumber": 1,
        "messageTime": "2022-02-02T19:39:05.86337+01:00", "messageType": "RocketLaunched"
    },
    "message": { "type": "Falcon-9", "launchSpeed": 500, "mission": "ARTEMIS" }
})))]
#[serde(untagged)]
pub(crate) enum MessageBody {
    Launched(LaunchedMessage),
    SpeedChanged(SpeedChangedMessage),
    Exploded(ExplodedMessage),
    MissionChanged(MissionChangedMessage),
}

/// Messages as newline-delimited JSON: any number of them, one per line. A line ends in LF or CRLF.
#[derive(ToSchema)]
#[schema(as = MessageLines, value_type = String, content_media_type = "application/x-ndjson")]
pub(crate) struct MessageLines(String);

/// A rocket was launched. This adds to its speed, and sets its type and mission.
#[derive(ToSchema)]
pub(crate) struct LaunchedMessage {
    metadata: Metadata<LaunchedType>,
    message: Launched,
}

/// A rocket became faster or slower.
#[derive(ToSchema)]
pub(crate) struct SpeedChangedMessage {
    metadata: Metadata<SpeedChangedType>,
    message: SpeedChanged,
}

/// A rocket exploded.
#[derive(ToSchema)]
pub(crate) struct ExplodedMessage {
    metadata: Metadata<ExplodedType>,
    message: Exploded,
}

/// A rocket got a new mission.
#[derive(ToSchema)]
pub(crate) struct MissionChangedMessage {
    metadata: Metadata<MissionChangedType>,
    message: MissionChanged,
}

/// The identity and the type of a message.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct Metadata<T> {
    #[schema(inline)]
    channel: Channel,
    #[schema(inline)]
    message_number: MessageNumber,
    #[schema(inline)]
    message_time: Timestamp,
    message_type: T,
}

/// The `messageType` of each kind of message.
pub(crate) struct LaunchedType;
pub(crate) struct SpeedChangedType;
pub(crate) struct ExplodedType;
pub(crate) struct MissionChangedType;

names! {
    LaunchedType: "LaunchedType", [EventType::Launched.name()];
    SpeedChangedType: "SpeedType",
        [EventType::SpeedIncreased, EventType::SpeedDecreased].map(EventType::name);
    ExplodedType: "ExplodedType", [EventType::Exploded.name()];
    MissionChangedType: "MissionType", [EventType::MissionChanged.name()];
}

/// The launch data.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct Launched {
    #[schema(inline)]
    r#type: Text,
    #[schema(inline)]
    launch_speed: SpeedChange,
    #[schema(inline)]
    mission: Text,
}

/// The size of the speed change.
#[derive(ToSchema)]
pub(crate) struct SpeedChanged {
    #[schema(inline)]
    by: SpeedChange,
}

/// Why it exploded.
#[derive(ToSchema)]
pub(crate) struct Exploded {
    #[schema(inline)]
    reason: Text,
}

/// The new mission.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct MissionChanged {
    #[schema(inline)]
    new_mission: Text,
}

/// A page of a report as newline-delimited JSON: each row as an object on a line.
#[derive(ToSchema)]
#[schema(as = ReportLines, value_type = String, content_media_type = "application/x-ndjson")]
pub(crate) struct ReportLines(String);

/// A page of a report: its name and its rows.
#[derive(ToSchema)]
#[schema(as = ReportRows, discriminator(property_name = "name", mapping(
    ("missions" = "#/components/schemas/MissionsReport"),
    ("types" = "#/components/schemas/TypesReport"),
    ("explosions" = "#/components/schemas/ExplosionsReport"),
    ("fleet" = "#/components/schemas/FleetReport"),
    ("gaps" = "#/components/schemas/GapsReport")
)))]
#[serde(untagged)]
pub(crate) enum ReportJson {
    Missions(MissionsReport),
    Types(TypesReport),
    Explosions(ExplosionsReport),
    Fleet(FleetReport),
    Gaps(GapsReport),
}

/// Each report with its name and the type of its rows.
macro_rules! reports {
    ($($(#[$docs:meta])* $schema:ident: $name:ident, $report:ident, $row:ident;)*) => {
        $(
            $(#[$docs])*
            #[derive(ToSchema)]
            #[schema(rename_all = "camelCase")]
            pub(crate) struct $schema {
                #[schema(inline)]
                name: $name,
                rows: Vec<$row>,
                /// The `cursor` of the next page; null on the last.
                #[schema(required)]
                next_cursor: Option<String>,
            }

            pub(crate) struct $name;
            names! { $name: stringify!($name), [Report::$report.name()]; }
        )*
    };
}

reports! {
    /// Rockets by mission, sorted by mission, null last.
    MissionsReport: MissionsName, Missions, MissionRow;
    /// Rockets by type, sorted by type, null last.
    TypesReport: TypesName, Types, TypeRow;
    /// Exploded rockets by reason, sorted by reason.
    ExplosionsReport: ExplosionsName, Explosions, ExplosionRow;
    /// The whole fleet in one row.
    FleetReport: FleetName, Fleet, FleetTotals;
    /// Missing message numbers, sorted by channel and number.
    GapsReport: GapsName, Gaps, GapRow;
}

/// The rockets of one mission.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct MissionRow {
    /// Null stands for an unknown mission.
    #[schema(required)]
    mission: Option<String>,
    rockets: i64,
    launched: i64,
    exploded: i64,
    mean_speed: f64,
    max_speed: i64,
}

/// The rockets of one type.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct TypeRow {
    /// Null stands for an unknown type.
    #[schema(required)]
    r#type: Option<String>,
    rockets: i64,
    launched: i64,
    exploded: i64,
    mean_speed: f64,
    max_speed: i64,
}

/// The rockets that exploded for one reason.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct ExplosionRow {
    reason: String,
    rockets: i64,
    #[schema(format = DateTime)]
    latest_update: String,
}

/// The totals of the fleet.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase", example = json!({
    "rockets": 4, "awaitingLaunch": 2, "launched": 1, "exploded": 1, "processed": 6, "missing": 4,
    "rocketsWithGaps": 2, "latestUpdate": "2022-02-02T19:39:06.000000Z"
}))]
pub(crate) struct FleetTotals {
    rockets: i64,
    awaiting_launch: i64,
    launched: i64,
    exploded: i64,
    /// The number of processed messages.
    processed: i64,
    /// The number of messages missing below the highest number of each rocket.
    missing: i64,
    rockets_with_gaps: i64,
    /// Null if there are no rockets.
    #[schema(format = DateTime, required)]
    latest_update: Option<String>,
}

/// A range of missing message numbers, both ends inclusive.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct GapRow {
    channel: String,
    first_missing: i64,
    last_missing: i64,
    /// The latest messageTime before the gap; null if the gap begins at message 1.
    #[schema(format = DateTime, required)]
    after_time: Option<String>,
    /// When the service first took a message of the range above the gap.
    #[schema(format = DateTime)]
    since: String,
    /// How many of the numbers are declared lost.
    lost: i64,
}

/// The state of the service.
#[derive(ToSchema)]
#[schema(example = json!({ "status": "live" }))]
pub(crate) struct Health {
    /// `live` or `ready`.
    status: String,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::report::Kind;
    use crate::wire::report::camel_case;

    #[test]
    fn the_discriminator_maps_every_report() {
        let schema = serde_json::to_value(ReportJson::schema()).unwrap();
        let mapping = schema["discriminator"]["mapping"].as_object().unwrap();
        let mut names = Report::ALL.map(Report::name);
        names.sort_unstable();
        let mut mapped: Vec<_> = mapping.keys().map(String::as_str).collect();
        mapped.sort_unstable();
        assert_eq!(mapped, names);
    }

    #[test]
    fn rows_of_reports_have_the_columns_of_the_catalogue() {
        for report in Report::ALL {
            let schema = match report {
                Report::Missions => MissionRow::schema(),
                Report::Types => TypeRow::schema(),
                Report::Explosions => ExplosionRow::schema(),
                Report::Fleet => FleetTotals::schema(),
                Report::Gaps => GapRow::schema(),
            };
            let schema = serde_json::to_value(schema).unwrap();
            let properties = schema["properties"].as_object().unwrap();
            assert_eq!(properties.len(), report.columns().len(), "{report:?}");
            assert_eq!(
                schema["required"].as_array().unwrap().len(),
                properties.len(),
                "{report:?}"
            );
            for (column, kind) in report.columns() {
                let property = &properties[&camel_case(column)];
                let (expected, format) = match kind {
                    Kind::Text => ("string", None),
                    Kind::Integer => ("integer", Some("int64")),
                    Kind::Real => ("number", Some("double")),
                    Kind::Time => ("string", Some("date-time")),
                };
                let actual = property["type"].as_str().or_else(|| property["type"][0].as_str());
                assert_eq!(
                    (actual, property["format"].as_str()),
                    (Some(expected), format),
                    "{report:?} {column}"
                );
            }
        }
    }
}
