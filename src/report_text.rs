//! Reports as CSV, tables and JSON, for both the HTTP API and the command line.

use comfy_table::{CellAlignment, Table, presets};

use crate::store::report::{Kind, ReportRows, Value};
use crate::terminal::Escaped;

/// CSV according to RFC 4180: a line with the columns' SQL names, then the rows. Null is empty.
///
/// A text that a spreadsheet would take for a formula gets an apostrophe in front, which makes it a
/// text there. Numbers don't: a negative number is not a formula.
pub fn csv(report: &ReportRows) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    writer.write_record(report.report.columns().iter().map(|(name, _)| name))?;
    for row in &report.rows {
        writer.write_record(row.iter().map(csv_cell))?;
    }
    writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))
}

fn csv_cell(value: &Value) -> String {
    match value {
        Value::Text(text) if looks_like_formula(text) => format!("'{text}"),
        value => value.to_string(),
    }
}

/// Spreadsheets skip white space before a formula, and some accept full-width characters.
fn looks_like_formula(text: &str) -> bool {
    text.trim_start().starts_with(['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'])
        || text.starts_with(char::is_control)
}

/// A table for terminals: numbers are right-aligned, null is empty, and unsafe characters are
/// escaped.
pub fn table(report: &ReportRows) -> String {
    let columns = report.report.columns();
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.set_header(columns.iter().map(|(name, _)| *name));
    for row in &report.rows {
        table.add_row(row.iter().map(|value| Escaped(value).to_string()));
    }
    for (column, (_, kind)) in table.column_iter_mut().zip(columns) {
        if matches!(kind, Kind::Integer | Kind::Real) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// JSON: the report's name, its rows as objects, and `truncated` if there are more rows.
pub fn json(report: &ReportRows) -> serde_json::Result<Vec<u8>> {
    #[derive(serde::Serialize)]
    struct Json<R> {
        name: &'static str,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        truncated: bool,
        rows: R,
    }
    let rows = report.objects().collect::<Vec<_>>();
    serde_json::to_vec(&Json { name: report.report.name(), truncated: report.truncated, rows })
}
