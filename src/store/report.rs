//! The catalogue of reports, shared by the HTTP API, the command line and both engines. Each report
//! is a view in the schema, where its columns are documented.

use bytestring::ByteString;

use super::StoreError;
use super::page::Parameter;
use crate::domain::text::{Channel, Text};
use crate::domain::timestamp::Timestamp;

/// A report on the whole fleet, from the best-effort view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    Missions,
    Types,
    /// Exploded rockets by reason.
    Explosions,
    /// The whole fleet in one row.
    Fleet,
    /// The missing message numbers.
    Gaps,
}

/// The type of a column. Any value may be null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// A 64-bit integer.
    Integer,
    /// A number with a fraction.
    Real,
    Time,
}

/// A column's SQL name and type.
pub type ReportColumn = (&'static str, Kind);

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    Text(String),
    Integer(i64),
    /// A number with a fraction.
    Real(f64),
    Time(Timestamp),
}

impl Report {
    /// Every report, in the order in which they are offered.
    pub const ALL: [Self; 5] =
        [Self::Missions, Self::Types, Self::Explosions, Self::Fleet, Self::Gaps];

    /// Its name in the API and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missions => "missions",
            Self::Types => "types",
            Self::Explosions => "explosions",
            Self::Fleet => "fleet",
            Self::Gaps => "gaps",
        }
    }

    /// A description in one sentence.
    pub fn description(self) -> &'static str {
        match self {
            Self::Missions => {
                "Rockets by mission, with their speeds; null stands for an unknown mission."
            }
            Self::Types => "Rockets by type, with their speeds; null stands for an unknown type.",
            Self::Explosions => "Exploded rockets by reason.",
            Self::Fleet => "The whole fleet in one row.",
            Self::Gaps => {
                "The missing message numbers of each channel, as ranges with both ends inclusive."
            }
        }
    }

    /// The view it is read from.
    pub fn view(self) -> &'static str {
        match self {
            Self::Missions => "report_missions",
            Self::Types => "report_types",
            Self::Explosions => "report_explosions",
            Self::Fleet => "report_fleet",
            Self::Gaps => "gaps",
        }
    }

    pub fn columns(self) -> &'static [ReportColumn] {
        use Kind::{Integer, Real, Text, Time};
        match self {
            Self::Missions => &[
                ("mission", Text),
                ("rockets", Integer),
                ("launched", Integer),
                ("exploded", Integer),
                ("mean_speed", Real),
                ("max_speed", Integer),
            ],
            Self::Types => &[
                ("type", Text),
                ("rockets", Integer),
                ("launched", Integer),
                ("exploded", Integer),
                ("mean_speed", Real),
                ("max_speed", Integer),
            ],
            Self::Explosions => &[("reason", Text), ("rockets", Integer), ("latest_update", Time)],
            Self::Fleet => &[
                ("rockets", Integer),
                ("awaiting_launch", Integer),
                ("launched", Integer),
                ("exploded", Integer),
                ("processed", Integer),
                ("missing", Integer),
                ("rockets_with_gaps", Integer),
                ("latest_update", Time),
            ],
            Self::Gaps => &[
                ("channel", Text),
                ("first_missing", Integer),
                ("last_missing", Integer),
                ("after_time", Time),
                ("since", Time),
                ("lost", Integer),
            ],
        }
    }

    /// The position after a row; none if no row can follow it.
    pub fn position(self, row: &[Value]) -> Result<Option<ReportPosition>, StoreError> {
        let column = self.columns()[0].0;
        let damaged = |detail| StoreError::Damaged(format!("{column} {detail}"));
        match (self, row) {
            (Self::Fleet, _) | (_, [Value::Null, ..]) => Ok(None),
            (Self::Gaps, [Value::Text(channel), _, Value::Integer(last), ..]) => {
                let channel = Channel::new(ByteString::from(&**channel)).map_err(damaged)?;
                Ok(Some(ReportPosition::Gap { channel, last: *last }))
            }
            (Self::Missions | Self::Types | Self::Explosions, [Value::Text(text), ..]) => {
                let text = Text::new(ByteString::from(&**text)).map_err(damaged)?;
                Ok(Some(ReportPosition::Text(text)))
            }
            _ => Err(damaged("is not of its type".to_owned())),
        }
    }
}

