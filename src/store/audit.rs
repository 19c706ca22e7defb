//! The audit: every row of `rockets` must equal the combination of its channel's processed ranges,
//! and losses must be possible. It reads the tables in parallel, in byte order of the channels. An
//! engine provides only the rows, from one snapshot.

use std::cmp::Ordering;

use super::StoreError;
use crate::domain::losses::Loss;
use crate::domain::message::MessageNumber;
use crate::domain::ranges::ProcessedRange;
use crate::domain::rocket::{RangeFold, Rocket, View};
use crate::domain::speed_blocks::BlocksError;
use crate::domain::summary::Latest;
use crate::domain::text::Text;
use crate::domain::timestamp::Timestamp;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The channel; none if the file itself is damaged.
    pub channel: Option<String>,
    pub detail: String,
}

/// The totals of an audit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    pub channels: u64,
    pub ranges: u64,
}

/// Receives each problem that is found.
pub(super) type OnFinding<'f> = &'f mut dyn FnMut(Finding);

/// A value read from a row, or why it can't be read.
pub(super) type Readable<T> = Result<T, String>;

/// A row and its channel, which may be invalid.
pub(super) type Row<T> = (String, Readable<T>);

/// A range, and what is wrong with its blocks; then it lacks them.
pub(super) type AuditedRange = (ProcessedRange, Option<BlocksError>);

/// The rows of all tables in one snapshot, in the order of the channels, ranges and losses then by
/// their first number.
pub(super) trait Rows {
    fn next_rocket(&mut self) -> Result<Option<Row<Rocket>>, StoreError>;
    fn next_range(&mut self) -> Result<Option<Row<AuditedRange>>, StoreError>;
    fn next_loss(&mut self) -> Result<Option<Row<Loss>>, StoreError>;
}

/// Goes through all rows, and reports each problem.
pub(super) fn run(rows: &mut dyn Rows, found: OnFinding<'_>) -> Result<Audit, StoreError> {
    let mut audit = Audit::default();
    let (mut next_rocket, mut next_range) = (rows.next_rocket()?, rows.next_range()?);
    let mut losses = LossAudit { next: rows.next_loss()? };
    loop {
        let order = match (&next_rocket, &next_range) {
            (None, None) => {
                losses.check_orphans(rows, None, found)?;
                return Ok(audit);
            }
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((rocket, _)), Some((range, _))) => rocket.as_bytes().cmp(range.as_bytes()),
        };
        audit.channels += 1;
        let mut rocket = None;
        if order.is_le() {
            rocket = next_rocket.take();
            next_rocket = rows.next_rocket()?;
        }
        let mut folded = None;
        if let Some(range) = next_range.take_if(|_| order.is_ge()) {
            let channel = range.0.clone();
            let (fold, next) = fold_channel(rows, range, &mut audit, found)?;
            folded = Some((channel, fold));
            next_range = next;
        }
        let highest = match &rocket {
            Some((_, Ok(rocket))) => Some(rocket.progress.highest),
            _ => None,
        };
        let (channel, details) = match (rocket, folded) {
            (Some((channel, _)), None) => {
                (channel, vec!["is in rockets, but has no processed ranges".to_owned()])
            }
            (None, Some((channel, _))) => {
                (channel, vec!["has processed ranges, but is not in rockets".to_owned()])
            }
            (Some((channel, Err(detail))), _) => {
                (channel, vec![format!("its row in rockets can't be read: {detail}")])
            }
            (Some((channel, Ok(rocket))), Some((_, Some(fold)))) => {
                (channel, differences(&rocket, &fold))
            }
            // Ranges that can't be read have been reported already.
            (Some((channel, Ok(_))), Some((_, None))) => (channel, Vec::new()),
            (None, None) => unreachable!("there was a next row, and it was taken"),
        };
        for detail in details {
            found(Finding { channel: Some(channel.clone()), detail });
        }
        losses.check(rows, &channel, highest, found)?;
    }
}

/// The losses that are not yet checked.
struct LossAudit {
    next: Option<Row<Loss>>,
}

impl LossAudit {
    /// Checks the losses of a channel, which has this highest number in `rockets`. None if it is
    /// unknown, which has been reported.
    fn check(
        &mut self,
        rows: &mut dyn Rows,
        channel: &str,
        highest: Option<i64>,
        found: OnFinding<'_>,
    ) -> Result<(), StoreError> {
        self.check_orphans(rows, Some(channel), found)?;
        let mut previous: Option<(i64, i64)> = None;
        while let Some((_, loss)) = self.next.take_if(|(next, _)| next == channel) {
            let mut report = |detail| found(Finding { channel: Some(channel.to_owned()), detail });
            match loss {
                Ok(loss) => {
                    loss_problems(&loss, previous, highest).into_iter().for_each(&mut report);
                    previous = Some((loss.first, loss.last));
                }
                Err(detail) => report(format!("one of its losses can't be read: {detail}")),
            }
            self.next = rows.next_loss()?;
        }
        Ok(())
    }

    /// Reports losses of channels before this one; of all that are left if there is none.
    fn check_orphans(
        &mut self,
        rows: &mut dyn Rows,
        before: Option<&str>,
        found: OnFinding<'_>,
    ) -> Result<(), StoreError> {
        let is_orphan = |(channel, _): &mut Row<Loss>| {
            before.is_none_or(|before| channel.as_bytes() < before.as_bytes())
        };
        while let Some((channel, _)) = self.next.take_if(is_orphan) {
            let detail = "has losses, but is not in rockets".to_owned();
            found(Finding { channel: Some(channel), detail });
            self.next = rows.next_loss()?;
        }
        Ok(())
    }
}

