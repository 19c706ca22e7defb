//! Large answers, to clients that may read them slowly: how much of them is in memory at a time is bounded.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::ResponseError;
use actix_web::body::{BodySize, BoxBody, EitherBody, MessageBody};
use actix_web::dev::ServiceResponse;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;

/// How many bytes of large answers are in memory at a time, in all connections. Who asks for one then is told to come later.
const MOST_BYTES: usize = 64 * 1024 * 1024;
/// What is smaller is no large answer: the number of connections bounds these.
const LARGE: usize = 64 * 1024;
/// How much of an answer is handed to its connection at a time, which copies it.
const PART: usize = 32 * 1024;

/// The room that large answers have.
#[derive(Clone, Debug)]
pub(super) struct Answers(Arc<Semaphore>);

impl Default for Answers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST_BYTES)))
    }
}

/// A large answer in its room.
pub(super) struct Held {
    rest: Bytes,
    _room: OwnedSemaphorePermit,
}

impl Answers {
    /// Takes room for the answer if it is large; replaces it if there is none.
    pub(super) fn bound(&self, response: ServiceResponse<BoxBody>) -> ServiceResponse<EitherBody<BoxBody, Held>> {
        let size = match response.response().body().size() {
            BodySize::Sized(bytes) => usize::try_from(bytes).unwrap_or(MOST_BYTES),
            BodySize::None | BodySize::Stream => 0,
        };
        if size <= LARGE {
            return response.map_into_left_body();
        }
        let bytes = u32::try_from(size.min(MOST_BYTES)).unwrap_or(u32::MAX);
        match Arc::clone(&self.0).try_acquire_many_owned(bytes) {
            Ok(room) => response.map_body(|_, body| match body.try_into_bytes() {
                Ok(rest) => EitherBody::right(Held { rest, _room: room }),
                Err(body) => EitherBody::left(body),
            }),
            Err(_) => {
                let problem = Problem::unavailable("too many large responses are being sent");
                response.into_response(problem.error_response()).map_into_left_body()
            }
        }
    }
}

/// An answer's bytes; a large one has no more memory than it takes room for.
pub(super) fn exact(mut bytes: Vec<u8>) -> Bytes {
    if bytes.len() > LARGE {
        bytes.shrink_to_fit();
    }
    bytes.into()
}

impl MessageBody for Held {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.rest.len() as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let part = self.rest.len().min(PART);
        Poll::Ready(Some(Ok(self.rest.split_to(part))))
    }
}
