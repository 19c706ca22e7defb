//! Reports as text: CSV and tables, for the HTTP API and the command line alike.

use comfy_table::{CellAlignment, Table, presets};

use crate::store::report::{Kind, ReportRows, Value};

/// Comma-separated values as RFC 4180 has them: a line of the columns' SQL names, then the rows; null is empty.
pub fn csv(report: &ReportRows) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    writer.write_record(report.report.columns().iter().map(|(name, _)| name))?;
    for row in &report.rows {
        writer.write_record(row.iter().map(Value::to_string))?;
    }
    writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))
}

/// A table for a terminal: numbers to the right, null as nothing.
pub fn table(report: &ReportRows) -> String {
    let columns = report.report.columns();
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.set_header(columns.iter().map(|(name, _)| *name));
    for row in &report.rows {
        table.add_row(row.iter().map(Value::to_string));
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