/// A position in a report: just after this row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportPosition {
    /// The row with this text in its first column.
    Text(Text),
    /// The gap of this channel that ends with this number.
    Gap { channel: Channel, last: i64 },
}

/// A query for rows of a report.
#[derive(Clone, Debug)]
pub struct ReportQuery {
    pub report: Report,
    /// The end of the previous page.
    pub after: Option<ReportPosition>,
    /// The maximum number of rows.
    pub limit: usize,
}

impl ReportQuery {
    /// All rows.
    pub fn all(report: Report) -> Self {
        Self { report, after: None, limit: usize::MAX }
    }

    /// The query for one row more: if it is there, another page follows.
    pub(super) fn with_next_row(&self) -> Self {
        Self { limit: self.limit.saturating_add(1), ..self.clone() }
    }

    /// The text after which a report on rockets continues.
    pub(super) fn after_text(&self) -> Option<&str> {
        match &self.after {
            None => None,
            Some(ReportPosition::Text(text)) => Some(text.as_str()),
            Some(ReportPosition::Gap { .. }) => unreachable!("a position belongs to its report"),
        }
    }

    /// The statement that reads the rows, and the values of its placeholders `$1`, `$2` and so on,
    /// which appear in this order. Both engines share it, except for `gaps`.
    ///
    /// `gaps` makes that statement from the channel to continue in, if there is one, and the
    /// limit's placeholder. Then `$1` is this channel, and `$2` the first number of the range above
    /// the last gap.
    pub(super) fn statement(
        &self,
        gaps: impl FnOnce(Option<&Channel>, &str) -> String,
    ) -> (String, Vec<Parameter>) {
        let limit = Parameter::Integer(i64::try_from(self.limit).unwrap_or(i64::MAX));
        if self.report == Report::Gaps {
            return match &self.after {
                None => (gaps(None, "$1"), vec![limit]),
                Some(ReportPosition::Gap { channel, last }) => {
                    let after = Parameter::Text(channel.as_str().to_owned());
                    let above = Parameter::Integer(last.saturating_add(1));
                    (gaps(Some(channel), "$3"), vec![after, above, limit])
                }
                Some(ReportPosition::Text(_)) => unreachable!("a position belongs to its report"),
            };
        }
        let names: Vec<&str> = self.report.columns().iter().map(|(name, _)| *name).collect();
        let (view, first) = (self.report.view(), names[0]);
        let select = format!("SELECT {} FROM {view}", names.join(", "));
        let order = format!("ORDER BY {first} NULLS LAST");
        match self.after_text() {
            None => (format!("{select} {order} LIMIT $1"), vec![limit]),
            Some(text) => (
                format!("{select} WHERE {first} > $1 OR {first} IS NULL {order} LIMIT $2"),
                vec![Parameter::Text(text.to_owned()), limit],
            ),
        }
    }
}

/// A page of a report.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportRows {
    pub report: Report,
    /// The rows, sorted by the first column (gaps by channel and number), nulls last. Each row has
    /// a cell for each column.
    pub rows: Vec<Vec<Value>>,
    /// The end of the page, if more rows follow.
    pub next: Option<ReportPosition>,
}

impl ReportRows {
    /// Makes a page of the rows that were found, which may be one more than the page holds.
    pub(crate) fn new(query: &ReportQuery, mut rows: Vec<Vec<Value>>) -> Result<Self, StoreError> {
        let report = query.report;
        let has_more = rows.len() > query.limit;
        rows.truncate(query.limit);
        let last = rows.last().filter(|_| has_more);
        let next = last.map(|row| report.position(row)).transpose()?.flatten();
        Ok(Self { report, rows, next })
    }
}

/// The value as text in a table.
impl std::fmt::Display for Value {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Text(text) => formatter.write_str(text),
            Self::Integer(integer) => integer.fmt(formatter),
            Self::Real(real) => write!(formatter, "{real:?}"),
            Self::Time(time) => time.fmt(formatter),
        }
    }
}
