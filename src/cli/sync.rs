//! `sync`: exchanges with another service what either lacks.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use super::merge::print_conflicts;
use super::output::{print_error, print_line};
use super::serve::stop_signal;
use super::{DatabaseArgs, Failure, TokenArgs};
use crate::client::{ClientTokens, ServiceClient, base_url};
use crate::domain::query::SilentFor;
use crate::exchange::MergeReport;
use crate::exchange::sync::Sync;
use crate::tokens::Tokens;

/// The pause before a failed exchange is repeated with --every. Each further one is twice as long,
/// up to the longest.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Exchange with another service what either lacks
///
/// Pulls what the service has into the database, and pushes what the database has to the service,
/// as by `merge`. Both may be in use. Afterwards both have the messages of both, except those that
/// arrived meanwhile. The size of what is sent grows with the gaps, not with the messages.
///
/// With --every, it goes on until it is stopped, and after the first time exchanges only what has
/// changed. If the service is away it tries again, after 1 to 60 seconds.
///
/// Exit status: 0 if everything was exchanged, or it was stopped by a signal; 3 if there were
/// conflicts, of which the first 100 are printed on standard error; 1 if the command failed.
#[derive(Clone, Debug, Args)]
pub(super) struct SyncArgs {
    /// The address of the service, like http://127.0.0.1:8088
    url: String,

    /// Repeat it at this interval, such as 30s or 5m
    #[arg(
        long,
        value_name = "INTERVAL",
        env = "ROCKET_MONITOR_EVERY",
        value_parser = SilentFor::parse
    )]
    every: Option<SilentFor>,

    /// Only push what the database has to the service
    #[arg(long, env = "ROCKET_MONITOR_PUSH", conflicts_with = "pull")]
    push: bool,

    /// Only pull what the service has into the database
    #[arg(long, env = "ROCKET_MONITOR_PULL")]
    pull: bool,

    #[command(flatten)]
    tokens: TokenArgs,

    #[command(flatten)]
    database: DatabaseArgs,
}

pub(super) fn run(args: &SyncArgs) -> Result<ExitCode, Failure> {
    let base = base_url(&args.url)?;
    let tokens = ClientTokens {
        read: args.tokens.read()?.as_ref().and_then(Tokens::first),
        write: args.tokens.write()?.as_ref().and_then(Tokens::first),
    };
    let store = args.database.open(true)?;
    actix_web::rt::System::new().block_on(async {
        let mut sync = Sync::new(ServiceClient::new(base, tokens), store);
        match args.every {
            Some(interval) => repeat(&mut sync, args, interval.duration()).await,
            None => {
                let conflicts = exchange(&mut sync, args).await?;
                Ok(ExitCode::from(if conflicts > 0 { 3 } else { 0 }))
            }
        }
    })
}

/// Exchanges until a signal stops it.
async fn repeat(sync: &mut Sync, args: &SyncArgs, interval: Duration) -> Result<ExitCode, Failure> {
    let mut stop = std::pin::pin!(stop_signal()?);
    let (mut pause, mut in_step_since) = (MIN_PAUSE, Instant::now());
    loop {
        let started = Instant::now();
        let next = tokio::select! {
            () = &mut stop => return Ok(ExitCode::SUCCESS),
            exchanged = exchange(sync, args) => match exchanged {
                Ok(_) => {
                    (pause, in_step_since) = (MIN_PAUSE, started);
                    interval.saturating_sub(started.elapsed())
                }
                Err(failure) => {
                    let behind = in_step_since.elapsed().as_secs();
                    print_error(format_args!(
                        "{failure}; {behind} s behind, next try in {} s",
                        pause.as_secs()
                    ));
                    let next = pause;
                    pause = (pause * 2).min(MAX_PAUSE);
                    next
                }
            },
        };
        tokio::select! {
            () = &mut stop => return Ok(ExitCode::SUCCESS),
            () = tokio::time::sleep(next) => {}
        }
    }
}

/// Exchanges once. Returns how many conflicts there were.
async fn exchange(sync: &mut Sync, args: &SyncArgs) -> Result<u64, Failure> {
    let mut conflicts = 0;
    if !args.push {
        conflicts += report("pulled", &sync.pull().await?)?;
    }
    if !args.pull {
        conflicts += report("pushed", &sync.push().await?)?;
    }
    Ok(conflicts)
}

fn report(what: &str, report: &MergeReport) -> Result<u64, Failure> {
    print_conflicts(report);
    let MergeReport { rockets, changed, gained, conflict_count, .. } = report;
    print_line!(
        "{what} {rockets} rockets: {changed} changed, {gained} messages gained, {conflict_count} \
         conflicts"
    )?;
    Ok(*conflict_count)
}
