//! Sends a fleet's messages over several connections.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use awc::http::StatusCode;
use bytes::Bytes;
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;

use super::client::SimulatorClient;
use super::fleet::{Arrivals, Fleet};

/// The number of significant digits of a latency.
const LATENCY_DIGITS: u8 = 3;

/// Sends the messages of a fleet, and counts the responses.
pub struct Sender {
    pub(super) client: SimulatorClient,
    pub(super) fleet: Fleet,
    channels: Vec<String>,
    connections: u16,
    /// The pause of each connection between two messages.
    pause: Duration,
    arrivals: RefCell<Arrivals>,
    totals: RefCell<SendTotals>,
    progress: ProgressBar,
}

/// SendTotals over the responses so far.
#[derive(Clone, Debug)]
pub struct SendTotals {
    /// Messages that were new to the service.
    pub applied: u64,
    /// Messages that the service already had.
    pub duplicates: u64,
    /// Requests that were sent again after a failure.
    pub resent: u64,
    /// Microseconds from the first attempt to send a message to its confirmation, retries included.
    pub latency: Histogram<u64>,
}

impl Sender {
    /// Sends nothing yet. The progress bar advances with each confirmed message.
    pub fn new(
        client: SimulatorClient,
        fleet: Fleet,
        connections: u16,
        pause: Duration,
        progress: ProgressBar,
    ) -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self {
            client,
            fleet,
            channels: (0..fleet.rockets).map(|rocket| fleet.channel(rocket)).collect(),
            connections,
            pause,
            arrivals: RefCell::new(fleet.arrivals()),
            totals: RefCell::new(SendTotals {
                applied: 0,
                duplicates: 0,
                resent: 0,
                latency: Histogram::new(LATENCY_DIGITS)?,
            }),
            progress,
        })
    }

    /// Sends every message until it is confirmed. The error is a sentence for the user.
    pub async fn send_all(&self) -> Result<(), String> {
        let sent = self.on_each_connection(|| self.send_remaining()).await;
        self.progress.finish_and_clear();
        sent
    }

    pub fn totals(&self) -> SendTotals {
        self.totals.borrow().clone()
    }

    pub(super) fn channel(&self, rocket: u32) -> &str {
        &self.channels[rocket as usize]
    }

    /// Runs one worker for each connection. The first failure stops all of them.
    pub(super) async fn on_each_connection<F>(&self, worker: impl Fn() -> F) -> Result<(), String>
    where
        F: Future<Output = Result<(), String>>,
    {
        try_join_all((0..self.connections).map(|_| worker())).await.map(|_| ())
    }

    async fn send_remaining(&self) -> Result<(), String> {
        loop {
            let next = self.arrivals.borrow_mut().next();
            let Some((rocket, number)) = next else { return Ok(()) };
            self.send(rocket, number).await?;
            if !self.pause.is_zero() {
                actix_web::rt::time::sleep(self.pause).await;
            }
        }
    }

    /// Sends a message until it is confirmed.
    async fn send(&self, rocket: u32, number: u32) -> Result<(), String> {
        let channel = self.channel(rocket);
        let mut json = Vec::with_capacity(256);
        self.fleet.write_message(channel, rocket, number, &mut json);
        let first_sent = Instant::now();
        let response = self.client.post_message(Bytes::from(json)).await?;
        if response.status != StatusCode::NO_CONTENT {
            let url = self.client.url("/messages");
            return Err(format!("{url}: message {number} of {channel} was rejected: {response}"));
        }
        self.count(response.replayed, response.retries, first_sent.elapsed())
    }

    fn count(&self, replayed: bool, resent: u64, latency: Duration) -> Result<(), String> {
        let mut totals = self.totals.borrow_mut();
        if replayed {
            totals.duplicates += 1;
        } else {
            totals.applied += 1;
        }
        totals.resent += resent;
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        // This method grows the histogram; `saturating_record` would clamp the value to the initial
        // maximum.
        totals.latency.record(micros).map_err(|error| error.to_string())?;
        self.progress.inc(1);
        Ok(())
    }
}
