//! Exports: lines of JSON that another database merges. The first line says that it is an export;
//! each further line is a rocket, or says that one was forgotten.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::domain::losses::Loss;
use crate::domain::merge::{MergeEntry, RocketRecord};
use crate::domain::message::{MessageNumber, SpeedChange};
use crate::domain::ranges::ProcessedRange;
use crate::domain::speed_blocks::SpeedBlocks;
use crate::domain::summary::{Latest, Summary};
use crate::domain::text::{Channel, Text};
use crate::domain::timestamp::Timestamp;

/// The version of the format that is written, and the only one that is read.
const FORMAT: u32 = 1;

/// A line of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExportLine {
    /// The first line.
    Header(ExportHeader),
    Entry(MergeEntry),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExportHeader {
    pub(crate) exported_at: Timestamp,
    /// What to ask for as `since` the next time.
    pub(crate) through: Timestamp,
}

/// One of the members is there.
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LineJson {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rocket_monitor: Option<HeaderJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rocket: Option<RocketJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forgotten: Option<ForgottenJson>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct HeaderJson {
    format: u32,
    exported_at: String,
    through: String,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ForgottenJson {
    channel: String,
    forgotten_at: String,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RocketJson {
    channel: String,
    last_received: String,
    ranges: Vec<RangeJson>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    losses: Vec<LossJson>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RangeJson {
    first: i64,
    last: i64,
    speed_change: i64,
    /// As in the table, in base64 without padding. Absent in ranges of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    speed_blocks: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    launch: Option<LatestJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mission: Option<LatestJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    explosion: Option<LatestJson>,
    latest_time: String,
    first_received: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct LatestJson {
    number: i64,
    value: String,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LossJson {
    first: i64,
    last: i64,
    reason: String,
    declared_at: String,
}

impl ExportLine {
    /// Writes the line, with its end.
    pub(crate) fn write(&self, text: &mut Vec<u8>) {
        let line = match self {
            Self::Header(ExportHeader { exported_at, through }) => LineJson {
                rocket_monitor: Some(HeaderJson {
                    format: FORMAT,
                    exported_at: exported_at.to_string(),
                    through: through.to_string(),
                }),
                ..LineJson::default()
            },
            Self::Entry(MergeEntry::Rocket(channel, record)) => {
                LineJson { rocket: Some(RocketJson::new(channel, record)), ..LineJson::default() }
            }
            Self::Entry(MergeEntry::Forgotten(channel, at)) => LineJson {
                forgotten: Some(ForgottenJson {
                    channel: channel.as_str().to_owned(),
                    forgotten_at: at.to_string(),
                }),
                ..LineJson::default()
            },
        };
        if let Err(error) = serde_json::to_writer(&mut *text, &line) {
            unreachable!("a line has only texts and numbers: {error}");
        }
        text.push(b'\n');
    }

    /// Parses a line. The error is the end of a sentence that begins with the line's number.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, String> {
        let line: LineJson = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        match line {
            LineJson { rocket_monitor: Some(header), rocket: None, forgotten: None } => {
                if header.format != FORMAT {
                    return Err(format!(
                        "the export has format {}, and this version reads only {FORMAT}",
                        header.format
                    ));
                }
                Ok(Self::Header(ExportHeader {
                    exported_at: time("exportedAt", &header.exported_at)?,
                    through: time("through", &header.through)?,
                }))
            }
            LineJson { rocket_monitor: None, rocket: Some(rocket), forgotten: None } => {
                let channel = channel(&rocket.channel)?;
                let record = rocket.record()?;
                Ok(Self::Entry(MergeEntry::Rocket(channel, record)))
            }
            LineJson { rocket_monitor: None, rocket: None, forgotten: Some(forgotten) } => {
                let at = time("forgottenAt", &forgotten.forgotten_at)?;
                Ok(Self::Entry(MergeEntry::Forgotten(channel(&forgotten.channel)?, at)))
            }
            _ => Err("must have one of the members rocketMonitor, rocket, forgotten".to_owned()),
        }
    }
}

fn time(name: &str, text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).map_err(|detail| format!("{name} {detail}"))
}

fn text(name: &str, text: String) -> Result<Text, String> {
    Text::new(text).map_err(|detail| format!("{name} {detail}"))
}

fn channel(text: &str) -> Result<Channel, String> {
    Channel::new(text.to_owned()).map_err(|detail| format!("channel {detail}"))
}

/// Checks that numbers are a range of message numbers above the one before.
fn check_numbers(first: i64, last: i64, after: i64) -> Result<(), String> {
    let is_valid = MessageNumber::new(first).is_some() && MessageNumber::new(last).is_some();
    if is_valid && after < first && first <= last {
        Ok(())
    } else {
        Err(format!("{first} to {last} are not message numbers after {after}"))
    }
}

impl RocketJson {
    fn new(channel: &Channel, record: &RocketRecord) -> Self {
        let latest = |latest: &Option<Latest>| {
            let latest = latest.as_ref()?;
            Some(LatestJson { number: latest.number, value: latest.value.as_str().to_owned() })
        };
        let range = |range: &ProcessedRange| RangeJson {
            first: range.first,
            last: range.last,
            speed_change: range.summary.speed_change,
            speed_blocks: range
                .speed_blocks
                .as_ref()
                .map(|blocks| STANDARD_NO_PAD.encode(blocks.as_bytes())),
            launch: latest(&range.summary.launch),
            mission: latest(&range.summary.mission),
            explosion: latest(&range.summary.explosion),
            latest_time: range.summary.latest_time.to_string(),
            first_received: range.first_received.to_string(),
        };
        let loss = |loss: &Loss| LossJson {
            first: loss.first,
            last: loss.last,
            reason: loss.reason.as_str().to_owned(),
            declared_at: loss.declared_at.to_string(),
        };
        Self {
            channel: channel.as_str().to_owned(),
            last_received: record.last_received.to_string(),
            ranges: record.ranges.iter().map(range).collect(),
            losses: record.losses.iter().map(loss).collect(),
        }
    }

    fn record(self) -> Result<RocketRecord, String> {
        // A number is missing between two ranges.
        let mut after = -1;
        let mut ranges = Vec::with_capacity(self.ranges.len());
        for range in self.ranges {
            check_numbers(range.first, range.last, after + 1)?;
            after = range.last;
            ranges.push(range.range()?);
        }
        let highest = after;
        if ranges.is_empty() {
            return Err("ranges must not be empty".to_owned());
        }
        let mut after = 0;
        let mut losses = Vec::with_capacity(self.losses.len());
        for loss in self.losses {
            check_numbers(loss.first, loss.last, after)?;
            after = loss.last;
            losses.push(Loss {
                first: loss.first,
                last: loss.last,
                reason: text("reason", loss.reason)?,
                declared_at: time("declaredAt", &loss.declared_at)?,
            });
        }
        if after >= highest {
            return Err(format!("the loss through {after} is not below the highest, {highest}"));
        }
        let last_received = time("lastReceived", &self.last_received)?;
        Ok(RocketRecord { last_received, ranges, losses })
    }
}

impl RangeJson {
    fn range(self) -> Result<ProcessedRange, String> {
        let Self { first, last, speed_change, .. } = self;
        let greatest = (last - first + 1) * -SpeedChange::MIN;
        if !(-greatest..=greatest).contains(&speed_change) {
            return Err(format!("speedChange {speed_change} is more than the messages can change"));
        }
        let speed_blocks = self.speed_blocks.map(|blocks| {
            let bytes = STANDARD_NO_PAD.decode(blocks).map_err(|error| error.to_string());
            bytes.and_then(|bytes| {
                SpeedBlocks::from_bytes(&bytes, first..=last, speed_change)
                    .map_err(|error| format!("speedBlocks {error}"))
            })
        });
        let latest = |name: &str, latest: Option<LatestJson>| {
            let Some(LatestJson { number, value }) = latest else { return Ok(None) };
            if !(first..=last).contains(&number) {
                return Err(format!("the {name} of {first} to {last} is from message {number}"));
            }
            Ok(Some(Latest { number, value: text(name, value)? }))
        };
        Ok(ProcessedRange {
            first,
            last,
            summary: Summary {
                speed_change,
                launch: latest("launch", self.launch)?,
                mission: latest("mission", self.mission)?,
                explosion: latest("explosion", self.explosion)?,
                latest_time: time("latestTime", &self.latest_time)?,
            },
            speed_blocks: speed_blocks.transpose()?,
            first_received: time("firstReceived", &self.first_received)?,
        })
    }
}
