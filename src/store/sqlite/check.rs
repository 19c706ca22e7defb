//! The audit: what is stored is compared with what it must be, in one snapshot, while others may write.

use std::cmp::Ordering;

use rusqlite::{Connection, ErrorCode, Rows};

use super::{SqliteStore, rows};
use crate::domain::ranges::ProcessedRange;
use crate::domain::rocket::{RangeFold, Rocket, View};
use crate::domain::summary::Latest;
use crate::domain::text::Text;
use crate::domain::timestamp::Timestamp;
use crate::store::{Audit, Finding, StoreError};

/// The most problems of the file itself that are told.
const FILE_PROBLEMS_TOLD: usize = 100;

type Found<'f> = &'f mut dyn FnMut(Finding);

impl SqliteStore {
    /// See [`Store::check`](crate::store::Store::check).
    pub fn check(&self, found: Found<'_>) -> Result<Audit, StoreError> {
        self.with_reader(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            check_file(&snapshot, found)?;
            let checked = check_lists(&snapshot, found).and_then(|()| check_channels(&snapshot, found));
            match checked {
                // Damage so bad that it can't be read past is an answer too.
                Err(StoreError::Sqlite(error)) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
                    found(Finding { channel: None, detail: error.to_string() });
                    Ok(Audit::default())
                }
                checked => checked,
            }
        })
    }
}

/// SQLite's own check of pages, types and indexes.
fn check_file(connection: &Connection, found: Found<'_>) -> Result<(), StoreError> {
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({FILE_PROBLEMS_TOLD})"))?;
    let problems = statement.query_map([], |row| row.get::<_, String>(0))?;
    for problem in problems {
        let detail = problem?;
        if detail != "ok" {
            found(Finding { channel: None, detail });
        }
    }
    Ok(())
}

/// Every rocket that is not to be listed anew must be listed as it is, and nothing else may be.
fn check_lists(connection: &Connection, found: Found<'_>) -> Result<(), StoreError> {
    let mut statement = connection.prepare(
        "SELECT rockets.channel FROM rockets LEFT JOIN rockets_listed AS listed ON listed.channel = rockets.channel
         WHERE (listed.speed IS NOT rockets.speed OR listed.latest_update IS NOT rockets.latest_update)
           AND rockets.channel NOT IN (SELECT channel FROM rockets_unlisted)
         UNION
         SELECT channel FROM (SELECT channel FROM rockets_listed UNION SELECT channel FROM rockets_unlisted)
         WHERE channel NOT IN (SELECT channel FROM rockets)",
    )?;
    let mut wrong = statement.query([])?;
    while let Some(row) = wrong.next()? {
        let detail = "its place in the lists by speed and latest update is wrong".to_owned();
        found(Finding { channel: Some(lossy(row.get_ref(0)?)), detail });
    }
    Ok(())
}

/// Goes through both tables side by side, in the order of the channels.
fn check_channels(connection: &Connection, found: Found<'_>) -> Result<Audit, StoreError> {
    let all_rockets = format!("SELECT {} FROM rockets ORDER BY channel", rows::ROCKET_COLUMNS);
    let all_ranges =
        format!("SELECT {}, channel FROM processed_ranges ORDER BY channel, first_msg", rows::RANGE_COLUMNS);
    let mut rockets = connection.prepare(&all_rockets)?;
    let mut ranges = connection.prepare(&all_ranges)?;
    let mut rockets = RocketRows { rows: rockets.query([])?, next: None };
    let mut ranges = RangeRows { rows: ranges.query([])?, next: None };
    rockets.advance()?;
    ranges.advance()?;
    let mut audit = Audit::default();
    loop {
        let order = match (&rockets.next, &ranges.next) {
            (None, None) => return Ok(audit),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((rocket, _)), Some((range, _))) => rocket.as_bytes().cmp(range.as_bytes()),
        };
        audit.channels += 1;
        let rocket = if order.is_le() { rockets.take()? } else { None };
        let fold = if order.is_ge() { ranges.take_channel(&mut audit, found)? } else { None };
        let (channel, detail) = match (rocket, fold) {
            (Some((channel, _)), None) => (channel, vec!["is in rockets, but has no processed ranges".to_owned()]),
            (None, Some((channel, _))) => (channel, vec!["has processed ranges, but is not in rockets".to_owned()]),
            (Some((channel, Err(detail))), _) => (channel, vec![format!("its row in rockets can't be read: {detail}")]),
            (Some((channel, Ok(rocket))), Some((_, Some(fold)))) => (channel, differences(&rocket, &fold)),
            // Ranges that can't be read have been told already.
            (Some((channel, Ok(_))), Some((_, None))) => (channel, Vec::new()),
            (None, None) => return Ok(audit),
        };
        for detail in detail {
            found(Finding { channel: Some(channel.clone()), detail });
        }
    }
}

/// Something read of a row, or why it can't be.
type Readable<T> = Result<T, String>;

struct RocketRows<'r> {
    rows: Rows<'r>,
    next: Option<(String, Readable<Rocket>)>,
}

