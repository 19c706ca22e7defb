//! `ingest`: reads a file of messages straight into the database.

use std::fs::File;
use std::io::{Read, stdin};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::output::{self, print_error, print_line};
use super::{DatabaseArgs, Failure};
use crate::ingest::file::{self, FileSummary};
use crate::ingest::preview::preview;
use crate::input::{self, BytesRead};
use crate::terminal::Escaped;
use crate::wire::ndjson::BadLine;

/// The maximum number of rejected lines that are printed.
const MAX_REJECTED_PRINTED: u64 = 100;

/// Read a file of messages (newline-delimited JSON) straight into the database
///
/// The file may be compressed with gzip or zstd.
///
/// It can run while `serve` runs on the same database, and it can be repeated: each message counts
/// once. Prints how many messages were new, duplicates or rejected, and the first 100 rejected
/// lines on standard error.
///
/// With --dry-run, it stores nothing, and prints how many messages would be new, duplicates or
/// rejected if it did.
///
/// Exit status: 0 if every line was a message, 2 if some lines were rejected (the others are
/// stored), 1 if the command could not read the whole input or store it.
#[derive(Clone, Debug, Args)]
pub(super) struct IngestArgs {
    /// The file, one message per line; - reads standard input
    file: PathBuf,

    /// Only count what would be stored
    #[arg(long, env = "ROCKET_MONITOR_DRY_RUN")]
    dry_run: bool,

    #[command(flatten)]
    database: DatabaseArgs,
}

pub(super) fn run(args: &IngestArgs) -> Result<ExitCode, Failure> {
    if args.database.database.is_temporary() {
        return Err(
            "a database in memory would be lost when ingest ends; give --database the path \
                    of a file"
                .into(),
        );
    }
    let (input, bytes) = open(&args.file)?;
    let store = args.database.open(!args.dry_run)?;
    let (progress, position) = (progress_bar(bytes), BytesRead::default());
    let input = input::decode(input, position.clone())?;
    let mut rejected = 0;
    let report_bad_line = |bad: BadLine| {
        rejected += 1;
        if rejected <= MAX_REJECTED_PRINTED {
            progress.suspend(|| {
                print_error(format_args!("line {}: {}", bad.line, Escaped(bad.detail)))
            });
        }
    };
    let show_progress = || progress.set_position(position.bytes());
    let ingested = if args.dry_run {
        preview(input, &store, report_bad_line, show_progress)
    } else {
        file::ingest(input, &store, report_bad_line, show_progress)
    };
    progress.finish_and_clear();
    let summary = ingested?;
    if summary.rejected > MAX_REJECTED_PRINTED {
        print_error(format_args!(
            "{} more lines were rejected",
            summary.rejected - MAX_REJECTED_PRINTED
        ));
    }
    report(&summary, args.dry_run)?;
    Ok(if summary.rejected == 0 { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

fn report(summary: &FileSummary, dry_run: bool) -> Result<(), Failure> {
    let FileSummary { tally, rejected } = summary;
    let received = tally.applied + tally.duplicates + rejected;
    let (verb, end) =
        if dry_run { ("would be applied", "; nothing was stored") } else { ("applied", "") };
    print_line!(
        "received {received}: {} {verb}, {} duplicates, {rejected} rejected{end}",
        tally.applied,
        tally.duplicates
    )
}

/// The input, and its length in bytes if known.
fn open(path: &Path) -> Result<(Box<dyn Read + Send>, Option<u64>), Failure> {
    if path == Path::new("-") {
        return Ok((Box::new(stdin()), None));
    }
    let unreadable = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(format!("{} is a directory; give a file", path.display()).into());
    }
    Ok((Box::new(file), metadata.is_file().then_some(metadata.len())))
}

fn progress_bar(bytes: Option<u64>) -> indicatif::ProgressBar {
    let template = match bytes {
        Some(_) => "{wide_bar} {bytes}/{total_bytes} ({bytes_per_sec}, {eta} to go)",
        None => "{spinner} {bytes} ({bytes_per_sec})",
    };
    output::progress_bar(bytes, template)
}
