//! GET /rockets: orders, filters, views, and pages that show each rocket exactly once.

use std::cell::RefCell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};
use testkit::app::{App, Backend};
use testkit::client::{Answer, Client, encode};
use testkit::conformance;
use testkit::message::{Event, exploded, faster, launched, launched_as, message};
use testkit::postgres::{divided, execute};
use testkit::process::{Service, run, stdout};
use testkit::sqlite::{query, sql};

conformance!(
    every_sort_pages_through_each_rocket_once,
    filters_and_views,
    any_filters_find_what_a_plain_filter_finds,
    a_cursor_belongs_to_its_filters,
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

const TYPES: [&str; 4] = ["Falcon-9", "a,b", "ß", "unknown"];
const MISSIONS: [&str; 4] = ["ARTEMIS", "M, m", "&=+%", "none"];
const STATUSES: [&str; 3] = ["awaitingLaunch", "exploded", "launched"];
/// Channels start with one of these. Some are next to each other, with nothing in between.
const PREFIXES: [&str; 9] = [
    "a",
    "a~",
    "a\u{d7ff}",
    "a\u{e000}",
    "b",
    "é",
    "\u{ffff}",
    "\u{10ffff}",
    "\u{10ffff}\u{10ffff}",
];
/// How long ago a rocket was last heard of, in minutes.
const SILENCES: [u32; 4] = [0, 40, 180, 2_880];

/// Some rockets of every kind, with their channels and silences.
fn varied_fleet(client: &mut Client) -> Vec<(String, u32)> {
    let mut lines = Vec::new();
    let mut silences = Vec::new();
    for index in 0..72_u32 {
        let part = |modulus: u32| (index / modulus) as usize;
        let channel = format!("{}{}", PREFIXES[index as usize % 9], index % 5);
        let channel = if silences.iter().any(|(known, _)| *known == channel) {
            // It holds another prefix, not at its beginning.
            format!("{channel}~b{index}")
        } else {
            channel
        };
        let (rocket_type, mission) = (TYPES[part(2) % 3], MISSIONS[part(5) % 3]);
        let mut launch = launched_as(&channel, 1, rocket_type, (index % 4) as i32, mission);
        launch["metadata"]["messageTime"] = json!(format!("2022-02-02T18:00:{:02}Z", index % 7));
        match index % 7 {
            // Never launched, and with a gap at its beginning.
            0 => lines.push(faster(&channel, 3, 1)),
            1 => lines.extend([launch, exploded(&channel, 2, "BOOM")]),
            // The exact view lacks the explosion.
            2 => lines.extend([launch, exploded(&channel, 3, "BOOM")]),
            3 => lines.extend([launch, launched_as(&channel, 9, TYPES[part(3) % 3], 1, "M, m")]),
            4 => lines.push(faster(&channel, 1, 1)),
            _ => lines.push(launch),
        }
        silences.push((channel, SILENCES[part(3) % 4]));
    }
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    assert_eq!(client.post_lines(lines.join("\n").as_bytes()).json()["rejected"], 0);
    silences
}

/// Lets time pass for each rocket, in the database.
fn silence(postgres: Option<&str>, file: &Path, silences: &[(String, u32)]) {
    let statements = silences.iter().map(|(channel, minutes)| {
        let time = match postgres {
            Some(_) => format!("now() - interval '{minutes} minutes'"),
            None => {
                format!("strftime('%Y-%m-%dT%H:%M:%S', 'now', '-{minutes} minutes') || '.000000Z'")
            }
        };
        format!("UPDATE rockets SET last_received = {time} WHERE channel = '{channel}';")
    });
    let statements: String = statements.collect();
    match postgres {
        Some(url) => execute(url, &statements),
        None => sql(file, &statements),
    }
}

/// Filters, chosen at random.
#[derive(Clone, Debug)]
struct Wanted {
    prefix: Option<&'static str>,
    types: Vec<&'static str>,
    missions: Vec<&'static str>,
    statuses: Vec<&'static str>,
    missing: Option<bool>,
    /// In minutes.
    silent_for: Option<u32>,
}

impl Wanted {
    fn any() -> impl Strategy<Value = Self> {
        let option = proptest::option::weighted::<BoxedStrategy<&'static str>>;
        // More often than not there is no such filter.
        let some = |of: &'static [&'static str]| {
            prop_oneof![Just(Vec::new()), Just(Vec::new()), subsequence(of, 0..=of.len())]
        };
        let prefix = option(0.3, select(PREFIXES.as_slice()).boxed());
        let silent_for =
            proptest::option::weighted(0.3, select(vec![30_u32, 120, 1_440, 52_560_000]));
        let missing = proptest::option::weighted(0.3, any::<bool>());
        (prefix, some(&TYPES), some(&MISSIONS), some(&STATUSES), missing, silent_for).prop_map(
            |(prefix, types, missions, statuses, missing, silent_for)| Self {
                prefix,
                types,
                missions,
                statuses,
                missing,
                silent_for,
            },
        )
    }

    fn query(&self) -> String {
        let mut query = String::new();
        let mut add = |name: &str, value: &str| query += &format!("&{name}={value}");
        self.types.iter().for_each(|value| add("type", &encode(value)));
        self.prefix.iter().for_each(|value| add("channelPrefix", &encode(value)));
        self.missions.iter().rev().for_each(|value| add("mission", &encode(value)));
        if !self.statuses.is_empty() {
            add("status", &[self.statuses.join(","), self.statuses[0].to_owned()].join(","));
        }
        self.missing.iter().for_each(|missing| add("missing", &missing.to_string()));
        if let Some(minutes) = self.silent_for {
            let hours = minutes.is_multiple_of(60).then(|| format!("{}h", minutes / 60));
            add("silentFor", &hours.unwrap_or_else(|| format!("{minutes}m")));
        }
        query
    }

    fn matches(&self, rocket: &Value, silences: &[(String, u32)]) -> bool {
        let is_one_of = |wanted: &[&str], member: &str| {
            wanted.is_empty() || wanted.iter().any(|value| rocket[member] == **value)
        };
        let channel = rocket["channel"].as_str().unwrap();
        let (_, silence) = silences.iter().find(|(known, _)| known == channel).unwrap();
        is_one_of(&self.types, "type")
            && is_one_of(&self.missions, "mission")
            && is_one_of(&self.statuses, "status")
            && self.prefix.is_none_or(|prefix| channel.as_bytes().starts_with(prefix.as_bytes()))
            && self.missing.is_none_or(|missing| (rocket["messages"]["missing"] != 0) == missing)
            && self.silent_for.is_none_or(|silent_for| *silence >= silent_for)
    }
}

