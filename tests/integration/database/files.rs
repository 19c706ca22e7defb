//! The files of an SQLite database: valid names, permissions, and what happens if they are removed,
//! replaced or truncated while in use.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::client::Client;
use testkit::events::Events;
use testkit::message::{faster, launched};
use testkit::process::{Service, program, run, stderr, stdout};
use testkit::sqlite::{query, sql};
use testkit::wait::eventually;

pub(super) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// A service with a readable log.
pub(super) struct Logged {
    service: Service,
    log: PathBuf,
}

impl Logged {
    pub(super) fn start(database: &Path) -> Self {
        let log = beside(database, ".log");
        let child = program(&["serve", "--listen", "127.0.0.1:0", "--database", text(database)])
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let listening = || {
            let logged = fs::read_to_string(&log).unwrap();
            let line = logged.lines().find(|line| line.contains("\"listening\""))?;
            serde_json::from_str::<Value>(line).ok()?["address"].as_str()?.parse().ok()
        };
        eventually("it listens", || listening().is_some());
        let address = listening().unwrap();
        Self { service: Service { child, address }, log }
    }

    pub(super) fn client(&self) -> Client {
        Client::new(self.service.address)
    }

    pub(super) fn says(&self, what: &str) -> bool {
        fs::read_to_string(&self.log).unwrap().contains(what)
    }

    /// Asserts that messages are refused, and that the log says why.
    pub(super) fn refuses(&self, why: &str) {
        let mut client = self.client();
        client.post(&faster("r", 1_000, 1)).problem(503);
        client.get("/readyz").problem(503);
        assert_eq!(client.get("/livez").status, 200);
        assert!(self.says(why), "{}", fs::read_to_string(&self.log).unwrap());
    }

    /// That the next message is rejected, and that the log says why.
    pub(super) fn notices(&self, why: &str) {
        self.client().post(&faster("r", 1_000, 1)).problem(503);
        assert!(self.says(why), "{}", fs::read_to_string(&self.log).unwrap());
    }

    pub(super) fn recovers(&self) {
        eventually("it is ready again", || self.client().get("/readyz").status == 200);
    }
}

/// What is stored of the rocket, according to the file alone.
pub(super) fn stored(database: &Path) -> Vec<Vec<Value>> {
    query(database, "SELECT processed FROM rockets WHERE channel = 'r'")
}

pub(super) fn post(logged: &Logged, numbers: std::ops::RangeInclusive<u32>) {
    let mut client = logged.client();
    for number in numbers {
        assert_eq!(client.post(&faster("r", number, 1)).status, 204);
    }
}

pub(super) fn sound(database: &Path) {
    let checked = run(&["check", "--database", text(database)]);
    assert_eq!(checked.status.code(), Some(0), "{}{}", stdout(&checked), stderr(&checked));
}

#[test]
fn a_file_that_is_removed_takes_no_more_messages_and_goes_on_when_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    let elsewhere = directory.path().join("elsewhere.db");
    let logged = Logged::start(&database);
    post(&logged, 1..=20);
    fs::rename(&database, &elsewhere).unwrap();
    logged.refuses("was removed or renamed while it was in use");
    logged.client().get("/rockets/r").problem(503);
    assert!(!database.exists(), "nothing is made in its place");
    // Without its log, the renamed file holds everything that was acknowledged.
    let copy = directory.path().join("copy.db");
    fs::copy(&elsewhere, &copy).unwrap();
    // The refused message may be there: it was not acknowledged.
    assert!((20..=21).contains(&stored(&copy)[0][0].as_u64().unwrap()), "{:?}", stored(&copy));
    fs::rename(&elsewhere, &database).unwrap();
    logged.recovers();
    assert!(logged.says("the database was reopened"));
    post(&logged, 21..=25);
    assert_eq!(logged.client().get("/rockets/r").json()["messages"]["completeThrough"], 25);
    sound(&database);
    // If the file is gone for good, nothing is acknowledged.
    fs::remove_file(&database).unwrap();
    logged.refuses("was removed or renamed");
    assert!(!database.exists());
}

