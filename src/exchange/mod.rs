//! Passing rockets from one database to another: exports, and what merges them.

pub(crate) mod sync;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::merge::{MergeEntry, MergeOutcome};
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
use crate::store::merge::ExportQuery;
use crate::store::{Store, StoreError};
use crate::wire::export::{ExportHeader, ExportLine};
use crate::wire::ndjson::{Line, LineCutter};

/// How much earlier than an export the next one begins. Messages have the time at which their
/// transaction began, by the clock of their instance, so some become visible only after an export
/// that began later. What is exported twice is merged once.
const OVERLAP: Duration = Duration::from_secs(60);

/// The maximum number of rockets that are merged in one transaction, and about how many ranges
/// they have: messages wait meanwhile.
const MAX_BATCH_ENTRIES: usize = 1_024;
const MAX_BATCH_RANGES: usize = 8_192;

/// The maximum number of conflicts that a report lists.
const MAX_CONFLICTS_LISTED: usize = 100;

/// The maximum number of ranges, and of losses, in a line of an export that is written. A rocket
/// with more has several lines.
const MAX_LINE_RANGES: usize = 16_384;

/// The longest line of an export that is read. A line that is written fits: a range takes at most
/// 4 KB, with the longest texts (three of 255 characters) and all its blocks.
const MAX_LINE_BYTES: usize = 64 * 1024 * 1024;

/// Writes an export in parts, in constant memory.
#[derive(Debug)]
pub(crate) struct Exporter {
    store: Store,
    step: ExportStep,
}

#[derive(Debug)]
enum ExportStep {
    Header(ExportQuery),
    Rockets(ExportQuery),
    /// After the rockets, so that rockets that are forgotten during the export are included.
    Forgotten(ExportQuery),
    End,
}

impl Exporter {
    pub(crate) fn new(store: Store, query: ExportQuery) -> Self {
        Self { store, step: ExportStep::Header(query) }
    }

    /// The next lines; none at the end. Blocks.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<ExportLine>>, StoreError> {
        let (lines, next) = match std::mem::replace(&mut self.step, ExportStep::End) {
            ExportStep::Header(query) => {
                let exported_at = Timestamp::from_system_time(SystemTime::now());
                let through = exported_at.minus(OVERLAP);
                let header = ExportLine::Header(ExportHeader { exported_at, through });
                (vec![header], ExportStep::Rockets(query))
            }
            ExportStep::Rockets(query) => {
                let page = self.store.export(&query)?;
                let rockets = page.rockets.into_iter().flat_map(|(channel, record)| {
                    let line =
                        move |part| ExportLine::Entry(MergeEntry::Rocket(channel.clone(), part));
                    record.parts(MAX_LINE_RANGES).into_iter().map(line)
                });
                let next = match page.next {
                    Some(after) => ExportStep::Rockets(ExportQuery { after: Some(after), ..query }),
                    None => ExportStep::Forgotten(query),
                };
                (rockets.collect(), next)
            }
            ExportStep::Forgotten(query) => {
                let tombstones = self.store.tombstones(query.since)?.into_iter();
                let lines = tombstones
                    .filter(|(channel, _)| channel.as_str().starts_with(&query.channel_prefix))
                    .map(|(channel, at)| ExportLine::Entry(MergeEntry::Forgotten(channel, at)));
                (lines.collect(), ExportStep::End)
            }
            ExportStep::End => return Ok(None),
        };
        self.step = next;
        Ok(Some(lines))
    }

    /// The next lines as text; none at the end. Blocks.
    pub(crate) fn next_text(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        let text = |lines: Vec<ExportLine>| {
            let mut text = Vec::new();
            lines.iter().for_each(|line| line.write(&mut text));
            text
        };
        Ok(self.next()?.map(text))
    }
}

/// What a merge came to.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
#[schema(as = MergeReport, example = json!({
    "rockets": 3, "changed": 1, "gained": 12,
    "conflicts": [{
        "channel": "193270a9-c9cf-404a-8f83-838e71d9ae67", "first": 4, "last": 7,
        "detail": "the speed changes by 5 here, and by 7 there"
    }]
}))]
pub struct MergeReport {
    /// The rockets that were read.
    pub rockets: u64,
    /// The rockets that have changed, or were forgotten.
    pub changed: u64,
    /// The messages that were not here before.
    pub gained: i64,
    /// The first 100 conflicts: messages that could not be merged. What was here stays.
    pub conflicts: Vec<ChannelConflict>,
    /// The number of all conflicts.
    #[serde(skip)]
    pub conflict_count: u64,
}

