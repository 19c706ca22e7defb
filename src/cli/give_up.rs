//! `give-up`: declares missing messages lost, or withdraws that.

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::SystemTime;

use bytestring::ByteString;
use clap::{ArgGroup, Args};

use super::output::print_line;
use super::{DatabaseArgs, Failure};
use crate::domain::losses::{LossAction, LossError, LossRequest};
use crate::domain::message::MessageNumber;
use crate::domain::query::SilentFor;
use crate::domain::text::{Channel, Text};
use crate::domain::timestamp::Timestamp;
use crate::store::Store;
use crate::store::report::{Report, ReportQuery, Value};
use crate::terminal::Escaped;

/// Declare missing messages lost, so that the exact view goes on without them
///
/// Either numbers of one channel, or all gaps that have been known for some time. A message that
/// arrives after all counts like any other. Prints how many numbers have become lost; with
/// --dry-run, how many would.
///
/// Exit status: 0 if it is done, 1 if the channel is unknown, the numbers are not below its highest
/// processed number, or the command failed.
#[derive(Clone, Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).args(["channel", "older_than"])))]
pub(super) struct GiveUpArgs {
    /// The rocket's channel
    #[arg(requires = "numbers")]
    channel: Option<String>,

    /// The number of a message, or the first and the last of several
    #[arg(value_name = "FIRST[-LAST]", value_parser = parse_numbers)]
    numbers: Option<(i64, i64)>,

    /// All gaps known for this long, such as 90s, 15m, 2h or 7d
    #[arg(long, value_name = "AGE", env = "ROCKET_MONITOR_OLDER_THAN",
          value_parser = SilentFor::parse, conflicts_with = "numbers")]
    older_than: Option<SilentFor>,

    /// Why they are lost, in 1 to 255 characters
    #[arg(
        long,
        value_name = "TEXT",
        env = "ROCKET_MONITOR_REASON",
        required_unless_present = "withdraw",
        value_parser = parse_reason
    )]
    reason: Option<Text>,

    /// Withdraw the declarations about them
    #[arg(long, env = "ROCKET_MONITOR_WITHDRAW")]
    withdraw: bool,

    /// Change nothing; list the numbers
    #[arg(long, env = "ROCKET_MONITOR_DRY_RUN")]
    dry_run: bool,

    #[command(flatten)]
    database: DatabaseArgs,
}

/// How many requests are in a transaction. Others wait for the write lock meanwhile.
const MAX_BATCH: usize = 500;

fn parse_numbers(text: &str) -> Result<(i64, i64), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| {
        let number = text.parse().ok().and_then(MessageNumber::new);
        number.map(MessageNumber::get)
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => Err(format!(
            "must be a number or two like 5-7, from {} to {}, the lower first",
            MessageNumber::MIN,
            MessageNumber::MAX
        )),
    }
}

fn parse_reason(text: &str) -> Result<Text, String> {
    Text::new(ByteString::from(text))
}

pub(super) fn run(args: &GiveUpArgs) -> Result<ExitCode, Failure> {
    let now = Timestamp::from_system_time(SystemTime::now());
    let action = match &args.reason {
        Some(reason) if !args.withdraw => LossAction::Declare { reason: reason.clone(), at: now },
        _ => LossAction::Withdraw,
    };
    let store = args.database.open(false)?;
    let numbers = match (&args.channel, args.numbers, args.older_than) {
        (Some(channel), Some((first, last)), None) => {
            let channel = Channel::new(ByteString::from(channel.as_str()))
                .map_err(|detail| format!("CHANNEL {detail}"))?;
            let request = LossRequest { channel, first, last, action };
            give_up_numbers(&store, request, args.dry_run)?
        }
        (None, None, Some(age)) => give_up_gaps(&store, age.cutoff(now), &action, args.dry_run)?,
        _ => unreachable!("the group and its conflicts leave only these"),
    };
    let would = if args.dry_run { "would be " } else { "" };
    let what = if args.withdraw { "no longer lost" } else { "newly lost" };
    print_line!("{would}{what}: {numbers}")?;
    Ok(ExitCode::SUCCESS)
}

