//! The tables and views are a public interface: their names, columns and contents.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use serde_json::{Value, json};
use testkit::app::{App, Backend};
use testkit::client::Client;
use testkit::conformance;
use testkit::message::{exploded, faster, launched};
use testkit::postgres::execute;
use testkit::process::{program, run, stderr, stdout};
use testkit::sqlite::{query, sql};

conformance!(
    a_report_says_that_it_has_more_rows,
    a_channel_of_many_gaps_is_reported_in_little_memory,
    a_long_report_is_printed_in_little_memory,
);

fn columns(database: &std::path::Path, table: &str) -> Vec<String> {
    let rows = query(database, &format!("SELECT name FROM pragma_table_xinfo('{table}')"));
    rows.into_iter().map(|row| row[0].as_str().unwrap().to_owned()).collect()
}

#[test]
fn tables_and_views_have_their_columns() {
    let app = App::spawn(Backend::SqliteFile);
    let rockets = [
        "channel",
        "status",
        "type",
        "speed",
        "mission",
        "exploded_reason",
        "latest_launch_msg",
        "latest_mission_msg",
        "latest_exploded_msg",
        "latest_update",
        "last_received",
        "processed",
        "complete_through",
        "highest",
    ];
    for (table, must) in [
        ("rockets", &rockets[..]),
        ("rockets_exact", &rockets[..]),
        ("gaps", &["channel", "first_missing", "last_missing", "after_time"]),
        (
            "report_missions",
            &["mission", "rockets", "launched", "exploded", "mean_speed", "max_speed"],
        ),
        ("report_types", &["type", "rockets", "launched", "exploded", "mean_speed", "max_speed"]),
        ("report_explosions", &["reason", "rockets", "latest_update"]),
        (
            "report_fleet",
            &[
                "rockets",
                "awaiting_launch",
                "launched",
                "exploded",
                "processed",
                "missing",
                "rockets_with_gaps",
                "latest_update",
            ],
        ),
    ] {
        assert_eq!(columns(&app.database(), table), must, "{table}");
    }
    assert_eq!(
        columns(&app.database(), "processed_ranges")[..3],
        ["channel", "first_msg", "last_msg"]
    );
}

#[test]
fn views_say_what_the_api_says() {
    let app = App::spawn(Backend::SqliteFile);
    let database = app.database();
    let fleet = "SELECT * FROM report_fleet";
    let nulls = [json!(0), json!(0), json!(0), json!(0), json!(0), json!(0), json!(0), Value::Null];
    assert_eq!(query(&database, fleet), [nulls], "an empty fleet");
    for view in ["gaps", "report_missions", "report_types", "report_explosions", "rockets_exact"] {
        assert!(query(&database, &format!("SELECT * FROM {view}")).is_empty(), "{view}");
    }
    let mut client = app.client();
    let mut explosion = exploded("b", 2, "BOOM");
    explosion["metadata"]["messageTime"] = json!("2022-02-02T20:00:00Z");
    for message in [
        launched("a", 1),
        faster("a", 4, 1),
        launched("b", 1),
        explosion,
        faster("c", 3, 7),
        faster("c", 5, 7),
        faster("c", 6, 7),
    ] {
        assert_eq!(client.post(&message).status, 204);
    }
    let late = "2022-02-02T19:39:06.000000Z";
    assert_eq!(
        query(&database, "SELECT * FROM gaps ORDER BY channel, first_missing"),
        [
            [json!("a"), json!(2), json!(3), json!("2022-02-02T18:39:05.863370Z")],
            [json!("c"), json!(1), json!(2), Value::Null],
            [json!("c"), json!(4), json!(4), json!(late)],
        ]
    );
    let missions = [
        [Value::Null, json!(1), json!(0), json!(0), json!(21.0), json!(21)],
        [json!("ARTEMIS"), json!(2), json!(1), json!(1), json!(500.5), json!(501)],
    ];
    assert_eq!(query(&database, "SELECT * FROM report_missions ORDER BY mission"), missions);
    let types = query(&database, "SELECT * FROM report_types ORDER BY type");
    assert_eq!(
        (&types[1][0], &types[1][1..], &types[0]),
        (&json!("Falcon-9"), &missions[1][1..], &missions[0].to_vec())
    );
    assert_eq!(
        query(&database, "SELECT * FROM report_explosions"),
        [[json!("BOOM"), json!(1), json!("2022-02-02T20:00:00.000000Z")]]
    );
    assert_eq!(
        query(&database, fleet),
        [[
            json!(3),
            json!(1),
            json!(1),
            json!(1),
            json!(7),
            json!(5),
            json!(2),
            json!("2022-02-02T20:00:00.000000Z")
        ]]
    );
    let exact = query(
        &database,
        "SELECT channel, status, type, speed, latest_update, complete_through FROM rockets_exact ORDER BY 1",
    );
    assert_eq!(
        exact[2],
        [json!("c"), json!("awaitingLaunch"), Value::Null, json!(0), Value::Null, json!(0)]
    );
    for row in exact {
        let api = app.rocket(row[0].as_str().unwrap(), "exact");
        let members = [
            &api["status"],
            &api["type"],
            &api["speed"],
            &api["latestUpdate"],
            &api["messages"]["completeThrough"],
        ];
        assert_eq!(row[1..].iter().collect::<Vec<_>>(), members);
    }
    // Means are rounded to three digits.
    client.post(&faster("d", 1, 8));
    client.post(&faster("e", 1, 8));
    assert_eq!(
        query(&database, "SELECT mean_speed FROM report_missions WHERE mission IS NULL"),
        [[json!(12.333)]]
    );
}

