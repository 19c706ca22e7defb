//! Outages, responses that can't be shown, and a dashboard behind a proxy or without a network.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::json;
use testkit::app::{App, Backend};
use testkit::browser::Browser;
use testkit::client::Client;
use testkit::message::{exploded, faster, launched};
use testkit::process::Service;
use testkit::wait::eventually;

use super::*;

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
