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

    /// Distribute the tables by channel over a Citus cluster: for Postgres with the extension citus only
    #[arg(long, env = "ROCKET_MONITOR_DISTRIBUTE")]
    distribute: bool,
}

#[allow(clippy::print_stdout)]
pub(super) fn run(args: &MigrateArgs) -> Result<Finished, Failure> {
    let store = args.database.open(true)?;
    println!("{}: schema version {}, up to date", args.database.database, store.schema_version()?);
    if args.distribute {
        let done = if store.distribute()? { "distributed by channel" } else { "distributed already" };
        println!("{}: {done}", args.database.database);
    }
    Ok(Finished::Well)
}
