//! `GET /openapi.json`: the API's description, put together from what stands at the handlers and their types; and
//! `GET /docs`, which shows it.

use std::sync::{Arc, LazyLock};

use actix_web::{HttpResponse, web};
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::{ContentBuilder, Header, ObjectBuilder, RefOr, Response, Type};
use utoipa::{Modify, OpenApi};
use utoipa_swagger_ui::Config;

use super::assets;
use super::problem::{Problem, ProblemJson};
use super::{access, events, health, messages, metrics, reports, rockets};

/// The description of the API.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Rocket Monitor",
        description = "Takes the messages of rockets, at least once and in any order, counts each exactly once, and \
                       always knows what is known of every rocket. Every GET answers HEAD too. Errors are \
                       `application/problem+json` (RFC 9457)."
    ),
    paths(
        messages::post,
        rockets::list,
        rockets::one,
        events::follow,
        reports::stats,
        reports::list,
        reports::one,
        metrics::show,
        health::live,
        health::ready,
        access::begin_session,
        assets::page,
        assets::asset,
        description,
        docs,
        docs_file
    ),
    components(schemas(ProblemJson, rockets::SortName, rockets::OrderName, rockets::ViewName, rockets::ViewsName, rockets::StatusName)),
    modifiers(&Common)
)]
struct Description;

/// The description as it is sent: it never changes.
static DESCRIPTION: LazyLock<String> = LazyLock::new(|| Description::openapi().to_json().unwrap_or_default());

/// The description of this API.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "Service",
    responses((status = 200, description = "An OpenAPI 3.1 document.", content_type = "application/json", body = Object))
)]
pub(super) async fn description() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(DESCRIPTION.as_str())
}

/// The description of this API as a page for people.
#[utoipa::path(
    get,
    path = "/docs",
    tag = "Service",
    responses((status = 200, description = "A page.", content_type = "text/html", body = String))
)]
pub(super) async fn docs() -> Result<HttpResponse, Problem> {
    assets::send("docs.html", DOCS_POLICY)
}

/// Swagger UI sets styles of elements from its script.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the page of the description consists of.
#[utoipa::path(
    get,
    path = "/docs/{name}",
    tag = "Service",
    params(("name" = String, Path, description = "The name of a file.", example = "swagger-ui.css")),
    responses((status = 200, description = "The file."), (status = 404, description = "There is no such file."))
)]
pub(super) async fn docs_file(name: web::Path<String>) -> Result<HttpResponse, Problem> {
    let config = Arc::new(Config::from("/openapi.json"));
    let file = utoipa_swagger_ui::serve(&name, config).ok().flatten();
    let file = file.ok_or_else(|| Problem::not_found("There is no such file."))?;
    Ok(assets::guarded(&file.content_type, DOCS_POLICY).body(file.bytes.into_owned()))
}

/// What all responses have in common.
struct Common;

impl Modify for Common {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        description.info.license = Some(utoipa::openapi::License::new("MIT"));
        for item in description.paths.paths.values_mut() {
            for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
                let responses = &mut operation.responses.responses;
                let others = [
                    ("401", "The service asks for tokens, and the request has none that may do this."),
                    ("403", "The service has no tokens, and the request's Origin or Host is another site's."),
                    ("405", "Another method than those that are allowed here."),
                    ("503", "The store can't answer now, or the service stops. Sending it again later is safe."),
                ];
                for (status, detail) in others {
                    let response = || RefOr::T(Response::new(detail));
                    responses.entry(status.to_owned()).or_insert_with(response);
                }
                for (status, response) in responses {
                    if let RefOr::T(response) = response {
                        complete(status, response);
                    }
                }
            }
        }
    }
}

/// Adds a problem's body, and the headers that responses of a status have.
fn complete(status: &str, response: &mut Response) {
    if status.starts_with(['4', '5']) && response.content.is_empty() {
        let content = ContentBuilder::new().schema(Some(utoipa::openapi::Ref::from_schema_name("Problem")));
        response.content.insert("application/problem+json".to_owned(), content.build());
    }
    let mut add = |name: &str, description: &str| {
        let header: Header = HeaderBuilder::new()
            .schema(ObjectBuilder::new().schema_type(Type::String).build())
            .description(Some(description))
            .build();
        response.headers.entry(name.to_owned()).or_insert(header);
    };
    add("X-Request-Id", "Tells this request from others in the log; a request may bring its own.");
    match status {
        "405" => add("Allow", "The methods that are allowed."),
        "401" => add("WWW-Authenticate", "That a bearer token is wanted."),
        "503" => add("Retry-After", "After how many seconds to try again."),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    /// The paths that the server routes.
    fn routed() -> Vec<&'static str> {
        let paths = include_str!("mod.rs").split(".service(").skip(1).filter_map(|rest| rest.split('"').nth(1));
        paths.collect()
    }

    #[test]
    fn every_route_is_described_and_measured() {
        let description = Description::openapi();
        assert!(routed().len() >= 15);
        for path in routed() {
            let item = description.paths.paths.get(path).unwrap_or_else(|| panic!("{path} is not described"));
            let operation = item.get.as_ref().or(item.post.as_ref()).unwrap();
            assert!(operation.summary.is_some() && operation.responses.responses.len() > 1, "{path}");
            assert!(crate::metrics::ROUTES.contains(&path), "{path} is not measured");
        }
        assert_eq!(description.paths.paths.len(), routed().len());
    }

    #[test]
    fn all_responses_say_what_they_hold() {
        let description = serde_json::to_value(Description::openapi()).unwrap();
        for (path, item) in description["paths"].as_object().unwrap() {
            for operation in item.as_object().unwrap().values() {
                for (status, response) in operation["responses"].as_object().unwrap() {
                    assert!(response["headers"]["X-Request-Id"].is_object(), "{path} {status}");
                    let problem = &response["content"]["application/problem+json"]["schema"]["$ref"];
                    assert_eq!(problem == "#/components/schemas/Problem", status.as_str() >= "400", "{path} {status}");
                }
            }
        }
        let message = description["components"]["schemas"]["Message"].to_string();
        assert!(message.contains("RocketLaunched") || message.contains("$ref"), "{message}");
    }
}
