//! GET /rockets: orders, filters, views, and pages that show each rocket exactly once.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use testkit::app::{App, Backend};
use testkit::client::{Answer, Client, encode};
use testkit::conformance;
use testkit::message::{Event, exploded, faster, launched, launched_as, message};
use testkit::process::{Service, run, stdout};
use testkit::sqlite::{query, sql};

conformance!(
    every_sort_pages_through_each_rocket_once,
    filters_and_views,
    limits_and_cursors,
    bad_queries_name_the_parameter,
    defaults,
);

const SORTS: [&str; 6] = ["latestUpdate", "channel", "type", "speed", "mission", "status"];

/// A fleet with ties and nulls for every sort, in both views.
fn fleet(client: &mut Client) -> usize {
    let mut lines = Vec::new();
    for index in 0..60_i32 {
        let channel = format!("{}{index:02}", ["é", "B", "a"][index as usize % 3]);
        let rocket_type = ["T1", "T2", "ß"][index as usize % 3];
        let mission = ["M", "m"][index as usize % 2];
        let mut launch = launched_as(&channel, 1, rocket_type, index % 4, mission);
        launch["metadata"]["messageTime"] = json!(format!("2022-02-02T18:00:{:02}Z", index % 5));
        match index % 6 {
            // Never launched: in the exact view it is empty.
            0 => lines.push(faster(&channel, 3, index % 3)),
            // Launched late, after an explosion in between was lost.
            1 => lines.extend([launch, faster(&channel, 4, -9)]),
            2 => {
                let explosion = exploded(&channel, 2, "BOOM");
                lines.extend([launch, explosion]);
            }
            _ => lines.push(launch),
        }
    }
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    let counts = client.post_lines(lines.join("\n").as_bytes()).json();
    assert_eq!(counts["rejected"], 0, "{counts}");
    60
}

/// All pages of a query.
fn pages(client: &mut Client, query: &str) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let mut next = format!("/rockets?{query}");
    loop {
        let answer = client.get(&next);
        assert_eq!(answer.status, 200, "{answer:?}");
        let json = answer.json();
        pages.push(json["rockets"].as_array().unwrap().clone());
        let Some(cursor) = json["nextCursor"].as_str() else {
            assert_eq!(json["nextCursor"], Value::Null);
            assert_eq!(answer.header("link"), None);
            return pages;
        };
        assert!(
            cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'),
            "{cursor}"
        );
        next = next_link(&answer);
        assert!(next.ends_with(&format!("cursor={cursor}")), "{next}");
    }
}

fn next_link(answer: &Answer) -> String {
    let link = answer.header("link").unwrap();
    link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")).unwrap().to_owned()
}

/// The order that the contract requires, by plain comparisons.
fn sorted(mut rockets: Vec<Value>, sort: &str, descending: bool) -> Vec<Value> {
    let text =
        |rocket: &Value, member: &str| rocket[member].as_str().map(|text| text.as_bytes().to_vec());
    rockets.sort_by(|a, b| {
        let by_key = match sort {
            "speed" => a["speed"].as_i64().cmp(&b["speed"].as_i64()),
            _ => text(a, sort).cmp(&text(b, sort)),
        };
        let either = by_key.then(text(a, "channel").cmp(&text(b, "channel")));
        let nulls = a[sort].is_null().cmp(&b[sort].is_null());
        nulls.then(if descending { either.reverse() } else { either })
    });
    rockets
}

fn every_sort_pages_through_each_rocket_once(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let count = fleet(&mut client);
    check_every_sort(&mut client, count);
    let mut later = faster("a05", 9, 100);
    later["metadata"]["messageTime"] = json!("2022-02-02T18:00:02Z");
    for message in [later, faster("é00", 9, 3), faster("B04", 9, -3), faster("new", 2, 1)] {
        assert_eq!(client.post(&message).status, 204);
    }
    check_every_sort(&mut client, count + 1);
}

