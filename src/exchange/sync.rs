//! Exchanges with another service what either lacks.

use std::time::Duration;

use awc::http::{StatusCode, header};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::Deserialize;

use super::{ChannelConflict, ExportReader, Exporter, MAX_LINE_BYTES, MergeBatch, MergeReport};
use crate::domain::timestamp::Timestamp;
use crate::store::merge::ExportQuery;
use crate::store::{Store, StoreError};
use crate::terminal::Escaped;
use crate::tokens::Token;
use crate::wire::export::{ExportHeader, ExportLine};
use crate::wire::ndjson::{Line, LineCutter};

/// How long the service may take until its response starts, and between its parts.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest response to a merge: 100 conflicts.
const MAX_RESPONSE_BYTES: usize = 1024 * 1024;
/// How much of the response to a request that failed is shown.
const MAX_SHOWN_BYTES: usize = 1_024;

/// Two databases that are kept equal: one here, and one behind a service. It must be used inside an
/// actix system. Its errors are sentences for the user.
pub(crate) struct Sync {
    client: awc::Client,
    base: String,
    tokens: SyncTokens,
    store: Store,
    /// What the next exports begin with: none for the first ones, which are whole.
    pulled_through: Option<Timestamp>,
    pushed_through: Option<Timestamp>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct SyncTokens {
    /// For `GET /export`.
    pub(crate) read: Option<Token>,
    /// For `POST /merge`.
    pub(crate) write: Option<Token>,
}

/// The response to `POST /merge`.
#[derive(Deserialize)]
struct MergeResponse {
    rockets: u64,
    changed: u64,
    gained: i64,
    conflicts: Vec<ConflictJson>,
}

#[derive(Deserialize)]
struct ConflictJson {
    channel: String,
    first: i64,
    last: i64,
    detail: String,
}

impl Sync {
    /// `base` is the base URL of the service.
    pub(crate) fn new(base: String, tokens: SyncTokens, store: Store) -> Self {
        let client = awc::Client::builder().disable_timeout().finish();
        Self { client, base, tokens, store, pulled_through: None, pushed_through: None }
    }

    /// Takes from the service what has changed there since the last pull.
    pub(crate) async fn pull(&mut self) -> Result<MergeReport, String> {
        let url = format!("{}/export{}", self.base, since(self.pulled_through));
        let mut request = self.client.get(&url);
        if let Some(token) = &self.tokens.read {
            request = request.bearer_auth(token.expose());
        }
        let mut response = ok(&url, request.send()).await?;
        let (mut cutter, mut reader) = (LineCutter::new(MAX_LINE_BYTES), ExportReader::default());
        let (mut batch, mut report) = (MergeBatch::default(), MergeReport::default());
        loop {
            let part = tokio::time::timeout(RESPONSE_TIMEOUT, response.next()).await;
            let part = part.map_err(|error| failed(&url, error))?.transpose();
            let part = part.map_err(|error| failed(&url, error))?;
            let mut lines = Vec::new();
            match &part {
                Some(part) => cutter.feed(part, &mut |line| lines.push(line)),
                None => cutter.finish(&mut |line| lines.push(line)),
            }
            for Line { number, text } in lines {
                let entry = text
                    .map_err(|error| error.to_string())
                    .and_then(|text| reader.entry(&text))
                    .map_err(|detail| failed(&url, format!("line {number}: {detail}")))?;
                if let Some(entry) = entry {
                    batch.add(entry);
                }
                if batch.is_full() {
                    report = self.merge(std::mem::take(&mut batch), report).await?;
                }
            }
            if part.is_none() {
                break;
            }
        }
        report = self.merge(batch, report).await?;
        let header = reader.header().ok_or_else(|| failed(&url, "the export is empty"))?;
        self.pulled_through = Some(header.through);
        Ok(report)
    }

    /// Merges a batch here.
    async fn merge(&self, batch: MergeBatch, report: MergeReport) -> Result<MergeReport, String> {
        let store = self.store.clone();
        let merge = move || {
            let mut report = report;
            if !batch.is_empty() {
                batch.merge(&store, false, &mut report)?;
            }
            Ok(report)
        };
        let merged = actix_web::rt::task::spawn_blocking(merge).await;
        merged.unwrap_or(Err(StoreError::BrokenOff)).map_err(|error| error.to_string())
    }

