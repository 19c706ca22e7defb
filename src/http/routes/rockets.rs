//! `GET /rockets`, and `GET` and `DELETE /rockets/{channel}`.

use std::time::SystemTime;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use bytestring::ByteString;
use percent_encoding::percent_decode_str;

use super::{json, next_link};
use crate::domain::query::{Order, Sort};
use crate::domain::rocket::{View, Views};
use crate::domain::text::{Channel, Text};
use crate::domain::timestamp::Timestamp;
use crate::http::concurrency_limit::ReadCost;
use crate::http::extract::{cursor, query};
use crate::http::problem::Problem;
use crate::http::state::State;
use crate::store::changes::ChangeHint;
use crate::store::{Reader, StoreError};
use crate::wire::rocket::{BothViewsJson, OneRocketJson, PageJson, RocketJson};

/// One page of rockets.
#[utoipa::path(
    get,
    path = "/rockets",
    operation_id = "listRockets",
    tag = "Rockets",
    params(
        ("sort" = Option<Sort>, Query, description = "The sort key; `latestUpdate` by default."),
        ("order" = Option<Order>, Query, description = "By default `desc` for latestUpdate and \
                                                        speed, `asc` for the others. Nulls come \
                                                        last in either order; ties break by \
                                                        channel."),
        ("channel" = inline(Option<Text>), Query, description = "Only this channel."),
        ("channelPrefix" = inline(Option<Text>), Query,
         description = "Only channels that start with these bytes of UTF-8."),
        ("type" = inline(Option<Vec<Text>>), Query, max_items = 50,
         description = "Only rockets of this type; if repeated, of any of these types."),
        ("mission" = inline(Option<Vec<Text>>), Query, max_items = 50,
         description = "Only rockets of this mission; if repeated, of any of these missions."),
        // Not an array: generated clients would repeat the parameter.
        ("status" = Option<String>, Query, example = "launched,exploded",
         pattern = "^(awaitingLaunch|exploded|launched)(,(awaitingLaunch|exploded|launched))*$",
         description = "Only rockets with this status; several are separated by commas."),
        ("missing" = Option<bool>, Query,
         description = "Only rockets with gaps (`true`), or only those without (`false`)."),
        ("silentFor" = Option<String>, Query, pattern = "^[1-9][0-9]{0,3}[smhd]$", example = "15m",
         description = "Only rockets of which the service has last received a message this long \
                        ago or longer: an integer and `s`, `m`, `h` or `d`, at most `36500d`. \
                        Pages are searched one by one, each at its own time."),
        ("view" = Option<View>, Query, description = "`best-effort` by default."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000,
         description = "At most this many rockets; 100 by default."),
        ("cursor" = Option<String>, Query, pattern = "^[A-Za-z0-9_-]+$",
         description = "The `nextCursor` of the previous page, with the same sort, order, filters \
                        and view."),
        ("total" = Option<bool>, Query,
         description = "Whether to count the rockets that match the filters; `false` by default. \
                        Counting searches all rockets.")
    ),
    responses(
        (status = 200, description = "The page.", body = PageJson, headers(
            ("Link" = String, description = "The next page, if there is one, as `rel=\"next\"`.")
        )),
        (status = 400, description = "A parameter is unknown, repeated or bad; `errors` names \
                                      them.")
    )
)]
pub(in crate::http) async fn list(
    request: HttpRequest,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let now = Timestamp::from_system_time(SystemTime::now());
    let query = query::rockets(request.query_string(), now)?;
    let read = {
        let (store, query) = (state.store.clone(), query.clone());
        async move { store.rockets(query).await }
    };
    let page = match ReadCost::from_query(&query) {
        ReadCost::Short => read.await,
        ReadCost::Search => state.search_limit.read(read).await?,
        ReadCost::Long => state.long_read_limit.read(read).await?,
    };
    let page = state.or_unavailable(page)?;
    let next_cursor = page.next.map(|position| cursor::encode(&query, &position));
    let mut response = HttpResponse::Ok();
    if let Some(cursor) = &next_cursor {
        response.append_header((
            header::LINK,
            next_link(request.path(), request.query_string(), cursor),
        ));
    }
    let rockets = page.rockets.iter().map(|rocket| RocketJson::new(rocket, None)).collect();
    Ok(json(response, &PageJson { rockets, next_cursor, total: page.total }))
}

