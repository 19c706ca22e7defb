//! Parses `--database` so that no error message shows a password.

use std::ffi::OsStr;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command, Error};

use super::output::print_error;
use crate::store::{Database, may_hold_password};

/// The prefix of the program's environment variables.
const VARIABLES: &str = "ROCKET_MONITOR_";

/// Parses the value of `--database`. Its errors omit the value, which clap's own would show.
#[derive(Clone, Copy, Debug)]
pub(super) struct DatabaseParser;

impl TypedValueParser for DatabaseParser {
    type Value = Database;

    fn parse_ref(
        &self,
        command: &Command,
        _: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Database, Error> {
        let unusable = |reason| {
            let message = format!("the value of --database (ROCKET_MONITOR_DATABASE) {reason}");
            command.clone().error(ErrorKind::ValueValidation, message)
        };
        Database::parse(value).map_err(unusable)
    }
}

/// Removes from a message every argument and variable that may hold a password, whichever option it
/// was meant for.
pub(super) fn redact_passwords(message: &str) -> String {
    let variables =
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with(VARIABLES));
    let texts = std::env::args_os().skip(1).chain(variables.map(|(_, value)| value));
    texts.fold(message.to_owned(), |message, text| {
        // Messages replace invalid UTF-8 by U+FFFD, too.
        let text = text.to_string_lossy();
        let value = text.split_once('=').map_or("", |(_, value)| value);
        let secrets = [&*text, value].into_iter().filter(|text| may_hold_password(text));
        secrets.fold(message, |message, secret| message.replace(secret, "(not shown)"))
    })
}

/// Warns about a password in the arguments, which every user of the machine can read.
pub(super) fn warn_about_passwords() {
    // A Postgres URL is UTF-8.
    let mut arguments = std::env::args_os().filter_map(|argument| argument.into_string().ok());
    while let Some(argument) = arguments.next() {
        let value = match argument.strip_prefix("--database") {
            Some("") => arguments.next(),
            Some(value) => value.strip_prefix('=').map(str::to_owned),
            None => None,
        };
        let database = value.and_then(|value| value.parse::<Database>().ok());
        if database.is_some_and(|database| database.has_password()) {
            print_error(
                "rocket-monitor: the --database argument holds a password, which others on this \
                 machine can see. Set ROCKET_MONITOR_DATABASE instead, or use a password file \
                 (~/.pgpass).",
            );
        }
    }
}
