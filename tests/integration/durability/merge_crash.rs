//! kill -9 while another database is merged: each rocket is merged as a whole or not at all, what
//! was there stays, and repeating the merge completes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Stdio;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use testkit::client::Client;
use testkit::message::faster;
use testkit::process::{Service, program, run, stdout};
use testkit::wait::eventually;
use testkit::{faults, postgres};

use super::crash::Place;

/// Several transactions of a merge.
const ROCKETS: u32 = 4_000;

/// The processed numbers of each rocket.
type Numbers = BTreeMap<String, BTreeSet<u32>>;

fn numbers(place: &Place) -> Numbers {
    let mut numbers = Numbers::new();
    for (channel, number) in place.processed() {
        numbers.entry(channel).or_default().insert(number);
    }
    numbers
}

fn processed(place: &Place) -> u64 {
    place.ranges().iter().map(|(_, first, last)| last - first + 1).sum()
}

/// Takes messages with these numbers of all rockets.
fn ingest(place: &Place, directory: &Path, numbers: &[u32]) {
    let file = directory.join("messages.ndjson");
    let message = |rocket, number| faster(&format!("r{rocket}"), number, 5).to_string() + "\n";
    let lines =
        numbers.iter().flat_map(|number| (0..ROCKETS).map(move |rocket| message(rocket, *number)));
    fs::write(&file, lines.collect::<String>()).unwrap();
    let ingested = run(&["ingest", file.to_str().unwrap(), "--database", place.argument()]);
    assert!(ingested.status.success(), "{ingested:?}");
}

/// Merges an export, and kills what merges it when the target has so many messages.
fn crash(target: &Place, export: &Path, wanted: u64, by_service: bool) {
    if by_service {
        let service = Service::start(target.argument());
        let text = fs::read(export).unwrap();
        let address = service.address;
        std::thread::scope(|scope| {
            // It breaks off, or is just done.
            scope.spawn(move || Client::new(address).request("POST", "/merge", &[], &text));
            eventually("enough is merged", || processed(target) >= wanted);
            service.kill_now();
        });
    } else {
        let arguments = ["merge", export.to_str().unwrap(), "--database", target.argument()];
        let mut merge = program(&arguments).stdout(Stdio::null()).spawn().unwrap();
        eventually("enough is merged", || processed(target) >= wanted);
        merge.kill().unwrap();
        merge.wait().unwrap();
    }
    target.settle();
}

fn rockets_are_whole(target: &Place, backend: &str) {
    let directory = tempfile::tempdir().unwrap();
    let export = directory.path().join("export.ndjson");
    let export_argument = export.to_str().unwrap();
    let source = Place::file();
    let mut random = StdRng::seed_from_u64(2);
    ingest(target, directory.path(), &[1, 3]);
    let (crashes, mut halfway) = (faults::times(4, 60), 0);
    for crash_number in 0..crashes as u32 {
        // The target lacks the first and the third of these.
        let first = crash_number * 4 + 2;
        ingest(&source, directory.path(), &[first, first + 1, first + 2]);
        ingest(target, directory.path(), &[first + 1]);
        let exported = run(&["export", export_argument, "--database", source.argument()]);
        assert!(exported.status.success(), "{exported:?}");
        let (before, theirs) = (numbers(target), numbers(&source));
        let count = processed(target);
        let wanted = count + random.random_range(1..u64::from(ROCKETS));
        crash(target, &export, wanted, crash_number % 2 == 0);
        let checked = run(&["check", "--database", target.argument()]);
        assert!(checked.status.success(), "{}", stdout(&checked));
        let mut merged = 0;
        for (channel, after) in numbers(target) {
            let is_merged = after != before[&channel];
            assert!(!is_merged || after == &before[&channel] | &theirs[&channel], "{channel}");
            merged += u32::from(is_merged);
        }
        halfway += u32::from((1..ROCKETS).contains(&merged));
    }
    assert!(halfway > 0, "no merge was killed halfway");
    let merge = || stdout(&run(&["merge", export_argument, "--database", target.argument()]));
    assert!(merge().contains(" 0 conflicts"));
    let all: Numbers = numbers(&source)
        .into_iter()
        .map(|(channel, mut numbers)| {
            numbers.extend([1, 3]);
            (channel, numbers)
        })
        .collect();
    assert_eq!(numbers(target), all);
    let nothing = format!("read {ROCKETS} rockets: 0 changed, 0 messages gained, 0 conflicts\n");
    assert_eq!(merge(), nothing);
    let checked = run(&["check", "--database", target.argument()]);
    assert!(checked.status.success(), "{}", stdout(&checked));
    faults::row(
        &format!("kill -9 while a database is merged ({backend})"),
        format!("{crashes} kills, {halfway} of them halfway"),
        "every rocket merged or unchanged, every audit clean",
    );
}

#[test]
fn rockets_are_whole_on_sqlite() {
    rockets_are_whole(&Place::file(), "SQLite");
}

#[test]
fn rockets_are_whole_on_postgres() {
    rockets_are_whole(&Place::Postgres(postgres::TestDatabase::create()), "Postgres");
}
