//! `check`: the audit.

use clap::Args;

use super::{DatabaseArgs, Failure, Finished};

/// Audit a database: what is stored must be what its processed ranges come to
///
/// Every row of rockets must equal the combination of its channel's processed ranges, no ranges may touch or overlap,
/// and neither table may have a channel that the other lacks. Others may write meanwhile. Prints a line for everything
/// that is wrong, the channel first. Exit status: 0 if all is well, 1 if something is wrong, 2 if it can't be told.
#[derive(Clone, Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    database: DatabaseArgs,
}

#[allow(clippy::print_stdout)]
pub(super) fn run(args: &CheckArgs) -> Result<Finished, Failure> {
    let store = args.database.open(false)?;
    let mut findings = 0_u64;
    let audit = store.check(&mut |finding| {
        findings += 1;
        match finding.channel {
            Some(channel) => println!("{}: {}", channel.escape_debug(), finding.detail),
            None => println!("{}: {}", args.database.database, finding.detail),
        }
    })?;
    println!("{} channels with {} processed ranges checked: {findings} problems", audit.channels, audit.ranges);
    Ok(if findings == 0 { Finished::Well } else { Finished::With(1) })
}
