//! What an instance has committed lately, as JSON.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::timestamp::Timestamp;
use crate::ingest::activity::{Explosion, INTERVAL, Snapshot};

/// What this instance has committed in the last hour, since it was started.
#[derive(Serialize, ToSchema)]
#[schema(as = Activity, example = json!({
    "startedAt": "2026-11-23T10:00:00.000123Z", "since": "2026-11-23T10:00:00.000123Z",
    "until": "2026-11-23T10:00:24.500000Z", "interval": 10,
    "applied": [120, 80, 40], "duplicates": [1, 0, 0],
    "explosions": [{
        "channel": "193270a9-c9cf-404a-8f83-838e71d9ae67", "reason": "PRESSURE_VESSEL_FAILURE",
        "receivedAt": "2026-11-23T10:00:12.000456Z"
    }]
}))]
#[serde(rename_all = "camelCase")]
pub(crate) struct ActivityJson<'a> {
    /// When the instance was started.
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    /// The start of the first interval: an hour ago, or when the instance was started.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// The time of this response. The last interval has not ended yet.
    #[schema(value_type = String, format = DateTime)]
    until: Timestamp,
    /// The length of an interval, in seconds.
    interval: u64,
    /// How many messages were new in each interval.
    applied: Vec<u64>,
    /// How many copies of earlier messages arrived in each interval.
    duplicates: Vec<u64>,
    /// The latest explosion messages, at most 100; the latest one first.
    explosions: Vec<ExplosionJson<'a>>,
}

/// An explosion message.
#[derive(Serialize, ToSchema)]
#[schema(as = Explosion)]
#[serde(rename_all = "camelCase")]
struct ExplosionJson<'a> {
    channel: &'a str,
    reason: &'a str,
    #[schema(value_type = String, format = DateTime)]
    received_at: Timestamp,
}

impl<'a> ActivityJson<'a> {
    pub(crate) fn new(activity: &'a Snapshot) -> Self {
        let Snapshot { started_at, since, until, intervals, explosions } = activity;
        let explosion = |explosion: &'a Explosion| ExplosionJson {
            channel: explosion.channel.as_str(),
            reason: explosion.reason.as_str(),
            received_at: explosion.received_at,
        };
        Self {
            started_at: *started_at,
            since: *since,
            until: *until,
            interval: INTERVAL.as_secs(),
            applied: intervals.iter().map(|tally| tally.applied).collect(),
            duplicates: intervals.iter().map(|tally| tally.duplicates).collect(),
            explosions: explosions.iter().map(explosion).collect(),
        }
    }
}
