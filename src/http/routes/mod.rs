//! The routes: the table, and a file for the handlers of each resource.
//!
//! The router, the `Allow` headers, the metrics' labels and the tests of the API's description all
//! take the routes from [`ROUTES`].

pub(super) mod activity;
pub(super) mod assets;
pub(super) mod docs;
pub(super) mod events;
pub(super) mod exchange;
pub(super) mod gaps;
pub(super) mod health;
pub(super) mod messages;
pub(super) mod metrics;
pub(super) mod missing;
pub(super) mod reports;
pub(super) mod rockets;
pub(super) mod session;

use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, Resource, Route, guard, web};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::extract::{body, query};
use super::middleware::response_budget;
use super::openapi;
use super::problem::Problem;

/// Creates the route to a handler.
type Handler = fn() -> Route;

/// A path, and the handlers of its methods.
pub(super) struct Endpoint {
    pub(super) path: &'static str,
    /// For GET and HEAD.
    get: Option<Handler>,
    post: Option<Handler>,
    delete: Option<Handler>,
}

/// All routes.
pub(super) static ROUTES: [Endpoint; 22] = [
    Endpoint::at("/messages").post(|| web::to(messages::post)),
    Endpoint::at("/missing").post(|| web::to(missing::post)),
    Endpoint::at("/rockets").get(|| web::to(rockets::list)),
    Endpoint::at("/rockets/{channel}")
        .get(|| web::to(rockets::one))
        .delete(|| web::to(rockets::forget)),
    Endpoint::at("/rockets/{channel}/gaps").get(|| web::to(gaps::list)),
    Endpoint::at("/rockets/{channel}/losses")
        .post(|| web::to(gaps::declare))
        .delete(|| web::to(gaps::withdraw)),
    Endpoint::at("/export").get(|| web::to(exchange::export)),
    Endpoint::at("/merge").post(|| web::to(exchange::merge)),
    Endpoint::at("/events").get(|| web::to(events::follow)),
    Endpoint::at("/activity").get(|| web::to(activity::show)),
    Endpoint::at("/stats").get(|| web::to(reports::stats)),
    Endpoint::at("/reports").get(|| web::to(reports::list)),
    Endpoint::at("/reports/{name}").get(|| web::to(reports::one)),
    Endpoint::at("/metrics").get(|| web::to(metrics::show)),
    Endpoint::at("/livez").get(|| web::to(health::live)),
    Endpoint::at("/readyz").get(|| web::to(health::ready)),
    Endpoint::at("/openapi.json").get(|| web::to(openapi::description)),
    Endpoint::at("/docs").get(|| web::to(docs::page)),
    Endpoint::at("/docs/{name}").get(|| web::to(docs::file)),
    Endpoint::at("/session").post(|| web::to(session::begin)).delete(|| web::to(session::end)),
    Endpoint::at("/").get(|| web::to(assets::page)),
    Endpoint::at("/assets/{name}").get(|| web::to(assets::asset)),
];

/// The paths of all routes. Parameters are in braces.
pub fn paths() -> impl Iterator<Item = &'static str> {
    ROUTES.iter().map(|endpoint| endpoint.path)
}

impl Endpoint {
    const fn at(path: &'static str) -> Self {
        Self { path, get: None, post: None, delete: None }
    }

    const fn get(self, handler: Handler) -> Self {
        Self { get: Some(handler), ..self }
    }

    const fn post(self, handler: Handler) -> Self {
        Self { post: Some(handler), ..self }
    }

    const fn delete(self, handler: Handler) -> Self {
        Self { delete: Some(handler), ..self }
    }

    fn handlers(&self) -> impl Iterator<Item = (Method, Handler)> {
        let handlers = [
            (Method::GET, self.get),
            (Method::HEAD, self.get),
            (Method::POST, self.post),
            (Method::DELETE, self.delete),
        ];
        handlers.into_iter().filter_map(|(method, handler)| Some((method, handler?)))
    }

    pub(super) fn allows(&self, method: &Method) -> bool {
        self.handlers().any(|(allowed, _)| allowed == *method)
    }

    /// The 405 for other methods.
    pub(super) fn method_not_allowed(&self) -> Problem {
        let methods: Vec<_> = self.handlers().map(|(method, _)| method.to_string()).collect();
        let allow = methods.join(", ");
        let detail = format!("This path supports only {allow}.");
        let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail);
        match HeaderValue::try_from(allow) {
            Ok(allow) => problem.with_header(header::ALLOW, allow),
            Err(error) => unreachable!("the names of methods are visible ASCII: {error}"),
        }
    }

    fn resource(&'static self) -> Resource {
        let other_methods =
            web::to(move |request: HttpRequest, payload: web::Payload| async move {
                Err::<String, _>(reject(&request, payload, self.method_not_allowed()).await)
            });
        let resource = web::resource(self.path).default_service(other_methods);
        self.handlers().fold(resource, |resource, (method, handler)| {
            resource.route(handler().guard(guard::Method(method)))
        })
    }
}

/// The endpoint whose path is this pattern.
pub(super) fn endpoint(pattern: &str) -> Option<&'static Endpoint> {
    ROUTES.iter().find(|endpoint| endpoint.path == pattern)
}

/// Adds all routes to the application.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    for endpoint in &ROUTES {
        config.service(endpoint.resource());
    }
    config.default_service(web::to(unknown_path));
}

async fn unknown_path(request: HttpRequest, payload: web::Payload) -> Result<String, Problem> {
    Err(reject(&request, payload, Problem::not_found("There is nothing at this path.")).await)
}

/// Drops the body of a request that gets this problem.
async fn reject(request: &HttpRequest, mut payload: web::Payload, problem: Problem) -> Problem {
    body::discard(body::content_length(request.headers()), &mut payload).await;
    problem
}

/// A response with this body as JSON.
fn json(mut response: HttpResponseBuilder, body: &impl Serialize) -> HttpResponse {
    let body = serde_json::to_vec(body)
        .unwrap_or_else(|error| unreachable!("response bodies have only text keys: {error}"));
    response.content_type("application/json").body(response_budget::into_bytes(body))
}

/// The Link header for the same query with another cursor. It encodes the parameters again,
/// whatever encoding the client chose.
fn next_link(path: &str, query_string: &str, cursor: &str) -> String {
    let kept = query::pairs(query_string).filter(|(name, _)| name != "cursor");
    let pairs = kept.chain([("cursor".into(), cursor.into())]).map(|(name, value)| {
        let encode = |text| utf8_percent_encode(text, UNRESERVED).to_string();
        format!("{}={}", encode(&name), encode(&value))
    });
    format!("<{path}?{}>; rel=\"next\"", pairs.collect::<Vec<_>>().join("&"))
}

/// Everything but the unreserved characters of a URI.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
