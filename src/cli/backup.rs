//! `backup`: copies the database while other processes write to it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::output::print_line;
use super::{DatabaseArgs, Failure};
use crate::store::{Backup, Database};
use crate::terminal::Escaped;

/// Copy the database to a file, while the service runs
///
/// The copy is a consistent snapshot. It is audited as by `check` and synced to disk before it
/// appears under its name, so the file is never a partial copy. The copy is a database like the
/// original: to restore it, stop the service, move the copy into the original's place, and remove
/// the original's -wal and -shm files. For Postgres use pg_dump.
///
/// Exit status: 0 if the copy was made, 1 if not.
#[derive(Clone, Debug, Args)]
pub(super) struct BackupArgs {
    /// The file to write
    file: PathBuf,

    /// Replace the file if it exists
    #[arg(long, env = "ROCKET_MONITOR_REPLACE")]
    replace: bool,

    #[command(flatten)]
    database: DatabaseArgs,
}

pub(super) fn run(args: &BackupArgs) -> Result<ExitCode, Failure> {
    match Database::parse(args.file.as_os_str()) {
        Ok(Database::File(_) | Database::Memory) => {}
        Ok(Database::Postgres(_)) => {
            return Err("the file to write is a Postgres URL; give a path".into());
        }
        Err(reason) => return Err(format!("the file to write {reason}").into()),
    }
    let store = args.database.open(false)?;
    let Backup { channels, ranges, bytes } = store.backup(&args.file, args.replace)?;
    let file = Escaped(args.file.display());
    print_line!(
        "{file}: {channels} channels with {ranges} processed ranges, {bytes} bytes, checked"
    )?;
    Ok(ExitCode::SUCCESS)
}
