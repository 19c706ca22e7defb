//! kill -9 at random moments under load, with clients that resend: acknowledged messages are
//! stored, stored messages were sent and count once, and the audit is clean.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use testkit::client::{Client, rocket};
use testkit::message::{Event, Sent};
use testkit::oracle::Oracle;
use testkit::process::{Service, program, run, stdout};
use testkit::sqlite::query;
use testkit::wait::eventually;
use testkit::{faults, postgres};

const CHANNELS: u32 = 20;
const CLIENTS: u32 = 8;
/// The most messages that are acknowledged between a start and the next crash.
const MOST_BETWEEN: usize = 600;

fn sent(index: u32) -> Sent {
    // Exchanges neighbours, so that there are always gaps.
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

/// A database that outlives the services on it.
pub(super) enum Place {
    File { path: PathBuf, _directory: tempfile::TempDir },
    Postgres(postgres::TestDatabase),
}

impl Place {
    pub(super) fn file() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::File { path: directory.path().join("rockets.db"), _directory: directory }
    }

    pub(super) fn argument(&self) -> &str {
        match self {
            Self::File { path, .. } => path.to_str().unwrap(),
            Self::Postgres(database) => &database.url,
        }
    }

    /// Waits until everything that a killed service had started has ended.
    pub(super) fn settle(&self) {
        if let Self::Postgres(database) = self {
            eventually("the server has noticed", || !database.is_used());
        }
    }

    pub(super) fn ranges(&self) -> Vec<(String, u64, u64)> {
        self.ranges_of("SELECT channel, first_msg, last_msg FROM processed_ranges")
    }

    fn ranges_of(&self, sql: &str) -> Vec<(String, u64, u64)> {
        let rows: Vec<[Value; 3]> = match self {
            Self::File { path, .. } => {
                query(path, sql).into_iter().map(|row| row.try_into().unwrap()).collect()
            }
            Self::Postgres(database) => postgres::query(&database.url, sql)
                .into_iter()
                .map(|row| ["channel", "first_msg", "last_msg"].map(|column| row[column].clone()))
                .collect(),
        };
        let range = |[channel, first, last]: [Value; 3]| {
            (channel.as_str().unwrap().to_owned(), first.as_u64().unwrap(), last.as_u64().unwrap())
        };
        rows.into_iter().map(range).collect()
    }

    /// The numbers that are declared lost, from the database.
    fn losses(&self) -> BTreeSet<(String, u64)> {
        let rows = self.ranges_of("SELECT channel, first_msg, last_msg FROM losses");
        let numbers = |(channel, first, last): (String, u64, u64)| {
            (first..=last).map(move |number| (channel.clone(), number))
        };
        rows.into_iter().flat_map(numbers).collect()
    }

    /// The processed messages, from the database.
    pub(super) fn processed(&self) -> BTreeSet<(String, u32)> {
        let mut processed = BTreeSet::new();
        for (channel, first, last) in self.ranges() {
            for number in first..=last {
                assert!(
                    processed.insert((channel.clone(), number as u32)),
                    "{channel} {number} is there twice"
                );
            }
        }
        processed
    }
}

/// What clients have done over all lives of the service.
#[derive(Default)]
struct Load {
    next: AtomicU32,
    acknowledged: Mutex<Vec<u32>>,
    acknowledgements: AtomicUsize,
    /// Sent, but not acknowledged before the service was killed: must be sent again.
    again: Mutex<Vec<u32>>,
    /// The numbers that an operator has declared lost, and those of which he got no response.
    declared: Mutex<BTreeSet<(String, u64)>>,
    maybe_declared: Mutex<BTreeSet<(String, u64)>>,
}

