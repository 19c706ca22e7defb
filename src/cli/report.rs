//! `report`: prints a report of the fleet.

use std::io::{IsTerminal, stdout};
use std::ops::ControlFlow;
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};

use super::output::{self, print_error, print_line};
use super::{DatabaseArgs, Failure};
use crate::store::Store;
use crate::store::report::{Report, ReportQuery, Value};
use crate::terminal::{escape_json, escape_lines};
use crate::wire::report::{self as wire, ReportWriter, Syntax};

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
/// A table shows the first 10,000 rows, and says on standard error if there are more. CSV and JSON
/// have every row.
///
/// Exit status: 0 if the report was printed, 1 if not (what was printed is then incomplete).
#[derive(Clone, Debug, Args)]
pub(super) struct ReportArgs {
    /// The report
    #[arg(value_parser = report_parser())]
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

fn report_parser() -> impl TypedValueParser<Value = Report> {
    PossibleValuesParser::new(Report::ALL.map(Report::name)).try_map(|name| parse_report(&name))
}

fn parse_report(name: &str) -> Result<Report, String> {
    let found = Report::ALL.into_iter().find(|report| report.name().eq_ignore_ascii_case(name));
    found.ok_or_else(|| format!("{name} is not a report"))
}

/// The maximum number of rows in a table. All of them are in memory, to find the widths of the
/// columns.
const MAX_TABLE_ROWS: usize = 10_000;
/// The number of rows printed at a time.
const ROWS_PER_PART: usize = 1_000;

pub(super) fn run(args: &ReportArgs) -> Result<ExitCode, Failure> {
    let store = args.database.open(false)?;
    match args.format {
        Format::Table => print_table(&store, args.name)?,
        Format::Json => print_rows(&store, args.name, Syntax::Json)?,
        Format::Csv => print_rows(&store, args.name, Syntax::Csv)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print_table(store: &Store, report: Report) -> Result<(), Failure> {
    let mut rows = Vec::new();
    // One row more than the table shows means that there are more.
    let query = ReportQuery { limit: MAX_TABLE_ROWS + 1, ..ReportQuery::all(report) };
    store.report_rows(&query, &mut |row| {
        rows.push(row);
        ControlFlow::Continue(())
    })?;
    let has_more = rows.len() > MAX_TABLE_ROWS;
    rows.truncate(MAX_TABLE_ROWS);
    print_line!("{}", wire::table(report, &rows))?;
    if has_more {
        print_error(format_args!(
            "rocket-monitor: only the first {MAX_TABLE_ROWS} rows are shown; --format csv or \
             --format json prints all of them"
        ));
    }
    Ok(())
}

fn print_rows(store: &Store, report: Report, syntax: Syntax) -> Result<(), Failure> {
    let mut printer = Printer {
        writer: ReportWriter::new(report, syntax),
        syntax,
        on_terminal: stdout().is_terminal(),
        rows: Vec::with_capacity(ROWS_PER_PART),
    };
    // The callback only tells the store whether to continue, so the result is kept here.
    let mut printed = printer.start();
    if let Ok(ControlFlow::Continue(())) = printed {
        store.report_rows(&ReportQuery::all(report), &mut |row| {
            printed = printer.row(row);
            if matches!(printed, Ok(ControlFlow::Continue(()))) {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
    }
    match printed? {
        ControlFlow::Continue(()) => printer.end(),
        // The reader has closed the pipe.
        ControlFlow::Break(()) => Ok(()),
    }
}

/// Prints rows in batches.
struct Printer {
    writer: ReportWriter,
    syntax: Syntax,
    on_terminal: bool,
    /// Rows that are not printed yet.
    rows: Vec<Vec<Value>>,
}

impl Printer {
    fn start(&mut self) -> Result<ControlFlow<()>, Failure> {
        let start = self.writer.start()?;
        self.print(start)
    }

    fn row(&mut self, row: Vec<Value>) -> Result<ControlFlow<()>, Failure> {
        self.rows.push(row);
        if self.rows.len() == ROWS_PER_PART {
            return self.print_rows();
        }
        Ok(ControlFlow::Continue(()))
    }

    fn end(mut self) -> Result<(), Failure> {
        if self.print_rows()?.is_continue() && self.syntax == Syntax::Json {
            print_line!("{}", self.writer.end(None))?;
        }
        Ok(())
    }

    fn print_rows(&mut self) -> Result<ControlFlow<()>, Failure> {
        let text = self.writer.rows(&self.rows)?;
        self.rows.clear();
        self.print(text)
    }

    /// Prints the text, escaped if standard output is a terminal.
    fn print(&self, text: Vec<u8>) -> Result<ControlFlow<()>, Failure> {
        if !self.on_terminal {
            return output::print_part(&text);
        }
        let text = String::from_utf8(text)?;
        let escaped = match self.syntax {
            Syntax::Json | Syntax::Ndjson => escape_json(&text),
            Syntax::Csv => escape_lines(&text),
        };
        output::print_part(escaped.as_bytes())
    }
}
