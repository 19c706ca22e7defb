//! The files of an SQLite database: how they may be named, who may read them, and what happens when somebody removes,
//! replaces or cuts them while they are in use.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::events::Events;
use crate::support::{Client, Service, eventually, faster, launched, program, query, run, sql, stderr, stdout};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// A service whose log can be read.
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

    /// That nothing is taken, and that the log says why.
    fn refuses(&self, why: &str) {
        let mut client = self.client();
        client.post(&faster("r", 1_000, 1)).problem(503);
        client.get("/readyz").problem(503);
        assert_eq!(client.get("/livez").status, 200);
        assert!(self.says(why), "{}", fs::read_to_string(&self.log).unwrap());
    }

    fn recovers(&self) {
        eventually("it is ready again", || self.client().get("/readyz").status == 200);
    }
}

/// What is acknowledged of the rocket, as the file alone says.
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
    // The file that was renamed holds all that was acknowledged, without its log.
    let copy = directory.path().join("copy.db");
    fs::copy(&elsewhere, &copy).unwrap();
    // The message that was refused may be there: it was not acknowledged.
    assert!((20..=21).contains(&stored(&copy)[0][0].as_u64().unwrap()), "{:?}", stored(&copy));
    fs::rename(&elsewhere, &database).unwrap();
    logged.recovers();
    assert!(logged.says("the database was reopened"));
    post(&logged, 21..=25);
    assert_eq!(logged.client().get("/rockets/r").json()["messages"]["completeThrough"], 25);
    sound(&database);
    // Gone for good: nothing is acknowledged, whatever comes.
    fs::remove_file(&database).unwrap();
    logged.refuses("was removed or renamed");
    assert!(!database.exists());
}

#[test]
fn a_file_that_is_replaced_is_left_for_the_one_in_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let (database, backup) = (directory.path().join("rockets.db"), directory.path().join("backup.db"));
    let logged = Logged::start(&database);
    post(&logged, 1..=5);
    assert!(run(&["backup", text(&backup), "--database", text(&database)]).status.success());
    post(&logged, 6..=30);
    let mut stream = Events::open(logged.service.address, "", None);
    assert_eq!(stream.snapshot(), ["r"]);
    fs::rename(&backup, &database).unwrap();
    // What comes now is refused, or is in the file that the path names.
    let answer = logged.client().post(&faster("r", 6, 1));
    if answer.status != 204 {
        answer.problem(503);
    }
    logged.recovers();
    assert!(logged.says("was replaced by another one"), "{}", fs::read_to_string(&logged.log).unwrap());
    assert_eq!(logged.client().post(&faster("r", 7, 1)).status, 204);
    let processed = stored(&database)[0][0].as_u64().unwrap();
    assert!((6..=7).contains(&processed), "{processed}");
    assert_eq!(logged.client().get("/rockets/r").json()["messages"]["processed"], processed);
    // Followers start again from what is there now.
    while stream.next().is_some() {}
    let mut again = Events::open(logged.service.address, "", stream.id.as_deref());
    assert_eq!(again.snapshot(), ["r"]);
    sound(&database);
}

