//! A copy of the table `rockets` in memory, by column, so that a page in any order and with any
//! filters, and the totals, are found by scanning a few small arrays.
//!
//! No order is maintained: a change takes as long wherever its rocket is in an order, and a scan
//! keeps the first rockets that it has seen. Each text is stored once. Channels are stored one
//! after the other.

mod column;

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::num::NonZeroU32;

use self::column::{Channels, Column};
use super::StoreError;
use super::report::{Report, ReportQuery, Value};
use crate::domain::query::{Order, Page, Position, RocketQuery, Sort, SortKey};
use crate::domain::ranges::Applied;
use crate::domain::rocket::{Progress, Rocket, RocketState, Status};
use crate::domain::summary::{Latest, Summary};
use crate::domain::text::{Channel, Text};
use crate::domain::timestamp::Timestamp;

/// How many rows of removed rockets, or texts that may be unused, even a small fleet may have.
const MAX_WASTE: usize = 4_096;

/// Rockets, and the row to continue from; none at the end.
pub(super) type RocketsAndNext = (Vec<Rocket>, Option<usize>);

/// The rockets. A row is an index into each of the columns.
#[derive(Debug, Default)]
pub(super) struct Columns {
    channels: Channels,
    texts: Texts,
    /// None in an empty row: its rocket was removed.
    status: Column<Option<Status>>,
    rocket_type: Column<TextId>,
    speed: Column<i64>,
    mission: Column<TextId>,
    latest_update: Column<Timestamp>,
    last_received: Column<Timestamp>,
    /// The values by which no page is sorted.
    rest: Column<Rest>,
    /// The rocket has changed since the last call of `take_changed`.
    is_changed: Column<bool>,
    /// The number of empty rows.
    empty: usize,
    /// The hash of the losses of each rocket that has some.
    losses: HashMap<usize, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rest {
    exploded_reason: TextId,
    latest_launch: OptionalNumber,
    latest_mission: OptionalNumber,
    latest_explosion: OptionalNumber,
    processed: u32,
    complete_through: u32,
    highest: u32,
}

/// The number of a message; none without such a message.
type OptionalNumber = Option<NonZeroU32>;

/// The index of a text in [`Texts`], plus one; none without a text.
type TextId = Option<NonZeroU32>;

/// Each text once. Unused texts stay until the copy is rebuilt.
#[derive(Debug, Default)]
struct Texts {
    ids: HashMap<Text, NonZeroU32>,
    texts: Vec<Text>,
}

impl Texts {
    fn id(&mut self, text: Option<&Text>) -> TextId {
        let text = text?;
        if let Some(id) = self.ids.get(text) {
            return Some(*id);
        }
        let text = text.detached();
        self.texts.push(text.clone());
        let Some(id) = NonZeroU32::new(index(self.texts.len())) else {
            unreachable!("a text was pushed")
        };
        self.ids.insert(text, id);
        Some(id)
    }

    /// None for an unknown text.
    fn find(&self, text: &Text) -> TextId {
        self.ids.get(text).copied()
    }

    fn get(&self, id: TextId) -> Option<&Text> {
        Some(&self.texts[id?.get() as usize - 1])
    }
}

/// Changes.
impl Columns {
    /// Inserts or overwrites a rocket with its stored state. Returns its row, which is marked as
    /// changed if it differed.
    pub(super) fn update(&mut self, rocket: &Rocket) -> Result<usize, StoreError> {
        let (state, progress) = (&rocket.state, &rocket.progress);
        let damaged = || {
            StoreError::Damaged(format!(
                "the row of {} in rockets has impossible numbers",
                rocket.channel
            ))
        };
        let number = |number: i64| u32::try_from(number).map_err(|_| damaged());
        let message = |latest: Option<i64>| -> Result<OptionalNumber, StoreError> {
            Ok(latest.map(number).transpose()?.and_then(NonZeroU32::new))
        };
        let latest_update = state.latest_update.ok_or_else(damaged)?;
        let rest = Rest {
            exploded_reason: self.texts.id(state.exploded_reason.as_ref()),
            latest_launch: message(state.latest_launch_message)?,
            latest_mission: message(state.latest_mission_message)?,
            latest_explosion: message(state.latest_exploded_message)?,
            processed: number(progress.processed)?,
            complete_through: number(progress.complete_through)?,
            highest: number(progress.highest)?,
        };
        let rocket_type = self.texts.id(state.rocket_type.as_ref());
        let mission = self.texts.id(state.mission.as_ref());
        let stored = (
            Some(state.status),
            rocket_type,
            state.speed,
            mission,
            latest_update,
            rocket.last_received,
            rest,
        );
        let row =
            self.find(rocket.channel.as_str()).unwrap_or_else(|| self.add_row(&rocket.channel));
        let current = (
            self.status[row],
            self.rocket_type[row],
            self.speed[row],
            self.mission[row],
            self.latest_update[row],
            self.last_received[row],
            self.rest[row],
        );
        if current != stored {
            self.is_changed[row] = true;
            self.empty -= usize::from(current.0.is_none());
            (
                self.status[row],
                self.rocket_type[row],
                self.speed[row],
                self.mission[row],
                self.latest_update[row],
                self.last_received[row],
                self.rest[row],
            ) = stored;
        }
        Ok(row)
    }

