//! `launch`: a simulated fleet, and the acceptance test of a running service.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use awc::http::StatusCode;
use bytes::Bytes;
use clap::Args;
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{Failure, Finished, TokenArgs};
use crate::access::{Token, Tokens};
use crate::domain::rocket::View;
use crate::fleet::{Arrivals, Expected, Fleet};

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a message is sent again and again before the run is given up.
const RESEND_FOR: Duration = Duration::from_secs(60);
/// How long to wait before sending again.
const RESEND_AFTER: Duration = Duration::from_millis(200);
/// To how many digits latencies are kept.
const LATENCY_DIGITS: u8 = 3;
/// How many disagreements are told.
const DISAGREEMENTS_TOLD: usize = 20;

/// Simulate a fleet: send its messages to a running service, out of order and some more than once
///
/// What a message holds depends on the seed, the channel and the message number only: run it again, and everything is a
/// duplicate; run it with more messages, and the same rockets fly on. With --verify every rocket is then read back in
/// both views and compared with what its messages, folded in order, come to. Exit status: 0 if every message was taken
/// and, with --verify, everything agrees.
#[derive(Clone, Debug, Args)]
pub(super) struct LaunchArgs {
    /// Where the service is, like http://127.0.0.1:8088 (its /messages may be added)
    url: String,

    /// How many rockets the fleet has
    #[arg(long, value_name = "N", env = "ROCKET_MONITOR_ROCKETS", default_value = "100",
          value_parser = clap::value_parser!(u32).range(1..))]
    rockets: u32,

    /// How many different messages all rockets send together
    #[arg(long, value_name = "N", env = "ROCKET_MONITOR_MESSAGES", default_value = "10000")]
    messages: u64,

    /// How many connections send at the same time
    #[arg(long, value_name = "N", env = "ROCKET_MONITOR_CONNECTIONS", default_value = "16",
          value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,

    /// How long each connection pauses between messages, like 500ms or 2s
    #[arg(long, value_name = "TIME", env = "ROCKET_MONITOR_MESSAGE_DELAY", default_value = "0ms", value_parser = delay)]
    message_delay: Duration,

    /// How many of 100 messages are sent a second time
    #[arg(long, value_name = "PERCENT", env = "ROCKET_MONITOR_DUPLICATES", default_value = "10", value_parser = percent)]
    duplicates: f64,

    /// By how many places of its rocket's order a message may come too late
    #[arg(long, value_name = "PLACES", env = "ROCKET_MONITOR_DISPLACEMENT", default_value = "20")]
    displacement: u32,

    /// Which fleet: another seed has other rockets, which say other things
    #[arg(long, value_name = "N", env = "ROCKET_MONITOR_SEED", default_value = "1")]
    seed: u64,

    #[command(flatten)]
    tokens: TokenArgs,

    /// Read every rocket back in both views, and compare
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
    percent.filter(|percent| (0.0..=100.0).contains(percent)).ok_or_else(|| "must be from 0 to 100".to_owned())
}

pub(super) fn run(args: &LaunchArgs) -> Result<Finished, Failure> {
    let fleet = Fleet {
        seed: args.seed,
        rockets: args.rockets,
        messages: args.messages,
        duplicate_percent: args.duplicates,
        displacement: args.displacement,
    };
    let base = base_url(&args.url)?;
    actix_web::rt::System::new().block_on(async {
        let client = awc::Client::builder()
            .connector(awc::Connector::new().limit(args.connections.into()))
            .timeout(REQUEST_TIMEOUT)
            .finish();
        let sender = Rc::new(Sender::new(client, base, fleet, args)?);
        send_all(&sender).await?;
        if args.verify { verify_all(&sender).await } else { Ok(Finished::Well) }
    })
}

fn authorized(request: awc::ClientRequest, token: &Option<Token>) -> awc::ClientRequest {
    match token {
        Some(token) => request.bearer_auth(token.expose()),
        None => request,
    }
}

/// The service's address without a path.
fn base_url(url: &str) -> Result<String, String> {
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    if !url.starts_with("http://") {
        return Err(format!("{url}: only http:// is spoken; reach a service behind TLS from its own machine"));
    }
    let url = url.trim_end_matches('/');
    Ok(url.strip_suffix("/messages").unwrap_or(url).to_owned())
}

