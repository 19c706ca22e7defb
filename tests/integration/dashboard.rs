//! The dashboard in a real browser.

use serde_json::json;

use crate::browser::Browser;
use crate::support::{App, Backend, Client, Service, eventually, faster, launched};

const LIVE: &str = "return document.querySelector('#connection').dataset.state";

/// The channels of the table's rows, in their order.
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

fn exploded(channel: &str, number: u32) -> serde_json::Value {
    let mut message = launched(channel, number);
    message["metadata"]["messageType"] = json!("RocketExploded");
    message["message"] = json!({ "reason": "PRESSURE_VESSEL_FAILURE" });
    message
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
    assert!(shown.contains("curl") && shown.contains(&app.address.to_string()) && shown.contains("launch"), "{shown}");
    browser.until(LIVE, &json!("live"));
    // Live: rockets appear and change without a reload.
    browser.run("window.notReloaded = true");
    post(
        &mut client,
        &[launched("a", 1), launched("b", 1), launched("c", 1), faster("b", 2, 1_234), faster("c", 2, 77)],
    );
    browser.until(&format!("{ROWS}.length"), &json!(3));
    browser.until("return document.querySelector('#total-rockets').textContent", &json!("3"));
    post(&mut client, &[faster("a", 2, 88_000)]);
    browser.until(&format!("return {}.replaceAll(/[^0-9]/g, '').includes('88500')", row("a")), &json!(true));
    // Sort: the heading says so, to screen readers too.
    browser.click("#rockets th button[data-sort=channel]");
    browser.until(ROWS, &json!(["a", "b", "c"]));
    browser.click("#rockets th button[data-sort=channel]");
    browser.until(ROWS, &json!(["c", "b", "a"]));
    browser.click("#rockets th button[data-sort=speed]");
    browser.until(ROWS, &json!(["a", "b", "c"]));
    let sorted =
        "return document.querySelector('#rockets th[aria-sort]').textContent.trim().toLowerCase().includes('speed')";
    browser.until(sorted, &json!(true));
    // Filter: by status, live too, and kept over a reload, for it is in the address.
    browser.run(
        "document.querySelector('#filter-status').value = 'exploded';
                 document.querySelector('#filter-status').dispatchEvent(new Event('change', { bubbles: true }))",
    );
    browser.until(ROWS, &json!([]));
    post(&mut client, &[exploded("b", 3)]);
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
    let told = browser.run("return document.querySelector('#rockets tr[data-channel]').textContent");
    let told = told.as_str().unwrap();
    assert!(told.contains(hostile) && told.contains("{{7*7}}<script>") && told.contains("\"><b>c</b>"), "{told}");
    assert_eq!(browser.run("return document.querySelectorAll('main img, main b > b, main script').length"), 0);
    // The page of the rocket, whose address has to be escaped.
    browser.click("#rockets tr[data-channel] a");
    browser.until("return document.querySelector('#detail').hidden", &json!(false));
    browser.until("return document.querySelector('#detail-channel').textContent", &json!("\"><b>c</b>"));
    let both = "return ['#detail-best-effort', '#detail-exact'].every(view => \
                document.querySelector(view).textContent.includes('<img src=x onerror=alert(1)>'))";
    browser.until(both, &json!(true));
    assert_eq!(browser.run("return document.querySelectorAll('#detail img, #detail script').length"), 0);
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
        format!("return document.querySelector('{selector}').textContent.replaceAll(/[,\u{202f}\u{a0} ]/g, '')")
    };
    browser.until(&format!("{}.includes('1501')", digits("#detail-best-effort")), &json!(true));
    // The views are asked for one by one.
    browser.until(&format!("{}.includes('500')", digits("#detail-exact")), &json!(true));
    browser.until("return document.querySelectorAll('#gaps li').length", &json!(2));
    let gaps = browser.run("return document.querySelector('#gaps').textContent");
    let gaps = gaps.as_str().unwrap();
    assert!(gaps.contains('2') && gaps.contains("4–6"), "{gaps}");
    assert_eq!(browser.run("return document.querySelector('#fleet').checkVisibility()"), false);
    // The gap closes, and the views come together, while the page is open.
    post(&mut client, &[faster("r", 2, 0), faster("r", 4, 0), faster("r", 5, 0), faster("r", 6, 0)]);
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
