//! The command line: the options that commands share, and exit statuses. Each subcommand has its
//! own file.

mod backup;
mod check;
mod completions;
mod database;
mod export;
mod forget;
mod give_up;
mod ingest;
mod launch;
mod logging;
mod merge;
mod migrate;
mod output;
mod output_file;
mod report;
mod resend;
mod serve;
mod sync;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::output::print_error;
use crate::store::{Database, OpenError, OpenOptions, Store};
use crate::terminal::escape;
use crate::tokens::{TokenError, Tokens};

/// The error of a failed command, for people. The exit status is 1 unless the command's help says
/// otherwise.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Receives rocket messages over HTTP, in any order and possibly more than once, and keeps the
/// state of every rocket
///
/// Without a command, it runs serve.
#[derive(Debug, Parser)]
#[command(
    name = "rocket-monitor",
    version,
    args_conflicts_with_subcommands = true,
    after_help = EXAMPLES
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    serve: serve::ServeArgs,
}

/// The Redis option of this program's predecessor. clap doesn't know it, so that neither help nor
/// completions offer it; only its error is special.
const REDIS_SWITCH: &str = "-r";
const REDIS_REMOVED: &str = "the option -r is gone, because Redis is no longer used. Use \
                             --database PATH to keep the state in an SQLite file (the default is \
                             rockets.db), or --database memory to keep it only while the program \
                             runs.";

const EXAMPLES: &str = "\
Examples:
  rocket-monitor                            serve on http://127.0.0.1:8088, state in ./rockets.db
  rocket-monitor serve --database /var/lib/rockets.db --listen 127.0.0.1:9000
  rocket-monitor serve --database postgres://rocket@db.example/rockets?sslmode=verify-full
  rocket-monitor launch http://127.0.0.1:8088 --verify
  rocket-monitor resend messages.ndjson http://127.0.0.1:8088
  rocket-monitor ingest messages.ndjson --database rockets.db
  rocket-monitor check --database rockets.db
  rocket-monitor report missions --format csv
  rocket-monitor backup rockets-copy.db

Every option can also be set by an environment variable: ROCKET_MONITOR_ and the option's name in
upper case, for example ROCKET_MONITOR_DATABASE=/var/lib/rockets.db. For an option without a value,
use true, yes, on or 1, or false, no, off or 0. An empty variable counts as unset, except for token
variables, which must not be empty.

Exit status:
  0  The command succeeded. If the reader of its output closes the pipe early, as head does, the
     rest of the output is dropped and the status does not change.
  1  The command failed, or its output could not be written (for example because the disk is full).
     The reason is on standard error. check: the database has problems. forget: the channel is
     unknown. launch --verify: a rocket differs from what was sent. resend: messages of the file are
     still missing.
  2  The command line is wrong. ingest, resend: some lines were not messages. check: the audit could
     not be completed.";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Launch(launch::LaunchArgs),
    Resend(resend::ResendArgs),
    Ingest(ingest::IngestArgs),
    Check(check::CheckArgs),
    Report(report::ReportArgs),
    Backup(backup::BackupArgs),
    Forget(forget::ForgetArgs),
    Export(export::ExportArgs),
    Merge(merge::MergeArgs),
    Sync(sync::SyncArgs),
    GiveUp(give_up::GiveUpArgs),
    Migrate(migrate::MigrateArgs),
    Completions(completions::CompletionsArgs),
    /// Print the manual page (for man: rocket-monitor man | man -l -)
    Man,
}

#[derive(Clone, Debug, Args)]
struct DatabaseArgs {
    /// The database: the path of an SQLite file, `memory` (lost when the process ends), or
    /// postgres://user@host/database
    #[arg(
        long,
        value_name = "DATABASE",
        env = "ROCKET_MONITOR_DATABASE",
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

/// The token files. ROCKET_MONITOR_WRITE_TOKEN and ROCKET_MONITOR_READ_TOKEN can hold a token
/// itself.
#[derive(Clone, Debug, Args)]
struct TokenArgs {
    #[command(flatten)]
    write: WriteTokenArgs,

    /// A file of read tokens, one per line (or set ROCKET_MONITOR_READ_TOKEN to one token)
    #[arg(long, value_name = "FILE", env = "ROCKET_MONITOR_READ_TOKEN_FILE")]
    read_token_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
struct WriteTokenArgs {
    /// A file of write tokens, one per line (or set ROCKET_MONITOR_WRITE_TOKEN to one token)
    #[arg(long, value_name = "FILE", env = "ROCKET_MONITOR_WRITE_TOKEN_FILE")]
    write_token_file: Option<PathBuf>,
}

impl TokenArgs {
    fn write(&self) -> Result<Option<Tokens>, TokenError> {
        self.write.write()
    }

    fn read(&self) -> Result<Option<Tokens>, TokenError> {
        tokens("--read-token-file", self.read_token_file.as_deref(), "ROCKET_MONITOR_READ_TOKEN")
    }
}

impl WriteTokenArgs {
    fn write(&self) -> Result<Option<Tokens>, TokenError> {
        tokens("--write-token-file", self.write_token_file.as_deref(), "ROCKET_MONITOR_WRITE_TOKEN")
    }
}

fn tokens(
    option: &'static str,
    file: Option<&Path>,
    variable: &'static str,
) -> Result<Option<Tokens>, TokenError> {
    let value = std::env::var_os(variable);
    Tokens::load((option, file), (variable, value.as_deref()))
}

/// Parses the command line and runs the command.
pub fn run() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) if is_redis_switch(&error) => return fail(REDIS_REMOVED, 2),
        Err(error) => return print_clap_output(&error),
    };
    database::warn_about_passwords();
    let result = match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => serve::run(&args),
        Command::Launch(args) => launch::run(&args),
        Command::Resend(args) => resend::run(&args),
        Command::Ingest(args) => ingest::run(&args),
        // For `check`, status 1 means that the database has problems, so a failure is 2.
        Command::Check(args) => match check::run(&args) {
            Err(failure) => return fail(&failure.to_string(), 2),
            checked => checked,
        },
        Command::Forget(args) => forget::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Merge(args) => merge::run(&args),
        Command::Sync(args) => sync::run(&args),
        Command::GiveUp(args) => give_up::run(&args),
        Command::Migrate(args) => migrate::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Backup(args) => backup::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man => completions::manual(),
    };
    result.unwrap_or_else(|failure| fail(&failure.to_string(), 1))
}

