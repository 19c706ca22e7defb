//! The requests of `resend`, which are sent again until they succeed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Progress;
use crate::client::{RequestError, ServiceClient};
use crate::domain::missing::{Missing, Question};
use crate::wire::ndjson::{Line, LineCutter};

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

/// Repeats requests to a service. Its errors are sentences for the user.
pub(super) struct RetryingClient {
    service: ServiceClient,
    progress: Arc<dyn Progress>,
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

impl RetryingClient {
    pub(super) fn new(service: ServiceClient, progress: Arc<dyn Progress>) -> Self {
        Self { service, progress }
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
            if let Err(error) = asked {
                self.pause(&mut retries, error).await?;
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
        let mut response = self.service.post("/missing", body).await?;
        let mut cutter = LineCutter::new(MAX_ANSWER_BYTES);
        let (mut answers, mut is_answer) = (0, true);
        while is_answer {
            let part = response.next_part().await?;
            let mut each = |line: Line| {
                let answer = line.text.ok().and_then(|text| serde_json::from_slice(&text).ok());
                is_answer = is_answer && answer.is_some_and(&mut *add);
                answers += 1;
            };
            match &part {
                Some(part) => cutter.feed(part, &mut each),
                None => cutter.finish(&mut each),
            }
            match part {
                None if answers == 0 => return Err(response.unusable("it has no answers")),
                None if is_answer => return Ok(()),
                _ => {}
            }
        }
        Err(response.unusable("an answer is to no question"))
    }

    /// Sends lines until the service has taken them. Returns its counts, and why it rejected lines.
    pub(super) async fn send(&self, lines: Bytes) -> Result<(SendCounts, Vec<String>), String> {
        let mut retries = Retries::default();
        loop {
            match self.send_once(lines.clone()).await {
                Ok(SendResponse { counts, errors }) => {
                    return Ok((counts, errors.into_iter().map(|error| error.detail).collect()));
                }
                Err(error) => self.pause(&mut retries, error).await?,
            }
        }
    }

    async fn send_once(&self, lines: Bytes) -> Result<SendResponse, RequestError> {
        self.service.post("/messages", lines).await?.json().await
    }

    /// Waits before a request is sent again. Fails if that can't help, or didn't help for too long.
    async fn pause(&self, retries: &mut Retries, error: RequestError) -> Result<(), String> {
        if !error.may_pass() {
            return Err(error.to_string());
        }
        if !self.service.was_reached() {
            return Err(format!(
                "{error}: no service answers there. Check the address, and that rocket-monitor \
                 serve is running."
            ));
        }
        let since = *retries.since.get_or_insert_with(Instant::now);
        let seconds = RETRY_TIMEOUT.as_secs();
        if since.elapsed() > RETRY_TIMEOUT {
            return Err(format!(
                "{error}; no success after retrying for {seconds} seconds. What was sent is \
                 stored: repeat the command to send the rest."
            ));
        }
        if retries.pause == MIN_PAUSE {
            self.progress.failure(format!("{error}; retrying for up to {seconds} seconds"));
        }
        actix_web::rt::time::sleep(retries.pause).await;
        retries.pause = (retries.pause * 2).min(MAX_PAUSE);
        Ok(())
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
