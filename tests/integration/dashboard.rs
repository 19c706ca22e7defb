//! The dashboard in a real browser.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use testkit::app::{App, Backend};
use testkit::browser::Browser;
use testkit::client::Client;
use testkit::message::{exploded, faster, launched, launched_as};
use testkit::process::{Service, run};
use testkit::sqlite::sql;
use testkit::wait::eventually;

const LIVE: &str = "return document.querySelector('#connection').dataset.state";

/// The channels of the table's rows, in order.
const ROWS: &str = "return [...document.querySelectorAll('#rockets tr[data-channel]')].map(row => row.dataset.channel)";

/// The text of a rocket's row.
fn row(channel: &str) -> String {
    format!("document.querySelector('#rockets tr[data-channel=\"{channel}\"]').textContent")
}

fn post(client: &mut Client, messages: &[serde_json::Value]) {
    for message in messages {
        assert_eq!(client.post(message).status, 204);
    }
}

/// The text of an element.
fn text(selector: &str) -> String {
    format!("return document.querySelector('{selector}').textContent")
}

/// Whether an element is visible.
fn visible(selector: &str) -> String {
    format!("return document.querySelector('{selector}').checkVisibility()")
}

/// The codes of the invisible characters that are marked in an element.
fn codes(place: &str) -> String {
    let marks = format!("[...document.querySelectorAll('{place} .unseen')]");
    format!("return {marks}.map(it => it.dataset.code)")
}

/// Keeps the addresses of all streams that the page opens.
const KEEP_STREAMS: &str = "window.streams = []; const Original = EventSource;
    window.EventSource = class extends Original {
        constructor(url) { super(url); window.streams.push(url); }
    };";

/// Selects a status filter, as a user does.
fn filter_by_status(browser: &mut Browser, status: &str) {
    browser.run(&format!(
        "document.querySelector('#filter-status').value = '{status}';
         document.querySelector('#filter-status').dispatchEvent(new Event('change', {{ bubbles: true }}))"
    ));
}

