//! Access control: tokens, the cookie that keeps a token for the dashboard, and requests made by
//! pages of other sites.
//!
//! A page of another site can make the user's browser send requests here. With tokens, such
//! requests have none: the browser does not send the cookie (SameSite=Strict). From a page on
//! another port of the same host it does, but such a page may not change anything. Without tokens,
//! the `Origin` reveals such requests, and the `Host` reveals those that reach this machine under
//! another name (DNS rebinding).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::cookie::{Cookie, SameSite};
use actix_web::dev::{RequestHead, ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    self, CROSS_ORIGIN_RESOURCE_POLICY, HeaderMap, HeaderName, HeaderValue,
};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use utoipa::ToSchema;

use super::problem::Problem;
use super::{State, body, method_not_allowed, openapi};
use crate::tokens::{Token, Tokens};

/// Paths that need no token, because they hold no data, and directories of such files.
const OPEN: [&str; 6] = ["/", "/livez", "/readyz", "/docs", "/openapi.json", SESSION];
const OPEN_FOLDERS: [&str; 2] = ["/assets/", "/docs/"];

/// The path for signing in and out.
const SESSION: &str = "/session";
/// The name of the dashboard's cookie on the default port. See [`Hosts::cookie_name`].
pub(super) const COOKIE: &str = "rocket_monitor_token";
/// Marks the responses to requests that the cookie allowed. Scripts can't see the cookie, so this
/// is how the dashboard knows that the user is signed in.
static SESSION_ACTIVE: HeaderName = HeaderName::from_static("session-active");
/// The largest token in a request body. It must arrive within the timeout.
const MAX_TOKEN_BYTES: usize = 4_096;
const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);

/// The kind of token that a request needs, if the service has tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needed {
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
    pub(super) fn by(method: &Method, path: &str) -> Self {
        if OPEN.contains(&path) || OPEN_FOLDERS.iter().any(|folder| path.starts_with(folder)) {
            Self::Nothing
        } else if changes_nothing(method) {
            Self::Read
        } else {
            Self::Write
        }
    }
}

fn changes_nothing(method: &Method) -> bool {
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
    pub(super) fn check(
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
    let allow = openapi::methods(&request.match_pattern()?)?;
    let has_it = allow.split(", ").any(|method| method == request.method().as_str());
    (!has_it).then(|| method_not_allowed(allow))
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

fn unauthorized(needed: Needed, wrong: bool) -> Problem {
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

/// A host and an optional port: `uri-host [ ":" port ]` of RFC 9110, which has no user information.
#[derive(Clone, Copy, Debug)]
struct Authority<'a> {
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Authority<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let end = match text.strip_prefix('[') {
            Some(literal) => literal.find(']')? + 2,
            None => text.find(':').unwrap_or(text.len()),
        };
        let (host, rest) = text.split_at(end);
        let is_literal = || host.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
        let in_name =
            |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
        let is_name = !host.is_empty() && host.bytes().all(in_name);
        if !is_name && is_literal().is_none() {
            return None;
        }
        let port = match rest.strip_prefix(':') {
            // The port after the colon may be empty (RFC 3986, section 3.2.3).
            Some("") => None,
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(port.parse().ok()?)
            }
            None if rest.is_empty() => None,
            _ => return None,
        };
        Some(Self { host, port })
    }

    /// Whether it is a loopback address or an address that the service listens on.
    fn is_ours(&self, listening: &[SocketAddr]) -> bool {
        if self.host.strip_suffix('.').unwrap_or(self.host).eq_ignore_ascii_case("localhost") {
            return true;
        }
        let host = self.host.trim_matches(['[', ']']);
        host.parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback() || listening.iter().any(|address| address.ip() == ip))
    }
}

/// A page's origin, as in RFC 6454.
#[derive(Clone, Copy, Debug)]
struct Origin<'a> {
    authority: Authority<'a>,
    default_port: u16,
}

