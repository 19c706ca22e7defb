//! Opens a database: checks that it is ours before writing to it, then migrates it.

use std::time::Duration;

use refinery::Migration;
use refinery::error::Kind;
use refinery_core::AsyncMigrate;
use refinery_core::traits::r#async::{AsyncQuery, AsyncTransaction};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::buckets::Buckets;
use super::error::describe;
use super::migration_lock::{HISTORY, take_lock};
use super::session::within;
use super::{BEGIN_TO_WRITE, changes, cluster};
use crate::store::StoreError;
use crate::store::schema::{Decision, Found, decide, wrong_shape};

mod migrations {
    #![allow(unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::expect_used)]
    refinery::embed_migrations!("migrations/postgres");
}

/// The columns that `rockets` and `rockets_exact` have in common.
macro_rules! rockets {
    () => {
        "channel text, status text, type text, speed bigint, mission text, exploded_reason text, \
         latest_launch_msg bigint, latest_mission_msg bigint, latest_exploded_msg bigint, \
         latest_update timestamp with time zone, last_received timestamp with time zone, \
         processed bigint, complete_through bigint, highest bigint"
    };
}

/// The tables and views with their columns, after the last migration.
const SHAPE: [(&str, &str); 12] = [
    ("rocket_buckets", "bucket smallint"),
    ("rockets_forgotten", "channel text, forgotten_at timestamp with time zone, bucket smallint"),
    ("rockets_merged", "channel text, bucket smallint, merged_at timestamp with time zone"),
    ("rockets", concat!(rockets!(), ", bucket smallint")),
    ("rockets_exact", concat!(rockets!(), ", exact_through bigint, bucket smallint")),
    (
        "processed_ranges",
        "channel text, first_msg bigint, last_msg bigint, speed_change bigint, launch_msg bigint, \
         launch_type text, mission_msg bigint, mission text, exploded_msg bigint, exploded_reason \
         text, latest_time timestamp with time zone, bucket smallint, first_received timestamp \
         with time zone, speed_blocks bytea",
    ),
    (
        "losses",
        "channel text, bucket smallint, first_msg bigint, last_msg bigint, reason text, \
         declared_at timestamp with time zone",
    ),
    (
        "gaps",
        "channel text, first_missing bigint, last_missing bigint, after_time timestamp with time \
         zone, since timestamp with time zone, lost bigint",
    ),
    (
        "report_missions",
        "mission text, rockets bigint, launched bigint, exploded bigint, mean_speed double \
         precision, max_speed bigint",
    ),
    (
        "report_types",
        "type text, rockets bigint, launched bigint, exploded bigint, mean_speed double precision, \
         max_speed bigint",
    ),
    ("report_explosions", "reason text, rockets bigint, latest_update timestamp with time zone"),
    (
        "report_fleet",
        "rockets bigint, awaiting_launch bigint, launched bigint, exploded bigint, processed \
         bigint, missing bigint, rockets_with_gaps bigint, latest_update timestamp with time zone",
    ),
];

/// The result of opening a database.
#[derive(Debug)]
pub(super) enum OpenResult {
    /// It is not a database of this program. The text says why.
    Refused(String),
    /// It has the current schema.
    Opened {
        /// The parts of the fleet.
        buckets: Buckets,
        /// The notification channel of the instances on the same tables.
        notifications: String,
        /// The tables are distributed over the nodes of a Citus cluster.
        is_distributed: bool,
    },
}

