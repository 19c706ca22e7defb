//! Merges what two databases keep of a rocket, each of which has processed some of its messages.
//!
//! The result is what one database would keep that had processed all of them, as long as copies of
//! a message are equal. Merging is then idempotent, commutative and associative. Where contents
//! differ, that is a [`Conflict`], and those of the target stay.

use super::losses::{Loss, uncovered};
use super::ranges::{Applied, ProcessedRange};
use super::speed_blocks::{Block, SpeedBlocks};
use super::summary::{Latest, Summary};
use super::text::Channel;
use super::timestamp::Timestamp;

/// What a database keeps of a rocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RocketRecord {
    pub last_received: Timestamp,
    /// At least one, in ascending order. Between two of them, a number is missing.
    pub ranges: Vec<ProcessedRange>,
    /// In ascending order. They don't overlap.
    pub losses: Vec<Loss>,
}

impl RocketRecord {
    /// What the rocket consists of, as if all its messages were new.
    pub fn applied(&self) -> Applied {
        let (Some(first), Some(last)) = (self.ranges.first(), self.ranges.last()) else {
            unreachable!("a rocket has at least one range")
        };
        let mut summary = first.summary.clone();
        self.ranges[1..].iter().for_each(|range| summary.combine(range.summary.clone()));
        Applied {
            processed: self.ranges.iter().map(ProcessedRange::count).sum(),
            highest: last.last,
            complete_through: if first.first == 1 { first.last } else { 0 },
            summary,
        }
    }

    /// Splits the record into parts with at most `max_size` ranges and `max_size` losses each.
    /// Merging all parts has the same result as merging the record.
    pub fn parts(self, max_size: usize) -> Vec<Self> {
        let Self { last_received, ranges, losses } = &self;
        if ranges.len().max(losses.len()) <= max_size {
            return vec![self];
        }
        let part = |ranges: &[ProcessedRange], losses: &[Loss]| Self {
            last_received: *last_received,
            ranges: ranges.to_vec(),
            losses: losses.to_vec(),
        };
        // All losses are below the last range.
        let last = &ranges[ranges.len() - 1..];
        let of_ranges = ranges.chunks(max_size).map(|ranges| part(ranges, &[]));
        let of_losses = losses.chunks(max_size).map(|losses| part(last, losses));
        of_ranges.chain(of_losses).collect()
    }

    /// What the messages add that an earlier state of the record does not have.
    pub fn applied_since(&self, earlier: &Self) -> Applied {
        let (mut applied, earlier) = (self.applied(), earlier.applied());
        applied.processed -= earlier.processed;
        applied.summary.speed_change -= earlier.summary.speed_change;
        applied
    }
}

/// Two databases have different contents for messages with the same numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The messages in question, both ends inclusive.
    pub first: i64,
    pub last: i64,
    pub detail: String,
}

/// Two ranges overlap, neither contains the other, and one is of an earlier version, without sums
/// of blocks. The numbers are the messages that the target lacks: they must be sent to it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LacksBlocks {
    pub resend: Vec<(i64, i64)>,
}

/// The result of a merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    pub record: RocketRecord,
    /// How many messages the target has not had.
    pub gained: i64,
    pub conflicts: Vec<Conflict>,
}

/// What one database tells another of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergeEntry {
    Rocket(Channel, RocketRecord),
    /// The rocket was forgotten at this time.
    Forgotten(Channel, Timestamp),
}

impl MergeEntry {
    pub fn channel(&self) -> &Channel {
        match self {
            Self::Rocket(channel, _) | Self::Forgotten(channel, _) => channel,
        }
    }
}

/// What the target has of a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MergeTarget {
    pub record: Option<RocketRecord>,
    /// When its rocket was last forgotten. It may have a rocket again.
    pub forgotten_at: Option<Timestamp>,
}

/// What a merge changes in the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MergeChange {
    #[default]
    Nothing,
    Store(RocketRecord),
    Forget {
        at: Timestamp,
        /// Whether there is a rocket to remove.
        removes: bool,
    },
}

/// The result of merging an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MergeOutcome {
    /// Whether the rocket has changed.
    pub is_changed: bool,
    /// How many messages the target has not had.
    pub gained: i64,
    /// Why not everything was merged.
    pub conflicts: Vec<Conflict>,
}

