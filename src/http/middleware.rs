//! The middleware around every handler: access control, the budget for large responses, metrics,
//! and common headers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse};
use actix_web::{Either, Error, HttpMessage, ResponseError, web};

use super::auth::{self, Access};
use super::connection::RequestInProgress;
use super::request_id::{self, RequestIds};
use super::response_budget::ResponseBudget;
use super::{body, metrics, problem, upgrade};
use crate::metrics::Metrics;

/// What the middleware needs. Cheap to clone.
#[derive(Clone)]
pub(super) struct Middleware {
    pub(super) access: web::Data<Access>,
    /// The addresses that the server listens on.
    pub(super) listening: Arc<[SocketAddr]>,
    pub(super) ids: Arc<RequestIds>,
    pub(super) answers: ResponseBudget,
    pub(super) metrics: Metrics,
}

impl Middleware {
    /// Passes a request on to the service, if it is allowed.
    pub(super) fn answer<S>(
        &self,
        request: ServiceRequest,
        service: &S,
    ) -> impl Future<Output = Result<ServiceResponse<impl MessageBody + use<S>>, Error>> + use<S>
    where
        S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error>,
    {
        let request = upgrade::ignore(request);
        let (started, answering) = (Instant::now(), RequestInProgress::begin(&request));
        let (answers, metrics) = (self.answers.clone(), self.metrics.clone());
        let id = request_id::choose(&self.ids, &request);
        let allowed = self.access.check(&request, &self.listening);
        let response = match allowed {
            Ok(()) => Either::Left(service.call(request)),
            Err(problem) => Either::Right((request, problem)),
        };
        async move {
            let response = match response {
                Either::Left(response) => problem::of_all_errors(response.await?),
                Either::Right((mut request, problem)) => {
                    let announced = body::announced_length(request.headers());
                    body::discard(announced, &mut request.take_payload()).await;
                    request.into_response(problem.error_response())
                }
            };
            let response = answers
                .bound(response)
                .map_body(|_, body| RequestInProgress::until_end(answering, body));
            metrics::count(&metrics, &response, started);
            Ok(request_id::add(id, auth::guard(upgrade::close(response))))
        }
    }
}
