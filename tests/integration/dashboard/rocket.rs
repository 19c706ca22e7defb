//! The page of one rocket, and the way there and back.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use testkit::app::{App, Backend};
use testkit::browser::Browser;
use testkit::message::{faster, launched};
use testkit::process::run;

use super::*;

#[test]
fn a_rockets_page_shows_both_views_and_what_is_between_them() {
    let app = App::spawn(Backend::SqliteFile);
    let mut client = app.client();
    post(&mut client, &[launched("r", 1), faster("r", 3, 1_000), faster("r", 7, 1)]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/#/rockets/r", app.address));
    let digits = |selector: &str| {
        format!(
            "return document.querySelector('{selector}').textContent\
             .replaceAll(/[,\u{202f}\u{a0} ]/g, '')"
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
             }).observe(document.querySelector('#detail'), {
                 subtree: true, childList: true, attributes: true, characterData: true,
             })",
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
            "return performance.getEntriesByType('resource').map(it => it.name)\
             .filter(it => it.includes('/rockets/') && !it.includes('/gaps?'))",
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