fn any_filters_find_what_a_plain_filter_finds(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let mut silences = varied_fleet(&mut client);
    match backend {
        Backend::SqliteFile => silence(None, &app.database(), &silences),
        Backend::Postgres | Backend::Citus => {
            silence(Some(&app.database_argument()), Path::new(""), &silences);
        }
        // Nobody else can change it, so no time has passed.
        Backend::SqliteMemory => silences.iter_mut().for_each(|(_, minutes)| *minutes = 0),
    }
    check_any_filters(&mut client, &silences);
}

#[test]
fn any_filters_find_what_a_plain_filter_finds_in_a_fleet_that_is_divided() {
    let database = divided();
    let service = Service::start(&database.url);
    let mut client = Client::new(service.address);
    let silences = varied_fleet(&mut client);
    silence(Some(&database.url), Path::new(""), &silences);
    check_any_filters(&mut client, &silences);
}

fn check_any_filters(client: &mut Client, silences: &[(String, u32)]) {
    let [best_effort, exact] = ["best-effort", "exact"].map(|view| {
        let all = client.get(&format!("/rockets?view={view}&limit=1000")).json();
        all["rockets"].as_array().unwrap().clone()
    });
    assert_eq!((best_effort.len(), exact.len()), (72, 72));
    let config = ProptestConfig { cases: 40, ..ProptestConfig::default() };
    let client = RefCell::new(client);
    proptest!(config, |(wanted in Wanted::any(), limit in 1..20_usize)| {
        for (view, all) in [("best-effort", &best_effort), ("exact", &exact)] {
            let matching =
                all.iter().filter(|rocket| wanted.matches(rocket, silences)).cloned().collect();
            let matching: Vec<Value> = matching;
            for (sort, order) in SORTS.iter().flat_map(|sort| [(sort, "asc"), (sort, "desc")]) {
                let query = format!(
                    "view={view}&sort={sort}&order={order}&limit={limit}{}", wanted.query()
                );
                let pages = pages(&mut client.borrow_mut(), &query);
                prop_assert!(pages.iter().rev().skip(1).all(|page| page.len() == limit));
                let must = sorted(matching.clone(), sort, order == "desc");
                prop_assert_eq!(pages.concat(), must, "{}", query);
            }
        }
    });
}

