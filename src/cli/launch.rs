//! `launch`: simulates a fleet, and acceptance-tests a running service.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use awc::error::SendRequestError;
use awc::http::{StatusCode, Uri};
use bytes::Bytes;
use clap::Args;
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::output::{self, complain, say};
use super::{Failure, Finished, TokenArgs};
use crate::domain::rocket::View;
use crate::fleet::{Arrivals, Expected, Fleet};
use crate::terminal::Escaped;
use crate::tokens::{Token, Tokens};

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a request is retried before the run fails.
const REPEAT_FOR: Duration = Duration::from_secs(60);
/// The shortest time between two printed failures; those in between are not shown.
const REPORT_FAILURES_EVERY: Duration = Duration::from_secs(10);
/// The pause before a request is retried.
const REPEAT_AFTER: Duration = Duration::from_millis(200);
/// The number of significant digits of a latency.
const LATENCY_DIGITS: u8 = 3;
/// The largest response that is read: a rocket with 100 gaps, or an error.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// The number of disagreements that are printed.
const MAX_DISAGREEMENTS_PRINTED: usize = 20;

/// Simulate a fleet: send its messages to a running service, out of order and some of them twice
///
/// A message depends only on the seed, its channel and its number. If you repeat a run, every
/// message is a duplicate; if you repeat it with more messages, the same rockets continue. With
/// --verify, every rocket is then read back in both views and compared with its messages, folded in
/// order.
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
    #[arg(long, value_name = "TIME", env = "ROCKET_MONITOR_MESSAGE_DELAY", default_value = "0ms", value_parser = delay)]
    message_delay: Duration,

    /// The percentage of messages that are sent twice
    #[arg(long, value_name = "PERCENT", env = "ROCKET_MONITOR_DUPLICATES", default_value = "10", value_parser = percent)]
    duplicates: f64,

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

/// The service's base URL: a host, perhaps a port, and perhaps a path before /messages.
///
/// What is accepted has no place for a password, so that it can be printed. No error repeats the
/// URL, because that may hold one.
fn base_url(url: &str) -> Result<String, &'static str> {
    if url.contains('@') {
        return Err(
            "the URL of the service must not hold a user name, a password or any other @; \
                    the service takes tokens: give them by --write-token-file and \
                    --read-token-file, or by ROCKET_MONITOR_WRITE_TOKEN and \
                    ROCKET_MONITOR_READ_TOKEN",
        );
    }
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    if !scheme.eq_ignore_ascii_case("http") {
        return Err("only http:// URLs are supported; reach a service behind TLS from its own \
                    machine");
    }
    let rest = rest.trim_end_matches('/');
    let rest = rest.strip_suffix("/messages").unwrap_or(rest).trim_end_matches('/');
    if rest.is_empty() || rest.starts_with(['/', ':']) {
        return Err("the URL of the service lacks a host; give one like http://127.0.0.1:8088");
    }
    let base = format!("http://{rest}");
    if is_host_and_path(&base) {
        Ok(base)
    } else {
        Err("the URL of the service can't be used; give one like http://127.0.0.1:8088, without a \
             question mark and what follows it")
    }
}

/// Whether a URL has nothing but a host, a port and a path after its scheme.
fn is_host_and_path(url: &str) -> bool {
    let Ok(parsed) = url.parse::<Uri>() else { return false };
    let Some(authority) = parsed.authority() else { return false };
    // `Uri` takes anything for a port, and drops a fragment.
    let port = authority.as_str().strip_prefix(authority.host());
    let port_is_sound = match port {
        Some("") => true,
        Some(port) => port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok()),
        None => false,
    };
    port_is_sound && parsed.query().is_none() && !url.contains('#')
}

/// State shared by all connections.
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
    /// Whether the service has ever been reached.
    reached: Cell<bool>,
    failure_reported: Cell<Option<Instant>>,
}

/// Totals over the answers so far.
struct Seen {
    applied: u64,
    duplicates: u64,
    resent: u64,
    /// In microseconds, from the first attempt to send a message to its confirmation, retries
    /// included.
    latency: Histogram<u64>,
}

/// An HTTP response. Statuses that ask to retry later are handled by [`Sender::ask`].
struct Response {
    status: StatusCode,
    replayed: bool,
    body: Bytes,
}

impl Response {
    fn is_not_now(&self) -> bool {
        self.status.is_server_error() || self.status == StatusCode::TOO_MANY_REQUESTS
    }
}

impl std::fmt::Display for Response {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}", self.status, Escaped(String::from_utf8_lossy(&self.body)))
    }
}