#[test]
fn a_file_that_is_replaced_is_left_for_the_one_in_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let (database, backup) =
        (directory.path().join("rockets.db"), directory.path().join("backup.db"));
    let logged = Logged::start(&database);
    post(&logged, 1..=5);
    assert!(run(&["backup", text(&backup), "--database", text(&database)]).status.success());
    post(&logged, 6..=30);
    let mut stream = Events::open(logged.service.address, "", None);
    assert_eq!(stream.snapshot(), ["r"]);
    fs::rename(&backup, &database).unwrap();
    // New messages are refused, or are in the file that the path names.
    let answer = logged.client().post(&faster("r", 6, 1));
    if answer.status != 204 {
        answer.problem(503);
    }
    logged.recovers();
    assert!(
        logged.says("was replaced by another one"),
        "{}",
        fs::read_to_string(&logged.log).unwrap()
    );
    assert_eq!(logged.client().post(&faster("r", 7, 1)).status, 204);
    let processed = stored(&database)[0][0].as_u64().unwrap();
    assert!((6..=7).contains(&processed), "{processed}");
    assert_eq!(logged.client().get("/rockets/r").json()["messages"]["processed"], processed);
    // Followers start again from the current state.
    while stream.next().is_some() {}
    let mut again = Events::open(logged.service.address, "", stream.id.as_deref());
    assert_eq!(again.snapshot(), ["r"]);
    sound(&database);
}

#[test]
fn a_file_that_is_cut_short_is_no_database_until_a_sound_one_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let (database, backup) =
        (directory.path().join("rockets.db"), directory.path().join("backup.db"));
    let logged = Logged::start(&database);
    post(&logged, 1..=5);
    assert!(run(&["backup", text(&backup), "--database", text(&database)]).status.success());
    post(&logged, 6..=30);
    fs::File::options().write(true).open(&database).unwrap().set_len(0).unwrap();
    logged.refuses("was cut short or overwritten");
    logged.refuses("can't be used");
    // Overwrites the same file, as `cp` does. The log of the lost database must not be applied to
    // it.
    fs::copy(&backup, &database).unwrap();
    logged.recovers();
    assert_eq!(logged.client().get("/rockets/r").json()["speed"], 5);
    post(&logged, 6..=8);
    assert_eq!(stored(&database), [[json!(8)]]);
    sound(&database);
    // Again, and what was in each log can still be looked at.
    fs::File::options().write(true).open(&database).unwrap().set_len(0).unwrap();
    logged.refuses("was cut short or overwritten");
    fs::copy(&backup, &database).unwrap();
    logged.recovers();
    let names = fs::read_dir(directory.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.starts_with("rockets.db-wal.orphaned-")).count(), 2);
}

#[test]
fn a_file_that_is_written_over_is_no_database_until_a_sound_one_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let (database, backup) =
        (directory.path().join("rockets.db"), directory.path().join("backup.db"));
    let lines: String =
        (0..3_000).map(|rocket| launched(&format!("c{rocket}"), 1).to_string() + "\n").collect();
    fs::write(directory.path().join("lines"), lines).unwrap();
    let ingested =
        run(&["ingest", text(&directory.path().join("lines")), "--database", text(&backup)]);
    assert!(ingested.status.success(), "{ingested:?}");
    let logged = Logged::start(&database);
    post(&logged, 1..=5);
    // What is not in the log any more is in the file.
    sql(&database, "PRAGMA wal_checkpoint(TRUNCATE)");
    post(&logged, 6..=9);
    assert!(fs::metadata(&backup).unwrap().len() > fs::metadata(&database).unwrap().len());
    // As `cp` does it: the same file with other contents, and no shorter.
    fs::copy(&backup, &database).unwrap();
    logged.notices("was cut short or overwritten");
    logged.recovers();
    let rockets = || query(&database, "SELECT count(*) FROM rockets");
    assert_eq!(rockets(), [[json!(3_000)]]);
    post(&logged, 1..=2);
    assert_eq!(rockets(), [[json!(3_001)]]);
    sound(&database);
}

/// Another program that reads the database, and holds up checkpoints.
fn reader_of(database: &Path) -> rusqlite::Connection {
    let reader = rusqlite::Connection::open(database).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM rockets").unwrap();
    reader
}