/// Declares or withdraws all gaps that have been known since the cutoff or longer. Reads and
/// changes them part by part: a reader must not keep SQLite's log from being truncated.
fn give_up_gaps(
    store: &Store,
    cutoff: Timestamp,
    action: &LossAction,
    dry_run: bool,
) -> Result<i64, Failure> {
    let mut query = ReportQuery { report: Report::Gaps, after: None, limit: MAX_BATCH };
    let mut total = 0;
    loop {
        let (mut requests, mut rows, mut last) = (Vec::new(), 0, None);
        store.report_rows(&query, &mut |row| {
            requests.extend(request(&row, cutoff, action));
            rows += 1;
            last = Some(row);
            ControlFlow::Continue(())
        })?;
        // A rocket may have been forgotten since its gaps were read.
        total += change(store, &requests, dry_run)?.into_iter().flatten().sum::<i64>();
        let position = last.map(|row| query.report.position(&row)).transpose()?.flatten();
        if rows < query.limit || position.is_none() {
            return Ok(total);
        }
        query.after = position;
    }
}

/// The request for a gap; none if it is too new, or nothing would change.
fn request(gap: &[Value], cutoff: Timestamp, action: &LossAction) -> Option<LossRequest> {
    let [
        Value::Text(channel),
        Value::Integer(first),
        Value::Integer(last),
        _,
        Value::Time(since),
        Value::Integer(lost),
    ] = gap
    else {
        unreachable!("these are the columns of gaps: {gap:?}")
    };
    let would_change = match action {
        LossAction::Declare { .. } => *lost <= last - first,
        LossAction::Withdraw => *lost > 0,
    };
    let channel = Channel::new(ByteString::from(channel.as_str())).ok()?;
    (*since <= cutoff && would_change).then(|| LossRequest {
        channel,
        first: *first,
        last: *last,
        action: action.clone(),
    })
}

/// Declares or withdraws numbers of one channel.
fn give_up_numbers(store: &Store, request: LossRequest, dry_run: bool) -> Result<i64, Failure> {
    let requests = [request];
    let outcomes = change(store, &requests, dry_run)?;
    let ([LossRequest { channel, first, last, .. }], [outcome]) = (&requests, &outcomes[..]) else {
        unreachable!("each request has one outcome")
    };
    outcome.map_err(|error| {
        let message = match error {
            LossError::UnknownChannel => {
                format!("no message of channel {channel} has been processed")
            }
            LossError::NotBelow { highest } => format!(
                "{first}-{last} are not below the highest processed number of channel {channel}, \
                 {highest}: whether later ones were sent is not known"
            ),
        };
        message.into()
    })
}

/// Changes losses, or lists what would change.
fn change(
    store: &Store,
    requests: &[LossRequest],
    dry_run: bool,
) -> Result<Vec<Result<i64, LossError>>, Failure> {
    let outcomes = store.change_losses(requests, dry_run)?;
    for (request, outcome) in requests.iter().zip(&outcomes) {
        let LossRequest { channel, first, last, .. } = request;
        if let Ok(numbers) = outcome
            && dry_run
            && *numbers > 0
        {
            print_line!("{} {first}-{last}: {numbers}", Escaped(channel))?;
        }
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_one_or_a_range() {
        assert_eq!(parse_numbers("5"), Ok((5, 5)));
        assert_eq!(parse_numbers("5-4294967295"), Ok((5, 4_294_967_295)));
        for bad in ["", "-", "0", "5-", "-5", "7-5", "1-4294967296", "1 - 2", "a", "1-2-3"] {
            assert!(parse_numbers(bad).is_err(), "{bad}");
        }
    }
}
