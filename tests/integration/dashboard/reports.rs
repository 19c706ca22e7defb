//! The pages of all missions and types, and the rows as CSV.

use serde_json::json;
use testkit::app::{App, Backend};
use testkit::browser::Browser;
use testkit::message::{exploded, faster, launched, launched_as};

use super::*;

/// The names of the rows.
const NAMES: &str = "return [...document.querySelectorAll('#groups-body th')]\
                     .map(it => it.textContent)";

#[test]
fn all_missions_and_types_have_pages_that_sort_and_link() {
    let app = App::spawn(Backend::SqliteMemory);
    let hostile = "<i>m</i>&x=1";
    post(
        &mut app.client(),
        &[
            launched_as("a", 1, "T1", 10, hostile),
            launched_as("b", 1, "T1", 30, "Z"),
            launched_as("c", 1, "T2", 40, "Z"),
            exploded("c", 2, "BOOM"),
            launched_as("d", 1, "T3", 99, "M"),
            faster("none", 1, 1),
        ],
    );
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", app.address));
    browser.click(".top a[href='#/missions']");
    browser.until(NAMES, &json!(["Z", hostile, "M", ""]));
    assert_eq!(browser.run("return document.title"), "Missions – Rocket Monitor");
    assert_eq!(browser.run("return document.activeElement.id"), "groups-heading");
    assert_eq!(browser.run("return document.querySelectorAll('#groups i').length"), 0);
    for (heading, first, second) in [
        // Names start in ascending order; without a name comes last in both.
        ("mission", json!([hostile, "M", "Z", ""]), json!(["Z", "M", hostile, ""])),
        ("maxSpeed", json!(["M", "Z", hostile, ""]), json!(["", hostile, "Z", "M"])),
    ] {
        for expected in [first, second] {
            browser.click(&format!("#groups-head button[data-sort={heading}]"));
            browser.until(NAMES, &expected);
        }
        let sorted = "return document.querySelector('#groups-head [aria-sort]').textContent";
        assert_ne!(browser.run(sorted), "");
    }
    // The address keeps the order.
    browser.run("window.notReloaded = true; location.reload()");
    browser.until("return window.notReloaded", &json!(null));
    browser.until(&format!("{NAMES}[3]"), &json!("M"));
    browser.click("#groups-body tr:nth-child(2) a");
    browser.until(ROWS, &json!(["a"]));
    browser.run("location.hash = '#/types'");
    browser.until(NAMES, &json!(["T1", "T2", "T3", ""]));
    browser.click("#groups-body tr:first-child a");
    browser.until(&format!("{ROWS}.sort()"), &json!(["a", "b"]));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// Keeps the file that the page would save.
const KEEP_FILE: &str = "URL.createObjectURL = (file) => { window.file = file; return '#'; };
    HTMLAnchorElement.prototype.click = function () { window.saved = this.download; };";

#[test]
fn the_rows_are_saved_as_csv_with_the_filters_and_the_sort() {
    let app = App::spawn(Backend::SqliteMemory);
    let mut client = app.client();
    let lines: String = (0..1_500)
        .map(|index| faster(&format!("r{index:04}"), 1, index).to_string() + "\n")
        .collect();
    assert_eq!(client.post_lines(lines.as_bytes()).json()["applied"], 1_500);
    post(
        &mut client,
        &[
            launched_as("=cmd", 1, " \u{ff0b}1", -7, "a,\"b\""),
            launched_as("r-plain", 1, "T", 5, "-M"),
            faster("r-plain", 4, 1),
        ],
    );
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/#/?sort=channel", app.address));
    browser.until(&text("#csv"), &json!("CSV of all 1,502 rows"));
    browser.run(KEEP_FILE);
    browser.click("#csv");
    browser.until(&text("#csv-status"), &json!("Saved."));
    let csv = browser.run("return window.file.text()");
    let lines: Vec<_> = csv.as_str().unwrap().split("\r\n").collect();
    assert_eq!(lines.len(), 1 + 1_502 + 1, "of all pages");
    assert!(
        lines[0].starts_with("channel,status,type,speed,mission,exploded_reason,latest_update,")
    );
    assert!(
        lines[1].starts_with("'=cmd,launched,' \u{ff0b}1,-7,\"a,\"\"b\"\"\",,2022-"),
        "{}",
        lines[1]
    );
    assert!(lines[2].starts_with("r-plain,launched,T,6,'-M,,2022-"), "{}", lines[2]);
    assert!(lines[2].ends_with(",2,1,1,4,2,0"), "{}", lines[2]);
    assert!(lines[3].starts_with("r0000,awaitingLaunch,,0,,,") && lines[1_503].is_empty());
    let name = browser.run("return window.saved");
    let name = name.as_str().unwrap();
    assert!(name.starts_with("rockets-") && name.ends_with(".csv"), "{name}");
    // Only what matches.
    browser.run("location.hash = '#/?channelPrefix=r-'");
    browser.until(&text("#csv"), &json!("CSV of all 1 row"));
    browser.click("#csv");
    browser.until("return window.file.text().then(text => text.split('\\r\\n').length)", &json!(3));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_csv_of_too_many_rows_says_how_many_it_has() {
    let app = App::spawn(Backend::SqliteMemory);
    let lines: String =
        (0..10_001).map(|index| launched(&format!("r{index}"), 1).to_string() + "\n").collect();
    assert_eq!(app.client().post_lines(lines.as_bytes()).json()["applied"], 10_001);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", app.address));
    browser.until(&text("#csv"), &json!("CSV of the first 10,000 rows"));
    browser.run(KEEP_FILE);
    browser.click("#csv");
    browser.until(&text("#csv-status"), &json!("Saved."));
    let lines = "return window.file.text().then(text => text.split('\\r\\n').length)";
    assert_eq!(browser.run(lines), 10_002);
}

#[test]
fn a_long_report_is_read_to_its_end_and_shown_in_steps() {
    let app = App::spawn(Backend::SqliteMemory);
    let lines: String = (0..2_500)
        .map(|number| {
            let mission = format!("M-{number:04}");
            launched_as(&format!("r{number}"), 1, "T", 500, &mission).to_string() + "\n"
        })
        .collect();
    assert_eq!(app.client().post_lines(lines.as_bytes()).json()["applied"], 2_500);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/#/missions?sort=mission&order=desc", app.address));
    // The service sends it in pages.
    browser.until(&text("#groups-summary"), &json!("2,500 rows. 500 are shown."));
    assert_eq!(browser.run(&format!("{NAMES}[0]")), "M-2499");
    browser.click("#groups-more");
    browser.until(&format!("{NAMES}.length"), &json!(1_000));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
