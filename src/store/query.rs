//! A question for a page of rockets, the same for every engine: order, filters, and where the page before ended.

use crate::domain::rocket::{Rocket, State, Status, View};
use crate::domain::text::{Channel, Text};

/// What rockets are sorted by. Ties break by channel in the same direction; nulls come last in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sort {
    /// The greatest message time.
    #[default]
    LatestUpdate,
    /// The channel.
    Channel,
    /// The type.
    Type,
    /// The speed.
    Speed,
    /// The mission.
    Mission,
    /// The status, by its name.
    Status,
}

impl Sort {
    /// Every sort.
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

    /// The column of `rockets` and `rockets_exact` that it goes by.
    pub fn column(self) -> &'static str {
        match self {
            Self::LatestUpdate => "latest_update",
            Self::Channel => "channel",
            Self::Type => "type",
            Self::Speed => "speed",
            Self::Mission => "mission",
            Self::Status => "status",
        }
    }

    /// The direction that is meant when none is given: the newest and the fastest first, text from its start.
    pub fn default_order(self) -> Order {
        match self {
            Self::LatestUpdate | Self::Speed => Order::Desc,
            Self::Channel | Self::Type | Self::Mission | Self::Status => Order::Asc,
        }
    }

    /// Whether rockets may lack it.
    pub fn nullable(self, view: View) -> bool {
        match self {
            Self::Type | Self::Mission => true,
            Self::LatestUpdate => view == View::Exact,
            Self::Channel | Self::Speed | Self::Status => false,
        }
    }

    /// What the rocket is sorted by.
    pub fn key(self, rocket: &Rocket) -> SortKey {
        let text =
            |text: &Option<Text>| text.as_ref().map_or(SortKey::Null, |text| SortKey::Text(text.as_str().to_owned()));
        match self {
            Self::LatestUpdate => {
                rocket.state.latest_update.map_or(SortKey::Null, |time| SortKey::Text(time.to_string()))
            }
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
    /// Both.
    pub const ALL: [Self; 2] = [Self::Asc, Self::Desc];

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Asc => "asc",
            Self::Desc => "desc",
        }
    }
}

/// What one rocket is sorted by; times as their fixed-width text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SortKey {
    /// Nothing: last in both directions.
    Null,
    /// A speed.
    Integer(i64),
    /// Everything else.
    Text(String),
}

/// Which rockets are wanted: those that equal all that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// This channel only.
    pub channel: Option<Channel>,
    /// This type only.
    pub rocket_type: Option<Text>,
    /// This mission only.
    pub mission: Option<Text>,
    /// This status only.
    pub status: Option<Status>,
}

impl Filters {
    /// Whether a rocket in this state is wanted, if its channel is.
    pub fn match_state(&self, state: &State) -> bool {
        fn same<T: PartialEq>(wanted: &Option<T>, is: Option<&T>) -> bool {
            wanted.as_ref().is_none_or(|wanted| Some(wanted) == is)
        }
        same(&self.rocket_type, state.rocket_type.as_ref())
            && same(&self.mission, state.mission.as_ref())
            && same(&self.status, Some(&state.status))
    }
}

/// A place between two rockets of a sorted list: just after this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// What that rocket was sorted by.
    pub key: SortKey,
    /// Its channel, which breaks ties.
    pub channel: Channel,
}

/// A question for one page.
#[derive(Clone, Debug)]
pub struct RocketQuery {
    /// The view that is sorted, filtered and told.
    pub view: View,
    /// What to sort by.
    pub sort: Sort,
    /// In which direction.
    pub order: Order,
    /// Which rockets.
    pub filters: Filters,
    /// Where the page before ended.
    pub after: Option<Position>,
    /// How many rockets at most.
    pub limit: usize,
}

/// A page of rockets.
#[derive(Clone, Debug)]
pub struct Page {
    /// The rockets.
    pub rockets: Vec<Rocket>,
    /// Where the page ends, if others follow.
    pub next: Option<Position>,
}