fn loss_problems(loss: &Loss, previous: Option<(i64, i64)>, highest: Option<i64>) -> Vec<String> {
    let Loss { first, last, .. } = loss;
    let mut problems = Vec::new();
    if *first < MessageNumber::MIN || last < first {
        problems.push(format!("the loss {first} to {last} is not a valid range"));
    }
    if let Some(highest) = highest.filter(|highest| last >= highest) {
        problems.push(format!("the loss {first} to {last} is not below the highest, {highest}"));
    }
    if let Some((previous_first, previous_last)) = previous.filter(|(_, last)| last >= first) {
        problems.push(format!(
            "the losses {previous_first} to {previous_last} and {first} to {last} overlap"
        ));
    }
    problems
}

/// Folds all ranges of a channel, and reports each range that is invalid or conflicts with its
/// neighbour. There is no fold if a range can't be read. Also returns the first range of the next
/// channel.
fn fold_channel(
    rows: &mut dyn Rows,
    first: Row<AuditedRange>,
    audit: &mut Audit,
    found: OnFinding<'_>,
) -> Result<(Option<RangeFold>, Option<Row<AuditedRange>>), StoreError> {
    let channel = first.0.clone();
    let mut fold = Some(RangeFold::default());
    let mut previous: Option<(i64, i64)> = None;
    let mut next = Some(first);
    while let Some((_, range)) = next.take_if(|(next, _)| *next == channel) {
        audit.ranges += 1;
        let mut report = |detail| found(Finding { channel: Some(channel.clone()), detail });
        match range {
            Ok((range, blocks_error)) => {
                problems(&range, previous).into_iter().for_each(&mut report);
                if let Some(error) = blocks_error {
                    let (first, last) = (range.first, range.last);
                    report(format!("the speed_blocks of the range {first} to {last} {error}"));
                }
                previous = Some((range.first, range.last));
                if let Some(fold) = &mut fold {
                    fold.add(range);
                }
            }
            Err(detail) => {
                report(format!("one of its processed ranges can't be read: {detail}"));
                fold = None;
            }
        }
        next = rows.next_range()?;
    }
    Ok((fold, next))
}

fn problems(range: &ProcessedRange, previous: Option<(i64, i64)>) -> Vec<String> {
    let ProcessedRange { first, last, summary, speed_blocks: _, first_received: _ } = range;
    let mut problems = Vec::new();
    if *first < 1 || last < first || *last > i64::from(u32::MAX) {
        problems
            .push(format!("the range {first} to {last} is not a valid range of message numbers"));
    }
    if let Some((previous_first, previous_last)) = previous {
        if previous_last >= *first {
            problems.push(format!(
                "the ranges {previous_first} to {previous_last} and {first} to {last} overlap"
            ));
        } else if previous_last + 1 == *first {
            problems.push(format!(
                "the ranges {previous_first} to {previous_last} and {first} to {last} touch"
            ));
        }
    }
    let parts = [
        ("launch", &summary.launch),
        ("mission", &summary.mission),
        ("explosion", &summary.explosion),
    ];
    for (name, latest) in parts {
        if let Some(Latest { number, .. }) =
            latest.as_ref().filter(|latest| !(first..=last).contains(&&latest.number))
        {
            problems.push(format!(
                "the {name} of the range {first} to {last} is from message {number}, which is \
                 outside"
            ));
        }
    }
    problems
}

fn differences(rocket: &Rocket, fold: &RangeFold) -> Vec<String> {
    let (actual, expected) = (&rocket.state, fold.state(View::BestEffort));
    let (progress, expected_progress) = (rocket.progress, fold.progress());
    let mut differences = Vec::new();
    let mut compare = |column: &str, actual: String, expected: String| {
        if actual != expected {
            differences
                .push(format!("{column} is {actual}, but its processed ranges come to {expected}"));
        }
    };
    let text = |value: &Option<Text>| {
        value.as_ref().map_or("null".to_owned(), |it| format!("{:?}", it.as_str()))
    };
    let number = |value: Option<i64>| value.map_or("null".to_owned(), |number| number.to_string());
    let time = |value: Option<Timestamp>| value.map_or("null".to_owned(), |time| time.to_string());
    compare("type", text(&actual.rocket_type), text(&expected.rocket_type));
    compare("speed", actual.speed.to_string(), expected.speed.to_string());
    compare("mission", text(&actual.mission), text(&expected.mission));
    compare("exploded_reason", text(&actual.exploded_reason), text(&expected.exploded_reason));
    compare(
        "latest_launch_msg",
        number(actual.latest_launch_message),
        number(expected.latest_launch_message),
    );
    compare(
        "latest_mission_msg",
        number(actual.latest_mission_message),
        number(expected.latest_mission_message),
    );
    compare(
        "latest_exploded_msg",
        number(actual.latest_exploded_message),
        number(expected.latest_exploded_message),
    );
    compare("latest_update", time(actual.latest_update), time(expected.latest_update));
    compare("processed", progress.processed.to_string(), expected_progress.processed.to_string());
    compare(
        "complete_through",
        progress.complete_through.to_string(),
        expected_progress.complete_through.to_string(),
    );
    compare("highest", progress.highest.to_string(), expected_progress.highest.to_string());
    differences
}
