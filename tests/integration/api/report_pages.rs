//! Pages of `GET /reports/{name}` and of `GET /rockets/{channel}/gaps`: every row once, whatever
//! the size of a page, and at the same cost wherever the page is.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use testkit::app::{App, Backend};
use testkit::client::{Answer, Client};
use testkit::conformance;
use testkit::message::{exploded, faster, launched_as};
use testkit::postgres::query as query_postgres;
use testkit::sqlite::query as query_sqlite;
use testkit::wait::DEADLINE;

use super::reports::{make_gaps, peak_kibibytes};

conformance!(
    pages_of_every_size_have_the_rows_of_the_view,
    csv_and_ndjson_have_the_next_page_in_the_link,
    bad_parameters_of_reports_are_named,
    a_cursor_belongs_to_its_report,
    a_page_costs_as_much_anywhere_in_a_million_gaps,
    pages_of_gaps_that_close_miss_none_that_stays,
);

const REPORTS: [&str; 5] = ["missions", "types", "explosions", "fleet", "gaps"];

/// Missions, types and reasons with characters that sort by their bytes, rockets without them, and
/// gaps at the start, in the middle, and declared lost.
fn varied_fleet(client: &mut Client) {
    let mut lines = Vec::new();
    let names = ["a", "B", "é", "a b", "=1", "\u{ffff}", "🚀"];
    for (index, name) in names.iter().enumerate() {
        let index = index as u32;
        let channel = format!("{name}-{index}");
        lines.push(launched_as(&channel, 1, name, 5, name));
        lines.push(exploded(&channel, 3 + index % 2, name));
        lines.extend([8, 9, 15].map(|number| faster(&channel, number, 1)));
        lines.push(faster(&format!("never launched {name}"), 2 + index, 1));
        lines.push(faster(&format!("complete {name}"), 1, 1));
    }
    let lines: String = lines.iter().map(|line| line.to_string() + "\n").collect();
    assert_eq!(client.post_lines(lines.as_bytes()).json()["rejected"], 0);
    let loss = json!({ "first": 5, "last": 12, "reason": "overwritten" }).to_string();
    let declared = client.request("POST", "/rockets/a-0/losses", &[], loss.as_bytes()).unwrap();
    assert_eq!(declared.status, 200);
}

/// The link to the next page.
fn next_link(answer: &Answer) -> Option<String> {
    let link = answer.header("link")?.strip_prefix('<')?;
    Some(link.strip_suffix(">; rel=\"next\"").unwrap().to_owned())
}

/// The items of all pages, none of which is longer than the limit, or empty.
fn pages(client: &mut Client, path: &str, member: &str, limit: usize) -> Vec<Value> {
    let mut items = Vec::new();
    let mut next = Some(format!("{path}?limit={limit}"));
    while let Some(path) = next {
        let answer = client.get(&path);
        assert_eq!(answer.status, 200, "{answer:?}");
        let page = answer.json();
        let of_page = page[member].as_array().unwrap();
        next = next_link(&answer);
        match page["nextCursor"].as_str() {
            Some(cursor) => {
                assert!(next.as_ref().unwrap().ends_with(&format!("cursor={cursor}")), "{next:?}");
                assert_eq!(of_page.len(), limit);
            }
            None => assert_eq!((&page["nextCursor"], &next), (&Value::Null, &None)),
        }
        assert!((1..=limit).contains(&of_page.len()), "{} of {limit}", of_page.len());
        items.extend_from_slice(of_page);
    }
    items
}

/// The first column of a report's view, and the second to last of gaps, in the report's order.
fn rows_of_view(app: &App, backend: Backend, report: &str) -> Vec<Value> {
    let (columns, view, order) = match report {
        "missions" => ("mission", "report_missions", "mission NULLS LAST"),
        "types" => ("type", "report_types", "type NULLS LAST"),
        "explosions" => ("reason", "report_explosions", "reason NULLS LAST"),
        "fleet" => ("rockets", "report_fleet", "1"),
        "gaps" => ("channel, first_missing, last_missing, lost", "gaps", "channel, last_missing"),
        other => panic!("no report {other}"),
    };
    let select = format!("SELECT {columns} FROM {view} ORDER BY {order}");
    if matches!(backend, Backend::SqliteFile) {
        return query_sqlite(&app.database(), &select).into_iter().map(Value::from).collect();
    }
    let rows = query_postgres(&app.database_argument(), &select);
    let cells = |row: &Value| columns.split(", ").map(|column| row[column].clone()).collect();
    rows.iter().map(cells).collect()
}

