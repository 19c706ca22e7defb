//! Bodies of requests: what they are, and reading them within bounds.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::web::Payload;
use bytes::Bytes;
use futures_util::StreamExt;

use super::problem::Problem;
use crate::domain::parse::MAX_MESSAGE_BYTES;

/// How long a client may be silent in the middle of a body.
const SILENCE: Duration = Duration::from_secs(30);

/// Whether the body is newline-delimited JSON; parameters of the media type don't matter.
pub(super) fn is_ndjson(request: &HttpRequest) -> bool {
    let Some(content_type) = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    ["application/x-ndjson", "application/ndjson", "application/jsonl"]
        .iter()
        .any(|it| it.eq_ignore_ascii_case(essence))
}

/// Refuses a body that is encoded.
pub(super) fn refuse_encoded(request: &HttpRequest) -> Result<(), Problem> {
    if request.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Send the body without a Content-Encoding.")
            .with_header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity")));
    }
    Ok(())
}

/// Reads a whole body of at most [`MAX_MESSAGE_BYTES`].
///
/// The result is memory of its own, not a part of the connection's larger buffer, for it may wait in the queue.
pub(super) async fn read_message(request: &HttpRequest, payload: &mut Payload) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("A message may take at most {MAX_MESSAGE_BYTES} bytes.");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > MAX_MESSAGE_BYTES as u64) {
        return Err(too_large());
    }
    let mut body = Vec::with_capacity(announced.and_then(|length| usize::try_from(length).ok()).unwrap_or_default());
    while let Some(chunk) = next_chunk(payload).await? {
        if body.len() + chunk.len() > MAX_MESSAGE_BYTES {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

/// The next part of a body; none at its end.
pub(super) async fn next_chunk(payload: &mut Payload) -> Result<Option<Bytes>, Problem> {
    match tokio::time::timeout(SILENCE, payload.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
        Ok(Some(Err(error))) => {
            Err(Problem::new(StatusCode::BAD_REQUEST, format!("The body could not be read to its end: {error}.")))
        }
        Err(_) => {
            let detail = format!("Nothing of the body came for {} seconds.", SILENCE.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail))
        }
    }
}
