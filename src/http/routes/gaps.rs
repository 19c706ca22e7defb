//! `GET /rockets/{channel}/gaps`, and `POST` and `DELETE /rockets/{channel}/losses`.

use std::time::SystemTime;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};

use super::{json, next_link, rockets};
use crate::domain::losses::{LossAction, LossError, LossRequest};
use crate::domain::message::MessageNumber;
use crate::domain::query::GapQuery;
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
use crate::http::extract::body::Body;
use crate::http::extract::{cursor, query};
use crate::http::problem::{FieldError, Problem};
use crate::http::state::State;
use crate::store::changes::ChangeHint;
use crate::wire::loss::{Declaration, GapJson, GapPageJson, LostJson, WithdrawnJson, parse};

/// One page of a rocket's gaps.
///
/// A gap is a range of missing message numbers below the highest.
#[utoipa::path(
    get,
    path = "/rockets/{channel}/gaps",
    operation_id = "listGaps",
    tag = "Gaps",
    params(
        ("channel" = String, Path, min_length = 1, max_length = 255,
         description = "Percent-encoded."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000,
         description = "At most this many gaps; 100 by default."),
        ("cursor" = Option<String>, Query, pattern = "^[A-Za-z0-9_-]+$",
         description = "The `nextCursor` of the previous page.")
    ),
    responses(
        (status = 200, description = "The page, in ascending order.", body = GapPageJson, headers(
            ("Link" = String, description = "The next page, if there is one, as `rel=\"next\"`.")
        )),
        (status = 400, description = "A parameter is unknown, repeated or bad; `errors` names \
                                      them."),
        (status = 404, description = "No message of this channel has been processed.")
    )
)]
pub(in crate::http) async fn list(
    request: HttpRequest,
    channel: web::Path<String>,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let channel = rockets::channel(&request, channel)?;
    let query = query::gaps(request.query_string(), channel)?;
    let read = {
        let (store, query) = (state.store.clone(), query.clone());
        async move { store.gaps(query).await }
    };
    let page = state.or_unavailable(state.search_limit.read(read).await?)?;
    let page = page.ok_or_else(rockets::unknown_channel)?;
    let next_cursor = page.next.map(|after| cursor::encode_gaps(&GapQuery { after, ..query }));
    let mut response = HttpResponse::Ok();
    if let Some(cursor) = &next_cursor {
        let link = next_link(request.path(), request.query_string(), cursor);
        response.append_header((header::LINK, link));
    }
    let gaps = page.gaps.iter().map(GapJson::new).collect();
    Ok(json(response, &GapPageJson { gaps, next_cursor }))
}

/// Declare missing numbers lost.
///
/// The exact view goes on across them. Numbers that are processed, or already declared lost, stay
/// as they are. If a lost message arrives after all, it counts like any other.
#[utoipa::path(
    post,
    path = "/rockets/{channel}/losses",
    operation_id = "declareLoss",
    tag = "Gaps",
    params(
        ("channel" = String, Path, min_length = 1, max_length = 255,
         description = "Percent-encoded.")
    ),
    request_body(content = Declaration, content_type = "application/json"),
    responses(
        (status = 200, description = "The declaration is stored. Repeating it changes nothing.",
         body = LostJson),
        (status = 400, description = "The body is not one JSON text in UTF-8, or there are \
                                      parameters."),
        (status = 404, description = "No message of this channel has been processed."),
        (status = 408, description = "The body did not arrive in time."),
        (status = 413, description = "The body is larger than 64 KiB."),
        (status = 415, description = "The body has a Content-Encoding other than gzip and zstd."),
        (status = 422, description = "A member is missing or out of bounds, or `last` is not below \
                                      the highest processed number; `errors` names the members.")
    )
)]
pub(in crate::http) async fn declare(
    request: HttpRequest,
    channel: web::Path<String>,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let body = Body::open(&request, payload, &state.stopping).await?.read_message().await?;
    query::expect_none(request.query_string())?;
    let channel = rockets::channel(&request, channel)?;
    let Declaration { first, last, reason } = parse(body).map_err(Problem::bad_declaration)?;
    let at = Timestamp::from_system_time(SystemTime::now());
    let action = LossAction::Declare { reason, at };
    let lost = change(&state, channel, (first, last), action).await?;
    Ok(json(HttpResponse::Ok(), &LostJson { lost }))
}

/// Withdraw declarations that numbers are lost.
///
/// Numbers outside `first` to `last` stay declared.
#[utoipa::path(
    delete,
    path = "/rockets/{channel}/losses",
    operation_id = "withdrawLoss",
    tag = "Gaps",
    params(
        ("channel" = String, Path, min_length = 1, max_length = 255,
         description = "Percent-encoded."),
        ("first" = inline(MessageNumber), Query, description = "The first number."),
        ("last" = inline(MessageNumber), Query, description = "The last number, not below `first`.")
    ),
    responses(
        (status = 200, description = "None of these numbers is declared lost any longer.",
         body = WithdrawnJson),
        (status = 400, description = "A parameter is unknown, repeated, missing or bad; `errors` \
                                      names them."),
        (status = 404, description = "No message of this channel has been processed.")
    )
)]
pub(in crate::http) async fn withdraw(
    request: HttpRequest,
    channel: web::Path<String>,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let numbers = query::numbers(request.query_string())?;
    let channel = rockets::channel(&request, channel)?;
    let withdrawn = change(&state, channel, numbers, LossAction::Withdraw).await?;
    Ok(json(HttpResponse::Ok(), &WithdrawnJson { withdrawn }))
}

/// Changes a channel's losses durably. Returns how many numbers that concerns.
async fn change(
    state: &State,
    channel: Channel,
    (first, last): (MessageNumber, MessageNumber),
    action: LossAction,
) -> Result<i64, Problem> {
    let (store, feed) = (state.store.clone(), state.feed.clone());
    let change = async move {
        let change = move || {
            let request = LossRequest { channel, first: first.get(), last: last.get(), action };
            let outcomes = store.change_losses(std::slice::from_ref(&request), false);
            // After a failure they may have been changed.
            feed.report_changed([&request.channel], ChangeHint::LOSSES);
            outcomes
        };
        tokio::task::spawn_blocking(change)
            .await
            .unwrap_or(Err(crate::store::StoreError::BrokenOff))
    };
    let outcomes = state.or_not_changed(state.change_limit.read(change).await?)?;
    let [outcome] = outcomes[..] else { unreachable!("each request has one outcome") };
    outcome.map_err(|error| match error {
        LossError::UnknownChannel => rockets::unknown_channel(),
        LossError::NotBelow { highest } => {
            let detail = format!(
                "must be below the highest processed number, {highest}: whether later ones were \
                 sent is not known"
            );
            let fault = FieldError::Member { pointer: "/last".to_owned(), detail };
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "These numbers can't be declared lost.")
                .with_errors(vec![fault])
        }
    })
}