fn check_every_sort(client: &mut Client, count: usize) {
    for view in ["best-effort", "exact"] {
        let all = client.get(&format!("/rockets?view={view}&limit=1000")).json()["rockets"]
            .as_array()
            .unwrap()
            .clone();
        assert_eq!(all.len(), count);
        for sort in SORTS {
            for order in ["asc", "desc"] {
                let must = sorted(all.clone(), sort, order == "desc");
                for limit in [1, 7, 30, 60, 1_000] {
                    let pages = pages(
                        client,
                        &format!("view={view}&sort={sort}&order={order}&limit={limit}"),
                    );
                    assert!(pages.iter().rev().skip(1).all(|page| page.len() == limit));
                    assert_eq!(pages.len(), count.div_ceil(limit), "no empty page at the end");
                    assert_eq!(pages.concat(), must, "{view} {sort} {order} {limit}");
                }
            }
        }
    }
}

fn filters_and_views(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    fleet(&mut client);
    for view in ["best-effort", "exact"] {
        let all = client.get(&format!("/rockets?view={view}&limit=1000")).json()["rockets"]
            .as_array()
            .unwrap()
            .clone();
        for (query, members) in [
            ("status=launched", vec![("status", "launched")]),
            ("status=awaitingLaunch", vec![("status", "awaitingLaunch")]),
            ("mission=m", vec![("mission", "m")]),
            ("type=%C3%9F", vec![("type", "ß")]),
            ("type=T2&mission=M", vec![("type", "T2"), ("mission", "M")]),
            (
                "status=exploded&type=T2&mission=m",
                vec![("status", "exploded"), ("type", "T2"), ("mission", "m")],
            ),
            ("mission=none", vec![("mission", "none")]),
        ] {
            let matching: Vec<Value> = all
                .iter()
                .filter(|rocket| members.iter().all(|(member, value)| rocket[member] == **value))
                .cloned()
                .collect();
            for sort in SORTS {
                let found = pages(
                    &mut client,
                    &format!("view={view}&{query}&sort={sort}&order=asc&limit=4"),
                )
                .concat();
                assert_eq!(found, sorted(matching.clone(), sort, false), "{view} {query} {sort}");
            }
        }
        // List items equal the rocket's own page, except for the gaps.
        for rocket in &all {
            let path =
                format!("/rockets/{}?view={view}", encode(rocket["channel"].as_str().unwrap()));
            let mut own = client.get(&path).json();
            own["messages"].as_object_mut().unwrap().remove("gaps").unwrap();
            assert_eq!(own, *rocket);
        }
    }
}

fn limits_and_cursors(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    fleet(&mut client);
    let cursor = |client: &mut Client, query: &str| {
        client.get(&format!("/rockets?{query}")).json()["nextCursor"].as_str().unwrap().to_owned()
    };
    let asked = "sort=mission&order=asc&status=launched&limit=3";
    let mine = cursor(&mut client, asked);
    // Another limit is the same query.
    assert_eq!(
        client.get(&format!("/rockets?{}&limit=9&cursor={mine}", &asked[..asked.len() - 8])).status,
        200
    );
    for other in [
        "sort=type&order=asc&status=launched",
        "sort=mission&order=desc&status=launched",
        "sort=mission&order=asc&status=exploded",
        "sort=mission&order=asc",
        "sort=mission&order=asc&status=launched&mission=m",
        "sort=mission&order=asc&status=launched&view=exact",
    ] {
        let problem = client.get(&format!("/rockets?{other}&cursor={mine}")).problem(400);
        assert_eq!(problem["errors"][0]["parameter"], "cursor", "{other}");
    }
    for bad in ["", "x", "!!", "bm90IGpzb24", &mine[..mine.len() - 4], &format!("{mine}A")] {
        let problem = client.get(&format!("/rockets?{asked}&cursor={bad}")).problem(400);
        assert_eq!(problem["errors"][0]["parameter"], "cursor", "{bad}");
    }
}

