//! An HTTP client of the service that retries what may be retried.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use awc::error::SendRequestError;
use awc::http::StatusCode;
use bytes::Bytes;

use crate::terminal::Escaped;
use crate::tokens::Token;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a request is retried before the run fails.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause before a request is retried.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// The shortest time between two reported failures. Failures in between are not reported.
const FAILURE_REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// The largest response that is read: a rocket with 100 gaps, or an error.
const MAX_RESPONSE_BYTES: usize = 1024 * 1024;

/// Reports the failure of a request before its retry.
type ReportFailure = Box<dyn Fn(String)>;

/// A client of one service. Its errors are sentences for the user.
pub struct SimulatorClient {
    client: awc::Client,
    base: String,
    write_token: Option<Token>,
    read_token: Option<Token>,
    /// Whether the service has ever been reached.
    was_reached: Cell<bool>,
    last_report: Cell<Option<Instant>>,
    report_failure: RefCell<ReportFailure>,
}

/// A response that needs no retry.
pub(super) struct Response {
    pub(super) status: StatusCode,
    /// Whether the message was a duplicate.
    pub(super) replayed: bool,
    pub(super) body: Bytes,
    /// The number of retries before this response.
    pub(super) retries: u64,
}

impl Response {
    fn is_retryable(&self) -> bool {
        self.status.is_server_error() || self.status == StatusCode::TOO_MANY_REQUESTS
    }
}

impl std::fmt::Display for Response {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}", self.status, Escaped(String::from_utf8_lossy(&self.body)))
    }
}

impl SimulatorClient {
    /// A client of the service at this base URL (see [`base_url`](crate::client::base_url)), with
    /// at most this many connections. It must be created and used inside an actix system.
    pub fn new(
        base: String,
        connections: u16,
        write_token: Option<Token>,
        read_token: Option<Token>,
    ) -> Self {
        let client = awc::Client::builder()
            .connector(awc::Connector::new().limit(connections.into()))
            .timeout(REQUEST_TIMEOUT)
            .finish();
        Self {
            client,
            base,
            write_token,
            read_token,
            was_reached: Cell::new(false),
            last_report: Cell::new(None),
            report_failure: RefCell::new(Box::new(|_| {})),
        }
    }

    /// Sets the function that reports retried failures, at most one in ten seconds.
    pub fn on_failure(&self, report: impl Fn(String) + 'static) {
        *self.report_failure.borrow_mut() = Box::new(report);
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Posts a message, as JSON.
    pub(super) async fn post_message(&self, json: Bytes) -> Result<Response, String> {
        let url = self.url("/messages");
        let post = || {
            let request = authorized(self.client.post(&url), &self.write_token);
            request.content_type("application/json").send_body(json.clone())
        };
        self.retry(&url, post).await
    }

    pub(super) async fn get(&self, url: &str) -> Result<Response, String> {
        self.retry(url, || authorized(self.client.get(url), &self.read_token).send()).await
    }

    /// Sends a request until its response needs no retry.
    async fn retry(
        &self,
        url: &str,
        request: impl Fn() -> awc::SendClientRequest,
    ) -> Result<Response, String> {
        let first_sent = Instant::now();
        let mut retries = 0;
        loop {
            let failure = match self.send(request()).await {
                Ok(response) if !response.is_retryable() => {
                    return Ok(Response { retries, ..response });
                }
                Ok(response) => response.to_string(),
                Err(failure) => failure,
            };
            if !self.was_reached.get() {
                return Err(format!(
                    "{}: no service answers there: {failure}. Check the address, and that \
                     rocket-monitor serve is running.",
                    self.base
                ));
            }
            if first_sent.elapsed() > RETRY_TIMEOUT {
                return Err(format!(
                    "{url}: no success after retrying for {} seconds: {failure}",
                    RETRY_TIMEOUT.as_secs()
                ));
            }
            self.report(url, &failure);
            retries += 1;
            actix_web::rt::time::sleep(RETRY_DELAY).await;
        }
    }

    async fn send(&self, request: awc::SendClientRequest) -> Result<Response, String> {
        let response = request.await;
        // A timeout counts as reached: something accepted the connection.
        if matches!(response, Ok(_) | Err(SendRequestError::Timeout)) {
            self.was_reached.set(true);
        }
        let mut response = response.map_err(|error| error.to_string())?;
        let status = response.status();
        let replayed = response.headers().contains_key("idempotent-replayed");
        let body =
            response.body().limit(MAX_RESPONSE_BYTES).await.map_err(|error| error.to_string())?;
        Ok(Response { status, replayed, body, retries: 0 })
    }

    fn report(&self, url: &str, failure: &str) {
        let reported = self.last_report.get();
        if reported.is_none_or(|reported| reported.elapsed() > FAILURE_REPORT_INTERVAL) {
            self.last_report.set(Some(Instant::now()));
            let seconds = RETRY_TIMEOUT.as_secs();
            let report = self.report_failure.borrow();
            report(format!("{url}: {failure}; retrying for up to {seconds} seconds"));
        }
    }
}

fn authorized(request: awc::ClientRequest, token: &Option<Token>) -> awc::ClientRequest {
    match token {
        Some(token) => request.bearer_auth(token.expose()),
        None => request,
    }
}
