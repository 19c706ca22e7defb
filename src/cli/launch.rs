//! `launch`: simulates a fleet, and acceptance-tests a running service.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use super::output::{self, print_error, print_line};
use super::output_file::OutputFile;
use super::{Failure, TokenArgs};
use crate::client::base_url;
use crate::simulator::{Fleet, SendTotals, Sender, SimulatorClient};
use crate::tokens::Tokens;

/// The maximum number of differing rockets that are printed.
const MAX_DISAGREEMENTS_PRINTED: usize = 20;

/// Simulate a fleet: send its messages to a running service, out of order and some of them twice
///
/// A message depends only on the seed, its channel and its number. If you repeat a run, every
/// message is a duplicate; if you repeat it with more messages, the same rockets continue. With
/// --verify, every rocket is then read back in both views and compared with its messages, folded in
/// order.
///
/// With --lossy, some of the messages are left out, as if a link had lost them, and --verify
/// compares with the others. What is left out, too, depends only on the seed, the channel and the
/// number. Repeat the run without --lossy to fill the gaps, or use resend with the file that --save
/// has written.
///
/// If the service stops answering, unconfirmed messages are sent again for up to 60 seconds. If no
/// service answers at the address at the start, the command fails at once.
///
/// Exit status: 0 if every message was stored and, with --verify, every rocket agrees; 1 if not.
#[derive(Clone, Debug, Args)]
pub(super) struct LaunchArgs {
    /// The address of the service, like http://127.0.0.1:8088 (with or without /messages)
    url: String,

    /// The number of rockets
    #[arg(long, value_name = "N", env = "ROCKET_MONITOR_ROCKETS", default_value = "100",
          value_parser = clap::value_parser!(u32).range(1..))]
    rockets: u32,

    /// The number of distinct messages, over all rockets
    #[arg(long, value_name = "N", env = "ROCKET_MONITOR_MESSAGES", default_value = "10000")]
    messages: u64,

    /// The number of concurrent connections
    #[arg(long, value_name = "N", env = "ROCKET_MONITOR_CONNECTIONS", default_value = "16",
          value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,

    /// The pause of each connection between two messages, such as 500ms or 2s
    #[arg(long, value_name = "TIME", env = "ROCKET_MONITOR_MESSAGE_DELAY", default_value = "0ms",
          value_parser = delay)]
    message_delay: Duration,

    /// The percentage of messages that are sent twice
    #[arg(long, value_name = "PERCENT", env = "ROCKET_MONITOR_DUPLICATES", default_value = "10",
          value_parser = percent)]
    duplicates: f64,

    /// The percentage of messages that are left out
    #[arg(long, value_name = "PERCENT", env = "ROCKET_MONITOR_LOSSY", default_value = "0",
          value_parser = percent)]
    lossy: f64,

    /// Write all messages to a file first, one per line, also those that are left out
    #[arg(long, value_name = "FILE", env = "ROCKET_MONITOR_SAVE")]
    save: Option<PathBuf>,

    /// How many places late a message may arrive, in the order of its rocket
    #[arg(long, value_name = "PLACES", env = "ROCKET_MONITOR_DISPLACEMENT", default_value = "20")]
    displacement: u32,

    /// The fleet to simulate: each seed has its own rockets and messages
    #[arg(long, value_name = "N", env = "ROCKET_MONITOR_SEED", default_value = "1")]
    seed: u64,

    #[command(flatten)]
    tokens: TokenArgs,

    /// Read every rocket back in both views, and compare it with its messages
    #[arg(long, env = "ROCKET_MONITOR_VERIFY")]
    verify: bool,
}

