//! The access rules: what needs which token.

use std::sync::Arc;

use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{Method, StatusCode};

use super::problem::Problem;
use crate::tokens::Tokens;

/// Paths that need no token, because they hold no data, and prefixes of such paths.
const PUBLIC_PATHS: [&str; 6] = ["/", "/livez", "/readyz", "/docs", "/openapi.json", SESSION];
const PUBLIC_PREFIXES: [&str; 2] = ["/assets/", "/docs/"];

/// The path of sign-in and sign-out.
pub(super) const SESSION: &str = "/session";
/// The name of the dashboard's cookie on the default port; see
/// [`Hosts::cookie_name`](super::middleware::origin::Hosts::cookie_name).
pub(super) const COOKIE: &str = "rocket_monitor_token";
/// The kind of token that a request needs, if the service has tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequiredToken {
    Nothing,
    Read,
    Write,
}

impl RequiredToken {
    /// The method decides, so that no spelling of a path makes a write pass for a read.
    pub(super) fn of(method: &Method, path: &str) -> Self {
        if PUBLIC_PATHS.contains(&path)
            || PUBLIC_PREFIXES.iter().any(|prefix| path.starts_with(prefix))
        {
            Self::Nothing
        } else if is_safe(method) {
            Self::Read
        } else {
            Self::Write
        }
    }
}

/// Whether a method is safe (RFC 9110, section 9.2.1): it doesn't write.
pub(super) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// The access rules of a service.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// If set, writing requests need one of these tokens.
    pub write: Option<Arc<Tokens>>,
    /// If set, reading requests need one of these tokens. Write tokens don't allow reading.
    pub read: Option<Arc<Tokens>>,
    /// Whether pages of other sites may send the requests that need no token.
    pub allow_anonymous: bool,
}

/// The 401 for a request without a token, or with a token that is not accepted.
pub(super) fn unauthorized(required: RequiredToken, has_token: bool) -> Problem {
    let kind = if required == RequiredToken::Write { "write" } else { "read" };
    let other = if required == RequiredToken::Write { "read" } else { "write" };
    let detail = if has_token {
        format!(
            "This token may not {kind}. Read and write tokens are separate; is this the {other} \
             token?"
        )
    } else {
        format!("This request needs a {kind} token. Send it as \"Authorization: Bearer TOKEN\".")
    };
    let challenge = if has_token {
        "Bearer realm=\"rocket-monitor\", error=\"invalid_token\""
    } else {
        "Bearer realm=\"rocket-monitor\""
    };
    Problem::new(StatusCode::UNAUTHORIZED, detail)
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}