    /// Marks the rockets whose losses have other hashes than before as changed. The losses
    /// themselves are not in the copy.
    pub(super) fn update_losses(&mut self, hashes: &HashMap<String, u64>) {
        let by_channel = hashes.iter().filter_map(|(name, hash)| Some((self.find(name)?, *hash)));
        let losses: HashMap<usize, u64> = by_channel.collect();
        for row in losses.keys().chain(self.losses.keys()) {
            self.is_changed[*row] |= losses.get(row) != self.losses.get(row);
        }
        self.losses = losses;
    }

    /// Removes the rockets of all rows that are not kept.
    pub(super) fn retain(&mut self, is_kept: impl Fn(usize) -> bool) {
        (0..self.status.len()).filter(|row| !is_kept(*row)).for_each(|row| self.clear(row));
    }

    /// Changed rockets from a row on. Removes their marks.
    pub(super) fn take_changed(&mut self, from: usize, limit: usize) -> RocketsAndNext {
        let changed = (from..self.is_changed.len()).filter(|row| self.is_changed[*row]);
        let rows: Vec<usize> = changed.take(limit).collect();
        rows.iter().for_each(|row| self.is_changed[*row] = false);
        let next = rows.last().filter(|_| rows.len() == limit).map(|last| last + 1);
        let rockets =
            rows.into_iter().filter(|row| self.status[*row].is_some()).map(|row| self.rocket(row));
        (rockets.collect(), next)
    }

    /// Marks all rockets as unchanged.
    pub(super) fn clear_changed(&mut self) {
        self.is_changed.iter_mut().for_each(|is_changed| *is_changed = false);
    }

    /// Adds new messages to a rocket, which may be new.
    pub(super) fn apply(&mut self, channel: &Channel, applied: &Applied, now: Timestamp) {
        let row = self.find(channel.as_str()).unwrap_or_else(|| self.add_row(channel));
        let mut summary = applied.summary.clone();
        if self.status[row].is_some() {
            summary.combine(self.summary(row));
        } else {
            self.empty -= 1;
        }
        self.store(row, &summary);
        self.is_changed[row] = true;
        self.last_received[row] = self.last_received[row].max(now);
        let rest = &mut self.rest[row];
        rest.processed = rest.processed.saturating_add(number(applied.processed));
        rest.complete_through = rest.complete_through.max(number(applied.complete_through));
        rest.highest = rest.highest.max(number(applied.highest));
    }

    /// Removes a rocket, if it is there.
    pub(super) fn remove(&mut self, channel: &Channel) {
        if let Some(row) = self.find(channel.as_str()) {
            self.clear(row);
        }
    }

    fn clear(&mut self, row: usize) {
        self.empty += usize::from(self.status[row].take().is_some());
        (self.rocket_type[row], self.mission[row], self.last_received[row]) =
            (None, None, Timestamp::FIRST);
        self.rest[row] = Rest::EMPTY;
    }

    /// Whether more memory is wasted than used, so that the copy should be rebuilt.
    pub(super) fn needs_rebuild(&self) -> bool {
        let rockets = self.status.len() - self.empty;
        self.empty > rockets + MAX_WASTE || self.texts.texts.len() > 6 * rockets + MAX_WASTE
    }