impl Sender {
    fn new(
        client: awc::Client,
        base: String,
        fleet: Fleet,
        args: &LaunchArgs,
    ) -> Result<Self, Failure> {
        // Duplicates are chosen at random, so the bar's length is the expected value.
        let sent = (fleet.messages as f64 * (1.0 + fleet.duplicate_percent / 100.0)).round() as u64;
        let style = "{wide_bar} {pos} messages sent ({rate} a second, {eta} to go)";
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
            seen: RefCell::new(Seen {
                applied: 0,
                duplicates: 0,
                resent: 0,
                latency: Histogram::new(LATENCY_DIGITS)?,
            }),
            progress: output::progress_bar(Some(sent), style),
            reached: Cell::new(false),
            failure_reported: Cell::new(None),
        })
    }

    /// The channel of a rocket of the fleet.
    fn channel(&self, rocket: u32) -> &str {
        &self.channels[rocket as usize]
    }

    /// Sends until no messages are left.
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

    /// Sends a message until it is confirmed.
    async fn send(&self, rocket: u32, number: u32) -> Result<(), String> {
        let mut json = Vec::with_capacity(256);
        self.fleet.write_message(self.channel(rocket), rocket, number, &mut json);
        let json = Bytes::from(json);
        let url = format!("{}/messages", self.base);
        let first_sent = Instant::now();
        let post = || {
            let request = authorized(self.client.post(&url), &self.write_token)
                .content_type("application/json");
            request.send_body(json.clone())
        };
        let (answer, repeated) = self.ask(&url, post).await?;
        if answer.status != StatusCode::NO_CONTENT {
            return Err(format!(
                "{url}: message {number} of {} was rejected: {answer}",
                self.channel(rocket)
            ));
        }
        self.taken(answer.replayed, repeated, first_sent.elapsed())
    }

    /// Retries a request until the response is something other than "try again later". Also returns
    /// the number of retries.
    async fn ask(
        &self,
        url: &str,
        request: impl Fn() -> awc::SendClientRequest,
    ) -> Result<(Response, u64), String> {
        let first_sent = Instant::now();
        let mut repeated = 0;
        loop {
            let failure = match self.ask_once(request()).await {
                Ok(answer) if !answer.is_not_now() => return Ok((answer, repeated)),
                Ok(answer) => answer.to_string(),
                Err(failure) => failure,
            };
            if !self.reached.get() {
                return Err(format!(
                    "{}: no service answers there: {failure}. Check the address, and that \
                     rocket-monitor serve is running.",
                    self.base
                ));
            }
            if first_sent.elapsed() > REPEAT_FOR {
                return Err(format!(
                    "{url}: no success after retrying for {} seconds: {failure}",
                    REPEAT_FOR.as_secs()
                ));
            }
            self.report_failure(url, &failure);
            repeated += 1;
            actix_web::rt::time::sleep(REPEAT_AFTER).await;
        }
    }

    fn report_failure(&self, url: &str, failure: &str) {
        if self
            .failure_reported
            .get()
            .is_none_or(|reported| reported.elapsed() > REPORT_FAILURES_EVERY)
        {
            self.failure_reported.set(Some(Instant::now()));
            let seconds = REPEAT_FOR.as_secs();
            self.progress.suspend(|| {
                complain(format!("{url}: {failure}; retrying for up to {seconds} seconds"))
            });
        }
    }

    async fn ask_once(&self, request: awc::SendClientRequest) -> Result<Response, String> {
        let response = request.await;
        // A timeout counts as reached: something accepted the connection.
        if matches!(response, Ok(_) | Err(SendRequestError::Timeout)) {
            self.reached.set(true);
        }
        let mut response = response.map_err(|error| error.to_string())?;
        let status = response.status();
        let replayed = response.headers().contains_key("idempotent-replayed");
        let body =
            response.body().limit(MAX_ANSWER_BYTES).await.map_err(|error| error.to_string())?;
        Ok(Response { status, replayed, body })
    }

    fn taken(&self, replayed: bool, resent: u64, latency: Duration) -> Result<(), String> {
        let mut seen = self.seen.borrow_mut();
        if replayed {
            seen.duplicates += 1;
        } else {
            seen.applied += 1;
        }
        seen.resent += resent;
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        // This method grows the histogram; `saturating_record` would clamp the value to the initial
        // maximum.
        seen.latency.record(micros).map_err(|error| error.to_string())?;
        self.progress.inc(1);
        Ok(())
    }

    /// Describes how the service's answer differs from the in-order fold, if it does.
    async fn verify(&self, rocket: u32) -> Result<Option<String>, String> {
        let expected = self.fleet.expected(rocket);
        let sent = self.fleet.messages_of(rocket);
        for view in View::ALL {
            let channel = utf8_percent_encode(self.channel(rocket), NON_ALPHANUMERIC);
            let url = format!("{}/rockets/{channel}?view={}", self.base, view.name());
            let get = || authorized(self.client.get(&url), &self.read_token).send();
            let (answer, _) = self.ask(&url, get).await?;
            if sent == 0 && answer.status == StatusCode::NOT_FOUND {
                continue;
            }
            let is: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
            let must = expected_json(self.channel(rocket), &expected, sent);
            if answer.status != StatusCode::OK || !agrees(&is, &must) {
                return Ok(Some(format!("{url}\n  says      {answer}\n  should be {must}")));
            }
        }
        Ok(None)
    }
}

