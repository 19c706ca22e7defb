//! `backup`: a copy of the database, made while others write to it.

use std::path::PathBuf;

use clap::Args;

use super::{DatabaseArgs, Failure, Finished};
use crate::store::{Backup, Store};

/// Copy the database to a file, while the service runs
///
/// The copy is as of one moment, audited as by `check`, synced, and only then there: never a part of one. It is a database
/// like the original; to restore it, stop the service and put it in the original's place (without old -wal and -shm files).
/// For Postgres use pg_dump.
#[derive(Clone, Debug, Args)]
pub(super) struct BackupArgs {
    /// The file to make
    file: PathBuf,

    /// Replace the file if it is there
    #[arg(long, env = "ROCKET_MONITOR_REPLACE")]
    replace: bool,

    #[command(flatten)]
    database: DatabaseArgs,
}

#[allow(clippy::print_stdout)]
pub(super) fn run(args: &BackupArgs) -> Result<Finished, Failure> {
    let Store::Sqlite(store) = args.database.open(false)? else {
        return Err("backup copies SQLite files; for Postgres use pg_dump, which also works while instances run".into());
    };
    let Backup { channels, ranges, bytes } = store.backup(&args.file, args.replace)?;
    println!("{}: {channels} channels with {ranges} processed ranges, {bytes} bytes, checked", args.file.display());
    Ok(Finished::Well)
}