impl MergeTarget {
    /// Whether an entry of another database changes nothing, because its rocket has been forgotten
    /// here since then. What a rocket last received before that does not come back.
    pub fn has_forgotten(&self, entry: &MergeEntry) -> bool {
        let time = match entry {
            MergeEntry::Rocket(_, record) => record.last_received,
            MergeEntry::Forgotten(_, at) => *at,
        };
        self.forgotten_at >= Some(time)
    }

    /// The change that an entry of another database makes, and what to report about it.
    pub fn merge(&self, entry: &MergeEntry) -> (MergeChange, MergeOutcome) {
        match entry {
            _ if self.has_forgotten(entry) => Default::default(),
            MergeEntry::Forgotten(_, at) => {
                let removes = self.record.as_ref().is_some_and(|it| it.last_received <= *at);
                let outcome = MergeOutcome { is_changed: removes, ..MergeOutcome::default() };
                (MergeChange::Forget { at: *at, removes }, outcome)
            }
            MergeEntry::Rocket(_, source) => self.merge_rocket(source),
        }
    }

    fn merge_rocket(&self, source: &RocketRecord) -> (MergeChange, MergeOutcome) {
        let Some(target) = &self.record else {
            let gained = source.ranges.iter().map(ProcessedRange::count).sum();
            let outcome = MergeOutcome { is_changed: true, gained, conflicts: Vec::new() };
            return (MergeChange::Store(source.clone()), outcome);
        };
        match merge(target, source) {
            Ok(Merged { record, gained, conflicts }) => {
                let is_changed = record != *target;
                let change =
                    if is_changed { MergeChange::Store(record) } else { MergeChange::Nothing };
                (change, MergeOutcome { is_changed, gained, conflicts })
            }
            Err(LacksBlocks { resend }) => {
                let detail = "an earlier version has processed a part of these messages or of \
                              their neighbours, so they can't be merged; send them again";
                let conflict = |(first, last)| Conflict { first, last, detail: detail.to_owned() };
                let conflicts = resend.into_iter().map(conflict).collect();
                (MergeChange::Nothing, MergeOutcome { conflicts, ..MergeOutcome::default() })
            }
        }
    }
}

/// Merges another database's record of a rocket into the target's.
pub fn merge(target: &RocketRecord, source: &RocketRecord) -> Result<Merged, LacksBlocks> {
    let mut conflicts = Vec::new();
    let ranges = merge_ranges(&target.ranges, &source.ranges, &mut conflicts)
        .ok_or_else(|| LacksBlocks { resend: lacking(&target.ranges, &source.ranges) })?;
    let count = |ranges: &[ProcessedRange]| ranges.iter().map(ProcessedRange::count).sum::<i64>();
    Ok(Merged {
        gained: count(&ranges) - count(&target.ranges),
        record: RocketRecord {
            last_received: target.last_received.max(source.last_received),
            ranges,
            losses: merge_losses(&target.losses, &source.losses),
        },
        conflicts,
    })
}

/// The numbers of the source's ranges that the target's don't have.
fn lacking(target: &[ProcessedRange], source: &[ProcessedRange]) -> Vec<(i64, i64)> {
    let of_range = |range: &ProcessedRange| {
        let processed = target.iter().map(|range| (range.first, range.last));
        uncovered(processed, range.first, range.last)
    };
    source.iter().flat_map(of_range).collect()
}

/// All losses of the target, and the source's for other numbers.
fn merge_losses(target: &[Loss], source: &[Loss]) -> Vec<Loss> {
    let mut merged = target.to_vec();
    for loss in source {
        let declared = target.iter().map(|loss| (loss.first, loss.last));
        let added = uncovered(declared, loss.first, loss.last);
        merged.extend(added.into_iter().map(|(first, last)| Loss { first, last, ..loss.clone() }));
    }
    merged.sort_unstable_by_key(|loss| loss.first);
    merged
}

