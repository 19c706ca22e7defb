//! Compares the service's answers with the fleet's own fold.

use std::cell::{Cell, RefCell};

use awc::http::StatusCode;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::fleet::Expected;
use super::sender::Sender;
use crate::domain::rocket::View;

impl Sender {
    /// Reads every rocket in both views. Returns a description of each disagreement with the
    /// messages that were sent, folded in order.
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

    /// Describes how the service's answer differs from the in-order fold, if it does.
    async fn verify(&self, rocket: u32) -> Result<Option<String>, String> {
        let expected = self.fleet.expected(rocket);
        let sent = self.fleet.messages_of(rocket);
        for view in View::ALL {
            let channel = utf8_percent_encode(self.channel(rocket), NON_ALPHANUMERIC);
            let url = self.client.url(&format!("/rockets/{channel}?view={}", view.name()));
            let answer = self.client.get(&url).await?;
            if sent == 0 && answer.status == StatusCode::NOT_FOUND {
                continue;
            }
            // An answer that is no JSON disagrees, too.
            let actual: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
            let wanted = expected_json(self.channel(rocket), &expected, sent);
            if answer.status != StatusCode::OK || !agrees(&actual, &wanted) {
                return Ok(Some(format!("{url}\n  says      {answer}\n  should be {wanted}")));
            }
        }
        Ok(None)
    }
}

/// The JSON that both views of a rocket must contain once all of its messages are processed.
fn expected_json(channel: &str, expected: &Expected, sent: u32) -> Value {
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
            "processed": sent,
            "completeThrough": sent,
            "highest": sent,
            "missing": 0,
            "gaps": [],
        },
    })
}

/// Whether every expected member has its value. `lastReceived` is the service's own time and isn't
/// compared.
fn agrees(actual: &Value, wanted: &Value) -> bool {
    let Some(wanted) = wanted.as_object() else { return false };
    wanted.iter().all(|(member, value)| actual.get(member) == Some(value))
}