fn bad_queries_name_the_parameter(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    for (query, parameter) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("limit=%2B5", "limit"),
        ("limit=", "limit"),
        ("limit=99999999999999999999999", "limit"),
        ("sort=Speed", "sort"),
        ("sort=", "sort"),
        ("order=up", "order"),
        ("view=best", "view"),
        ("status=flying", "status"),
        ("mission=", "mission"),
        ("mission=%00", "mission"),
        ("type=%ff", "type"),
        (&format!("channel={}", "x".repeat(256)), "channel"),
        ("page=2", "page"),
        ("Limit=2", "Limit"),
        ("limit=2&limit=2", "limit"),
        ("sort=speed&%73ort=speed", "sort"),
    ] {
        let problem = client.get(&format!("/rockets?{query}")).problem(400);
        let errors = problem["errors"].as_array().unwrap();
        assert!(
            errors
                .iter()
                .all(|error| error["parameter"] == parameter && error["detail"].is_string()),
            "{problem}"
        );
    }
    client.post(&launched("r", 1));
    for (query, parameter) in
        [("view=x", "view"), ("limit=1", "limit"), ("view=exact&view=exact", "view")]
    {
        let problem = client.get(&format!("/rockets/r?{query}")).problem(400);
        assert_eq!(problem["errors"][0]["parameter"], parameter);
    }
    let several = client.get("/rockets?limit=0&sort=x&foo=1").problem(400);
    assert_eq!(several["errors"].as_array().unwrap().len(), 3);
}

fn defaults(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    assert_eq!(client.get("/rockets").json(), json!({ "rockets": [], "nextCursor": null }));
    let lines: Vec<String> =
        (0..150).map(|index| faster(&format!("c{index:03}"), 1, index).to_string()).collect();
    client.post_lines(lines.join("\n").as_bytes());
    let first = |client: &mut Client, query: &str| {
        let json = client.get(&format!("/rockets?{query}")).json();
        assert_eq!(json["rockets"].as_array().unwrap().len(), 100);
        json["rockets"][0]["channel"].as_str().unwrap().to_owned()
    };
    // All have the same update time, so the channel decides, in the sort's own direction.
    assert_eq!(first(&mut client, ""), "c149");
    assert_eq!(first(&mut client, "sort=latestUpdate"), "c149");
    assert_eq!(first(&mut client, "sort=speed"), "c149");
    for ascending in ["channel", "type", "mission", "status"] {
        assert_eq!(first(&mut client, &format!("sort={ascending}")), "c000");
    }
}

/// Asserts that the first pages, the totals and the reports match the tables.
fn check_lists(client: &mut Client, database: &Path) {
    let sorts = [
        ("speed", "speed"),
        ("latestUpdate", "latest_update"),
        ("type", "type"),
        ("mission", "mission"),
        ("status", "status"),
    ];
    for (sort, column) in sorts {
        for (order, filter, condition) in [("desc", "", "true"), ("asc", "&type=T3", "type = 'T3'")]
        {
            let page =
                client.get(&format!("/rockets?sort={sort}&order={order}{filter}&limit=50")).json();
            let told: Vec<&Value> = page["rockets"]
                .as_array()
                .unwrap()
                .iter()
                .map(|rocket| &rocket["channel"])
                .collect();
            let sql = format!(
                "SELECT channel FROM rockets WHERE {condition}
                 ORDER BY {column} IS NULL, {column} {order}, channel {order} LIMIT 50"
            );
            let rows = query(database, &sql);
            assert_eq!(
                told,
                rows.iter().map(|row| &row[0]).collect::<Vec<_>>(),
                "{sort} {order} {filter}"
            );
        }
    }
    for report in ["missions", "types", "explosions", "fleet"] {
        let by_http = client
            .request("GET", &format!("/reports/{report}"), &[("accept", "text/csv")], b"")
            .unwrap();
        let by_sql =
            run(&["report", report, "--format", "csv", "--database", database.to_str().unwrap()]);
        assert_eq!(String::from_utf8(by_http.body).unwrap(), stdout(&by_sql), "{report}");
    }
}