fn is_redis_switch(error: &clap::Error) -> bool {
    let argument = error.get(ContextKind::InvalidArg);
    matches!(argument, Some(ContextValue::String(argument)) if argument == REDIS_SWITCH)
}

fn parse() -> Result<Cli, clap::Error> {
    let mut command = command();
    // Without a command, the program accepts the options of `serve`. Their variables must not stop
    // a command that has no such option.
    let first = std::env::args_os().nth(1);
    if first.is_some_and(|first| command.find_subcommand(first).is_some()) {
        command = command.mut_args(|arg| arg.env(None));
    }
    let matches = command.try_get_matches_from_mut(std::env::args_os());
    let parsed = matches.and_then(|matches| {
        Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    });
    parsed.map_err(|error| explain(error, &command))
}

/// The command line. It accepts several spellings of booleans, and any case of other fixed values.
fn command() -> clap::Command {
    fn accept_lenient_values(command: clap::Command) -> clap::Command {
        command.mut_args(accept_lenient_value).mut_subcommands(accept_lenient_values)
    }
    // clap's default colours the output in any terminal if the variable CI is set.
    let colours =
        if output::terminal_has_colours() { ColorChoice::Auto } else { ColorChoice::Never };
    accept_lenient_values(Cli::command()).color(colours)
}

fn accept_lenient_value(arg: Arg) -> Arg {
    let is_flag = matches!(arg.get_action(), ArgAction::SetTrue);
    // Help doesn't show the values of variables: they may be secret, or hold terminal escapes.
    let arg = arg.hide_env_values(true);
    let arg = if is_flag { arg.value_parser(boolean) } else { arg.ignore_case(true) };
    match value_of_variable(&arg) {
        // Many shells and service managers can set a variable to the empty text, but not unset it.
        Some(value) if value.is_empty() && !is_secret(&arg) => arg.env(None),
        _ => arg,
    }
}

/// Whether an option names a file of secrets. Its variable must not be empty: that would leave the
/// service without tokens.
fn is_secret(arg: &Arg) -> bool {
    arg.get_long().is_some_and(|name| name.ends_with("-token-file"))
}

fn boolean(text: &str) -> Result<bool, &'static str> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" | "t" | "y" => Ok(true),
        "false" | "no" | "off" | "0" | "f" | "n" | "" => Ok(false),
        _ => Err("must be true, yes, on or 1, or false, no, off or 0"),
    }
}

fn value_of_variable(arg: &Arg) -> Option<String> {
    arg.get_env().and_then(std::env::var_os).map(|value| value.to_string_lossy().into_owned())
}

/// Makes a text that may quote arguments safe to print.
fn redact_and_escape(text: &str) -> String {
    escape(&database::redact_passwords(text)).into_owned()
}

/// Makes the values that an error quotes safe to print, and names the environment variable that a
/// value came from.
fn explain(mut error: clap::Error, command: &clap::Command) -> clap::Error {
    let variable = variable_at_fault(&error, command).map(|name| {
        StyledStr::from(format!(
            "the value comes from the environment variable {}",
            name.to_string_lossy()
        ))
    });
    let quoted: Vec<(ContextKind, ContextValue)> = error
        .context()
        .filter_map(|(kind, value)| match value {
            ContextValue::String(text) => {
                Some((kind, ContextValue::String(redact_and_escape(text))))
            }
            // clap's tips also quote arguments.
            ContextValue::StyledStrs(tips) => {
                let tips =
                    tips.iter().map(|tip| redact_and_escape(&tip.to_string()).into()).collect();
                Some((kind, ContextValue::StyledStrs(tips)))
            }
            _ => None,
        })
        .collect();
    for (kind, value) in quoted {
        error.insert(kind, value);
    }
    if let Some(tip) = variable {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
    error
}

fn variable_at_fault<'c>(error: &clap::Error, command: &'c clap::Command) -> Option<&'c OsStr> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let (name, value) = (text(ContextKind::InvalidArg)?, text(ContextKind::InvalidValue)?);
    let args = command
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .chain(command.get_arguments());
    // The name looks like "--listen <ADDRESS:PORT>".
    let name = name.split([' ', '=', '[']).next()?.strip_prefix("--")?;
    let mut args = args.filter(|arg| arg.get_long() == Some(name));
    args.find(|arg| value_of_variable(arg).as_deref() == Some(value)).and_then(Arg::get_env)
}

/// Prints the help, the version, or a usage error.
fn print_clap_output(error: &clap::Error) -> ExitCode {
    let printed = error.print();
    if error.use_stderr() {
        // If standard error can't be written, only the exit status shows the error.
        return ExitCode::from(2);
    }
    output::ignore_closed_pipe(printed)
        .map_or_else(|failure| fail(&failure.to_string(), 1), |()| ExitCode::SUCCESS)
}

fn fail(message: &str, status: u8) -> ExitCode {
    print_error(format_args!("rocket-monitor: {}", redact_and_escape(message)));
    ExitCode::from(status)
}