fn pages_of_every_size_have_the_rows_of_the_view(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    varied_fleet(&mut client);
    for report in REPORTS {
        let path = format!("/reports/{report}");
        let all = client.get(&path).json();
        assert_eq!((&all["name"], &all["nextCursor"]), (&json!(report), &Value::Null));
        let all = all["rows"].as_array().unwrap();
        for limit in [1, 2, 3, 7, 10_000] {
            assert_eq!(pages(&mut client, &path, "rows", limit), *all, "{report} by {limit}");
        }
        if !matches!(backend, Backend::SqliteMemory) {
            let members: &[&str] = match report {
                "missions" => &["mission"],
                "types" => &["type"],
                "explosions" => &["reason"],
                "fleet" => &["rockets"],
                _ => &["channel", "firstMissing", "lastMissing", "lost"],
            };
            let cells =
                |row: &Value| -> Value { members.iter().map(|name| row[*name].clone()).collect() };
            let mut rows: Vec<Value> = all.iter().map(cells).collect();
            let mut expected = rows_of_view(&app, backend, report);
            if matches!(backend, Backend::Citus) {
                // The query is part of another one, and then each node sorts only its own rows.
                rows.sort_by_key(Value::to_string);
                expected.sort_by_key(Value::to_string);
            }
            assert_eq!(rows, expected, "{report}");
        }
    }
    let fleet = client.get("/reports/gaps").json();
    let of_rocket = |row: &&Value| row["channel"] == "a-0";
    let expected: Vec<Value> =
        fleet["rows"].as_array().unwrap().iter().filter(of_rocket).cloned().collect();
    assert_eq!(expected.iter().map(|gap| &gap["lost"]).collect::<Vec<_>>(), [0, 3, 3]);
    for limit in [1, 2, 3, 1_000] {
        let gaps = pages(&mut client, "/rockets/a-0/gaps", "gaps", limit);
        let ends = |gap: &Value, first: &str, last: &str| (gap[first].clone(), gap[last].clone());
        assert_eq!(
            gaps.iter().map(|gap| ends(gap, "first", "last")).collect::<Vec<_>>(),
            expected.iter().map(|gap| ends(gap, "firstMissing", "lastMissing")).collect::<Vec<_>>()
        );
    }
}

fn csv_and_ndjson_have_the_next_page_in_the_link(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    varied_fleet(&mut client);
    let all = client.get("/reports/gaps").json()["rows"].clone();
    let mut walk = |accept: &str, content_type: &str| {
        let (mut bodies, mut next) = (Vec::new(), Some("/reports/gaps?limit=10".to_owned()));
        while let Some(path) = next {
            let answer = client.request("GET", &path, &[("Accept", accept)], b"").unwrap();
            assert_eq!(answer.header("content-type"), Some(content_type));
            assert_eq!(answer.header("vary"), Some("Accept"));
            next = next_link(&answer);
            bodies.push(String::from_utf8(answer.body).unwrap());
        }
        bodies
    };
    let lines = walk("application/x-ndjson", "application/x-ndjson").concat();
    assert!(lines.ends_with("}\n"));
    let rows: Value =
        lines.lines().map(|line| -> Value { serde_json::from_str(line).unwrap() }).collect();
    assert_eq!(rows, all);
    let csv = walk("text/csv", "text/csv; charset=utf-8");
    assert!(csv.iter().all(|page| page.starts_with("channel,first_missing,last_missing,")));
    let rows: usize = csv.iter().map(|page| page.lines().count() - 1).sum();
    assert_eq!((rows, csv.len()), (all.as_array().unwrap().len(), rows.div_ceil(10)));
    // A HEAD request learns of the next page, too.
    let head = client.request("HEAD", "/reports/gaps?limit=10", &[], b"").unwrap();
    assert_eq!(next_link(&head), next_link(&client.get("/reports/gaps?limit=10")));
    // A report without rows.
    let empty = App::spawn(backend);
    let accept = [("Accept", "application/x-ndjson")];
    let empty = empty.client().request("GET", "/reports/gaps", &accept, b"").unwrap();
    assert_eq!((empty.status, &*empty.body, empty.header("link")), (200, &b""[..], None));
}

