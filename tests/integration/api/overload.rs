//! Overload: idle and stalled connections, clients that don't read, and twice the load. Memory
//! stays bounded, normal requests are answered, and the rest is refused at once.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use testkit::client::{Answer, Client};
use testkit::events::Events;
use testkit::faults;
use testkit::message::{faster, launched};
use testkit::process::{Service, program, run};
use testkit::wait::{DEADLINE, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

/// The resident memory of the service's process, in KiB.
fn resident(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn connections(address: SocketAddr, count: u64, first_bytes: &str) -> Vec<TcpStream> {
    let connect = |_| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(first_bytes.as_bytes()).unwrap();
        stream
    };
    (0..count).map(connect).collect()
}

/// The slowest of some normal requests, one after the other: messages, a rocket, a page.
fn slowest_honest(address: SocketAddr, from: u32, requests: u32) -> Duration {
    let mut client = Client::new(address);
    let mut slowest = Duration::ZERO;
    for number in from..from + requests {
        for request in 0..3 {
            let started = Instant::now();
            let (answer, expected) = match request {
                0 => (client.post(&faster("honest", number, 1)), 204),
                1 => (client.get("/rockets/honest"), 200),
                _ => (client.get("/rockets?limit=10"), 200),
            };
            assert_eq!(answer.status, expected, "{answer:?}");
            slowest = slowest.max(started.elapsed());
        }
    }
    slowest
}

/// A fleet with large pages.
fn wordy_fleet(service: &Service) {
    let lines: String = (0..1_000)
        .map(|rocket| {
            let mut message = launched(&format!("{rocket:0>255}"), 1);
            message["message"]["type"] = "é".repeat(255).into();
            message["message"]["mission"] = "é".repeat(255).into();
            message.to_string() + "\n"
        })
        .collect();
    assert_eq!(Client::new(service.address).post_lines(lines.as_bytes()).json()["applied"], 1_000);
}

/// The most memory for this many connections, in KiB: 40 each, the budget of large responses (64
/// MiB), and what the allocator keeps.
fn bound(connections: u64) -> u64 {
    40 * connections + (64 + 64) * 1024
}

#[test]
fn idle_stalled_and_slow_connections_cost_little_and_hold_up_nobody() {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path().join("rockets.db"));
    let address = service.address;
    wordy_fleet(&service);
    slowest_honest(address, 1, 50);
    let before = resident(&service);
    let (idle, stalled, slow) =
        (faults::times(1_000, 10_000), faults::times(100, 1_000), faults::times(200, 1_000));

    let idle_ones = connections(address, idle, "");
    let after_idle = resident(&service);
    let mut heads = connections(
        address,
        stalled / 2,
        "POST /messages HTTP/1.1\r\nHost: localhost\r\nContent-Le",
    );
    let body =
        "POST /messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{\"metadata\":{";
    let mut bodies = connections(address, stalled / 2, body);
    // Each requests about 2 MiB, and reads nothing of it.
    let page = "GET /rockets?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let slow_ones = connections(address, slow, page);
    let slowest = slowest_honest(address, 51, 300);
    let after_all = resident(&service);
    let allowed = bound(idle + stalled + slow);
    assert!(
        after_all < before + allowed,
        "{before} KiB grew to {after_all} KiB; allowed are {allowed} more"
    );
    faults::row(
        "idle connections, stalled requests, and clients that request 2 MiB and don't read it",
        format!("{idle}, {stalled} and {slow} at once"),
        format!(
            "memory grew by {} MiB for the idle ones and by {} MiB in all; \
             the slowest normal request took {} ms",
            (after_idle.saturating_sub(before)) / 1024,
            (after_all - before) / 1024,
            slowest.as_millis()
        ),
    );
    // Stalled clients get an error, and are disconnected.
    for stream in [&mut heads[0], &mut bodies[0]] {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    drop((idle_ones, slow_ones));
    slowest_honest(address, 351, 10);
}

#[test]
fn with_more_connections_than_files_others_wait_until_some_have_ended() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    let serve =
        program(&["serve", "--listen", "127.0.0.1:0", "--database", database.to_str().unwrap()]);
    let mut limited = Command::new("bash");
    limited
        .args(["-c", "ulimit -n 800; exec \"$0\" \"$@\""])
        .arg(serve.get_program())
        .args(serve.get_args());
    for (name, _) in serve.get_envs() {
        limited.env_remove(name);
    }
    let service = Service::spawn(limited);
    let idle = connections(service.address, 600, "");
    // Silent clients are disconnected after a while; then this one is accepted.
    assert_eq!(Client::new(service.address).post(&launched("r", 1)).status, 204);
    assert_eq!(run(&["check", "--database", database.to_str().unwrap()]).status.code(), Some(0));
    drop(idle);
}

/// The results of the offered requests.
#[derive(Default)]
struct Offered {
    taken: Vec<Duration>,
    sent_away: Vec<Duration>,
}

/// Sends one message, and waits for the response.
async fn post(stream: &mut tokio::net::TcpStream, message: &str) -> std::io::Result<u16> {
    let request = format!(
        "POST /messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{message}",
        message.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        let length = head
            .split("content-length: ")
            .nth(1)
            .map_or(0, |rest| rest.split("\r\n").next().unwrap().parse::<usize>().unwrap());
        if answer.len() >= end + 4 + length {
            return Ok(head[9..12].parse().unwrap());
        }
    }
}

