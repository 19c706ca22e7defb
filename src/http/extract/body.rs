//! Request bodies: their media type and encoding, and reads with limits on their size and time.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use actix_web::HttpRequest;
use actix_web::error::PayloadError;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::web::Payload;
use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::encoding::{Arrived, Decoder, Encoding};
use crate::http::concurrency_limit::ConcurrencyLimit;
use crate::http::problem::{NDJSON_HINT, Problem};
use crate::ingest::IngestError;
use crate::wire::message::MAX_MESSAGE_BYTES;

/// How long a client may pause within a body.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a message may take to arrive, even if its bytes arrive steadily.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest encoded body of a message. Encoding a message makes it hardly larger.
const MAX_ENCODED_BYTES: usize = 2 * MAX_MESSAGE_BYTES;
/// The maximum number of bytes that are decoded at a time.
const DECODED_BYTES: usize = 32 * 1024;
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

/// A body that is decoded while it arrives.
pub(in crate::http) struct Body {
    payload: Payload,
    content_length: Option<u64>,
    stopping: watch::Receiver<bool>,
    /// None for a body that is not encoded.
    decoding: Option<Decoding>,
    /// For a stream that takes much memory to decode.
    permit: Option<OwnedSemaphorePermit>,
}

struct Decoding {
    encoding: Encoding,
    decoder: Decoder<Arrived>,
    buffer: Box<[u8]>,
}

impl Body {
    /// The body of a request. Fails if it has a Content-Encoding that is not supported.
    pub(in crate::http) async fn open(
        request: &HttpRequest,
        mut payload: Payload,
        stopping: &watch::Receiver<bool>,
    ) -> Result<Self, Problem> {
        let content_length = content_length(request.headers());
        let decoding = match encoding(request.headers()) {
            Some(Encoding::Identity) => None,
            Some(encoding) => Some(Decoding {
                encoding,
                decoder: Decoder::of_request(encoding, Arrived::default()).map_err(|error| {
                    Problem::unavailable("the body can't be decoded").with_reason(error)
                })?,
                buffer: vec![0; DECODED_BYTES].into(),
            }),
            None => {
                discard(content_length, &mut payload).await;
                return Err(unsupported_encoding());
            }
        };
        Ok(Self { payload, content_length, stopping: stopping.clone(), decoding, permit: None })
    }

    /// Waits for a permit if decoding a body of any length takes much memory: the window of zstd.
    pub(in crate::http) async fn limit_memory(
        &mut self,
        zstd_streams: &ConcurrencyLimit,
    ) -> Result<(), Problem> {
        if self.decoding.as_ref().is_some_and(|it| it.encoding == Encoding::Zstd) {
            self.permit = Some(zstd_streams.permit().await?);
        }
        Ok(())
    }

    /// Reads a whole body of at most [`MAX_MESSAGE_BYTES`], decoded.
    ///
    /// The result is a copy instead of a slice of the connection's larger buffer: it may wait in
    /// the queue, and must not keep the buffer alive.
    pub(in crate::http) async fn read_message(mut self) -> Result<Bytes, Problem> {
        let too_large = || {
            let detail =
                format!("A message may have at most {MAX_MESSAGE_BYTES} bytes. {NDJSON_HINT}");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
        };
        let is_encoded = self.decoding.is_some();
        let max_bytes = if is_encoded { MAX_ENCODED_BYTES } else { MAX_MESSAGE_BYTES };
        let content_length = self.content_length.unwrap_or(0);
        if content_length > max_bytes as u64 {
            return Err(too_large());
        }
        let mut body = Vec::with_capacity(content_length as usize);
        let deadline = Instant::now() + MESSAGE_TIMEOUT;
        while let Some(chunk) = self.next_chunk(Some(deadline)).await? {
            if body.len() + chunk.len() > MAX_MESSAGE_BYTES {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.into())
    }

    /// The next part, decoded; `None` at the end. Fails when the service stops, when the client
    /// pauses too long, and at the deadline.
    pub(in crate::http) async fn next_chunk(
        &mut self,
        deadline: Option<Instant>,
    ) -> Result<Option<Bytes>, Problem> {
        let Some(Decoding { decoder, buffer, .. }) = &mut self.decoding else {
            return next_chunk(&mut self.payload, deadline, &self.stopping).await;
        };
        loop {
            match decoder.read(buffer) {
                Ok(0) => return Ok(None),
                Ok(read) => {
                    // A little input can become a lot of text: others have their turn in between.
                    tokio::task::yield_now().await;
                    return Ok(Some(Bytes::copy_from_slice(&buffer[..read])));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match next_chunk(&mut self.payload, deadline, &self.stopping).await? {
                        Some(chunk) => decoder.input().add(chunk),
                        None => decoder.input().is_complete = true,
                    }
                }
                Err(error) => {
                    let detail = format!("The body could not be decoded: {error}.");
                    return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
                }
            }
        }
    }
}

/// The encoding of a body, if it is supported.
pub(in crate::http) fn encoding(headers: &HeaderMap) -> Option<Encoding> {
    let mut values = headers.get_all(header::CONTENT_ENCODING);
    match (values.next(), values.next()) {
        (None, _) => Some(Encoding::Identity),
        (Some(value), None) => Encoding::from_name(value.to_str().ok()?.trim()),
        (Some(_), Some(_)) => None,
    }
}

fn unsupported_encoding() -> Problem {
    let detail = "A body may have the Content-Encoding gzip or zstd, and no other.";
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
        .with_header(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd"))
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

/// The next part of a body as it arrives.
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
