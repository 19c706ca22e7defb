//! Several instances of the service on one database, and other programs beside them.

mod citus;
mod interleavings;
mod on_postgres;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use testkit::client::{Client, rocket};
use testkit::message::Sent;
use testkit::oracle::{Oracle, arrivals};
use testkit::postgres::TestDatabase;
use testkit::process::{Service, run, stderr, stdout};

pub fn check(database: &TestDatabase) -> (Option<i32>, String) {
    let checked = run(&["check", "--database", &database.url]);
    (checked.status.code(), stdout(&checked) + &stderr(&checked))
}

/// Starts an instance for each URL of the database.
pub fn copies_count_once(database: &TestDatabase, urls: &[String]) {
    let services: Vec<Service> = urls.iter().map(Service::start).collect();
    let mut runner = TestRunner::deterministic();
    // Copies of a message are equal only within one draw, so each draw has its own channels.
    let draw = |number| {
        let batches = arrivals().new_tree(&mut runner).unwrap().current();
        let own = move |sent: Sent| Sent { channel: format!("{} {number}", sent.channel), ..sent };
        batches.concat().into_iter().map(own)
    };
    let sent: Vec<Sent> = (0..30).flat_map(draw).collect();
    let oracle = Oracle::of(&sent);
    // Each instance gets everything from two clients, in different orders, from one of them as
    // lines.
    let applied: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4_usize)
            .map(|client| {
                let (sent, service) = (&sent, &services[client % services.len()]);
                scope.spawn(move || send_all(service, sent, client))
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    let distinct: usize = oracle.channels().map(|channel| oracle.numbers(channel)).sum();
    assert_eq!(applied, distinct, "each was new to exactly one client");
    for service in &services {
        let mut client = Client::new(service.address);
        for channel in oracle.channels() {
            assert_eq!(rocket(&mut client, channel, "best-effort"), oracle.rocket(channel, false));
            assert_eq!(rocket(&mut client, channel, "exact"), oracle.rocket(channel, true));
        }
    }
    assert_eq!(check(database).0, Some(0));
}

/// Sends all messages. Returns how many were new.
fn send_all(service: &Service, sent: &[Sent], client: usize) -> usize {
    let mut connection = Client::new(service.address);
    let start = client * sent.len() / 4;
    let order = sent[start..].iter().chain(&sent[..start]);
    if client < 2 {
        let lines: Vec<String> = order.map(|sent| sent.json().to_string()).collect();
        let counts =
            lines.chunks(50).map(|lines| connection.post_lines(lines.join("\n").as_bytes()).json());
        return counts.map(|counts| counts["applied"].as_u64().unwrap() as usize).sum();
    }
    order
        .filter(|sent| {
            let answer = connection.post(&sent.json());
            assert_eq!(answer.status, 204, "{answer:?}");
            answer.header("idempotent-replayed").is_none()
        })
        .count()
}