/// Offers messages from independent clients: at a fixed rate if there is one, else as fast as they
/// are accepted.
fn offer(
    address: SocketAddr,
    from: u32,
    rate: Option<f64>,
    connections: u32,
    time: Duration,
) -> Offered {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let arrivals = Arc::new(Semaphore::new(0));
        let until = Instant::now() + time;
        let clients: Vec<_> = (0..connections)
            .map(|client| {
                let arrivals = Arc::clone(&arrivals);
                tokio::spawn(async move {
                    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
                    let mut offered = Offered::default();
                    for number in from.. {
                        if rate.is_some() {
                            match tokio::time::timeout_at(until.into(), arrivals.acquire()).await {
                                Ok(arrival) => arrival.unwrap().forget(),
                                Err(_) => break,
                            }
                        }
                        if Instant::now() > until {
                            break;
                        }
                        let sent = Instant::now();
                        match post(
                            &mut stream,
                            &faster(&format!("o{client}"), number, 1).to_string(),
                        )
                        .await
                        .unwrap()
                        {
                            204 => offered.taken.push(sent.elapsed()),
                            503 => offered.sent_away.push(sent.elapsed()),
                            status => panic!("{status}"),
                        }
                    }
                    offered
                })
            })
            .collect();
        let started = Instant::now();
        let mut come = 0;
        while let Some(rate) = rate.filter(|_| Instant::now() < until) {
            let due = (started.elapsed().as_secs_f64() * rate) as usize;
            arrivals.add_permits(due - come);
            come = due;
            // The next arrivals are due then.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut all = Offered::default();
        for client in clients {
            let offered = client.await.unwrap();
            all.taken.extend(offered.taken);
            all.sent_away.extend(offered.sent_away);
        }
        all
    })
}

fn millis(waits: &mut [Duration], share: f64) -> u128 {
    waits.sort();
    waits.get(((waits.len().max(1) - 1) as f64 * share) as usize).map_or(0, Duration::as_millis)
}

#[test]
fn twice_the_load_is_answered_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    let service = Service::start(&database);
    let (address, time) = (service.address, Duration::from_millis(faults::times(500, 10_000)));
    let capacity = offer(address, 1, None, 64, time).taken.len() as f64 / time.as_secs_f64();
    let before = resident(&service);
    let (mut offered, slowest) = std::thread::scope(|scope| {
        let offering = scope.spawn(|| offer(address, 1_000_000, Some(2.0 * capacity), 2_000, time));
        let slowest = slowest_honest(address, 1, 20);
        (offering.join().unwrap(), slowest)
    });
    let grown = resident(&service).saturating_sub(before);
    assert!(grown < bound(2_000), "{grown} KiB");
    assert!(!offered.taken.is_empty());
    let figure = format!(
        "{:.0}/s taken, half of the waits below {} ms, 99% below {} ms, all below {} ms; \
         {} sent away; an honest client's slowest request took {} ms; memory grew by {} MiB",
        offered.taken.len() as f64 / time.as_secs_f64(),
        millis(&mut offered.taken, 0.5),
        millis(&mut offered.taken, 0.99),
        millis(&mut offered.taken, 1.0),
        offered.sent_away.len(),
        slowest.as_millis(),
        grown / 1024,
    );
    faults::row(
        "twice the load that the service can take, over 2,000 connections",
        format!("{:.0}/s offered where {capacity:.0}/s can be taken", 2.0 * capacity),
        figure,
    );
    eventually("all is well", || Client::new(address).get("/readyz").status == 200);
    assert_eq!(run(&["check", "--database", database.to_str().unwrap()]).status.code(), Some(0));
}

/// Sends a byte now and then, until there is a response.
fn answer_to_trickle(client: &mut Client) -> Answer {
    let deadline = Instant::now() + DEADLINE;
    while !client.has_answer_within(Duration::from_millis(300)) {
        assert!(Instant::now() < deadline, "no answer to a head that comes to no end");
        // It may have ended in between.
        let _ = client.send(b"x");
    }
    client.answer(false).unwrap()
}

#[test]
fn every_head_has_to_come_to_its_end_in_time_and_whoever_is_answered_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path().join("rockets.db"));
    let (address, mut honest) = (service.address, Client::new(service.address));
    assert_eq!(honest.post(&launched("honest", 1)).status, 204);
    let mut followed = Events::open(address, "", None);
    followed.snapshot();

    let stalled_after = |requests: u32| {
        let mut client = Client::new(address);
        for number in 1..=requests {
            assert_eq!(client.post(&launched("used", number)).status, 204);
        }
        client.send(b"GET /rockets HTTP/1.1\r\nHost: local").unwrap();
        client
    };
    // One after the other: what is open in the meantime stays open for longer than any head may
    // take.
    let mut answers = vec![answer_to_trickle(&mut stalled_after(1))];
    let stalled: Vec<Client> = (0..3).map(stalled_after).collect();
    answers.extend(stalled.into_iter().map(|mut client| client.answer(false).unwrap()));
    for answer in answers {
        assert_eq!(answer.problem(408)["title"], "Request Timeout");
        assert!(
            answer.header("date").is_some() && answer.header("connection") == Some("close"),
            "{answer:?}"
        );
    }
    // These were open just as long: one between two requests, one in the middle of a response.
    assert_eq!(honest.post(&faster("honest", 2, 1)).status, 204);
    followed.until("the change", |event| event.data["messages"]["processed"] == 2);
}
