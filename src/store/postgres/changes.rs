//! Finds changes: the current rows of rockets, and the notifications that instances send each other
//! with `NOTIFY`.
//!
//! An instance notifies after its commits, over a separate connection and for many commits at once:
//! a transaction with a `NOTIFY` waits for all others with one in the database. A notification has
//! channels, not rows: the receiver reads the rows.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::postgres::{PgArguments, PgListener, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Executor, PgPool, Row};

use super::buckets::Buckets;
use super::read::SNAPSHOT;
use super::{PostgresStore, cluster, losses, session};
use crate::domain::rocket::Rocket;
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
use crate::store::changes::{ChangeHint, ChangeHints, Fingerprints, Notified, ScanProgress};
use crate::store::fault_injection::FailurePoint;
use crate::store::rows::{self, ROCKET_COLUMNS};
use crate::store::{ChangeScan, StoreError, Watch};

/// A listener that receives nothing for this long tests its connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum size of the hints in a notification, which may have at most 8,000 bytes.
const MAX_HINT_BYTES: usize = 7_000;
/// If there would be more notifications than this at a time, a single unspecified one is sent.
const MAX_NOTIFICATIONS: usize = 64;

/// A notification.
#[derive(Debug, Serialize, Deserialize)]
struct Notification {
    /// The sending instance, which ignores its own notifications.
    from: u64,
    /// The rockets that it has changed; none for unspecified changes.
    hints: Option<Vec<(String, ChangeHint)>>,
}

/// The notification channel of the instances that use the tables in a schema, named after the
/// schema, because channel names are shared by the whole database. Each node of a cluster has other
/// object identifiers.
pub(super) fn channel(schema: &str) -> String {
    // A name may have only 63 bytes.
    let hash: String =
        Sha256::digest(schema).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("rocket_monitor_{hash}")
}

impl PostgresStore {
    /// See [`Store::rockets_of`](crate::store::Store::rockets_of).
    pub async fn rockets_of(&self, channels: &[Channel]) -> Result<Vec<Rocket>, StoreError> {
        self.failures.check(FailurePoint::BeforeReadOfChanges)?;
        let buckets: BTreeSet<i16> =
            channels.iter().map(|channel| self.buckets.of(channel)).collect();
        let buckets: Vec<i16> = buckets.into_iter().collect();
        let channels: Vec<String> =
            channels.iter().map(|channel| channel.as_str().to_owned()).collect();
        let all_buckets = self.buckets.clone();
        self.run(move |pool| async move {
            let sql = format!(
                "SELECT {ROCKET_COLUMNS} FROM rockets WHERE channel = ANY($1) AND bucket = ANY($2)"
            );
            let found = sqlx::query(AssertSqlSafe(sql)).bind(channels).bind(buckets);
            rockets(&pool, &all_buckets, found).await
        })
        .await
    }

    /// See [`Store::change_scan`](crate::store::Store::change_scan).
    pub async fn change_scan(&self) -> Result<ChangeScan, StoreError> {
        let since = self.oldest_transaction().await?;
        let mut scan =
            PostgresScan { store: self.clone(), since, position: None, fingerprints: None };
        if self.buckets.are_several() {
            scan.fingerprints = Some(Fingerprints::default());
            // The current state of all rockets is the baseline.
            while !matches!(scan.next().await?, ScanProgress::Done) {}
        }
        Ok(ChangeScan::Postgres(scan))
    }

    /// The oldest transaction that is still running. Everything that earlier ones changed is
    /// visible now.
    async fn oldest_transaction(&self) -> Result<i64, StoreError> {
        self.run(|pool| async move {
            let sql = "SELECT txid_snapshot_xmin(txid_current_snapshot())";
            Ok(sqlx::query(sql).fetch_one(&pool).await?.try_get(0)?)
        })
        .await
    }

    /// See [`Store::forgotten`](crate::store::Store::forgotten).
    pub async fn forgotten(&self) -> Result<Vec<(Channel, Timestamp)>, StoreError> {
        self.run(move |pool| async move {
            let found = sqlx::query("SELECT channel, forgotten_at FROM rockets_forgotten")
                .fetch_all(&pool)
                .await?;
            found.iter().map(|row| Ok((rows::channel(row, 0)?, rows::time(row, 1)?))).collect()
        })
        .await
    }

    /// See [`Notifier::notify`](crate::store::Notifier::notify).
    pub async fn notify(&self, hints: Option<&ChangeHints>) -> Result<(), StoreError> {
        let (name, payloads) = (Arc::clone(&self.notifications), payloads(self.instance, hints));
        let is_distributed = self.is_distributed;
        self.run(move |pool| async move { notify(&pool, is_distributed, &name, &payloads).await })
            .await
    }