/// None if ranges lack blocks.
fn merge_ranges(
    target: &[ProcessedRange],
    source: &[ProcessedRange],
    conflicts: &mut Vec<Conflict>,
) -> Option<Vec<ProcessedRange>> {
    let mut all: Vec<(&ProcessedRange, Side)> = target
        .iter()
        .map(|range| (range, Side::Target))
        .chain(source.iter().map(|range| (range, Side::Source)))
        .collect();
    all.sort_by_key(|(range, _)| range.first);
    let mut merged: Vec<ProcessedRange> = Vec::new();
    for (range, side) in all {
        match merged.last_mut() {
            Some(last) if range.first <= last.last => {
                // A database's own ranges don't overlap: here, `last` is of the other one.
                *last = match side {
                    Side::Target => overlay(range, last, conflicts)?,
                    Side::Source => overlay(last, range, conflicts)?,
                };
            }
            Some(last) if range.first == last.last + 1 => last.append(range.clone()),
            _ => merged.push(range.clone()),
        }
    }
    Some(merged)
}

#[derive(Clone, Copy, Debug)]
enum Side {
    Target,
    Source,
}

/// The union of two ranges that overlap. Of common numbers, `kept` has the contents that stay. None
/// if a range lacks blocks that are needed.
fn overlay(
    kept: &ProcessedRange,
    other: &ProcessedRange,
    conflicts: &mut Vec<Conflict>,
) -> Option<ProcessedRange> {
    let blocks = match (&kept.speed_blocks, &other.speed_blocks) {
        (Some(of_kept), Some(of_other)) => {
            let of_kept = of_kept.blocks(kept.first..=kept.last).collect();
            let of_other = of_other.blocks(other.first..=other.last).collect();
            Some(overlay_blocks(of_kept, of_other, conflicts))
        }
        _ => None,
    };
    let speed_change = match &blocks {
        Some(blocks) => blocks.total(),
        None => sum_without_blocks(kept, other, conflicts)?,
    };
    let contains = |outer: &ProcessedRange, inner: &ProcessedRange| {
        outer.first <= inner.first && inner.last <= outer.last
    };
    // The blocks of a range that contains the other are complete.
    let speed_blocks = blocks.or_else(|| {
        let outer = [kept, other].into_iter().find(|range| {
            range.speed_blocks.is_some() && contains(range, kept) && contains(range, other)
        });
        outer.filter(|outer| outer.summary.speed_change == speed_change)?.speed_blocks.clone()
    });
    Some(ProcessedRange {
        first: kept.first.min(other.first),
        last: kept.last.max(other.last),
        summary: Summary {
            speed_change,
            launch: latest("launch", kept, other, |it| &it.launch, conflicts),
            mission: latest("mission", kept, other, |it| &it.mission, conflicts),
            explosion: latest("explosion", kept, other, |it| &it.explosion, conflicts),
            latest_time: latest_time(kept, other, conflicts),
        },
        speed_blocks,
        first_received: kept.first_received.min(other.first_received),
    })
}

/// Compares the sums between boundaries that both have. The sums of `kept` stay between the first
/// and the last of these, and where only it has numbers.
fn overlay_blocks(
    kept: Vec<Block>,
    other: Vec<Block>,
    conflicts: &mut Vec<Conflict>,
) -> SpeedBlocks {
    let common = common_boundaries(&kept, &other);
    for pair in common.windows(2) {
        let (start, end) = (pair[0], pair[1]);
        let [ours, theirs] = [&kept, &other].map(|blocks| sum(blocks, start, end));
        if ours != theirs {
            conflicts.push(Conflict {
                first: start,
                last: end - 1,
                detail: format!("the speed changes by {ours} here, and by {theirs} there"),
            });
        }
    }
    let (kept_range, other_range) = (span(&kept), span(&other));
    let (below, above) = (other_range.0 < kept_range.0, other_range.1 > kept_range.1);
    let (from, to) = match (common.first(), common.last()) {
        // Where `other` has no more numbers, `kept` needs no boundary.
        (Some(first), Some(last)) => {
            (if below { *first } else { kept_range.0 }, if above { *last } else { kept_range.1 })
        }
        _ if below && above => return SpeedBlocks::from_blocks(other),
        _ => {
            assert!(!below && !above, "ranges that overlap in part have a boundary in common");
            kept_range
        }
    };
    let lower = other.iter().filter(|block| block.end <= from);
    let middle = kept.iter().filter(|block| from <= block.start && block.end <= to);
    let upper = other.iter().filter(|block| to <= block.start);
    SpeedBlocks::from_blocks(lower.chain(middle).chain(upper).copied())
}

