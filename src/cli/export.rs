//! `export`: writes what another database merges.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::output::print_part;
use super::output_file::OutputFile;
use super::{DatabaseArgs, Failure};
use crate::domain::timestamp::Timestamp;
use crate::exchange::Exporter;
use crate::store::merge::ExportQuery;
use crate::terminal::Escaped;

/// Write what another database merges, while the service runs
///
/// The export has a line of JSON for each rocket with its processed ranges, and for each rocket
/// that was forgotten in the last 30 days: its size grows with the gaps, not with the messages.
/// Each rocket is read from one snapshot. The first line has the time `through`: with --since and
/// that time, a later export has only what has changed.
///
/// Exit status: 0 if everything was written, 1 if not.
#[derive(Clone, Debug, Args)]
pub(super) struct ExportArgs {
    /// The file to write, which appears when it is complete; standard output if it is left out or -
    file: Option<PathBuf>,

    /// Export only rockets that have changed since then, like 2026-11-23T10:00:00Z
    #[arg(long, value_name = "TIME", env = "ROCKET_MONITOR_SINCE", value_parser = Timestamp::parse)]
    since: Option<Timestamp>,

    /// Export only rockets whose channels start with this
    #[arg(long, value_name = "PREFIX", env = "ROCKET_MONITOR_CHANNEL_PREFIX", default_value = "")]
    channel_prefix: String,

    #[command(flatten)]
    database: DatabaseArgs,
}

pub(super) fn run(args: &ExportArgs) -> Result<ExitCode, Failure> {
    let store = args.database.open(false)?;
    let query =
        ExportQuery { after: None, since: args.since, channel_prefix: args.channel_prefix.clone() };
    let mut exporter = Exporter::new(store, query);
    match args.file.as_deref().filter(|file| *file != Path::new("-")) {
        Some(path) => {
            let failure = |error: io::Error| format!("{}: {error}", Escaped(path.display()));
            let mut file = OutputFile::create(path).map_err(failure)?;
            while let Some(lines) = exporter.next_text()? {
                file.write_all(&lines).map_err(failure)?;
            }
            file.finish().map_err(failure)?;
        }
        None => {
            while let Some(lines) = exporter.next_text()? {
                if print_part(&lines)?.is_break() {
                    break;
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