fn delay(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(milliseconds) => Ok(Duration::from_millis(milliseconds)),
        Err(_) => humantime::parse_duration(text).map_err(|error| error.to_string()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let percent: Option<f64> = text.trim_end_matches('%').parse().ok();
    percent
        .filter(|percent| (0.0..=100.0).contains(percent))
        .ok_or_else(|| "must be from 0 to 100".to_owned())
}

pub(super) fn run(args: &LaunchArgs) -> Result<ExitCode, Failure> {
    let fleet = Fleet {
        seed: args.seed,
        rockets: args.rockets,
        messages: args.messages,
        duplicate_percent: args.duplicates,
        lossy_percent: args.lossy,
        displacement: args.displacement,
    };
    let base = base_url(&args.url)?;
    let write_token = args.tokens.write()?.as_ref().and_then(Tokens::first);
    let read_token = args.tokens.read()?.as_ref().and_then(Tokens::first);
    if let Some(path) = &args.save {
        save(&fleet, path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    // The fleet chooses duplicates and losses at random, so the bar's length is the expected value.
    let sends_per_message =
        (1.0 + fleet.duplicate_percent / 100.0) * (1.0 - fleet.lossy_percent / 100.0);
    let expected_sends = (fleet.messages as f64 * sends_per_message).round() as u64;
    let style = "{wide_bar} {pos} messages sent ({rate} a second, {eta} to go)";
    let progress = output::progress_bar(Some(expected_sends), style);
    actix_web::rt::System::new().block_on(async {
        let client = SimulatorClient::new(base, args.connections, write_token, read_token);
        let bar = progress.clone();
        client.on_failure(move |failure| bar.suspend(|| print_error(&failure)));
        let sender = Sender::new(client, fleet, args.connections, args.message_delay, progress)?;
        let started = Instant::now();
        sender.send_all().await?;
        report(&fleet, &sender.totals(), started.elapsed())?;
        if args.verify { verify(&fleet, &sender).await } else { Ok(ExitCode::SUCCESS) }
    })
}

/// Writes every message of a fleet to a file, in their order of arrival.
fn save(fleet: &Fleet, path: &Path) -> io::Result<()> {
    let all = Fleet { duplicate_percent: 0.0, lossy_percent: 0.0, ..*fleet };
    let channels: Vec<String> = (0..fleet.rockets).map(|rocket| fleet.channel(rocket)).collect();
    let mut file = OutputFile::create(path)?;
    let mut line = Vec::new();
    for (rocket, number) in all.arrivals() {
        line.clear();
        all.write_message(&channels[rocket as usize], rocket, number, &mut line);
        line.push(b'\n');
        file.write_all(&line)?;
    }
    file.finish()
}

fn report(fleet: &Fleet, totals: &SendTotals, elapsed: Duration) -> Result<(), Failure> {
    let SendTotals { applied, duplicates, resent, latency } = totals;
    let sent = applied + duplicates;
    let rate = output::rate(sent as f64 / elapsed.as_secs_f64().max(1e-9));
    let milliseconds = |micros: u64| micros as f64 / 1_000.0;
    let rockets = fleet.rockets;
    print_line!(
        "sent      {sent} messages of {rockets} rockets in {elapsed:.1?}: {rate} a second"
    )?;
    print_line!(
        "answers   {applied} applied, {duplicates} duplicates; {resent} sent again after a failure"
    )?;
    if fleet.lossy_percent > 0.0 {
        let sent: u64 =
            (0..rockets).map(|rocket| u64::from(fleet.progress(rocket).processed)).sum();
        print_line!("lossy     {} of {} messages left out", fleet.messages - sent, fleet.messages)?;
    }
    if latency.is_empty() {
        return Ok(());
    }
    print_line!(
        "latency   median {:.2} ms, 99% {:.2} ms, highest {:.2} ms",
        milliseconds(latency.value_at_quantile(0.5)),
        milliseconds(latency.value_at_quantile(0.99)),
        milliseconds(latency.max())
    )
}

async fn verify(fleet: &Fleet, sender: &Sender) -> Result<ExitCode, Failure> {
    let disagreements = sender.verify_all().await?;
    for disagreement in disagreements.iter().take(MAX_DISAGREEMENTS_PRINTED) {
        print_line!("{disagreement}")?;
    }
    print_line!(
        "verified  {} rockets in both views: {} disagree with the in-order fold",
        fleet.rockets,
        disagreements.len()
    )?;
    Ok(if disagreements.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
