//! `GET /events`: rockets and their changes as server-sent events.
//!
//! A stream holds one chunk at a time, and builds the next when the connection can send it. The
//! format is that of <https://html.spec.whatwg.org/multipage/server-sent-events.html>.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::{Method, header};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::query::{Filters, Order, Position, RocketQuery, Sort};
use crate::domain::rocket::{Rocket, View};
use crate::domain::text::Text;
use crate::feed::{Cursor, Delivery, Follower, RocketChange};
use crate::http::extract::query;
use crate::http::problem::Problem;
use crate::http::state::State;
use crate::wire::rocket::RocketJson;

/// After this long without an event, a comment shows that the connection is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// The maximum number of rockets or changes in one chunk.
const MAX_CHUNK_EVENTS: usize = 256;

const LAST_EVENT_ID_HEADER: &str = "Last-Event-ID";

/// Streams a snapshot and then changes, or only changes.
///
/// A `snapshot` event opens a snapshot (drop what you had), a `rocket` event follows for each
/// rocket, and a `live` event closes it. Then a `rocket` event follows for each change, at most ten
/// per second for each rocket, and a `gone` event with `{"channel"}` when a rocket stops matching
/// or is removed. The data of `rocket` is a list item of `GET /rockets`. A client that reconnects
/// with a `Last-Event-ID` that the service still knows gets only the changes since then.
#[utoipa::path(
    get,
    path = "/events",
    operation_id = "followEvents",
    tag = "Rockets",
    params(
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
                        ago or longer: an integer and `s`, `m`, `h` or `d`, at most `36500d`. A \
                        rocket that becomes silent gets its event within about a second."),
        ("snapshot" = Option<bool>, Query, description = "Whether to start with a snapshot; `true` \
                                                          by default."),
        ("Last-Event-ID" = Option<String>, Header,
         description = "The `id` of the last event that the client received.")
    ),
    responses(
        (status = 200, description = "An endless stream of server-sent events.",
         content_type = "text/event-stream", body = String),
        (status = 400, description = "A parameter is unknown, repeated or bad.")
    )
)]
pub(in crate::http) async fn follow(
    request: HttpRequest,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let query::EventsQuery { filters, snapshot } = query::events(request.query_string())?;
    let mut response = HttpResponse::Ok();
    response.content_type("text/event-stream").insert_header((header::CACHE_CONTROL, "no-store"));
    // Proxies must not buffer events.
    response.insert_header(("X-Accel-Buffering", "no"));
    if request.method() == Method::HEAD {
        return Ok(response.finish());
    }
    let last_event_id = request
        .headers()
        .get(LAST_EVENT_ID_HEADER)
        .and_then(|id| id.to_str().ok())
        .and_then(parse_event_id);
    let follower =
        state.feed.follow(last_event_id, filters.silent_for).await.map_err(Problem::unavailable)?;
    let phase = match snapshot {
        _ if follower.is_resumed() => StreamPhase::Changes,
        true => StreamPhase::Open,
        false => StreamPhase::Live,
    };
    let stopping = state.stopping.clone();
    let events = EventStream { state, stopping, follower, filters, phase };
    Ok(response.streaming(events.into_stream()))
}

/// The `id` of an event.
fn format_event_id(Cursor { epoch, position }: Cursor) -> String {
    format!("{epoch:016x}-{position}")
}

fn parse_event_id(id: &str) -> Option<Cursor> {
    let (epoch, position) = id.split_once('-')?;
    Some(Cursor { epoch: u64::from_str_radix(epoch, 16).ok()?, position: position.parse().ok()? })
}

/// What a stream sends next.
enum StreamPhase {
    /// The event that opens the snapshot.
    Open,
    /// The page of rockets after this position.
    Snapshot(Option<Position>),
    /// The event that closes the snapshot.
    Live,
    /// Changes, and heartbeats between them.
    Changes,
}

struct EventStream {
    state: web::Data<State>,
    stopping: watch::Receiver<bool>,
    /// Its cursor is from the start of the stream, so that changes during the snapshot follow the
    /// snapshot.
    follower: Follower,
    filters: Filters,
    phase: StreamPhase,
}

impl EventStream {
    fn into_stream(self) -> impl Stream<Item = Result<Bytes, Problem>> {
        stream::unfold(Some(self), async |events| {
            let mut events = events?;
            match events.next().await {
                Ok(Some(chunk)) => Some((Ok(chunk), Some(events))),
                // The client reconnects, and gets the changes since then, or a new snapshot.
                Ok(None) => None,
                Err(problem) => Some((Err(problem), None)),
            }
        })
    }