    fn find(&self, channel: &str) -> Option<usize> {
        self.channels.find(channel)
    }

    /// Adds an empty row for a channel that has none.
    fn add_row(&mut self, channel: &Channel) -> usize {
        self.status.push(None);
        self.rocket_type.push(None);
        self.speed.push(0);
        self.mission.push(None);
        self.latest_update.push(Timestamp::FIRST);
        self.last_received.push(Timestamp::FIRST);
        self.rest.push(Rest::EMPTY);
        self.is_changed.push(false);
        self.empty += 1;
        self.channels.push(channel)
    }

    fn summary(&self, row: usize) -> Summary {
        let rest = &self.rest[row];
        let latest = |number: OptionalNumber, text: TextId| {
            Some(Latest { number: i64::from(number?.get()), value: self.texts.get(text)?.clone() })
        };
        Summary {
            speed_change: self.speed[row],
            launch: latest(rest.latest_launch, self.rocket_type[row]),
            mission: latest(rest.latest_mission, self.mission[row]),
            explosion: latest(rest.latest_explosion, rest.exploded_reason),
            latest_time: self.latest_update[row],
        }
    }

    fn store(&mut self, row: usize, summary: &Summary) {
        let Summary { speed_change, launch, mission, explosion, latest_time } = summary;
        let (texts, rest) = (&mut self.texts, &mut self.rest[row]);
        let mut store =
            |latest: &Option<Latest>, stored_number: &mut OptionalNumber, text: &mut TextId| {
                let latest_number = latest.as_ref().map(|latest| message_number(latest.number));
                if latest_number != *stored_number {
                    *stored_number = latest_number;
                    *text = texts.id(latest.as_ref().map(|latest| &latest.value));
                }
            };
        store(launch, &mut rest.latest_launch, &mut self.rocket_type[row]);
        store(mission, &mut rest.latest_mission, &mut self.mission[row]);
        store(explosion, &mut rest.latest_explosion, &mut rest.exploded_reason);
        self.status[row] = Some(Status::of(launch.is_some(), explosion.is_some()));
        (self.speed[row], self.latest_update[row]) = (*speed_change, *latest_time);
    }
}

/// A message number, or a count of messages of one channel.
fn number(number: i64) -> u32 {
    u32::try_from(number).unwrap_or_else(|_| unreachable!("message numbers have 32 bits"))
}

fn message_number(message: i64) -> NonZeroU32 {
    NonZeroU32::new(number(message)).unwrap_or_else(|| unreachable!("messages count from 1"))
}

/// The index of a row or of a text.
fn index(index: usize) -> u32 {
    u32::try_from(index)
        .unwrap_or_else(|_| unreachable!("memory is full before there are 4 billion rows or texts"))
}

impl Rest {
    /// The values of an empty row.
    const EMPTY: Self = Self {
        exploded_reason: None,
        latest_launch: None,
        latest_mission: None,
        latest_explosion: None,
        processed: 0,
        complete_through: 0,
        highest: 0,
    };
}

/// Pages.
impl Columns {
    /// One page of the best-effort view.
    pub(super) fn page(&self, query: &RocketQuery) -> Page {
        let (rows, total) = match query.sort {
            Sort::LatestUpdate => self.first(query, |row| Some(self.latest_update[row]), time_key),
            Sort::Channel => self.first(query, |_| Some(()), |_| Some(())),
            Sort::Type => self.first(query, |row| self.text(self.rocket_type[row]), text_key),
            Sort::Speed => self.first(query, |row| Some(self.speed[row]), integer_key),
            Sort::Mission => self.first(query, |row| self.text(self.mission[row]), text_key),
            Sort::Status => self.first(query, |row| self.status[row], status_key),
        };
        let rockets = rows.into_iter().map(|row| self.rocket(row)).collect();
        super::page::page(query, rockets, query.with_total.then_some(total))
    }

    /// A rocket, if it is there.
    pub(super) fn get(&self, channel: &Channel) -> Option<Rocket> {
        let row = self.find(channel.as_str())?;
        self.status[row].map(|_| self.rocket(row))
    }

    fn text(&self, id: TextId) -> Option<&str> {
        self.texts.get(id).map(Text::as_str)
    }

