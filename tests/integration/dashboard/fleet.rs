//! The page of the fleet: its table, filters, order, totals and reports.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use testkit::app::{App, Backend};
use testkit::browser::Browser;
use testkit::message::{exploded, faster, launched, launched_as};

use super::*;

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
    let sorted = "return document.querySelector('#rockets th[aria-sort]')\
                  .textContent.trim().toLowerCase().includes('speed')";
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
            "return performance.getEntriesByType('resource')\
             .filter(it => it.name.includes('{path}'))
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
    assert_eq!(browser.run(&text("#range")), "Rows 1–2 of 2");
    assert_eq!(browser.run(&visible("#no-match")), false);
    browser.click("#pending");
    browser.until(ROWS, &json!([]));
    assert_eq!(browser.run(&text("#range")), "No rows");
    assert_eq!(browser.run(&visible("#no-match")), true);
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
        browser.run("return document.querySelector('#filter-channelPrefix').maxLength").as_u64()
            >= Some(510)
    );
    browser.open(&format!("http://{}/#/rockets/{channel}", app.address));
    browser.until(&visible("#detail-notice"), &json!(true));
    post(&mut client, &[launched(&channel, 1)]);
    browser.until(&visible("#detail-known"), &json!(true));
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
        "[...document.querySelectorAll('#missions a')]\
         .find(link => link.textContent.startsWith('MISSION-9')).click()",
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
