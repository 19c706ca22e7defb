//! `POST /missing`: a sender asks which of its messages have not been processed.

use std::collections::VecDeque;

use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use crate::domain::missing::{Missing, Question};
use crate::http::extract::body::{self, Body};
use crate::http::extract::read_ahead::ReadAhead;
use crate::http::middleware::response_budget;
use crate::http::problem::Problem;
use crate::http::state::State;
use crate::wire::message::MAX_MESSAGE_BYTES;
use crate::wire::missing::{AnswerJson, QuestionJson, parse, parse_line};
use crate::wire::ndjson::{BadLine, Line, LineCutter};

/// The maximum number of lines that are answered at a time.
const MAX_LINES: usize = 256;
/// The maximum number of bytes that are cut into lines at a time.
const MAX_CUT_BYTES: usize = 8 * 1024;
/// The maximum number of bytes that are passed to the connection at a time, which copies them.
const CHUNK_BYTES: usize = 32 * 1024;

/// Ask which messages are missing.
///
/// A sender has sent the messages `from` to `through` of a channel, and asks which of them have not
/// been processed. To ask for many channels, send one question per line with `Content-Type:
/// application/x-ndjson` (or `application/ndjson`, `application/jsonl`); the body may have any
/// length. With any other content type, the body is one question. It may have the
/// `Content-Encoding` gzip or zstd.
///
/// The response has a line for each line, in their order: an answer, or the line's number and why
/// it can't be read. It starts before the body ends. Read it while you send, unless the body has
/// less than 8 MiB.
#[utoipa::path(
    post,
    path = "/missing",
    operation_id = "findMissing",
    tag = "Messages",
    request_body(content(
        (QuestionJson = "application/json"),
        (crate::wire::missing::QuestionLines = "application/x-ndjson")
    )),
    responses(
        (status = 200, description = "The answers, one per line. If the connection ends before the \
                                      response, ask again for the questions that have no answer.",
         content_type = "application/x-ndjson", body = crate::wire::missing::AnswerLine),
        (status = 400, description = "The body is not one JSON text in UTF-8, or can't be \
                                      decoded."),
        (status = 408, description = "The body did not arrive in time."),
        (status = 413, description = "A single question is larger than 64 KiB, decoded."),
        (status = 415, description = "The body has a Content-Encoding other than gzip and zstd."),
        (status = 422, description = "The body is JSON, but not a valid question; `errors` names \
                                      the members.")
    )
)]
pub(in crate::http) async fn post(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let body = Body::open(&request, payload, &state.stopping).await?;
    if body::is_ndjson(&request) {
        return answer_stream(body, state).await;
    }
    let question = parse(body.read_message().await?).map_err(Problem::bad_question)?;
    let answers = read(&state, vec![question.clone()]).await?;
    let [answer] = &*answers else { unreachable!("a store answers at least one question") };
    let mut text = Vec::new();
    write_line(&mut text, &AnswerJson::new(&question, answer));
    Ok(ndjson().body(response_budget::into_bytes(text)))
}

fn ndjson() -> actix_web::HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response.content_type("application/x-ndjson");
    response
}

/// The answers to the first questions.
async fn read(state: &State, questions: Vec<Question>) -> Result<Vec<Missing>, Problem> {
    let store = state.store.clone();
    let read = async move { store.missing(questions).await };
    let answers = state.or_unavailable(state.missing_limit.read_without_timeout(read).await)?;
    state.metrics.asked(answers.len());
    Ok(answers)
}

fn write_line(text: &mut Vec<u8>, line: &impl Serialize) {
    if let Err(error) = serde_json::to_writer(&mut *text, line) {
        unreachable!("answers have only texts and numbers: {error}");
    }
    text.push(b'\n');
}