/// Messages of a channel that could not be merged.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = MergeConflict)]
pub struct ChannelConflict {
    pub channel: String,
    pub first: i64,
    pub last: i64,
    pub detail: String,
}

impl MergeReport {
    fn add(&mut self, entry: &MergeEntry, outcome: MergeOutcome) {
        self.rockets += u64::from(matches!(entry, MergeEntry::Rocket(..)));
        self.changed += u64::from(outcome.is_changed);
        self.gained += outcome.gained;
        self.conflict_count += outcome.conflicts.len() as u64;
        for conflict in outcome.conflicts {
            if self.conflicts.len() < MAX_CONFLICTS_LISTED {
                self.conflicts.push(ChannelConflict {
                    channel: entry.channel().as_str().to_owned(),
                    first: conflict.first,
                    last: conflict.last,
                    detail: conflict.detail,
                });
            }
        }
    }
}

/// Entries that are merged in one transaction.
#[derive(Debug, Default)]
pub(crate) struct MergeBatch {
    entries: Vec<MergeEntry>,
    ranges: usize,
}

impl MergeBatch {
    pub(crate) fn add(&mut self, entry: MergeEntry) {
        if let MergeEntry::Rocket(_, record) = &entry {
            self.ranges += record.ranges.len() + record.losses.len();
        }
        self.entries.push(entry);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= MAX_BATCH_ENTRIES || self.ranges >= MAX_BATCH_RANGES
    }

    pub(crate) fn channels(&self) -> Vec<Channel> {
        self.entries.iter().map(|entry| entry.channel().clone()).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Merges the entries. Returns the channels whose rockets have changed. Blocks.
    pub(crate) fn merge(
        self,
        store: &Store,
        dry_run: bool,
        report: &mut MergeReport,
    ) -> Result<Vec<Channel>, StoreError> {
        let now = Timestamp::from_system_time(SystemTime::now());
        let outcomes = store.merge(&self.entries, now, dry_run)?;
        let mut changed = Vec::new();
        for (entry, outcome) in self.entries.iter().zip(outcomes) {
            if outcome.is_changed {
                changed.push(entry.channel().clone());
            }
            report.add(entry, outcome);
        }
        Ok(changed)
    }
}

/// Reads an export.
#[derive(Debug)]
pub(crate) struct ExportReader {
    lines: LineCutter,
    header: Option<ExportHeader>,
}

impl Default for ExportReader {
    fn default() -> Self {
        Self { lines: LineCutter::new(MAX_LINE_BYTES), header: None }
    }
}

impl ExportReader {
    /// Adds the entries whose lines end in the next part of the export; none is its end. If a line
    /// is not that of an export, those before it are added. The error is the end of a sentence.
    pub(crate) fn read(
        &mut self,
        part: Option<&Bytes>,
        entries: &mut Vec<MergeEntry>,
    ) -> Result<(), String> {
        let mut lines = Vec::new();
        match part {
            Some(part) => self.lines.feed(part, &mut |line| lines.push(line)),
            None => self.lines.finish(&mut |line| lines.push(line)),
        }
        for Line { number, text } in lines {
            let entry = text.map_err(|error| error.to_string()).and_then(|text| self.entry(&text));
            let entry = entry.map_err(|detail| format!("line {number}: {detail}"))?;
            entries.extend(entry);
        }
        if part.is_none() && self.header.is_none() {
            return Err("it is empty, and an export has at least one line".to_owned());
        }
        Ok(())
    }

    /// The entry of a line; none for the header.
    fn entry(&mut self, line: &[u8]) -> Result<Option<MergeEntry>, String> {
        match (ExportLine::parse(line)?, self.header) {
            (ExportLine::Header(header), None) => {
                self.header = Some(header);
                Ok(None)
            }
            (ExportLine::Header(_), Some(_)) => {
                Err("rocketMonitor is only in the first line".into())
            }
            (ExportLine::Entry(_), None) => {
                Err("this is not the first line of an export, which has rocketMonitor".into())
            }
            (ExportLine::Entry(entry), Some(_)) => Ok(Some(entry)),
        }
    }

    /// The header of an export that was read to its end.
    pub(crate) fn header(&self) -> ExportHeader {
        self.header.unwrap_or_else(|| unreachable!("an export without a header is not accepted"))
    }
}
