//! The buckets of a database: the parts of the fleet that a cluster distributes over its nodes.
//!
//! A database on a single server has one bucket. All rows of a channel are in one bucket, so that a
//! batch for one bucket is one transaction on one node.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::domain::text::Channel;
use crate::store::StoreError;

/// The key of the advisory lock that sessions share while the database has one bucket, so that it
/// is not divided meanwhile: "buckets!" in ASCII, plus the object identifier of the schema.
const LOCK: i64 = 0x6275_636b_6574_7321;

/// The object identifier of the tables' schema.
const SCHEMA: &str =
    "(SELECT relnamespace::bigint FROM pg_class WHERE oid = to_regclass('rocket_buckets'))";

/// The buckets of a database, in ascending order. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Buckets(Arc<[i16]>);

impl Buckets {
    /// Reads them from the database.
    pub(super) async fn read(connection: &mut PgConnection) -> Result<Self, StoreError> {
        let sql = "SELECT bucket FROM rocket_buckets ORDER BY bucket";
        let buckets: Vec<i16> = sqlx::query_scalar(sql).fetch_all(connection).await?;
        // The 256 hash values are divided equally among the buckets.
        if buckets.is_empty() || 256 % buckets.len() != 0 {
            return Err(StoreError::Damaged(format!("rocket_buckets has {} rows", buckets.len())));
        }
        Ok(Self(buckets.into()))
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether there are several, so that their rows may be on different nodes.
    pub(super) fn are_several(&self) -> bool {
        self.count() > 1
    }

    pub(super) fn all(&self) -> &[i16] {
        &self.0
    }

    /// The index of a channel's bucket.
    pub(super) fn index_of(&self, channel: &str) -> usize {
        if self.are_several() { hash(channel) % self.count() } else { 0 }
    }

    pub(super) fn of(&self, channel: &Channel) -> i16 {
        self.at(self.index_of(channel.as_str()))
    }

    /// The bucket at this index, which must be below their number.
    pub(super) fn at(&self, index: usize) -> i16 {
        let Some(bucket) = self.0.get(index) else {
            unreachable!("there are {} buckets, and none has the index {index}", self.count());
        };
        *bucket
    }

    /// Checks that the database still has these buckets, and locks them as long as this connection
    /// is open.
    pub(super) async fn lock(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        // Buckets are only divided where there is one.
        if self.are_several() {
            return Ok(());
        }
        let lock = format!("SELECT pg_try_advisory_lock_shared($1 + {SCHEMA})");
        if !sqlx::query_scalar(AssertSqlSafe(lock)).bind(LOCK).fetch_one(&mut *connection).await? {
            return Err(StoreError::Divided("the tables are being distributed over a cluster"));
        }
        // Another statement, so that it sees all commits before the lock was taken.
        if Self::read(connection).await? != *self {
            return Err(StoreError::Divided(
                "the tables have been distributed over a cluster since this program opened them; \
                 restart it",
            ));
        }
        Ok(())
    }
}

/// Takes the lock for dividing the buckets, if no other connection shares it.
pub(super) async fn try_lock(connection: &mut PgConnection) -> Result<bool, StoreError> {
    let lock = format!("SELECT pg_try_advisory_lock($1 + {SCHEMA})");
    Ok(sqlx::query_scalar(AssertSqlSafe(lock)).bind(LOCK).fetch_one(connection).await?)
}

/// The first byte of SHA-256. Postgres can compute it, too ([`SQL_HASH`]).
fn hash(channel: &str) -> usize {
    Sha256::digest(channel.as_bytes())[0].into()
}

/// [`hash`] in SQL.
pub(super) const SQL_HASH: &str = "get_byte(sha256(convert_to(channel, 'UTF8')), 0)";
