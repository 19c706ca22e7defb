//! Bounds the memory of large responses, which clients may read slowly.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::ResponseError;
use actix_web::body::{BodySize, BoxBody, EitherBody, MessageBody};
use actix_web::dev::ServiceResponse;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::problem::Problem;

/// The maximum number of bytes of large responses in memory, over all connections. When the budget
/// is used up, further large responses become 503 at once.
const MAX_TOTAL_BYTES: usize = 64 * 1024 * 1024;
/// A response of more bytes is large. The number of connections bounds the memory of the others.
const LARGE_RESPONSE_BYTES: usize = 64 * 1024;
/// The maximum number of bytes passed to the connection at a time, which copies them.
const CHUNK_BYTES: usize = 32 * 1024;

/// The budget, in bytes. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::http) struct ResponseBudget(Arc<Semaphore>);

impl Default for ResponseBudget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_TOTAL_BYTES)))
    }
}

/// The body of a large response, with its share of the budget.
pub(in crate::http) struct BudgetedBody {
    rest: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl ResponseBudget {
    /// Reserves a share for the response if it is large. If too little is left, returns a 503.
    pub(in crate::http) fn reserve(
        &self,
        response: ServiceResponse<BoxBody>,
    ) -> ServiceResponse<EitherBody<BoxBody, BudgetedBody>> {
        let size = match response.response().body().size() {
            BodySize::Sized(bytes) => usize::try_from(bytes).unwrap_or(MAX_TOTAL_BYTES),
            BodySize::None | BodySize::Stream => 0,
        };
        if size <= LARGE_RESPONSE_BYTES {
            return response.map_into_left_body();
        }
        let bytes = u32::try_from(size.min(MAX_TOTAL_BYTES)).unwrap_or(u32::MAX);
        match Arc::clone(&self.0).try_acquire_many_owned(bytes) {
            Ok(permit) => response.map_body(|_, body| match body.try_into_bytes() {
                Ok(rest) => EitherBody::right(BudgetedBody { rest, _permit: permit }),
                Err(body) => EitherBody::left(body),
            }),
            Err(_) => {
                let problem = Problem::unavailable("too many large responses are being sent");
                response.into_response(problem.error_response()).map_into_left_body()
            }
        }
    }
}

/// Turns a response body into bytes. Shrinks a large one, so that it takes no more memory than it
/// reserves.
pub(in crate::http) fn into_bytes(mut bytes: Vec<u8>) -> Bytes {
    if bytes.len() > LARGE_RESPONSE_BYTES {
        bytes.shrink_to_fit();
    }
    bytes.into()
}

impl MessageBody for BudgetedBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.rest.len() as u64)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let part = self.rest.len().min(CHUNK_BYTES);
        Poll::Ready(Some(Ok(self.rest.split_to(part))))
    }
}
