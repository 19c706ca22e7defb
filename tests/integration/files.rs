//! The files of an SQLite database: valid names, permissions, and what happens if they are removed,
//! replaced or truncated while in use.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::client::Client;
use testkit::events::Events;
use testkit::message::{faster, launched};
use testkit::process::{Service, program, run, stderr, stdout};
use testkit::sqlite::{query, sql};
use testkit::wait::eventually;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// A service with a readable log.
struct Logged {
    service: Service,
    log: PathBuf,
}

impl Logged {
    fn start(database: &Path) -> Self {
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

    fn client(&self) -> Client {
        Client::new(self.service.address)
    }

    fn says(&self, what: &str) -> bool {
        fs::read_to_string(&self.log).unwrap().contains(what)
    }

    /// Asserts that messages are refused, and that the log says why.
    fn refuses(&self, why: &str) {
        let mut client = self.client();
        client.post(&faster("r", 1_000, 1)).problem(503);
        client.get("/readyz").problem(503);
        assert_eq!(client.get("/livez").status, 200);
        assert!(self.says(why), "{}", fs::read_to_string(&self.log).unwrap());
    }

    /// That the next message is rejected, and that the log says why.
    fn notices(&self, why: &str) {
        self.client().post(&faster("r", 1_000, 1)).problem(503);
        assert!(self.says(why), "{}", fs::read_to_string(&self.log).unwrap());
    }

    fn recovers(&self) {
        eventually("it is ready again", || self.client().get("/readyz").status == 200);
    }
}

/// What is stored of the rocket, according to the file alone.
fn stored(database: &Path) -> Vec<Vec<Value>> {
    query(database, "SELECT processed FROM rockets WHERE channel = 'r'")
}

fn post(logged: &Logged, numbers: std::ops::RangeInclusive<u32>) {
    let mut client = logged.client();
    for number in numbers {
        assert_eq!(client.post(&faster("r", number, 1)).status, 204);
    }
}

fn sound(database: &Path) {
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
        "DELETE FROM processed_ranges WHERE channel <> 'r'; DELETE FROM rockets WHERE channel <> 'r';
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
fn a_backup_never_takes_the_place_of_its_source_or_of_a_database_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (database, other) = (path("rockets.db"), path("other.db"));
    let logged = Logged::start(&database);
    post(&logged, 1..=20);
    let other_service = Service::start(&other);
    assert_eq!(Client::new(other_service.address).post(&launched("o", 1)).status, 204);
    symlink(&database, path("link.db")).unwrap();
    fs::hard_link(&database, path("hard.db")).unwrap();
    fs::create_dir(path("folder")).unwrap();
    let backup =
        |from: &Path, to: &Path| run(&["backup", text(to), "--replace", "--database", text(from)]);
    for name in [
        "rockets.db",
        "./rockets.db",
        "folder/../rockets.db",
        "link.db",
        "hard.db",
        "rockets.db-wal",
        "rockets.db-shm",
        "rockets.db-journal",
    ] {
        for source in [&database, &path("link.db")] {
            let refused = backup(source, &path(name));
            assert_eq!(refused.status.code(), Some(1), "{name}: {refused:?}");
            assert!(
                stderr(&refused).contains("is the database to copy"),
                "{name}: {}",
                stderr(&refused)
            );
        }
    }
    for ending in ["-wal", "-shm", "-journal"] {
        let refused = backup(&database, &beside(&other, ending));
        assert!(
            stderr(&refused).contains("beside another database"),
            "{ending}: {}",
            stderr(&refused)
        );
    }
    let in_use = backup(&database, &other);
    assert!(!in_use.status.success() && stderr(&in_use).contains("is in use"), "{in_use:?}");
    for (name, why) in [
        ("folder", "is a directory"),
        ("none/copy.db", "no directory"),
        ("copy.db/", "names a directory"),
    ] {
        let refused = backup(&database, &path(name));
        assert!(
            !refused.status.success() && stderr(&refused).contains(why),
            "{name}: {}",
            stderr(&refused)
        );
    }
    // Nothing happened to either, and both continue.
    post(&logged, 21..=22);
    assert_eq!(Client::new(other_service.address).get("/rockets/o").status, 200);
    drop(other_service);
    // The killed process has left a log, which must not be applied to the copy.
    assert!(beside(&other, "-wal").exists());
    assert!(backup(&database, &other).status.success());
    assert_eq!(query(&other, "SELECT channel, processed FROM rockets"), [[json!("r"), json!(22)]]);
    sound(&other);
}

#[test]
fn a_backup_that_fails_leaves_the_file_that_it_should_replace() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    // A copy of this one is not sound.
    let damaged = path("damaged.db");
    let logged = Logged::start(&damaged);
    post(&logged, 1..=3);
    drop(logged);
    sql(&damaged, "UPDATE rockets SET speed = 77");
    let files = ["notes", "notes-wal", "notes-shm", "notes-journal"];
    for name in files {
        fs::write(path(name), name).unwrap();
    }
    // Killed, this one has its messages in its log.
    let other = path("other.db");
    let logged = Logged::start(&other);
    post(&logged, 1..=20);
    drop(logged);
    assert!(beside(&other, "-wal").exists());
    for (target, why) in [(&path("notes"), "notes-wal is there"), (&other, "is damaged")] {
        let failed = run(&["backup", text(target), "--replace", "--database", text(&damaged)]);
        assert_eq!(failed.status.code(), Some(1), "{failed:?}");
        assert!(stderr(&failed).contains(why), "{}", stderr(&failed));
    }
    for name in files {
        assert_eq!(fs::read_to_string(path(name)).unwrap(), name);
    }
    assert_eq!(stored(&other), [[json!(20)]]);
    sound(&other);
}

