//! Access control: tokens, the cookie that keeps a token for the dashboard, and requests made by
//! pages of other sites.
//!
//! A page of another site can make the user's browser send requests to this service. If the service
//! has tokens, the browser doesn't send the cookie with such requests (SameSite=Strict). It does
//! send it for a page on another port of the service's host; the service rejects its writes. If the
//! service has no tokens, the `Origin` reveals such requests, and the `Host` reveals requests that
//! reach this machine under another name (DNS rebinding).

use std::net::SocketAddr;

use actix_web::HttpMessage;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{
    self, CROSS_ORIGIN_RESOURCE_POLICY, HeaderMap, HeaderName, HeaderValue,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::origin::{hosts, reject_other_origins, reject_other_sites};
use crate::http::access::{Access, RequiredToken, SESSION, unauthorized};
use crate::http::problem::Problem;
use crate::http::routes;

/// Marks the responses to requests that the cookie authorized. Scripts can't see the cookie: this
/// header tells the dashboard that the user is signed in.
static SESSION_ACTIVE: HeaderName = HeaderName::from_static("session-active");

/// Checks whether a request is allowed.
pub(super) fn authorize(
    access: &Access,
    request: &ServiceRequest,
    listening: &[SocketAddr],
) -> Result<(), Problem> {
    let (head, path) = (request.head(), request.path());
    let hosts = hosts(head)?;
    let required = RequiredToken::of(&head.method, path);
    if path == SESSION {
        reject_other_origins(head, &hosts)?;
    }
    let tokens = if required == RequiredToken::Write { &access.write } else { &access.read };
    match tokens {
        Some(_) if required == RequiredToken::Nothing => Ok(()),
        Some(tokens) => match request_token(&head.headers, &hosts.cookie_name()) {
            Some(RequestToken { token, by_cookie }) if tokens.accept(&token) => {
                if by_cookie {
                    request.extensions_mut().insert(AuthorizedByCookie);
                    reject_other_origins(head, &hosts)
                } else {
                    Ok(())
                }
            }
            token => Err(unsupported_method(request)
                .unwrap_or_else(|| unauthorized(required, token.is_some()))),
        },
        None if access.allow_anonymous => Ok(()),
        None => reject_other_sites(head, &hosts, listening),
    }
}
/// The 405 for a method that the path doesn't support. It takes precedence over a 401.
fn unsupported_method(request: &ServiceRequest) -> Option<Problem> {
    let endpoint = routes::endpoint(&request.match_pattern()?)?;
    (!endpoint.allows(request.method())).then(|| endpoint.method_not_allowed())
}

/// The token of a request.
struct RequestToken {
    token: String,
    by_cookie: bool,
}

/// An extension of requests that the dashboard's cookie authorized.
struct AuthorizedByCookie;

/// The token from the Authorization header, or else from the dashboard's cookie.
fn request_token(headers: &HeaderMap, cookie_name: &str) -> Option<RequestToken> {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    // Credentials of another scheme may be for a proxy.
    if let Some((scheme, token)) = authorization.and_then(|value| value.split_once(' '))
        && scheme.eq_ignore_ascii_case("bearer")
    {
        return Some(RequestToken { token: token.trim().to_owned(), by_cookie: false });
    }
    let cookies = headers.get_all(header::COOKIE).filter_map(|cookies| cookies.to_str().ok());
    let mut pairs = cookies
        .flat_map(|cookies| cookies.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let value = pairs.find_map(|(name, value)| (name == cookie_name).then_some(value))?;
    let token = String::from_utf8(URL_SAFE_NO_PAD.decode(value).ok()?).ok()?;
    Some(RequestToken { token, by_cookie: true })
}

/// Browsers run nothing in API responses, and don't show them in frames of other sites. The pages
/// of the service set their own policies.
const API_CONTENT_POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// Adds headers that keep browsers from running, sniffing, embedding or storing a response.
pub(in crate::http) fn add_security_headers<B>(
    mut response: ServiceResponse<B>,
) -> ServiceResponse<B> {
    if response.request().extensions().contains::<AuthorizedByCookie>() {
        response.headers_mut().insert(SESSION_ACTIVE.clone(), HeaderValue::from_static("true"));
    }
    if response.status() != StatusCode::NO_CONTENT {
        let headers = response.headers_mut();
        if !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
            headers.insert(header::CONTENT_SECURITY_POLICY, API_CONTENT_POLICY);
        }
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // Pages of other sites can't read it by embedding it either.
        headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
        if !headers.contains_key(header::CACHE_CONTROL) {
            // The response may have needed a token, and is soon outdated.
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
    }
    response
}
