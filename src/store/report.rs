//! The catalogue of reports, shared by the HTTP API, the command line and both engines. Each report
//! is a view in the schema, where its columns are documented.

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

    /// The statement that reads the report. Both engines share it, except for `gaps`, whose
    /// statement is an argument. $1 is the row limit.
    pub(super) fn sql(self, gaps: &str) -> String {
        if self == Self::Gaps {
            return gaps.to_owned();
        }
        let names: Vec<&str> = self.columns().iter().map(|(name, _)| *name).collect();
        let (view, first) = (self.view(), names[0]);
        format!("SELECT {} FROM {view} ORDER BY {first} NULLS LAST LIMIT $1", names.join(", "))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct ReportRows {
    pub report: Report,
    /// The rows, sorted by the first column (gaps by channel and number), nulls last. Each row has
    /// a cell for each column.
    pub rows: Vec<Vec<Value>>,
    /// Whether there are more rows than the limit.
    pub truncated: bool,
}

impl ReportRows {
    /// Truncates the rows to `limit`. One row more than that means that there are more.
    pub(crate) fn new(report: Report, mut rows: Vec<Vec<Value>>, limit: usize) -> Self {
        let truncated = rows.len() > limit;
        rows.truncate(limit);
        Self { report, rows, truncated }
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