#[test]
fn a_file_that_is_cut_short_is_no_database_until_a_sound_one_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let (database, backup) = (directory.path().join("rockets.db"), directory.path().join("backup.db"));
    let logged = Logged::start(&database);
    post(&logged, 1..=5);
    assert!(run(&["backup", text(&backup), "--database", text(&database)]).status.success());
    post(&logged, 6..=30);
    fs::File::options().write(true).open(&database).unwrap().set_len(0).unwrap();
    logged.refuses("was cut short or overwritten");
    logged.refuses("can't be used");
    // Over the same file, as `cp` does it. The log of the lost one must not be applied to it.
    fs::copy(&backup, &database).unwrap();
    logged.recovers();
    assert_eq!(logged.client().get("/rockets/r").json()["speed"], 5);
    post(&logged, 6..=8);
    assert_eq!(stored(&database), [[json!(8)]]);
    sound(&database);
    assert!(beside(&database, "-wal.orphaned").exists(), "what was in the log can still be looked at");
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
        // It may have been noticed already.
        let taken = logged.client().post(&faster("r", 21, 1)).status;
        assert!([204, 503].contains(&taken), "{ending} {cut}: {taken}");
        logged.recovers();
        assert!(logged.says("write-ahead log"), "{}", fs::read_to_string(&logged.log).unwrap());
        post(&logged, 22..=30);
        drop(logged);
        // Killed: what is in the files is all that there is. What was in the log that was cut short is lost.
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
    let lines: String = (0..3_000).map(|rocket| launched(&format!("c{rocket}"), 1).to_string() + "\n").collect();
    assert_eq!(logged.client().post_lines(lines.as_bytes()).json()["applied"], 3_000);
    sql(&database, "PRAGMA wal_checkpoint(TRUNCATE)");
    post(&logged, 1..=2);
    let before = fs::metadata(&database).unwrap().len();
    sql(
        &database,
        "DELETE FROM processed_ranges WHERE channel <> 'r'; DELETE FROM rockets WHERE channel <> 'r';
         DELETE FROM rockets_listed WHERE channel <> 'r'; DELETE FROM rockets_unlisted WHERE channel <> 'r';
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
            // Readers of every kind, up to the end.
            for path in ["/rockets/r", "/rockets?sort=speed", "/reports/gaps", "/stats", "/rockets/r?view=both"] {
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
        let names: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(names, ["rockets.db"], "{signal}");
        let copy = directory.path().join("copied by a person.db");
        fs::copy(&database, &copy).unwrap();
        assert_eq!(stored(&copy), [[json!(200)]]);
        sound(&copy);
    }
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
    let backup = |from: &Path, to: &Path| run(&["backup", text(to), "--replace", "--database", text(from)]);
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
            assert!(stderr(&refused).contains("is the database to copy"), "{name}: {}", stderr(&refused));
        }
    }
    let in_use = backup(&database, &other);
    assert!(!in_use.status.success() && stderr(&in_use).contains("is in use"), "{in_use:?}");
    for (name, why) in
        [("folder", "is a directory"), ("none/copy.db", "no directory"), ("copy.db/", "names a directory")]
    {
        let refused = backup(&database, &path(name));
        assert!(!refused.status.success() && stderr(&refused).contains(why), "{name}: {}", stderr(&refused));
    }
    // Nothing happened to either, and both go on.
    post(&logged, 21..=22);
    assert_eq!(Client::new(other_service.address).get("/rockets/o").status, 200);
    drop(other_service);
    // Killed, it has left a log, which must not be applied to the copy.
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
    for target in [&path("notes"), &other] {
        let failed = run(&["backup", text(target), "--replace", "--database", text(&damaged)]);
        assert_eq!(failed.status.code(), Some(1), "{failed:?}");
        assert!(stderr(&failed).contains("is damaged"), "{}", stderr(&failed));
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
    // Root may write to every file, so for root another user does it, with a program that this user can reach.
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let copied_program = path("program");
    fs::copy(env!("CARGO_BIN_EXE_rocket-monitor"), &copied_program).unwrap();
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
    let refused = unprivileged(&["backup", text(&in_use), "--replace", "--database", text(&source)]);
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
    let start = || program(&["backup", text(&copy), "--database", text_of]).stderr(Stdio::piped()).spawn().unwrap();
    let backups: Vec<_> = (0..6).map(|_| start()).collect();
    let outputs: Vec<_> = backups.into_iter().map(|backup| backup.wait_with_output().unwrap()).collect();
    let (made, refused): (Vec<_>, Vec<_>) = outputs.iter().partition(|output| output.status.success());
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
        let copied = program(&["backup"]).arg(path("").join(name)).arg("--database").arg(path("rockets.db")).output();
        assert!(copied.as_ref().unwrap().status.success(), "{copied:?}");
    };
    fs::set_permissions(path("rockets.db"), fs::Permissions::from_mode(0o666)).unwrap();
    backup("copy.db".as_ref());
    assert_eq!(mode(&path("copy.db")), 0o600);
    fs::set_permissions(path("rockets.db"), fs::Permissions::from_mode(0o400)).unwrap();
    backup("less.db".as_ref());
    assert_eq!(mode(&path("less.db")), 0o400, "never more than its source has");
    // A name that is no UTF-8 is kept byte for byte.
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
        let migrated = program(&["migrate", "--database", name]).current_dir(directory.path()).output().unwrap();
        assert!(migrated.status.success(), "{name}: {}", stderr(&migrated));
        assert!(directory.path().join(name).is_file(), "{name}");
    }
}
