//! `GET /reports`, `GET /stats` and `report`: their contents, formats and memory.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use serde_json::{Value, json};
use testkit::app::{App, Backend};
use testkit::client::{Answer, Client};
use testkit::conformance;
use testkit::message::{exploded, faster, launched};
use testkit::postgres::{execute, query};
use testkit::process::{program, run, stderr, stdout};
use testkit::sqlite::sql;

conformance!(
    reports_say_what_the_views_say,
    the_fleets_totals_are_its_report,
    reports_come_as_csv_to_who_asks_for_it,
    a_report_continues_after_ten_thousand_rows,
    a_channel_of_many_gaps_is_reported_in_little_memory,
    a_long_report_is_printed_in_little_memory,
);

/// A fleet of four with every kind of reportable data.
pub(super) fn fleet(client: &mut Client) {
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
        {
            "mission": "ARTEMIS", "rockets": 2, "launched": 1, "exploded": 1,
            "meanSpeed": 500.5, "maxSpeed": 501,
        },
        {
            "mission": null, "rockets": 2, "launched": 0, "exploded": 0,
            "meanSpeed": 7.5, "maxSpeed": 8,
        },
    ]);
    assert_eq!(rows("missions"), missions);
    assert_eq!(rows("types")[0]["type"], "Falcon-9");
    let time = "2022-02-02T18:39:05.863370Z";
    let explosions =
        json!([{ "reason": "a \"big\" bang, twice", "rockets": 1, "latestUpdate": time }]);
    assert_eq!(rows("explosions"), explosions);
    // The range above the gap has the latest message.
    let since = |channel: &str| {
        app.client().get(&format!("/rockets/{channel}")).json()["lastReceived"].clone()
    };
    let gaps = json!([
        {
            "channel": "a", "firstMissing": 2, "lastMissing": 3, "afterTime": time,
            "since": since("a"), "lost": 0,
        },
        {
            "channel": "c", "firstMissing": 1, "lastMissing": 2, "afterTime": null,
            "since": since("c"), "lost": 0,
        },
    ]);
    assert_eq!(rows("gaps"), gaps);
    client.get("/reports/rockets").problem(404);
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
    let empty = json!({
        "rockets": 0, "awaitingLaunch": 0, "launched": 0, "exploded": 0,
        "processed": 0, "missing": 0, "rocketsWithGaps": 0, "latestUpdate": null,
    });
    assert_eq!(client.get("/stats").json(), empty);
    fleet(&mut client);
    let stats = client.get("/stats").json();
    let expected = json!({
        "rockets": 4, "awaitingLaunch": 2, "launched": 1, "exploded": 1,
        "processed": 6, "missing": 4, "rocketsWithGaps": 2,
        "latestUpdate": "2022-02-02T19:39:06.000000Z",
    });
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
    let expected = "reason,rockets,latest_update\r\n\
                    \"a \"\"big\"\" bang, twice\",1,2022-02-02T18:39:05.863370Z\r\n";
    assert_eq!(String::from_utf8(csv.body).unwrap(), expected);
    for (accept, content_type) in [
        ("text/csv;q=0.5, application/json", "application/json"),
        ("application/json;q=0.5, text/csv", "text/csv; charset=utf-8"),
        ("application/x-ndjson, application/json", "application/json"),
        ("application/x-ndjson, text/csv", "text/csv; charset=utf-8"),
        ("application/x-ndjson, text/csv;q=0.5", "application/x-ndjson"),
        ("application/*", "application/json"),
        ("application/x-ndjson;q=0, */*;q=0.1", "application/json"),
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

fn a_report_continues_after_ten_thousand_rows(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let lines: String =
        (1..=10_001).map(|number| faster("g", 2 * number, 1).to_string() + "\n").collect();
    assert_eq!(client.post_lines(lines.as_bytes()).json()["rejected"], 0);
    let rows = |answer: &Answer| answer.json()["rows"].as_array().unwrap().len();
    let default = client.get("/reports/gaps");
    assert_eq!((rows(&default), default.json()["nextCursor"].is_string()), (1_000, true));
    let first = client.get("/reports/gaps?limit=10000");
    assert_eq!(rows(&first), 10_000);
    let cursor = first.json()["nextCursor"].as_str().unwrap().to_owned();
    let second = client.get(&format!("/reports/gaps?limit=10000&cursor={cursor}")).json();
    assert_eq!(second["rows"].as_array().unwrap().len(), 1);
    let end = (&second["rows"][0]["lastMissing"], &second["nextCursor"]);
    assert_eq!(end, (&json!(20_001), &Value::Null));
    if !matches!(backend, Backend::SqliteMemory) {
        let printed =
            run(&["report", "gaps", "--format", "csv", "--database", &app.database_argument()]);
        assert_eq!(stdout(&printed).lines().count(), 10_002, "the command has no pages");
    }
}

/// The peak memory of this process, in KiB: services of these tests run in it.
pub(super) fn peak_kibibytes() -> u64 {
    peak_in("/proc/self/status").unwrap()
}

fn a_channel_of_many_gaps_is_reported_in_little_memory(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    for part in 0..6 {
        let numbers = part * 20_000 + 1..=(part + 1) * 20_000;
        let lines: String =
            numbers.map(|number| faster("g", 2 * number, 1).to_string() + "\n").collect();
        assert_eq!(client.post_lines(lines.as_bytes()).json()["applied"], 20_000);
    }
    let before = peak_kibibytes();
    let mut report = client.get("/reports/gaps?limit=10000").json();
    let row = report["rows"][9_999].as_object_mut().unwrap();
    assert!(row.remove("since").unwrap().is_string());
    assert_eq!(
        json!(row),
        json!({ "channel": "g", "firstMissing": 19_999, "lastMissing": 19_999,
                "afterTime": "2022-02-02T19:39:06.000000Z", "lost": 0 })
    );
    // 120,000 gaps in memory take half a gigabyte. Other tests run in this process too.
    let grown = peak_kibibytes() - before;
    assert!(grown < 200 * 1024, "{grown} KiB");
}

/// What a process has had in memory at most, in KiB, unless it has ended.
fn peak_of(process: &Child) -> Option<u64> {
    peak_in(&format!("/proc/{}/status", process.id()))
}

fn peak_in(status: &str) -> Option<u64> {
    let status = std::fs::read_to_string(status).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1).unwrap().parse().unwrap())
}

