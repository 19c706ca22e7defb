//! `backup`: whole, in place of nothing that is used, and made while others write.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use testkit::client::Client;
use testkit::message::{faster, launched};
use testkit::process::{Service, program, run, stderr, stdout};
use testkit::sqlite::{query, sql};

use super::files::{Logged, beside, post, sound, stored, text};

#[test]
fn a_backup_is_whole_and_made_while_others_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (database, copy) = (path("rockets.db"), path("copy.db"));
    let service = Service::start(&database);
    let mut client = Client::new(service.address);
    assert_eq!(client.post(&launched("r", 1)).status, 204);
    std::thread::scope(|scope| {
        let posting = scope.spawn(|| {
            let mut poster = Client::new(service.address);
            for number in 2..300 {
                assert_eq!(poster.post(&faster("r", number, 1)).status, 204);
            }
        });
        let made = run(&["backup", &copy, "--database", &database]);
        assert!(stdout(&made).contains("1 channels with 1 processed ranges"), "{made:?}");
        posting.join().unwrap();
    });
    // The copy is a database like the original: it can be checked, served and written to.
    assert_eq!(run(&["check", "--database", &copy]).status.code(), Some(0));
    let restored = Service::start(&copy);
    assert_eq!(Client::new(restored.address).post(&launched("s", 1)).status, 204);
    let again = run(&["backup", &copy, "--database", &database]);
    assert!(!again.status.success() && stderr(&again).contains("--replace"), "{again:?}");
    drop(restored);
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{copy}{suffix}"));
    }
    assert!(run(&["backup", &copy, "--replace", "--database", &database]).status.success());
    assert_eq!(run(&["forget", "r", "--database", &copy]).status.code(), Some(0));
    // A damaged database is not copied, and nothing is left behind.
    sql(database.as_ref(), "UPDATE rockets SET speed = 1");
    let damaged = run(&["backup", &path("bad.db"), "--database", &database]);
    assert!(
        !damaged.status.success() && stderr(&damaged).contains("the database is damaged"),
        "{damaged:?}"
    );
    let names = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: Vec<String> =
        names.filter(|name| name.contains("bad") || name.contains("partial")).collect();
    assert!(left.is_empty(), "{left:?}");
    let memory = run(&["backup", &path("no.db"), "--database", "memory"]);
    assert!(!memory.status.success() && stderr(&memory).contains("nothing to copy"), "{memory:?}");
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