#[test]
fn a_reader_of_the_file_does_not_hold_up_ingestion() {
    let app = App::spawn(Backend::SqliteFile);
    let mut client = app.client();
    client.post(&launched("r", 1));
    let analyst = rusqlite::Connection::open(app.database()).unwrap();
    analyst.execute_batch("BEGIN; SELECT * FROM rockets;").unwrap();
    for number in 2..200 {
        assert_eq!(client.post(&faster("r", number, 1)).status, 204);
    }
    let seen: i64 = analyst.query_row("SELECT speed FROM rockets", [], |row| row.get(0)).unwrap();
    assert_eq!(seen, 500, "a snapshot stays what it was");
    analyst.execute_batch("COMMIT").unwrap();
    let seen: i64 = analyst.query_row("SELECT speed FROM rockets", [], |row| row.get(0)).unwrap();
    assert_eq!(seen, 698);
}

#[test]
fn the_queries_of_the_guide_to_sql_run() {
    let app = App::spawn(Backend::SqliteFile);
    let mut client = app.client();
    for message in [launched("a", 1), faster("a", 4, 1), launched("b", 1), faster("c", 3, 7)] {
        assert_eq!(client.post(&message).status, 204);
    }
    // As if it had been silent for long.
    sql(
        &app.database(),
        "UPDATE rockets SET last_received = '2022-02-02T00:00:00.000000Z' WHERE channel = 'c'",
    );
    let guide = include_str!("../../docs/sql.md");
    let queries = guide.split("```sql").nth(1).unwrap().split("```").next().unwrap();
    let answers: Vec<_> = queries
        .split(';')
        .filter(|statement| !statement.trim().is_empty())
        .map(|statement| query(&app.database(), statement))
        .collect();
    // The fleet; one mission; the two that fly; the two that lag; the one that is silent.
    assert_eq!(answers.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 2, 2, 1], "{answers:?}");
}

fn a_report_says_that_it_has_more_rows(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let post = |client: &mut Client, numbers: std::ops::Range<u32>| {
        let lines: String =
            numbers.map(|number| faster("g", 2 * number, 1).to_string() + "\n").collect();
        assert_eq!(client.post_lines(lines.as_bytes()).json()["rejected"], 0);
    };
    post(&mut client, 1..10_001);
    let all = client.get("/reports/gaps");
    assert_eq!(all.header("report-truncated-at"), None);
    assert_eq!(
        (all.json()["rows"].as_array().unwrap().len(), all.json().get("truncated")),
        (10_000, None)
    );
    post(&mut client, 10_001..10_002);
    let first = client.get("/reports/gaps");
    assert_eq!(first.header("report-truncated-at"), Some("10000"));
    assert_eq!(
        (first.json()["rows"].as_array().unwrap().len(), &first.json()["truncated"]),
        (10_000, &json!(true))
    );
    assert_eq!(first.json()["rows"], all.json()["rows"]);
    let csv = client.request("GET", "/reports/gaps", &[("Accept", "text/csv")], b"").unwrap();
    assert_eq!(csv.header("report-truncated-at"), Some("10000"));
    if !matches!(backend, Backend::SqliteMemory) {
        let printed =
            run(&["report", "gaps", "--format", "csv", "--database", &app.database_argument()]);
        assert_eq!(stdout(&printed).lines().count(), 10_002, "the command has no limit");
    }
}

/// The peak memory of this process, in KiB: services of these tests run in it.
fn peak_kibibytes() -> u64 {
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
    let report = client.get("/reports/gaps").json();
    assert_eq!(
        report["rows"][9_999],
        json!({ "channel": "g", "firstMissing": 19_999, "lastMissing": 19_999,
                                              "afterTime": "2022-02-02T19:39:06.000000Z" })
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

/// Gives a channel a gap below each even number.
fn make_gaps(app: &App, backend: Backend, gaps: u32) {
    let values = "2 * n, 2 * n, 1, '2022-02-02T19:39:06.000000Z'";
    match backend {
        Backend::Postgres | Backend::Citus => {
            let bucket = "SELECT (array_agg(bucket ORDER BY bucket))[1 + get_byte(sha256('g'), 0) % count(*)] AS bucket
                          FROM rocket_buckets";
            let bucket = &testkit::postgres::query(&app.database_argument(), bucket)[0]["bucket"];
            let insert = format!(
                "INSERT INTO processed_ranges (bucket, channel, first_msg, last_msg, speed_change, latest_time)
                 SELECT {bucket}, 'g', {values}::timestamptz FROM generate_series(1, {gaps}) AS n"
            );
            execute(&app.database_argument(), &insert);
        }
        Backend::SqliteFile | Backend::SqliteMemory => {
            let insert = format!(
                "WITH RECURSIVE numbers(n) AS
                     (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {gaps})
                 INSERT INTO processed_ranges (channel, first_msg, last_msg, speed_change, latest_time)
                 SELECT 'g', {values} FROM numbers"
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
    let last_cell = "2022-02-02T19:39:06.000000Z";
    let csv_lines = GAPS as usize + 1;
    let formats = [("table", 10_004, "┘"), ("csv", csv_lines, last_cell), ("json", 1, "]}")];
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
