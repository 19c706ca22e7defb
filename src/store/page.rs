//! Pages of rockets by keyset: translates a [`RocketQuery`] to SQL, for both engines.
//!
//! A page is read in up to two parts, each in the order of an index: first the rockets with a sort
//! key, then those without.

use std::cmp::Ordering;

use crate::domain::query::{Order, Page, Position, RocketQuery, Sort, SortKey, prefix_successor};
use crate::domain::rocket::{Rocket, View};
use crate::domain::text::{Channel, Text};
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
pub(super) fn page(query: &RocketQuery, mut rockets: Vec<Rocket>, total: Option<i64>) -> Page {
    let has_more = rockets.len() > query.limit;
    rockets.truncate(query.limit);
    let last = rockets.last().filter(|_| has_more);
    let next = last
        .map(|rocket| Position { key: query.sort.key(rocket), channel: rocket.channel.clone() });
    Page { rockets, next, total }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parameter {
    Integer(i64),
    Text(String),
    /// Any number of texts in one parameter, so that their number doesn't change the statement: the
    /// cache of prepared statements is small.
    Texts(Vec<String>),
    Time(Timestamp),
}

/// What the engines write differently.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// The condition that a column has one of the texts of a parameter.
    fn is_one_of(self, column: &str, placeholder: &str) -> String {
        match self {
            Self::Sqlite => format!("{column} IN (SELECT value FROM json_each({placeholder}))"),
            Self::Postgres => format!("{column} = ANY({placeholder})"),
        }
    }
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
    pub(super) fn new(query: &RocketQuery, part: Part, limit: i64, dialect: Dialect) -> Self {
        let key = column(query.sort);
        let direction = match query.order {
            Order::Asc => "ASC",
            Order::Desc => "DESC",
        };
        let by_channel = part == Part::Unkeyed || query.sort == Sort::Channel;
        let order = if by_channel {
            format!("channel {direction}")
        } else {
            format!("{key} {direction}, channel {direction}")
        };
        let mut statement =
            Self { conditions: Vec::new(), order, limit: String::new(), parameters: Vec::new() };
        statement.filter(query, dialect);
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
        let keyed_after = after.and_then(|after| Some((after, parameter(query.sort, &after.key)?)));
        match keyed_after.filter(|_| !by_channel) {
            Some((after, key_value)) => {
                statement.channels(ChannelRange::new(query, None));
                statement.beyond(query, &after.channel, key_value);
            }
            None => statement.channels(ChannelRange::new(query, after)),
        }
        statement.limit = statement.parameter(Parameter::Integer(limit));
        statement
    }

    /// Counts the rockets of all pages; none if the query doesn't ask for it. It reads as many rows
    /// as a search does, which is the cost of most pages, too.
    pub(super) fn count(query: &RocketQuery, dialect: Dialect) -> Option<(String, Vec<Parameter>)> {
        let mut statement = Self {
            conditions: Vec::new(),
            order: String::new(),
            limit: String::new(),
            parameters: Vec::new(),
        };
        statement.filter(query, dialect);
        statement.channels(ChannelRange::new(query, None));
        let (table, filter) = (table(query.view), statement.where_clause());
        let sql = format!("SELECT count(*) FROM {table} {filter}");
        query.with_total.then_some((sql, statement.parameters))
    }

    /// Only rockets beyond this key and channel.
    fn beyond(&mut self, query: &RocketQuery, channel: &Channel, key_value: Parameter) {
        let key = column(query.sort);
        let beyond = match query.order {
            Order::Asc => ">",
            Order::Desc => "<",
        };
        let (key_value, channel) =
            (self.parameter(key_value), self.text(channel.as_str().to_owned()));
        self.conditions.push(format!("({key}, channel) {beyond} ({key_value}, {channel})"));
    }

    pub(super) fn sql(&self, columns: &str, view: View) -> String {
        let (Self { order, limit, .. }, filter) = (self, self.where_clause());
        format!("SELECT {columns} FROM {} {filter} ORDER BY {order} LIMIT {limit}", table(view))
    }

    fn where_clause(&self) -> String {
        if self.conditions.is_empty() {
            return String::new();
        }
        format!("WHERE {}", self.conditions.join(" AND "))
    }

    fn filter(&mut self, query: &RocketQuery, dialect: Dialect) {
        let filters = &query.filters;
        if let Some(channel) = &filters.channel {
            self.is_one_of("channel", vec![channel.as_str().to_owned()], dialect);
        }
        let texts = |texts: &[Text]| texts.iter().map(|text| text.as_str().to_owned()).collect();
        self.is_one_of("type", texts(&filters.rocket_types), dialect);
        self.is_one_of("mission", texts(&filters.missions), dialect);
        let statuses = filters.statuses.iter().map(|status| status.name().to_owned());
        self.is_one_of("status", statuses.collect(), dialect);
        if let Some(missing) = filters.missing {
            let condition = if missing { "highest > processed" } else { "highest = processed" };
            self.conditions.push(condition.to_owned());
        }
        if let Some(cutoff) = filters.silent_cutoff(query.now) {
            let cutoff = self.parameter(Parameter::Time(cutoff));
            self.conditions.push(format!("last_received <= {cutoff}"));
        }
        if let Some(after) = query.received_after {
            let after = self.parameter(Parameter::Time(after));
            self.conditions.push(format!("last_received > {after}"));
        }
    }

    /// Only rockets with one of these values in a column. Without values, all rockets.
    fn is_one_of(&mut self, column: &str, mut wanted: Vec<String>, dialect: Dialect) {
        let condition = match wanted.len() {
            0 => return,
            1 => format!("{column} = {}", self.text(wanted.remove(0))),
            _ => dialect.is_one_of(column, &self.parameter(Parameter::Texts(wanted))),
        };
        self.conditions.push(condition);
    }

    /// Only rockets with channels in this range.
    fn channels(&mut self, range: ChannelRange) {
        for bound in [range.lower, range.upper].into_iter().flatten() {
            let channel = self.text(bound.channel);
            self.conditions.push(format!("channel {} {channel}", bound.operator));
        }
    }

    fn text(&mut self, text: String) -> String {
        self.parameter(Parameter::Text(text))
    }

    /// The placeholder of a new parameter.
    fn parameter(&mut self, value: Parameter) -> String {
        self.parameters.push(value);
        format!("${}", self.parameters.len())
    }
}