/// The first number of these blocks, and the one after the last.
fn span(blocks: &[Block]) -> (i64, i64) {
    match blocks {
        [first, .., last] => (first.start, last.end),
        [only] => (only.start, only.end),
        [] => unreachable!("a range has at least one block"),
    }
}

/// The numbers at which a block of each range starts or ends, within both ranges, in ascending
/// order.
fn common_boundaries(one: &[Block], other: &[Block]) -> Vec<i64> {
    let boundaries = |blocks: &[Block]| {
        let (start, _) = span(blocks);
        [start].into_iter().chain(blocks.iter().map(|block| block.end)).collect::<Vec<_>>()
    };
    let others = boundaries(other);
    boundaries(one).into_iter().filter(|number| others.binary_search(number).is_ok()).collect()
}

/// The sum of the blocks between two boundaries.
fn sum(blocks: &[Block], start: i64, end: i64) -> i64 {
    let between = blocks.iter().filter(|block| start <= block.start && block.end <= end);
    between.map(|block| block.sum).sum()
}

/// The sum of speed changes of two ranges, one of which contains the other. None if neither does.
fn sum_without_blocks(
    kept: &ProcessedRange,
    other: &ProcessedRange,
    conflicts: &mut Vec<Conflict>,
) -> Option<i64> {
    let (ours, theirs) = (kept.summary.speed_change, other.summary.speed_change);
    if (kept.first, kept.last) == (other.first, other.last) && ours != theirs {
        conflicts.push(Conflict {
            first: kept.first,
            last: kept.last,
            detail: format!("the speed changes by {ours} here, and by {theirs} there"),
        });
    }
    if kept.first <= other.first && other.last <= kept.last {
        Some(ours)
    } else if other.first <= kept.first && kept.last <= other.last {
        Some(theirs)
    } else {
        None
    }
}

/// The latest value of a kind in both ranges.
///
/// A range that has processed a number knows whether its message set such a value. If the ranges
/// disagree about a common number, the value of `kept` stays.
fn latest(
    kind: &str,
    kept: &ProcessedRange,
    other: &ProcessedRange,
    of: impl Fn(&Summary) -> &Option<Latest>,
    conflicts: &mut Vec<Conflict>,
) -> Option<Latest> {
    let (ours, theirs) = (of(&kept.summary), of(&other.summary));
    let number = |latest: &Option<Latest>| latest.as_ref().map_or(0, |latest| latest.number);
    let latest_number = number(ours).max(number(theirs));
    let (later, earlier) =
        if number(ours) >= number(theirs) { (ours, theirs) } else { (theirs, ours) };
    let is_common =
        [kept, other].iter().all(|range| (range.first..=range.last).contains(&latest_number));
    if later == earlier || !is_common {
        return later.clone();
    }
    let shown = |latest: &Option<Latest>| match latest {
        Some(latest) if latest.number == latest_number => format!("{:?}", latest.value.as_str()),
        _ => "none".to_owned(),
    };
    conflicts.push(Conflict {
        first: latest_number,
        last: latest_number,
        detail: format!("the {kind} is {} here, and {} there", shown(ours), shown(theirs)),
    });
    ours.clone()
}