#[test]
fn the_table_is_live_and_sorts_and_filters() {
    let app = App::spawn(Backend::SqliteFile);
    let mut client = app.client();
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", app.address));
    // The empty fleet shows how to send the first message.
    browser.until("return document.querySelector('#empty').hidden", &json!(false));
    let shown = browser.run("return document.querySelector('#empty').textContent");
    let shown = shown.as_str().unwrap();
    assert!(
        shown.contains("curl")
            && shown.contains(&app.address.to_string())
            && shown.contains("launch"),
        "{shown}"
    );
    browser.until(LIVE, &json!("live"));
    // Live: rockets appear and change without a reload.
    browser.run("window.notReloaded = true");
    post(
        &mut client,
        &[
            launched("a", 1),
            launched("b", 1),
            launched("c", 1),
            faster("b", 2, 1_234),
            faster("c", 2, 77),
        ],
    );
    browser.until(&format!("{ROWS}.length"), &json!(3));
    browser.until("return document.querySelector('#total-rockets').textContent", &json!("3"));
    post(&mut client, &[faster("a", 2, 88_000)]);
    browser.until(
        &format!("return {}.replaceAll(/[^0-9]/g, '').includes('88500')", row("a")),
        &json!(true),
    );
    // Sorting: the heading shows it, also to screen readers.
    browser.click("#rockets th button[data-sort=channel]");
    browser.until(ROWS, &json!(["a", "b", "c"]));
    browser.click("#rockets th button[data-sort=channel]");
    browser.until(ROWS, &json!(["c", "b", "a"]));
    browser.click("#rockets th button[data-sort=speed]");
    browser.until(ROWS, &json!(["a", "b", "c"]));
    let sorted = "return document.querySelector('#rockets th[aria-sort]').textContent.trim().toLowerCase().includes('speed')";
    browser.until(sorted, &json!(true));
    // Filtering by status: live, and kept over a reload, because it is in the URL.
    filter_by_status(&mut browser, "exploded");
    browser.until(ROWS, &json!([]));
    post(&mut client, &[exploded("b", 3, "PRESSURE_VESSEL_FAILURE")]);
    browser.until(ROWS, &json!(["b"]));
    assert_eq!(browser.run("return window.notReloaded"), true);
    browser.run("location.reload()");
    browser.until(ROWS, &json!(["b"]));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn hostile_text_is_text() {
    let app = App::spawn(Backend::SqliteMemory);
    let mut client = app.client();
    let hostile = "<img src=x onerror=alert(1)>";
    let mut message = launched("\"><b>c</b>", 1);
    message["message"]["mission"] = json!(hostile);
    message["message"]["type"] = json!("{{7*7}}<script>alert(2)</script>");
    post(&mut client, &[message]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", app.address));
    browser.until(&format!("{ROWS}.length"), &json!(1));
    let told =
        browser.run("return document.querySelector('#rockets tr[data-channel]').textContent");
    let told = told.as_str().unwrap();
    assert!(
        told.contains(hostile) && told.contains("{{7*7}}<script>") && told.contains("\"><b>c</b>"),
        "{told}"
    );
    assert_eq!(
        browser.run("return document.querySelectorAll('main img, main b > b, main script').length"),
        0
    );
    // The page of the rocket, whose URL needs escaping.
    browser.click("#rockets tr[data-channel] a");
    browser.until("return document.querySelector('#detail').hidden", &json!(false));
    browser.until(
        "return document.querySelector('#detail-channel').textContent",
        &json!("\"><b>c</b>"),
    );
    let both = "return ['#detail-best-effort', '#detail-exact'].every(view => \
                document.querySelector(view).textContent.includes('<img src=x onerror=alert(1)>'))";
    browser.until(both, &json!(true));
    assert_eq!(
        browser.run("return document.querySelectorAll('#detail img, #detail script').length"),
        0
    );
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_rockets_page_shows_both_views_and_what_is_between_them() {
    let app = App::spawn(Backend::SqliteFile);
    let mut client = app.client();
    post(&mut client, &[launched("r", 1), faster("r", 3, 1_000), faster("r", 7, 1)]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/#/rockets/r", app.address));
    let digits = |selector: &str| {
        format!(
            "return document.querySelector('{selector}').textContent.replaceAll(/[,\u{202f}\u{a0} ]/g, '')"
        )
    };
    browser.until(&format!("{}.includes('1501')", digits("#detail-best-effort")), &json!(true));
    browser.until(&format!("{}.includes('500')", digits("#detail-exact")), &json!(true));
    browser.until("return document.querySelectorAll('#gaps li').length", &json!(2));
    let gaps = browser.run("return document.querySelector('#gaps').textContent");
    let gaps = gaps.as_str().unwrap();
    assert!(gaps.contains('2') && gaps.contains("4–6"), "{gaps}");
    assert_eq!(browser.run("return document.querySelector('#fleet').checkVisibility()"), false);
    // The gap closes, and the views become equal, while the page is open.
    post(
        &mut client,
        &[faster("r", 2, 0), faster("r", 4, 0), faster("r", 5, 0), faster("r", 6, 0)],
    );
    browser.until("return document.querySelectorAll('#gaps li').length", &json!(0));
    browser.until(&format!("{}.includes('1501')", digits("#detail-exact")), &json!(true));
    assert_ne!(browser.run("return document.querySelector('#plot').childElementCount"), 0);
    browser.open(&format!("http://{}/#/rockets/nobody", app.address));
    browser.until("return document.querySelector('#detail-notice').hidden", &json!(false));
    post(&mut client, &[launched("nobody", 1)]);
    browser.until("return document.querySelector('#detail-known').hidden", &json!(false));
    assert_eq!(browser.complaints().iter().filter(|it| !it.contains("404")).count(), 0);
}

#[test]
fn the_description_is_shown_without_a_network() {
    let app = App::spawn(Backend::SqliteMemory);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/docs", app.address));
    browser.until("return document.querySelectorAll('.opblock').length > 10", &json!(true));
    let shown = browser.run("return document.querySelector('#swagger-ui').textContent");
    assert!(shown.as_str().unwrap().contains("/rockets/{channel}"), "{shown}");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_lost_connection_is_seen_and_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    let service = Service::start(&database);
    let address = service.address;
    post(&mut Client::new(address), &[launched("a", 1)]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{address}/"));
    browser.until(LIVE, &json!("live"));
    browser.until(ROWS, &json!(["a"]));
    drop(service);
    browser.until(LIVE, &json!("lost"));
    let banner = "return document.querySelector('#banner').textContent.trim() !== '' \
                  && document.querySelector('#banner').checkVisibility()";
    browser.until(banner, &json!(true));
    let _service = Service::start_at(&database, address);
    browser.until(LIVE, &json!("live"));
    post(&mut Client::new(address), &[launched("b", 1)]);
    browser.until(&format!("{ROWS}.sort()"), &json!(["a", "b"]));
    eventually("nothing is stale", || browser.complaints().is_empty());
}

#[test]
fn the_fleets_page_asks_for_its_rows_and_follows_no_stream() {
    let app = App::spawn(Backend::SqliteMemory);
    post(&mut app.client(), &[launched("a", 1)]);
    let mut browser = Browser::start();
    browser.run_before_pages(KEEP_STREAMS);
    browser.open(&format!("http://{}/", app.address));
    browser.until(LIVE, &json!("live"));
    // Nothing is requested twice at the start: the second request comes one interval later.
    for path in ["/rockets?", "/stats"] {
        let starts = format!(
            "return performance.getEntriesByType('resource').filter(it => it.name.includes('{path}'))
                .map(it => it.startTime)"
        );
        browser.until(
            &format!(
                "{}.length > 1",
                starts.replace("return", "return (").replace("startTime)", "startTime))")
            ),
            &json!(true),
        );
        let starts = browser.run(&starts);
        assert!(
            starts[1].as_f64().unwrap() - starts[0].as_f64().unwrap() > 1_500.0,
            "{path}: {starts}"
        );
    }
    assert_eq!(browser.run("return window.streams"), json!([]));
    // A rocket's page has one stream, for this rocket alone, until the user leaves it.
    browser.run("location.hash = '#/rockets/a'");
    browser.until("return window.streams", &json!(["events?channel=a"]));
}

#[test]
fn rows_that_somebody_holds_keep_their_places_but_not_their_values() {
    let app = App::spawn(Backend::SqliteMemory);
    let mut client = app.client();
    post(&mut client, &[faster("a", 1, 30), faster("b", 1, 20), faster("c", 1, 10)]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/#/?sort=speed", app.address));
    browser.until(ROWS, &json!(["a", "b", "c"]));
    browser.run("document.querySelector('#rockets tr[data-channel=b] a').focus()");
    post(&mut client, &[faster("c", 2, 76_000), faster("d", 1, 1)]);
    browser.until(&visible("#pending"), &json!(true));
    assert_eq!(browser.run(ROWS), json!(["a", "b", "c"]));
    let told = browser.run(&format!("return {}", row("c")));
    assert!(told.as_str().unwrap().contains("76,010"), "{told}");
    browser.click("#pending");
    browser.until(ROWS, &json!(["c", "a", "b", "d"]));
    assert_eq!(browser.run(&visible("#pending")), false);
}

#[test]
fn what_is_said_about_held_rows_is_about_these_rows() {
    let app = App::spawn(Backend::SqliteMemory);
    let mut client = app.client();
    post(&mut client, &[launched("a", 1), launched("b", 1)]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/#/?status=launched", app.address));
    browser.until(&format!("{ROWS}.sort()"), &json!(["a", "b"]));
    browser.run("document.querySelector('#rockets tr[data-channel=b] a').focus()");
    post(
        &mut client,
        &[exploded("a", 2, "PRESSURE_VESSEL_FAILURE"), exploded("b", 2, "PRESSURE_VESSEL_FAILURE")],
    );
    browser.until(&visible("#pending"), &json!(true));
    browser.until("return document.querySelectorAll('#rockets tr[data-gone]').length", &json!(2));
    assert_eq!(browser.run(&text("#range")), "Rows 1–2");
    assert_eq!(browser.run(&visible("#no-match")), false);
    browser.click("#pending");
    browser.until(ROWS, &json!([]));
    assert_eq!(browser.run(&text("#range")), "No rows");
    assert_eq!(browser.run(&visible("#no-match")), true);
}

#[test]
fn the_way_back_from_a_rocket_keeps_the_previous_pages() {
    let app = App::spawn(Backend::SqliteMemory);
    post(&mut app.client(), &[launched("a", 1), launched("b", 1), launched("c", 1)]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/#/?sort=channel&limit=1", app.address));
    for row in ["a", "b"] {
        browser.until(ROWS, &json!([row]));
        browser.until("return document.querySelector('#next').disabled", &json!(false));
        browser.click("#next");
    }
    browser.until(ROWS, &json!(["c"]));
    browser.click("#rockets tr[data-channel] a");
    browser.until(&visible("#detail-known"), &json!(true));
    browser.click("#back");
    browser.until(ROWS, &json!(["c"]));
    for row in ["b", "a"] {
        browser.click("#previous");
        browser.until(&format!("{ROWS}.join()"), &json!(row));
    }
    assert_eq!(browser.run("return document.querySelector('#previous').disabled"), true);
}

/// Lets tests spoil responses: while `window.spoiled` is set, requests for its `path` are answered
/// with its `body`.
const SPOILER: &str = "const original = window.fetch;
    window.fetch = (url, options) => window.spoiled && url.startsWith(window.spoiled.path)
        ? Promise.resolve(new Response(window.spoiled.body))
        : original(url, options);";

/// Spoils responses from the next one on, and makes the page ask at once.
fn spoil(browser: &mut Browser, path: &str, body: &str) {
    let spoiled = json!({ "path": path, "body": body });
    browser.run(&format!(
        "window.spoiled = {spoiled};
         document.dispatchEvent(new Event('visibilitychange'))"
    ));
}

#[test]
fn a_response_that_cannot_be_shown_stops_nothing() {
    let app = App::spawn(Backend::SqliteMemory);
    let mut client = app.client();
    post(&mut client, &[launched("a", 1), launched("b", 1)]);
    let mut browser = Browser::start();
    browser.run_before_pages(SPOILER);
    browser.open(&format!("http://{}/", app.address));
    browser.until(LIVE, &json!("live"));
    let mut speed = 500;
    for (page, path, body) in [
        ("#/", "stats", "null"),
        ("#/", "stats", "{}"),
        ("#/", "rockets?", "{}"),
        ("#/", "rockets?", r#"{"rockets":[{"channel":"x"}],"nextCursor":null}"#),
        ("#/", "rockets?", "<!doctype html>"),
        ("#/rockets/a", "rockets/a", "{}"),
        ("#/rockets/a", "rockets/a", r#"{"bestEffort":{"speed":1},"messages":{}}"#),
    ] {
        browser.run(&format!("location.hash = '{page}'"));
        browser.until(LIVE, &json!("live"));
        spoil(&mut browser, path, body);
        browser.until(LIVE, &json!("lost"));
        browser.until(&format!("{}.includes('can’t show')", text("#banner")), &json!(true));
        assert_eq!(browser.run("return document.querySelectorAll('tr[data-channel=x]').length"), 0);
        browser.run("window.spoiled = null");
        browser.until(LIVE, &json!("live"));
        speed += 1;
        post(&mut client, &[faster("a", speed, 1)]);
        let shown = if page == "#/" { "tr[data-channel=a]" } else { "#detail-speed" };
        browser.until(&format!("{}.includes('{speed}')", text(shown)), &json!(true));
    }
    // A bad report is only a bad report: the rest of the page works on.
    browser.run("location.hash = '#/'");
    browser.until("return document.querySelectorAll('#missions .name').length", &json!(1));
    for body in ["null", r#"{"rows":[{}]}"#, r#"{"rows":null}"#] {
        spoil(&mut browser, "reports/missions", body);
        browser.until(&visible(".missions .stale-sign"), &json!(true));
        assert_eq!(browser.run(LIVE), "live");
        filter_by_status(&mut browser, "exploded");
        browser.until(ROWS, &json!([]));
        filter_by_status(&mut browser, "");
        browser.until(&format!("{ROWS}.length"), &json!(2));
        browser.run("window.spoiled = null");
        browser.until(&visible(".missions .stale-sign"), &json!(false));
    }
}

/// U+FFFD sorts before a rocket by code points, as in the service, but after it by UTF-16 code
/// units.
#[test]
fn the_order_is_that_of_the_service() {
    let app = App::spawn(Backend::SqliteMemory);
    let mut client = app.client();
    post(&mut client, &[launched("\u{fffd}", 1), launched("\u{1f680}", 1)]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/#/?sort=channel", app.address));
    let rows = json!(["\u{fffd}", "\u{1f680}"]);
    browser.until(ROWS, &rows);
    browser.run("document.querySelector('#rockets tr[data-channel] a').focus()");
    post(&mut client, &[faster("\u{fffd}", 2, 70_000)]);
    browser.until(&format!("return {}.includes('70,500')", row("\u{fffd}")), &json!(true));
    assert_eq!(browser.run(&visible("#pending")), false, "nothing has changed its place");
    assert_eq!(browser.run(ROWS), rows);
    // The longest channel: 255 characters, each of them two UTF-16 code units.
    let channel = "\u{1f680}".repeat(255);
    assert!(
        browser.run("return document.querySelector('#filter-channel').maxLength").as_u64()
            >= Some(510)
    );
    browser.open(&format!("http://{}/#/rockets/{channel}", app.address));
    browser.until(&visible("#detail-notice"), &json!(true));
    post(&mut client, &[launched(&channel, 1)]);
    browser.until(&visible("#detail-known"), &json!(true));
}

/// The rocket has a gap, but the message above it changes nothing, and the others arrive in order:
/// the views never differ, and the page must never say that they do.
#[test]
fn both_views_are_of_one_moment() {
    for channel in ["busy", "."] {
        let app = App::spawn(Backend::SqliteMemory);
        post(
            &mut app.client(),
            &[launched(channel, 1), faster(channel, 2, 1), faster(channel, 4_000_000, 0)],
        );
        let mut browser = Browser::start();
        browser.open(&format!("http://{}/#/rockets/{channel}", app.address));
        browser.until(&visible("#detail-known"), &json!(true));
        browser.run(
            "window.shown = new Set(); window.differed = [];
             new MutationObserver(() => {
                 window.shown.add(document.querySelector('#detail-speed').textContent);
                 const differing = document.querySelector('#detail-best-effort .differs');
                 if (differing) window.differed.push(document.querySelector('.views').textContent);
             }).observe(document.querySelector('#detail'), { subtree: true, childList: true, attributes: true, characterData: true })",
        );
        let enough = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut client = app.client();
                let numbers = (3..).take_while(|_| !enough.load(Ordering::Relaxed));
                numbers.for_each(|number| post(&mut client, &[faster(channel, number, 1)]));
            });
            let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                browser.until("return window.shown.size > 10", &json!(true));
            }));
            enough.store(true, Ordering::Relaxed);
            seen.unwrap();
        });
        assert_eq!(browser.run("return window.differed"), json!([]), "{channel}");
        let asked = browser.run(
            "return performance.getEntriesByType('resource').map(it => it.name).filter(it => it.includes('/rockets/'))",
        );
        assert!(
            asked
                .as_array()
                .unwrap()
                .iter()
                .all(|url| url.as_str().unwrap().ends_with("?view=both")),
            "{asked}"
        );
    }
}

#[test]
fn a_rocket_that_is_removed_is_shown_as_such() {
    let app = App::spawn(Backend::SqliteFile);
    let mut client = app.client();
    post(&mut client, &[launched("r", 1)]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/#/rockets/r", app.address));
    browser.until(&visible("#detail-known"), &json!(true));
    let forgotten = run(&["forget", "r", "--database", &app.database_argument()]);
    assert!(forgotten.status.success(), "{forgotten:?}");
    browser.until(&format!("{}.includes('removed')", text("#detail-notice")), &json!(true));
    post(&mut client, &[launched("r", 1)]);
    browser.until(&visible("#detail-notice"), &json!(false));
}

#[test]
fn numbers_and_signs_are_never_cut_off() {
    let app = App::spawn(Backend::SqliteFile);
    let mut client = app.client();
    post(
        &mut client,
        &[launched("fast", 1), launched("slow", 1), launched("usual", 1), faster("limit", 1, 1)],
    );
    let speeds = [("fast", 161_040_000_000_i64), ("slow", -6_440_303_457_353), ("limit", i64::MIN)];
    for (channel, speed) in speeds {
        sql(
            &app.database(),
            &format!("UPDATE rockets SET speed = {speed} WHERE channel = '{channel}'"),
        );
    }
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", app.address));
    browser.until(&format!("{ROWS}.length"), &json!(4));
    let told = browser.run(&format!("return {}", row("limit")));
    assert!(
        told.as_str().unwrap().contains("-9,223,372,036,854,775,808"),
        "to the last digit: {told}"
    );
    for width in [390, 700, 1_000, 1_224, 1_280, 1_399, 1_400, 1_600, 1_920] {
        browser.look_like(width, false);
        let cut = browser.run(
            "document.querySelectorAll('td.last-received').forEach(cell => {
                 cell.classList.add('silent'); cell.firstElementChild.textContent = '12,345 d ago'; });
             const cells = [...document.querySelectorAll('#rockets td:is(.status, .speed, .latest-update, .last-received, .messages)')];
             return cells.filter(cell => cell.scrollWidth > cell.clientWidth || cell.scrollHeight > cell.clientHeight)
                 .map(cell => cell.textContent)",
        );
        assert_eq!(cut, json!([]), "{width}");
        // Ordinary values take one line.
        let height = "return document.querySelector('tr[data-channel=CHANNEL] .speed > span').getClientRects().length";
        for channel in ["usual", "fast"] {
            assert_eq!(browser.run(&height.replace("CHANNEL", channel)), 1, "{channel} {width}");
        }
    }
}

#[test]
fn every_mission_can_be_reached_and_none_is_no_mission() {
    let app = App::spawn(Backend::SqliteMemory);
    let mut client = app.client();
    for number in 0..10 {
        let mission = format!("MISSION-{number}");
        for channel in [format!("r{number}"), format!("s{number}")] {
            post(&mut client, &[launched_as(&channel, 1, "T", 500, &mission)]);
        }
    }
    post(
        &mut client,
        &[launched_as("dash", 1, "–", 500, "–"), faster("none", 1, 1), faster("none too", 1, 1)],
    );
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", app.address));
    let names =
        "return [...document.querySelectorAll('#missions .name')].map(name => name.textContent)";
    browser.until(&format!("{names}.length"), &json!(9));
    assert_eq!(browser.run(&format!("{names}.at(-1)")), "No mission known");
    assert_eq!(browser.run(&text("#missions-others-text")), "3 more missions with 5 rockets.");
    browser.click("#missions-all");
    browser.until(&format!("{names}.length"), &json!(12));
    browser.run(
        "[...document.querySelectorAll('#missions a')].find(link => link.textContent.startsWith('MISSION-9')).click()",
    );
    browser.until(&format!("{ROWS}.sort()"), &json!(["r9", "s9"]));
    // The filtered mission is also shown among the first ones.
    browser.click("#missions-all");
    browser.until(&format!("{names}.at(-2)"), &json!("MISSION-9"));
    // And it is not counted once more among the others.
    assert_eq!(browser.run(&text("#missions-others-text")), "2 more missions with 3 rockets.");
    browser.run("location.hash = '#/'");
    browser.until(&format!("{ROWS}.length"), &json!(23));
    // The dash for an unknown value is not text, so it can't be mistaken for the name of a mission.
    for (channel, mission) in [("dash", "–"), ("none", "")] {
        let cell = format!("document.querySelector('tr[data-channel={channel}] .mission > span')");
        assert_eq!(browser.run(&format!("return {cell}.textContent")), mission);
        assert_eq!(
            browser.run(&format!("return {cell}.classList.contains('unknown')")),
            channel == "none"
        );
    }
}

#[test]
fn a_report_without_all_missions_says_so() {
    let app = App::spawn(Backend::SqliteMemory);
    let lines: String = (0..10_000)
        .map(|number| {
            let mission = format!("M-{number:05}");
            launched_as(&format!("r{number}"), 1, "T", 500, &mission).to_string() + "\n"
        })
        .collect();
    assert_eq!(app.client().post_lines(lines.as_bytes()).json()["applied"], 10_000);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", app.address));
    let others = "9,992 more missions with 9,992 rockets.";
    browser.until(&text("#missions-others-text"), &json!(others));
    assert_eq!(browser.run(&visible("#missions-truncated")), false);
    // By name this mission comes last, though it is the largest.
    let largest = ["z", "z too"].map(|channel| launched_as(channel, 1, "T", 500, "Z"));
    post(&mut app.client(), &largest);
    post(&mut app.client(), &[faster("none", 1, 1)]);
    browser.until(&visible("#missions-truncated"), &json!(true));
    let told = browser.run(&text("#missions-truncated"));
    let told = told.as_str().unwrap();
    assert!(told.contains("first 10,000 missions by name, with 10,000 rockets"), "{told}");
    assert!(told.contains("more missions") && told.contains("without a mission"), "{told}");
}

#[test]
fn a_filter_chosen_while_disconnected_shows_no_other_rows() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    let service = Service::start(&database);
    let address = service.address;
    post(
        &mut Client::new(address),
        &[launched("a", 1), exploded("b", 1, "PRESSURE_VESSEL_FAILURE")],
    );
    let mut browser = Browser::start();
    browser.open(&format!("http://{address}/"));
    browser.until(&format!("{ROWS}.length"), &json!(2));
    drop(service);
    filter_by_status(&mut browser, "exploded");
    browser.until(ROWS, &json!([]));
    browser.until(LIVE, &json!("lost"));
    assert!(browser.run(&text("#no-match")).as_str().unwrap().contains("is not available"));
    browser.until(&visible(".missions .stale-sign"), &json!(true));
    let _service = Service::start_at(&database, address);
    browser.until(ROWS, &json!(["b"]));
    browser.until("return document.querySelectorAll('[data-stale]').length", &json!(0));
}

#[test]
fn a_wrong_address_is_explained() {
    let app = App::spawn(Backend::SqliteMemory);
    post(&mut app.client(), &[launched("a", 1)]);
    let mut browser = Browser::start();
    for (address, named) in [
        ("#/?status=launchd&limit=0", &["“status”", "launched", "“limit”"][..]),
        ("#/?sort=toString", &["“sort”", "latestUpdate"]),
        ("#/?cursor=none", &["“cursor”"]),
        ("#/?stauts=launched", &["“stauts”"]),
        ("#/?status=launched&status=exploded", &["“status”", "only once"]),
        ("#/rocket/a", &["“/rocket/a”", "not a page"]),
        ("#/rockets/", &["“/rockets/”", "not a page"]),
    ] {
        browser.open("about:blank");
        browser.open(&format!("http://{}/{address}", app.address));
        browser.until(&visible("#problem"), &json!(true));
        let told = browser.run(&text("#problem"));
        let told = told.as_str().unwrap();
        assert!(
            named.iter().all(|name| told.contains(name)) && !told.contains("Bad Request"),
            "{address}: {told}"
        );
        browser.until(LIVE, &json!("live"));
        browser.click("#problem a");
        browser.until(ROWS, &json!(["a"]));
        assert_eq!(browser.run(&visible("#problem")), false);
    }
    let long = "x".repeat(300);
    browser.open(&format!("http://{}/#/rockets/{long}", app.address));
    browser.until(
        &format!("{}.includes('1 to 255 characters')", text("#detail-notice")),
        &json!(true),
    );
    browser.until(LIVE, &json!("live"));
}

#[test]
fn text_that_cannot_be_seen_is_named() {
    let app = App::spawn(Backend::SqliteMemory);
    let mut client = app.client();
    let (zero_width, reversed) = ("\u{200b}\u{2060}", "ARTEMIS\u{202e}SIMETRA");
    post(&mut client, &[launched_as(zero_width, 1, " ", 500, reversed)]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", app.address));
    browser.until(ROWS, &json!([zero_width]));
    assert_eq!(browser.run(&codes("#rockets .channel")), json!(["U+200B", "U+2060"]));
    assert_eq!(browser.run(&codes("#rockets .mission")), json!(["U+202E"]));
    assert_eq!(browser.run(&codes("#rockets .type")), json!(["U+0020"]));
    // Copying gives exactly what was sent.
    assert_eq!(browser.run(&text("#rockets td.channel")), zero_width);
    assert_eq!(browser.run(&text("#rockets td.mission")), reversed);
    browser.click("#rockets td.channel a");
    browser.until(&visible("#detail-known"), &json!(true));
    assert_eq!(browser.run(&codes("#detail-channel")), json!(["U+200B", "U+2060"]));
    assert_eq!(browser.run("return document.title"), "[U+200B][U+2060] – Rocket Monitor");
}

#[test]
fn what_belongs_to_an_emoji_stays_in_it() {
    let app = App::spawn(Backend::SqliteMemory);
    let whole = "🏳️‍🌈 👩‍🚀 👩🏽‍🚀 🧑‍⚕️ 1️⃣ \u{600}12";
    // The same characters where they are no part of an emoji hide something.
    let hiding = "a\u{200d}🚀\u{fe0f}\u{fe0f}\u{200d}b\u{200c}c\u{fe0f}";
    post(&mut app.client(), &[launched_as(whole, 1, hiding, 500, whole)]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", app.address));
    browser.until(ROWS, &json!([whole]));
    let parts = |place: &str| format!("return document.querySelector('{place}').childNodes.length");
    for cell in ["#rockets td.channel > a", "#rockets td.mission > span", "#missions .name"] {
        browser.until(&parts(cell), &json!(1));
        assert_eq!(browser.run(&codes(cell)), json!([]), "{cell}");
    }
    assert_eq!(browser.run("return document.querySelector('#rockets td.channel').title"), whole);
    let hidden = json!(["U+200D", "U+FE0F", "U+200D", "U+200C", "U+FE0F"]);
    assert_eq!(browser.run(&codes("#rockets td.type")), hidden);
}

#[test]
fn the_empty_page_shows_commands_that_work() {
    let app = App::spawn(Backend::SqliteMemory);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", app.address));
    browser.until(&visible("#empty"), &json!(true));
    let shown =
        |browser: &mut Browser, id: &str| browser.run(&text(id)).as_str().unwrap().to_owned();
    let (curl, launch) = (shown(&mut browser, "#empty-curl"), shown(&mut browser, "#empty-launch"));
    // The shell reads the command, and the tests' client sends what curl would send by it.
    let said = shell(&format!("curl() {{ printf '%s\\0' \"$@\"; }}; {curl}"));
    let arguments = String::from_utf8(said.stdout).unwrap();
    let arguments: Vec<_> = arguments.split_terminator('\0').collect();
    let url = format!("http://{}/messages", app.address);
    let ["-i", to, "-d", body] = arguments[..] else { panic!("{curl}: {arguments:?}") };
    assert_eq!(to, url);
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let answer = app.client().request("POST", "/messages", &form, body.as_bytes()).unwrap();
    assert_eq!(answer.status, 204, "{curl}: {answer:?}");
    browser.until(&format!("{ROWS}.length"), &json!(1));
    assert!(launch.starts_with("rocket-monitor launch http://"), "{launch}");
    let folder = Path::new(env!("CARGO_BIN_EXE_rocket-monitor")).parent().unwrap();
    let short = format!("PATH={}:$PATH; {launch} --rockets 3 --messages 30", folder.display());
    let said = shell(&short);
    assert!(String::from_utf8_lossy(&said.stdout).contains("0 disagree"), "{launch}: {said:?}");
}

/// Runs a command as a user's shell does, without what this one's environment says of the program
/// and of proxies.
fn shell(command: &str) -> std::process::Output {
    let mut shell = Command::new("sh");
    for (name, _) in std::env::vars() {
        if name.starts_with("ROCKET_MONITOR_") || name.to_ascii_lowercase().ends_with("_proxy") {
            shell.env_remove(name);
        }
    }
    shell.args(["-c", command]).output().unwrap()
}

/// A service that requires tokens, and the directory of the token files.
fn guarded() -> (Service, tempfile::TempDir) {
    guarded_by("read-token")
}

fn guarded_by(read_token: &str) -> (Service, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("write"), "write-token").unwrap();
    std::fs::write(path("read"), read_token).unwrap();
    let (write, read) = (path("write"), path("read"));
    let options =
        ["--database", "memory", "--write-token-file", &write, "--read-token-file", &read];
    (Service::start_with(&options), directory)
}

const ASKS_FOR_TOKEN: &str = "return document.querySelector('#token-dialog').open";

fn sign_in(browser: &mut Browser, service: &Service) {
    sign_in_with(browser, service, "read-token");
}

fn sign_in_with(browser: &mut Browser, service: &Service, token: &str) {
    browser.open(&format!("http://{}/", service.address));
    browser.until(ASKS_FOR_TOKEN, &json!(true));
    browser.run(&format!(
        "document.querySelector('#token').value = '{token}';
         document.querySelector('#token-form').requestSubmit()"
    ));
    browser.until(LIVE, &json!("live"));
}

#[test]
fn the_first_sign_in_is_no_outage() {
    let (service, _directory) = guarded();
    let mut browser = Browser::start();
    // Records everything that is ever shown.
    browser.run_before_pages(
        "window.states = new Set();
         new MutationObserver(() => window.states.add(document.documentElement.dataset.connection))
             .observe(document, { subtree: true, attributes: true, childList: true })",
    );
    browser.open(&format!("http://{}/", service.address));
    browser.until("return document.querySelector('#token-dialog').open", &json!(true));
    browser.until(LIVE, &json!("locked"));
    assert_eq!(browser.run("return window.states.has('lost')"), false);
    assert_eq!(browser.run(&text("#banner")), "");
    assert_eq!(browser.run("return document.querySelectorAll('[data-stale]').length"), 0);
    assert_eq!(browser.run("return document.title"), "Rocket Monitor");
    // Once closed, it stays closed during the next requests, and can be reopened.
    browser
        .run("document.querySelector('#token-dialog').close(); performance.clearResourceTimings()");
    let asked = "return performance.getEntriesByType('resource').filter(it => it.name.includes('/rockets')).length > 1";
    browser.until(asked, &json!(true));
    assert_eq!(browser.run("return document.querySelector('#token-dialog').open"), false);
    browser.click("#sign-in");
    assert_eq!(browser.run("return document.querySelector('#token-dialog').open"), true);
    assert_eq!(browser.run(&visible("#sign-out")), false);
    sign_in(&mut browser, &service);
    assert_eq!(browser.run(&visible("#sign-out")), true);
    assert!(
        browser.run(&text("#empty-curl")).as_str().unwrap().contains("ROCKET_MONITOR_WRITE_TOKEN")
    );
}

#[test]
fn signing_out_ends_the_session() {
    let (service, _directory) = guarded();
    let mut browser = Browser::start();
    sign_in(&mut browser, &service);
    browser.until(&visible("#sign-out"), &json!(true));
    browser.click("#sign-out");
    browser.until("return document.querySelector('#token-dialog').open", &json!(true));
    assert_eq!(browser.run("return fetch('stats').then(answer => answer.status)"), 401);
    assert_eq!(browser.run(&visible("#sign-out")), false);
    assert_eq!(browser.run("return localStorage.length"), 0);
}

#[test]
fn a_link_to_a_rocket_asks_for_the_token_and_shows_no_outage() {
    let (service, _directory) = guarded();
    let mut browser = Browser::start();
    browser.run_before_pages(KEEP_STREAMS);
    // The page's first request fails as if the network were down: the page is lost, then locked.
    browser.run_before_pages(
        "window.banners = [];
         const banner = () => document.querySelector('#banner')?.textContent ?? '';
         new MutationObserver(() => window.banners.push(banner()))
             .observe(document, { subtree: true, childList: true, characterData: true });
         const original = window.fetch;
         window.fetch = () => {
             window.fetch = original;
             return Promise.reject(new TypeError('Failed to fetch'));
         }",
    );
    browser.open(&format!("http://{}/#/rockets/a", service.address));
    browser.until(ASKS_FOR_TOKEN, &json!(true));
    assert_eq!(browser.run(LIVE), "locked");
    let was_lost = "return window.banners.some(text => text.includes('can’t be reached'))";
    assert_eq!(browser.run(was_lost), true);
    assert_eq!(browser.run(&text("#banner")), "");
    assert_eq!(browser.run("return document.title"), "a – Rocket Monitor");
    // A stream would fail for want of a token too, and could only say that something failed.
    assert_eq!(browser.run("return window.streams"), json!([]));
}

#[test]
fn the_service_says_who_is_signed_in() {
    let (service, _directory) = guarded();
    let address = service.address;
    let mut browser = Browser::start();
    // A session that this page didn't begin: only the cookie knows of it.
    browser.open(&format!("http://{address}/docs"));
    let begun = "return fetch('session', { method: 'POST', body: 'read-token' })";
    assert_eq!(browser.run(&format!("{begun}.then(answer => answer.status)")), 204);
    browser.open(&format!("http://{address}/"));
    browser.until(&visible("#sign-out"), &json!(true));
    let with_tokens = format!("{}.includes('ROCKET_MONITOR_WRITE_TOKEN')", text("#empty-curl"));
    assert_eq!(browser.run(&with_tokens), true);
    // Another tab that signs out reaches this one.
    browser.run(
        "window.notReloaded = true;
         fetch('session', { method: 'DELETE' })
             .then(() => new BroadcastChannel('session').postMessage('changed'))",
    );
    browser.until("return window.notReloaded", &json!(null));
    browser.until(ASKS_FOR_TOKEN, &json!(true));
    assert_eq!(browser.run(&visible("#sign-out")), false);
    // A service without tokens has nobody signed in, whatever cookies there are from before.
    sign_in(&mut browser, &service);
    browser.until(&visible("#sign-out"), &json!(true));
    drop(service);
    let _open = Service::start_with(&["--listen", &address.to_string(), "--database", "memory"]);
    browser.until(&visible("#sign-out"), &json!(false));
    browser.until(LIVE, &json!("live"));
    browser.run("location.reload()");
    browser.until(LIVE, &json!("live"));
    assert_eq!(browser.run(&visible("#sign-out")), false);
    assert_eq!(browser.run(&with_tokens), false);
}

/// Browsers send a cookie to all ports of a host.
#[test]
fn sessions_of_two_services_on_one_host_are_apart() {
    let (first, _first_directory) = guarded();
    let (second, _second_directory) = guarded_by("other-token");
    let mut browser = Browser::start();
    sign_in(&mut browser, &first);
    sign_in_with(&mut browser, &second, "other-token");
    browser.open(&format!("http://{}/", first.address));
    browser.until(LIVE, &json!("live"));
    browser.click("#sign-out");
    browser.until(ASKS_FOR_TOKEN, &json!(true));
    browser.open(&format!("http://{}/", second.address));
    browser.until(LIVE, &json!("live"));
}

#[test]
fn nothing_hides_the_filters_at_a_large_zoom() {
    let app = App::spawn(Backend::SqliteMemory);
    let messages: Vec<_> = (0..40).map(|number| launched(&format!("r{number}"), 1)).collect();
    post(&mut app.client(), &messages);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", app.address));
    browser.until(&format!("{ROWS}.length"), &json!(40));
    for (width, height) in [(640, 450), (320, 256), (1_280, 450), (390, 844)] {
        browser.resize(width, height, 2);
        let hidden = browser.run(
            "return [...document.querySelectorAll('#filters input, #filters select, #filters button')]
                .filter(field => field.checkVisibility()).filter(field => {
                    field.scrollIntoView({ block: 'end' });
                    const { x, y, width, height } = field.getBoundingClientRect();
                    return !field.contains(document.elementFromPoint(x + width / 2, y + height / 2));
                }).map(field => field.id)",
        );
        assert_eq!(hidden, json!([]), "{width} x {height}");
        let wide = browser.run(
            "return document.documentElement.scrollWidth > document.documentElement.clientWidth",
        );
        assert_eq!(wide, false, "{width} x {height}: nothing has to be scrolled sideways");
    }
}

#[test]
fn forced_colours_and_paper_show_what_the_screen_shows() {
    let app = App::spawn(Backend::SqliteMemory);
    post(
        &mut app.client(),
        &[launched("a", 1), launched("b", 1), exploded("b", 2, "PRESSURE_VESSEL_FAILURE")],
    );
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/#/?mission=ARTEMIS", app.address));
    browser
        .until("return document.querySelectorAll('#missions a[aria-current]').length", &json!(1));
    browser.emulate_media("", "forced-colors", "active");
    let style = |selector: &str, property: &str| {
        format!("return getComputedStyle(document.querySelector('{selector}')).{property}")
    };
    // The active filter has an outline, and the two parts of a bar differ from each other and from
    // the background.
    for current in ["a.tile[aria-current]", "#missions a[aria-current]"] {
        assert_eq!(browser.run(&style(current, "outlineStyle")), "solid", "{current}");
    }
    let canvas = browser.run(&style("body", "backgroundColor"));
    assert_ne!(browser.run(&style("#missions .alive", "backgroundColor")), canvas);
    assert_ne!(browser.run(&style("#missions .exploded", "backgroundImage")), "none");
    browser.emulate_media("print", "prefers-color-scheme", "dark");
    for pressed in ["#next", "#filters button[type=submit]", ".top nav", "footer nav"] {
        assert_eq!(browser.run(&visible(pressed)), false, "{pressed}");
    }
    for shown in ["#range", "#filter-mission", "#rockets td.speed", "#rows-as-of", "#connection"] {
        assert_eq!(browser.run(&visible(shown)), true, "{shown}");
    }
    assert_eq!(browser.run(&style(".pager", "position")), "static", "nothing lies on the rows");
    assert_eq!(browser.run(&style("#rockets td", "display")), "table-cell");
    assert_eq!(
        browser.run(&style("#rockets td.speed", "color")),
        "rgb(26, 33, 44)",
        "dark text, for paper is light"
    );
}

/// Forwards requests for `/under/a/path/…` to a service as `/…`, like a proxy that serves several
/// programs. Each connection serves one request.
fn proxy_under_a_path(service: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            std::thread::spawn(move || pass_on(client.unwrap(), service));
        }
    });
    address
}

