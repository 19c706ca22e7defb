//! What an open dashboard costs, and how fast it is answered, in fleets of several sizes.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rocket_monitor::simulator::Fleet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::growth::{FLEET, ingest, scattered};
use crate::input::{get_request, post_request};
use crate::measure::{drive_for, drive_over, latencies, percentile, runtime};
use crate::servers::{Server, peak_kib, program};

const SIZES: [u32; 5] = [1_000, 10_000, 100_000, 300_000, 1_000_000];
/// How often each run without and with a dashboard is made. The median pair counts.
const TIMES: usize = 3;
/// How long each of these lasts: the dashboard reads every two seconds.
const BESIDE: Duration = Duration::from_secs(8);
/// How many rockets are new in a run.
const NEW_ROCKETS: u32 = 20_000;
/// How many messages another process ingests in a run.
const MORE: usize = 200_000;

/// What it asks for, one after the other.
const ASKED: [&str; 5] =
    ["/rockets", "/stats", "/reports/missions", "/reports/types", "/reports/explosions"];
const EVERY: Duration = Duration::from_secs(2);

/// Asks every two seconds for a page, the totals and the reports, and follows the events. It is
/// closed when this is dropped.
pub struct Dashboard {
    end: Arc<AtomicBool>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Dashboard {
    /// Returns when it has been answered once.
    pub fn open(address: SocketAddr) -> Self {
        let end = Arc::<AtomicBool>::default();
        let (answered, is_answered) = channel();
        let (asking, following) = (Arc::clone(&end), Arc::clone(&end));
        let ask = move || {
            while !asking.load(Ordering::Relaxed) {
                let started = Instant::now();
                drive_over(1, address, &ASKED.map(get_request));
                // Nobody waits for more than the first.
                let _ = answered.send(());
                while started.elapsed() < EVERY && !asking.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        };
        let readers =
            vec![std::thread::spawn(ask), std::thread::spawn(move || follow(address, &following))];
        is_answered.recv().unwrap();
        Self { end, readers }
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
    }
}

/// Reads events, without the rockets that are there at the beginning: the dashboard shows a page.
fn follow(address: SocketAddr, end: &AtomicBool) {
    runtime().block_on(async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&get_request("/events?snapshot=false")).await.unwrap();
        let mut read = Vec::with_capacity(1 << 16);
        while !end.load(Ordering::Relaxed) {
            read.clear();
            let part =
                tokio::time::timeout(Duration::from_millis(20), stream.read_buf(&mut read)).await;
            assert!(!matches!(part, Ok(Ok(0) | Err(_))), "the events ended");
        }
    });
}

/// The table: a row has a cell for each size.
#[derive(Default)]
struct Table {
    rows: Vec<(String, Vec<String>)>,
}

impl Table {
    fn add(&mut self, what: &str, cell: String) {
        match self.rows.iter_mut().find(|(name, _)| name == what) {
            Some((_, cells)) => cells.push(cell),
            None => self.rows.push((what.to_owned(), vec![cell])),
        }
    }

    fn text(&self) -> String {
        let sizes: Vec<String> = SIZES.iter().map(u32::to_string).collect();
        let mut text = format!(
            "\n| channels | {} |\n|---{}|\n",
            sizes.join(" | "),
            "|---".repeat(sizes.len())
        );
        for (what, cells) in &self.rows {
            writeln!(text, "| {what} | {} |", cells.join(" | ")).unwrap();
        }
        text + "\n"
    }
}

/// A run: its rate, and the times of its responses.
type Run = (f64, Vec<Duration>);

/// Runs without and with a dashboard in turns, and adds the rates of the median pair and its
/// slowest responses.
fn beside(table: &mut Table, what: &str, server: &Server, mut run: impl FnMut() -> Run) {
    let mut pairs: Vec<(Run, Run)> = (0..TIMES)
        .map(|_| {
            let alone = run();
            let dashboard = Dashboard::open(server.address);
            let beside = run();
            drop(dashboard);
            (alone, beside)
        })
        .collect();
    let ratio = |pair: &(Run, Run)| pair.1.0 / pair.0.0;
    pairs.sort_by(|a, b| ratio(a).total_cmp(&ratio(b)));
    let (alone, beside) = &pairs[TIMES / 2];
    table.add(what, format!("{:.0}/s, {:.0}/s ({:.2})", alone.0, beside.0, beside.0 / alone.0));
    if alone.1.is_empty() {
        return;
    }
    for (name, share) in [("p99", 0.99), ("longest", 1.0)] {
        let millis = |run: &Run| 1e3 * percentile(run.1.clone(), share);
        table.add(
            &format!("{what}: {name}"),
            format!("{:.1} ms, {:.1} ms", millis(alone), millis(beside)),
        );
    }
}

