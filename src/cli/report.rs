//! `report`: prints a report of the fleet.

use std::io::{IsTerminal, stdout};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};

use super::{DatabaseArgs, Failure, Finished, output};
use crate::report_text;
use crate::store::report::Report;
use crate::terminal::{escape_json, escape_lines};

/// Print a report of the fleet
///
/// The reports: missions and types (rockets by mission or type, with their speeds), explosions (by
/// reason), fleet (totals in one row), gaps (missing message numbers). Each is also a view in the
/// database, and a resource of the HTTP API.
///
/// In CSV, a text that a spreadsheet would take for a formula (it begins with =, +, -, @ or a
/// control character) gets an apostrophe (') in front; numbers stay numbers. JSON leaves every text
/// as it is.
///
/// Exit status: 0 if the report was printed, 1 if not.
#[derive(Clone, Debug, Args)]
pub(super) struct ReportArgs {
    /// The report
    #[arg(value_parser = PossibleValuesParser::new(Report::ALL.map(Report::name)).try_map(|name| named(&name)))]
    name: Report,

    /// The output format
    #[arg(long, value_enum, env = "ROCKET_MONITOR_FORMAT", default_value_t = Format::Table)]
    format: Format,

    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A table for people
    Table,
    /// A JSON object that holds the rows as objects
    Json,
    /// Comma-separated values, with the column names in the first line
    Csv,
}

fn named(name: &str) -> Result<Report, String> {
    let found = Report::ALL.into_iter().find(|report| report.name().eq_ignore_ascii_case(name));
    found.ok_or_else(|| format!("{name} is not a report"))
}

pub(super) fn run(args: &ReportArgs) -> Result<Finished, Failure> {
    let report = args.database.open(false)?.report_now(args.name, u32::MAX)?;
    let text = match args.format {
        Format::Table => report_text::table(&report),
        Format::Json => {
            on_terminal(String::from_utf8(report_text::json(&report)?)?, |json| escape_json(json).into_owned())
        }
        Format::Csv => {
            on_terminal(String::from_utf8(report_text::csv(&report)?)?, |csv| escape_lines(csv).into_owned())
        }
    };
    let end = if text.ends_with('\n') { "" } else { "\n" };
    output::print((text + end).as_bytes())?;
    Ok(Finished::Well)
}

/// Escapes text on a terminal; programs get it as it is.
fn on_terminal(text: String, escaped: impl Fn(&str) -> String) -> String {
    if stdout().is_terminal() { escaped(&text) } else { text }
}
