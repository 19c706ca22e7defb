//! What operators use: reports, metrics, backups, completions, the manual page, and the files in
//! `deploy`.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use testkit::app::{App, Backend};
use testkit::client::Client;
use testkit::conformance;
use testkit::message::{exploded, faster, launched};
use testkit::process::{COMMANDS, Service, run, stderr, stdout};
use testkit::sqlite::sql;

conformance!(
    reports_say_what_the_views_say,
    the_fleets_totals_are_its_report,
    reports_come_as_csv_to_who_asks_for_it,
    metrics_count_what_happens,
);

/// A fleet of four with every kind of reportable data.
fn fleet(client: &mut Client) {
    for message in [
        launched("a", 1),
        faster("a", 4, 1),
        launched("b", 1),
        exploded("b", 2, "a \"big\" bang, twice"),
        faster("c", 3, 7),
        faster("d", 1, 8),
    ] {
        assert_eq!(client.post(&message).status, 204);
    }
}

fn reports_say_what_the_views_say(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    fleet(&mut client);
    let named = client.get("/reports").json();
    let names: Vec<&Value> =
        named["reports"].as_array().unwrap().iter().map(|report| &report["name"]).collect();
    assert_eq!(names, ["missions", "types", "explosions", "fleet", "gaps"]);
    let mut rows = |name: &str| {
        let report = client.get(&format!("/reports/{name}")).json();
        assert_eq!(report["name"], name);
        report["rows"].clone()
    };
    let missions = json!([
        { "mission": "ARTEMIS", "rockets": 2, "launched": 1, "exploded": 1, "meanSpeed": 500.5, "maxSpeed": 501 },
        { "mission": null, "rockets": 2, "launched": 0, "exploded": 0, "meanSpeed": 7.5, "maxSpeed": 8 },
    ]);
    assert_eq!(rows("missions"), missions);
    assert_eq!(rows("types")[0]["type"], "Falcon-9");
    let explosions = json!([
        { "reason": "a \"big\" bang, twice", "rockets": 1, "latestUpdate": "2022-02-02T18:39:05.863370Z" }
    ]);
    assert_eq!(rows("explosions"), explosions);
    let gaps = json!([
        { "channel": "a", "firstMissing": 2, "lastMissing": 3, "afterTime": "2022-02-02T18:39:05.863370Z" },
        { "channel": "c", "firstMissing": 1, "lastMissing": 2, "afterTime": null },
    ]);
    assert_eq!(rows("gaps"), gaps);
    client.get("/reports/rockets").problem(404);
    client.get("/reports/gaps?limit=3").problem(400);
    if !matches!(backend, Backend::SqliteMemory) {
        for name in ["missions", "types", "explosions", "fleet", "gaps"] {
            let printed =
                run(&["report", name, "--format", "json", "--database", &app.database_argument()]);
            assert_eq!(
                printed.stdout.trim_ascii_end(),
                client.get(&format!("/reports/{name}")).body
            );
        }
        let table = stdout(&run(&["report", "missions", "--database", &app.database_argument()]));
        assert!(table.contains("mean_speed") && table.contains("500.5"), "{table}");
    }
}

fn the_fleets_totals_are_its_report(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let empty = json!({ "rockets": 0, "awaitingLaunch": 0, "launched": 0, "exploded": 0, "processed": 0, "missing": 0,
                        "rocketsWithGaps": 0, "latestUpdate": null });
    assert_eq!(client.get("/stats").json(), empty);
    fleet(&mut client);
    let stats = client.get("/stats").json();
    let expected = json!({ "rockets": 4, "awaitingLaunch": 2, "launched": 1, "exploded": 1, "processed": 6, "missing": 4,
                           "rocketsWithGaps": 2, "latestUpdate": "2022-02-02T19:39:06.000000Z" });
    assert_eq!(stats, expected);
    assert_eq!(client.get("/reports/fleet").json()["rows"], json!([stats]));
}

fn reports_come_as_csv_to_who_asks_for_it(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    fleet(&mut client);
    let mut get = |accept: &str| {
        client.request("GET", "/reports/explosions", &[("Accept", accept)], b"").unwrap()
    };
    let csv = get("text/csv");
    assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8"));
    let expected = "reason,rockets,latest_update\r\n\"a \"\"big\"\" bang, twice\",1,2022-02-02T18:39:05.863370Z\r\n";
    assert_eq!(String::from_utf8(csv.body).unwrap(), expected);
    for (accept, content_type) in [
        ("text/csv;q=0.5, application/json", "application/json"),
        ("application/json;q=0.5, text/csv", "text/csv; charset=utf-8"),
        ("*/*", "application/json"),
        ("image/png", "application/json"),
    ] {
        assert_eq!(get(accept).header("content-type"), Some(content_type), "{accept}");
    }
    let missions =
        client.request("GET", "/reports/missions", &[("Accept", "text/csv")], b"").unwrap();
    let lines = String::from_utf8(missions.body).unwrap();
    assert_eq!(lines.lines().nth(2), Some(",2,0,0,7.5,8"), "null is empty");
}

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
        ("batch_messages_sum", 7.0),
        ("queue_bytes", 0.0),
        ("event_subscribers", 0.0),
    ] {
        assert_eq!(metric(&text, &format!("rocket_monitor_{name}")), value, "{name}");
    }
    assert!(!text.contains("none"), "nothing is labelled by channel");
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
fn completions_and_the_manual_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&run(&["completions", shell])).contains("database"), "{shell}");
    }
    let manual = stdout(&run(&["man"]));
    for command in COMMANDS {
        assert!(manual.contains(command), "{command}");
    }
}

/// A file in `deploy`.
fn deployed(name: &str) -> String {
    std::fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name),
    )
    .unwrap()
}

#[test]
fn the_grafana_dashboard_shows_metrics_that_exist() {
    let app = App::spawn(Backend::SqliteFile);
    let mut client = app.client();
    // So that something was answered.
    client.get("/livez");
    let metrics = String::from_utf8(client.get("/metrics").body).unwrap();
    let exist =
        |name: &str| metrics.lines().any(|line| line.starts_with(&format!("# TYPE {name} ")));
    let dashboard = deployed("grafana-dashboard.json");
    let json: Value = serde_json::from_str(&dashboard).unwrap();
    assert!(json["panels"].as_array().unwrap().len() > 10);
    let names = dashboard.split("rocket_monitor_").skip(1).map(|rest| {
        let end = rest.find(|char: char| !char.is_ascii_alphanumeric() && char != '_').unwrap();
        format!("rocket_monitor_{}", rest[..end].trim_end_matches("_bucket"))
    });
    let unknown: Vec<String> = names.filter(|name| !exist(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn the_systemd_unit_is_sound() {
    let directory = tempfile::tempdir().unwrap();
    let unit = directory.path().join("rocket-monitor.service");
    // The program is not where it will be installed.
    let text = deployed("rocket-monitor.service");
    let here = text.replace("/usr/local/bin/rocket-monitor", env!("CARGO_BIN_EXE_rocket-monitor"));
    assert_ne!(here, text);
    std::fs::write(&unit, here).unwrap();
    let verified = Command::new("systemd-analyze").arg("verify").arg(&unit).output();
    let verified = verified.expect("systemd-analyze is there: on Debian, apt-get install systemd");
    assert!(verified.status.success(), "{}", stderr(&verified));
    assert!(!stderr(&verified).contains("rocket-monitor.service"), "{}", stderr(&verified));
}