impl RocketRows<'_> {
    fn advance(&mut self) -> Result<(), StoreError> {
        self.next = match self.rows.next()? {
            Some(row) => Some((lossy(row.get_ref(0)?), rows::rocket(row).map_err(|error| error.to_string()))),
            None => None,
        };
        Ok(())
    }

    fn take(&mut self) -> Result<Option<(String, Readable<Rocket>)>, StoreError> {
        let taken = self.next.take();
        self.advance()?;
        Ok(taken)
    }
}

struct RangeRows<'r> {
    rows: Rows<'r>,
    next: Option<(String, Readable<ProcessedRange>)>,
}

impl RangeRows<'_> {
    fn advance(&mut self) -> Result<(), StoreError> {
        self.next = match self.rows.next()? {
            Some(row) => Some((lossy(row.get_ref("channel")?), rows::range(row).map_err(|error| error.to_string()))),
            None => None,
        };
        Ok(())
    }

    /// Folds all ranges of the next channel, and tells of each that is wrong in itself or to its neighbour. No fold if
    /// one can't be read.
    fn take_channel(
        &mut self,
        audit: &mut Audit,
        found: Found<'_>,
    ) -> Result<Option<(String, Option<RangeFold>)>, StoreError> {
        let Some((channel, _)) = &self.next else {
            return Ok(None);
        };
        let channel = channel.clone();
        let mut fold = Some(RangeFold::default());
        let mut below: Option<(i64, i64)> = None;
        while let Some((_, range)) = self.next.take_if(|(next, _)| *next == channel) {
            audit.ranges += 1;
            let mut tell = |detail| found(Finding { channel: Some(channel.clone()), detail });
            match range {
                Ok(range) => {
                    problems(&range, below).into_iter().for_each(&mut tell);
                    below = Some((range.first, range.last));
                    if let Some(fold) = &mut fold {
                        fold.add(range);
                    }
                }
                Err(detail) => {
                    tell(format!("one of its processed ranges can't be read: {detail}"));
                    fold = None;
                }
            }
            self.advance()?;
        }
        Ok(Some((channel, fold)))
    }
}

fn lossy(value: rusqlite::types::ValueRef<'_>) -> String {
    match value {
        rusqlite::types::ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    }
}

fn problems(range: &ProcessedRange, below: Option<(i64, i64)>) -> Vec<String> {
    let ProcessedRange { first, last, summary } = range;
    let mut problems = Vec::new();
    if *first < 1 || last < first || *last > i64::from(u32::MAX) {
        problems.push(format!("the range {first} to {last} is no range of message numbers"));
    }
    if let Some((below_first, below_last)) = below {
        if below_last >= *first {
            problems.push(format!("the ranges {below_first} to {below_last} and {first} to {last} overlap"));
        } else if below_last + 1 == *first {
            problems.push(format!("the ranges {below_first} to {below_last} and {first} to {last} touch"));
        }
    }
    let parts = [("launch", &summary.launch), ("mission", &summary.mission), ("explosion", &summary.explosion)];
    for (name, latest) in parts {
        if let Some(Latest { number, .. }) = latest.as_ref().filter(|latest| !(first..=last).contains(&&latest.number))
        {
            problems
                .push(format!("the {name} of the range {first} to {last} is of message {number}, which is outside"));
        }
    }
    problems
}

fn differences(rocket: &Rocket, fold: &RangeFold) -> Vec<String> {
    let (is, must) = (&rocket.state, fold.state(View::BestEffort));
    let (progress, must_progress) = (rocket.progress, fold.progress());
    let mut differences = Vec::new();
    let mut compare = |column: &str, is: String, must: String| {
        if is != must {
            differences.push(format!("{column} is {is}, but its processed ranges come to {must}"));
        }
    };
    let shown = |value: &Option<Text>| value.as_ref().map_or("null".to_owned(), |text| format!("{:?}", text.as_str()));
    let number = |value: Option<i64>| value.map_or("null".to_owned(), |number| number.to_string());
    let time = |value: Option<Timestamp>| value.map_or("null".to_owned(), |time| time.to_string());
    compare("type", shown(&is.rocket_type), shown(&must.rocket_type));
    compare("speed", is.speed.to_string(), must.speed.to_string());
    compare("mission", shown(&is.mission), shown(&must.mission));
    compare("exploded_reason", shown(&is.exploded_reason), shown(&must.exploded_reason));
    compare("latest_launch_msg", number(is.latest_launch_message), number(must.latest_launch_message));
    compare("latest_mission_msg", number(is.latest_mission_message), number(must.latest_mission_message));
    compare("latest_exploded_msg", number(is.latest_exploded_message), number(must.latest_exploded_message));
    compare("latest_update", time(is.latest_update), time(must.latest_update));
    compare("processed", progress.processed.to_string(), must_progress.processed.to_string());
    compare("complete_through", progress.complete_through.to_string(), must_progress.complete_through.to_string());
    compare("highest", progress.highest.to_string(), must_progress.highest.to_string());
    differences
}
