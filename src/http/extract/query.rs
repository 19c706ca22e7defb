//! Query strings: every parameter must be known, valid, and given once, unless it may be repeated.
//! One response lists all faults.

use std::borrow::Cow;

use bytestring::ByteString;
use percent_encoding::percent_decode_str;

use super::cursor;
use crate::domain::message::MessageNumber;
use crate::domain::query::{Filters, GapQuery, Order, RocketQuery, SilentFor, Sort};
use crate::domain::rocket::{Status, View, Views};
use crate::domain::text::{Channel, Text};
use crate::domain::timestamp::Timestamp;
use crate::http::problem::{FieldError, Problem};
use crate::store::merge::ExportQuery;
use crate::store::report::{Report, ReportQuery};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;
/// The limits of pages of reports, all of which are in memory.
const DEFAULT_REPORT_LIMIT: usize = 1_000;
const MAX_REPORT_LIMIT: usize = 10_000;

/// The parameters that may be repeated: either of their values matches. They are not lists in one
/// parameter, because values can hold commas.
const REPEATABLE: [&str; 2] = ["type", "mission"];
/// How often each of them may be given.
const MAX_REPETITIONS: usize = 50;

/// The maximum number of faults of a query string that a response lists. This and the next bound
/// the size of the response to a hostile query.
const MAX_ERRORS: usize = 20;
/// The maximum number of characters of a parameter's name that a response repeats.
const MAX_NAME_CHARS: usize = 64;

/// The parameters of `GET /rockets`, at this time.
pub(in crate::http) fn rockets(query_string: &str, now: Timestamp) -> Result<RocketQuery, Problem> {
    const KNOWN: [&str; 13] = [
        "sort",
        "order",
        "channel",
        "channelPrefix",
        "type",
        "mission",
        "status",
        "missing",
        "silentFor",
        "view",
        "limit",
        "cursor",
        "total",
    ];
    let mut params = Params::read(query_string, &KNOWN);
    let sort = params.one_of("sort", &Sort::ALL, Sort::name).unwrap_or_default();
    let order = params.one_of("order", &Order::ALL, Order::name).unwrap_or(sort.default_order());
    let filters = params.filters();
    let view = params.view();
    let limit = params.limit(MAX_LIMIT).unwrap_or(DEFAULT_LIMIT);
    let with_total = params.flag("total").unwrap_or(false);
    let (received_after, after) = (None, None);
    let mut query =
        RocketQuery { view, sort, order, filters, now, received_after, after, limit, with_total };
    query.after = params.parse("cursor", |text| cursor::decode(text, &query));
    params.finish()?;
    Ok(query)
}

/// The parameters of `GET /events`, parsed.
pub(in crate::http) struct EventsQuery {
    pub(in crate::http) filters: Filters,
    /// Whether to start with the current state of all matching rockets.
    pub(in crate::http) snapshot: bool,
}

/// The parameters of `GET /events`.
pub(in crate::http) fn events(query_string: &str) -> Result<EventsQuery, Problem> {
    const KNOWN: [&str; 8] = [
        "channel",
        "channelPrefix",
        "type",
        "mission",
        "status",
        "missing",
        "silentFor",
        "snapshot",
    ];
    let mut params = Params::read(query_string, &KNOWN);
    let filters = params.filters();
    let snapshot = params.flag("snapshot");
    params.finish()?;
    Ok(EventsQuery { filters, snapshot: snapshot.unwrap_or(true) })
}

/// Accepts no parameters.
pub(in crate::http) fn expect_none(query_string: &str) -> Result<(), Problem> {
    Params::read(query_string, &[]).finish()
}

/// The parameters of `GET /rockets/{channel}`.
pub(in crate::http) fn rocket(query_string: &str) -> Result<Views, Problem> {
    let mut params = Params::read(query_string, &["view"]);
    let views =
        params.one_of("view", &Views::ALL, Views::name).unwrap_or(Views::One(View::default()));
    params.finish()?;
    Ok(views)
}