/// The rockets of a database, and how many messages each of them has sent.
#[derive(Clone)]
struct Rockets {
    channels: Rc<[String]>,
    sent: Rc<RefCell<Vec<u32>>>,
}

impl Rockets {
    fn new(rockets: u32) -> Self {
        let channels = (0..rockets).map(|rocket| FLEET.channel(rocket)).collect();
        Self { channels, sent: Rc::new(RefCell::new(vec![1; rockets as usize])) }
    }

    /// Their next messages, in no order of the rockets.
    fn messages(&self) -> impl Iterator<Item = (u32, u32)> + 'static {
        let sent = Rc::clone(&self.sent);
        scattered(self.channels.len() as u32).map(move |rocket| {
            let number = &mut sent.borrow_mut()[rocket as usize];
            *number += 1;
            (rocket, *number)
        })
    }

    fn posts(&self) -> impl Iterator<Item = Vec<u8>> + 'static {
        let channels = Rc::clone(&self.channels);
        self.messages().map(move |(rocket, number)| {
            post_request(&FLEET, &channels[rocket as usize], rocket, number)
        })
    }

    fn gets(&self) -> impl Iterator<Item = Vec<u8>> + 'static {
        let channels = Rc::clone(&self.channels);
        scattered(channels.len() as u32)
            .map(move |rocket| get_request(&format!("/rockets/{}", channels[rocket as usize])))
    }

    fn write(&self, file: &Path, messages: usize) {
        let mut out = BufWriter::new(std::fs::File::create(file).unwrap());
        let mut line = Vec::new();
        for (rocket, number) in self.messages().take(messages) {
            line.clear();
            FLEET.write_message(&self.channels[rocket as usize], rocket, number, &mut line);
            line.push(b'\n');
            out.write_all(&line).unwrap();
        }
        out.flush().unwrap();
    }
}

/// In each cell: without a dashboard, with one, and the ratio.
pub fn growth(directory: &Path) -> String {
    let mut table = Table::default();
    for rockets in SIZES {
        let directory = directory.join(format!("dashboard-{rockets}"));
        std::fs::create_dir(&directory).unwrap();
        ingest(&directory, (0..rockets).map(|rocket| (rocket, 1)), rockets.into());
        in_a_fleet(&mut table, &directory, rockets);
        std::fs::remove_dir_all(directory).unwrap();
    }
    table.text()
}

fn in_a_fleet(table: &mut Table, directory: &Path, rockets: u32) {
    let (server, rockets) = (Server::ours(directory), Rockets::new(rockets));
    beside(table, "POST, known rockets", &server, || {
        drive_for(BESIDE, server.address, rockets.posts())
    });
    beside(table, "GET /rockets/{channel}", &server, || {
        drive_for(BESIDE / 2, server.address, rockets.gets())
    });
    for sort in ["latestUpdate", "channel", "type", "speed", "mission", "status"] {
        let page = vec![get_request(&format!("/rockets?sort={sort}")); 50];
        let median = percentile(latencies(1, server.address, &page), 0.5);
        table.add(&format!("first page by {sort}"), format!("{:.1} ms", 1e3 * median));
    }
    let mut seed = FLEET.seed;
    beside(table, &format!("POST, {NEW_ROCKETS} new rockets"), &server, || {
        seed += 1;
        let fleet = Fleet { seed, ..FLEET };
        let requests = (0..NEW_ROCKETS)
            .map(move |rocket| post_request(&fleet, &fleet.channel(rocket), rocket, 1));
        drive_for(Duration::MAX, server.address, requests)
    });
    let (file, database) = (directory.join("more.ndjson"), directory.join("rockets.db"));
    let what = format!("ingest of {MORE} messages by another process");
    beside(table, &what, &server, || {
        rockets.write(&file, MORE);
        let started = Instant::now();
        let arguments =
            ["ingest", file.to_str().unwrap(), "--database", database.to_str().unwrap()];
        assert!(program(&arguments).status().unwrap().success());
        (MORE as f64 / started.elapsed().as_secs_f64(), Vec::new())
    });
    table.add(
        "memory of the service, the most that was resident",
        format!("{} MiB", peak_kib(&server.child).unwrap() / 1_024),
    );
}
