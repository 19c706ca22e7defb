//! Databases created by earlier versions (in `tests/upgrade`, as SQL), and interrupted migrations.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use testkit::client::{Client, rocket};
use testkit::message::{Event, Sent, faster};
use testkit::oracle::Oracle;
use testkit::process::{Service, program, run, stdout};
use testkit::sqlite::{query, sql};
use testkit::wait::eventually;
use testkit::{faults, postgres};

/// A backend's last migration, and a sign of it: a new table, or a table with a setting.
struct Latest {
    backend: &'static str,
    version: u64,
    sign: &'static str,
}

const SQLITE: Latest = Latest { backend: "sqlite", version: 7, sign: "rockets_merged" };
const POSTGRES: Latest = Latest { backend: "postgres", version: 6, sign: "rockets_merged" };

fn fixture(backend: &str, version: u64) -> String {
    let path = format!("{}/tests/upgrade/{backend}-v{version}.sql", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!(
            "{path}: {error}; before a migration is added, the database of `fleet` is dumped \
             with the one before it"
        )
    })
}

/// What was ingested into each of them.
fn fleet() -> Vec<Sent> {
    let message = |index: u32| {
        let number = index / 7 + 1;
        let event = match number % 5 {
            0 => Event::Faster(number as i32),
            1 => Event::Launched(format!("T{number}"), 500, format!("M{number}")),
            2 => Event::Mission(format!("é{number}")),
            3 => Event::Slower(3 * number as i32),
            _ => Event::Exploded(format!("R{number}")),
        };
        Sent { channel: format!("c{}", index % 7), number, micros: index * 7 + number, event }
    };
    (0..300_u32).filter(|index| index * index % 11 != 3).map(message).collect()
}