    /// See [`Notifier::notify_blocking`](crate::store::Notifier::notify_blocking).
    pub fn notify_blocking(&self, hints: Option<&ChangeHints>) -> Result<(), StoreError> {
        let runtime = self.runtime.0.as_ref().ok_or(StoreError::BrokenOff)?;
        let payloads = payloads(self.instance, hints);
        let notified = notify(&self.pool, self.is_distributed, &self.notifications, &payloads);
        runtime.block_on(session::within(self.url.patience(), notified))
    }

    /// See [`Store::watch`](crate::store::Store::watch).
    pub async fn watch(&self) -> Result<Watch, StoreError> {
        let mut listener =
            PgListener::connect_with(&super::pool(&self.url, &self.buckets, 1)).await?;
        let listening = async { Ok(listener.listen(&self.notifications).await?) };
        session::within(self.url.patience(), listening).await?;
        Ok(Watch::Postgres(Box::new(PostgresWatch { instance: self.instance, listener })))
    }
}

async fn notify(
    pool: &PgPool,
    is_distributed: bool,
    name: &str,
    payloads: &[String],
) -> Result<(), StoreError> {
    if is_distributed {
        return cluster::notify(pool, name, payloads).await;
    }
    sqlx::query("SELECT pg_notify($1, payload) FROM unnest($2) AS notifications (payload)")
        .bind(name)
        .bind(payloads)
        .execute(pool)
        .await?;
    Ok(())
}

/// Reads the rockets that a statement selects, from one snapshot with their losses.
async fn rockets(
    pool: &PgPool,
    buckets: &Buckets,
    selected: Query<'_, Postgres, PgArguments>,
) -> Result<Vec<Rocket>, StoreError> {
    let mut snapshot = pool.begin_with(SNAPSHOT).await?;
    let found = selected.fetch_all(&mut *snapshot).await?;
    let mut rockets: Vec<_> = found.iter().map(rows::rocket).collect::<Result<_, _>>()?;
    losses::add_losses(&mut snapshot, buckets, &mut rockets).await?;
    snapshot.commit().await?;
    Ok(rockets)
}

/// The payloads of the notifications of some changes; a single unspecified one if the changes are
/// unspecified or too many.
fn payloads(from: u64, hints: Option<&ChangeHints>) -> Vec<String> {
    let unspecified = || vec![payload(from, None)];
    let Some(hints) = hints else { return unspecified() };
    let mut payloads = Vec::new();
    let (mut part, mut bytes) = (Vec::new(), 0);
    for (channel, hint) in hints {
        let size = json(&(channel.as_str(), hint)).len() + 1;
        if bytes + size > MAX_HINT_BYTES {
            payloads.push(payload(from, Some(std::mem::take(&mut part))));
            bytes = 0;
        }
        bytes += size;
        part.push((channel.as_str().to_owned(), *hint));
    }
    payloads.push(payload(from, Some(part)));
    if payloads.len() > MAX_NOTIFICATIONS { unspecified() } else { payloads }
}

fn payload(from: u64, hints: Option<Vec<(String, ChangeHint)>>) -> String {
    json(&Notification { from, hints })
}

fn json(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value);
    json.unwrap_or_else(|error| unreachable!("texts, numbers and flags are JSON: {error}"))
}

/// The lowest number of a normal transaction.
const FIRST_TRANSACTION: i64 = 3;
/// How many rockets are read at a time.
const SCAN_CHUNK: i64 = 512;

/// Finds changed rockets by the transactions that wrote their rows, which the server numbers for
/// all clients.
///
/// It reads rows again that were written by a transaction that was running at the previous scan. So
/// it misses no row, but finds some twice.
///
/// Each node of a cluster numbers its own transactions. There, the scan compares fingerprints of
/// the rows.
#[derive(Debug)]
pub struct PostgresScan {
    store: PostgresStore,
    /// All earlier transactions have been scanned. A 64-bit number; rows have its lower 32 bits.
    since: i64,
    /// Where the scan continues; none between two scans.
    position: Option<ScanPosition>,
    /// Used instead of transactions on a cluster.
    fingerprints: Option<Fingerprints>,
}

#[derive(Debug)]
struct ScanPosition {
    /// Everything before this transaction is scanned at the end of this scan.
    through: i64,
    /// The index of the bucket that is being read, and the last channel that was read there.
    bucket: usize,
    after: String,
}

/// How many transactions a scan goes back after a failure. A server that has crashed gives numbers
/// of transactions again that it had given and not yet written to its log, of at most the last
/// seconds.
const REWOUND_TRANSACTIONS: i64 = 1_000;

impl PostgresScan {
    /// See [`ChangeScan::rewind`].
    pub(in crate::store) fn rewind(&mut self) {
        self.since = (self.since - REWOUND_TRANSACTIONS).max(FIRST_TRANSACTION);
        self.position = None;
    }

