//! `forget`: removes a rocket.

use std::process::ExitCode;

use bytestring::ByteString;
use clap::Args;

use super::output::print_line;
use super::{DatabaseArgs, Failure};
use crate::domain::text::Channel;
use crate::terminal::Escaped;

/// Remove a rocket and the record of its processed messages
///
/// Copies of its messages that arrive later count again, as messages of a new rocket.
///
/// Exit status: 0 if the rocket was removed, 1 if no message of its channel had been processed or
/// the command failed.
#[derive(Clone, Debug, Args)]
pub(super) struct ForgetArgs {
    /// The rocket's channel
    channel: String,

    #[command(flatten)]
    database: DatabaseArgs,
}

pub(super) fn run(args: &ForgetArgs) -> Result<ExitCode, Failure> {
    let channel = Channel::new(ByteString::from(args.channel.as_str()))
        .map_err(|detail| format!("CHANNEL {detail}"))?;
    if !args.database.open(false)?.forget(&channel)? {
        return Err(format!(
            "{}: no message of channel {channel} has been processed",
            args.database.database
        )
        .into());
    }
    print_line!("forgot {}", Escaped(channel))?;
    Ok(ExitCode::SUCCESS)
}