#[test]
fn lists_are_as_the_tables_whoever_writes() {
    let directory = tempfile::tempdir().unwrap();
    let (database, file) =
        (directory.path().join("rockets.db"), directory.path().join("messages.ndjson"));
    let message = |rocket: u32, number: u32| {
        let channel = format!("{:08x}", rocket.wrapping_mul(2_654_435_761));
        let rocket_type = format!("T{}", (rocket + number) % 7);
        let event = Event::Launched(rocket_type, (rocket % 977) as i32, "M".to_owned());
        let time = format!("2022-02-02T18:{:02}:{number:02}Z", rocket % 60);
        message(&channel, number, &time, &event).to_string() + "\n"
    };
    let path = database.to_str().unwrap();
    let ingest = |lines: String| {
        std::fs::write(&file, lines).unwrap();
        assert!(run(&["ingest", file.to_str().unwrap(), "--database", path]).status.success());
    };
    ingest((0..10_000).map(|rocket| message(rocket, 1)).collect());
    let service = Service::start(&database);
    let mut client = Client::new(service.address);
    check_lists(&mut client, &database);
    for round in 0..3 {
        // This process: changes of rockets, and new ones.
        let lines: String =
            (0..500).map(|index| message(round * 2_000 + index * 21, 2 + round)).collect();
        client.post_lines(lines.as_bytes());
        check_lists(&mut client, &database);
        // Other processes: the same, a rocket that is removed, and any statement.
        ingest((0..500).map(|index| message(round * 2_000 + index * 23, 7 + round)).collect());
        check_lists(&mut client, &database);
        let fastest = query(
            &database,
            "SELECT channel FROM rockets ORDER BY speed DESC, channel DESC LIMIT 1",
        );
        let fastest = fastest[0][0].as_str().unwrap();
        assert!(run(&["forget", fastest, "--database", path]).status.success());
        check_lists(&mut client, &database);
        assert_eq!(client.post(&faster(fastest, 3, 9_000)).status, 204);
        check_lists(&mut client, &database);
        sql(&database, "UPDATE rockets SET speed = speed + 9999 WHERE channel LIKE '%7'");
        check_lists(&mut client, &database);
        assert_eq!(client.post(&exploded(fastest, 4, &format!("R{round}"))).status, 204);
        check_lists(&mut client, &database);
    }
}

#[test]
fn what_is_acknowledged_is_listed_at_once_while_others_write() {
    let directory = tempfile::tempdir().unwrap();
    let (database, file) =
        (directory.path().join("rockets.db"), directory.path().join("messages.ndjson"));
    let service = Service::start(&database);
    let lines: String = (0..3_000)
        .map(|rocket| launched(&format!("other{rocket}"), 1).to_string() + "\n")
        .collect();
    std::fs::write(&file, lines).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ingesting = || {
            while !done.load(Ordering::Relaxed) {
                let path = [file.to_str().unwrap(), database.to_str().unwrap()];
                assert!(run(&["ingest", path[0], "--database", path[1]]).status.success());
                assert!(run(&["forget", "other7", "--database", path[1]]).status.success());
            }
        };
        scope.spawn(ingesting);
        let clients: Vec<_> = (0..4).map(|index| (index, Client::new(service.address))).collect();
        let posting: Vec<_> = clients
            .into_iter()
            .map(|(index, mut client)| {
                scope.spawn(move || {
                    for number in 1..=60_u32 {
                        let (channel, speed) = (format!("mine{index}"), 1_000_000 + index);
                        assert_eq!(client.post(&faster(&channel, number, speed)).status, 204);
                        let page = client.get("/rockets?sort=speed&limit=4").json();
                        let rockets = page["rockets"].as_array().unwrap();
                        let mine =
                            rockets.iter().find(|rocket| rocket["channel"] == channel.as_str());
                        let mine = mine.unwrap_or_else(|| panic!("{channel} {number}: {page}"));
                        assert_eq!(mine["messages"]["processed"], number, "{page}");
                        assert_eq!(mine["speed"], i64::from(speed) * i64::from(number), "{page}");
                    }
                })
            })
            .collect();
        let ended: Vec<_> = posting.into_iter().map(|thread| thread.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
    });
}
