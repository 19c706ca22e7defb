//! The filters, the links that set them, and what the page says about how many rockets match.

use serde_json::json;
use testkit::app::{App, Backend};
use testkit::browser::Browser;
use testkit::message::{exploded, faster, launched, launched_as};

use super::*;

const HASH: &str = "return decodeURIComponent(location.hash)";
const SORTED: &str = ".sort()";

/// Chosen types, missions and channels.
const CHOSEN: &str = "return [...document.querySelectorAll('#chosen b')].map(it => it.textContent)";

#[test]
fn a_search_filters_while_one_types_and_keeps_the_focus() {
    let app = App::spawn(Backend::SqliteMemory);
    let channels = ["ab1", "ab2", "aB", "é", "e\u{301}", "%_"];
    post(&mut app.client(), &channels.map(|channel| launched(channel, 1)));
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", app.address));
    browser.until(&text("#range"), &json!("Rows 1–6 of 6"));
    let entries = browser.run("return history.length").as_u64().unwrap();
    for (typed, found) in [
        ("a", &["aB", "ab1", "ab2"][..]),
        ("ab", &["ab1", "ab2"]),
        ("ab2", &["ab2"]),
        // Neither normalised nor a pattern: these are bytes.
        ("é", &["é"]),
        ("%", &["%_"]),
        ("zz", &[]),
    ] {
        search(&mut browser, typed);
        browser.until(&format!("{ROWS}{SORTED}"), &json!(found));
        browser.until(HASH, &json!(format!("#/?channelPrefix={typed}")));
        assert_eq!(browser.run("return document.activeElement.id"), "filter-channelPrefix");
    }
    assert_eq!(browser.run("return history.length"), entries + 1, "one entry for one search");
    // The address keeps it, and the way back leads to before the search.
    browser.run("window.notReloaded = true; location.reload()");
    browser.until("return window.notReloaded", &json!(null));
    browser.until(&visible("#no-match"), &json!(true));
    assert_eq!(browser.run("return document.querySelector('#filter-channelPrefix').value"), "zz");
    browser.run("history.back()");
    browser.until(&format!("{ROWS}.length"), &json!(6));
    assert_eq!(browser.run("return document.querySelector('#filter-channelPrefix').value"), "");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn what_was_typed_in_the_meantime_stays() {
    let app = App::spawn(Backend::SqliteMemory);
    post(&mut app.client(), &["ab", "ac"].map(|channel| launched(channel, 1)));
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", app.address));
    browser.until(&format!("{ROWS}.length"), &json!(2));
    search(&mut browser, "ab");
    // The next character comes while the search begins.
    browser.run(
        "addEventListener('hashchange', () => {});
         const { replaceState, pushState } = history;
         for (const [name, original] of Object.entries({ replaceState, pushState })) {
             history[name] = (...given) => {
                 document.querySelector('#filter-channelPrefix').value = 'abc';
                 original.apply(history, given);
             };
         }",
    );
    browser.until(HASH, &json!("#/?channelPrefix=ab"));
    browser.until(ROWS, &json!(["ab"]));
    assert_eq!(browser.run("return document.querySelector('#filter-channelPrefix').value"), "abc");
}

#[test]
fn gaps_and_silence_are_filters() {
    let app = App::spawn(Backend::SqliteMemory);
    let mut client = app.client();
    post(&mut client, &[launched("whole", 1), launched("gap", 1), faster("gap", 3, 1)]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", app.address));
    browser.until(&format!("{ROWS}.length"), &json!(2));
    set_filter(&mut browser, "missing", "true");
    browser.until(ROWS, &json!(["gap"]));
    set_filter(&mut browser, "missing", "false");
    browser.until(ROWS, &json!(["whole"]));
    set_filter(&mut browser, "missing", "");
    browser.until(&format!("{ROWS}.length"), &json!(2));
    let offered = "return [...document.querySelectorAll('#silences option')].map(it => it.value)";
    assert_eq!(browser.run(offered), json!(["1m", "15m", "1h", "1d", "7d"]));
    set_filter(&mut browser, "silentFor", "1h");
    browser.until(&visible("#no-match"), &json!(true));
    // Both are as old as the test, so they become silent while it waits.
    set_filter(&mut browser, "silentFor", "2s");
    browser.until(&format!("{ROWS}.length"), &json!(2));
    assert_eq!(browser.run(HASH), "#/?silentFor=2s");
    // What is no time is not asked for.
    set_filter(&mut browser, "silentFor", "soon");
    assert_eq!(
        browser.run("return document.querySelector('#filter-silentFor').validity.valid"),
        false
    );
    assert_eq!(browser.run(HASH), "#/?silentFor=2s");
    browser.click("#clear-filters");
    browser.until(HASH, &json!("#/"));
    assert_eq!(browser.run("return document.querySelector('#filter-silentFor').value"), "");
}

#[test]
fn several_types_and_missions_can_be_chosen() {
    let app = App::spawn(Backend::SqliteMemory);
    let hostile = "<b>M</b>,\"2";
    post(
        &mut app.client(),
        &[
            launched_as("a", 1, "T,1", 5, "M1"),
            launched_as("b", 1, "T2", 5, hostile),
            launched_as("c", 1, "T3", 5, "M3"),
        ],
    );
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", app.address));
    browser.until(&format!("{ROWS}.length"), &json!(3));
    set_filter(&mut browser, "mission", "M1");
    browser.until(ROWS, &json!(["a"]));
    set_filter(&mut browser, "mission", hostile);
    browser.until(&format!("{ROWS}{SORTED}"), &json!(["a", "b"]));
    set_filter(&mut browser, "type", "T,1");
    browser.until(ROWS, &json!(["a"]));
    assert_eq!(browser.run(CHOSEN), json!(["T,1", "M1", hostile]));
    assert_eq!(browser.run("return document.querySelectorAll('#chosen b b').length"), 0);
    browser.run("window.notReloaded = true; location.reload()");
    browser.until("return window.notReloaded", &json!(null));
    browser.until(CHOSEN, &json!(["T,1", "M1", hostile]));
    browser.click("#chosen button[data-name=type]");
    browser.until(&format!("{ROWS}{SORTED}"), &json!(["a", "b"]));
    assert_eq!(browser.run("return document.activeElement.id"), "filter-type");
    // A mission in the list is added to the chosen ones, and removed by a second click.
    let third = "[...document.querySelectorAll('#missions a')]\
                 .find(link => link.textContent.startsWith('M3'))";
    browser.until(&format!("return Boolean({third})"), &json!(true));
    browser.run(&format!("{third}.click()"));
    browser.until(&format!("{ROWS}.length"), &json!(3));
    assert_eq!(browser.run(&format!("return {third}.ariaCurrent")), "true");
    browser.run(&format!("{third}.click()"));
    browser.until(CHOSEN, &json!(["M1", hostile]));
    // A link may name a channel, for which there is no field.
    browser.run("location.hash = '#/?channel=c'");
    browser.until(ROWS, &json!(["c"]));
    browser.click("#chosen button");
    browser.until(&format!("{ROWS}.length"), &json!(3));
}

#[test]
fn every_tile_leads_to_the_rockets_that_it_counts() {
    let app = App::spawn(Backend::SqliteMemory);
    post(
        &mut app.client(),
        &[
            launched("launched", 1),
            exploded("exploded", 1, "BOOM"),
            faster("awaiting", 3, 1),
            launched("gap", 1),
            exploded("gap", 3, "BOOM"),
        ],
    );
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/#/?mission=ARTEMIS&sort=channel", app.address));
    for (id, shown, rockets) in [
        ("total-launched", "1", &["launched"][..]),
        ("total-exploded", "2", &["exploded", "gap"]),
        ("total-awaiting-launch", "1", &["awaiting"]),
        ("total-with-gaps", "2", &["awaiting", "gap"]),
        ("total-missing", "3", &["awaiting", "gap"]),
        ("total-rockets", "4", &["awaiting", "exploded", "gap", "launched"]),
    ] {
        browser.until(&text(&format!("#{id}")), &json!(shown));
        browser.click(&format!("a:has(> #{id})"));
        browser.until(ROWS, &json!(rockets));
        let current = format!("return document.querySelector('a:has(> #{id})').ariaCurrent");
        assert_eq!(browser.run(&current), "true", "{id}");
    }
}

#[test]
fn the_pager_says_how_many_rows_there_are_and_announces_it_once() {
    let app = App::spawn(Backend::SqliteMemory);
    let mut client = app.client();
    let lines = |rockets: std::ops::Range<u32>| -> String {
        rockets.map(|index| launched(&format!("r{index:04}"), 1).to_string() + "\n").collect()
    };
    assert_eq!(client.post_lines(lines(0..1_234).as_bytes()).json()["applied"], 1_234);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/#/?sort=channel", app.address));
    browser.until(&text("#range"), &json!("Rows 1–100 of 1,234"));
    assert_eq!(browser.run(&text("#announcement")), "Rows 1–100 of 1,234");
    assert_eq!(client.post_lines(lines(1_234..1_240).as_bytes()).json()["applied"], 6);
    browser.until(&text("#range"), &json!("Rows 1–100 of 1,240"));
    // It changes while messages arrive: a screen reader would never stop reading it.
    assert_eq!(browser.run(&text("#announcement")), "Rows 1–100 of 1,234");
    browser.click("#next");
    browser.until(&text("#announcement"), &json!("Rows 101–200 of 1,240"));
    search(&mut browser, "r100");
    browser.until(&text("#announcement"), &json!("Rows 1–10 of 10"));
}

#[test]
fn the_density_is_kept_and_needs_no_storage() {
    let app = App::spawn(Backend::SqliteMemory);
    post(&mut app.client(), &[launched("a", 1)]);
    let mut browser = Browser::start();
    let height = "return document.querySelector('tr[data-channel=a]').offsetHeight";
    let choose = "const density = document.querySelector('#density'); density.value = 'compact';
                  density.dispatchEvent(new Event('change'))";
    browser.open(&format!("http://{}/", app.address));
    browser.until(ROWS, &json!(["a"]));
    let comfortable = browser.run(height).as_u64().unwrap();
    browser.run(choose);
    assert!(browser.run(height).as_u64().unwrap() < comfortable);
    browser.run("window.notReloaded = true; location.reload()");
    browser.until("return window.notReloaded", &json!(null));
    browser.until(ROWS, &json!(["a"]));
    assert_eq!(browser.run("return document.querySelector('#density').value"), "compact");
    browser.run_before_pages(
        "Object.defineProperty(window, 'localStorage', { get() { throw new Error('denied'); } })",
    );
    browser.run("delete window.notReloaded; window.notReloaded = true; location.reload()");
    browser.until("return window.notReloaded", &json!(null));
    browser.until(ROWS, &json!(["a"]));
    assert_eq!(browser.run(height), comfortable);
    browser.run(choose);
    assert!(browser.run(height).as_u64().unwrap() < comfortable);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
