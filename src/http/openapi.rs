//! `GET /openapi.json`: the API description, generated from the handlers and their types; and `GET
//! /docs`, which shows it.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, Header, ObjectBuilder, RefOr, Response, Type};
use utoipa::{Modify, OpenApi};
use utoipa_swagger_ui::Config;

use super::assets;
use super::auth::Needed;
use super::problem::{Problem, ProblemJson};
use super::{auth, events, health, messages, metrics, reports, rockets};

/// The description of the API.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Rocket Monitor",
        description = "Receives rocket messages, at least once and in any order, counts each \
                       exactly once, and serves the state of every rocket. HEAD works wherever GET \
                       does. Errors are `application/problem+json` (RFC 9457). Tokens are needed \
                       only if the service was started with tokens."
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
        auth::begin_session,
        auth::end_session,
        assets::page,
        assets::asset,
        description,
        docs,
        docs_file
    ),
    components(schemas(
        ProblemJson,
        reports::ReportName,
        rockets::SortName,
        rockets::OrderName,
        rockets::ViewName,
        rockets::ViewsName,
        rockets::StatusName
    )),
    modifiers(&Common)
)]
struct Description;

/// The description as clients get it. It never changes while the program runs.
#[expect(clippy::expect_used, reason = "a test reads it")]
static DESCRIPTION: LazyLock<Bytes> = LazyLock::new(|| {
    serde_json::to_vec(&Description::openapi()).expect("the description is plain JSON").into()
});

/// The methods of each path, in the form of the Allow header.
static METHODS: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let allow = |item: &PathItem| {
        let methods = [("GET, HEAD", &item.get), ("POST", &item.post), ("DELETE", &item.delete)];
        methods
            .into_iter()
            .filter_map(|(name, operation)| operation.as_ref().map(|_| name))
            .collect::<Vec<_>>()
            .join(", ")
    };
    Description::openapi()
        .paths
        .paths
        .iter()
        .map(|(path, item)| (path.clone(), allow(item)))
        .collect()
});

/// The methods of a path, given its route pattern.
pub(super) fn methods(pattern: &str) -> Option<&'static str> {
    METHODS.get(pattern).map(String::as_str)
}

/// The description of this API.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "getOpenApi",
    tag = "Service",
    responses(
        (status = 200, description = "An OpenAPI 3.1 document.", content_type = "application/json", body = Object),
        (status = 304, description = "The document has not changed since the client got it.")
    )
)]
pub(super) async fn description(request: HttpRequest) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response.content_type("application/json");
    assets::unless_known(&request, &mut response, DESCRIPTION.clone())
}

/// The description of this API, as a web page.
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "getDocs",
    tag = "Service",
    responses(
        (status = 200, description = "The page.", content_type = "text/html", body = String),
        (status = 304, description = "The page has not changed since the client got it.")
    )
)]
pub(super) async fn docs(request: HttpRequest) -> Result<HttpResponse, Problem> {
    assets::send(&request, "docs.html", DOCS_POLICY)
}

/// Swagger UI sets element styles from its script.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file that the API page loads.
#[utoipa::path(
    get,
    path = "/docs/{name}",
    operation_id = "getDocsFile",
    tag = "Service",
    params(("name" = String, Path, description = "The name of the file.", example = "swagger-ui.css")),
    responses(
        (status = 200, description = "The file."),
        (status = 304, description = "The file has not changed since the client got it."),
        (status = 404, description = "There is no such file.")
    )
)]
pub(super) async fn docs_file(
    name: web::Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    // Relative to the page, because a proxy may serve the service under a path.
    let config = Arc::new(Config::from("openapi.json"));
    let file = utoipa_swagger_ui::serve(&name, config).ok().flatten();
    let file = file.ok_or_else(|| Problem::not_found("There is no such file."))?;
    let mut response = assets::guarded(&file.content_type, DOCS_POLICY);
    Ok(assets::unless_known(&request, &mut response, file.bytes.into_owned().into()))
}

const WRITE_TOKEN: &str = "writeToken";
const READ_TOKEN: &str = "readToken";
const SESSION: &str = "session";