    /// The first rows after the query's position, in order: one more than the page holds. And how
    /// many rows match, before and after the position.
    fn first<'c, K: Ord + Copy>(
        &'c self,
        query: &'c RocketQuery,
        key: impl Fn(usize) -> Option<K>,
        key_of: impl Fn(&'c SortKey) -> Option<K>,
    ) -> (Vec<usize>, i64) {
        let descending = query.order == Order::Desc;
        let after = query.after.as_ref().map(|Position { key, channel }| SortPosition {
            key: key_of(key),
            channel: channel.as_str(),
            descending,
            row: usize::MAX,
        });
        let Some(matches) = self.filter(query) else { return (Vec::new(), 0) };
        let limit = query.limit + 1;
        let (mut first, mut total) = (BinaryHeap::with_capacity(limit + 1), 0);
        for row in (0..self.status.len()).filter(|row| matches(*row)) {
            total += 1;
            let position =
                SortPosition { key: key(row), channel: self.channels.name(row), descending, row };
            if after.as_ref().is_some_and(|after| position <= *after) {
                continue;
            }
            if first.len() < limit {
                first.push(position);
            } else if let Some(mut last) = first.peek_mut()
                && position < *last
            {
                *last = position;
            }
        }
        let rows = first.into_sorted_vec().into_iter().map(|position| position.row);
        (rows.collect(), total)
    }

    /// The earliest time after this one at which a rocket was last received.
    pub(super) fn first_received_after(&self, after: Timestamp) -> Option<Timestamp> {
        let rows = self.last_received.iter().zip(self.status.iter());
        let received = rows.filter(|(_, status)| status.is_some()).map(|(received, _)| *received);
        received.filter(|received| *received > after).min()
    }

    /// A function that returns whether a row matches; none if no row can match.
    fn filter<'c>(&'c self, query: &'c RocketQuery) -> Option<impl Fn(usize) -> bool + 'c> {
        let filters = &query.filters;
        let rocket_types = self.ids(&filters.rocket_types)?;
        let missions = self.ids(&filters.missions)?;
        let (cutoff, after) = (filters.silent_cutoff(query.now), query.received_after);
        let channel = filters.channel.as_ref().map(Channel::as_str);
        let prefix = filters.channel_prefix.as_ref().map(Text::as_str);
        let (statuses, missing) = (&filters.statuses, filters.missing);
        Some(move |row: usize| {
            let Some(status) = self.status[row] else { return false };
            let has_gaps = || self.rest[row].highest > self.rest[row].processed;
            (statuses.is_empty() || statuses.contains(&status))
                && (rocket_types.is_empty() || rocket_types.contains(&self.rocket_type[row]))
                && (missions.is_empty() || missions.contains(&self.mission[row]))
                && cutoff.is_none_or(|cutoff| self.last_received[row] <= cutoff)
                && after.is_none_or(|after| self.last_received[row] > after)
                && missing.is_none_or(|missing| missing == has_gaps())
                && channel.is_none_or(|channel| channel == self.channels.name(row))
                && prefix.is_none_or(|prefix| self.channels.name(row).starts_with(prefix))
        })
    }

    /// The ids of texts, without those that no rocket has; none if no rocket has any of them.
    fn ids(&self, texts: &[Text]) -> Option<Vec<TextId>> {
        let ids: Vec<TextId> =
            texts.iter().map(|text| self.texts.find(text)).filter(Option::is_some).collect();
        (texts.is_empty() || !ids.is_empty()).then_some(ids)
    }

    fn rocket(&self, row: usize) -> Rocket {
        let rest = &self.rest[row];
        let channel = Channel::new(self.channels.name(row).to_owned());
        Rocket {
            channel: channel.unwrap_or_else(|error| {
                unreachable!("every row was added for a valid channel: {error}")
            }),
            state: RocketState::of(Some(self.summary(row))),
            last_received: self.last_received[row],
            progress: Progress::without_losses(
                rest.processed.into(),
                rest.complete_through.into(),
                rest.highest.into(),
            ),
        }
    }
}

/// The position of a row in an order: the lowest comes first.
struct SortPosition<'c, K> {
    key: Option<K>,
    channel: &'c str,
    descending: bool,
    row: usize,
}

