//! The dashboard: its page and the files that the page loads, embedded in the program. They hold no
//! data about rockets.

use std::hash::BuildHasher;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, ETag, EntityTag, Header, IfNoneMatch};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use bytes::Bytes;
use foldhash::quality::FixedState;
use rust_embed::RustEmbed;

use crate::http::problem::Problem;

/// The files in `web`.
#[derive(RustEmbed)]
#[folder = "web/"]
pub(in crate::http) struct Files;

/// The page loads nothing from other sites and runs no inline scripts, so that text of a message
/// can't run as a script.
const DASHBOARD_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src \
                                'self' data:; connect-src 'self'; base-uri 'none'; form-action \
                                'self'; frame-ancestors 'none'";

/// The dashboard.
#[utoipa::path(
    get,
    path = "/",
    operation_id = "getDashboard",
    tag = "Dashboard",
    responses(
        (status = 200, description = "The page.", content_type = "text/html", body = String),
        (status = 304, description = "The page has not changed since the client got it.")
    )
)]
pub(in crate::http) async fn page(request: HttpRequest) -> Result<HttpResponse, Problem> {
    serve_file(&request, "dashboard.html", DASHBOARD_POLICY)
}

/// A file that the dashboard's page loads.
#[utoipa::path(
    get,
    path = "/assets/{name}",
    operation_id = "getAsset",
    tag = "Dashboard",
    params(("name" = String, Path, description = "The name of the file.",
            example = "dashboard.js")),
    responses(
        (status = 200, description = "The file."),
        (status = 304, description = "The file has not changed since the client got it."),
        (status = 404, description = "There is no such file.")
    )
)]
pub(in crate::http) async fn asset(
    name: web::Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    serve_file(&request, &name, DASHBOARD_POLICY)
}

pub(in crate::http) fn serve_file(
    request: &HttpRequest,
    name: &str,
    policy: &'static str,
) -> Result<HttpResponse, Problem> {
    let file = Files::get(name).ok_or_else(|| Problem::not_found("There is no such file."))?;
    let mut response = with_content_policy(content_type(name), policy);
    Ok(respond_unless_cached(request, &mut response, file.data.into_owned().into()))
}

/// The response with this body, or 304 if the client has it cached.
pub(in crate::http) fn respond_unless_cached(
    request: &HttpRequest,
    response: &mut HttpResponseBuilder,
    body: Bytes,
) -> HttpResponse {
    let etag = EntityTag::new_strong(format!("{:016x}", FixedState::default().hash_one(&body)));
    let is_cached = match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Any) => true,
        Ok(IfNoneMatch::Items(cached)) => cached.iter().any(|cached| cached.weak_eq(&etag)),
        Err(_) => false,
    };
    // Browsers revalidate each time, so that they show a new version's pages at once.
    response.insert_header((header::CACHE_CONTROL, "no-cache")).insert_header(ETag(etag));
    if is_cached { response.status(StatusCode::NOT_MODIFIED).finish() } else { response.body(body) }
}

/// A response with a Content-Security-Policy.
pub(in crate::http) fn with_content_policy(
    content_type: &str,
    policy: &'static str,
) -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response.content_type(content_type);
    response.insert_header((header::CONTENT_SECURITY_POLICY, policy));
    response.insert_header((header::REFERRER_POLICY, "no-referrer"));
    response
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}