#[test]
fn there_is_a_database_of_every_earlier_version() {
    let count = |backend: &str| {
        let migrations = format!("{}/migrations/{backend}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_dir(migrations).unwrap().count() as u64
    };
    for Latest { backend, version: latest, .. } in [SQLITE, POSTGRES] {
        assert_eq!(
            count(backend),
            latest,
            "{backend}: there is a new migration, and the latest here is an old one"
        );
        for version in 1..latest {
            fixture(backend, version);
        }
    }
}

/// Asserts that the database can be migrated and checked, has the same contents, and accepts
/// messages.
fn is_as_good_as_new(database: &str, latest: &Latest) {
    let migrated = stdout(&run(&["migrate", "--database", database]));
    assert!(
        migrated.contains(&format!("schema version {}, up to date", latest.version)),
        "{migrated}"
    );
    let checked = run(&["check", "--database", database]);
    assert_eq!(checked.status.code(), Some(0), "{}", stdout(&checked));
    let service = Service::start(database);
    let mut client = Client::new(service.address);
    let oracle = Oracle::of(&fleet());
    for channel in oracle.channels() {
        assert_eq!(rocket(&mut client, channel, "best-effort"), oracle.rocket(channel, false));
        assert_eq!(rocket(&mut client, channel, "exact"), oracle.rocket(channel, true));
    }
    assert_eq!(client.post(&fleet()[0].json()).header("idempotent-replayed"), Some("true"));
    assert_eq!(client.post(&faster("new", 1, 1)).status, 204);
    assert_eq!(client.get("/rockets?channel=new").json()["rockets"][0]["speed"], 1);
}

#[test]
fn an_sqlite_file_of_every_earlier_version_is_brought_up_to_date() {
    for version in 1..SQLITE.version {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rockets.db");
        sql(&path, &fixture("sqlite", version));
        is_as_good_as_new(path.to_str().unwrap(), &SQLITE);
    }
}

#[test]
fn a_postgres_database_of_every_earlier_version_is_brought_up_to_date() {
    for version in 1..POSTGRES.version {
        let database = postgres::TestDatabase::create();
        postgres::execute(&database.url, &fixture("postgres", version));
        is_as_good_as_new(&database.url, &POSTGRES);
        let indexes = "SELECT count(*) AS n FROM pg_indexes WHERE tablename = 'processed_ranges'";
        assert_eq!(
            postgres::query(&database.url, indexes)[0]["n"],
            1,
            "only that of the primary key"
        );
    }
}

/// Kills `migrate` at a random moment of its duration.
fn interrupt(database: &str, takes: Duration, random: &mut StdRng) {
    let mut migrate = program(&["migrate", "--database", database])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(takes.mul_f64(random.random_range(0.0..1.2)));
    // It may have ended by itself.
    let _ = migrate.kill();
    migrate.wait().unwrap();
}

/// The duration of an uninterrupted migration.
fn time_of(database: &str) -> Duration {
    let started = Instant::now();
    assert!(run(&["migrate", "--database", database]).status.success());
    started.elapsed()
}

/// Asserts the version in the history, if there is one, and the signs of that version.
fn is_old_or_new(before: u64, version: Option<u64>, latest: &Latest, signs: &[Value]) {
    let there = |name: &str| signs.iter().any(|sign| sign == name);
    let version = version.unwrap_or(0);
    assert!(version == before || version == latest.version, "{version}");
    assert_eq!(
        (there("rockets"), there(latest.sign)),
        (version > 0, version == latest.version),
        "{signs:?}"
    );
}

/// What exists, and how a view is defined.
const SQLITE_SIGNS: &str = "SELECT name FROM sqlite_schema UNION ALL
                            SELECT 'no lists' FROM sqlite_schema
                            WHERE name = 'rockets' AND NOT EXISTS
                                (SELECT 1 FROM sqlite_schema WHERE name = 'rockets_listed')";

#[test]
fn an_interrupted_migration_leaves_an_sqlite_file_old_or_new() {
    let mut random = StdRng::seed_from_u64(1);
    let mut ended_new = 0;
    let times = faults::times(10, 200);
    let directory = tempfile::tempdir().unwrap();
    let path = |name: String| directory.path().join(name);
    let takes = time_of(path("timed.db".to_owned()).to_str().unwrap());
    for time in 0..times {
        let (before, path) = (time % SQLITE.version, path(format!("{time}.db")));
        if before > 0 {
            sql(&path, &fixture("sqlite", before));
        }
        interrupt(path.to_str().unwrap(), takes, &mut random);
        let rows = |sql: &str| if path.exists() { query(&path, sql) } else { Vec::new() };
        let tables: Vec<Value> = rows(SQLITE_SIGNS).into_iter().flatten().collect();
        let history = tables.iter().any(|name| name == "refinery_schema_history");
        let version = history
            .then(|| {
                query(&path, "SELECT max(version) FROM refinery_schema_history")[0][0].as_u64()
            })
            .flatten();
        is_old_or_new(before, version, &SQLITE, &tables);
        ended_new += u64::from(version == Some(SQLITE.version));
        assert!(run(&["migrate", "--database", path.to_str().unwrap()]).status.success());
        assert_eq!(run(&["check", "--database", path.to_str().unwrap()]).status.code(), Some(0));
        assert_eq!(query(&path, "SELECT count(*) FROM rockets")[0][0], 7 * before.min(1));
    }
    row("SQLite", times, ended_new);
}

#[test]
fn an_interrupted_migration_leaves_a_postgres_database_old_or_new() {
    let mut random = StdRng::seed_from_u64(1);
    let mut ended_new = 0;
    let times = faults::times(10, 100);
    let takes = time_of(&postgres::TestDatabase::create().url);
    for time in 0..times {
        let (before, database) = (time % POSTGRES.version, postgres::TestDatabase::create());
        if before > 0 {
            postgres::execute(&database.url, &fixture("postgres", before));
        }
        interrupt(&database.url, takes, &mut random);
        let rows = |sql: &str| postgres::query(&database.url, sql);
        eventually("the server has noticed", || !database.is_used());
        let signs = "SELECT relname AS sign FROM pg_class
                     WHERE relnamespace = 'public'::regnamespace UNION ALL
                     SELECT relname || ' ' || array_to_string(reloptions, ' ') FROM pg_class";
        let signs: Vec<Value> = rows(signs).into_iter().map(|row| row["sign"].clone()).collect();
        let history = signs.iter().any(|sign| sign == "rocket_monitor_schema_history");
        let version = history
            .then(|| {
                rows("SELECT max(version) AS v FROM rocket_monitor_schema_history")[0]["v"].as_u64()
            })
            .flatten();
        is_old_or_new(before, version, &POSTGRES, &signs);
        ended_new += u64::from(version == Some(POSTGRES.version));
        assert!(run(&["migrate", "--database", &database.url]).status.success());
        assert_eq!(run(&["check", "--database", &database.url]).status.code(), Some(0));
        assert_eq!(rows("SELECT count(*) AS n FROM rockets")[0]["n"], 7 * before.min(1));
    }
    row("Postgres", times, ended_new);
}

fn row(backend: &str, times: u64, ended_new: u64) {
    faults::row(
        &format!("kill -9 while migrating ({backend})"),
        format!("{times} kills"),
        format!(
            "the old schema {} times, the new one {ended_new} times, never a mix",
            times - ended_new
        ),
    );
}
