//! `POST /session` and `DELETE /session`: sign in to the dashboard, and sign out.

use std::time::{Duration, Instant};

use actix_web::cookie::{Cookie, SameSite};
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use utoipa::ToSchema;

use crate::http::access::{Access, RequiredToken, unauthorized};
use crate::http::extract::body;
use crate::http::middleware::origin::hosts;
use crate::http::problem::Problem;
use crate::http::state::State;
use crate::tokens::Token;

/// The maximum number of bytes of a token in a request body, and how long it may take to arrive.
const MAX_TOKEN_BYTES: usize = 4_096;
const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);

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
pub(in crate::http) async fn begin(
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
        Some(tokens) if !tokens.accept(token) => Err(unauthorized(RequiredToken::Read, true)),
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
pub(in crate::http) async fn end(request: HttpRequest) -> Result<HttpResponse, Problem> {
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