/// The greatest time of both ranges. A range that contains another has its greatest time, too.
fn latest_time(
    kept: &ProcessedRange,
    other: &ProcessedRange,
    conflicts: &mut Vec<Conflict>,
) -> Timestamp {
    let (ours, theirs) = (kept.summary.latest_time, other.summary.latest_time);
    let contains = |outer: &ProcessedRange, inner: &ProcessedRange| {
        outer.first <= inner.first && inner.last <= outer.last
    };
    let is_conflict =
        contains(kept, other) && theirs > ours || contains(other, kept) && ours > theirs;
    if is_conflict {
        conflicts.push(Conflict {
            first: kept.first.max(other.first),
            last: kept.last.min(other.last),
            detail: format!("the latest message time is {ours} here, and {theirs} there"),
        });
        return ours;
    }
    ours.max(theirs)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::message::Message;
    use crate::domain::message::example::{
        exploded, faster, launched, mission_changed, slower, time,
    };
    use crate::domain::ranges::join;
    use crate::domain::text::Text;

    /// The message with a number, the same in all databases.
    fn message(number: i64) -> Message {
        let message = match number % 7 {
            1 => launched(&format!("T{number}"), 100, "M"),
            3 => mission_changed(&format!("M{number}")),
            5 => exploded(&format!("R{number}")),
            other => {
                if other % 2 == 0 {
                    faster(number)
                } else {
                    slower(3)
                }
            }
        };
        message.numbered(number).at(number * 31 % 1_000)
    }

    /// The record of a database that has processed these numbers.
    fn record(numbers: &BTreeSet<i64>) -> RocketRecord {
        let messages: Vec<Message> = numbers.iter().copied().map(message).collect();
        record_of(&messages)
    }

    fn record_of(messages: &[Message]) -> RocketRecord {
        let ranges = join(Vec::new(), messages.iter(), time(0), |_| {}).added;
        RocketRecord { last_received: time(0), ranges, losses: Vec::new() }
    }

    fn without_blocks(mut record: RocketRecord) -> RocketRecord {
        record.ranges.iter_mut().for_each(|range| range.speed_blocks = None);
        record
    }

    fn loss(first: i64, last: i64, reason: &'static str) -> Loss {
        Loss { first, last, reason: Text::new(reason).unwrap(), declared_at: time(0) }
    }

    /// Some intervals of numbers, in a smaller or a larger space.
    fn numbers() -> impl Strategy<Value = BTreeSet<i64>> {
        let intervals = |max: i64| prop::collection::vec((1..max, 0..max / 3 + 1), 1..5);
        prop_oneof![intervals(8), intervals(30), intervals(200), intervals(1_500)].prop_map(
            |intervals| {
                intervals.into_iter().flat_map(|(first, length)| first..=first + length).collect()
            },
        )
    }

    /// The merged record, without conflicts.
    fn merged(target: &RocketRecord, source: &RocketRecord) -> RocketRecord {
        let merged = merge(target, source).unwrap();
        assert_eq!(merged.conflicts, []);
        merged.record
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn two_databases_become_what_one_with_all_messages_is(
            one in numbers(),
            other in numbers(),
        ) {
            let all = &one | &other;
            let result = merge(&record(&one), &record(&other)).unwrap();
            prop_assert_eq!(result.gained, (all.len() - one.len()) as i64);
            prop_assert_eq!(&result.conflicts, &[]);
            prop_assert_eq!(&result.record, &record(&all));
            prop_assert_eq!(merged(&record(&other), &record(&one)), record(&all));
            prop_assert_eq!(merged(&result.record, &record(&other)), record(&all));
        }

        #[test]
        fn without_blocks_a_result_is_right_or_none(
            one in numbers(),
            other in numbers(),
            both: bool,
        ) {
            let all = record(&(&one | &other));
            let source = if both { without_blocks(record(&other)) } else { record(&other) };
            match merge(&without_blocks(record(&one)), &source) {
                Ok(result) => {
                    prop_assert_eq!(result.conflicts, []);
                    for range in &result.record.ranges {
                        // Blocks that are known are right.
                        if range.speed_blocks.is_some() {
                            prop_assert!(all.ranges.contains(range));
                        }
                    }
                    prop_assert_eq!(without_blocks(result.record), without_blocks(all));
                }
                Err(LacksBlocks { resend }) => {
                    let numbers = resend.into_iter().flat_map(|(first, last)| first..=last);
                    prop_assert!(numbers.eq(other.difference(&one).copied()));
                }
            }
        }

        #[test]
        fn the_order_of_merges_does_not_matter(
            sets in prop::collection::vec(numbers(), 5),
            order in Just((0..10_usize).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let all: BTreeSet<i64> = sets.iter().flatten().copied().collect();
            let mut order = order.into_iter().map(|index| record(&sets[index % 5]));
            let first = order.next().unwrap();
            prop_assert_eq!(order.fold(first, |all, next| merged(&all, &next)), record(&all));
        }

        #[test]
        fn merging_all_parts_of_a_record_is_merging_the_record(
            one in numbers(),
            other in numbers(),
            max_size in 1..4_usize,
        ) {
            let target = record(&one);
            let mut source = record(&other);
            let gaps = source.ranges.windows(2).map(|pair| (pair[0].last + 1, pair[1].first - 1));
            source.losses = gaps.map(|(first, last)| loss(first, last, "R")).collect();
            let parts = source.clone().parts(max_size);
            for part in &parts {
                prop_assert!(part.ranges.len() <= max_size && part.losses.len() <= max_size);
                let highest_lost = part.losses.last().map_or(0, |loss| loss.last);
                prop_assert!(part.ranges.last().is_some_and(|range| highest_lost < range.last));
            }
            let by_parts = parts.iter().fold(target.clone(), |all, part| merged(&all, part));
            prop_assert_eq!(by_parts, merged(&target, &source));
        }

        #[test]
        fn different_contents_change_nothing_that_the_target_has(
            one in numbers(),
            other in numbers(),
            different in 1..1_500_i64,
        ) {
            let target = record(&one);
            let messages = other.iter().map(|number| match *number == different {
                true => faster(1_000_000).numbered(*number).at(0),
                false => message(*number),
            });
            let source = record_of(&messages.collect::<Vec<_>>());
            let result = merge(&target, &source).unwrap();
            prop_assert_eq!(result.gained, (&other - &one).len() as i64);
            // What is known of a message that only one has is not in conflict.
            if !(one.contains(&different) && other.contains(&different)) {
                prop_assert_eq!(&result.conflicts, &[]);
            }
            if other.is_subset(&one) {
                prop_assert_eq!(&result.record, &target);
            }
            for conflict in &result.conflicts {
                prop_assert!(conflict.first <= conflict.last);
                let mut numbers = conflict.first..=conflict.last;
                prop_assert!(numbers.all(|it| one.contains(&it) && other.contains(&it)));
            }
            // The same again changes nothing.
            prop_assert_eq!(merge(&result.record, &source).unwrap().record, result.record);
        }
    }

    fn of_numbers(numbers: impl IntoIterator<Item = i64>) -> RocketRecord {
        record(&numbers.into_iter().collect())
    }

    #[test]
    fn conflicts_name_the_messages_and_keep_the_targets() {
        let target = of_numbers(1..=8);
        let mut source = of_numbers(1..=8);
        let mission = source.ranges[0].summary.mission.as_mut().unwrap();
        assert_eq!(mission.number, 8);
        mission.value = Text::new("Other").unwrap();
        let result = merge(&target, &source).unwrap();
        let detail = r#"the mission is "M" here, and "Other" there"#.to_owned();
        assert_eq!(result.conflicts, [Conflict { first: 8, last: 8, detail }]);
        assert_eq!(result.record, target);

        let others: Vec<Message> = (4..=12)
            .map(|number| if number == 6 { faster(60).numbered(6).at(0) } else { message(number) })
            .collect();
        let result = merge(&target, &record_of(&others)).unwrap();
        // 4..=7 is a block of both.
        let [conflict] = &result.conflicts[..] else { unreachable!("{:?}", result.conflicts) };
        assert_eq!((conflict.first, conflict.last), (4, 7));
        assert!(conflict.detail.starts_with("the speed changes by"), "{conflict:?}");
        assert_eq!(result.record, of_numbers(1..=12));

        let mut later = of_numbers(2..=5);
        later.ranges[0].summary.latest_time = time(1_000_000);
        let result = merge(&target, &later).unwrap();
        assert_eq!((result.conflicts[0].first, result.conflicts[0].last), (2, 5));
        assert_eq!(result.record, target);
    }

    #[test]
    fn losses_are_united_and_the_targets_reasons_stay() {
        let mut target = of_numbers([1, 20]);
        let mut source = of_numbers([1, 30]);
        target.losses = vec![loss(3, 5, "here"), loss(8, 9, "here")];
        source.losses = vec![loss(2, 8, "there"), loss(25, 25, "there")];
        let expected = [
            loss(2, 2, "there"),
            loss(3, 5, "here"),
            loss(6, 7, "there"),
            loss(8, 9, "here"),
            loss(25, 25, "there"),
        ];
        assert_eq!(merged(&target, &source).losses, expected);
    }
}