    /// Gives the service what has changed here since the last push.
    pub(crate) async fn push(&mut self) -> Result<MergeReport, String> {
        let url = format!("{}/merge", self.base);
        let query = ExportQuery { since: self.pushed_through, ..ExportQuery::default() };
        let mut exporter = Exporter::new(self.store.clone(), query);
        // The first lines are the header.
        let (header, first) = read(&mut exporter)?;
        let rest = stream::unfold(Some(exporter), async |exporter| {
            let mut exporter = exporter?;
            let read = move || exporter.next_text().map(|text| (exporter, text));
            let read = actix_web::rt::task::spawn_blocking(read).await;
            match read.unwrap_or(Err(StoreError::BrokenOff)) {
                Ok((exporter, text)) => text.map(|text| (Ok(text.into()), Some(exporter))),
                // The request breaks off.
                Err(error) => Some((Err(error), None)),
            }
        });
        let body = stream::once(async { Ok::<Bytes, StoreError>(first) }).chain(rest);
        let mut request =
            self.client.post(&url).insert_header((header::CONTENT_TYPE, "application/x-ndjson"));
        if let Some(token) = &self.tokens.write {
            request = request.bearer_auth(token.expose());
        }
        let mut response = ok(&url, request.send_stream(Box::pin(body))).await?;
        let body = response.body().limit(MAX_RESPONSE_BYTES);
        let body = tokio::time::timeout(RESPONSE_TIMEOUT, body).await;
        let body = body.map_err(|error| failed(&url, error))?;
        let body = body.map_err(|error| failed(&url, error))?;
        let merged: MergeResponse =
            serde_json::from_slice(&body).map_err(|error| failed(&url, error))?;
        self.pushed_through = Some(header.through);
        Ok(merged.into())
    }
}

impl From<MergeResponse> for MergeReport {
    fn from(merged: MergeResponse) -> Self {
        let MergeResponse { rockets, changed, gained, conflicts } = merged;
        let conflict = |ConflictJson { channel, first, last, detail }| ChannelConflict {
            channel,
            first,
            last,
            detail,
        };
        let conflict_count = conflicts.len() as u64;
        let conflicts = conflicts.into_iter().map(conflict).collect();
        Self { rockets, changed, gained, conflicts, conflict_count }
    }
}

/// The header of an export, and its text.
fn read(exporter: &mut Exporter) -> Result<(ExportHeader, Bytes), String> {
    let lines = exporter.next().map_err(|error| error.to_string())?;
    let Some([line @ ExportLine::Header(header)]) = lines.as_deref() else {
        unreachable!("an export begins with its header")
    };
    let mut text = Vec::new();
    line.write(&mut text);
    Ok((*header, text.into()))
}

fn since(through: Option<Timestamp>) -> String {
    through.map_or_else(String::new, |through| format!("?since={through}"))
}

fn failed(url: &str, error: impl std::fmt::Display) -> String {
    format!("{url}: {}", Escaped(error.to_string()))
}

/// The response to a request, if it is 200.
async fn ok<S>(
    url: &str,
    request: impl Future<Output = Result<awc::ClientResponse<S>, awc::error::SendRequestError>>,
) -> Result<awc::ClientResponse<S>, String>
where
    S: futures_util::Stream<Item = Result<Bytes, awc::error::PayloadError>> + Unpin,
{
    let response = request.await;
    let mut response = response.map_err(|error| failed(url, error))?;
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(response);
    }
    let body = response.body().limit(MAX_RESPONSE_BYTES);
    let body = tokio::time::timeout(RESPONSE_TIMEOUT, body).await.ok().and_then(Result::ok);
    let body = body.unwrap_or_default();
    let shown = &body[..body.len().min(MAX_SHOWN_BYTES)];
    Err(failed(url, format!("{status} {}", String::from_utf8_lossy(shown))))
}