/// Gives a rocket a gap below each even number.
pub(super) fn make_gaps(app: &App, backend: Backend, gaps: u32) {
    let time = "'2022-02-02T19:39:06.000000Z'";
    let rocket = format!("'g', {gaps}, {time}, {time}, {gaps}, 0, 2 * {gaps}");
    let columns =
        "channel, speed, latest_update, last_received, processed, complete_through, highest";
    match backend {
        Backend::Postgres | Backend::Citus => {
            let bucket = "SELECT (array_agg(bucket ORDER BY bucket))
                              [1 + get_byte(sha256('g'), 0) % count(*)] AS bucket
                          FROM rocket_buckets";
            let bucket = &query(&app.database_argument(), bucket)[0]["bucket"];
            let insert = format!(
                "INSERT INTO rockets (bucket, {columns}) VALUES ({bucket}, {rocket});
                 INSERT INTO processed_ranges
                     (bucket, channel, first_msg, last_msg, speed_change, latest_time,
                      first_received)
                 SELECT {bucket}, 'g', 2 * n, 2 * n, 1, {time}::timestamptz, {time}::timestamptz
                 FROM generate_series(1, {gaps}) AS n"
            );
            execute(&app.database_argument(), &insert);
        }
        Backend::SqliteFile | Backend::SqliteMemory => {
            let insert = format!(
                "INSERT INTO rockets ({columns}) VALUES ({rocket});
                 WITH RECURSIVE numbers(n) AS
                     (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {gaps})
                 INSERT INTO processed_ranges
                     (channel, first_msg, last_msg, speed_change, latest_time, first_received)
                 SELECT 'g', 2 * n, 2 * n, 1, {time}, {time} FROM numbers"
            );
            sql(&app.database(), &insert);
        }
    }
}

fn a_long_report_is_printed_in_little_memory(backend: Backend) {
    if matches!(backend, Backend::SqliteMemory) {
        // No command can read it.
        return;
    }
    const GAPS: u32 = 400_000;
    let app = App::spawn(backend);
    make_gaps(&app, backend, GAPS);
    let last_cells = "2022-02-02T19:39:06.000000Z,0";
    let csv_lines = GAPS as usize + 1;
    let formats = [
        ("table", 10_004, "┘"),
        ("csv", csv_lines, last_cells),
        ("json", 1, r#"],"nextCursor":null}"#),
    ];
    for (format, lines, last) in formats {
        let words = ["report", "gaps", "--format", format, "--database", &app.database_argument()];
        let mut command = program(&words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (mut peak, mut seen, mut rows, mut end) = (0, 0, 0, Vec::new());
        let mut line = Vec::new();
        // A part at a time: the JSON is one line.
        while (&mut output).take(64 * 1024).read_until(b'\n', &mut line).unwrap() > 0 {
            if line.ends_with(b"\n") {
                seen += 1;
            }
            rows += line.windows(15).filter(|text| text == b"\"firstMissing\":").count();
            if seen % 100 == 0 {
                peak = peak_of(&child).map_or(peak, |now| now.max(peak));
            }
            end = std::mem::take(&mut line);
        }
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.success(), "{format}: {}", stderr(&ended));
        assert_eq!(seen, lines, "{format}");
        assert!(String::from_utf8_lossy(&end).trim_end().ends_with(last), "{format}: {end:?}");
        if format == "json" {
            assert!(rows > GAPS as usize * 99 / 100, "{rows}");
        }
        let is_cut = format == "table";
        let said = stderr(&ended);
        assert_eq!(said.contains("only the first 10000 rows"), is_cut, "{said}");
        // In memory, all of them would take 80 to 500 MiB.
        assert!(peak < 64 * 1024, "{format}: {peak} KiB");

        // A reader who has seen enough is no failure.
        let mut child = command.spawn().unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0; 100]).unwrap();
        let unread = child.wait_with_output().unwrap();
        assert_eq!((unread.status.code(), stderr(&unread)), (Some(0), said), "{format}");
    }
}

#[test]
fn totals_and_metrics_are_answered_while_long_reads_have_all_turns() {
    let app = App::spawn(Backend::SqliteFile);
    let lines: String = (0..60_000)
        .map(|rocket| launched(&format!("r{rocket:05}"), 1).to_string() + "\n")
        .collect();
    assert_eq!(app.client().post_lines(lines.as_bytes()).json()["applied"], 60_000);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = app.client();
                while !done.load(std::sync::atomic::Ordering::SeqCst) {
                    // It sorts all rockets without an index.
                    let status = client.get("/rockets?view=exact&sort=speed").status;
                    assert!([200, 503].contains(&status), "{status}");
                }
            });
        }
        let mut client = app.client();
        for _ in 0..20 {
            assert_eq!(client.get("/stats").json()["rockets"], 60_000);
            assert!(app.metrics().contains("rocket_monitor_rockets{status=\"launched\"} 60000"));
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
    });
}
