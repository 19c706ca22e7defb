//! The requests of `resend`, which are sent again until they succeed.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use awc::http::{StatusCode, header};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Progress;
use crate::domain::missing::{Missing, Question};
use crate::terminal::Escaped;
use crate::tokens::Token;
use crate::wire::ndjson::LineCutter;

/// How long the service may take until its response starts, and between its parts.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long requests are sent again without success.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
/// The first pause before a request is sent again. Each further one is twice as long.
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// The maximum number of bytes of questions in a request. The system's buffers take them, so a
/// service that waits until its answers are read doesn't wait forever.
const MAX_QUESTION_BYTES: usize = 64 * 1024;
/// The longest answer: 10,000 ranges, and the channel.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// The largest response to messages.
const MAX_RESPONSE_BYTES: usize = 1024 * 1024;
/// How much of the response to a request that failed is shown.
const MAX_SHOWN_BYTES: usize = 1_024;

/// A client of one service. Its errors are sentences for the user.
pub struct ServiceClient {
    client: awc::Client,
    base: String,
    write_token: Option<Token>,
    progress: Arc<dyn Progress>,
    /// Whether the service has ever been reached.
    was_reached: Cell<bool>,
}

/// What the service did with lines that were sent.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct SendCounts {
    pub applied: u64,
    pub duplicates: u64,
    pub rejected: u64,
}

impl SendCounts {
    pub(super) fn add(&mut self, other: &Self) {
        self.applied += other.applied;
        self.duplicates += other.duplicates;
        self.rejected += other.rejected;
    }
}

/// The response to lines.
#[derive(Deserialize)]
struct SendResponse {
    #[serde(flatten)]
    counts: SendCounts,
    #[serde(default)]
    errors: Vec<RejectedLine>,
}

#[derive(Deserialize)]
struct RejectedLine {
    detail: String,
}

/// A line of the response to questions.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MissingAnswer {
    channel: String,
    missing: Vec<(u32, u32)>,
    next_from: Option<u32>,
}

/// Why a request failed.
enum RequestError {
    /// It may succeed later.
    Passing(String),
    Permanent(String),
}

impl RequestError {
    fn passing(error: impl std::fmt::Display) -> Self {
        Self::Passing(error.to_string())
    }
}

/// The pauses between the tries of a request.
struct Retries {
    since: Option<Instant>,
    pause: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self { since: None, pause: MIN_PAUSE }
    }
}

impl ServiceClient {
    /// A client of the service at this base URL. It must be used inside an actix system.
    pub fn new(base: String, write_token: Option<Token>, progress: Arc<dyn Progress>) -> Self {
        let client = awc::Client::builder().disable_timeout().finish();
        Self { client, base, write_token, progress, was_reached: Cell::new(false) }
    }

    /// Asks all questions, in any order. `add` takes each answer, and returns the question with
    /// which to go on.
    pub(super) async fn ask(
        &self,
        questions: Vec<Question>,
        add: &mut impl FnMut(&Question, Missing) -> Option<Question>,
    ) -> Result<(), String> {
        let mut questions = VecDeque::from(questions);
        let mut retries = Retries::default();
        while !questions.is_empty() {
            let mut bytes = 0;
            let mut body = Vec::new();
            for question in &questions {
                let line = question_json(question);
                bytes += line.len();
                if bytes > MAX_QUESTION_BYTES && !body.is_empty() {
                    break;
                }
                body.extend_from_slice(line.as_bytes());
            }
            let before = questions.len();
            let mut answered = 0;
            let asked = self
                .ask_once(body.into(), &mut |answer| {
                    let question =
                        questions.pop_front().filter(|it| answer.channel == it.channel.as_str());
                    let Some(question) = question else { return false };
                    answered += 1;
                    let missing = Missing { ranges: answer.missing, next_from: answer.next_from };
                    questions.extend(add(&question, missing));
                    true
                })
                .await;
            assert!(questions.len() <= before, "each answer asks at most one more question");
            if answered > 0 {
                retries = Retries::default();
            }
            match asked {
                Ok(()) if answered > 0 => {}
                Ok(()) => return Err(self.unusable("/missing", "it has no answers")),
                Err(error) => self.pause(&mut retries, "/missing", error).await?,
            }
        }
        Ok(())
    }