async fn answer_stream(mut body: Body, state: web::Data<State>) -> Result<HttpResponse, Problem> {
    let permit = state.missing_streams.permit().await?;
    body.limit_memory(&state.zstd_streams).await?;
    let mut answers = AnswerStream {
        body: ReadAhead::start(body, &state.read_ahead),
        state,
        cutter: LineCutter::new(MAX_MESSAGE_BYTES),
        arrived: Some(Bytes::new()),
        cut: VecDeque::new(),
        lines: VecDeque::new(),
        text: Bytes::new(),
        _permit: permit,
    };
    // Before the first byte, a failure still has a status.
    match answers.next().await? {
        Some(first) => Ok(ndjson().streaming(answers.into_stream(first))),
        None => Ok(ndjson().body(Bytes::new())),
    }
}

/// Answers the lines of a body while it arrives. It holds one batch of lines and answers.
struct AnswerStream {
    state: web::Data<State>,
    body: ReadAhead,
    cutter: LineCutter,
    /// What has arrived and is not cut into lines; `None` after the end.
    arrived: Option<Bytes>,
    /// Lines that are not parsed.
    cut: VecDeque<Line>,
    /// Lines that are not answered.
    lines: VecDeque<Result<Question, BadLine>>,
    /// Answers that are not sent.
    text: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AnswerStream {
    fn into_stream(self, first: Bytes) -> impl Stream<Item = Result<Bytes, Problem>> {
        stream::unfold((Some(first), Some(self)), async |(first, answers)| {
            let mut answers = answers?;
            if let Some(first) = first {
                return Some((Ok(first), (None, Some(answers))));
            }
            match answers.next().await {
                Ok(next) => next.map(|next| (Ok(next), (None, Some(answers)))),
                // The connection is closed without the end of the response.
                Err(problem) => {
                    let (status, reason) = (problem.status().as_u16(), problem.logged_reason());
                    tracing::warn!(status, reason, "the answers to a stream were cut off");
                    Some((Err(problem), (None, None)))
                }
            }
        })
    }

    /// The next part of the response; `None` at its end.
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        while self.text.is_empty() {
            let missing = MAX_LINES.saturating_sub(self.lines.len()).min(self.cut.len());
            self.lines.extend(self.cut.drain(..missing).map(parse_line));
            if !self.lines.is_empty() {
                self.answer().await?;
            } else if !self.cut_more().await? {
                return Ok(None);
            }
        }
        Ok(Some(self.text.split_to(self.text.len().min(CHUNK_BYTES))))
    }

    /// Cuts more of the body into lines. Returns false after its end.
    async fn cut_more(&mut self) -> Result<bool, Problem> {
        let Some(arrived) = &mut self.arrived else { return Ok(false) };
        if arrived.is_empty() {
            match self.body.next().await? {
                Some(bytes) => *arrived = bytes,
                None => {
                    self.arrived = None;
                    self.cutter.finish(&mut |line| self.cut.push_back(line));
                    return Ok(true);
                }
            }
        }
        let part = arrived.split_to(arrived.len().min(MAX_CUT_BYTES));
        self.cutter.feed(&part, &mut |line| self.cut.push_back(line));
        Ok(true)
    }

    /// Answers the first lines.
    async fn answer(&mut self) -> Result<(), Problem> {
        let questions: Vec<_> = self.lines.iter().flatten().cloned().collect();
        let mut answers = match questions.is_empty() {
            true => Vec::new(),
            false => read(&self.state, questions).await?,
        }
        .into_iter();
        let mut text = Vec::new();
        while let Some(line) = self.lines.pop_front() {
            match line {
                Ok(question) => match answers.next() {
                    Some(answer) => write_line(&mut text, &AnswerJson::new(&question, &answer)),
                    None => {
                        self.lines.push_front(Ok(question));
                        break;
                    }
                },
                Err(bad) => write_line(&mut text, &bad),
            }
        }
        assert!(!text.is_empty(), "a store answers at least one question");
        self.text = text.into();
        Ok(())
    }
}
