//! Reports as CSV, tables, JSON and NDJSON, for both the HTTP API and the command line.

use std::io;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use utoipa::ToSchema;

use crate::store::report::{Kind, Report, ReportColumn, ReportRows, Value};
use crate::terminal::Escaped;

/// The formats for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// CSV according to RFC 4180: a line with the columns' SQL names, then the rows. Null is empty.
    ///
    /// A text that a spreadsheet would take for a formula gets an apostrophe in front, which makes
    /// it a text there. Numbers don't: a negative number is not a formula.
    Csv,
    /// JSON: the report's name, its rows as objects, and the cursor of the next page, or null.
    Json,
    /// NDJSON: each row as an object on a line.
    Ndjson,
}

/// Encodes a report in parts, so that a long report need not be in memory as a whole: the start,
/// any number of rows, and the end.
#[derive(Debug)]
pub struct ReportWriter {
    report: Report,
    syntax: Syntax,
    /// Whether no row has been written yet.
    is_empty: bool,
}

impl ReportWriter {
    pub fn new(report: Report, syntax: Syntax) -> Self {
        Self { report, syntax, is_empty: true }
    }

    /// The text before the rows.
    pub fn start(&self) -> io::Result<Vec<u8>> {
        match self.syntax {
            Syntax::Csv => csv_lines([self.report.columns().iter().map(|(name, _)| *name)]),
            // The names of the reports need no escapes.
            Syntax::Json => Ok(format!(r#"{{"name":"{}","rows":["#, self.report.name()).into()),
            Syntax::Ndjson => Ok(Vec::new()),
        }
    }

    /// The text of the next rows.
    pub fn rows(&mut self, rows: &[Vec<Value>]) -> io::Result<Vec<u8>> {
        match self.syntax {
            Syntax::Csv => csv_lines(rows.iter().map(|row| row.iter().map(csv_cell))),
            Syntax::Json => {
                let mut text = Vec::new();
                for row in rows {
                    if !std::mem::take(&mut self.is_empty) {
                        text.push(b',');
                    }
                    let object = RowObject::new(self.report, row);
                    serde_json::to_writer(&mut text, &object)?;
                }
                Ok(text)
            }
            Syntax::Ndjson => {
                let mut text = Vec::new();
                for row in rows {
                    serde_json::to_writer(&mut text, &RowObject::new(self.report, row))?;
                    text.push(b'\n');
                }
                Ok(text)
            }
        }
    }

    /// The text after the rows. Only JSON has the cursor of the next page.
    pub fn end(&self, next_cursor: Option<&str>) -> String {
        match self.syntax {
            Syntax::Csv | Syntax::Ndjson => String::new(),
            Syntax::Json => {
                // Quotes a text, or writes null.
                let next_cursor = serde_json::Value::from(next_cursor);
                format!(r#"],"nextCursor":{next_cursor}}}"#)
            }
        }
    }
}

/// Encodes a page of a report.
pub fn encode(page: &ReportRows, syntax: Syntax, next_cursor: Option<&str>) -> io::Result<Vec<u8>> {
    let mut writer = ReportWriter::new(page.report, syntax);
    let mut text = writer.start()?;
    text.extend(writer.rows(&page.rows)?);
    text.extend(writer.end(next_cursor).bytes());
    Ok(text)
}

fn csv_lines<L>(lines: impl IntoIterator<Item = L>) -> io::Result<Vec<u8>>
where
    L: IntoIterator<Item: AsRef<[u8]>>,
{
    let mut writer = csv::WriterBuilder::new();
    let mut writer = writer.terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    for line in lines {
        writer.write_record(line)?;
    }
    writer.into_inner().map_err(|error| error.into_error())
}

fn csv_cell(value: &Value) -> String {
    match value {
        Value::Text(text) if looks_like_formula(text) => format!("'{text}"),
        value => value.to_string(),
    }
}

/// Spreadsheets skip white space before a formula, and some accept full-width characters.
fn looks_like_formula(text: &str) -> bool {
    text.trim_start()
        .starts_with(['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'])
        || text.starts_with(char::is_control)
}

/// A table for terminals: numbers are right-aligned, null is empty, and unsafe characters are
/// escaped.
pub fn table(report: Report, rows: &[Vec<Value>]) -> String {
    let columns = report.columns();
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.set_header(columns.iter().map(|(name, _)| *name));
    for row in rows {
        table.add_row(row.iter().map(|value| Escaped(value).to_string()));
    }
    for (column, (_, kind)) in table.column_iter_mut().zip(columns) {
        if matches!(kind, Kind::Integer | Kind::Real) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// A row that serializes as an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowObject<'r> {
    columns: &'static [ReportColumn],
    row: &'r [Value],
}

impl<'r> RowObject<'r> {
    pub(crate) fn new(report: Report, row: &'r [Value]) -> Self {
        let columns = report.columns();
        assert_eq!(
            row.len(),
            columns.len(),
            "the store reads a cell for each column of the report"
        );
        Self { columns, row }
    }
}

impl Serialize for RowObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.row.len()))?;
        for ((name, _), value) in self.columns.iter().zip(self.row) {
            map.serialize_entry(&camel_case(name), value)?;
        }
        map.end()
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_none(),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Integer(integer) => serializer.serialize_i64(*integer),
            Self::Real(real) => serializer.serialize_f64(*real),
            Self::Time(time) => serializer.collect_str(time),
        }
    }
}