fn pass_on(mut client: TcpStream, service: SocketAddr) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
    let Some((_, rest)) = head.split_once(" /under/a/path") else {
        return client.write_all(
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
    };
    let mut server = TcpStream::connect(service)?;
    server.write_all(format!("GET {}", rest.replace("keep-alive", "close")).as_bytes())?;
    let mut buffer = [0; 4_096];
    loop {
        match server.read(&mut buffer)? {
            0 => return Ok(()),
            length => client.write_all(&buffer[..length])?,
        }
    }
}

#[test]
fn the_dashboard_works_under_a_path() {
    let app = App::spawn(Backend::SqliteMemory);
    post(&mut app.client(), &[launched("a", 1)]);
    let proxy = proxy_under_a_path(app.address);
    let mut browser = Browser::start();
    browser.open(&format!("http://{proxy}/under/a/path/"));
    browser.until(ROWS, &json!(["a"]));
    let curl = browser.run(&text("#empty-curl"));
    assert!(
        curl.as_str().unwrap().contains(&format!("http://{proxy}/under/a/path/messages")),
        "{curl}"
    );
    browser.click("#rockets tr[data-channel] a");
    browser.until(LIVE, &json!("live"));
    let stray =
        "return [...document.querySelectorAll('[href], [src]')].map(it => it.href ?? it.src)
                    .filter(url => !url.startsWith(document.baseURI.split('#')[0]))";
    assert_eq!(browser.run(stray), json!([]));
    assert_eq!(browser.complaints().iter().filter(|it| !it.contains("400")).count(), 0);
    browser.open(&format!("http://{proxy}/under/a/path/docs"));
    browser.until("return document.querySelectorAll('.opblock').length > 10", &json!(true));
}