/// The tokens, as OpenAPI security schemes.
fn security_schemes() -> [(&'static str, SecurityScheme); 3] {
    let bearer = |description: &str| {
        SecurityScheme::Http(
            HttpBuilder::new()
                .scheme(HttpAuthScheme::Bearer)
                .description(Some(description))
                .build(),
        )
    };
    let cookie = "Set by POST /session from a read token. The name ends in the port of the \
                  request's Host if there is one (rocket_monitor_token_8088).";
    [
        (
            WRITE_TOKEN,
            bearer(
                "A write token, from the service's --write-token-file. It does not allow reading.",
            ),
        ),
        (READ_TOKEN, bearer("A read token, from the service's --read-token-file.")),
        (
            SESSION,
            SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description(
                auth::COOKIE,
                cookie,
            ))),
        ),
    ]
}

fn security(needed: Needed) -> Vec<SecurityRequirement> {
    let schemes: &[&str] = match needed {
        Needed::Nothing => &[],
        Needed::Read => &[READ_TOKEN, SESSION],
        Needed::Write => &[WRITE_TOKEN],
    };
    schemes.iter().map(|scheme| SecurityRequirement::new(*scheme, [""; 0])).collect()
}

/// What all operations share.
struct Common;

impl Modify for Common {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        description.info.license = Some(utoipa::openapi::License::new("MIT"));
        let components = description.components.get_or_insert_default();
        for (name, scheme) in security_schemes() {
            components.add_security_scheme(name, scheme);
        }
        for (path, item) in &mut description.paths.paths {
            let operations = [
                (Method::GET, &mut item.get),
                (Method::POST, &mut item.post),
                (Method::DELETE, &mut item.delete),
            ];
            for (method, operation) in operations {
                if let Some(operation) = operation {
                    complete_operation(operation, Needed::by(&method, path));
                }
            }
        }
    }
}

/// Adds what operations share: security, and the errors that any request can get.
fn complete_operation(operation: &mut Operation, needed: Needed) {
    operation.security = Some(security(needed));
    let responses = &mut operation.responses.responses;
    let mut others = vec![
        ("400", "The request is malformed."),
        ("403", "The service has no tokens, and the request's Origin or Host is another site's."),
        ("405", "The path does not support this method."),
        (
            "503",
            "The database can't answer now, or the service is stopping. It is safe to send the request again later.",
        ),
    ];
    if needed != Needed::Nothing {
        others.push(("401", "The service uses tokens, and the request has none that allows this."));
    }
    for (status, detail) in others {
        responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(Response::new(detail)));
    }
    for (status, response) in responses {
        if let RefOr::T(response) = response {
            complete(status, response);
        }
    }
}

/// Adds the problem body, and the headers that responses with a status have.
fn complete(status: &str, response: &mut Response) {
    if status.starts_with(['4', '5']) && response.content.is_empty() {
        let content =
            ContentBuilder::new().schema(Some(utoipa::openapi::Ref::from_schema_name("Problem")));
        response.content.insert("application/problem+json".to_owned(), content.build());
    }
    let mut add = |name: &str, description: &str| {
        let header: Header = HeaderBuilder::new()
            .schema(ObjectBuilder::new().schema_type(Type::String).build())
            .description(Some(description))
            .build();
        response.headers.entry(name.to_owned()).or_insert(header);
    };
    add("X-Request-Id", "Identifies the request in the log. The request may supply it.");
    match status {
        "405" => add("Allow", "The methods that the path supports."),
        "401" => add("WWW-Authenticate", "Asks for a bearer token."),
        "503" => add("Retry-After", "The number of seconds after which to retry."),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    /// The paths that the server routes.
    fn routed() -> Vec<&'static str> {
        let paths = include_str!("mod.rs")
            .split(".service(")
            .skip(1)
            .filter_map(|rest| rest.split('"').nth(1));
        paths.collect()
    }

    #[test]
    fn every_route_is_described_and_measured() {
        let description = Description::openapi();
        assert!(routed().len() >= 15);
        for path in routed() {
            let item = description
                .paths
                .paths
                .get(path)
                .unwrap_or_else(|| panic!("{path} is not described"));
            let operation = item.get.as_ref().or(item.post.as_ref()).unwrap();
            assert!(
                operation.summary.is_some() && operation.responses.responses.len() > 1,
                "{path}"
            );
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
                    let problem =
                        &response["content"]["application/problem+json"]["schema"]["$ref"];
                    assert_eq!(
                        problem == "#/components/schemas/Problem",
                        status.as_str() >= "400",
                        "{path} {status}"
                    );
                }
            }
        }
        let message = description["components"]["schemas"]["Message"].to_string();
        assert!(message.contains("RocketLaunched") || message.contains("$ref"), "{message}");
    }
}
