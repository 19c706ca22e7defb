//! `export` and `merge`.

use std::fs;
use std::path::Path;
use std::process::Command;

use testkit::client::Client;
use testkit::message::{faster, launched};
use testkit::postgres::TestDatabase;
use testkit::process::{Service, run, stderr, stdout};
use testkit::sqlite::query;

fn ingest(database: &str, directory: &Path, messages: &[serde_json::Value]) {
    let file = directory.join("messages.ndjson");
    let lines: String = messages.iter().map(|message| message.to_string() + "\n").collect();
    fs::write(&file, lines).unwrap();
    let ingested = run(&["ingest", file.to_str().unwrap(), "--database", database]);
    assert!(ingested.status.success(), "{ingested:?}");
}

#[test]
fn any_database_can_be_merged_into_any_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let postgres = TestDatabase::create();
    let (one, other) = (path("one.db"), path("other.db"));
    ingest(&one, directory.path(), &[launched("a", 1), faster("a", 2, 5), faster("a", 3, 5)]);
    ingest(&other, directory.path(), &[faster("a", 3, 5), faster("a", 4, 5), launched("b", 1)]);
    ingest(&postgres.url, directory.path(), &[faster("a", 5, 5), launched("c", 1)]);
    let merge = |source: &str, database: &str, more: &[&str]| {
        run(&[&["merge", source, "--database", database], more].concat())
    };
    let dry = merge(&other, &one, &["--dry-run"]);
    let expected = "read 2 rockets: 2 changed, 2 messages gained, 0 conflicts";
    assert_eq!(stdout(&dry), format!("{expected}; nothing was changed\n"), "{dry:?}");
    // A file that a service uses, into another.
    let service = Service::start(&other);
    assert_eq!(stdout(&merge(&other, &one, &[])), format!("{expected}\n"));
    drop(service);
    let speed =
        |database: &str| query(Path::new(database), "SELECT speed FROM rockets")[0][0].clone();
    assert_eq!(speed(&one), 515);
    assert!(merge(&postgres.url, &one, &[]).status.success());
    // An export in a file, compressed, and the other way round.
    let export = path("export.ndjson");
    assert!(run(&["export", &export, "--database", &one]).status.success());
    assert_eq!(run(&["export", "--database", &one]).stdout.len(), fs::read(&export).unwrap().len());
    let zstd = zstd::stream::encode_all(&fs::read(&export).unwrap()[..], 3).unwrap();
    fs::write(&export, zstd).unwrap();
    let merged = merge(&export, &postgres.url, &[]);
    assert_eq!(
        stdout(&merged),
        "read 3 rockets: 2 changed, 5 messages gained, 0 conflicts\n",
        "{merged:?}"
    );
    let service = Service::start(&postgres.url);
    assert_eq!(Client::new(service.address).get("/rockets/a").json()["speed"], 520);
    for database in [&one, &postgres.url] {
        assert!(run(&["check", "--database", database]).status.success());
    }
}

#[test]
fn conflicts_and_what_is_no_source_are_failures() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (one, other) = (path("one.db"), path("other.db"));
    ingest(&one, directory.path(), &[launched("a", 1), faster("a", 2, 5)]);
    ingest(&other, directory.path(), &[launched("a", 1), faster("a", 2, 6)]);
    let merge = |source: &str| run(&["merge", source, "--database", &one]);
    let merged = merge(&other);
    assert_eq!(merged.status.code(), Some(3), "{merged:?}");
    assert!(stderr(&merged).contains("a: 2 to 2: the speed changes by 5 here, and by 6 there"));
    assert!(stdout(&merged).contains("0 messages gained, 1 conflicts"), "{merged:?}");
    let empty = path("empty");
    fs::write(&empty, "").unwrap();
    let text = path("text");
    fs::write(&text, "nonsense\n").unwrap();
    for source in [&empty, &text, &path("nothing")] {
        let refused = merge(source);
        assert_eq!(refused.status.code(), Some(1), "{source}: {refused:?}");
    }
    assert!(stderr(&merge(&text)).contains("not an export: line 1: "));
    assert!(stderr(&merge(&path("nothing"))).contains("nothing: "));
}

#[test]
fn an_export_may_come_through_a_named_pipe() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (one, other, pipe) = (path("one.db"), path("other.db"), path("pipe"));
    ingest(&one, directory.path(), &[launched("a", 1)]);
    let export = run(&["export", "--database", &one]).stdout;
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::thread::scope(|scope| {
        scope.spawn(|| fs::write(&pipe, &export).unwrap());
        let merged = run(&["merge", &pipe, "--database", &other]);
        let expected = "read 1 rockets: 1 changed, 1 messages gained, 0 conflicts\n";
        assert_eq!(stdout(&merged), expected, "{merged:?}");
    });
}

#[test]
fn an_export_appears_when_it_is_complete_and_replaces_no_database() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (database, file) = (path("rockets.db"), path("export.ndjson"));
    ingest(&database, directory.path(), &[launched("a", 1)]);
    let export = |file: &str| run(&["export", file, "--database", &database]);
    let refused = export(&database);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(stderr(&refused).contains("rockets.db: is a database; give another name"));
    assert!(export(&file).status.success());
    let exported = fs::read_to_string(&file).unwrap();
    assert_eq!(exported.lines().count(), 2);
    let pipe = export("/dev/stdout");
    assert_eq!(stdout(&pipe).lines().nth(1), exported.lines().nth(1), "{pipe:?}");
    // The export fails after its first line. What was there stays, and nothing is left beside it.
    let files = || fs::read_dir(directory.path()).unwrap().count();
    let before = files();
    testkit::sqlite::sql(Path::new(&database), "DELETE FROM processed_ranges");
    let broken = export(&file);
    assert_eq!(broken.status.code(), Some(1), "{broken:?}");
    assert_eq!((fs::read_to_string(&file).unwrap(), files()), (exported, before));
    let broken = export(&path("new.ndjson"));
    assert_eq!((broken.status.code(), files()), (Some(1), before), "{broken:?}");
}

#[test]
fn an_old_backup_is_restored_under_a_running_service() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (old, backup, new) = (path("old.db"), path("backup.db"), path("new.db"));
    let messages: Vec<_> = (0..600_u32)
        .map(|index| faster(&format!("r{}", index % 7), index / 7 + 1, index as i32))
        .collect();
    ingest(&old, directory.path(), &messages[..300]);
    assert!(run(&["backup", &backup, "--database", &old]).status.success());
    // The database is gone. A new one takes messages, some of them again, while the backup is
    // merged.
    let service = Service::start(&new);
    std::thread::scope(|scope| {
        let address = service.address;
        let later = &messages[250..];
        scope.spawn(move || {
            let mut client = Client::new(address);
            for message in later {
                assert_eq!(client.post(message).status, 204);
            }
        });
        for _ in 0..2 {
            let merged = run(&["merge", &backup, "--database", &new]);
            assert_eq!(merged.status.code(), Some(0), "{merged:?}");
        }
    });
    // A copy of all messages has only duplicates.
    let file = path("all.ndjson");
    let lines: String = messages.iter().map(|message| message.to_string() + "\n").collect();
    fs::write(&file, lines).unwrap();
    let again = run(&["ingest", &file, "--database", &new]);
    assert_eq!(stdout(&again), "received 600: 0 applied, 600 duplicates, 0 rejected\n");
    let stats = Client::new(service.address).get("/stats").json();
    assert_eq!((&stats["processed"], &stats["missing"]), (&600.into(), &0.into()));
    let checked = run(&["check", "--database", &new]);
    assert!(checked.status.success(), "{}", stdout(&checked));
}
