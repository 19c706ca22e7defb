//! Access control: tokens, the cookie that keeps a token for the dashboard, and requests made by
//! pages of other sites.
//!
//! A page of another site can make the user's browser send requests here. With tokens, such
//! requests have none: the browser does not send the cookie (SameSite=Strict). From a page on
//! another port of the same host it does, but such a page may not change anything. Without tokens,
//! the `Origin` reveals such requests, and the `Host` reveals those that reach this machine under
//! another name (DNS rebinding).

use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::HttpMessage;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    self, CROSS_ORIGIN_RESOURCE_POLICY, HeaderMap, HeaderName, HeaderValue,
};
use actix_web::http::{Method, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::origin::{hosts, refuse_other_origins, refuse_other_sites};
use crate::http::problem::Problem;
use crate::http::routes;
use crate::tokens::Tokens;

/// Paths that need no token, because they hold no data, and directories of such files.
const OPEN: [&str; 6] = ["/", "/livez", "/readyz", "/docs", "/openapi.json", SESSION];
const OPEN_FOLDERS: [&str; 2] = ["/assets/", "/docs/"];

/// The path for signing in and out.
const SESSION: &str = "/session";
/// The name of the dashboard's cookie on the default port. See [`Hosts::cookie_name`].
pub(in crate::http) const COOKIE: &str = "rocket_monitor_token";
/// Marks the responses to requests that the cookie allowed. Scripts can't see the cookie, so this
/// is how the dashboard knows that the user is signed in.
static SESSION_ACTIVE: HeaderName = HeaderName::from_static("session-active");

/// The kind of token that a request needs, if the service has tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Needed {
    /// No token.
    Nothing,
    /// A read token.
    Read,
    /// A write token.
    Write,
}

impl Needed {
    /// Decides by the method, so a request can't pass for another kind, however its path is
    /// written.
    pub(in crate::http) fn by(method: &Method, path: &str) -> Self {
        if OPEN.contains(&path) || OPEN_FOLDERS.iter().any(|folder| path.starts_with(folder)) {
            Self::Nothing
        } else if changes_nothing(method) {
            Self::Read
        } else {
            Self::Write
        }
    }
}

pub(super) fn changes_nothing(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// The access rules of a service.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// If set, requests that write need one of these tokens.
    pub write: Option<Arc<Tokens>>,
    /// If set, requests that read need one of these tokens. Write tokens don't allow reading.
    pub read: Option<Arc<Tokens>>,
    /// Whether pages of other sites may use what needs no token.
    pub allow_anonymous: bool,
}

impl Access {
    /// Checks whether a request may be answered.
    pub(in crate::http) fn check(
        &self,
        request: &ServiceRequest,
        listening: &[SocketAddr],
    ) -> Result<(), Problem> {
        let (head, path) = (request.head(), request.path());
        let hosts = hosts(head)?;
        let needed = Needed::by(&head.method, path);
        if path == SESSION {
            refuse_other_origins(head, &hosts)?;
        }
        let tokens = if needed == Needed::Write { &self.write } else { &self.read };
        match tokens {
            Some(_) if needed == Needed::Nothing => Ok(()),
            Some(tokens) => match given(&head.headers, &hosts.cookie_name()) {
                Some(RequestToken { token, by_cookie }) if tokens.accept(&token) => {
                    if by_cookie {
                        request.extensions_mut().insert(ByCookie);
                        refuse_other_origins(head, &hosts)
                    } else {
                        Ok(())
                    }
                }
                given => Err(unavailable_method(request)
                    .unwrap_or_else(|| unauthorized(needed, given.is_some()))),
            },
            None if self.allow_anonymous => Ok(()),
            None => refuse_other_sites(head, &hosts, listening),
        }
    }
}

/// The response to a method that the path doesn't support, whatever the token.
fn unavailable_method(request: &ServiceRequest) -> Option<Problem> {
    let endpoint = routes::endpoint(&request.match_pattern()?)?;
    (!endpoint.allows(request.method())).then(|| endpoint.method_not_allowed())
}

/// The token of a request.
struct RequestToken {
    token: String,
    by_cookie: bool,
}

/// Kept with a request that the dashboard's cookie allowed.
struct ByCookie;

/// Takes the token from the Authorization header, or else from the dashboard's cookie.
fn given(headers: &HeaderMap, cookie_name: &str) -> Option<RequestToken> {
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

pub(in crate::http) fn unauthorized(needed: Needed, wrong: bool) -> Problem {
    let kind = if needed == Needed::Write { "write" } else { "read" };
    let other = if needed == Needed::Write { "read" } else { "write" };
    let detail = if wrong {
        format!(
            "This token may not {kind}. Read and write tokens are separate; is this the {other} \
             token?"
        )
    } else {
        format!("This request needs a {kind} token. Send it as \"Authorization: Bearer TOKEN\".")
    };
    let challenge = if wrong {
        "Bearer realm=\"rocket-monitor\", error=\"invalid_token\""
    } else {
        "Bearer realm=\"rocket-monitor\""
    };
    Problem::new(StatusCode::UNAUTHORIZED, detail)
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

/// API responses: browsers run nothing in them, and don't show them inside other sites' pages. Our
/// own pages set their own policies.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// Adds headers that keep browsers from misusing a response with a body.
pub(in crate::http) fn guard<B>(mut response: ServiceResponse<B>) -> ServiceResponse<B> {
    if response.request().extensions().contains::<ByCookie>() {
        response.headers_mut().insert(SESSION_ACTIVE.clone(), HeaderValue::from_static("true"));
    }
    if response.status() != StatusCode::NO_CONTENT {
        let headers = response.headers_mut();
        if !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
            headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
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
