//! A query for a page of rockets, for both engines: order, filters, and the end of the previous
//! page.

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

/// Filters by equality: a rocket must match all that are given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// Only this channel.
    pub channel: Option<Channel>,
    /// Only this type.
    pub rocket_type: Option<Text>,
    /// Only this mission.
    pub mission: Option<Text>,
    /// Only this status.
    pub status: Option<Status>,
}

impl Filters {
    /// Whether a rocket in this state matches, apart from its channel.
    pub fn match_state(&self, state: &RocketState) -> bool {
        fn matches<T: PartialEq>(filter: &Option<T>, actual: Option<&T>) -> bool {
            filter.as_ref().is_none_or(|wanted| Some(wanted) == actual)
        }
        matches(&self.rocket_type, state.rocket_type.as_ref())
            && matches(&self.mission, state.mission.as_ref())
            && matches(&self.status, Some(&state.status))
    }
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
    /// The end of the previous page.
    pub after: Option<Position>,
    /// The maximum number of rockets on the page.
    pub limit: usize,
}

impl RocketQuery {
    /// Whether all rockets must be searched or sorted for a page. They are stored in the order of
    /// their channels.
    pub fn searches_fleet(&self) -> bool {
        let Filters { channel, rocket_type, mission, status } = &self.filters;
        let is_filtered = rocket_type.is_some() || mission.is_some() || status.is_some();
        channel.is_none() && (is_filtered || self.sort != Sort::Channel)
    }
}

/// A page of rockets.
#[derive(Clone, Debug)]
pub struct Page {
    pub rockets: Vec<Rocket>,
    /// The end of the page, if more rockets follow.
    pub next: Option<Position>,
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
    /// The state in the exact view.
    pub exact: RocketState,
}

impl RocketInBothViews {
    /// The rocket in one of the views.
    pub fn into_view(self, view: View) -> RocketWithGaps {
        let Self { mut best_effort, exact } = self;
        if view == View::Exact {
            best_effort.rocket.state = exact;
        }
        best_effort
    }
}
