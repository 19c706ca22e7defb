//! Requests to a running service, for the commands that talk to one.
//!
//! The simulator has a client of its own, which measures and repeats each of its requests.

mod url;

use std::cell::Cell;
use std::fmt::Display;
use std::rc::Rc;
use std::time::{Duration, Instant};

use awc::SendClientRequest;
use awc::http::{StatusCode, header};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde::de::DeserializeOwned;
pub use url::base_url;

use crate::terminal::Escaped;
use crate::tokens::Token;

/// How long the service may take until its response starts, and between its parts; and to take the
/// next part of a stream.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest response that is read at once.
const MAX_RESPONSE_BYTES: usize = 1024 * 1024;
/// How much of the response to a request that failed is shown.
const MAX_SHOWN_BYTES: usize = 1_024;

/// A client of one service. It must be used inside an actix system.
pub struct ServiceClient {
    client: awc::Client,
    base: String,
    tokens: ClientTokens,
    was_reached: Cell<bool>,
}

#[derive(Clone, Debug, Default)]
pub struct ClientTokens {
    /// For GET requests.
    pub read: Option<Token>,
    /// For POST requests.
    pub write: Option<Token>,
}

/// Why a request failed: a sentence for the user.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{url}: {detail}")]
pub struct RequestError {
    url: String,
    detail: String,
    may_pass: bool,
}

impl RequestError {
    /// Whether the same request may succeed later.
    pub fn may_pass(&self) -> bool {
        self.may_pass
    }
}

/// The start of a response with the status 200.
pub struct ServiceResponse {
    response: awc::ClientResponse,
    url: String,
}

impl ServiceClient {
    /// A client of the service at this base URL (see [`base_url`]).
    pub fn new(base: String, tokens: ClientTokens) -> Self {
        let client = awc::Client::builder().disable_timeout().finish();
        Self { client, base, tokens, was_reached: Cell::new(false) }
    }

    /// Whether the service has ever answered.
    pub fn was_reached(&self) -> bool {
        self.was_reached.get()
    }

    pub async fn get(&self, path: &str) -> Result<ServiceResponse, RequestError> {
        let url = self.url(path);
        let request = authorized(self.client.get(&url), &self.tokens.read).send();
        self.response(url, request, &Progress::default()).await
    }

    /// Posts lines of JSON.
    pub async fn post(&self, path: &str, lines: Bytes) -> Result<ServiceResponse, RequestError> {
        let url = self.url(path);
        let request = self.post_request(&url).send_body(lines);
        self.response(url, request, &Progress::default()).await
    }

    /// Posts a stream of lines of JSON. If it ends in an error, the request breaks off.
    pub async fn post_stream<E>(
        &self,
        path: &str,
        lines: impl Stream<Item = Result<Bytes, E>> + 'static,
    ) -> Result<ServiceResponse, RequestError>
    where
        E: Into<Box<dyn std::error::Error>> + 'static,
    {
        let url = self.url(path);
        let progress = Progress::default();
        let taken = progress.clone();
        let lines = lines.inspect(move |_| taken.note());
        let request = self.post_request(&url).send_stream(Box::pin(lines));
        self.response(url, request, &progress).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn post_request(&self, url: &str) -> awc::ClientRequest {
        let request = self.client.post(url);
        let request = request.insert_header((header::CONTENT_TYPE, "application/x-ndjson"));
        authorized(request, &self.tokens.write)
    }

    /// Waits for the start of the response, for so long after the last progress.
    async fn response(
        &self,
        url: String,
        request: SendClientRequest,
        progress: &Progress,
    ) -> Result<ServiceResponse, RequestError> {
        let response = tokio::select! {
            response = request => response,
            () = progress.stalled() => return Err(timed_out(&url)),
        };
        let mut response = response.map_err(|error| passing(&url, error))?;
        self.was_reached.set(true);
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(ServiceResponse { response, url });
        }
        let body = response.body().limit(MAX_RESPONSE_BYTES);
        let shown = match tokio::time::timeout(PROGRESS_TIMEOUT, body).await {
            Ok(Ok(body)) => {
                String::from_utf8_lossy(&body[..body.len().min(MAX_SHOWN_BYTES)]).into_owned()
            }
            // The status says most of it.
            Ok(Err(_)) | Err(_) => "(its body can't be read)".to_owned(),
        };
        let may_pass = status.is_server_error()
            || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status);
        Err(RequestError { url, detail: format!("{status} {}", Escaped(shown)), may_pass })
    }
}

impl ServiceResponse {
    /// The next part of the body; none at its end.
    pub async fn next_part(&mut self) -> Result<Option<Bytes>, RequestError> {
        let part = tokio::time::timeout(PROGRESS_TIMEOUT, self.response.next()).await;
        let part = part.map_err(|_| timed_out(&self.url))?;
        part.transpose().map_err(|error| passing(&self.url, error))
    }

    /// The whole body.
    pub async fn json<T: DeserializeOwned>(mut self) -> Result<T, RequestError> {
        let body = self.response.body().limit(MAX_RESPONSE_BYTES);
        let body = tokio::time::timeout(PROGRESS_TIMEOUT, body).await;
        let body = body.map_err(|_| timed_out(&self.url))?;
        let body = body.map_err(|error| passing(&self.url, error))?;
        serde_json::from_slice(&body).map_err(|error| self.unusable(error))
    }

    /// The error for a response that makes no sense.
    pub fn unusable(&self, why: impl Display) -> RequestError {
        let why = Escaped(why.to_string());
        RequestError {
            url: self.url.clone(),
            detail: format!("the response is not what this version expects: {why}"),
            may_pass: false,
        }
    }
}

/// When a request last made progress.
#[derive(Clone)]
struct Progress(Rc<Cell<Instant>>);

impl Default for Progress {
    fn default() -> Self {
        Self(Rc::new(Cell::new(Instant::now())))
    }
}

impl Progress {
    fn note(&self) {
        self.0.set(Instant::now());
    }

    /// Waits until there has been no progress for too long.
    async fn stalled(&self) {
        while let Some(rest) = PROGRESS_TIMEOUT.checked_sub(self.0.get().elapsed()) {
            tokio::time::sleep(rest).await;
        }
    }
}

fn passing(url: &str, error: impl Display) -> RequestError {
    let detail = Escaped(error.to_string()).to_string();
    RequestError { url: url.to_owned(), detail, may_pass: true }
}

fn timed_out(url: &str) -> RequestError {
    passing(url, format!("no progress for {} seconds", PROGRESS_TIMEOUT.as_secs()))
}

fn authorized(request: awc::ClientRequest, token: &Option<Token>) -> awc::ClientRequest {
    match token {
        Some(token) => request.bearer_auth(token.expose()),
        None => request,
    }
}