/// The parameters of `GET /rockets/{channel}/gaps`.
pub(in crate::http) fn gaps(query_string: &str, channel: Channel) -> Result<GapQuery, Problem> {
    let mut params = Params::read(query_string, &["limit", "cursor"]);
    let limit = params.limit(MAX_LIMIT).unwrap_or(DEFAULT_LIMIT);
    let after = params.parse("cursor", |text| cursor::decode_gaps(text, &channel));
    params.finish()?;
    Ok(GapQuery { channel, after: after.unwrap_or(0), limit })
}

/// The parameters of `GET /export`.
pub(in crate::http) fn export(query_string: &str) -> Result<ExportQuery, Problem> {
    let mut params = Params::read(query_string, &["since", "channelPrefix"]);
    let since = params.parse("since", Timestamp::parse);
    let prefix = params.parse("channelPrefix", |text| Text::new(ByteString::from(text)));
    params.finish()?;
    let channel_prefix = prefix.map_or_else(String::new, |prefix| prefix.as_str().to_owned());
    Ok(ExportQuery { after: None, since, channel_prefix })
}

/// The parameters of `GET /reports/{name}`.
pub(in crate::http) fn report(query_string: &str, report: Report) -> Result<ReportQuery, Problem> {
    let mut params = Params::read(query_string, &["limit", "cursor"]);
    let limit = params.limit(MAX_REPORT_LIMIT).unwrap_or(DEFAULT_REPORT_LIMIT);
    let after = params.parse("cursor", |text| cursor::decode_report(text, report));
    params.finish()?;
    Ok(ReportQuery { report, after, limit })
}

/// The parameters `first` and `last`, which are required.
pub(in crate::http) fn numbers(
    query_string: &str,
) -> Result<(MessageNumber, MessageNumber), Problem> {
    let mut params = Params::read(query_string, &["first", "last"]);
    let first = params.required("first", message_number);
    let last = params.required("last", message_number);
    if last < first && first.is_some() && last.is_some() {
        params.add_error("last", "must not be below first".to_owned());
    }
    params.finish()?;
    match (first, last) {
        (Some(first), Some(last)) => Ok((first, last)),
        _ => unreachable!("a parameter without a value is a fault"),
    }
}

fn message_number(text: &str) -> Result<MessageNumber, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| text.parse().ok()).flatten();
    number.and_then(MessageNumber::new).ok_or_else(|| {
        format!("must be an integer from {} to {}", MessageNumber::MIN, MessageNumber::MAX)
    })
}

/// Statuses, separated by commas.
fn statuses(text: &str) -> Result<Vec<Status>, String> {
    let names = || Status::ALL.map(Status::name).join(", ");
    let statuses = text.split(',').map(str::parse).collect::<Result<Vec<Status>, ()>>();
    statuses.map_err(|()| format!("must be one or more of {}, separated by commas", names()))
}

/// Decoded parameters, and the faults found so far.
struct Params<'q> {
    values: Vec<(&'static str, Cow<'q, str>)>,
    errors: Vec<FieldError>,
}