/// What all connections share.
struct Sender {
    client: awc::Client,
    base: String,
    write_token: Option<Token>,
    read_token: Option<Token>,
    fleet: Fleet,
    channels: Vec<String>,
    connections: u16,
    pause: Duration,
    arrivals: RefCell<Arrivals>,
    seen: RefCell<Seen>,
    progress: ProgressBar,
}

/// What was seen of the answers.
struct Seen {
    applied: u64,
    duplicates: u64,
    resent: u64,
    /// In microseconds, from the first byte sent to the answer, of messages that were sent once.
    latency: Histogram<u64>,
}

impl Sender {
    fn new(client: awc::Client, base: String, fleet: Fleet, args: &LaunchArgs) -> Result<Self, Failure> {
        let style = "{wide_bar} {pos}/{len} messages ({per_sec}, {eta} to go)";
        let progress = ProgressBar::new(fleet.messages);
        Ok(Self {
            client,
            base,
            write_token: args.tokens.write()?.as_ref().and_then(Tokens::first),
            read_token: args.tokens.read()?.as_ref().and_then(Tokens::first),
            fleet,
            channels: (0..fleet.rockets).map(|rocket| fleet.channel(rocket)).collect(),
            connections: args.connections,
            pause: args.message_delay,
            arrivals: RefCell::new(fleet.arrivals()),
            seen: RefCell::new(Seen { applied: 0, duplicates: 0, resent: 0, latency: Histogram::new(LATENCY_DIGITS)? }),
            progress: match ProgressStyle::with_template(style) {
                Ok(style) => progress.with_style(style),
                Err(_) => progress,
            },
        })
    }

    fn channel(&self, rocket: u32) -> &str {
        self.channels.get(rocket as usize).map_or("", String::as_str)
    }

    /// Sends until no message is left.
    async fn send_some(&self) -> Result<(), String> {
        loop {
            let next = self.arrivals.borrow_mut().next();
            let Some((rocket, number)) = next else {
                return Ok(());
            };
            self.send(rocket, number).await?;
            if !self.pause.is_zero() {
                actix_web::rt::time::sleep(self.pause).await;
            }
        }
    }

    /// Sends a message until it is taken.
    async fn send(&self, rocket: u32, number: u32) -> Result<(), String> {
        let mut json = Vec::with_capacity(256);
        self.fleet.write_message(self.channel(rocket), rocket, number, &mut json);
        let json = Bytes::from(json);
        let url = format!("{}/messages", self.base);
        let first_sent = Instant::now();
        let mut resent = 0;
        loop {
            let failure = match authorized(self.client.post(&url), &self.write_token)
                .content_type("application/json")
                .send_body(json.clone())
                .await
            {
                Ok(response) if response.status() == StatusCode::NO_CONTENT => {
                    let replayed = response.headers().contains_key("idempotent-replayed");
                    self.taken(replayed, resent, first_sent.elapsed());
                    return Ok(());
                }
                Ok(mut response) => {
                    let status = response.status();
                    let body = response.body().await.unwrap_or_default();
                    let refusal = format!("{status} {}", String::from_utf8_lossy(&body));
                    if !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS {
                        return Err(format!(
                            "{url}: message {number} of {} was refused: {refusal}",
                            self.channel(rocket)
                        ));
                    }
                    refusal
                }
                Err(error) => error.to_string(),
            };
            if first_sent.elapsed() > RESEND_FOR {
                return Err(format!("{url}: sent for {} seconds in vain: {failure}", RESEND_FOR.as_secs()));
            }
            resent += 1;
            actix_web::rt::time::sleep(RESEND_AFTER).await;
        }
    }

    fn taken(&self, replayed: bool, resent: u64, latency: Duration) {
        let mut seen = self.seen.borrow_mut();
        if replayed {
            seen.duplicates += 1;
        } else {
            seen.applied += 1;
        }
        seen.resent += resent;
        if resent == 0 {
            seen.latency.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        }
        // Repeated messages don't bring the end nearer.
        if self.progress.position() < self.fleet.messages {
            self.progress.inc(1);
        }
    }

