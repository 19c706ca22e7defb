//! `launch`: the simulator, its verification, and its figures.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use testkit::client::Client;
use testkit::process::{Service, program, run, stderr, stdout};
use testkit::sqlite::sql;
use testkit::wait::eventually;

#[test]
fn a_simulated_fleet_is_taken_and_agrees_with_its_fold() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path().join("rockets.db"));
    let url = format!("http://{}", service.address);
    let fleet = [
        "--rockets",
        "30",
        "--connections",
        "8",
        "--duplicates",
        "20",
        "--displacement",
        "9",
        "--seed",
        "5",
    ];
    let launch =
        |url: &str, more: &[&str]| run(&[&["launch", url, "--verify"][..], &fleet, more].concat());
    let first = launch(&url, &["--messages", "1000"]);
    assert!(first.status.success(), "{first:?}");
    assert!(stdout(&first).contains("1000 applied"), "{}", stdout(&first));
    assert!(stdout(&first).contains("30 rockets in both views: 0 disagree"), "{}", stdout(&first));
    // A repeated run has only duplicates; a longer one continues the same rockets.
    assert!(
        stdout(&launch(&format!("{url}/messages"), &["--messages", "1000"])).contains(" 0 applied")
    );
    assert!(stdout(&launch(&url, &["--messages", "1600"])).contains(" 600 applied"));
    // The shorter run no longer agrees, and says so.
    let shorter = launch(&url, &["--messages", "1000"]);
    assert_eq!(shorter.status.code(), Some(1));
    assert!(stdout(&shorter).contains("30 disagree"), "{}", stdout(&shorter));
}

#[test]
fn launch_tells_of_disagreement_and_of_a_service_that_is_not_one() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    let service = Service::start(&database);
    let url = format!("http://{}", service.address);
    let arguments = ["launch", &url, "--verify", "--rockets", "3", "--messages", "30"];
    assert!(run(&arguments).status.success());
    sql(
        &database,
        "UPDATE rockets SET mission = 'LOST' WHERE channel = (SELECT min(channel) FROM rockets)",
    );
    let disagrees = run(&arguments);
    assert_eq!(disagrees.status.code(), Some(1));
    assert!(stdout(&disagrees).contains("1 disagree") && stdout(&disagrees).contains("LOST"));
    let elsewhere = run(&["launch", &format!("{url}/elsewhere"), "--messages", "5"]);
    assert_eq!(elsewhere.status.code(), Some(1));
    assert!(stderr(&elsewhere).contains("404"), "{}", stderr(&elsewhere));
    assert!(stderr(&run(&["launch", "https://localhost"])).contains("only http://"));
}

/// The number after a word in the output of `launch`.
fn figure(printed: &str, word: &str) -> f64 {
    let (_, rest) = printed.split_once(word).unwrap_or_else(|| panic!("{word}: {printed}"));
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

/// The upper bounds of the buckets of the responses to POST /messages in seconds, and how many took
/// at most that long.
fn buckets(metrics: &str) -> Vec<(f64, f64)> {
    let prefix = "rocket_monitor_http_request_duration_seconds_bucket{route=\"/messages\",le=\"";
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(prefix));
    let bucket = |line: &str| {
        let (bound, count) = line.split_once("\"} ").unwrap();
        (bound.parse().unwrap(), count.parse().unwrap())
    };
    lines.map(bucket).collect()
}

#[test]
fn launch_measures_what_the_service_measures() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    let service = Service::start(&database);
    let (mut client, url) = (Client::new(service.address), format!("http://{}", service.address));
    let mut metrics = || String::from_utf8(client.get("/metrics").body).unwrap();
    // Another program writes for a while: what is sent then waits.
    let writer = rusqlite::Connection::open(&database).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let started = Instant::now();
    let mut command =
        program(&["launch", &url, "--messages", "400", "--duplicates", "0", "--connections", "4"]);
    let launch = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("messages wait", || !metrics().contains("rocket_monitor_queue_bytes 0\n"));
    let waiting = Instant::now();
    eventually("they have waited for long enough", || {
        waiting.elapsed() > Duration::from_millis(400)
    });
    writer.execute_batch("COMMIT").unwrap();
    let output = launch.wait_with_output().unwrap();
    let (printed, took) = (stdout(&output), started.elapsed().as_secs_f64());
    assert!(output.status.success() && printed.contains("400 applied, 0 duplicates"), "{output:?}");
    let measured = buckets(&metrics());
    let (_, answered) = *measured.last().unwrap();
    assert_eq!(figure(&printed, "duplicates; ") + 400.0, answered, "{printed}");
    // A client measures at least as much as the service, at every percentile and at the maximum.
    for (word, share) in [("median ", 0.5), ("99% ", 0.99), ("highest ", 1.0)] {
        let seconds = figure(&printed, word) / 1_000.0;
        let faster = measured.iter().filter(|(_, count)| *count < answered * share);
        let at_least = faster.map(|(bound, _)| *bound).fold(0.0, f64::max);
        assert!((at_least..took).contains(&seconds), "{word} from {at_least} to {took}: {printed}");
    }
    assert!(figure(&printed, "highest ") > 400.0, "{printed}");
    assert!(figure(&printed, "median ") < 400.0, "{printed}");
    let rate = figure(&printed, ": ");
    assert!(rate >= 400.0 / took - 1.0 && rate < 400.0 / 0.4, "{printed}");
}

#[test]
fn launch_fails_at_once_where_no_service_is() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let started = Instant::now();
    for (url, why) in
        [(format!("http://{free}"), "Connection refused"), ("http://".into(), "lacks a host")]
    {
        let failed = run(&["launch", &url]);
        assert_eq!(failed.status.code(), Some(1));
        assert!(stderr(&failed).contains(why) && stderr(&failed).contains(&url), "{failed:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn launch_takes_a_scheme_in_any_case_and_rides_out_an_outage() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    let service = Service::start(&database);
    let address = service.address;
    let url = format!("HTTP://{address}/");
    let fleet = ["--messages", "2000", "--connections", "2", "--message-delay", "1ms", "--verify"];
    let mut command = program(&[&["launch", &url][..], &fleet].concat());
    let mut launch = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut client = Client::new(address);
    eventually("messages are taken", || {
        client.get("/stats").json()["processed"].as_u64() > Some(50)
    });
    drop(service);
    let mut complaints = BufReader::new(launch.stderr.take().unwrap());
    let mut complaint = String::new();
    complaints.read_line(&mut complaint).unwrap();
    assert!(complaint.contains("retrying for up to 60 seconds"), "{complaint}");
    let _service = Service::start_at(&database, address);
    let output = launch.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(stdout(&output).contains("0 disagree"), "{output:?}");
}

#[test]
fn verification_waits_for_a_service_that_is_busy() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    let service = Service::start(&database);
    let url = format!("http://{}", service.address);
    let words =
        ["launch", &url, "--messages", "20", "--rockets", "2", "--verify", "--connections", "1"];
    assert!(run(&words).status.success());
    // The service answers duplicates without the table, but can't read any rocket.
    let other = rusqlite::Connection::open(&database).unwrap();
    other.execute_batch("ALTER TABLE rockets RENAME TO renamed").unwrap();
    let mut launch = program(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut complaint = String::new();
    BufReader::new(launch.stderr.take().unwrap()).read_line(&mut complaint).unwrap();
    assert!(complaint.contains("503"), "{complaint}");
    other.execute_batch("ALTER TABLE renamed RENAME TO rockets").unwrap();
    let output = launch.wait_with_output().unwrap();
    assert!(output.status.success() && stdout(&output).contains("0 disagree"), "{output:?}");
}