/// Migrates the database to the current schema, or returns why it is not a database of this
/// program. An advisory lock excludes other processes that do this. Everything but migrations has a
/// timeout.
pub(super) async fn open(
    connection: &mut PgConnection,
    migrate: bool,
    patience: Duration,
) -> Result<OpenResult, StoreError> {
    if let Some(reason) = within(patience, unfit_server(connection)).await? {
        return Ok(OpenResult::Refused(reason));
    }
    take_lock(connection, patience).await?;
    let found = within(patience, inspect(connection)).await?;
    match decide(found, latest(), migrate) {
        Decision::Refuse(reason) => return Ok(OpenResult::Refused(reason)),
        Decision::Open => {}
        Decision::Migrate => run_migrations(connection).await?,
    }
    within(patience, async {
        sqlx::query("SELECT pg_advisory_unlock_all()").execute(&mut *connection).await?;
        if let Some(difference) = first_difference(connection).await? {
            return Ok(OpenResult::Refused(wrong_shape(&difference)));
        }
        let sql = "SELECT nspname::text FROM pg_class JOIN pg_namespace ON pg_namespace.oid =
                   relnamespace
                   WHERE pg_class.oid = to_regclass('rockets')";
        let schema: String = sqlx::query_scalar(sql).fetch_one(&mut *connection).await?;
        Ok(OpenResult::Opened {
            buckets: Buckets::read(connection).await?,
            notifications: changes::channel(&schema),
            is_distributed: cluster::is_distributed(connection).await?,
        })
    })
    .await
}

/// Why this server can't be used; none if it can.
async fn unfit_server(connection: &mut PgConnection) -> Result<Option<String>, StoreError> {
    let settings = "SELECT current_setting('server_encoding'), \
                    current_setting('synchronous_commit'), current_schema()";
    let row = sqlx::query(settings).fetch_one(connection).await?;
    let (encoding, synchronous): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
    if synchronous == "off" {
        tracing::warn!(
            "synchronous_commit is off: an acknowledged message may be lost when the server crashes"
        );
    }
    if encoding != "UTF8" {
        let reason = "which can't hold every message; create it with ENCODING 'UTF8'";
        return Ok(Some(format!("its encoding is {encoding}, {reason}")));
    }
    let schema: Option<&str> = row.try_get(2)?;
    Ok(schema.is_none().then(|| {
        "it has none of the schemas in its search_path; create one with CREATE SCHEMA".to_owned()
    }))
}

async fn inspect(connection: &mut PgConnection) -> Result<Found, StoreError> {
    Ok(match version(connection).await? {
        Some(version) => Found::Version(version),
        None => match first_of_our_names(connection).await? {
            Some(name) => Found::Foreign(format!(
                "it has a {name} that this program did not create; give another database, or \
                 another schema with ?options=-csearch_path%3DNAME"
            )),
            None => Found::Nothing,
        },
    })
}

/// The number of the last migration.
#[expect(clippy::expect_used, reason = "the migrations are embedded in the program")]
fn latest() -> i64 {
    let runner = migrations::migrations::runner();
    let versions = runner.get_migrations().iter().map(|migration| i64::from(migration.version()));
    versions.max().expect("the program has migrations")
}

/// The number of the last applied migration; none if none was applied.
pub(super) async fn version(connection: &mut PgConnection) -> Result<Option<i64>, StoreError> {
    let exists = sqlx::query("SELECT to_regclass($1) IS NOT NULL")
        .bind(HISTORY)
        .fetch_one(&mut *connection)
        .await?;
    if !exists.try_get::<bool, _>(0)? {
        return Ok(None);
    }
    let sql = format!("SELECT max(version)::bigint FROM {HISTORY}");
    Ok(sqlx::query(AssertSqlSafe(sql)).fetch_one(connection).await?.try_get(0)?)
}

async fn first_of_our_names(
    connection: &mut PgConnection,
) -> Result<Option<&'static str>, StoreError> {
    for (name, _) in SHAPE {
        if !columns(connection, name).await?.is_empty() {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

async fn first_difference(connection: &mut PgConnection) -> Result<Option<String>, StoreError> {
    for (name, expected) in SHAPE {
        let actual = columns(connection, name).await?;
        if actual.is_empty() {
            return Ok(Some(format!("the table or view {name} is missing")));
        }
        if actual != expected {
            return Ok(Some(format!("{name} has the columns {actual}, not {expected}")));
        }
    }
    Ok(None)
}

/// The columns of a table or view with their types; empty if it doesn't exist.
async fn columns(connection: &mut PgConnection, name: &str) -> Result<String, StoreError> {
    let sql =
        "SELECT coalesce(string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER
         BY attnum), '')
               FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT
               attisdropped";
    Ok(sqlx::query(sql).bind(name).fetch_one(connection).await?.try_get(0)?)
}

