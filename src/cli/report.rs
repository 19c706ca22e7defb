//! `report`: a report of the fleet, for people and programs.

use std::io::{Write, stdout};

use clap::{Args, ValueEnum};

use super::{DatabaseArgs, Failure, Finished};
use crate::report_text;
use crate::store::report::Report;

/// Print a report of the fleet
///
/// The reports: missions and types (rockets by mission or type, with their speeds), explosions (by reason), fleet (all in
/// one row), gaps (missing message numbers). Each is also a view in the database, and a resource of the HTTP API.
#[derive(Clone, Debug, Args)]
pub(super) struct ReportArgs {
    /// Which report
    #[arg(value_parser = parse_name)]
    name: Report,

    /// How to print it
    #[arg(long, value_enum, env = "ROCKET_MONITOR_FORMAT", default_value_t = Format::Table)]
    format: Format,

    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// An object with the rows as objects.
    Json,
    /// Comma-separated values, with a line of names.
    Csv,
}

fn parse_name(name: &str) -> Result<Report, String> {
    let found = Report::ALL.into_iter().find(|report| report.name() == name);
    let names = || Report::ALL.map(Report::name).join(", ");
    found.ok_or_else(|| format!("there is no such report; there are {}", names()))
}

pub(super) fn run(args: &ReportArgs) -> Result<Finished, Failure> {
    let report = args.database.open(false)?.report_now(args.name, u32::MAX)?;
    let text = match args.format {
        Format::Table => report_text::table(&report).into_bytes(),
        Format::Json => report_text::json(&report)?,
        Format::Csv => report_text::csv(&report)?,
    };
    let mut output = stdout().lock();
    output.write_all(&text)?;
    if !text.ends_with(b"\n") {
        output.write_all(b"\n")?;
    }
    Ok(Finished::Well)
}
