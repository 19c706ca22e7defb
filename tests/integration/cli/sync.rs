//! `sync`: two services that take different halves of a fleet's messages become equal.

use std::process::{Child, Stdio};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use testkit::client::{Client, rocket};
use testkit::message::{Event, Sent, launched};
use testkit::oracle::Oracle;
use testkit::postgres::TestDatabase;
use testkit::process::{Service, program, run, stderr, stdout};
use testkit::wait::eventually;

fn sent(rocket: u32, number: u32) -> Sent {
    let event = match number % 5 {
        1 => Event::Launched(format!("T{number}"), 100, format!("M{number}")),
        2 => Event::Mission(format!("M{number}")),
        3 => Event::Exploded(format!("R{number}")),
        _ => Event::Faster(number as i32),
    };
    Sent { channel: format!("r{rocket}"), number, micros: number * 7 % 50, event }
}

/// A running `sync --every`, which ends with this value.
struct Syncing(Child);

impl Drop for Syncing {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sync_every(url: &str, database: &str) -> Syncing {
    let mut command = program(&["sync", url, "--every", "1s", "--database", database]);
    Syncing(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

#[test]
fn services_that_are_cut_off_at_random_are_equal_after_the_last_sync() {
    let mut random = StdRng::seed_from_u64(19);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rockets.db");
    let file = file.to_str().unwrap();
    let postgres = TestDatabase::create();
    let services = [Service::start(file), Service::start(&postgres.url)];
    let url = format!("http://{}", services[1].address);
    let mut clients = services.each_ref().map(|service| Client::new(service.address));
    let mut next = [1_u32; 15];
    let mut taken = Vec::new();
    for _ in 0..6 {
        // They are connected in some of the rounds.
        let syncing = random.random_bool(0.5).then(|| sync_every(&url, file));
        for _ in 0..200 {
            let index = random.random_range(0..next.len());
            let message = sent(index as u32, next[index]);
            next[index] += 1;
            // Half of the messages here and half there, with overlaps; some are lost.
            for (client, share) in clients.iter_mut().zip([0..6, 4..9]) {
                if share.contains(&random.random_range(0..10)) {
                    assert_eq!(client.post(&message.json()).status, 204);
                    taken.push(message.clone());
                }
            }
        }
        drop(syncing);
    }
    let synced = run(&["sync", &url, "--database", file]);
    assert_eq!(synced.status.code(), Some(0), "{synced:?}");
    let oracle = Oracle::of(&taken);
    for client in &mut clients {
        for channel in oracle.channels() {
            assert_eq!(rocket(client, channel, "best-effort"), oracle.rocket(channel, false));
            assert_eq!(rocket(client, channel, "exact"), oracle.rocket(channel, true));
        }
        let lines: String = taken.iter().map(|sent| sent.json().to_string() + "\n").collect();
        assert_eq!(client.post_lines(lines.as_bytes()).json()["applied"], 0);
    }
    let again = stdout(&run(&["sync", &url, "--database", file]));
    assert_eq!(again.matches("0 messages gained, 0 conflicts").count(), 2, "{again}");
    for database in [file, &postgres.url] {
        assert!(run(&["check", "--database", database]).status.success());
    }
}

#[test]
fn it_waits_for_a_service_that_is_away_and_exchanges_what_has_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (here, there) = (path("here.db"), path("there.db"));
    let service = Service::start(&there);
    let address = service.address;
    let url = format!("http://{address}");
    let local = Service::start(&here);
    let _syncing = sync_every(&url, &here);
    let mut client = Client::new(local.address);
    client.post(&launched("before", 1));
    let has = |address, channel: &str| {
        Client::new(address).get(&format!("/rockets/{channel}")).status == 200
    };
    eventually("it is pushed", || has(address, "before"));
    drop(service);
    client.post(&launched("meanwhile", 1));
    let service = Service::start_at(&there, address);
    Client::new(service.address).post(&launched("there", 1));
    eventually("it is pushed when the service is back", || has(address, "meanwhile"));
    eventually("it is pulled", || has(local.address, "there"));
}

#[test]
fn only_pushing_only_pulling_and_failures() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (here, there) = (path("here.db"), path("there.db"));
    let [write, read] = ["write", "read"].map(|name| {
        std::fs::write(path(name), format!("{name}-token")).unwrap();
        path(name)
    });
    let tokens = ["--write-token-file", &write, "--read-token-file", &read];
    let service = Service::start_with(&[&["--database", &there][..], &tokens].concat());
    let local = Service::start(&here);
    Client::new(local.address).post(&launched("here", 1));
    let url = format!("http://{}", service.address);
    let sync = |more: &[&str]| run(&[&["sync", &url, "--database", &here], more].concat());
    let refused = sync(&[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("401"), "{refused:?}");
    let pulled = sync(&[&tokens[..], &["--pull"]].concat());
    assert_eq!(stdout(&pulled), "pulled 0 rockets: 0 changed, 0 messages gained, 0 conflicts\n");
    let pushed = sync(&[&tokens[..], &["--push"]].concat());
    assert_eq!(stdout(&pushed), "pushed 1 rockets: 1 changed, 1 messages gained, 0 conflicts\n");
    drop(service);
    let away = sync(&tokens);
    assert_eq!(away.status.code(), Some(1));
    assert!(stderr(&away).contains(&url), "{away:?}");
    let listed = Client::new(local.address).get("/rockets").json();
    assert_eq!(listed["rockets"].as_array().unwrap().len(), 1, "{}", json!(listed));
}