impl<'a> Origin<'a> {
    /// None if it is `null`, a list of origins, of another scheme or malformed. Then it is not our
    /// own.
    fn parse(text: &'a str) -> Option<Self> {
        let (authority, default_port) = match text.split_once("://")? {
            ("http", authority) => (authority, 80),
            ("https", authority) => (authority, 443),
            _ => return None,
        };
        Some(Self { authority: Authority::parse(authority)?, default_port })
    }

    /// Whether the page came from this host. A proxy may have terminated TLS, so the origin's
    /// scheme determines the default port.
    fn is_at(&self, host: &Authority<'_>) -> bool {
        let port = |authority: &Authority<'_>| authority.port.unwrap_or(self.default_port);
        self.authority.host.eq_ignore_ascii_case(host.host) && port(&self.authority) == port(host)
    }
}

/// The names by which a request addresses this service: its `Host`, and its target if that is an
/// absolute URL, which takes precedence (RFC 9112, section 3.2.2).
struct Hosts<'a> {
    target: Option<Authority<'a>>,
    header: Option<Authority<'a>>,
}

impl<'a> Hosts<'a> {
    /// The name that counts.
    fn addressed(&self) -> Option<Authority<'a>> {
        self.target.or(self.header)
    }

    /// The name of the dashboard's cookie, with the port that the browser sees. Browsers send a
    /// cookie to every port of its host, so two services there would overwrite each other's.
    ///
    /// Two services on the default ports (80 and 443), or behind a proxy that serves both under
    /// paths of one port, do share a cookie: the service knows neither the scheme nor the path.
    fn cookie_name(&self) -> String {
        match self.addressed().and_then(|host| host.port) {
            Some(port) => format!("{COOKIE}_{port}"),
            None => COOKIE.to_owned(),
        }
    }
}

fn hosts(head: &RequestHead) -> Result<Hosts<'_>, Problem> {
    let target = match head.uri.authority() {
        Some(authority) => {
            let malformed = || {
                Problem::new(
                    StatusCode::BAD_REQUEST,
                    "The request's target must be a path, or a URL like http://HOST:PORT/PATH \
                     without a user name.",
                )
            };
            let has_scheme = matches!(head.uri.scheme_str(), Some("http" | "https") | None);
            Some(
                Authority::parse(authority.as_str())
                    .filter(|_| has_scheme)
                    .ok_or_else(malformed)?,
            )
        }
        None => None,
    };
    let malformed = || {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "The Host header must be a single host name or address, with or without :PORT.",
        )
    };
    let header = only(head, header::HOST).map_err(|_| malformed())?;
    let header = header.map(|text| Authority::parse(text).ok_or_else(malformed)).transpose()?;
    Ok(Hosts { target, header })
}

/// The header occurs more than once, or is not text.
struct Unreadable;

/// The only value of a header.
fn only(head: &RequestHead, name: HeaderName) -> Result<Option<&str>, Unreadable> {
    let mut values = head.headers.get_all(name);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| Unreadable),
        (Some(_), Some(_)) => Err(Unreadable),
    }
}

/// Refuses changes that a page of another origin makes with the cookie. Browsers send the cookie
/// also from other ports of the same host.
fn refuse_other_origins(head: &RequestHead, hosts: &Hosts<'_>) -> Result<(), Problem> {
    if changes_nothing(&head.method) {
        return Ok(());
    }
    // Browsers compare the origins themselves, and a proxy may have changed the Host. No page can
    // set this header.
    let fetched_by_own_page = matches!(only(head, SEC_FETCH_SITE), Ok(Some("same-origin")));
    let host = hosts.addressed();
    let is_own = fetched_by_own_page
        || match only(head, header::ORIGIN) {
            Ok(None) => true,
            Ok(Some(origin)) => {
                Origin::parse(origin).zip(host).is_some_and(|(origin, host)| origin.is_at(&host))
            }
            Err(Unreadable) => false,
        };
    if is_own {
        return Ok(());
    }
    Err(foreign(
        head,
        "The Origin of this request is not this service's own address. If a proxy is in between, \
         configure it to pass the Host header on unchanged.",
    ))
}

