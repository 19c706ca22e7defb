//! Pages of rockets by keyset: translates a [`RocketQuery`] to SQL, for both engines.
//!
//! A page is read in up to two parts, each in the order of an index: first the rockets with a sort
//! key, then those without.

use crate::domain::query::{Filters, Order, Page, Position, RocketQuery, Sort, SortKey};
use crate::domain::rocket::{Rocket, View};
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;

/// The table or view with this view of the rockets.
pub(super) fn table(view: View) -> &'static str {
    match view {
        View::BestEffort => "rockets",
        View::Exact => "rockets_exact",
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The rockets with a sort key.
    Keyed,
    /// The rockets without one.
    Unkeyed,
}

/// The column of `rockets` and `rockets_exact` to sort by.
fn column(sort: Sort) -> &'static str {
    match sort {
        Sort::LatestUpdate => "latest_update",
        Sort::Channel => "channel",
        Sort::Type => "type",
        Sort::Speed => "speed",
        Sort::Mission => "mission",
        Sort::Status => "status",
    }
}

/// The parts that can contribute rockets to a page.
pub(super) fn parts(query: &RocketQuery) -> impl Iterator<Item = Part> {
    let keyed = !matches!(&query.after, Some(Position { key: SortKey::Null, .. }));
    let unkeyed = query.sort.nullable(query.view);
    [(keyed, Part::Keyed), (unkeyed, Part::Unkeyed)]
        .into_iter()
        .filter_map(|(is_needed, part)| is_needed.then_some(part))
}

/// How many rockets are yet to be read. One more than the page holds shows whether another page
/// follows.
pub(super) fn remaining(query: &RocketQuery, read: usize) -> i64 {
    i64::try_from((query.limit + 1).saturating_sub(read)).unwrap_or(i64::MAX)
}

/// Makes a page of the rockets of all parts.
pub(super) fn page(query: &RocketQuery, mut rockets: Vec<Rocket>) -> Page {
    let has_more = rockets.len() > query.limit;
    rockets.truncate(query.limit);
    let last = rockets.last().filter(|_| has_more);
    let next = last
        .map(|rocket| Position { key: query.sort.key(rocket), channel: rocket.channel.clone() });
    Page { rockets, next }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parameter {
    Integer(i64),
    Text(String),
    Time(Timestamp),
}

/// A statement that reads a part of a page. Its parameters are `$1`, `$2` and so on.
pub(super) struct PartStatement {
    /// The conditions, joined by AND.
    pub(super) conditions: Vec<String>,
    pub(super) order: String,
    /// The placeholder of the row limit.
    pub(super) limit: String,
    /// The values of the placeholders.
    pub(super) parameters: Vec<Parameter>,
}

impl PartStatement {
    /// Selects at most `limit` rockets of a part.
    pub(super) fn new(query: &RocketQuery, part: Part, limit: i64) -> Self {
        let key = column(query.sort);
        let (direction, beyond) = match query.order {
            Order::Asc => ("ASC", ">"),
            Order::Desc => ("DESC", "<"),
        };
        let by_channel = part == Part::Unkeyed || query.sort == Sort::Channel;
        let order = if by_channel {
            format!("channel {direction}")
        } else {
            format!("{key} {direction}, channel {direction}")
        };
        let mut statement =
            Self { conditions: Vec::new(), order, limit: String::new(), parameters: Vec::new() };
        statement.filter(&query.filters);
        if part == Part::Unkeyed {
            statement.conditions.push(format!("{key} IS NULL"));
        } else if query.sort.nullable(query.view) && query.after.is_none() {
            statement.conditions.push(format!("{key} IS NOT NULL"));
        }
        // If the previous page ended in the other part, this part starts at its beginning.
        let after = query
            .after
            .as_ref()
            .filter(|after| (after.key == SortKey::Null) == (part == Part::Unkeyed));
        if let Some(after) = after {
            let condition = match parameter(query.sort, &after.key).filter(|_| !by_channel) {
                Some(key_value) => {
                    let (key_value, channel) =
                        (statement.parameter(key_value), statement.channel(&after.channel));
                    format!("({key}, channel) {beyond} ({key_value}, {channel})")
                }
                None => format!("channel {beyond} {}", statement.channel(&after.channel)),
            };
            statement.conditions.push(condition);
        }
        statement.limit = statement.parameter(Parameter::Integer(limit));
        statement
    }

    pub(super) fn sql(&self, columns: &str, view: View) -> String {
        let Self { conditions, order, limit, .. } = self;
        let filter = if conditions.is_empty() {
            String::new()
        } else {
            format!("WHERE {}", conditions.join(" AND "))
        };
        format!("SELECT {columns} FROM {} {filter} ORDER BY {order} LIMIT {limit}", table(view))
    }

    fn filter(&mut self, filters: &Filters) {
        let Filters { channel, rocket_type, mission, status } = filters;
        for (column, wanted) in [
            ("channel", channel.as_ref().map(Channel::as_str)),
            ("type", rocket_type.as_ref().map(|text| text.as_str())),
            ("mission", mission.as_ref().map(|text| text.as_str())),
            ("status", status.map(|status| status.name())),
        ] {
            if let Some(wanted) = wanted {
                let placeholder = self.parameter(Parameter::Text(wanted.to_owned()));
                self.conditions.push(format!("{column} = {placeholder}"));
            }
        }
    }

    fn channel(&mut self, channel: &Channel) -> String {
        self.parameter(Parameter::Text(channel.as_str().to_owned()))
    }

    /// The placeholder of a new parameter.
    fn parameter(&mut self, value: Parameter) -> String {
        self.parameters.push(value);
        format!("${}", self.parameters.len())
    }
}

/// The parameter for a sort key; none for null.
fn parameter(sort: Sort, key: &SortKey) -> Option<Parameter> {
    Some(match (sort, key) {
        (_, SortKey::Null) => return None,
        (_, SortKey::Integer(integer)) => Parameter::Integer(*integer),
        (Sort::LatestUpdate, SortKey::Text(text)) => {
            let time = Timestamp::parse(text);
            Parameter::Time(time.unwrap_or_else(|_| unreachable!("a cursor's key fits its sort")))
        }
        (_, SortKey::Text(text)) => Parameter::Text(text.clone()),
    })
}