async fn run_migrations(connection: &mut PgConnection) -> Result<(), StoreError> {
    // New tables belong into the schema of the existing ones, not into another one that comes first
    // in the search path.
    let set_schema = "SELECT set_config('search_path', quote_ident(nspname), false)
                FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
                WHERE pg_class.oid = to_regclass($1)";
    sqlx::query(set_schema).bind(HISTORY).execute(&mut *connection).await?;
    // On a cluster, one transaction changes several tables and views, each on all nodes. Elsewhere
    // the setting has no meaning.
    sqlx::query("SET citus.multi_shard_modify_mode TO 'sequential'")
        .execute(&mut *connection)
        .await?;
    let mut runner = migrations::migrations::runner().set_grouped(true);
    runner.set_migration_table_name(HISTORY);
    let migrated = runner.run_async(&mut Migrator(connection)).await;
    migrated.map(|_| ()).map_err(|error| match error.kind() {
        Kind::Connection(what, source) => match source.downcast_ref::<sqlx::Error>() {
            Some(source) => StoreError::Migration(format!("{what}: {}", describe(source))),
            None => StoreError::Migration(error.to_string()),
        },
        _ => StoreError::Migration(error.to_string()),
    })
}

/// Runs refinery's statements, each call in its own transaction.
struct Migrator<'c>(&'c mut PgConnection);

impl AsyncTransaction for Migrator<'_> {
    type Error = sqlx::Error;

    async fn execute<'a, T: Iterator<Item = &'a str> + Send + 'a>(
        &'a mut self,
        queries: T,
    ) -> Result<usize, Self::Error> {
        let mut transaction = self.0.begin_with(BEGIN_TO_WRITE).await?;
        let mut count = 0;
        for statement in queries.flat_map(statements) {
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *transaction).await?;
            count += 1;
        }
        transaction.commit().await?;
        Ok(count)
    }
}

/// The statements of a migration, one by one: Citus passes the whole text on to the other nodes,
/// which take only one statement at a time. A statement ends with a line that ends with a
/// semicolon.
fn statements(sql: &str) -> Vec<&str> {
    let (mut statements, mut rest, mut end, mut is_quoted) = (Vec::new(), sql, 0, false);
    for line in sql.split_inclusive('\n') {
        end += line.len();
        is_quoted ^= line.matches("$$").count() % 2 == 1;
        let is_comment = line.trim_start().starts_with("--");
        if line.trim_end().ends_with(';') && !is_comment && !is_quoted {
            let (statement, others) = rest.split_at(end);
            statements.push(statement);
            (rest, end) = (others, 0);
        }
    }
    if !rest.trim().is_empty() {
        statements.push(rest);
    }
    statements
}

impl AsyncQuery<Vec<Migration>> for Migrator<'_> {
    async fn query<'a>(&'a mut self, query: &'a str) -> Result<Vec<Migration>, Self::Error> {
        let rows = sqlx::query(AssertSqlSafe(query)).fetch_all(&mut *self.0).await?;
        rows.iter().map(applied_migration).collect()
    }
}

fn applied_migration(row: &sqlx::postgres::PgRow) -> Result<Migration, sqlx::Error> {
    let undecodable = |error: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Decode(error);
    let applied_on = OffsetDateTime::parse(row.try_get(2)?, &Rfc3339)
        .map_err(|error| undecodable(error.into()))?;
    let checksum = row
        .try_get::<&str, _>(3)?
        .parse()
        .map_err(|error: std::num::ParseIntError| undecodable(error.into()))?;
    Ok(Migration::applied(row.try_get(0)?, row.try_get(1)?, applied_on, checksum))
}

impl AsyncMigrate for Migrator<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_is_run_statement_by_statement() {
        let sql = "-- One;\nCREATE TABLE a (\n    b int);\nDO $$\nBEGIN\n    SELECT \
                   1;\nEND\n$$;\n\nSELECT 2";
        let expected = [
            "-- One;\nCREATE TABLE a (\n    b int);\n",
            "DO $$\nBEGIN\n    SELECT 1;\nEND\n$$;\n",
            "\nSELECT 2",
        ];
        assert_eq!(statements(sql), expected);
    }
}
