//! The code that runs before and after every handler.
//!
//! [`connection`] works below HTTP: it limits the time of heads and responses, and passes on one
//! request at a time. [`framing`] finds the ends of requests for it. [`Middleware`] wraps the
//! handlers: access control, the budget for large responses, metrics, and common headers.

pub(super) mod auth;
mod compression;
pub(super) mod connection;
mod framing;
pub(super) mod origin;
pub(super) mod request_id;
pub(super) mod response_budget;
mod upgrade;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse};
use actix_web::http::header::HeaderValue;
use actix_web::{Either, Error, HttpMessage, ResponseError, web};

use futures_util::FutureExt;

use self::connection::RequestInProgress;
use self::request_id::RequestIds;
use self::response_budget::ResponseBudget;
use super::access::Access;
use super::extract::body;
use super::problem::{self, Problem};
use crate::metrics::Metrics;

/// The state of the middleware. Cheap to clone.
#[derive(Clone)]
pub(super) struct Middleware {
    pub(super) access: web::Data<Access>,
    /// The addresses that the server listens on.
    pub(super) listening: Arc<[SocketAddr]>,
    pub(super) ids: Arc<RequestIds>,
    pub(super) response_budget: ResponseBudget,
    pub(super) metrics: Metrics,
}

impl Middleware {
    /// Passes an allowed request on to its handler, and completes the response.
    pub(super) fn handle<S>(
        &self,
        request: ServiceRequest,
        service: &S,
    ) -> impl Future<Output = Result<ServiceResponse<impl MessageBody + use<S>>, Error>> + use<S>
    where
        S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error>,
    {
        let request = upgrade::ignore_upgrade(request);
        let (started, in_progress) = (Instant::now(), RequestInProgress::begin(&request));
        let (response_budget, metrics) = (self.response_budget.clone(), self.metrics.clone());
        let id = request_id::choose(&self.ids, &request);
        let allowed = auth::authorize(&self.access, &request, &self.listening);
        let response = match allowed {
            Ok(()) => Either::Left(service.call(request)),
            Err(problem) => Either::Right((request, problem)),
        };
        async move {
            let response = match response {
                Either::Left(response) => match AssertUnwindSafe(response).catch_unwind().await {
                    Ok(response) => problem::replace_foreign_errors(response?),
                    Err(_) => return Err(after_panic(&metrics, id, started).into()),
                },
                Either::Right((mut request, problem)) => {
                    let content_length = body::content_length(request.headers());
                    body::discard(content_length, &mut request.take_payload()).await;
                    request.into_response(problem.error_response())
                }
            };
            let mut response = response_budget.reserve(response);
            if let Some(encoding) = compression::encoding(&response) {
                let compressed = compression::compress(encoding, response).await;
                response = response_budget.reserve(compressed);
            }
            let response =
                response.map_body(|_, body| RequestInProgress::until_end(in_progress, body));
            record(&metrics, &response, started);
            Ok(request_id::add(
                id,
                auth::add_security_headers(upgrade::close_after_upgrade(response)),
            ))
        }
    }
}

/// The response to a request whose handler has panicked. The panic hook has logged the panic. The
/// request is gone, and its path with it, so the metrics count it under no route.
fn after_panic(metrics: &Metrics, id: Option<HeaderValue>, started: Instant) -> Problem {
    tracing::error!(request_id = ?id, "a handler panicked; its request gets 500");
    let problem = Problem::internal();
    metrics.responded(None, problem.status().as_u16(), started.elapsed());
    match id {
        Some(id) => problem.with_header(request_id::HEADER.clone(), id),
        None => problem,
    }
}

/// Records the response in the metrics.
fn record<B: MessageBody>(metrics: &Metrics, response: &ServiceResponse<B>, started: Instant) {
    let request = response.request();
    let is_rocket_path = |path: &str| {
        let channel = path.strip_prefix("/rockets/");
        channel.is_some_and(|channel| !channel.is_empty() && !channel.contains('/'))
    };
    let pattern;
    // Fast path: the common routes are recognized without matching the pattern again.
    let route = match request.path() {
        path @ "/messages" => Some(path),
        path if is_rocket_path(path) => Some("/rockets/{channel}"),
        _ => {
            pattern = request.match_pattern();
            pattern.as_deref()
        }
    };
    metrics.responded(route, response.status().as_u16(), started.elapsed());
}