impl<K: Ord> Ord for SortPosition<'_, K> {
    fn cmp(&self, other: &Self) -> Ordering {
        let directed =
            |ordering: Ordering| if self.descending { ordering.reverse() } else { ordering };
        let by_key = match (&self.key, &other.key) {
            (Some(one), Some(another)) => directed(one.cmp(another)),
            // Nulls come last in both directions.
            (one, another) => one.is_none().cmp(&another.is_none()),
        };
        by_key.then_with(|| directed(self.channel.cmp(other.channel)))
    }
}

impl<K: Ord> PartialOrd for SortPosition<'_, K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Ord> PartialEq for SortPosition<'_, K> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<K: Ord> Eq for SortPosition<'_, K> {}

/// The reason why the key of a position is of the right type.
const KEY_FITS: &str = "a cursor's key fits its sort";

fn time_key(key: &SortKey) -> Option<Timestamp> {
    let parse = |text| Timestamp::parse(text).unwrap_or_else(|_| unreachable!("{KEY_FITS}"));
    text_key(key).map(parse)
}

fn status_key(key: &SortKey) -> Option<Status> {
    let parse = |name: &str| name.parse().unwrap_or_else(|()| unreachable!("{KEY_FITS}"));
    text_key(key).map(parse)
}

fn text_key(key: &SortKey) -> Option<&str> {
    match key {
        SortKey::Text(text) => Some(text),
        SortKey::Null => None,
        SortKey::Integer(_) => unreachable!("{KEY_FITS}"),
    }
}

fn integer_key(key: &SortKey) -> Option<i64> {
    match key {
        SortKey::Integer(integer) => Some(*integer),
        SortKey::Null => None,
        SortKey::Text(_) => unreachable!("{KEY_FITS}"),
    }
}

/// The totals of some rockets.
#[derive(Clone, Debug, Default)]
struct Totals {
    rockets: i64,
    launched: i64,
    exploded: i64,
    speed: i128,
    max_speed: Option<i64>,
    latest_update: Option<Timestamp>,
}

/// Reports.
impl Columns {
    /// The rows of a report on rockets, in its order. `round` rounds a mean as the database does.
    pub(super) fn report(
        &self,
        query: &ReportQuery,
        round: &dyn Fn(f64) -> Result<f64, StoreError>,
    ) -> Result<Vec<Vec<Value>>, StoreError> {
        let groups = match query.report {
            Report::Missions => self.groups(|row| self.status[row].map(|_| self.mission[row])),
            Report::Types => self.groups(|row| self.status[row].map(|_| self.rocket_type[row])),
            Report::Explosions => self.groups(|row| {
                (self.status[row] == Some(Status::Exploded)).then(|| self.rest[row].exploded_reason)
            }),
            Report::Fleet => return Ok(vec![self.fleet()]),
            Report::Gaps => unreachable!("the copy has no ranges, so it is not asked for gaps"),
        };
        let cells = |(text, group): (Option<&str>, &Totals)| {
            let text = text.map_or(Value::Null, |text| Value::Text(text.to_owned()));
            if query.report == Report::Explosions {
                return Ok(vec![text, Value::Integer(group.rockets), time(group.latest_update)]);
            }
            let mean = group.speed as f64 / group.rockets as f64;
            Ok(vec![
                text,
                Value::Integer(group.rockets),
                Value::Integer(group.launched),
                Value::Integer(group.exploded),
                Value::Real(round(mean)?),
                group.max_speed.map_or(Value::Null, Value::Integer),
            ])
        };
        let named = groups.iter().map(|(id, group)| (self.text(*id), group));
        let after = query.after_text();
        let mut named: Vec<_> = named.filter(|(text, _)| text.is_none() || after < *text).collect();
        named.sort_unstable_by_key(|(text, _)| (text.is_none(), *text));
        named.into_iter().take(query.limit).map(cells).collect()
    }

