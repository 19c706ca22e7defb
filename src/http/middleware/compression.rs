//! Compresses responses for clients that accept it.

use actix_http::encoding::Encoder;
use actix_web::ResponseError;
use actix_web::body::{self, BodySize, BoxBody, MessageBody};
use actix_web::dev::ServiceResponse;
use actix_web::http::Method;
use actix_web::http::header::{
    self, AcceptEncoding, ContentEncoding, Encoding, Header, HeaderValue,
};

use crate::http::problem::Problem;

/// Shorter bodies would hardly become shorter.
const MIN_BYTES: u64 = 1_024;

/// The encoding in which to send a response; none if it stays as it is.
pub(super) fn encoding<B: MessageBody>(response: &ServiceResponse<B>) -> Option<ContentEncoding> {
    // Most responses are short, so their requests are not examined.
    if !is_worthwhile(response) {
        return None;
    }
    let request = response.request();
    if !request.headers().contains_key(header::ACCEPT_ENCODING) {
        return None;
    }
    let supported = [Encoding::zstd(), Encoding::gzip(), Encoding::identity()];
    match AcceptEncoding::parse(request).ok()?.negotiate(supported.iter()) {
        // A client that accepts nothing gets plain text, which is better than no response.
        None | Some(Encoding::Known(ContentEncoding::Identity) | Encoding::Unknown(_)) => None,
        Some(Encoding::Known(encoding)) => Some(encoding),
    }
}

fn is_worthwhile<B: MessageBody>(response: &ServiceResponse<B>) -> bool {
    let size_fits = match response.response().body().size() {
        BodySize::None => false,
        BodySize::Sized(bytes) => bytes >= MIN_BYTES,
        // The encoder holds data back. A client that reads answers while it sends its body might
        // wait for them.
        BodySize::Stream => response.request().method() == Method::GET,
    };
    size_fits && response.headers().get(header::CONTENT_TYPE).is_some_and(is_data)
}

/// Compresses a response: a stream while it is sent, and any other body before. So slow clients
/// hold no encoders, which take more memory than most bodies.
pub(super) async fn compress<B: MessageBody + 'static>(
    encoding: ContentEncoding,
    response: ServiceResponse<B>,
) -> ServiceResponse<BoxBody> {
    let is_stream = response.response().body().size() == BodySize::Stream;
    let response = response.map_body(|head, body| Encoder::response(encoding, head, body));
    if is_stream {
        return response.map_into_boxed_body();
    }
    let (request, response) = response.into_parts();
    let (response, encoder) = response.into_parts();
    let response = match body::to_bytes(encoder).await {
        Ok(compressed) => response.set_body(BoxBody::new(compressed)),
        // Only the end of the server breaks it off.
        Err(_) => Problem::internal().error_response(),
    };
    ServiceResponse::new(request, response)
}

/// Whether the content is data. Events must not be held back.
fn is_data(content_type: &HeaderValue) -> bool {
    let essence = content_type.as_bytes().split(|byte| *byte == b';').next();
    let kinds: [&[u8]; 4] =
        [b"application/json", b"application/problem+json", b"application/x-ndjson", b"text/csv"];
    essence.is_some_and(|essence| kinds.contains(&essence.trim_ascii()))
}
