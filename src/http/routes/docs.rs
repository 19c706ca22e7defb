//! `GET /docs`: the pages that show the API description.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use utoipa_swagger_ui::Config;

use super::assets;
use crate::http::problem::Problem;

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
pub(in crate::http) async fn page(request: HttpRequest) -> Result<HttpResponse, Problem> {
    assets::serve_file(&request, "docs.html", DOCS_POLICY)
}

/// Swagger UI sets element styles from its script.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' \
                           'unsafe-inline'; img-src 'self' data:; connect-src 'self'; base-uri \
                           'none'; form-action 'none'; frame-ancestors 'none'";

/// A file that the API page loads.
#[utoipa::path(
    get,
    path = "/docs/{name}",
    operation_id = "getDocsFile",
    tag = "Service",
    params(("name" = String, Path, description = "The name of the file.",
            example = "swagger-ui.css")),
    responses(
        (status = 200, description = "The file."),
        (status = 304, description = "The file has not changed since the client got it."),
        (status = 404, description = "There is no such file.")
    )
)]
pub(in crate::http) async fn file(
    name: web::Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    // The URL is relative to the page, because a proxy may serve the service under a path.
    let config = Arc::new(Config::from("openapi.json"));
    let file = utoipa_swagger_ui::serve(&name, config).ok().flatten();
    let file = file.ok_or_else(|| Problem::not_found("There is no such file."))?;
    let mut response = assets::with_content_policy(&file.content_type, DOCS_POLICY);
    Ok(assets::respond_unless_cached(&request, &mut response, file.bytes.into_owned().into()))
}