fn bad_parameters_of_reports_are_named(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    for (query, parameter) in [
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("limit=99999999999999999999999", "limit"),
        ("limit=2&limit=2", "limit"),
        ("cursor=", "cursor"),
        ("cursor=a&cursor=a", "cursor"),
        ("cursor=%ff", "cursor"),
        ("format=csv", "format"),
        ("Limit=2", "Limit"),
    ] {
        for report in REPORTS {
            let problem = client.get(&format!("/reports/{report}?{query}")).problem(400);
            assert_eq!(problem["errors"][0]["parameter"], parameter, "{report} {query}: {problem}");
        }
    }
    client.get("/reports/rockets?limit=0").problem(404);
}

fn a_cursor_belongs_to_its_report(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    varied_fleet(&mut client);
    for from in REPORTS.iter().filter(|report| **report != "fleet") {
        let page = client.get(&format!("/reports/{from}?limit=1")).json();
        let cursor = page["nextCursor"].as_str().unwrap();
        for to in REPORTS {
            let answer = client.get(&format!("/reports/{to}?cursor={cursor}"));
            if to == *from {
                assert_eq!(answer.status, 200);
                continue;
            }
            let problem = answer.problem(400);
            assert_eq!(problem["errors"][0]["detail"], "belongs to another report");
        }
    }
    // What no row of the report can have must not reach the database.
    for forged in [
        json!(["gaps", "g", 0]),
        json!(["gaps", "g", -1]),
        json!(["gaps", "g", 4_294_967_296_i64]),
        json!(["gaps", "g", i64::MAX]),
        json!(["gaps", "g", 1.5]),
        json!(["gaps", "", 1]),
        json!(["gaps", "a\u{0}b", 1]),
        json!(["gaps", "x".repeat(256), 1]),
        json!(["gaps", null, 1]),
        json!(["gaps", "g"]),
        json!(["gaps", "g", 1, 1]),
        json!(["missions", "a\u{0}b", 0]),
        json!(["missions", "", 0]),
        json!(["missions", "a", 1]),
        json!(["missions", null, 0]),
        json!(["fleet", "a", 0]),
        json!({}),
        json!(null),
    ] {
        let cursor = URL_SAFE_NO_PAD.encode(forged.to_string());
        let report = forged[0].as_str().unwrap_or("gaps");
        let problem = client.get(&format!("/reports/{report}?cursor={cursor}")).problem(400);
        assert_eq!(problem["errors"][0]["parameter"], "cursor", "{forged}");
    }
    // The last number that a gap can have, and a channel after all others.
    for (channel, number) in [("a-0", 4_294_967_295_i64), ("🚀🚀", 1)] {
        let cursor = URL_SAFE_NO_PAD.encode(json!(["gaps", channel, number]).to_string());
        let page = client.get(&format!("/reports/gaps?cursor={cursor}")).json();
        let rows = page["rows"].as_array().unwrap();
        assert!(rows.iter().all(|row| row["channel"].as_str().unwrap() > channel), "{rows:?}");
        assert_eq!(rows.is_empty(), channel != "a-0");
    }
}

/// How long it takes to read some pages from a place on, where each number below an even one is
/// missing.
fn read_some_pages(client: &mut Client, path: &str, cursor: &str, after: usize) -> Duration {
    const PAGES: usize = 3;
    const LIMIT: usize = 20;
    let mut next = format!("{path}?limit={LIMIT}&cursor={cursor}");
    let started = Instant::now();
    let mut last = String::new();
    for _ in 0..PAGES {
        let accept = [("Accept", "application/x-ndjson, application/json;q=0.5")];
        let answer = client.request("GET", &next, &accept, b"").unwrap();
        assert_eq!(answer.status, 200);
        assert!(started.elapsed() < DEADLINE, "{path} after {after}");
        next = next_link(&answer).unwrap();
        last = String::from_utf8(answer.body).unwrap();
    }
    let took = started.elapsed();
    let number = after + 2 * PAGES * LIMIT;
    let name = if path.starts_with("/reports") { "lastMissing" } else { "last" };
    let end = last.rsplit_once(&format!("\"{name}\":")).unwrap().1;
    assert!(end.starts_with(&format!("{number},")), "{number}: {end}");
    took
}

