//! The API description, generated from the handlers and their types.

use std::sync::LazyLock;

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, Header, ObjectBuilder, RefOr, Response, Type};
use utoipa::{Modify, OpenApi};

use super::access::{COOKIE, RequiredToken};
use super::problem::ProblemJson;
use super::routes::{
    activity, assets, docs, events, exchange, gaps, health, messages, metrics, missing, reports,
    rockets, session,
};
use crate::domain::query::{Order, Sort};
use crate::domain::rocket::{Status, View, Views};
use crate::store::report::Report;

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
        missing::post,
        rockets::list,
        rockets::one,
        rockets::forget,
        gaps::list,
        gaps::declare,
        gaps::withdraw,
        exchange::export,
        exchange::merge,
        events::follow,
        activity::show,
        reports::stats,
        reports::list,
        reports::one,
        metrics::show,
        health::live,
        health::ready,
        session::begin,
        session::end,
        assets::page,
        assets::asset,
        description,
        docs::page,
        docs::file
    ),
    components(schemas(
        ProblemJson,
        Report,
        Sort,
        Order,
        View,
        Views,
        Status
    )),
    modifiers(&CommonParts)
)]
struct Description;

/// The description as JSON. It never changes while the program runs.
#[expect(clippy::expect_used, reason = "it depends on no input, and a test serializes it")]
static DESCRIPTION: LazyLock<Bytes> = LazyLock::new(|| {
    serde_json::to_vec(&Description::openapi()).expect("the description has only text keys").into()
});

/// The description of this API.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "getOpenApi",
    tag = "Service",
    responses(
        (status = 200, description = "An OpenAPI 3.1 document.",
         content_type = "application/json", body = Object),
        (status = 304, description = "The document has not changed since the client got it.")
    )
)]
pub(super) async fn description(request: HttpRequest) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response.content_type("application/json");
    assets::respond_unless_cached(&request, &mut response, DESCRIPTION.clone())
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
            SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description(COOKIE, cookie))),
        ),
    ]
}

fn security(required: RequiredToken) -> Vec<SecurityRequirement> {
    let schemes: &[&str] = match required {
        RequiredToken::Nothing => &[],
        RequiredToken::Read => &[READ_TOKEN, SESSION],
        RequiredToken::Write => &[WRITE_TOKEN],
    };
    schemes.iter().map(|scheme| SecurityRequirement::new(*scheme, [""; 0])).collect()
}

/// Adds the parts that all operations share.
struct CommonParts;

impl Modify for CommonParts {
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
                    complete_operation(operation, RequiredToken::of(&method, path));
                }
            }
        }
    }
}

/// Adds the security schemes, and the errors that any request can get.
fn complete_operation(operation: &mut Operation, required: RequiredToken) {
    operation.security = Some(security(required));
    let responses = &mut operation.responses.responses;
    let mut errors = vec![
        ("400", "The request is malformed."),
        ("403", "The service has no tokens, and the request's Origin or Host is another site's."),
        ("405", "The path does not support this method."),
        (
            "503",
            "The database can't answer now, or the service is stopping. It is safe to send the \
             request again later.",
        ),
    ];
    if required != RequiredToken::Nothing {
        errors.push(("401", "The service uses tokens, and the request has none that allows this."));
    }
    for (status, detail) in errors {
        responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(Response::new(detail)));
    }
    for (status, response) in responses {
        if let RefOr::T(response) = response {
            complete_response(status, response);
        }
    }
}

/// Adds the problem as the body of an error, and the headers that responses of this status have.
fn complete_response(status: &str, response: &mut Response) {
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
    use super::super::routes;
    use super::*;

    #[test]
    fn the_description_has_exactly_the_routes_and_their_methods() {
        let description = Description::openapi();
        for path in routes::paths() {
            let item = description.paths.paths.get(path);
            let item = item.unwrap_or_else(|| panic!("{path} is not described"));
            let endpoint = routes::endpoint(path).unwrap();
            let operations = [
                (Method::GET, &item.get),
                (Method::POST, &item.post),
                (Method::DELETE, &item.delete),
            ];
            for (method, operation) in operations {
                assert_eq!(operation.is_some(), endpoint.allows(&method), "{method} {path}");
                let Some(operation) = operation else { continue };
                assert!(operation.summary.is_some(), "{path}");
                assert!(operation.responses.responses.len() > 1, "{path}");
            }
        }
        assert_eq!(description.paths.paths.len(), routes::paths().count());
    }

    #[test]
    fn all_responses_describe_their_content() {
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
