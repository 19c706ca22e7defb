//! `forget`: removes rockets.

use std::process::ExitCode;
use std::time::SystemTime;

use bytestring::ByteString;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::output::{print_error, print_line, print_part};
use super::{DatabaseArgs, Failure};
use crate::domain::query::{Filters, Order, RocketQuery, SilentFor, Sort};
use crate::domain::rocket::{Rocket, Status, View};
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
use crate::store::Store;
use crate::terminal::Escaped;

/// Remove rockets and the record of their processed messages
///
/// Removes one rocket, or with options instead of a channel all rockets that match: with both
/// options, those that match both. Copies of their messages that arrive later count again, as
/// messages of new rockets. Declared losses are removed too.
///
/// A rocket is removed only if it still matches at that moment: one that a message arrives for in
/// the meantime is no longer silent. Many rockets are removed in several transactions. If the
/// command fails, it says how many it has removed; run it again for the others.
///
/// With --dry-run, prints the channel of each rocket that would be removed on a line, and on
/// standard error how many there are.
///
/// Exit status: 0 if all rockets that match were removed, even if none does; 1 if no message of the
/// CHANNEL had been processed or the command failed.
#[derive(Clone, Debug, Args)]
pub(super) struct ForgetArgs {
    #[arg(
        required_unless_present_any = ["silent_for", "statuses"],
        help = "The rocket's channel, unless --silent-for or --status says which rockets",
        conflicts_with_all = ["silent_for", "statuses"]
    )]
    channel: Option<String>,

    /// Remove rockets of which no new message has been received for this long: 90s, 15m, 2h, 180d
    #[arg(
        long,
        value_name = "DURATION",
        env = "ROCKET_MONITOR_SILENT_FOR",
        value_parser = SilentFor::parse
    )]
    silent_for: Option<SilentFor>,

    /// Remove rockets with this status (several are separated by commas)
    #[arg(
        long = "status",
        value_name = "STATUS",
        env = "ROCKET_MONITOR_STATUS",
        value_delimiter = ',',
        value_parser = status_parser()
    )]
    statuses: Vec<Status>,

    /// Print which rockets would be removed, and remove none
    #[arg(long, env = "ROCKET_MONITOR_DRY_RUN")]
    dry_run: bool,

    #[command(flatten)]
    database: DatabaseArgs,
}

fn status_parser() -> impl TypedValueParser<Value = Status> {
    PossibleValuesParser::new(Status::ALL.map(Status::name)).try_map(|name| parse_status(&name))
}

fn parse_status(name: &str) -> Result<Status, String> {
    let found = Status::ALL.into_iter().find(|status| status.name().eq_ignore_ascii_case(name));
    found.ok_or_else(|| format!("{name} is not a status"))
}

/// The number of rockets that are looked up at a time.
const PAGE_ROCKETS: usize = 1_000;
/// The maximum number of rockets in a transaction, and of their processed ranges if there are
/// several rockets: messages wait meanwhile.
const MAX_BATCH_ROCKETS: usize = 200;
const MAX_BATCH_RANGES: i64 = 20_000;