#[test]
fn what_only_a_lost_log_holds_is_kept_until_it_can_be_saved() {
    // The file is put back, or its log is gone for good.
    for is_put_back in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("rockets.db");
        let logged = Logged::start(&database);
        post(&logged, 1..=5);
        let reader = reader_of(&database);
        post(&logged, 6..=10);
        let away = directory.path().join("away.db");
        if is_put_back {
            fs::rename(&database, &away).unwrap();
            logged.refuses("was removed or renamed");
            fs::rename(&away, &database).unwrap();
        } else {
            fs::remove_file(beside(&database, "-wal")).unwrap();
            logged.refuses("(the file -wal) was removed");
            drop(reader);
        }
        logged.recovers();
        post(&logged, 12..=15);
        drop(logged);
        // One of those that were refused may be there.
        let processed = stored(&database)[0][0].as_u64().unwrap();
        assert!((14..=15).contains(&processed), "{is_put_back}: {processed}");
        sound(&database);
    }
}

#[test]
fn a_log_that_is_gone_is_saved_though_another_program_has_made_a_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    let logged = Logged::start(&database);
    post(&logged, 1..=5);
    fs::remove_file(beside(&database, "-wal")).unwrap();
    fs::write(beside(&database, "-wal"), "").unwrap();
    logged.notices("(the file -wal) was removed or replaced");
    logged.recovers();
    drop(logged);
    assert!(stored(&database)[0][0].as_u64().unwrap() >= 5);
    sound(&database);
}

#[test]
fn without_the_index_of_the_log_nothing_is_written_beside_another_program() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    let logged = Logged::start(&database);
    post(&logged, 1..=5);
    // A follower has a connection of its own.
    let mut stream = Events::open(logged.service.address, "", None);
    assert_eq!(stream.snapshot(), ["r"]);
    fs::remove_file(beside(&database, "-shm")).unwrap();
    let other = rusqlite::Connection::open(&database).unwrap();
    other.execute_batch("CREATE TABLE theirs(a)").unwrap();
    logged.notices("(the file -shm) was removed");
    logged.recovers();
    for number in 1..=30 {
        other.execute("INSERT INTO theirs VALUES (?1)", [number]).unwrap();
        assert_eq!(logged.client().post(&faster("r", 100 + number, 1)).status, 204);
    }
    assert_eq!(query(&database, "SELECT count(*) FROM theirs"), [[json!(30)]]);
    assert!(stored(&database)[0][0].as_u64().unwrap() >= 35);
    drop((logged, other));
    sound(&database);
}

#[test]
fn without_its_log_the_database_goes_on_and_nothing_is_lost() {
    for (ending, cut) in [("-wal", false), ("-shm", false), ("-wal", true)] {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("rockets.db");
        let logged = Logged::start(&database);
        post(&logged, 1..=20);
        let log = beside(&database, ending);
        if cut {
            fs::File::options().write(true).open(&log).unwrap().set_len(0).unwrap();
        } else {
            fs::remove_file(&log).unwrap();
        }
        // It may have been detected already.
        let taken = logged.client().post(&faster("r", 21, 1)).status;
        assert!([204, 503].contains(&taken), "{ending} {cut}: {taken}");
        logged.recovers();
        assert!(logged.says("write-ahead log"), "{}", fs::read_to_string(&logged.log).unwrap());
        post(&logged, 22..=30);
        drop(logged);
        // After a kill, only the files count. What was in the truncated log is lost.
        let acknowledged = if taken == 204 { 10 } else { 9 } + if cut { 0 } else { 20 };
        let processed = stored(&database)[0][0].as_u64().unwrap();
        assert!(processed >= acknowledged, "{ending} {cut}: {processed}");
        sound(&database);
    }
}

#[test]
fn vacuum_beside_the_service_is_no_reason_to_stop() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    let logged = Logged::start(&database);
    let lines: String =
        (0..3_000).map(|rocket| launched(&format!("c{rocket}"), 1).to_string() + "\n").collect();
    assert_eq!(logged.client().post_lines(lines.as_bytes()).json()["applied"], 3_000);
    sql(&database, "PRAGMA wal_checkpoint(TRUNCATE)");
    post(&logged, 1..=2);
    let before = fs::metadata(&database).unwrap().len();
    sql(
        &database,
        "DELETE FROM processed_ranges WHERE channel <> 'r';
         DELETE FROM rockets WHERE channel <> 'r';
         VACUUM; PRAGMA wal_checkpoint(TRUNCATE);",
    );
    assert!(fs::metadata(&database).unwrap().len() < before);
    post(&logged, 3..=10);
    assert_eq!(logged.client().get("/readyz").status, 200);
    assert_eq!(stored(&database), [[json!(10)]]);
}

