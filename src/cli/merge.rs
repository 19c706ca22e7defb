//! `merge`: merges another database, or its export, into a database.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;

use super::output::{print_error, print_line};
use super::{DatabaseArgs, Failure};
use crate::domain::merge::MergeEntry;
use crate::exchange::{ExportReader, Exporter, MergeBatch, MergeReport};
use crate::input::{self, BytesRead, read_some};
use crate::store::merge::ExportQuery;
use crate::store::{Database, OpenOptions, Store, is_sqlite_file};
use crate::terminal::Escaped;
use crate::wire::export::ExportLine;

/// The size of a read.
const BLOCK_BYTES: usize = 256 * 1024;

/// Merge another database into this one, while both are in use
///
/// The SOURCE is an export (plain, gzip or zstd; - is standard input), an SQLite file or a Postgres
/// URL; it is not changed. Afterwards the database has what it would have if it had processed the
/// messages of both: messages that both have count once. Repeating a merge changes nothing, and one
/// that was interrupted can be repeated. A rocket that was forgotten, in either database, after it
/// last received a message does not come back.
///
/// If both have different contents for the same messages, what is here stays, and the conflict is
/// printed. So are messages that an earlier version has processed and that can't be merged: send
/// them again.
///
/// Exit status: 0 if everything was merged, 3 if there were conflicts (the first 100 are printed on
/// standard error), 1 if the command failed.
#[derive(Clone, Debug, Args)]
pub(super) struct MergeArgs {
    /// An export, an SQLite file or a Postgres URL
    source: std::ffi::OsString,

    /// Print what would change, and change nothing
    #[arg(long, env = "ROCKET_MONITOR_DRY_RUN")]
    dry_run: bool,

    #[command(flatten)]
    database: DatabaseArgs,
}

pub(super) fn run(args: &MergeArgs) -> Result<ExitCode, Failure> {
    let source = Source::open(args)?;
    let store = args.database.open(!args.dry_run)?;
    let mut merge = Merge {
        store,
        dry_run: args.dry_run,
        reader: ExportReader::default(),
        batch: MergeBatch::default(),
        report: MergeReport::default(),
    };
    let merged = match source {
        Source::Database(exporter) => merge.read_database(exporter),
        Source::Export(input) => merge.read_export(input),
    };
    merge.flush()?;
    print_report(&merge.report, args.dry_run)?;
    merged?;
    Ok(ExitCode::from(if merge.report.conflict_count > 0 { 3 } else { 0 }))
}

enum Source {
    Database(Box<Exporter>),
    Export(Box<dyn Read>),
}

impl Source {
    fn open(args: &MergeArgs) -> Result<Self, Failure> {
        let path = Path::new(&args.source);
        if path == Path::new("-") {
            let stdin = input::decode(io::stdin(), BytesRead::default())?;
            return Ok(Self::Export(Box::new(stdin)));
        }
        let is_url = matches!(Database::parse(&args.source), Ok(Database::Postgres(_)));
        let failure = |error: io::Error| format!("{}: {error}", Escaped(path.display()));
        if is_url || is_sqlite_file(path).map_err(failure)? {
            let database =
                Database::parse(&args.source).map_err(|reason| format!("the SOURCE {reason}"))?;
            let options = OpenOptions { migrate: false, ..OpenOptions::default() };
            let store = Store::open(&database, &options)?;
            return Ok(Self::Database(Box::new(Exporter::new(store, ExportQuery::default()))));
        }
        let file = File::open(path).map_err(failure)?;
        Ok(Self::Export(Box::new(input::decode(file, BytesRead::default())?)))
    }
}

struct Merge {
    store: Store,
    dry_run: bool,
    reader: ExportReader,
    batch: MergeBatch,
    report: MergeReport,
}

impl Merge {
    fn read_database(&mut self, mut exporter: Box<Exporter>) -> Result<(), Failure> {
        while let Some(lines) = exporter.next()? {
            for line in lines {
                if let ExportLine::Entry(entry) = line {
                    self.add(entry)?;
                }
            }
        }
        Ok(())
    }

    fn read_export(&mut self, mut input: Box<dyn Read>) -> Result<(), Failure> {
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let read = read_some(&mut input, &mut block)?;
            let part = (read > 0).then(|| Bytes::copy_from_slice(&block[..read]));
            let mut entries = Vec::new();
            let result = self.reader.read(part.as_ref(), &mut entries);
            for entry in entries {
                self.add(entry)?;
            }
            result.map_err(|error| {
                let error = Escaped(error);
                format!("the SOURCE is not an export: {error}; what is before it was merged")
            })?;
            if part.is_none() {
                return Ok(());
            }
        }
    }

    fn add(&mut self, entry: MergeEntry) -> Result<(), Failure> {
        self.batch.add(entry);
        if self.batch.is_full() { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let batch = std::mem::take(&mut self.batch);
        if !batch.is_empty() {
            batch.merge(&self.store, self.dry_run, &mut self.report)?;
        }
        Ok(())
    }
}

fn print_report(report: &MergeReport, dry_run: bool) -> Result<(), Failure> {
    print_conflicts(report);
    let MergeReport { rockets, changed, gained, conflict_count, .. } = report;
    let nothing = if dry_run { "; nothing was changed" } else { "" };
    print_line!(
        "read {rockets} rockets: {changed} changed, {gained} messages gained, {conflict_count} \
         conflicts{nothing}"
    )
}

pub(super) fn print_conflicts(report: &MergeReport) {
    for conflict in &report.conflicts {
        let (channel, detail) = (Escaped(&conflict.channel), Escaped(&conflict.detail));
        print_error(format_args!("{channel}: {} to {}: {detail}", conflict.first, conflict.last));
    }
}
