//! `POST /messages`: one message, or a stream of them.

use std::collections::VecDeque;

use actix_web::http::StatusCode;
use actix_web::http::header::HeaderName;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::extract::body::{self, Body};
use crate::http::problem::Problem;
use crate::http::state::State;
use crate::ingest::{IngestError, Receipt, Submission};
use crate::wire::message::{RejectionKind, parse};
use crate::wire::ndjson::{BadLine, LineReader, Lines};
use crate::wire::schema::MessageBody;

static IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The maximum number of bad lines that a response lists.
const MAX_ERRORS_LISTED: usize = 100;
/// The maximum number of parts of a stream that wait for their commit at a time.
const MAX_PENDING_PARTS: usize = 512;

/// Post one message, or many.
///
/// To send many, one per line, use `Content-Type: application/x-ndjson` (or `application/ndjson`,
/// `application/jsonl`). The body may have any length. With any other content type, the body is one
/// message. It may have the `Content-Encoding` gzip or zstd.
#[utoipa::path(
    post,
    path = "/messages",
    operation_id = "postMessages",
    tag = "Messages",
    request_body(content(
        (MessageBody = "application/json"),
        (crate::wire::schema::MessageLines = "application/x-ndjson")
    )),
    responses(
        (status = 204, description = "The message is stored, or was stored before.", headers(
            ("Idempotent-Replayed" = String, description = "`true` if it was a duplicate, which \
                                                            changes nothing.")
        )),
        (status = 200, description = "The counts of applied, duplicate and rejected lines. All \
                                      applied lines are stored.", body = Counts),
        (status = 400, description = "The body is not one JSON text in UTF-8, or can't be \
                                      decoded."),
        (status = 408, description = "The body did not arrive in time."),
        (status = 413, description = "The body of a single message is larger than 64 KiB, \
                                      decoded."),
        (status = 415, description = "The body has a Content-Encoding other than gzip and zstd."),
        (status = 422, description = "The body is JSON, but not a valid message; `errors` names \
                                      the members."),
        (status = 503, description = "The store can't take it now. No message is half applied, and \
                                      it is safe to send everything again. For NDJSON, the problem \
                                      has the counts as members.")
    )
)]
pub(in crate::http) async fn post(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let record_rejection = |rejection: RejectionKind| state.metrics.rejected(rejection);
    let mut body = Body::open(&request, payload, &state.stopping).await?;
    if body::is_ndjson(&request) {
        body.limit_memory(&state.zstd_streams).await?;
        return post_stream(body, &state).await;
    }
    let json = body.read_message().await;
    let json = json.inspect_err(|problem| {
        if problem.status() == StatusCode::PAYLOAD_TOO_LARGE {
            record_rejection(RejectionKind::TooLarge);
        }
    })?;
    let bytes = json.len();
    let message =
        parse(json).inspect_err(|rejection| record_rejection(RejectionKind::from(rejection)))?;
    let tally = state.ingest.commit(Submission::One(message), bytes).await?;
    let mut response = HttpResponse::NoContent();
    if tally.duplicates > 0 {
        response.insert_header((IDEMPOTENT_REPLAYED.clone(), "true"));
    }
    Ok(response.finish())
}

async fn post_stream(mut body: Body, state: &State) -> Result<HttpResponse, Problem> {
    let mut stream = MessageStream {
        state,
        reader: LineReader::default(),
        pending: VecDeque::new(),
        counts: Counts::default(),
    };
    let read = stream.read(&mut body).await;
    let committed = stream.await_receipts(0).await;
    let counts = stream.counts;
    match read.and(committed) {
        Ok(()) => Ok(HttpResponse::Ok().json(counts)),
        Err(problem) => Err(problem.with_members(&counts)),
    }
}

/// The counts of the lines whose outcome is known.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = LineCounts, example = json!({
    "received": 3, "applied": 1, "duplicates": 1, "rejected": 1,
    "errors": [{
        "line": 2,
        "detail": "not one JSON text in UTF-8: EOF while parsing an object at line 1 column 1"
    }]
}))]
struct Counts {
    /// applied + duplicates + rejected.
    received: u64,
    applied: u64,
    duplicates: u64,
    rejected: u64,
    /// The first 100.
    errors: Vec<BadLine>,
}

/// A body that is read while earlier parts of it are committed.
struct MessageStream<'s> {
    state: &'s State,
    reader: LineReader,
    pending: VecDeque<Receipt>,
    counts: Counts,
}

impl MessageStream<'_> {
    async fn read(&mut self, body: &mut Body) -> Result<(), Problem> {
        // The client may never end the stream.
        while !*self.state.stopping.borrow() {
            let chunk = body.next_chunk(None).await?;
            let mut lines = Lines::default();
            match &chunk {
                Some(chunk) => self.reader.feed(chunk, &mut lines),
                None => self.reader.finish(&mut lines),
            }
            self.queue(lines).await?;
            if chunk.is_none() {
                return Ok(());
            }
        }
        Err(IngestError::Stopping.into())
    }

    async fn queue(&mut self, lines: Lines) -> Result<(), Problem> {
        lines.bad.iter().for_each(|bad| self.state.metrics.rejected(bad.rejection));
        self.counts.received += lines.bad.len() as u64;
        self.counts.rejected += lines.bad.len() as u64;
        let remaining = MAX_ERRORS_LISTED.saturating_sub(self.counts.errors.len());
        self.counts.errors.extend(lines.bad.into_iter().take(remaining));
        if lines.messages.is_empty() {
            return Ok(());
        }
        self.await_receipts(MAX_PENDING_PARTS - 1).await?;
        self.pending.push_back(
            self.state.ingest.queue(Submission::Many(lines.messages), lines.bytes).await?,
        );
        Ok(())
    }

    /// Waits until at most `max_pending` parts are pending. Counts the outcomes of all others, even
    /// after a failure.
    async fn await_receipts(&mut self, max_pending: usize) -> Result<(), Problem> {
        let mut result = Ok(());
        while self.pending.len() > max_pending {
            let Some(receipt) = self.pending.pop_front() else { break };
            match receipt.answer().await {
                Ok(tally) => {
                    self.counts.received += tally.applied + tally.duplicates;
                    self.counts.applied += tally.applied;
                    self.counts.duplicates += tally.duplicates;
                }
                Err(error) => result = Err(error.into()),
            }
        }
        result
    }
}