    /// The totals of the rows by a text. `text` is none for rows to leave out.
    fn groups(&self, text: impl Fn(usize) -> Option<TextId>) -> Vec<(TextId, Totals)> {
        let mut groups: Vec<Totals> = vec![Totals::default(); self.texts.texts.len() + 1];
        for row in 0..self.status.len() {
            let Some(id) = text(row) else { continue };
            let group = &mut groups[id.map_or(0, |id| id.get() as usize)];
            group.rockets += 1;
            group.launched += i64::from(self.status[row] == Some(Status::Launched));
            group.exploded += i64::from(self.status[row] == Some(Status::Exploded));
            group.speed += i128::from(self.speed[row]);
            group.max_speed = group.max_speed.max(Some(self.speed[row]));
            group.latest_update = group.latest_update.max(Some(self.latest_update[row]));
        }
        let ids = (0..).map(NonZeroU32::new);
        ids.zip(groups).filter(|(_, group)| group.rockets > 0).collect()
    }

    /// The only row of the report on the fleet.
    fn fleet(&self) -> Vec<Value> {
        let mut statuses = [0_i64; Status::ALL.len()];
        let (mut processed, mut missing, mut with_gaps, mut latest_update) =
            (0_i64, 0_i64, 0_i64, None);
        for (row, rest) in self.rest.iter().enumerate() {
            let Some(status) = self.status[row] else { continue };
            statuses[status as usize] += 1;
            processed += i64::from(rest.processed);
            missing += i64::from(rest.highest) - i64::from(rest.processed);
            with_gaps += i64::from(rest.highest > rest.processed);
            latest_update = latest_update.max(Some(self.latest_update[row]));
        }
        let count = |status: Status| Value::Integer(statuses[status as usize]);
        vec![
            Value::Integer(statuses.iter().sum()),
            count(Status::AwaitingLaunch),
            count(Status::Launched),
            count(Status::Exploded),
            Value::Integer(processed),
            Value::Integer(missing),
            Value::Integer(with_gaps),
            time(latest_update),
        ]
    }
}

