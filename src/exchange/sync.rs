//! Exchanges with another service what either lacks.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::Deserialize;

use super::{ChannelConflict, ExportReader, Exporter, MergeBatch, MergeReport};
use crate::client::{RequestError, ServiceClient};
use crate::domain::timestamp::Timestamp;
use crate::store::merge::ExportQuery;
use crate::store::{Store, StoreError};
use crate::wire::export::{ExportHeader, ExportLine};

/// Two databases that are kept equal: one here, and one behind a service. It must be used inside an
/// actix system.
pub(crate) struct Sync {
    service: ServiceClient,
    store: Store,
    /// What the next exports begin with: none for the first ones, which are whole.
    pulled_through: Option<Timestamp>,
    pushed_through: Option<Timestamp>,
}

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SyncError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Store(#[from] StoreError),
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
    pub(crate) fn new(service: ServiceClient, store: Store) -> Self {
        Self { service, store, pulled_through: None, pushed_through: None }
    }

    /// Takes from the service what has changed there since the last pull.
    pub(crate) async fn pull(&mut self) -> Result<MergeReport, SyncError> {
        let path = match self.pulled_through {
            Some(through) => format!("/export?since={through}"),
            None => "/export".to_owned(),
        };
        let mut response = self.service.get(&path).await?;
        let mut reader = ExportReader::default();
        let (mut batch, mut report) = (MergeBatch::default(), MergeReport::default());
        loop {
            let part = response.next_part().await?;
            let mut entries = Vec::new();
            let result = reader.read(part.as_ref(), &mut entries);
            for entry in entries {
                batch.add(entry);
                if batch.is_full() {
                    report = self.merge(std::mem::take(&mut batch), report).await?;
                }
            }
            result.map_err(|error| response.unusable(error))?;
            if part.is_none() {
                break;
            }
        }
        report = self.merge(batch, report).await?;
        self.pulled_through = Some(reader.header().through);
        Ok(report)
    }

    /// Merges a batch here.
    async fn merge(
        &self,
        batch: MergeBatch,
        mut report: MergeReport,
    ) -> Result<MergeReport, StoreError> {
        if batch.is_empty() {
            return Ok(report);
        }
        let store = self.store.clone();
        let merge = move || batch.merge(&store, false, &mut report).map(|_| report);
        let merged = actix_web::rt::task::spawn_blocking(merge).await;
        merged.unwrap_or(Err(StoreError::BrokenOff))
    }

    /// Gives the service what has changed here since the last push.
    pub(crate) async fn push(&mut self) -> Result<MergeReport, SyncError> {
        let query = ExportQuery { since: self.pushed_through, ..ExportQuery::default() };
        let mut exporter = Exporter::new(self.store.clone(), query);
        let (header, first) = read_header(&mut exporter)?;
        let rest = stream::unfold(Some(exporter), async |exporter| {
            let mut exporter = exporter?;
            let read = move || exporter.next_text().map(|text| (exporter, text));
            let read = actix_web::rt::task::spawn_blocking(read).await;
            match read.unwrap_or(Err(StoreError::BrokenOff)) {
                Ok((exporter, text)) => text.map(|text| (Ok(text.into()), Some(exporter))),
                Err(error) => Some((Err(error), None)),
            }
        });
        let lines = stream::once(async { Ok::<Bytes, StoreError>(first) }).chain(rest);
        let response = self.service.post_stream("/merge", lines).await?;
        let merged: MergeResponse = response.json().await?;
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
fn read_header(exporter: &mut Exporter) -> Result<(ExportHeader, Bytes), StoreError> {
    let lines = exporter.next()?;
    let Some([line @ ExportLine::Header(header)]) = lines.as_deref() else {
        unreachable!("an export begins with its header")
    };
    let mut text = Vec::new();
    line.write(&mut text);
    Ok((*header, text.into()))
}
