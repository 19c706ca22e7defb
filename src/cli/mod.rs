//! The command line: what can be asked for, and how it ends. Each subcommand has a file of its own.

mod backup;
mod check;
mod completions;
mod database;
mod forget;
mod ingest;
mod launch;
mod logging;
mod migrate;
mod report;
mod serve;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::access::{TokenError, Tokens};
use crate::store::{Database, OpenError, OpenOptions, Store};

/// How a command fails: what went wrong, for people. Its exit status is 1 unless it says otherwise.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Takes the messages of rockets over HTTP, in any order and more than once, and always knows what is known of every
/// rocket.
///
/// Without a command it serves.
#[derive(Debug, Parser)]
#[command(name = "rocket-monitor", version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    serve: serve::ServeArgs,

    /// The old program's switch for Redis.
    #[arg(short = 'r', hide = true)]
    redis: bool,
}

const EXAMPLES: &str = "\
Examples:
  rocket-monitor                                     serve on http://127.0.0.1:8088, state in ./rockets.db
  rocket-monitor serve --database /var/lib/rockets.db --listen 127.0.0.1:9000
  rocket-monitor serve --database postgres://rocket@db.example/rockets?sslmode=verify-full
  rocket-monitor launch http://127.0.0.1:8088 --verify
  rocket-monitor ingest messages.ndjson --database rockets.db
  rocket-monitor check --database rockets.db
  rocket-monitor report missions --format csv
  rocket-monitor backup rockets-copy.db

Every option can also be set by an environment variable: ROCKET_MONITOR_ and the option's name in capitals,
for example ROCKET_MONITOR_DATABASE=/var/lib/rockets.db.";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Launch(launch::LaunchArgs),
    Ingest(ingest::IngestArgs),
    Check(check::CheckArgs),
    Report(report::ReportArgs),
    Backup(backup::BackupArgs),
    Forget(forget::ForgetArgs),
    Migrate(migrate::MigrateArgs),
    Completions(completions::CompletionsArgs),
    /// Print the manual page (for man: rocket-monitor man | man -l -)
    Man,
}

/// Which database a command works on.
#[derive(Clone, Debug, Args)]
struct DatabaseArgs {
    /// Where the state is kept: the path of an SQLite file, `memory`, which is gone with the process, or
    /// postgres://user@host/database
    #[arg(
        long,
        value_name = "DATABASE",
        env = "ROCKET_MONITOR_DATABASE",
        hide_env_values = true,
        default_value = "rockets.db",
        value_parser = database::DatabaseParser
    )]
    database: Database,
}

impl DatabaseArgs {
    fn open(&self, migrate: bool) -> Result<Store, OpenError> {
        Store::open(&self.database, &OpenOptions { migrate, ..OpenOptions::default() })
    }
}

/// Where the tokens are. They themselves can be said by ROCKET_MONITOR_WRITE_TOKEN and ROCKET_MONITOR_READ_TOKEN.
#[derive(Clone, Debug, Args)]
struct TokenArgs {
    /// A file of tokens that may write, one a line (the token itself can be said by ROCKET_MONITOR_WRITE_TOKEN)
    #[arg(long, value_name = "FILE", env = "ROCKET_MONITOR_WRITE_TOKEN_FILE")]
    write_token_file: Option<PathBuf>,

    /// A file of tokens that may read, one a line (the token itself can be said by ROCKET_MONITOR_READ_TOKEN)
    #[arg(long, value_name = "FILE", env = "ROCKET_MONITOR_READ_TOKEN_FILE")]
    read_token_file: Option<PathBuf>,
}

impl TokenArgs {
    fn write(&self) -> Result<Option<Tokens>, TokenError> {
        tokens("--write-token-file", self.write_token_file.as_deref(), "ROCKET_MONITOR_WRITE_TOKEN")
    }

    fn read(&self) -> Result<Option<Tokens>, TokenError> {
        tokens("--read-token-file", self.read_token_file.as_deref(), "ROCKET_MONITOR_READ_TOKEN")
    }
}

fn tokens(option: &'static str, file: Option<&Path>, variable: &'static str) -> Result<Option<Tokens>, TokenError> {
    let value = std::env::var(variable).ok();
    Tokens::from((option, file), (variable, value.as_deref()))
}

/// What a command says in the end.
enum Finished {
    /// All went well.
    Well,
    /// It did what it was asked for, and the answer is bad news, which is the exit status.
    With(u8),
}

/// Reads the command line and does what it says.
pub fn run() -> ExitCode {
    let cli = database::command_line();
    database::warn_of_passwords();
    if cli.redis {
        return fail(
            "-r is gone, and Redis with it: the state is in a database. Use --database PATH for an SQLite file \
             (rockets.db unless you say otherwise), or --database memory to keep nothing.",
            2,
        );
    }
    let finished = match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => serve::run(&args),
        Command::Launch(args) => launch::run(&args),
        Command::Ingest(args) => ingest::run(&args),
        // Here 1 says that something is wrong in the database.
        Command::Check(args) => match check::run(&args) {
            Err(failure) => return fail(&failure.to_string(), 2),
            checked => checked,
        },
        Command::Forget(args) => forget::run(&args),
        Command::Migrate(args) => migrate::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Backup(args) => backup::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man => completions::manual(),
    };
    match finished {
        Ok(Finished::Well) => ExitCode::SUCCESS,
        Ok(Finished::With(status)) => ExitCode::from(status),
        Err(failure) => fail(&failure.to_string(), 1),
    }
}

#[allow(clippy::print_stderr)]
fn fail(message: &str, status: u8) -> ExitCode {
    eprintln!("rocket-monitor: {message}");
    ExitCode::from(status)
}