    pub(in crate::store) async fn next(&mut self) -> Result<ScanProgress, StoreError> {
        let ScanPosition { through, bucket, after } = match self.position.take() {
            Some(position) => position,
            None => ScanPosition {
                through: self.store.oldest_transaction().await?,
                bucket: 0,
                after: String::new(),
            },
        };
        let since = self.fingerprints.is_none().then_some(self.since);
        let mut rockets = match self.store.buckets.all().get(bucket) {
            Some(&bucket) => self.store.written_since(since, bucket, after).await?,
            None => {
                self.since = through;
                return Ok(ScanProgress::Done);
            }
        };
        match rockets.last() {
            Some(last) => {
                self.position =
                    Some(ScanPosition { through, bucket, after: last.channel.as_str().to_owned() });
                if let Some(fingerprints) = &mut self.fingerprints {
                    rockets.retain(|rocket| {
                        let contents = format!("{rocket:?}");
                        let hash = |hasher: &mut DefaultHasher| {
                            contents.hash(hasher);
                            Ok::<(), Infallible>(())
                        };
                        fingerprints.has_changed(rocket.channel.as_str(), hash) == Ok(true)
                    });
                }
                Ok(ScanProgress::Rockets(rockets))
            }
            None => {
                self.position =
                    Some(ScanPosition { through, bucket: bucket + 1, after: String::new() });
                Ok(ScanProgress::Rockets(rockets))
            }
        }
    }
}

impl PostgresStore {
    /// The next rockets. If a transaction is given, only those whose rows it or a later one has
    /// written. The age of a row is counted in transactions.
    async fn written_since(
        &self,
        transaction: Option<i64>,
        bucket: i16,
        after: String,
    ) -> Result<Vec<Rocket>, StoreError> {
        let buckets = self.buckets.clone();
        self.run(move |pool| async move {
            let condition = if transaction.is_some() {
                "age(xmin) BETWEEN 0 AND age($4::text::xid)"
            } else {
                "true"
            };
            let sql = format!(
                "SELECT {ROCKET_COLUMNS} FROM rockets
                 WHERE channel > $1 AND bucket = $3 AND {condition} ORDER BY channel LIMIT $2"
            );
            let found = sqlx::query(AssertSqlSafe(sql)).bind(after).bind(SCAN_CHUNK).bind(bucket);
            let found = match transaction {
                Some(transaction) => found.bind((transaction & i64::from(u32::MAX)).to_string()),
                None => found,
            };
            rockets(&pool, &buckets, found).await
        })
        .await
    }
}

/// Receives the notifications of other instances.
#[derive(Debug)]
pub struct PostgresWatch {
    instance: u64,
    listener: PgListener,
}

impl PostgresWatch {
    pub(in crate::store) async fn recv(&mut self) -> Result<Notified, StoreError> {
        loop {
            let Ok(received) = tokio::time::timeout(IDLE_TIMEOUT, self.listener.try_recv()).await
            else {
                let ping = async { Ok(self.listener.execute("SELECT 1").await.map(|_| ())?) };
                session::within(IDLE_TIMEOUT, ping).await?;
                continue;
            };
            // The connection was lost, so notifications may have been missed.
            let Some(notification) = received? else {
                return Ok(Notified::Unspecified);
            };
            match serde_json::from_str(notification.payload()) {
                Ok(Notification { from, .. }) if from == self.instance => {}
                Ok(Notification { hints: Some(hints), .. }) => {
                    let hints = hints.into_iter().filter_map(|(channel, hint)| {
                        let hint = ChangeHint { is_foreign: true, ..hint };
                        Some((Channel::new(channel).ok()?, hint))
                    });
                    return Ok(Notified::ChangeHints(hints.collect()));
                }
                // Notifications of other versions may be unreadable.
                Ok(Notification { hints: None, .. }) | Err(_) => return Ok(Notified::Unspecified),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn notifications_have_all_hints_or_are_unspecified() {
        let hints = |count: usize| -> ChangeHints {
            (0..count)
                .map(|index| {
                    (Channel::new(format!("{index:\"<255}")).unwrap(), ChangeHint::UNKNOWN)
                })
                .collect()
        };
        for (count, expected) in [(0, Some(0)), (1, Some(1)), (500, Some(500)), (5_000, None)] {
            let payloads = payloads(7, Some(&hints(count)));
            let read: Vec<Notification> =
                payloads.iter().map(|it| serde_json::from_str(it).unwrap()).collect();
            assert!(
                payloads.iter().all(|payload| payload.len() < 8_000)
                    && read.iter().all(|it| it.from == 7)
            );
            let sum = read.iter().map(|it| it.hints.as_ref().map(Vec::len)).sum::<Option<usize>>();
            assert_eq!(sum, expected);
        }
    }
}
