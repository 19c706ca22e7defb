//! `forget`: removes a rocket.

use bytestring::ByteString;
use clap::Args;

use super::{DatabaseArgs, Failure, Finished};
use crate::domain::text::Channel;

/// Remove a rocket with all that was processed of it
///
/// Copies of its messages that come later count again, as of a new rocket. Exit status: 0 if it was removed, 1 if no
/// message of that channel had been processed.
#[derive(Clone, Debug, Args)]
pub(super) struct ForgetArgs {
    /// The rocket's channel
    channel: String,

    #[command(flatten)]
    database: DatabaseArgs,
}

#[allow(clippy::print_stdout)]
pub(super) fn run(args: &ForgetArgs) -> Result<Finished, Failure> {
    let channel =
        Channel::new(ByteString::from(args.channel.as_str())).map_err(|detail| format!("CHANNEL {detail}"))?;
    if !args.database.open(false)?.forget(&channel)? {
        return Err(format!("{}: no message of channel {channel} has been processed", args.database.database).into());
    }
    println!("forgot {channel}");
    Ok(Finished::Well)
}
