//! A query for a page of rockets, for both engines: order, filters, and the end of the previous
//! page.

use std::time::Duration;

use crate::domain::losses::Loss;
use crate::domain::rocket::{Rocket, RocketState, Status, View};
use crate::domain::text::{Channel, Text};
use crate::domain::timestamp::Timestamp;

/// The sort keys. Ties break by channel in the same direction; nulls come last in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sort {
    /// The greatest message time.
    #[default]
    LatestUpdate,
    Channel,
    Type,
    Speed,
    Mission,
    /// The status, by its name.
    Status,
}

impl Sort {
    pub const ALL: [Self; 6] =
        [Self::LatestUpdate, Self::Channel, Self::Type, Self::Speed, Self::Mission, Self::Status];

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::LatestUpdate => "latestUpdate",
            Self::Channel => "channel",
            Self::Type => "type",
            Self::Speed => "speed",
            Self::Mission => "mission",
            Self::Status => "status",
        }
    }

    /// The default direction: the newest and the fastest first, text in ascending order.
    pub fn default_order(self) -> Order {
        match self {
            Self::LatestUpdate | Self::Speed => Order::Desc,
            Self::Channel | Self::Type | Self::Mission | Self::Status => Order::Asc,
        }
    }

    /// Whether rockets may lack this key.
    pub fn nullable(self, view: View) -> bool {
        match self {
            Self::Type | Self::Mission => true,
            Self::LatestUpdate => view == View::Exact,
            Self::Channel | Self::Speed | Self::Status => false,
        }
    }

    /// The rocket's sort key.
    pub fn key(self, rocket: &Rocket) -> SortKey {
        let text = |text: &Option<Text>| {
            text.as_ref().map_or(SortKey::Null, |text| SortKey::Text(text.as_str().to_owned()))
        };
        match self {
            Self::LatestUpdate => rocket
                .state
                .latest_update
                .map_or(SortKey::Null, |time| SortKey::Text(time.to_string())),
            Self::Channel => SortKey::Text(rocket.channel.as_str().to_owned()),
            Self::Type => text(&rocket.state.rocket_type),
            Self::Speed => SortKey::Integer(rocket.state.speed),
            Self::Mission => text(&rocket.state.mission),
            Self::Status => SortKey::Text(rocket.state.status.name().to_owned()),
        }
    }
}

/// The direction of a sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// The lowest first.
    Asc,
    /// The highest first.
    Desc,
}

impl Order {
    pub const ALL: [Self; 2] = [Self::Asc, Self::Desc];

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Asc => "asc",
            Self::Desc => "desc",
        }
    }
}

/// The sort key of one rocket; times as their fixed-width text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SortKey {
    /// No key: last in both directions.
    Null,
    /// A speed.
    Integer(i64),
    /// Any other key.
    Text(String),
}

/// Filters: a rocket must match all that are given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// Only this channel.
    pub channel: Option<Channel>,
    /// Only channels that start with these bytes.
    pub channel_prefix: Option<Text>,
    /// Only these types, if there are any.
    pub rocket_types: Vec<Text>,
    /// Only these missions, if there are any.
    pub missions: Vec<Text>,
    /// Only these statuses, if there are any.
    pub statuses: Vec<Status>,
    /// Only rockets with gaps, or only those without.
    pub missing: Option<bool>,
    /// Only rockets that have been silent for this long.
    pub silent_for: Option<SilentFor>,
}

impl Filters {
    /// Whether a rocket matches at this time.
    pub fn matches(&self, rocket: &Rocket, now: Timestamp) -> bool {
        fn is_one_of<T: PartialEq>(wanted: &[T], actual: Option<&T>) -> bool {
            wanted.is_empty() || actual.is_some_and(|actual| wanted.contains(actual))
        }
        let Rocket { channel, state, last_received, progress } = rocket;
        self.matches_channel(channel)
            && is_one_of(&self.rocket_types, state.rocket_type.as_ref())
            && is_one_of(&self.missions, state.mission.as_ref())
            && is_one_of(&self.statuses, Some(&state.status))
            && self.missing.is_none_or(|missing| missing == (progress.missing() > 0))
            && self.silent_cutoff(now).is_none_or(|cutoff| *last_received <= cutoff)
    }

    pub fn matches_channel(&self, channel: &Channel) -> bool {
        self.channel.as_ref().is_none_or(|wanted| wanted == channel)
            && self
                .channel_prefix
                .as_ref()
                .is_none_or(|prefix| channel.as_str().starts_with(prefix.as_str()))
    }