    /// What disagrees between the service and the in-order fold.
    async fn verify(&self, rocket: u32) -> Result<Option<String>, String> {
        let expected = self.fleet.expected(rocket);
        let sent = self.fleet.messages_of(rocket);
        for view in View::ALL {
            let channel = utf8_percent_encode(self.channel(rocket), NON_ALPHANUMERIC);
            let url = format!("{}/rockets/{channel}?view={}", self.base, view.name());
            let response = authorized(self.client.get(&url), &self.read_token).send().await;
            let mut response = response.map_err(|error| format!("{url}: {error}"))?;
            let status = response.status();
            let body = response.body().limit(1024 * 1024).await.map_err(|error| format!("{url}: {error}"))?;
            if sent == 0 && status == StatusCode::NOT_FOUND {
                continue;
            }
            let is: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let must = expected_json(self.channel(rocket), &expected, sent);
            if status != StatusCode::OK || !agrees(&is, &must) {
                return Ok(Some(format!("{url}\n  says      {status} {is}\n  should be {must}")));
            }
        }
        Ok(None)
    }
}

async fn send_all(sender: &Rc<Sender>) -> Result<(), Failure> {
    let started = Instant::now();
    each_connection(sender, |sender| async move { sender.send_some().await }).await?;
    sender.progress.finish_and_clear();
    sender.report(started.elapsed());
    Ok(())
}

/// Goes on with the same work on every connection; the first failure ends it.
async fn each_connection<W>(sender: &Rc<Sender>, work: impl Fn(Rc<Sender>) -> W) -> Result<(), String>
where
    W: Future<Output = Result<(), String>>,
{
    try_join_all((0..sender.connections).map(|_| work(Rc::clone(sender)))).await.map(|_| ())
}

impl Sender {
    #[allow(clippy::print_stdout)]
    fn report(&self, elapsed: Duration) {
        let Seen { applied, duplicates, resent, latency } = &*self.seen.borrow();
        let sent = applied + duplicates;
        let rate = sent as f64 / elapsed.as_secs_f64().max(1e-9);
        let milliseconds = |quantile| latency.value_at_quantile(quantile) as f64 / 1_000.0;
        println!("sent      {sent} messages of {} rockets in {elapsed:.1?}: {rate:.0} a second", self.fleet.rockets);
        println!("answers   {applied} applied, {duplicates} duplicates; {resent} sent again after a failure");
        println!(
            "latency   median {:.2} ms, 99% {:.2} ms, highest {:.2} ms",
            milliseconds(0.5),
            milliseconds(0.99),
            latency.max() as f64 / 1_000.0
        );
    }
}

#[allow(clippy::print_stdout)]
async fn verify_all(sender: &Rc<Sender>) -> Result<Finished, Failure> {
    let next = Rc::new(Cell::new(0));
    let disagreements = Rc::new(RefCell::new(Vec::new()));
    each_connection(sender, |sender| {
        let (next, disagreements) = (Rc::clone(&next), Rc::clone(&disagreements));
        async move {
            loop {
                let rocket = next.get();
                if rocket >= sender.fleet.rockets {
                    return Ok(());
                }
                next.set(rocket + 1);
                let disagreement = sender.verify(rocket).await?;
                disagreements.borrow_mut().extend(disagreement);
            }
        }
    })
    .await?;
    let disagreements = disagreements.borrow();
    for disagreement in disagreements.iter().take(DISAGREEMENTS_TOLD) {
        println!("{disagreement}");
    }
    println!(
        "verified  {} rockets in both views: {} disagree with the in-order fold",
        sender.fleet.rockets,
        disagreements.len()
    );
    Ok(if disagreements.is_empty() { Finished::Well } else { Finished::With(1) })
}

/// What both views of a rocket must say once all of its messages are processed.
fn expected_json(channel: &str, expected: &Expected, sent: u32) -> Value {
    json!({
        "channel": channel,
        "status": expected.status,
        "type": expected.rocket_type,
        "speed": expected.speed,
        "mission": expected.mission,
        "explodedReason": expected.exploded_reason,
        "latestMissionMessage": expected.latest_mission_message,
        "latestExplodedMessage": expected.latest_exploded_message,
        "latestUpdate": expected.latest_update,
        "messages": { "processed": sent, "completeThrough": sent, "highest": sent, "missing": 0, "gaps": [] },
    })
}

/// Whether all that must be said is said; the time of the last receipt is the service's own.
fn agrees(is: &Value, must: &Value) -> bool {
    must.as_object().is_some_and(|must| must.iter().all(|(member, value)| is.get(member) == Some(value)))
}