#[test]
fn a_clean_stop_leaves_one_complete_file() {
    for signal in ["-TERM", "-INT"] {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("rockets.db");
        let mut service = Service::start(&database);
        let address = service.address;
        let mut stream = Events::open(address, "", None);
        stream.snapshot();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Reads of every kind, to the end.
            for path in [
                "/rockets/r",
                "/rockets?sort=speed",
                "/reports/gaps",
                "/stats",
                "/rockets/r?view=both",
            ] {
                let done = &done;
                scope.spawn(move || {
                    let mut client = Client::new(address);
                    while !done.load(std::sync::atomic::Ordering::SeqCst)
                        && client.request("GET", path, &[], b"").is_ok()
                    {}
                });
            }
            let mut client = Client::new(address);
            for number in 1..=200 {
                assert_eq!(client.post(&faster("r", number, 1)).status, 204);
            }
            let pid = service.child.id().to_string();
            assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
            assert!(service.child.wait().unwrap().success());
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        let names: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(names, ["rockets.db"], "{signal}");
        let copy = directory.path().join("copied by a person.db");
        fs::copy(&database, &copy).unwrap();
        assert_eq!(stored(&copy), [[json!(200)]]);
        sound(&copy);
    }
}

#[test]
fn a_stop_says_that_the_file_alone_is_not_complete_if_it_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    let mut logged = Logged::start(&database);
    post(&logged, 1..=3);
    let reader = reader_of(&database);
    post(&logged, 4..=5);
    let pid = logged.service.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(logged.service.child.wait().unwrap().success());
    assert!(
        logged.says("copy the file with the file -wal"),
        "{}",
        fs::read_to_string(&logged.log).unwrap()
    );
    drop(reader);
    assert_eq!(stored(&database), [[json!(5)]]);
    sound(&database);
}

#[test]
fn databases_and_backups_are_for_their_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let logged = Logged::start(&path("rockets.db"));
    post(&logged, 1..=2);
    for ending in ["", "-wal", "-shm"] {
        assert_eq!(mode(&beside(&path("rockets.db"), ending)), 0o600, "{ending}");
    }
    let backup = |name: &std::ffi::OsStr| {
        let copied = program(&["backup"])
            .arg(path("").join(name))
            .arg("--database")
            .arg(path("rockets.db"))
            .output();
        assert!(copied.as_ref().unwrap().status.success(), "{copied:?}");
    };
    fs::set_permissions(path("rockets.db"), fs::Permissions::from_mode(0o666)).unwrap();
    backup("copy.db".as_ref());
    assert_eq!(mode(&path("copy.db")), 0o600);
    fs::set_permissions(path("rockets.db"), fs::Permissions::from_mode(0o400)).unwrap();
    backup("less.db".as_ref());
    assert_eq!(mode(&path("less.db")), 0o400, "never more than its source has");
    // A name that is not UTF-8 is kept byte for byte.
    let name = std::ffi::OsStr::from_bytes(b"copy-\xff\xfe.db");
    backup(name);
    assert!(fs::metadata(path("").join(name)).unwrap().size() > 0);
}

#[test]
fn every_spelling_of_a_path_works_or_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let root = text(directory.path());
    fs::create_dir(directory.path().join("folder")).unwrap();
    for (name, why) in [
        ("new.db/", "names a directory"),
        ("nodir/../x.db", "no directory"),
        ("nodir/x.db", "no directory"),
        ("folder", "is a directory"),
        ("folder/..", "names a directory"),
    ] {
        for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["migrate"], &["check"]] {
            let started = Instant::now();
            let refused = run(&[command, &["--database", &format!("{root}/{name}")]].concat());
            assert!(!refused.status.success(), "{name}");
            assert!(stderr(&refused).contains(why), "{command:?} {name}: {}", stderr(&refused));
            assert!(started.elapsed() < Duration::from_secs(20));
        }
    }
    for name in ["folder/../new.db", "./a b.db", "ünï.db", "%41.db"] {
        let migrated = program(&["migrate", "--database", name])
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert!(migrated.status.success(), "{name}: {}", stderr(&migrated));
        assert!(directory.path().join(name).is_file(), "{name}");
    }
}