fn time(time: Option<Timestamp>) -> Value {
    time.map_or(Value::Null, Value::Time)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::domain::batch::{Batch, Outcome};
    use crate::domain::message::Message;
    use crate::domain::message::example::{exploded, faster, launched, mission_changed};
    use crate::domain::query::Filters;
    use crate::domain::rocket::View;

    fn channel(name: &str) -> Channel {
        Channel::new(name.to_owned()).unwrap()
    }

    /// Applies a new message.
    fn apply(columns: &mut Columns, name: &str, number: u32, message: Message) {
        let messages = [message.on(name).numbered(number.into()).at((number % 60).into())];
        let joined = Batch::new(&messages).groups()[0].join(
            Vec::new(),
            Timestamp::FIRST,
            &mut [Outcome::Duplicate],
        );
        columns.apply(&channel(name), &joined.applied.unwrap(), Timestamp::FIRST);
    }

    fn launch(columns: &mut Columns, name: &str, number: u32, speed: i32, mission: &str) {
        apply(columns, name, number, launched("T", speed.into(), mission));
    }

    fn query(sort: Sort, order: Order) -> RocketQuery {
        let (filters, now) = (Filters::default(), Timestamp::FIRST);
        RocketQuery {
            view: View::BestEffort,
            sort,
            order,
            filters,
            now,
            received_after: None,
            after: None,
            limit: 2,
            with_total: false,
        }
    }

    /// The channels of all pages.
    fn pages(columns: &Columns, mut query: RocketQuery) -> Vec<String> {
        let mut found = Vec::new();
        loop {
            let page = columns.page(&query);
            found.extend(page.rockets.iter().map(|rocket| rocket.channel.as_str().to_owned()));
            let Some(next) = page.next else { return found };
            query.after = Some(next);
        }
    }

    #[test]
    fn ties_break_by_channel_and_nulls_come_last_in_both_orders() {
        let mut columns = Columns::default();
        for (name, mission) in [("d", "x"), ("b", "y"), ("c", "x")] {
            launch(&mut columns, name, 1, 5, mission);
        }
        for name in ["e", "a"] {
            apply(&mut columns, name, 1, faster(7));
        }
        for (sort, order, expected) in [
            (Sort::Mission, Order::Asc, ["c", "d", "b", "a", "e"]),
            (Sort::Mission, Order::Desc, ["b", "d", "c", "e", "a"]),
            (Sort::Speed, Order::Desc, ["e", "a", "d", "c", "b"]),
            (Sort::Status, Order::Asc, ["a", "e", "b", "c", "d"]),
            (Sort::Channel, Order::Desc, ["e", "d", "c", "b", "a"]),
            (Sort::LatestUpdate, Order::Asc, ["a", "b", "c", "d", "e"]),
        ] {
            assert_eq!(pages(&columns, query(sort, order)), expected, "{sort:?} {order:?}");
        }
        let mut filtered = query(Sort::Speed, Order::Asc);
        let missions = |names: &[&'static str]| -> Vec<Text> {
            names.iter().map(|name| Text::new(*name).unwrap()).collect()
        };
        filtered.filters.missions = missions(&["nowhere", "x"]);
        assert_eq!(pages(&columns, filtered.clone()), ["c", "d"]);
        filtered.filters.missions = missions(&["nowhere"]);
        assert!(pages(&columns, filtered).is_empty());
    }

    #[test]
    fn older_messages_overwrite_nothing_and_a_removed_rocket_starts_over() {
        let mut columns = Columns::default();
        launch(&mut columns, "a", 5, 10, "new");
        launch(&mut columns, "a", 2, 20, "old");
        apply(&mut columns, "a", 3, exploded("R"));
        let rocket =
            |columns: &Columns| columns.page(&query(Sort::Speed, Order::Asc)).rockets.pop();
        let state = rocket(&columns).unwrap().state;
        assert_eq!((state.speed, state.mission.unwrap().as_str()), (30, "new"));
        assert_eq!((state.status, state.latest_mission_message), (Status::Exploded, Some(5)));
        columns.remove(&channel("a"));
        columns.remove(&channel("a"));
        columns.remove(&channel("never"));
        assert_eq!((rocket(&columns), columns.empty), (None, 1));
        apply(&mut columns, "a", 1, faster(7));
        let again = rocket(&columns).unwrap();
        assert_eq!(
            (again.state.speed, again.state.mission, again.state.exploded_reason),
            (7, None, None)
        );
        assert_eq!((again.progress.processed, columns.status.len(), columns.empty), (1, 1, 0));
    }

    #[test]
    fn each_change_is_taken_once() {
        let mut columns = Columns::default();
        for (name, speed) in [("a", 1), ("b", 2), ("c", 3)] {
            launch(&mut columns, name, 1, speed, "x");
        }
        let mut stored =
            columns.page(&RocketQuery { limit: 3, ..query(Sort::Channel, Order::Asc) }).rockets;
        assert_eq!(columns.take_changed(0, 9), (stored.clone(), None));
        for rocket in &stored {
            columns.update(rocket).unwrap();
        }
        assert_eq!(columns.take_changed(0, 9), (vec![], None));
        stored[0].last_received = stored[0].last_received.next();
        stored[2].state.mission = Some(Text::new("y".to_owned()).unwrap());
        stored[2].channel = channel("new");
        let rows: Vec<usize> =
            stored.iter().map(|rocket| columns.update(rocket).unwrap()).collect();
        columns.retain(|row| rows.contains(&row));
        assert_eq!(columns.take_changed(0, 1), (vec![stored[0].clone()], Some(1)));
        assert_eq!(columns.take_changed(1, 1), (vec![stored[2].clone()], Some(4)));
        assert_eq!(columns.take_changed(4, 1), (vec![], None));
        assert_eq!(pages(&columns, query(Sort::Channel, Order::Asc)), ["a", "b", "new"]);
        columns.update(&stored[0]).unwrap();
        assert_eq!(columns.take_changed(0, 9), (vec![], None));
    }

    #[test]
    fn too_much_waste_needs_a_rebuild() {
        let mut columns = Columns::default();
        for number in 1..=MAX_WASTE as u32 + 6 {
            assert!(!columns.needs_rebuild());
            apply(&mut columns, "a", number, mission_changed(&format!("M{number}")));
        }
        apply(&mut columns, "a", 9_999, mission_changed("last"));
        assert!(columns.needs_rebuild());
        let mut columns = Columns::default();
        for index in 0..=MAX_WASTE {
            assert!(!columns.needs_rebuild());
            let name = index.to_string();
            apply(&mut columns, &name, 1, faster(7));
            columns.remove(&channel(&name));
        }
        assert!(columns.needs_rebuild());
    }
}
