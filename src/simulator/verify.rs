//! Compares the service's rockets with the simulator's own fold.

use std::cell::{Cell, RefCell};

use awc::http::StatusCode;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::fleet::{ExpectedProgress, ExpectedRocket};
use super::sender::Sender;
use crate::domain::rocket::View;

impl Sender {
    /// Reads every rocket in both views. Returns a description of each rocket that differs from its
    /// messages, folded in order.
    pub async fn verify_all(&self) -> Result<Vec<String>, String> {
        let (next, disagreements) = (Cell::new(0), RefCell::new(Vec::new()));
        self.on_each_connection(|| async {
            loop {
                let rocket = next.get();
                if rocket >= self.fleet.rockets {
                    return Ok(());
                }
                next.set(rocket + 1);
                let disagreement = self.verify(rocket).await?;
                disagreements.borrow_mut().extend(disagreement);
            }
        })
        .await?;
        Ok(disagreements.into_inner())
    }

    /// Describes how the service's rocket differs from the in-order fold, if it does.
    async fn verify(&self, rocket: u32) -> Result<Option<String>, String> {
        let progress = self.fleet.progress(rocket);
        for view in View::ALL {
            let through = match view {
                View::BestEffort => progress.highest,
                View::Exact => progress.complete_through,
            };
            let expected = self.fleet.expected(rocket, through);
            let channel = utf8_percent_encode(self.channel(rocket), NON_ALPHANUMERIC);
            let url = self.client.url(&format!("/rockets/{channel}?view={}", view.name()));
            let response = self.client.get(&url).await?;
            if progress.processed == 0 && response.status == StatusCode::NOT_FOUND {
                continue;
            }
            // A response that is not JSON differs, too.
            let actual: Value = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
            let expected_json = rocket_json(self.channel(rocket), &expected, &progress);
            if response.status != StatusCode::OK || !matches_expected(&actual, &expected_json) {
                return Ok(Some(format!(
                    "{url}\n  says      {response}\n  should be {expected_json}"
                )));
            }
        }
        Ok(None)
    }
}

/// The members that a view of a rocket must have once all messages that are sent are processed.
fn rocket_json(channel: &str, expected: &ExpectedRocket, progress: &ExpectedProgress) -> Value {
    json!({
        "channel": channel,
        "status": expected.status,
        "type": expected.rocket_type,
        "speed": expected.speed,
        "mission": expected.mission,
        "explodedReason": expected.exploded_reason,
        "latestMissionMessage": expected.latest_mission_message,
        "latestExplodedMessage": expected.latest_exploded_message,
        "latestUpdate": expected.latest_update,
        "messages": {
            "processed": progress.processed,
            "completeThrough": progress.complete_through,
            "highest": progress.highest,
            "missing": progress.highest - progress.processed,
            "exactThrough": progress.complete_through,
            "lost": 0,
            "gaps": progress.gaps,
        },
    })
}

/// Whether every expected member has its value. Others are not compared, such as `lastReceived`,
/// which the service's clock sets.
fn matches_expected(actual: &Value, expected: &Value) -> bool {
    match (actual, expected) {
        (Value::Object(actual), Value::Object(expected)) => {
            expected.iter().all(|(member, value)| {
                actual.get(member).is_some_and(|actual| matches_expected(actual, value))
            })
        }
        _ => actual == expected,
    }
}
