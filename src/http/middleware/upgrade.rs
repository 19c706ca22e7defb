//! Ignores the `Upgrade` header, as RFC 9110 (section 7.8) allows.
//!
//! actix-http treats everything after a request with `Upgrade: websocket` as its body, whatever the
//! Content-Length, and would wait for its end until the client closes the connection.

use actix_web::HttpMessage;
use actix_web::dev::{Payload, RequestHead, ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::http::header;
use actix_web::http::{ConnectionType, Method};
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};

/// Limits the body of a request with an upgrade to its Content-Length.
pub(in crate::http) fn ignore_upgrade(mut request: ServiceRequest) -> ServiceRequest {
    let head = request.head();
    // With a Transfer-Encoding, the body marks its own end.
    if is_upgrade(head) && !head.headers.contains_key(header::TRANSFER_ENCODING) {
        let length = head
            .headers
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        let body = request.take_payload();
        request
            .set_payload(Payload::Stream { payload: Box::pin(limited(body, length.unwrap_or(0))) });
    }
    request
}

/// Closes the connection after the response to a request with an upgrade: actix-http has taken all
/// further bytes for the request's body.
pub(in crate::http) fn close_after_upgrade<B>(
    mut response: ServiceResponse<B>,
) -> ServiceResponse<B> {
    if is_upgrade(response.request().head()) {
        let head = response.response_mut().head_mut();
        head.set_connection_type(ConnectionType::Close);
        // actix-http would announce chunks and send none: the end of the connection ends the body.
        head.no_chunking(true);
    }
    response
}

/// Whether actix-http expects the connection to switch to another protocol.
fn is_upgrade(head: &RequestHead) -> bool {
    let upgrades = head.connection_type() == ConnectionType::Upgrade;
    upgrades || head.method == Method::CONNECT || head.headers.contains_key(header::UPGRADE)
}

/// Limits a body to `length` bytes. If the body has fewer, its last item is an error.
fn limited(body: Payload, length: u64) -> impl Stream<Item = Result<Bytes, PayloadError>> {
    stream::unfold((body, length), |(mut body, left)| async move {
        if left == 0 {
            return None;
        }
        match body.next().await {
            Some(Ok(mut chunk)) => {
                chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                let left = left - chunk.len() as u64;
                Some((Ok(chunk), (body, left)))
            }
            Some(Err(error)) => Some((Err(error), (body, 0))),
            None => Some((Err(PayloadError::Incomplete(None)), (body, 0))),
        }
    })
}