    /// Sends one request. `add` takes each answer, and returns false if it is to no question.
    async fn ask_once(
        &self,
        body: Bytes,
        add: &mut impl FnMut(MissingAnswer) -> bool,
    ) -> Result<(), RequestError> {
        let mut response = self.post("/missing", body).await?;
        let mut cutter = LineCutter::new(MAX_ANSWER_BYTES);
        loop {
            let chunk = tokio::time::timeout(RESPONSE_TIMEOUT, response.next()).await;
            let chunk = chunk.map_err(RequestError::passing)?;
            let mut problem = None;
            let mut each = |line: crate::wire::ndjson::Line| {
                let answer = line.text.ok().and_then(|text| serde_json::from_slice(&text).ok());
                if problem.is_none() && !answer.is_some_and(&mut *add) {
                    problem = Some(self.unusable("/missing", "an answer is to no question"));
                }
            };
            match &chunk {
                Some(Ok(chunk)) => cutter.feed(chunk, &mut each),
                Some(Err(error)) => return Err(RequestError::passing(error)),
                None => cutter.finish(&mut each),
            }
            if let Some(problem) = problem {
                return Err(RequestError::Permanent(problem));
            }
            if chunk.is_none() {
                return Ok(());
            }
        }
    }

    /// Sends lines until the service has taken them. Returns its counts, and why it rejected lines.
    pub(super) async fn send(&self, lines: Bytes) -> Result<(SendCounts, Vec<String>), String> {
        let mut retries = Retries::default();
        loop {
            match self.send_once(lines.clone()).await {
                Ok(SendResponse { counts, errors }) => {
                    return Ok((counts, errors.into_iter().map(|error| error.detail).collect()));
                }
                Err(error) => self.pause(&mut retries, "/messages", error).await?,
            }
        }
    }

    async fn send_once(&self, lines: Bytes) -> Result<SendResponse, RequestError> {
        let mut response = self.post("/messages", lines).await?;
        let body =
            tokio::time::timeout(RESPONSE_TIMEOUT, response.body().limit(MAX_RESPONSE_BYTES));
        let body = body.await.map_err(RequestError::passing)?.map_err(RequestError::passing)?;
        serde_json::from_slice(&body).map_err(|error| {
            RequestError::Permanent(self.unusable("/messages", &error.to_string()))
        })
    }

    /// Posts lines, and returns the response if it is 200.
    async fn post(&self, path: &str, body: Bytes) -> Result<awc::ClientResponse, RequestError> {
        let url = format!("{}{path}", self.base);
        let mut request =
            self.client.post(&url).insert_header((header::CONTENT_TYPE, "application/x-ndjson"));
        if let Some(token) = &self.write_token {
            request = request.bearer_auth(token.expose());
        }
        let response = tokio::time::timeout(RESPONSE_TIMEOUT, request.send_body(body)).await;
        let mut response =
            response.map_err(RequestError::passing)?.map_err(RequestError::passing)?;
        self.was_reached.set(true);
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response);
        }
        let body = response.body().limit(MAX_RESPONSE_BYTES);
        let body = tokio::time::timeout(RESPONSE_TIMEOUT, body).await;
        let body = body.ok().and_then(Result::ok).unwrap_or_default();
        let shown = body.get(..body.len().min(MAX_SHOWN_BYTES)).unwrap_or_default();
        let failure = format!("{status} {}", Escaped(String::from_utf8_lossy(shown)));
        let may_pass = status.is_server_error()
            || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status);
        Err(match may_pass {
            true => RequestError::Passing(failure),
            false => RequestError::Permanent(format!("{url}: {failure}")),
        })
    }

    /// Waits before a request is sent again. Fails if that can't help, or didn't help for too long.
    async fn pause(
        &self,
        retries: &mut Retries,
        path: &str,
        error: RequestError,
    ) -> Result<(), String> {
        let failure = match error {
            RequestError::Permanent(failure) => return Err(failure),
            RequestError::Passing(failure) => failure,
        };
        let base = &self.base;
        if !self.was_reached.get() {
            return Err(format!(
                "{base}: no service answers there: {failure}. Check the address, and that \
                 rocket-monitor serve is running."
            ));
        }
        let since = *retries.since.get_or_insert_with(Instant::now);
        let seconds = RETRY_TIMEOUT.as_secs();
        if since.elapsed() > RETRY_TIMEOUT {
            return Err(format!(
                "{base}{path}: no success after retrying for {seconds} seconds: {failure}. What \
                 was sent is stored: repeat the command to send the rest."
            ));
        }
        if retries.pause == MIN_PAUSE {
            self.progress
                .failure(format!("{base}{path}: {failure}; retrying for up to {seconds} seconds"));
        }
        actix_web::rt::time::sleep(retries.pause).await;
        retries.pause = (retries.pause * 2).min(MAX_PAUSE);
        Ok(())
    }

    fn unusable(&self, path: &str, why: &str) -> String {
        format!("{}{path}: the response is not what this version expects: {why}", self.base)
    }
}

fn question_json(Question { channel, from, through }: &Question) -> String {
    #[derive(Serialize)]
    struct QuestionLine<'q> {
        channel: &'q str,
        through: i64,
        from: i64,
    }
    let question =
        QuestionLine { channel: channel.as_str(), through: through.get(), from: from.get() };
    json!(question).to_string() + "\n"
}
