//! `GET /metrics`.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;
use testkit::app::{App, Backend};
use testkit::conformance;
use testkit::message::{faster, launched};
use testkit::process::{stderr, stdout};
use testkit::wait::eventually;

use super::reports::fleet;

conformance!(metrics_count_what_happens, metrics_of_gaps_follow_losses);

/// The sum of a metric's values, over its labels.
fn metric(text: &str, name: &str) -> f64 {
    let line =
        text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
        .rsplit(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

/// The metrics of a new service after some requests.
fn metrics_after_requests(backend: Backend) -> String {
    let app = App::spawn(backend);
    let mut client = app.client();
    fleet(&mut client);
    client.post(&launched("a", 1));
    client.post_bytes(b"{").problem(400);
    client.post_bytes(b"{}").problem(422);
    client.post_lines(b"{}\nno\n");
    client.get("/rockets/none").problem(404);
    let metrics = client.get("/metrics");
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4"));
    String::from_utf8(metrics.body).unwrap()
}

fn metrics_count_what_happens(backend: Backend) {
    let text = metrics_after_requests(backend);
    for (name, value) in [
        ("messages_total{outcome=\"applied\",type=\"RocketLaunched\"}", 2.0),
        ("messages_total{outcome=\"applied\",type=\"RocketSpeedIncreased\"}", 3.0),
        ("messages_total{outcome=\"duplicate\",type=\"RocketLaunched\"}", 1.0),
        ("messages_rejected_total{reason=\"not_json\"}", 2.0),
        ("messages_rejected_total{reason=\"invalid\"}", 2.0),
        ("http_requests_total{route=\"/messages\",status=\"204\"}", 7.0),
        ("http_requests_total{route=\"/rockets/{channel}\",status=\"404\"}", 1.0),
        ("rockets{status=\"launched\"}", 1.0),
        ("rockets_with_gaps", 2.0),
        ("missing_messages", 4.0),
        ("lost_messages", 0.0),
        ("batch_messages_sum", 7.0),
        ("queue_bytes", 0.0),
        ("event_subscribers", 0.0),
    ] {
        assert_eq!(metric(&text, &format!("rocket_monitor_{name}")), value, "{name}");
    }
    assert!(!text.contains("none"), "nothing is labelled by channel");
}

fn metrics_of_gaps_follow_losses(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    // They are read at most once a second.
    let until = |has_gap: bool, lost: f64| {
        eventually("the metrics follow", || {
            let text = app.metrics();
            let oldest = metric(&text, "rocket_monitor_oldest_gap_seconds");
            // Nothing here takes longer than the tests' deadlines.
            assert!((0.0..1_000.0).contains(&oldest), "{oldest}");
            (oldest > 0.0, metric(&text, "rocket_monitor_lost_messages")) == (has_gap, lost)
        });
    };
    until(false, 0.0);
    // Channel a lacks 2 and 3, and channel c lacks 1 and 2.
    fleet(&mut client);
    until(true, 0.0);
    let mut declare = |channel: &str, first: u32, last: u32| {
        let loss = json!({ "first": first, "last": last, "reason": "overwritten" }).to_string();
        let path = format!("/rockets/{channel}/losses");
        let declared = client.request("POST", &path, &[], loss.as_bytes()).unwrap();
        assert_eq!(declared.status, 200);
    };
    declare("a", 1, 3);
    until(true, 2.0);
    declare("c", 2, 2);
    until(true, 3.0);
    declare("c", 1, 2);
    until(false, 4.0);
    // A lost message arrives after all, and a new gap opens.
    assert_eq!(client.post(&faster("a", 2, 1)).status, 204);
    until(false, 3.0);
    assert_eq!(client.post(&faster("a", 7, 1)).status, 204);
    until(true, 3.0);
}

/// Not one test for each store, so that these need no other program.
#[test]
fn metrics_satisfy_the_linter_of_prometheus() {
    let mut backends = vec![Backend::SqliteFile, Backend::SqliteMemory, Backend::Postgres];
    if std::env::var_os("ROCKET_MONITOR_TEST_CITUS").is_some() {
        backends.push(Backend::Citus);
    }
    for backend in backends {
        lint(&metrics_after_requests(backend));
    }
}

/// Runs Prometheus's own linter, which `run test` installs.
fn lint(metrics: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is there: on Debian, apt-get install prometheus");
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let linted = promtool.wait_with_output().unwrap();
    assert!(linted.status.success(), "{}{}", stdout(&linted), stderr(&linted));
}