fn a_page_costs_as_much_anywhere_in_a_million_gaps(backend: Backend) {
    if matches!(backend, Backend::SqliteMemory) {
        // Only messages reach it, which would take minutes.
        return;
    }
    const GAPS: u32 = 1_000_000;
    let app = App::spawn(backend);
    make_gaps(&app, backend, GAPS);
    let mut client = app.client();
    assert_eq!(client.get("/reports/gaps?limit=1").json()["rows"][0]["lastMissing"], 1);
    let before = peak_kibibytes();
    type Forge = fn(usize) -> Value;
    let of_report: Forge = |number| json!(["gaps", "g", number]);
    let of_rocket: Forge = |number| json!(["g", number]);
    for (path, forge) in [("/reports/gaps", of_report), ("/rockets/g/gaps", of_rocket)] {
        let mut read = |after: usize| {
            let cursor = URL_SAFE_NO_PAD.encode(forge(after).to_string());
            read_some_pages(&mut client, path, &cursor, after)
        };
        // Nobody knows how busy the machine is meanwhile, so the best time of several counts.
        let mut best = |after| (0..3).map(|_| read(after)).min().unwrap();
        let times = [1, 500_001, 1_000_001, 1_999_001].map(&mut best);
        let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
        // If a page read all gaps before or after it, it would take much longer.
        assert!(*most < *least * 5 + Duration::from_millis(50), "{path}: {times:?}");
    }
    // In memory, all of them would take gigabytes. Other tests run in this process, too.
    let grown = peak_kibibytes().saturating_sub(before);
    assert!(grown < 200 * 1024, "{grown} KiB");
}

fn pages_of_gaps_that_close_miss_none_that_stays(backend: Backend) {
    let app = App::spawn(backend);
    let (mut client, mut sender) = (app.client(), app.client());
    let highest = 200_u32;
    let lines: String =
        (1..=highest / 4).map(|index| faster("g", 4 * index, 1).to_string() + "\n").collect();
    assert_eq!(client.post_lines(lines.as_bytes()).json()["rejected"], 0);
    // Missing are 1 to 3, 5 to 7, and so on. After each page of two gaps, close the last one of the
    // page and the first one after it, and split the second one after it.
    let (mut seen, mut closed) = (Vec::new(), Vec::new());
    let mut next = Some("/rockets/g/gaps?limit=2".to_owned());
    while let Some(path) = next {
        let answer = client.get(&path);
        let page = answer.json();
        next = next_link(&answer);
        for gap in page["gaps"].as_array().unwrap() {
            let ends =
                (gap["first"].as_u64().unwrap() as u32, gap["last"].as_u64().unwrap() as u32);
            assert!(seen.last().is_none_or(|(_, last)| *last < ends.0), "{ends:?} after {seen:?}");
            // A gap that had closed before the page was read is not on it.
            assert!((ends.0..=ends.1).all(|number| !closed.contains(&number)), "{ends:?}");
            let is_missing = |number: u32| !number.is_multiple_of(4);
            assert!(is_missing(ends.0) && is_missing(ends.1), "{ends:?} was processed");
            seen.push(ends);
        }
        let last = seen.last().unwrap().1;
        let start = last / 4 * 4;
        let mut closing: Vec<u32> =
            (start + 1..start + 8).filter(|number| number % 4 != 0).collect();
        closing.push(start + 10);
        closing.retain(|number| *number < highest && !closed.contains(number));
        for number in closing {
            let status = sender.post(&faster("g", number, 1)).status;
            assert_eq!(status, 204);
            closed.push(number);
        }
    }
    let stay = (1..highest).filter(|number| number % 4 != 0 && !closed.contains(number));
    for number in stay {
        assert!(seen.iter().any(|(first, last)| (*first..=*last).contains(&number)), "{number}");
    }
    assert!(seen.len() > 20 && closed.len() > 60, "{} and {}", seen.len(), closed.len());
}
