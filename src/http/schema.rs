//! How a message looks, for the API's description: what [`parse`](crate::domain::parse) takes, with its bounds. These
//! types are never made.
#![allow(dead_code)]

use utoipa::ToSchema;

/// One message of a rocket. Members that are not named here are ignored; a member that is there twice is an error.
#[derive(ToSchema)]
#[schema(as = Message, examples(json!({
    "metadata": { "channel": "193270a9-c9cf-404a-8f83-838e71d9ae67", "messageNumber": 1,
                  "messageTime": "2022-02-02T19:39:05.86337+01:00", "messageType": "RocketLaunched" },
    "message": { "type": "Falcon-9", "launchSpeed": 500, "mission": "ARTEMIS" }
})))]
#[serde(untagged)]
pub(super) enum MessageBody {
    Launched { metadata: Metadata<LaunchedType>, message: Launched },
    SpeedChanged { metadata: Metadata<SpeedType>, message: SpeedChanged },
    Exploded { metadata: Metadata<ExplodedType>, message: Exploded },
    MissionChanged { metadata: Metadata<MissionType>, message: MissionChanged },
}

/// Which message it is.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct Metadata<T> {
    /// The rocket's radio channel, which is its identity.
    #[schema(min_length = 1, max_length = 255, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    channel: String,
    /// The message's place in the channel's order.
    #[schema(minimum = 1, maximum = 4_294_967_295_u64)]
    message_number: u32,
    /// When it was sent. Digits after the sixth of a second are dropped.
    #[schema(
        pattern = r"^(?!0000)([0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))|([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
    )]
    message_time: String,
    message_type: T,
}

#[derive(ToSchema)]
pub(super) enum LaunchedType {
    RocketLaunched,
}

#[derive(ToSchema)]
pub(super) enum SpeedType {
    RocketSpeedIncreased,
    RocketSpeedDecreased,
}

#[derive(ToSchema)]
pub(super) enum ExplodedType {
    RocketExploded,
}

#[derive(ToSchema)]
pub(super) enum MissionType {
    RocketMissionChanged,
}

/// What a launch says.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct Launched {
    #[schema(min_length = 1, max_length = 255, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    r#type: String,
    #[schema(minimum = -2_147_483_648_i64, maximum = 2_147_483_647)]
    launch_speed: i32,
    #[schema(min_length = 1, max_length = 255, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    mission: String,
}

/// By how much the speed grew or fell.
#[derive(ToSchema)]
pub(super) struct SpeedChanged {
    #[schema(minimum = -2_147_483_648_i64, maximum = 2_147_483_647)]
    by: i32,
}

/// Why it exploded.
#[derive(ToSchema)]
pub(super) struct Exploded {
    #[schema(min_length = 1, max_length = 255, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    reason: String,
}

/// What it does now.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct MissionChanged {
    #[schema(min_length = 1, max_length = 255, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    new_mission: String,
}
