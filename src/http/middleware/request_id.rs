//! Adds `X-Request-Id` to every response: the client's id if it is acceptable, or else a new one.

use std::sync::atomic::{AtomicU64, Ordering};

use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};

use crate::http::problem::LoggedReason;
use crate::wire::shorten::shorten;

pub(super) static HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The maximum number of bytes of a client's id.
const MAX_ID_BYTES: usize = 128;

/// The maximum number of bytes of a path that the log repeats.
const MAX_PATH_BYTES: usize = 256;

/// Generates ids that are unique within the process and, very likely, across processes.
#[derive(Debug)]
pub(in crate::http) struct RequestIds {
    process: u64,
    next: AtomicU64,
}

impl Default for RequestIds {
    fn default() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self { process: RandomState::new().hash_one(std::process::id()), next: AtomicU64::new(1) }
    }
}

impl RequestIds {
    pub(in crate::http) fn next(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}-{number:x}", self.process)
    }
}

/// The id for the response to a request.
pub(in crate::http) fn choose(ids: &RequestIds, request: &ServiceRequest) -> Option<HeaderValue> {
    let acceptable = |id: &&HeaderValue| {
        (1..=MAX_ID_BYTES).contains(&id.len())
            && id.as_bytes().iter().all(|byte| byte.is_ascii_graphic())
    };
    request
        .headers()
        .get(&HEADER)
        .filter(acceptable)
        .cloned()
        .or_else(|| HeaderValue::try_from(ids.next()).ok())
}

/// Adds the id to the response, and logs server errors.
pub(in crate::http) fn add<B>(
    id: Option<HeaderValue>,
    mut response: ServiceResponse<B>,
) -> ServiceResponse<B> {
    if let Some(id) = id {
        if response.status().is_server_error() {
            let path = &*shorten(response.request().path(), MAX_PATH_BYTES);
            let extensions = response.response().extensions();
            let reason =
                extensions.get::<LoggedReason>().map_or("unknown", |reason| reason.0.as_str());
            let status = response.status().as_u16();
            tracing::warn!(status, path, request_id = ?id, reason, "request failed");
            drop(extensions);
        }
        response.headers_mut().insert(HEADER.clone(), id);
    }
    response
}
