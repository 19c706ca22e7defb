//! Who may do what: tokens, the cookie that keeps one for the dashboard, and, where there are none, requests from other
//! sites.
//!
//! A page of another site can make the user's browser send requests here. With tokens these lack one, for the cookie is not
//! sent along (SameSite=Strict). Without tokens they are told by their `Origin`, and those that reach this machine under
//! another name (DNS rebinding) by their `Host`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use actix_web::cookie::{Cookie, SameSite};
use actix_web::dev::ServiceResponse;
use actix_web::http::header::{self, CROSS_ORIGIN_RESOURCE_POLICY, HeaderMap, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpResponse, web};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use utoipa::ToSchema;

use super::problem::Problem;
use crate::access::{Token, Tokens};

/// What may be asked for without a token: it holds no data. The rest of the assets follows after a slash.
const OPEN: [&str; 4] = ["/", "/livez", "/readyz", "/session"];
const OPEN_FOLDER: &str = "/assets/";

/// The dashboard's cookie.
const COOKIE: &str = "rocket_monitor_token";
/// A token is short.
const MOST_TOKEN_BYTES: usize = 4_096;

/// The rules of access of a service.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Who writes has to give one of these, if there are any.
    pub write: Option<Arc<Tokens>>,
    /// Who reads has to give one of these, if there are any. A token to write doesn't read.
    pub read: Option<Arc<Tokens>>,
    /// Whether requests of other sites are allowed where no token is asked for.
    pub allow_anonymous: bool,
}

impl Access {
    /// Whether a request may be answered.
    pub(super) fn check(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        listening: &[SocketAddr],
    ) -> Result<(), Problem> {
        let is_open = OPEN.contains(&path) || path.starts_with(OPEN_FOLDER);
        // By the method: however a path is written, it can't pass for another kind of request.
        let writes = *method == Method::POST;
        match if writes { &self.write } else { &self.read } {
            Some(tokens) if !is_open => match given(headers) {
                Some(token) if tokens.accept(&token) => Ok(()),
                given => Err(unauthorized(writes, given.is_some())),
            },
            Some(_) => Ok(()),
            None if self.allow_anonymous => Ok(()),
            None => refuse_other_sites(method, headers, listening),
        }
    }
}

/// The token of a request: of its Authorization, or else of the dashboard's cookie.
fn given(headers: &HeaderMap) -> Option<String> {
    if let Some(authorization) = headers.get(header::AUTHORIZATION) {
        let (scheme, token) = authorization.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned());
    }
    let cookies = headers.get_all(header::COOKIE).filter_map(|cookies| cookies.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let value = pairs.find_map(|(name, value)| (name == COOKIE).then_some(value))?;
    String::from_utf8(URL_SAFE_NO_PAD.decode(value).ok()?).ok()
}

fn unauthorized(writes: bool, wrong: bool) -> Problem {
    let kind = if writes { "write" } else { "read" };
    let detail = if wrong {
        format!("The token is not one that may {kind}.")
    } else {
        format!("Send a token that may {kind}, as Authorization: Bearer TOKEN.")
    };
    let challenge = if wrong {
        "Bearer realm=\"rocket-monitor\", error=\"invalid_token\""
    } else {
        "Bearer realm=\"rocket-monitor\""
    };
    Problem::new(StatusCode::UNAUTHORIZED, detail)
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

fn refuse_other_sites(method: &Method, headers: &HeaderMap, listening: &[SocketAddr]) -> Result<(), Problem> {
    let is_ours = |authority: &str| is_ours(authority, listening);
    for (name, value) in [("Host", headers.get(header::HOST)), ("Origin", headers.get(header::ORIGIN))] {
        let Some(value) = value else { continue };
        let text = value.to_str().unwrap_or_default();
        let authority = text.split_once("://").map_or(text, |(_, authority)| authority);
        if !is_ours(authority) {
            tracing::debug!(%method, name, text, "a request of another site was refused");
            let detail = format!(
                "The {name} of this request is another site's. Without tokens, only pages and programs that use this \
                 service's own address may ask it; see --allow-anonymous."
            );
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        }
    }
    Ok(())
}

/// Whether a host, with or without a port, is this machine's loopback or an address that is listened on.
fn is_ours(authority: &str, listening: &[SocketAddr]) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(host, _)| host),
        None => authority.split(':').next().unwrap_or_default(),
    };
    if host.trim_end_matches('.').eq_ignore_ascii_case("localhost") {
        return true;
    }
    host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || listening.iter().any(|address| address.ip() == ip))
}

/// Nothing that an answer of the API holds is to be run, or shown within a page of another site. The pages of our own say
/// what they need themselves.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// Adds to an answer with a body what keeps browsers from doing more with it than they should.
pub(super) fn guard<B>(mut response: ServiceResponse<B>) -> ServiceResponse<B> {
    if response.status() != StatusCode::NO_CONTENT {
        let headers = response.headers_mut();
        if !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
            headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
        }
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // A page of another site can't read it by embedding it either.
        headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
        if !headers.contains_key(header::CACHE_CONTROL) {
            // It may need a token, and is old in a moment.
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
    }
    response
}

/// A token, as text.
#[derive(ToSchema)]
#[schema(value_type = String, pattern = "^[A-Za-z0-9._~+/-]{1,2000}={0,2}$")]
#[allow(dead_code)]
struct TokenBody(String);

/// Takes a token once, and keeps it in a cookie that scripts can't read: for the dashboard.
#[utoipa::path(
    post,
    path = "/session",
    tag = "Dashboard",
    request_body(content = TokenBody, content_type = "text/plain", description = "A token that may read."),
    responses(
        (status = 204, description = "The token is in a cookie now.", headers(
            ("Set-Cookie" = String, description = "HttpOnly and SameSite=Strict.")
        )),
        (status = 400, description = "The body is no token."),
        (status = 401, description = "The token is not one that may read."),
        (status = 413, description = "The body is no token: it is too large.")
    )
)]
pub(super) async fn begin_session(body: web::Bytes, access: web::Data<Access>) -> Result<HttpResponse, Problem> {
    let token = std::str::from_utf8(&body).map(str::trim).unwrap_or_default();
    if Token::parse(token).is_none() {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "Send the token as the body, and nothing else."));
    }
    if let Some(tokens) = &access.read
        && (token.len() > MOST_TOKEN_BYTES || !tokens.accept(token))
    {
        return Err(unauthorized(false, true));
    }
    let cookie = Cookie::build(COOKIE, URL_SAFE_NO_PAD.encode(token));
    let cookie = cookie.path("/").http_only(true).same_site(SameSite::Strict).permanent();
    Ok(HttpResponse::NoContent().cookie(cookie.finish()).finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_the_listening_address_are_ours() {
        let listening = [SocketAddr::from(([192, 0, 2, 7], 8088))];
        for (authority, ours) in [
            ("localhost", true),
            ("LOCALHOST:8088", true),
            ("localhost.", true),
            ("127.0.0.1:3000", true),
            ("127.9.9.9", true),
            ("[::1]:8088", true),
            ("192.0.2.7:8088", true),
            ("192.0.2.8", false),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("evil.example:8088", false),
            ("null", false),
            ("", false),
            ("[::2]", false),
        ] {
            assert_eq!(is_ours(authority, &listening), ours, "{authority}");
        }
    }
}
