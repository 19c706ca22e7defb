//! Signing in and out with a token.

use serde_json::json;
use testkit::browser::Browser;
use testkit::process::Service;

use super::*;

/// A service that requires tokens, and the directory of the token files.
pub(super) fn guarded() -> (Service, tempfile::TempDir) {
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

pub(super) fn sign_in(browser: &mut Browser, service: &Service) {
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
    let asked = "return performance.getEntriesByType('resource')\
                 .filter(it => it.name.includes('/rockets')).length > 1";
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