    /// Rockets that are silent at this time were last received at the cutoff or before; none if
    /// all rockets match.
    pub fn silent_cutoff(&self, now: Timestamp) -> Option<Timestamp> {
        self.silent_for.map(|silent_for| silent_for.cutoff(now))
    }
}

/// How long a rocket has been silent at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SilentFor {
    seconds: u64,
}

impl SilentFor {
    const SECONDS_PER_DAY: u64 = 86_400;
    const MAX_DAYS: u64 = 36_500;

    /// Reads an integer of at least 1 and a unit, such as `90s`, `15m`, `2h` or `7d`. The error is
    /// the second half of a sentence ("must …").
    pub fn parse(text: &str) -> Result<Self, String> {
        let error = || {
            format!(
                "must be an integer and a unit, such as 90s, 15m, 2h or 7d; from 1s to {}d",
                Self::MAX_DAYS
            )
        };
        let (count, unit) =
            text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(error)?;
        let seconds_per_unit = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => Self::SECONDS_PER_DAY,
            _ => return Err(error()),
        };
        // The parser would accept a sign.
        let is_number = count.bytes().all(|byte| byte.is_ascii_digit());
        let count: Option<u64> = if is_number { count.parse().ok() } else { None };
        let seconds = count.and_then(|count| count.checked_mul(seconds_per_unit));
        let seconds = seconds.ok_or_else(error)?;
        let is_valid = (1..=Self::MAX_DAYS * Self::SECONDS_PER_DAY).contains(&seconds);
        is_valid.then_some(Self { seconds }).ok_or_else(error)
    }

    pub fn seconds(self) -> u64 {
        self.seconds
    }

    pub fn duration(self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// A rocket that is silent at this time was last received at the cutoff or before.
    pub fn cutoff(self, now: Timestamp) -> Timestamp {
        now.minus(self.duration())
    }
}

/// The lowest text that is higher than every text with this prefix; none if there is no such text.
/// Texts compare by their UTF-8 bytes, which is the order of their scalar values.
pub fn prefix_successor(prefix: &str) -> Option<String> {
    let mut rest = prefix.chars();
    while let Some(last) = rest.next_back() {
        // A range of chars skips the surrogates.
        if let Some(next) = (last..=char::MAX).nth(1) {
            return Some(rest.as_str().to_owned() + next.encode_utf8(&mut [0; 4]));
        }
    }
    None
}

/// A position in a sorted list: just after this rocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The sort key of that rocket.
    pub key: SortKey,
    /// Its channel, which breaks ties.
    pub channel: Channel,
}

/// A query for one page.
#[derive(Clone, Debug)]
pub struct RocketQuery {
    /// The view to sort, filter and return.
    pub view: View,
    pub sort: Sort,
    pub order: Order,
    pub filters: Filters,
    /// The time at which rockets are silent or not.
    pub now: Timestamp,
    /// Only rockets that were received after this time.
    pub received_after: Option<Timestamp>,
    /// The end of the previous page.
    pub after: Option<Position>,
    /// The maximum number of rockets on the page.
    pub limit: usize,
    /// Whether to count the rockets that match the filters, on this page and on all others.
    pub with_total: bool,
}

impl RocketQuery {
    /// Whether rockets other than those of the page must be searched, sorted or counted. Rockets
    /// are stored in the order of their channels.
    pub fn searches_fleet(&self) -> bool {
        let Filters {
            channel,
            channel_prefix: _,
            rocket_types,
            missions,
            statuses,
            missing,
            silent_for,
        } = &self.filters;
        let is_filtered = !(rocket_types.is_empty() && missions.is_empty() && statuses.is_empty())
            || missing.is_some()
            || silent_for.is_some()
            || self.received_after.is_some();
        channel.is_none() && (is_filtered || self.with_total || self.sort != Sort::Channel)
    }
}

/// A page of rockets.
#[derive(Clone, Debug)]
pub struct Page {
    pub rockets: Vec<Rocket>,
    /// The end of the page, if more rockets follow.
    pub next: Option<Position>,
    /// How many rockets match the filters, if the query asks for it.
    pub total: Option<i64>,
}

/// The maximum number of gaps that are returned with a rocket.
pub const MAX_GAPS: usize = 100;

/// A rocket with its first gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RocketWithGaps {
    pub rocket: Rocket,
    /// The first [`MAX_GAPS`] missing ranges below the highest processed number, both ends
    /// inclusive.
    pub gaps: Vec<(i64, i64)>,
}

/// A query for a page of a rocket's gaps, in ascending order.
#[derive(Clone, Debug)]
pub struct GapQuery {
    pub channel: Channel,
    /// The end of the last gap on the previous page; 0 for the first page.
    pub after: i64,
    /// The maximum number of gaps on the page.
    pub limit: usize,
}

