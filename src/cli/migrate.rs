//! `migrate`: makes the schema, or brings it up to date.

use clap::Args;

use super::{DatabaseArgs, Failure, Finished};

/// Make the database, or bring its schema up to date, and end
///
/// `serve` and `ingest` do this by themselves. Running it first, and them with --no-migrate, keeps the right to change
/// the schema away from the service.
#[derive(Clone, Debug, Args)]
pub(super) struct MigrateArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// Distribute the tables over a Citus cluster: for Postgres only
    #[arg(long, env = "ROCKET_MONITOR_DISTRIBUTE")]
    distribute: bool,
}

#[allow(clippy::print_stdout)]
pub(super) fn run(args: &MigrateArgs) -> Result<Finished, Failure> {
    if args.distribute {
        return Err("--distribute: an SQLite database is one file, it can't be distributed".into());
    }
    let version = args.database.open(true)?.schema_version()?;
    println!("{}: schema version {version}, up to date", args.database.database);
    Ok(Finished::Well)
}
