//! The dashboard: its page and what it consists of, embedded in the program. They hold no data.

use actix_web::http::header::{self, ETag, EntityTag, Header, IfNoneMatch};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use rust_embed::RustEmbed;

use super::problem::Problem;

/// The folder `web`.
#[derive(RustEmbed)]
#[folder = "web/"]
pub(super) struct Files;

/// Nothing comes from elsewhere, and nothing that is in the page itself is run: text of messages can't become a script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The dashboard.
#[utoipa::path(
    get,
    path = "/",
    tag = "Dashboard",
    responses((status = 200, description = "A page.", content_type = "text/html", body = String))
)]
pub(super) async fn page() -> Result<HttpResponse, Problem> {
    send("dashboard.html", POLICY)
}

/// What the dashboard consists of.
#[utoipa::path(
    get,
    path = "/assets/{name}",
    tag = "Dashboard",
    params(("name" = String, Path, description = "The name of a file.", example = "dashboard.js")),
    responses(
        (status = 200, description = "The file."),
        (status = 304, description = "The client has it already, as its If-None-Match says."),
        (status = 404, description = "There is no such file.")
    )
)]
pub(super) async fn asset(name: web::Path<String>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let response = send(&name, POLICY)?;
    let tag = response.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok()?.parse::<EntityTag>().ok());
    let known = match (tag, IfNoneMatch::parse(&request)) {
        (Some(tag), Ok(IfNoneMatch::Items(known))) => known.iter().any(|known| known.weak_eq(&tag)),
        _ => false,
    };
    Ok(if known { HttpResponse::NotModified().finish() } else { response })
}

/// A file of the folder.
pub(super) fn send(name: &str, policy: &'static str) -> Result<HttpResponse, Problem> {
    let file = Files::get(name).ok_or_else(|| Problem::not_found("There is no such file."))?;
    let tag: String = file.metadata.sha256_hash().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Ok(guarded(content_type(name), policy)
        // Asked for each time, but sent only if it is another one: a new version of the program brings a new page.
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header(ETag(EntityTag::new_strong(tag)))
        .body(file.data.into_owned()))
}

/// An answer that a browser may do with what the policy says.
pub(super) fn guarded(content_type: &str, policy: &'static str) -> HttpResponseBuilder {
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
