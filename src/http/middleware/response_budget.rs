//! Large responses to clients that may read slowly: the memory for them is bounded.

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

/// The most bytes of large responses in memory, over all connections. When they are used up,
/// requests for more fail at once with 503.
const MOST_BYTES: usize = 64 * 1024 * 1024;
/// Responses up to this size are not large: the number of connections bounds them.
const LARGE: usize = 64 * 1024;
/// How much of a response is passed to its connection at a time. The connection copies it.
const PART: usize = 32 * 1024;

/// The budget for large responses.
#[derive(Clone, Debug)]
pub(in crate::http) struct ResponseBudget(Arc<Semaphore>);

impl Default for ResponseBudget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST_BYTES)))
    }
}

/// A large response that holds its share of the budget.
pub(in crate::http) struct BudgetedBody {
    rest: Bytes,
    _room: OwnedSemaphorePermit,
}

impl ResponseBudget {
    /// Reserves a share for the response if it is large. Without room, replaces it by a 503.
    pub(in crate::http) fn bound(
        &self,
        response: ServiceResponse<BoxBody>,
    ) -> ServiceResponse<EitherBody<BoxBody, BudgetedBody>> {
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
                Ok(rest) => EitherBody::right(BudgetedBody { rest, _room: room }),
                Err(body) => EitherBody::left(body),
            }),
            Err(_) => {
                let problem = Problem::unavailable("too many large responses are being sent");
                response.into_response(problem.error_response()).map_into_left_body()
            }
        }
    }
}

/// Turns a response body into bytes. A large one is shrunk to the memory that it reserves.
pub(in crate::http) fn into_bytes(mut bytes: Vec<u8>) -> Bytes {
    if bytes.len() > LARGE {
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
        let part = self.rest.len().min(PART);
        Poll::Ready(Some(Ok(self.rest.split_to(part))))
    }
}
