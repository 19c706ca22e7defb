//! `check`: the audit.

use std::process::ExitCode;

use clap::Args;

use super::output::print_line;
use super::{DatabaseArgs, Failure};
use crate::terminal::Escaped;

/// Audit a database: the stored state of each rocket must follow from its processed ranges
///
/// Every row of rockets must equal the combination of its channel's processed ranges, no two ranges
/// may touch or overlap, and each channel must be in both tables. Other processes may write to the
/// database during the audit. Prints one line per problem, starting with the channel.
///
/// Exit status: 0 if there are no problems, 1 if there are some, 2 if the audit could not be
/// completed or its result could not be printed.
#[derive(Clone, Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    database: DatabaseArgs,
}

pub(super) fn run(args: &CheckArgs) -> Result<ExitCode, Failure> {
    let store = args.database.open(false)?;
    let (mut findings, mut printed) = (0_u64, Ok(()));
    let audit = store.check(&mut |finding| {
        findings += 1;
        let place = finding.channel.unwrap_or_else(|| args.database.database.to_string());
        if printed.is_ok() {
            printed = print_line!("{}: {}", Escaped(place), Escaped(finding.detail));
        }
    })?;
    printed?;
    print_line!(
        "{} channels with {} processed ranges checked: {findings} problems",
        audit.channels,
        audit.ranges
    )?;
    Ok(if findings == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
