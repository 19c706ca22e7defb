//! `GET /export` and `POST /merge`: passing rockets between databases.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use tokio::sync::OwnedSemaphorePermit;

use super::json;
use crate::exchange::{ExportReader, Exporter, MergeBatch, MergeReport};
use crate::http::extract::body::Body;
use crate::http::extract::query;
use crate::http::problem::Problem;
use crate::http::state::State;
use crate::store::StoreError;
use crate::store::changes::ChangeHint;

/// The maximum number of bytes that are passed to the connection at a time, which copies them.
const CHUNK_BYTES: usize = 32 * 1024;

/// Export rockets for another database.
///
/// The first line has `rocketMonitor`: the format, the time, and `through`, which is what to pass
/// as `since` the next time. Each further line has a `rocket` with its processed ranges and losses,
/// or is about a rocket that was `forgotten` in the last 30 days. The size grows with the gaps, not
/// with the messages. Each rocket is read from one snapshot.
#[utoipa::path(
    get,
    path = "/export",
    operation_id = "exportRockets",
    tag = "Exchange",
    params(
        ("since" = Option<String>, Query, format = DateTime,
         description = "Only rockets that have changed since then."),
        ("channelPrefix" = Option<String>, Query, min_length = 1, max_length = 255,
         description = "Only channels that start with these bytes.")
    ),
    responses(
        (status = 200, description = "The export. If the connection ends before the response, it \
                                      is not complete; what has arrived can be merged.",
         content_type = "application/x-ndjson", body = String),
        (status = 400, description = "A parameter is unknown, repeated or bad; `errors` names \
                                      them.")
    )
)]
pub(in crate::http) async fn export(
    request: HttpRequest,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let query = query::export(request.query_string())?;
    let permit = state.export_streams.permit().await?;
    let exporter = Some(Exporter::new(state.store.clone(), query));
    let mut export = ExportStream { exporter, text: Bytes::new(), state, _permit: permit };
    // Before the first byte, a failure still has a status.
    let first = export.next().await?;
    let mut response = HttpResponse::Ok();
    response.content_type("application/x-ndjson");
    Ok(response.streaming(export.into_stream(first)))
}

/// An export that is written while it is read.
struct ExportStream {
    /// None only while a thread uses it.
    exporter: Option<Exporter>,
    /// What is read and not written.
    text: Bytes,
    state: web::Data<State>,
    _permit: OwnedSemaphorePermit,
}

impl ExportStream {
    fn into_stream(self, first: Option<Bytes>) -> impl Stream<Item = Result<Bytes, Problem>> {
        stream::unfold((first, Some(self)), async |(first, export)| {
            let mut export = export?;
            if let Some(first) = first {
                return Some((Ok(first), (None, Some(export))));
            }
            match export.next().await {
                Ok(next) => next.map(|next| (Ok(next), (None, Some(export)))),
                // The connection is closed without the end of the response.
                Err(problem) => {
                    let reason = problem.logged_reason();
                    tracing::warn!(reason, "an export was cut off");
                    Some((Err(problem), (None, None)))
                }
            }
        })
    }

    /// The next part of the response; `None` at its end.
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        while self.text.is_empty() {
            let Some(mut exporter) = self.exporter.take() else { return Ok(None) };
            let read = async move {
                let read = move || {
                    let text = exporter.next_text();
                    text.map(|text| (exporter, text))
                };
                tokio::task::spawn_blocking(read).await.unwrap_or(Err(StoreError::BrokenOff))
            };
            let read = self.state.long_read_limit.read_without_timeout(read).await;
            let (exporter, text) = self.state.or_unavailable(read)?;
            let Some(text) = text else { return Ok(None) };
            (self.exporter, self.text) = (Some(exporter), text.into());
        }
        Ok(Some(self.text.split_to(self.text.len().min(CHUNK_BYTES))))
    }
}

/// Merge an export of another database.
///
/// Afterwards this database has what it would have if it had processed the messages of both:
/// messages that both have count once. The body may have any length, and the `Content-Encoding`
/// gzip or zstd. It is read and merged at the same time, each rocket in one transaction. Repeating
/// a merge changes nothing. If contents differ for the same messages, what is here stays.
#[utoipa::path(
    post,
    path = "/merge",
    operation_id = "mergeRockets",
    tag = "Exchange",
    request_body(content = String, content_type = "application/x-ndjson",
                 description = "An export, as `GET /export` returns it."),
    responses(
        (status = 200, description = "Everything is merged and stored.", body = MergeReport),
        (status = 400, description = "The body can't be decoded, or there are parameters."),
        (status = 408, description = "The body did not arrive in time."),
        (status = 415, description = "The body has a Content-Encoding other than gzip and zstd."),
        (status = 422, description = "A line is not that of an export; `detail` says which. What \
                                      is before it was merged, and the problem has the counts as \
                                      members."),
        (status = 503, description = "The store can't take it now. It is safe to send everything \
                                      again. The problem has the counts as members.")
    )
)]
pub(in crate::http) async fn merge(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let mut body = Body::open(&request, payload, &state.stopping).await?;
    query::expect_none(request.query_string())?;
    let _permit = state.merge_streams.permit().await?;
    body.limit_memory(&state.zstd_streams).await?;
    let mut merge = MergeStream {
        state: &state,
        reader: ExportReader::default(),
        batch: MergeBatch::default(),
        report: MergeReport::default(),
    };
    let read = merge.read(&mut body).await;
    let flushed = merge.flush().await;
    match read.and(flushed) {
        Ok(()) => Ok(json(HttpResponse::Ok(), &merge.report)),
        Err(problem) => Err(problem.with_members(&merge.report)),
    }
}

/// A body that is read while earlier parts of it are merged.
struct MergeStream<'s> {
    state: &'s State,
    reader: ExportReader,
    batch: MergeBatch,
    report: MergeReport,
}

impl MergeStream<'_> {
    async fn read(&mut self, body: &mut Body) -> Result<(), Problem> {
        loop {
            let chunk = body.next_chunk(None).await?;
            let mut entries = Vec::new();
            let result = self.reader.read(chunk.as_ref(), &mut entries);
            for entry in entries {
                self.batch.add(entry);
                if self.batch.is_full() {
                    self.flush().await?;
                }
            }
            result.map_err(|error| {
                let detail = format!("The body is not an export: {error}");
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, &detail)
            })?;
            if chunk.is_none() {
                return Ok(());
            }
        }
    }

    async fn flush(&mut self) -> Result<(), Problem> {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        let (store, feed) = (self.state.store.clone(), self.state.feed.clone());
        let mut report = self.report.clone();
        let merge = async move {
            let merge = move || {
                let channels = batch.channels();
                let merged = batch.merge(&store, false, &mut report);
                match &merged {
                    Ok(changed) => feed.report_changed(changed, ChangeHint::UNKNOWN),
                    // Some may have been merged.
                    Err(_) => feed.report_changed(&channels, ChangeHint::UNKNOWN),
                }
                merged.map(|_| report)
            };
            tokio::task::spawn_blocking(merge).await.unwrap_or(Err(StoreError::BrokenOff))
        };
        let merged = self.state.change_limit.read_without_timeout(merge).await;
        self.report = self.state.or_not_changed(merged)?;
        Ok(())
    }
}