/// A column's name as a JSON member.
pub(crate) fn camel_case(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    let mut starts_word = false;
    for char in name.chars() {
        if char == '_' {
            starts_word = true;
        } else {
            text.push(if starts_word { char.to_ascii_uppercase() } else { char });
            starts_word = false;
        }
    }
    text
}

/// The available reports.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReportList<'r> {
    pub(crate) reports: &'r [ReportInfo],
}

/// The name and the contents of a report.
#[derive(Serialize, ToSchema)]
#[schema(as = Report)]
pub(crate) struct ReportInfo {
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    /// The view in the database.
    pub(crate) view: &'static str,
    pub(crate) columns: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_report_add_up_to_the_encoded_report() -> io::Result<()> {
        let row = |reason: &str, rockets| {
            let reason = Value::Text(reason.into());
            vec![reason, Value::Integer(rockets), Value::Null]
        };
        let rows = [row("a,\n\"b\"", 1), row("=1", 2), row("", 3)];
        for count in 0..=rows.len() {
            let rows: Vec<_> = rows.iter().take(count).cloned().collect();
            let report = ReportRows { report: Report::Explosions, rows, next: None };
            for syntax in [Syntax::Csv, Syntax::Json, Syntax::Ndjson] {
                let mut writer = ReportWriter::new(report.report, syntax);
                let mut text = writer.start()?;
                for row in report.rows.chunks(1) {
                    text.extend(writer.rows(row)?);
                }
                text.extend(writer.end(None).bytes());
                assert_eq!(text, encode(&report, syntax, None)?);
            }
        }
        Ok(())
    }

    #[test]
    fn every_syntax_has_the_documented_form() -> io::Result<()> {
        let rows = vec![vec![Value::Text("=1".into()), Value::Integer(2), Value::Null]; 2];
        let report = ReportRows { report: Report::Explosions, rows, next: None };
        let row = r#"{"reason":"=1","rockets":2,"latestUpdate":null}"#;
        let json = |next_cursor: &str| {
            format!(r#"{{"name":"explosions","rows":[{row},{row}],"nextCursor":{next_cursor}}}"#)
        };
        let csv = "reason,rockets,latest_update\r\n'=1,2,\r\n'=1,2,\r\n".to_owned();
        for (syntax, next_cursor, expected) in [
            (Syntax::Csv, Some("Wy_-"), csv),
            (Syntax::Json, None, json("null")),
            (Syntax::Json, Some("Wy_-"), json(r#""Wy_-""#)),
            (Syntax::Ndjson, Some("Wy_-"), format!("{row}\n{row}\n")),
        ] {
            let encoded = encode(&report, syntax, next_cursor)?;
            assert_eq!(String::from_utf8_lossy(&encoded), expected);
        }
        Ok(())
    }
}
