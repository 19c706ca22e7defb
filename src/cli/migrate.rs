//! `migrate`: creates the schema or brings it up to date.

use std::process::ExitCode;

use clap::Args;

use super::output::print_line;
use super::{DatabaseArgs, Failure};
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

    /// Distribute the tables over a Citus cluster (only for Postgres with the citus extension)
    #[arg(long, env = "ROCKET_MONITOR_DISTRIBUTE")]
    distribute: bool,

    /// Into how many parts to distribute the rockets: a power of two, and at least the number of
    /// nodes that the cluster will ever have. The default is twice the number of workers, or more
    #[arg(long, env = "ROCKET_MONITOR_BUCKETS", value_parser = buckets)]
    buckets: Option<u16>,
}

fn buckets(text: &str) -> Result<u16, String> {
    let count = text
        .parse()
        .ok()
        .filter(|count: &u16| (2..=256).contains(count) && count.is_power_of_two());
    count.ok_or_else(|| "it must be a power of two from 2 to 256".to_owned())
}

pub(super) fn run(args: &MigrateArgs) -> Result<ExitCode, Failure> {
    let store = args.database.open(true)?;
    let database = Escaped(&args.database.database);
    print_line!("{database}: schema version {}, up to date", store.schema_version()?)?;
    if args.distribute {
        let outcome =
            if store.distribute(args.buckets)? { "distributed" } else { "distributed already" };
        print_line!("{database}: {outcome}")?;
    }
    Ok(ExitCode::SUCCESS)
}