/// A range of missing numbers, both ends inclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    pub first: i64,
    pub last: i64,
    /// When the service first received a message of the range above it.
    pub since: Timestamp,
    /// The losses that overlap it, in ascending order.
    pub lost: Vec<Loss>,
}

/// The totals of all gaps of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapTotals {
    /// The earliest time since when a gap is known, of those that are not wholly declared lost.
    pub oldest: Option<Timestamp>,
    /// How many missing numbers are declared lost.
    pub lost: i64,
}

/// A page of a rocket's gaps.
#[derive(Clone, Debug, Default)]
pub struct GapPage {
    pub gaps: Vec<Gap>,
    /// The end of the last gap on the page, if more gaps follow.
    pub next: Option<i64>,
}

/// A processed range, for finding the gap below it: its ends, and when the service first received
/// one of its messages.
#[derive(Clone, Copy, Debug)]
pub struct RangeAbove {
    pub first: i64,
    pub last: i64,
    pub first_received: Timestamp,
}

impl GapPage {
    /// Adds the gap below the next range, if there is one and it is not on an earlier page. `below`
    /// is the end of the previous range. Returns whether the page needs more ranges.
    pub fn add(&mut self, query: &GapQuery, below: &mut i64, range: RangeAbove) -> bool {
        let (first, last) = (std::mem::replace(below, range.last) + 1, range.first - 1);
        if first > last || last <= query.after {
            return true;
        }
        if self.gaps.len() == query.limit {
            self.next = self.gaps.last().map(|gap| gap.last);
            return false;
        }
        self.gaps.push(Gap { first, last, since: range.first_received, lost: Vec::new() });
        true
    }
}

/// A rocket in both views, from one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RocketInBothViews {
    /// The best-effort view, with the first gaps.
    pub best_effort: RocketWithGaps,
    /// The state in the exact view; none if it is the same, or was not read.
    pub exact: Option<RocketState>,
}

impl RocketInBothViews {
    /// The rocket in one of the views.
    pub fn into_view(self, view: View) -> RocketWithGaps {
        let Self { mut best_effort, exact } = self;
        if let (View::Exact, Some(exact)) = (view, exact) {
            best_effort.rocket.state = exact;
        }
        best_effort
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_successor_is_above_every_text_with_the_prefix_and_nothing_else() {
        for (prefix, successor) in [
            ("a", Some("b")),
            ("az", Some("a{")),
            ("~", Some("\u{7f}")),
            ("\u{7f}", Some("\u{80}")),
            ("é", Some("ê")),
            ("a\u{d7ff}", Some("a\u{e000}")),
            ("\u{ffff}", Some("\u{10000}")),
            ("🚀", Some("🚁")),
            ("a\u{10ffff}", Some("b")),
            ("a\u{d7ff}\u{10ffff}\u{10ffff}", Some("a\u{e000}")),
            ("\u{10ffff}", None),
            ("\u{10ffff}\u{10ffff}", None),
        ] {
            let found = prefix_successor(prefix);
            assert_eq!(found.as_deref(), successor, "{prefix:?}");
            let highest = prefix.to_owned() + &"\u{10ffff}".repeat(3);
            assert!(found.is_none_or(|successor| highest < successor && *prefix < *successor));
        }
    }

    #[test]
    fn silences_are_integers_with_a_unit_within_bounds() {
        for (text, seconds) in [
            ("1s", 1),
            ("90s", 90),
            ("15m", 900),
            ("2h", 7_200),
            ("7d", 604_800),
            ("007s", 7),
            ("36500d", 3_153_600_000),
            ("3153600000s", 3_153_600_000),
        ] {
            assert_eq!(SilentFor::parse(text).unwrap().seconds(), seconds, "{text}");
        }
        for text in [
            "",
            "s",
            "0s",
            "0d",
            "7",
            "1",
            "-1s",
            "+1s",
            "1.5h",
            " 1s",
            "1 s",
            "1s ",
            "1S",
            "1w",
            "1ms",
            "s1",
            "١s",
            "1é",
            "36501d",
            "3153600001s",
            "18446744073709551615d",
            "99999999999999999999999s",
        ] {
            let error = SilentFor::parse(text).unwrap_err();
            assert!(error.starts_with("must be an integer and a unit"), "{text}");
        }
    }

    #[test]
    fn a_cutoff_never_leaves_the_years_that_a_timestamp_can_have() {
        let longest = SilentFor::parse("36500d").unwrap();
        assert_eq!(longest.cutoff(Timestamp::FIRST), Timestamp::FIRST);
    }
}
