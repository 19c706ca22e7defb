//! Request bodies: their media type, and reads with limits on their size and time.

use std::time::{Duration, Instant};

use actix_web::HttpRequest;
use actix_web::error::PayloadError;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::web::Payload;
use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt};
use tokio::sync::watch;

use crate::http::problem::{NDJSON_HINT, Problem};
use crate::ingest::IngestError;
use crate::wire::message::MAX_MESSAGE_BYTES;

/// How long a client may pause within a body.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a message may take to arrive, even if its bytes arrive steadily.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the response to a rejected request waits for the end of its body.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether the body is newline-delimited JSON. Parameters of the media type are ignored.
pub(in crate::http) fn is_ndjson(request: &HttpRequest) -> bool {
    let Some(content_type) =
        request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    ["application/x-ndjson", "application/ndjson", "application/jsonl"]
        .iter()
        .any(|media_type| media_type.eq_ignore_ascii_case(essence))
}

/// Rejects a body with a Content-Encoding.
pub(in crate::http) async fn reject_encoded(
    request: &HttpRequest,
    payload: &mut Payload,
) -> Result<(), Problem> {
    if request.headers().contains_key(header::CONTENT_ENCODING) {
        discard(content_length(request.headers()), payload).await;
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Send the body without a Content-Encoding.",
        )
        .with_header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity")));
    }
    Ok(())
}

/// Reads a whole body of at most [`MAX_MESSAGE_BYTES`].
///
/// The result is a copy instead of a slice of the connection's larger buffer: it may wait in the
/// queue, and must not keep the buffer alive.
pub(in crate::http) async fn read_message(
    request: &HttpRequest,
    payload: &mut Payload,
    stopping: &watch::Receiver<bool>,
) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("A message may have at most {MAX_MESSAGE_BYTES} bytes. {NDJSON_HINT}");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    let content_length = content_length(request.headers()).unwrap_or(0);
    if content_length > MAX_MESSAGE_BYTES as u64 {
        return Err(too_large());
    }
    let mut body = Vec::with_capacity(content_length as usize);
    let deadline = Instant::now() + MESSAGE_TIMEOUT;
    while let Some(chunk) = next_chunk(payload, Some(deadline), stopping).await? {
        if body.len() + chunk.len() > MAX_MESSAGE_BYTES {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

/// Reads and drops the body of a rejected request, if it is short and arrives soon. actix-http
/// closes a connection with an unread body, and loses the pipelined requests after it.
pub(in crate::http) async fn discard<P>(content_length: Option<u64>, payload: &mut P)
where
    P: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    if content_length.is_some_and(|length| length <= MAX_MESSAGE_BYTES as u64) {
        let read_all = async { while let Some(Ok(_)) = payload.next().await {} };
        // After the timeout, actix-http closes the connection.
        let _ = tokio::time::timeout(DISCARD_TIMEOUT, read_all).await;
    }
}

/// The Content-Length of a request.
pub(in crate::http) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The next part of a body; `None` at its end. Fails when the service stops, when the client pauses
/// too long, and at the deadline.
pub(in crate::http) async fn next_chunk(
    payload: &mut Payload,
    deadline: Option<Instant>,
    stopping: &watch::Receiver<bool>,
) -> Result<Option<Bytes>, Problem> {
    // Usually the part is already here, and needs neither a timer nor the stop signal.
    let next = match payload.next().now_or_never() {
        Some(next) => next,
        None => {
            let mut stopping = stopping.clone();
            let idle_deadline = Instant::now() + IDLE_TIMEOUT;
            let end = deadline.map_or(idle_deadline, |deadline| deadline.min(idle_deadline));
            tokio::select! {
                biased;
                next = payload.next() => next,
                _ = stopping.wait_for(|stopping| *stopping) => {
                    return Err(IngestError::Stopping.into());
                }
                () = tokio::time::sleep_until(end.into()) => {
                    let detail = "The body did not arrive in time.";
                    return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail));
                }
            }
        }
    };
    next.transpose().map_err(|error| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            format!("The body could not be read completely: {error}."),
        )
    })
}
