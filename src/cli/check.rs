//! `check`: the audit.

use clap::Args;

use super::output::say;
use super::{DatabaseArgs, Failure, Finished};
use crate::terminal::Escaped;

/// Audit a database: the stored state of each rocket must follow from its processed ranges
///
/// Every row of rockets must equal the combination of its channel's processed ranges, no two ranges may touch or overlap,
/// and neither table may have a channel that the other lacks. Other processes may write to the database during the audit.
/// Prints a line for each problem, which begins with the channel.
///
/// Exit status: 0 if all is well, 1 if something is wrong, 2 if the audit could not be completed or its result not printed.
#[derive(Clone, Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    database: DatabaseArgs,
}

pub(super) fn run(args: &CheckArgs) -> Result<Finished, Failure> {
    let store = args.database.open(false)?;
    let (mut findings, mut printed) = (0_u64, Ok(()));
    let audit = store.check(&mut |finding| {
        findings += 1;
        let place = finding.channel.unwrap_or_else(|| args.database.database.to_string());
        if printed.is_ok() {
            printed = say!("{}: {}", Escaped(place), Escaped(finding.detail));
        }
    })?;
    printed?;
    say!("{} channels with {} processed ranges checked: {findings} problems", audit.channels, audit.ranges)?;
    Ok(if findings == 0 { Finished::Well } else { Finished::With(1) })
}