impl<'q> Params<'q> {
    fn read(query_string: &'q str, known: &[&'static str]) -> Self {
        let mut params = Self { values: Vec::new(), errors: Vec::new() };
        for (name, value) in split(query_string) {
            let name = decode(name).unwrap_or(Cow::Borrowed(name));
            let Some(name) = known.iter().find(|known| **known == name) else {
                params.add_error(
                    &name,
                    match known {
                        [] => "is unknown: this resource takes no parameters".to_owned(),
                        known => format!("is unknown; valid parameters are {}", known.join(", ")),
                    },
                );
                continue;
            };
            match decode(value) {
                Some(_)
                    if !REPEATABLE.contains(name)
                        && params.values.iter().any(|(given, _)| given == name) =>
                {
                    params.add_error(name, "may be given only once".to_owned());
                }
                Some(value) => params.values.push((name, value)),
                None => params.add_error(name, "must be percent-encoded UTF-8".to_owned()),
            }
        }
        params
    }

    fn add_error(&mut self, parameter: &str, detail: String) {
        if self.errors.len() < MAX_ERRORS {
            let parameter = parameter.chars().take(MAX_NAME_CHARS).collect();
            self.errors.push(FieldError::Parameter { parameter, detail });
        }
    }

    /// The parameter's value, if it is present and valid.
    fn parse<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let value =
            self.values.iter().find(|(given, _)| *given == name).map(|(_, value)| parse(value))?;
        value.map_err(|detail| self.add_error(name, detail)).ok()
    }

    /// The different values of a parameter that may be repeated, in their order.
    fn parse_all(&mut self, name: &str) -> Vec<Text> {
        let given = self.values.iter().filter(|(given, _)| *given == name);
        let given: Vec<_> = given.map(|(_, value)| Text::new(ByteString::from(&**value))).collect();
        if given.len() > MAX_REPETITIONS {
            self.add_error(name, format!("may be given at most {MAX_REPETITIONS} times"));
            return Vec::new();
        }
        let mut values = Vec::with_capacity(given.len());
        for value in given {
            match value {
                Ok(value) => values.push(value),
                Err(detail) => self.add_error(name, detail),
            }
        }
        in_order(values)
    }

    /// The parameter's value, if it is valid. It is a fault if it is missing.
    fn required<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let has_fault = self.errors.iter().any(|error| error.is_about(name));
        if !has_fault && !self.values.iter().any(|(given, _)| *given == name) {
            self.add_error(name, "is missing".to_owned());
        }
        self.parse(name, parse)
    }

    fn one_of<T: Copy>(
        &mut self,
        name: &str,
        all: &[T],
        name_of: fn(T) -> &'static str,
    ) -> Option<T> {
        self.parse(name, |text| {
            let found = all.iter().find(|one| name_of(**one) == text).copied();
            let names = || all.iter().map(|one| name_of(*one)).collect::<Vec<_>>().join(", ");
            found.ok_or_else(|| format!("must be one of {}", names()))
        })
    }

    /// The parameter `limit`.
    fn limit(&mut self, max: usize) -> Option<usize> {
        self.parse("limit", |text| {
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            let limit: Option<usize> = if is_number { text.parse().ok() } else { None };
            limit
                .filter(|limit| (1..=max).contains(limit))
                .ok_or_else(|| format!("must be an integer from 1 to {max}"))
        })
    }

    fn flag(&mut self, name: &str) -> Option<bool> {
        self.one_of(name, &[true, false], |flag| if flag { "true" } else { "false" })
    }

    fn filters(&mut self) -> Filters {
        Filters {
            channel: self.parse("channel", |text| Channel::new(ByteString::from(text))),
            channel_prefix: self.parse("channelPrefix", |text| Text::new(ByteString::from(text))),
            rocket_types: self.parse_all("type"),
            missions: self.parse_all("mission"),
            statuses: in_order(self.parse("status", statuses).unwrap_or_default()),
            missing: self.flag("missing"),
            silent_for: self.parse("silentFor", SilentFor::parse),
        }
    }

    fn view(&mut self) -> View {
        self.one_of("view", &View::ALL, View::name).unwrap_or_default()
    }

    fn finish(self) -> Result<(), Problem> {
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::bad_query(self.errors)) }
    }
}

/// Each value once. The same values in another order are the same filter.
fn in_order<T: Ord>(mut values: Vec<T>) -> Vec<T> {
    values.sort_unstable();
    values.dedup();
    values
}

/// The decoded names and values of a query string. Skips pairs that are not UTF-8.
pub(in crate::http) fn pairs(
    query_string: &str,
) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    split(query_string).filter_map(|(name, value)| Some((decode(name)?, decode(value)?)))
}

/// The names and values of a query string, not decoded.
fn split(query_string: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = query_string.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Decodes `application/x-www-form-urlencoded` text; `None` if it is not UTF-8.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('+') {
        return percent_decode_str(text).decode_utf8().ok();
    }
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(|decoded| Cow::Owned(decoded.into_owned()))
}