/// The earliest time after `$1` at which a rocket was last received, for both engines.
pub(super) const FIRST_RECEIVED_AFTER: &str =
    "SELECT min(last_received) FROM rockets WHERE last_received > $1";

/// The channels that a page can have. There is one bound at either end: of several, SQLite would
/// start its search at the first one, and a later page would read all pages before it.
struct ChannelRange {
    lower: Option<ChannelBound>,
    upper: Option<ChannelBound>,
}

/// A comparison with a channel.
struct ChannelBound {
    operator: &'static str,
    channel: String,
}

impl ChannelRange {
    /// The channels with the query's prefix, beyond this position in the order of channels.
    fn new(query: &RocketQuery, after: Option<&Position>) -> Self {
        let prefix = query.filters.channel_prefix.as_ref().map(Text::as_str);
        let bound =
            |operator, channel: &str| ChannelBound { operator, channel: channel.to_owned() };
        let lower = prefix.map(|prefix| bound(">=", prefix));
        let upper = prefix.and_then(prefix_successor).map(|channel| bound("<", &channel));
        let Some(after) = after.map(|after| after.channel.as_str()) else {
            return Self { lower, upper };
        };
        // Channels that aren't beyond the position can't be on the page.
        let tighter = |known: Option<ChannelBound>, operator, is_outside| match known {
            Some(known) if after.cmp(&known.channel) == is_outside => Some(known),
            _ => Some(bound(operator, after)),
        };
        match query.order {
            Order::Asc => Self { lower: tighter(lower, ">", Ordering::Less), upper },
            Order::Desc => Self { lower, upper: tighter(upper, "<", Ordering::Greater) },
        }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::domain::query::Filters;

    /// The conditions of a page by channel, and its parameters.
    fn by_channel(order: Order, prefix: &'static str, after: Option<&'static str>) -> String {
        let filters = Filters { channel_prefix: Text::new(prefix).ok(), ..Filters::default() };
        let after = after.map(|channel| Position {
            key: SortKey::Text(channel.to_owned()),
            channel: Channel::new(channel).unwrap(),
        });
        let query = RocketQuery {
            view: View::BestEffort,
            sort: Sort::Channel,
            order,
            filters,
            now: Timestamp::FIRST,
            received_after: None,
            after,
            limit: 9,
            with_total: false,
        };
        let mut sql = PartStatement::new(&query, Part::Keyed, 9, Dialect::Sqlite);
        for (index, parameter) in sql.parameters.iter().enumerate() {
            let Parameter::Text(text) = parameter else { continue };
            let placeholder = format!("${}", index + 1);
            sql.conditions.iter_mut().for_each(|it| *it = it.replace(&placeholder, text));
        }
        sql.conditions.join(", ")
    }

    #[test]
    fn a_page_by_channel_starts_where_its_first_rocket_is() {
        for (order, prefix, after, conditions) in [
            (Order::Asc, "ab", None, "channel >= ab, channel < ac"),
            (Order::Asc, "ab", Some("abx"), "channel > abx, channel < ac"),
            (Order::Desc, "ab", Some("abx"), "channel >= ab, channel < abx"),
            (Order::Desc, "ab", None, "channel >= ab, channel < ac"),
            (Order::Asc, "\u{10ffff}", None, "channel >= \u{10ffff}"),
            (
                Order::Desc,
                "\u{10ffff}",
                Some("\u{10ffff}x"),
                "channel >= \u{10ffff}, channel < \u{10ffff}x",
            ),
            // Of a forged cursor.
            (Order::Asc, "ab", Some("a"), "channel >= ab, channel < ac"),
            (Order::Desc, "ab", Some("b"), "channel >= ab, channel < ac"),
            (Order::Asc, "", Some("abx"), "channel > abx"),
            (Order::Desc, "", None, ""),
        ] {
            assert_eq!(by_channel(order, prefix, after), conditions, "{prefix} {after:?}");
        }
    }

    #[test]
    fn the_number_of_values_makes_no_other_statement() {
        let statement = |missions: &[&'static str], dialect| {
            let missions = missions.iter().map(|name| Text::new(*name).unwrap()).collect();
            let query = RocketQuery {
                view: View::BestEffort,
                sort: Sort::Speed,
                order: Order::Asc,
                filters: Filters { missions, ..Filters::default() },
                now: Timestamp::FIRST,
                received_after: None,
                after: None,
                limit: 9,
                with_total: false,
            };
            PartStatement::new(&query, Part::Keyed, 9, dialect).sql("channel", View::BestEffort)
        };
        for dialect in [Dialect::Sqlite, Dialect::Postgres] {
            let [one, two, three] = [&["a"][..], &["a", "b"], &["a", "b", "c"]]
                .map(|missions| statement(missions, dialect));
            assert!(one.contains("mission = $1") && one != two && two == three, "{one} {two}");
        }
    }
}
