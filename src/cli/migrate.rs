//! `migrate`: creates the schema or brings it up to date.

use clap::Args;

use super::output::say;
use super::{DatabaseArgs, Failure, Finished};
use crate::terminal::Escaped;

/// Create the database, or bring its schema up to date
///
/// `serve` and `ingest` do this themselves. If you run `migrate` first and `serve` with
/// --no-migrate, the service needs no permission to change the schema.
///
/// Exit status: 0 if the schema is up to date, 1 if the command failed.
#[derive(Clone, Debug, Args)]
pub(super) struct MigrateArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// Distribute the tables by channel over a Citus cluster (only for Postgres with the citus
    /// extension)
    #[arg(long, env = "ROCKET_MONITOR_DISTRIBUTE")]
    distribute: bool,
}

pub(super) fn run(args: &MigrateArgs) -> Result<Finished, Failure> {
    let store = args.database.open(true)?;
    let database = Escaped(&args.database.database);
    say!("{database}: schema version {}, up to date", store.schema_version()?)?;
    if args.distribute {
        let done = if store.distribute()? { "distributed by channel" } else { "distributed already" };
        say!("{database}: {done}")?;
    }
    Ok(Finished::Well)
}