fn a_cursor_belongs_to_its_filters(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    fleet(&mut client);
    let queries = [
        "",
        "&channelPrefix=a",
        "&channelPrefix=%C3%A9",
        "&type=T1",
        "&type=T1&type=T2",
        "&type=T1,T2&type=T1&type=T2",
        "&mission=m",
        "&mission=M&mission=m",
        "&type=T1&type=T2&mission=M&mission=m",
        "&status=launched",
        "&status=launched,awaitingLaunch",
        "&missing=true",
        "&missing=false",
        "&silentFor=36500d",
        "&silentFor=1s",
    ];
    // The position does not matter, so that filters without a second page have a cursor, too.
    let forged = |query: &str, client: &mut Client| {
        let answer = client.get(&format!("/rockets?sort=channel&limit=1{query}")).json();
        answer["nextCursor"].as_str().map(str::to_owned)
    };
    let cursors: Vec<_> = queries.iter().map(|query| forged(query, &mut client)).collect();
    assert!(cursors.iter().flatten().count() >= queries.len() - 2, "{cursors:?}");
    for (mine, cursor) in cursors.iter().enumerate() {
        let Some(cursor) = cursor else { continue };
        for (other, query) in queries.iter().enumerate() {
            let answer =
                client.get(&format!("/rockets?sort=channel&limit=1{query}&cursor={cursor}"));
            if mine == other {
                assert_eq!(answer.status, 200, "{answer:?}");
            } else {
                assert_eq!(answer.problem(400)["errors"][0]["parameter"], "cursor", "{query}");
            }
        }
    }
    // The same filters in other words.
    for (query, other) in [
        ("&type=T1&type=T2", "&type=T2&type=T1&type=T2"),
        ("&status=launched,awaitingLaunch", "&status=awaitingLaunch,launched,launched"),
    ] {
        let cursor = forged(query, &mut client).unwrap();
        let path = format!("/rockets?sort=channel&limit=1{other}&cursor={cursor}");
        assert_eq!(client.get(&path).status, 200, "{other}");
    }
    // As many and as long as allowed: the next page can still be asked for.
    let long: String =
        (0..50).map(|index| format!("&type={}{index:03}", "x".repeat(252))).collect();
    let cursor = forged("&type=T1", &mut client).unwrap();
    let path = format!("/rockets?sort=channel&type=T1{}", &long[..long.len() - 261]);
    let answer = client.get(&format!("{path}&limit=1"));
    let next = client.get(&next_link(&answer));
    assert_eq!(next.json()["rockets"].as_array().unwrap().len(), 1, "{next:?}");
    client.get(&format!("{path}&cursor={cursor}")).problem(400);
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
        ("channelPrefix=", "channelPrefix"),
        ("channelPrefix=%00", "channelPrefix"),
        (&format!("channelPrefix={}", "x".repeat(256)), "channelPrefix"),
        ("channelPrefix=a&channelPrefix=a", "channelPrefix"),
        ("type=", "type"),
        ("type=A&type=", "type"),
        (&"type=A&".repeat(51), "type"),
        (&"mission=%20&".repeat(51), "mission"),
        ("status=", "status"),
        ("status=launched,", "status"),
        ("status=,launched", "status"),
        ("status=launched,flying", "status"),
        ("status=launched,%20exploded", "status"),
        ("status=launched&status=exploded", "status"),
        ("missing=", "missing"),
        ("missing=1", "missing"),
        ("missing=true,false", "missing"),
        ("missing=true&missing=true", "missing"),
        ("silentFor=", "silentFor"),
        ("silentFor=0s", "silentFor"),
        ("silentFor=-1s", "silentFor"),
        ("silentFor=%2B1s", "silentFor"),
        ("silentFor=1.5h", "silentFor"),
        ("silentFor=90", "silentFor"),
        ("silentFor=36501d", "silentFor"),
        ("silentFor=99999999999999999999s", "silentFor"),
        ("silentFor=1h&silentFor=1h", "silentFor"),
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