async fn send_all(sender: &Rc<Sender>) -> Result<(), Failure> {
    let started = Instant::now();
    let sent = each_connection(sender, |sender| async move { sender.send_some().await }).await;
    sender.progress.finish_and_clear();
    sent?;
    sender.report(started.elapsed())
}

/// Does the same work on every connection. The first failure stops them all.
async fn each_connection<W>(
    sender: &Rc<Sender>,
    work: impl Fn(Rc<Sender>) -> W,
) -> Result<(), String>
where
    W: Future<Output = Result<(), String>>,
{
    try_join_all((0..sender.connections).map(|_| work(Rc::clone(sender)))).await.map(|_| ())
}

impl Sender {
    fn report(&self, elapsed: Duration) -> Result<(), Failure> {
        let Seen { applied, duplicates, resent, latency } = &*self.seen.borrow();
        let sent = applied + duplicates;
        let rate = output::rate(sent as f64 / elapsed.as_secs_f64().max(1e-9));
        let milliseconds = |micros: u64| micros as f64 / 1_000.0;
        say!(
            "sent      {sent} messages of {} rockets in {elapsed:.1?}: {rate} a second",
            self.fleet.rockets
        )?;
        say!(
            "answers   {applied} applied, {duplicates} duplicates; {resent} sent again after a failure"
        )?;
        if latency.is_empty() {
            return Ok(());
        }
        say!(
            "latency   median {:.2} ms, 99% {:.2} ms, highest {:.2} ms",
            milliseconds(latency.value_at_quantile(0.5)),
            milliseconds(latency.value_at_quantile(0.99)),
            milliseconds(latency.max())
        )
    }
}

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
    for disagreement in disagreements.iter().take(MAX_DISAGREEMENTS_PRINTED) {
        say!("{disagreement}")?;
    }
    say!(
        "verified  {} rockets in both views: {} disagree with the in-order fold",
        sender.fleet.rockets,
        disagreements.len()
    )?;
    Ok(if disagreements.is_empty() { Finished::Well } else { Finished::With(1) })
}

/// The JSON that both views of a rocket must contain once all of its messages are processed.
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

/// Whether every expected member has its value. `lastReceived` is the service's own time and isn't
/// compared.
fn agrees(is: &Value, must: &Value) -> bool {
    must.as_object()
        .is_some_and(|must| must.iter().all(|(member, value)| is.get(member) == Some(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_the_host_the_port_and_the_path() {
        for (url, base) in [
            ("http://127.0.0.1:8088", "http://127.0.0.1:8088"),
            ("HTTP://localhost:8088/", "http://localhost:8088"),
            ("http://localhost/messages", "http://localhost"),
            ("rockets.example:80/messages/", "http://rockets.example:80"),
            ("http://[::1]:8088", "http://[::1]:8088"),
            ("http://[::1]", "http://[::1]"),
            ("http://proxy/fleet/messages", "http://proxy/fleet"),
        ] {
            assert_eq!(base_url(url).as_deref(), Ok(base));
        }
    }

    #[test]
    fn what_may_hold_a_password_is_no_base_and_is_not_repeated() {
        for (url, reason) in [
            ("http://u:s3cret@127.0.0.1:1/", "--write-token-file"),
            ("HTTP://u:s3cret@127.0.0.1:1/messages", "--write-token-file"),
            ("https://u:s3cret@127.0.0.1", "--write-token-file"),
            ("u:s3cret@127.0.0.1", "--write-token-file"),
            ("http://u:a/s3cret@127.0.0.1", "--write-token-file"),
            ("http://s3cret@127.0.0.1", "--write-token-file"),
            ("http://u:s3cret", "can't be used"),
            ("http://u:s3cret/127.0.0.1", "can't be used"),
            ("u:s3cret", "can't be used"),
            ("http://127.0.0.1:1?password=s3cret", "can't be used"),
            ("http://127.0.0.1:1/#s3cret", "can't be used"),
            ("http://127.0.0.1:1 s3cret", "can't be used"),
            ("http://[s3cret", "can't be used"),
            ("http://:s3cret", "lacks a host"),
            ("https://h/s3cret", "only http://"),
        ] {
            let refused = base_url(url).err().unwrap_or_default();
            assert!(refused.contains(reason) && !refused.contains("s3cret"), "{url}: {refused}");
        }
    }
}
