//! Kill -9 under load: what was acknowledged is there, what is there was sent, and the state is the fold of it.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::oracle::{Event, Oracle, Sent};
use crate::support::{Client, Service, eventually, query, rocket, run, stdout};

const CHANNELS: u32 = 20;
const MESSAGES_A_CHANNEL: u32 = 1_500;
const CLIENTS: u32 = 8;
const CRASHES: usize = 5;

fn sent(index: u32) -> Sent {
    // Neighbours are exchanged, so that there are gaps at all times.
    let index = index ^ 21;
    let number = index / CHANNELS + 1;
    let event = match number % 10 {
        1 => Event::Launched(format!("T{number}"), 100, "M".to_owned()),
        2 => Event::Mission(format!("M{number}")),
        3 => Event::Exploded(format!("R{number}")),
        4..=6 => Event::Slower(number as i32),
        _ => Event::Faster(number as i32),
    };
    Sent { channel: format!("c{}", index % CHANNELS), number, micros: number * 7, event }
}

fn total() -> u32 {
    // A multiple of the block in which neighbours are exchanged.
    CHANNELS * MESSAGES_A_CHANNEL / 32 * 32
}

/// The processed messages, as the database says.
fn processed(database: &std::path::Path) -> BTreeSet<(String, u32)> {
    let mut processed = BTreeSet::new();
    for row in query(database, "SELECT channel, first_msg, last_msg FROM processed_ranges") {
        let [channel, first, last] = &row[..] else { panic!("{row:?}") };
        for number in first.as_u64().unwrap()..=last.as_u64().unwrap() {
            assert!(processed.insert((channel.as_str().unwrap().to_owned(), number as u32)), "{row:?} overlaps");
        }
    }
    processed
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_counts_twice() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    let (next, acknowledged, acknowledgements) = (AtomicU32::new(0), Mutex::new(Vec::new()), AtomicUsize::new(0));
    for crash in 1..=CRASHES {
        let service = Service::start(&database);
        let address = service.address;
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    let mut client = Client::new(address);
                    loop {
                        let index = next.fetch_add(1, Ordering::SeqCst);
                        if index >= total() {
                            return;
                        }
                        let body = sent(index).json().to_string();
                        match client.request("POST", "/messages", &[], body.as_bytes()) {
                            Ok(answer) => {
                                assert_eq!(answer.status, 204);
                                acknowledged.lock().unwrap().push(index);
                                acknowledgements.fetch_add(1, Ordering::SeqCst);
                            }
                            // Killed: this one is sent, but not acknowledged.
                            Err(_) => return,
                        }
                    }
                });
            }
            // Killed in the middle of it, at another point each time.
            let wanted = crash * total() as usize / (CRASHES + 2) + crash * 13;
            eventually("enough messages are acknowledged", || acknowledgements.load(Ordering::SeqCst) >= wanted);
            service.kill();
        });
        check_state(&database, &acknowledged.lock().unwrap(), next.load(Ordering::SeqCst));
    }
    complete(&database, processed(&database).len());
}

/// acknowledged ⊆ processed ⊆ sent, and the state is the fold of what is processed.
fn check_state(database: &std::path::Path, acknowledged: &[u32], next: u32) {
    // Read by another process's eyes first, which recovers what the killed one left.
    let checked = run(&["check", "--database", database.to_str().unwrap()]);
    assert!(checked.status.success(), "{}", stdout(&checked));
    let processed = processed(database);
    let identity = |sent: Sent| (sent.channel, sent.number);
    let lost: Vec<_> =
        acknowledged.iter().map(|index| identity(sent(*index))).filter(|it| !processed.contains(it)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let all_sent: BTreeSet<_> = (0..next.min(total())).map(|index| identity(sent(index))).collect();
    assert!(processed.is_subset(&all_sent), "processed and never sent");
    let folded: Vec<Sent> =
        (0..next.min(total())).map(sent).filter(|it| processed.contains(&identity(it.clone()))).collect();
    let oracle = Oracle::of(&folded);
    let service = Service::start(database);
    let mut client = Client::new(service.address);
    for channel in oracle.channels() {
        assert_eq!(rocket(&mut client, channel, "best-effort"), oracle.rocket(channel, false));
        assert_eq!(rocket(&mut client, channel, "exact"), oracle.rocket(channel, true));
    }
}

/// Sending everything again completes the fleet.
fn complete(database: &std::path::Path, processed: usize) {
    let mut service = Service::start(database);
    let mut client = Client::new(service.address);
    let lines: String = (0..total()).map(|index| sent(index).json().to_string() + "\n").collect();
    let counts = client.post_lines(lines.as_bytes()).json();
    assert_eq!((&counts["received"], &counts["rejected"]), (&json!(total()), &json!(0)));
    assert_eq!(counts["duplicates"], processed);
    let all: Vec<Sent> = (0..total()).map(sent).collect();
    let oracle = Oracle::of(&all);
    for channel in oracle.channels() {
        let view: Value = rocket(&mut client, channel, "exact");
        assert_eq!(view, oracle.rocket(channel, true));
        assert_eq!(view["messages"]["missing"], 0);
    }
    assert!(service.terminate().success());
    assert_eq!(query(database, "SELECT count(*) FROM processed_ranges")[0][0], CHANNELS);
}