/// Refuses requests by pages of other sites to a service without tokens.
fn refuse_other_sites(
    head: &RequestHead,
    hosts: &Hosts<'_>,
    listening: &[SocketAddr],
) -> Result<(), Problem> {
    if [hosts.target, hosts.header].iter().flatten().any(|host| !host.is_ours(listening)) {
        return Err(foreign(
            head,
            "The Host of this request is neither localhost nor the address that the service listens on. To use the service \
             under another name, start it with tokens or with --allow-anonymous.",
        ));
    }
    let is_ours =
        |text| Origin::parse(text).is_some_and(|origin| origin.authority.is_ours(listening));
    match only(head, header::ORIGIN) {
        Ok(None) => Ok(()),
        Ok(Some(origin)) if is_ours(origin) => Ok(()),
        Ok(_) | Err(Unreadable) => Err(foreign(
            head,
            "The Origin of this request is another site. To let pages of other sites use the service, start it with tokens \
             or with --allow-anonymous.",
        )),
    }
}

fn foreign(head: &RequestHead, detail: &str) -> Problem {
    let (method, host, origin) =
        (&head.method, head.headers.get(header::HOST), head.headers.get(header::ORIGIN));
    tracing::debug!(%method, ?host, ?origin, "refused a cross-site request");
    Problem::new(StatusCode::FORBIDDEN, detail)
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// API responses: browsers run nothing in them, and don't show them inside other sites' pages. Our
/// own pages set their own policies.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// Adds headers that keep browsers from misusing a response with a body.
pub(super) fn guard<B>(mut response: ServiceResponse<B>) -> ServiceResponse<B> {
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

/// A token, as text.
#[derive(ToSchema)]
#[schema(as = Token, value_type = String, pattern = "^[A-Za-z0-9._~+/-]{1,2000}={0,2}$")]
#[allow(dead_code)]
struct TokenBody(String);

/// Sign in: store a token in a cookie that scripts can't read.
///
/// This is for the dashboard. Programs send their token with each request instead. The cookie's
/// name ends in the port of the request's `Host` if there is one (`rocket_monitor_token_8088`).
/// Responses to requests that the cookie allows have the header `Session-Active: true`.
#[utoipa::path(
    post,
    path = "/session",
    operation_id = "createSession",
    tag = "Dashboard",
    request_body(content = TokenBody, content_type = "text/plain", description = "A read token."),
    responses(
        (status = 204, description = "The token is now in the cookie.", headers(
            ("Set-Cookie" = String, description = "HttpOnly and SameSite=Strict.")
        )),
        (status = 400, description = "The body is not a token."),
        (status = 401, description = "The token may not read."),
        (status = 403, description = "The request's Origin is not this service's own address."),
        (status = 408, description = "The body did not arrive in time."),
        (status = 413, description = "The body is too large to be a token.")
    )
)]
pub(super) async fn begin_session(
    request: HttpRequest,
    payload: web::Payload,
    access: web::Data<Access>,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let name = hosts(request.head())?.cookie_name();
    let body = read_token(payload, &state).await?;
    let token = std::str::from_utf8(&body)
        .ok()
        .map(str::trim)
        .filter(|token| Token::parse(token).is_some());
    let token = token.ok_or_else(|| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "The body is not a token. Send only the token, as plain text.",
        )
    })?;
    match &access.read {
        Some(tokens) if !tokens.accept(token) => Err(unauthorized(Needed::Read, true)),
        _ => {
            let cookie = cookie(name, URL_SAFE_NO_PAD.encode(token));
            Ok(HttpResponse::NoContent().cookie(cookie).finish())
        }
    }
}