/// One rocket.
#[utoipa::path(
    get,
    path = "/rockets/{channel}",
    operation_id = "getRocket",
    tag = "Rockets",
    params(
        ("channel" = String, Path, min_length = 1, max_length = 255,
         example = "193270a9-c9cf-404a-8f83-838e71d9ae67",
         description = "Percent-encoded. For `.` and `..`, use `GET /rockets?channel=`."),
        ("view" = Option<Views>, Query, description = "`best-effort` by default; `both` returns \
                                                       both views from one snapshot.")
    ),
    responses(
        (status = 200, description = "The rocket, with its first 100 gaps.", body = OneRocketJson),
        (status = 400, description = "A parameter is unknown, repeated or bad."),
        (status = 404, description = "No message of this channel has been processed.")
    )
)]
pub(in crate::http) async fn one(
    request: HttpRequest,
    channel: web::Path<String>,
    state: web::Data<State>,
    reader: web::Data<Reader>,
) -> Result<HttpResponse, Problem> {
    let views = query::rocket(request.query_string())?;
    let channel = self::channel(&request, channel)?;
    match views {
        Views::One(view) => {
            let found = reader.rocket(&channel, view).await;
            let found = state.or_unavailable(found)?.ok_or_else(unknown_channel)?;
            Ok(json(HttpResponse::Ok(), &RocketJson::new(&found.rocket, Some(&found.gaps))))
        }
        Views::Both => {
            let found = state.store.rocket_in_both_views(&channel).await;
            let found = state.or_unavailable(found)?.ok_or_else(unknown_channel)?;
            Ok(json(HttpResponse::Ok(), &BothViewsJson::new(&found)))
        }
    }
}

/// Forget a rocket: remove it, and the record of its processed messages.
///
/// Copies of its messages that arrive later count again, as messages of a new rocket.
#[utoipa::path(
    delete,
    path = "/rockets/{channel}",
    operation_id = "forgetRocket",
    tag = "Rockets",
    params(
        ("channel" = String, Path, min_length = 1, max_length = 255,
         description = "Percent-encoded.")
    ),
    responses(
        (status = 204, description = "The rocket is forgotten."),
        (status = 400, description = "There are parameters; this takes none."),
        (status = 404, description = "No message of this channel has been processed.")
    )
)]
pub(in crate::http) async fn forget(
    request: HttpRequest,
    channel: web::Path<String>,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    query::expect_none(request.query_string())?;
    let channel = self::channel(&request, channel)?;
    let (store, feed) = (state.store.clone(), state.feed.clone());
    let forget = async move {
        let forget = move || {
            let forgotten = store.forget(&channel);
            // After a failure it may have been forgotten.
            feed.report_changed([&channel], ChangeHint::UNKNOWN);
            forgotten
        };
        tokio::task::spawn_blocking(forget).await.unwrap_or(Err(StoreError::BrokenOff))
    };
    if !state.or_not_changed(state.change_limit.read(forget).await?)? {
        return Err(unknown_channel());
    }
    Ok(HttpResponse::NoContent().finish())
}

/// The channel in a path.
pub(super) fn channel(
    request: &HttpRequest,
    channel: web::Path<String>,
) -> Result<Channel, Problem> {
    // No message has a channel that is not a valid text. The path parameter has U+FFFD in place of
    // bytes that are not UTF-8, so check the path itself.
    if percent_decode_str(request.path()).decode_utf8().is_err() {
        return Err(unknown_channel());
    }
    Channel::new(ByteString::from(channel.into_inner())).map_err(|_| unknown_channel())
}

/// The 404 for an unknown channel.
pub(super) fn unknown_channel() -> Problem {
    Problem::not_found("No message of this channel has been processed.")
}