    /// The next chunk; `None` at the end of the stream.
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        if *self.stopping.borrow() {
            return Ok(None);
        }
        match &self.phase {
            StreamPhase::Open => {
                self.phase = StreamPhase::Snapshot(None);
                // An empty id clears the client's last event id: after an interrupted snapshot, it
                // needs a whole one.
                Ok(Some(Bytes::from_static(b"event: snapshot\nid\ndata: {}\n\n")))
            }
            StreamPhase::Snapshot(after) => {
                let after = after.clone();
                self.snapshot(after).await.map(Some)
            }
            StreamPhase::Live => {
                self.phase = StreamPhase::Changes;
                let id = format_event_id(self.follower.cursor());
                Ok(Some(format!("event: live\nid: {id}\ndata: {{}}\n\n").into()))
            }
            StreamPhase::Changes => Ok(self.changes().await),
        }
    }

    async fn snapshot(&mut self, after: Option<Position>) -> Result<Bytes, Problem> {
        let query = RocketQuery {
            view: View::BestEffort,
            sort: Sort::Channel,
            order: Order::Asc,
            filters: self.filters.clone(),
            now: self.follower.now(),
            received_after: None,
            after,
            limit: MAX_CHUNK_EVENTS,
            with_total: false,
        };
        // Snapshots have their own limit: many clients that connect at once must not delay pages
        // and reports.
        let store = self.state.store.clone();
        let page = self
            .state
            .snapshot_limit
            .read_without_timeout(async move { store.rockets(query).await })
            .await;
        let page = self.state.or_unavailable(page)?;
        self.phase = match page.next {
            Some(next) => StreamPhase::Snapshot(Some(next)),
            None => StreamPhase::Live,
        };
        let mut text = String::new();
        for rocket in &page.rockets {
            encode_rocket(&mut text, rocket, None);
        }
        if text.is_empty() {
            // An empty chunk would end the stream.
            text.push_str(":\n\n");
        }
        Ok(text.into())
    }

    /// The next matching changes, or a heartbeat if there are none for a while; `None` if the
    /// stream must end.
    async fn changes(&mut self) -> Option<Bytes> {
        let heartbeat = Instant::now() + HEARTBEAT;
        loop {
            if *self.stopping.borrow() {
                return None;
            }
            let before = self.follower.cursor();
            let changes = self.follower.take(MAX_CHUNK_EVENTS)?;
            let chunk = self.encode(&changes, before);
            if !chunk.is_empty() {
                return Some(chunk);
            }
            if !changes.is_empty() {
                // No change matches the filters. Let other tasks run before the next chunk.
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                () = self.follower.wait() => {}
                _ = self.stopping.changed() => {}
                () = tokio::time::sleep_until(heartbeat) => {
                    // The heartbeat has an id, because changes that don't match have moved the
                    // cursor.
                    let id = format_event_id(self.follower.cursor());
                    return Some(format!(":\nid: {id}\n\n").into());
                }
            }
        }
    }

    fn encode(&self, changes: &[Arc<RocketChange>], before: Cursor) -> Bytes {
        let mut chunk = BytesMut::new();
        for change in changes {
            let cursor = Cursor { position: change.position, ..before };
            match (
                change.delivery(&self.filters, before.position, self.follower.now()),
                &change.rocket,
            ) {
                (Delivery::Rocket, Some(rocket)) => {
                    let text = change.text.get_or_init(|| {
                        let mut text = String::new();
                        encode_rocket(&mut text, rocket, Some(cursor));
                        // The feed keeps thousands of these texts.
                        text.shrink_to_fit();
                        text.into()
                    });
                    chunk.extend_from_slice(text);
                }
                (Delivery::Rocket | Delivery::Gone, _) => {
                    let data = json!({ "channel": change.channel.as_str() });
                    let text =
                        format!("event: gone\nid: {}\ndata: {data}\n\n", format_event_id(cursor));
                    chunk.extend_from_slice(text.as_bytes());
                }
                (Delivery::Nothing, _) => {}
            }
        }
        chunk.freeze()
    }
}

#[expect(clippy::expect_used, reason = "a rocket has only texts and numbers")]
fn encode_rocket(text: &mut String, rocket: &Rocket, cursor: Option<Cursor>) {
    // The JSON has no line breaks.
    let json = serde_json::to_string(&RocketJson::new(rocket, None))
        .expect("a rocket has only texts and numbers");
    text.push_str("event: rocket\n");
    if let Some(cursor) = cursor {
        let _ = writeln!(text, "id: {}", format_event_id(cursor));
    }
    let _ = write!(text, "data: {json}\n\n");
}