impl Load {
    /// Sends messages until the service is gone, and some of them twice.
    fn send(&self, service: &Service) {
        let mut client = Client::new(service.address);
        loop {
            let index = self.again.lock().unwrap().pop();
            let index = index.unwrap_or_else(|| self.next.fetch_add(1, Ordering::SeqCst));
            for _ in 0..if index.is_multiple_of(9) { 2 } else { 1 } {
                match client.request(
                    "POST",
                    "/messages",
                    &[],
                    sent(index).json().to_string().as_bytes(),
                ) {
                    Ok(answer) => assert_eq!(answer.status, 204, "{answer:?}"),
                    Err(_) => return self.again.lock().unwrap().push(index),
                }
            }
            self.acknowledged.lock().unwrap().push(index);
            self.acknowledgements.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Declares one number after the other lost, whether it is missing or not, until the service is
    /// gone. It is no longer lost when the load sends it.
    fn declare(&self, service: &Service) {
        let mut client = Client::new(service.address);
        let mut next = [1; CHANNELS as usize];
        for rocket in (0..CHANNELS as usize).cycle() {
            let loss = (format!("c{rocket}"), next[rocket]);
            let body = json!({ "first": loss.1, "last": loss.1, "reason": "a crash" });
            let path = format!("/rockets/{}/losses", loss.0);
            match client.request("POST", &path, &[], body.to_string().as_bytes()) {
                Ok(answer) if answer.status == 200 => {
                    self.declared.lock().unwrap().insert(loss);
                    next[rocket] += 1;
                }
                // The rocket is unknown, or has no higher number yet.
                Ok(answer) => assert!([404, 422].contains(&answer.status), "{answer:?}"),
                Err(_) => {
                    self.maybe_declared.lock().unwrap().insert(loss);
                    return;
                }
            }
        }
    }

    fn all_sent(&self) -> impl Iterator<Item = Sent> {
        (0..self.next.load(Ordering::SeqCst)).map(sent)
    }
}

fn identity(sent: &Sent) -> (String, u32) {
    (sent.channel.clone(), sent.number)
}

fn nothing_is_lost(place: &Place, backend: &str) {
    let (load, mut random) = (Load::default(), StdRng::seed_from_u64(1));
    let crashes = faults::times(5, 100);
    for crash in 0..crashes {
        if crash % 5 == 4 {
            crash_at_start(place, &mut random);
        } else {
            crash_under_load(place, &load, &mut random);
        }
        place.settle();
        check_state(place, &load);
    }
    let declared = load.declared.lock().unwrap().len();
    assert!(declared > 0);
    complete(place, &load);
    faults::row(
        &format!("kill -9 under load, clients resend ({backend})"),
        format!(
            "{crashes} kills, {} messages, {declared} declared losses",
            load.next.load(Ordering::SeqCst)
        ),
        "lost 0, counted twice 0, every audit clean",
    );
}

fn crash_under_load(place: &Place, load: &Load, random: &mut StdRng) {
    let service = Service::start(place.argument());
    let wanted =
        load.acknowledgements.load(Ordering::SeqCst) + random.random_range(1..MOST_BETWEEN);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| load.send(&service));
        }
        scope.spawn(|| load.declare(&service));
        eventually("enough messages are acknowledged", || {
            load.acknowledgements.load(Ordering::SeqCst) >= wanted
        });
        // Otherwise, the service would always be killed right after a commit. This waits for
        // nothing.
        std::thread::sleep(Duration::from_micros(random.random_range(0..5_000)));
        service.kill_now();
    });
}

/// Kills it before, while or after it opens the database.
fn crash_at_start(place: &Place, random: &mut StdRng) {
    let mut command =
        program(&["serve", "--listen", "127.0.0.1:0", "--database", place.argument()]);
    let mut service = command.stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_micros(random.random_range(0..60_000)));
    service.kill().unwrap();
    service.wait().unwrap();
}

/// acknowledged ⊆ processed ⊆ sent, and the state is the fold of the processed messages.
fn check_state(place: &Place, load: &Load) {
    // Another process reads first, which recovers what the killed one left.
    let checked = run(&["check", "--database", place.argument()]);
    assert!(checked.status.success(), "{}", stdout(&checked));
    let processed = place.processed();
    let acknowledged = load.acknowledged.lock().unwrap();
    let lost: Vec<_> = acknowledged
        .iter()
        .map(|index| identity(&sent(*index)))
        .filter(|it| !processed.contains(it))
        .collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let (losses, declared) = (place.losses(), load.declared.lock().unwrap());
    assert!(declared.is_subset(&losses), "declarations are lost");
    let maybe_declared = load.maybe_declared.lock().unwrap();
    assert!(losses.difference(&declared).all(|loss| maybe_declared.contains(loss)));
    let all_sent: BTreeSet<_> = load.all_sent().map(|sent| identity(&sent)).collect();
    assert!(processed.is_subset(&all_sent), "processed and never sent");
    let folded: Vec<Sent> =
        load.all_sent().filter(|sent| processed.contains(&identity(sent))).collect();
    let service = Service::start(place.argument());
    agree(&service, &folded, &losses);
}

fn agree(service: &Service, processed: &[Sent], losses: &BTreeSet<(String, u64)>) {
    let mut oracle = Oracle::of(processed);
    for (channel, number) in losses {
        let number = *number as u32;
        oracle.lose(channel, number..=number);
    }
    let mut client = Client::new(service.address);
    for channel in oracle.channels() {
        assert_eq!(rocket(&mut client, channel, "best-effort"), oracle.rocket(channel, false));
        assert_eq!(rocket(&mut client, channel, "exact"), oracle.rocket(channel, true));
    }
}

/// Sending everything again completes the fleet.
fn complete(place: &Place, load: &Load) {
    let processed = place.processed().len();
    let mut service = Service::start(place.argument());
    let all: Vec<Sent> = load.all_sent().collect();
    let lines: String = all.iter().map(|sent| sent.json().to_string() + "\n").collect();
    let counts = Client::new(service.address).post_lines(lines.as_bytes()).json();
    assert_eq!((&counts["received"], &counts["rejected"]), (&json!(all.len()), &json!(0)));
    assert_eq!(counts["duplicates"], processed);
    agree(&service, &all, &place.losses());
    assert!(service.terminate().success());
}

#[test]
fn nothing_is_lost_on_sqlite() {
    nothing_is_lost(&Place::file(), "SQLite");
}

#[test]
fn nothing_is_lost_on_postgres() {
    nothing_is_lost(&Place::Postgres(postgres::TestDatabase::create()), "Postgres");
}