pub(super) fn run(args: &ForgetArgs) -> Result<ExitCode, Failure> {
    let channel = args.channel.as_deref().map(|channel| {
        Channel::new(ByteString::from(channel)).map_err(|detail| format!("CHANNEL {detail}"))
    });
    let channel = channel.transpose()?;
    let store = args.database.open(false)?;
    let found = match &channel {
        Some(channel) if !args.dry_run => {
            let found = store.forget(channel)?;
            if found {
                print_line!("forgot {}", Escaped(channel))?;
            }
            found
        }
        _ => forget_matching(&store, &query(args, channel.clone()), args.dry_run)? > 0,
    };
    match channel {
        Some(channel) if !found => Err(format!(
            "{}: no message of channel {channel} has been processed",
            args.database.database
        )
        .into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// The query for the first page of the rockets to remove.
fn query(args: &ForgetArgs, channel: Option<Channel>) -> RocketQuery {
    let (statuses, silent_for) = (args.statuses.clone(), args.silent_for);
    RocketQuery {
        view: View::BestEffort,
        // In this order, no rocket is missed.
        sort: Sort::Channel,
        order: Order::Asc,
        filters: Filters { channel, statuses, silent_for, ..Filters::default() },
        now: Timestamp::from_system_time(SystemTime::now()),
        after: None,
        limit: PAGE_ROCKETS,
        received_after: None,
        with_total: false,
    }
}

/// Removes all rockets of a query, or prints them. Returns how many.
fn forget_matching(store: &Store, query: &RocketQuery, dry_run: bool) -> Result<usize, Failure> {
    let mut count = 0;
    let done = each_page(store, query, &mut |rockets| {
        if dry_run {
            count += rockets.len();
            let lines = rockets.iter().map(|rocket| format!("{}\n", Escaped(&rocket.channel)));
            // If the reader has closed the pipe, the rockets are still counted.
            return print_part(lines.collect::<String>().as_bytes()).map(|_| ());
        }
        for batch in batches(rockets) {
            let channels: Vec<Channel> =
                batch.iter().map(|rocket| rocket.channel.clone()).collect();
            count += store.forget_matching(&channels, &query.filters, query.now)?.len();
        }
        Ok(())
    });
    let rockets = if count == 1 { "1 rocket".to_owned() } else { format!("{count} rockets") };
    done.map_err(
        |error| if dry_run { error } else { format!("{error} (forgot {rockets})").into() },
    )?;
    if dry_run {
        print_error(format_args!("{rockets} would be forgotten"));
    } else {
        print_line!("forgot {rockets}")?;
    }
    Ok(count)
}

/// Calls `each` with the rockets of each page.
fn each_page(
    store: &Store,
    first: &RocketQuery,
    each: &mut dyn FnMut(&[Rocket]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut query = first.clone();
    loop {
        let page = store.rockets_blocking(query.clone())?;
        each(&page.rockets)?;
        let Some(next) = page.next else { return Ok(()) };
        query.after = Some(next);
    }
}

/// Divides rockets into batches, each for one transaction.
fn batches(mut rockets: &[Rocket]) -> impl Iterator<Item = &[Rocket]> {
    std::iter::from_fn(move || {
        let mut ranges = 0;
        let fitting = rockets.iter().take(MAX_BATCH_ROCKETS).take_while(|rocket| {
            ranges += rocket.progress.max_ranges();
            ranges <= MAX_BATCH_RANGES
        });
        let count = fitting.count().max(1).min(rockets.len());
        let (batch, rest) = rockets.split_at(count);
        rockets = rest;
        (!batch.is_empty()).then_some(batch)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::domain::rocket::{Progress, RocketState};

    /// A rocket that has this number of ranges at most.
    fn rocket(max_ranges: i64) -> Rocket {
        let rocket = Rocket {
            channel: Channel::new("r").unwrap(),
            state: RocketState::of(None),
            last_received: Timestamp::FIRST,
            progress: Progress::without_losses(max_ranges, 0, 2 * max_ranges),
        };
        assert_eq!(rocket.progress.max_ranges(), max_ranges);
        rocket
    }

    fn sizes(rockets: &[Rocket]) -> Vec<usize> {
        batches(rockets).map(<[Rocket]>::len).collect()
    }

    #[test]
    fn a_batch_has_few_rockets_and_few_ranges() {
        assert!(sizes(&[]).is_empty());
        assert_eq!(sizes(&[rocket(MAX_BATCH_RANGES * 10)]), [1]);
        let many: Vec<Rocket> = (0..2 * MAX_BATCH_ROCKETS + 1).map(|_| rocket(1)).collect();
        assert_eq!(sizes(&many), [MAX_BATCH_ROCKETS, MAX_BATCH_ROCKETS, 1]);
        let half = MAX_BATCH_RANGES / 2;
        let large = [1, half, half, half, MAX_BATCH_RANGES + 1, 1, 1].map(rocket);
        assert_eq!(sizes(&large), [2, 2, 1, 2]);
    }
}
