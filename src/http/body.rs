//! Request bodies: their type, and reading them within limits.

use std::time::{Duration, Instant};

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::web::Payload;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;

use super::problem::{Problem, TO_SEND_MANY};
use crate::domain::parse::MAX_MESSAGE_BYTES;
use crate::ingest::IngestError;

/// How long a client may pause within a body.
const SILENCE: Duration = Duration::from_secs(30);
/// How long one message may take, even if its bytes trickle in steadily.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Whether the body is newline-delimited JSON. Parameters of the media type are ignored.
pub(super) fn is_ndjson(request: &HttpRequest) -> bool {
    let Some(content_type) = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    ["application/x-ndjson", "application/ndjson", "application/jsonl"]
        .iter()
        .any(|it| it.eq_ignore_ascii_case(essence))
}

/// Refuses an encoded body.
pub(super) fn refuse_encoded(request: &HttpRequest) -> Result<(), Problem> {
    if request.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Send the body without a Content-Encoding.")
            .with_header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity")));
    }
    Ok(())
}

/// Reads a whole body of at most [`MAX_MESSAGE_BYTES`].
///
/// The result has its own memory instead of a slice of the connection's larger buffer, because it
/// may wait in the queue.
pub(super) async fn read_message(
    request: &HttpRequest,
    payload: &mut Payload,
    stopping: &watch::Receiver<bool>,
) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("A message may have at most {MAX_MESSAGE_BYTES} bytes. {TO_SEND_MANY}");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > MAX_MESSAGE_BYTES as u64) {
        return Err(too_large());
    }
    let mut body = Vec::with_capacity(announced.and_then(|length| usize::try_from(length).ok()).unwrap_or_default());
    let deadline = Instant::now() + MESSAGE_TIMEOUT;
    while let Some(chunk) = next_chunk(payload, Some(deadline), stopping).await? {
        if body.len() + chunk.len() > MAX_MESSAGE_BYTES {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

/// The next part of a body; none at its end. Fails when the service stops, or after the deadline,
/// if there is one.
pub(super) async fn next_chunk(
    payload: &mut Payload,
    deadline: Option<Instant>,
    stopping: &watch::Receiver<bool>,
) -> Result<Option<Bytes>, Problem> {
    // Usually the part is already here, and needs neither a timer nor the stop signal.
    let next = match payload.next().now_or_never() {
        Some(next) => next,
        None => {
            let mut stopping = stopping.clone();
            let silence = Instant::now() + SILENCE;
            tokio::select! {
                biased;
                next = payload.next() => next,
                _ = stopping.wait_for(|stopping| *stopping) => return Err(IngestError::Stopping.into()),
                () = tokio::time::sleep_until(deadline.map_or(silence, |deadline| deadline.min(silence)).into()) => {
                    let detail = "The body did not arrive in time.";
                    return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail));
                }
            }
        }
    };
    next.transpose().map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, format!("The body could not be read completely: {error}."))
    })
}