#[test]
fn a_backup_never_replaces_a_database_that_its_user_can_only_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let in_use = path("in-use.db");
    let logged = Logged::start(&in_use);
    post(&logged, 1..=3);
    fs::set_permissions(&in_use, fs::Permissions::from_mode(0o444)).unwrap();
    for ending in ["-wal", "-shm"] {
        fs::set_permissions(beside(&in_use, ending), fs::Permissions::from_mode(0o444)).unwrap();
    }
    // Root may write to every file, so for root another user does it, with a program that this user
    // can reach.
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let copied_program = path("program");
    // By another process: a file that this one writes can't be run while it starts another program.
    let copied =
        Command::new("cp").arg(env!("CARGO_BIN_EXE_rocket-monitor")).arg(&copied_program).status();
    assert!(copied.unwrap().success());
    let unprivileged = |words: &[&str]| {
        let mut command = Command::new(&copied_program);
        command.args(words).current_dir(directory.path()).stdin(Stdio::null());
        if is_root {
            command.uid(65_534).gid(65_534);
        }
        command.output().unwrap()
    };
    let source = path("source.db");
    let migrated = unprivileged(&["migrate", "--database", text(&source)]);
    assert!(migrated.status.success(), "{migrated:?}");
    let refused =
        unprivileged(&["backup", text(&in_use), "--replace", "--database", text(&source)]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(stderr(&refused).contains("in use"), "{}", stderr(&refused));
    post(&logged, 4..=5);
    assert_eq!(stored(&in_use), [[json!(5)]]);
}

#[test]
fn of_backups_to_one_new_name_one_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let database = path("rockets.db");
    assert!(run(&["migrate", "--database", text(&database)]).status.success());
    let (copy, text_of) = (path("copy.db"), text(&database));
    let start = || {
        program(&["backup", text(&copy), "--database", text_of])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let backups: Vec<_> = (0..6).map(|_| start()).collect();
    let outputs: Vec<_> =
        backups.into_iter().map(|backup| backup.wait_with_output().unwrap()).collect();
    let (made, refused): (Vec<_>, Vec<_>) =
        outputs.iter().partition(|output| output.status.success());
    assert_eq!(made.len(), 1, "{outputs:?}");
    assert!(refused.iter().all(|output| stderr(output).contains("already exists")), "{outputs:?}");
    sound(&copy);
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