/// Sign out: remove the cookie.
#[utoipa::path(
    delete,
    path = "/session",
    operation_id = "deleteSession",
    tag = "Dashboard",
    responses(
        (status = 204, description = "The cookie is gone.", headers(
            ("Set-Cookie" = String, description = "An expired cookie.")
        )),
        (status = 403, description = "The request's Origin is not this service's own address.")
    )
)]
pub(super) async fn end_session(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut cookie = cookie(hosts(request.head())?.cookie_name(), String::new());
    cookie.make_removal();
    Ok(HttpResponse::NoContent().cookie(cookie).finish())
}

fn cookie(name: String, value: String) -> Cookie<'static> {
    let cookie = Cookie::build(name, value).path("/").http_only(true);
    cookie.same_site(SameSite::Strict).permanent().finish()
}

async fn read_token(mut payload: web::Payload, state: &State) -> Result<Vec<u8>, Problem> {
    let (mut body, deadline) = (Vec::new(), Instant::now() + TOKEN_TIMEOUT);
    while let Some(chunk) = body::next_chunk(&mut payload, Some(deadline), &state.stopping).await? {
        if body.len() + chunk.len() > MAX_TOKEN_BYTES {
            let detail = format!("A token has at most {MAX_TOKEN_BYTES} bytes.");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LISTENING: [SocketAddr; 1] =
        [SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)), 8088)];

    #[test]
    fn loopback_and_the_listening_address_are_ours() {
        for (authority, ours) in [
            ("localhost", true),
            ("LOCALHOST:8088", true),
            ("localhost.", true),
            ("localhost:", true),
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
            ("%6cocalhost", false),
            ("[::2]", false),
        ] {
            assert_eq!(
                Authority::parse(authority).unwrap().is_ours(&LISTENING),
                ours,
                "{authority}"
            );
        }
    }

    #[test]
    fn what_is_no_host_and_port_is_none() {
        for text in [
            "",
            ":80",
            "localhost:80@evil.example",
            "user@localhost",
            "localhost:http",
            "localhost:+80",
            "localhost:65536",
            "localhost:80:80",
            "localhost/",
            "localhost?x",
            "local host",
            "localhost\\evil.example",
            "::1",
            "[::1",
            "[::1]x",
            "[localhost]",
            "x[::1]",
        ] {
            assert!(Authority::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn an_origin_is_ours_only_as_rfc_6454_writes_it() {
        let ours =
            |text| Origin::parse(text).is_some_and(|origin| origin.authority.is_ours(&LISTENING));
        for text in
            ["http://localhost", "https://localhost:8443", "http://[::1]:8088", "http://192.0.2.7"]
        {
            assert!(ours(text), "{text}");
        }
        for text in [
            "null",
            "localhost",
            "evil.example://localhost",
            "ftp://localhost",
            "http://localhost/",
            "http://localhost:80@evil.example",
            "http://evil.example http://localhost",
            "http://localhost http://evil.example",
            "http://localhost, http://evil.example",
            "http://",
        ] {
            assert!(!ours(text), "{text}");
        }
    }

    #[test]
    fn an_origin_is_at_its_own_host_and_port() {
        for (origin, host, own) in [
            ("http://rockets.example", "rockets.example", true),
            ("http://rockets.example", "ROCKETS.example:80", true),
            ("https://rockets.example", "rockets.example", true),
            ("https://rockets.example", "rockets.example:443", true),
            ("https://rockets.example", "rockets.example:80", false),
            ("http://rockets.example:8088", "rockets.example:8088", true),
            ("http://rockets.example:3000", "rockets.example:8088", false),
            ("http://rockets.example.evil.example", "rockets.example", false),
        ] {
            let (origin, host) = (Origin::parse(origin).unwrap(), Authority::parse(host).unwrap());
            assert_eq!(origin.is_at(&host), own, "{origin:?} {host:?}");
        }
    }
}
