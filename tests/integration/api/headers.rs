//! Request and response headers: negotiation, ETags, Link, Upgrade.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use testkit::app::{App, Backend};
use testkit::client::Answer;
use testkit::message::launched;

#[test]
fn reports_come_in_the_format_that_the_client_prefers() {
    let app = App::spawn(Backend::SqliteMemory);
    let mut client = app.client();
    let (json, csv) = ("application/json", "text/csv; charset=utf-8");
    for (accept, expected) in [
        ("*/*", json),
        ("", json),
        ("text/csv", csv),
        ("TEXT/CSV", csv),
        ("text/*", csv),
        ("text/csv;q=0", json),
        ("text/csv; Q=0.0, */*", json),
        ("text/csv;q=0, text/*", json),
        ("text/*, text/csv;q=0.1, application/json;q=0.5", json),
        ("application/json;q=0, */*", csv),
        ("application/json;q=0.2, */*;q=0.1", json),
        ("application/json;q=0.1, */*;q=0.2", csv),
        ("text/csv;q=0.001", csv),
        ("text/csv, application/json", json),
        ("application/json;q=0.9, text/csv;q=0.91", csv),
        ("text/html, text/csv;q=0.5", csv),
        ("text/csv;charset=utf-8", csv),
        ("text/csv;charset=UTF-8;header=present", csv),
        ("text/csv;header=absent", json),
        ("text/csv;charset=utf-16, application/json;q=0.1", json),
        ("text/csv;q=0.1, text/csv;charset=utf-8;q=0.9, application/json;q=0.5", csv),
        ("image/png", json),
        ("nonsense", json),
    ] {
        let answer = client.request("GET", "/reports/fleet", &[("Accept", accept)], b"").unwrap();
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some(expected)),
            "{accept}"
        );
        assert_eq!(answer.header("vary"), Some("Accept"));
    }
}

#[test]
fn pages_and_descriptions_are_sent_only_if_they_have_changed() {
    let app = App::spawn(Backend::SqliteMemory);
    let mut client = app.client();
    let mut tags = BTreeSet::new();
    for path in [
        "/",
        "/docs",
        "/docs/swagger-ui.css",
        "/docs/swagger-initializer.js",
        "/openapi.json",
        "/assets/api.js",
    ] {
        let fresh = client.get(path);
        let tag = fresh.header("etag").unwrap_or_else(|| panic!("{path} has no ETag")).to_owned();
        assert_eq!(
            (fresh.status, fresh.header("cache-control")),
            (200, Some("no-cache")),
            "{path}"
        );
        for (if_none_match, status) in [
            (tag.as_str(), 304),
            (&format!("W/{tag}"), 304),
            (&format!("\"other\", {tag}"), 304),
            ("*", 304),
            ("\"other\"", 200),
            ("other", 200),
        ] {
            for method in ["GET", "HEAD"] {
                let answer =
                    client.request(method, path, &[("If-None-Match", if_none_match)], b"").unwrap();
                assert_eq!(answer.status, status, "{method} {path} {if_none_match}");
                assert_eq!(answer.header("etag"), Some(tag.as_str()), "{path}");
                assert_eq!(answer.header("cache-control"), Some("no-cache"), "{path}");
                assert!(method == "HEAD" || (answer.body.is_empty() == (status == 304)), "{path}");
            }
        }
        assert!(tags.insert(tag), "{path} has the tag of another file");
    }
}

#[test]
fn the_link_to_the_next_page_is_a_uri_however_the_query_was_written() {
    let app = App::spawn(Backend::SqliteMemory);
    let mut client = app.client();
    for channel in ["a", "b", "c"] {
        let mut message = launched(channel, 1);
        message["message"]["mission"] = "R&D <1>; +50% \"ü\"".into();
        assert_eq!(client.post(&message).status, 204);
    }
    let mission = "mission=R%26D+%3c1%3E;%20%2B50%25%20%22%c3%bc%22";
    let first = client.get(&format!("/rockets?{mission}&%6cimit=1&sort=channel"));
    let cursor = first.json()["nextCursor"].as_str().unwrap().to_owned();
    for path in [
        format!("/rockets?{mission}&%6cimit=1&sort=channel"),
        format!("/rockets?%63ursor={cursor}&{mission}&%6cimit=1&sort=channel"),
        format!("/rockets?{mission}&&cur%73or={cursor}&limit=1&sort=%63hannel&"),
    ] {
        let page = client.get(&path);
        let link = page.header("link").unwrap();
        let target = link
            .strip_prefix('<')
            .and_then(|link| link.strip_suffix(">; rel=\"next\""))
            .unwrap()
            .to_owned();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%/?&=".contains(&byte);
        assert!(target.bytes().all(allowed), "{target}");
        assert_eq!(target.matches("cursor=").count(), 1, "{target}");
        let next = client.get(&target);
        assert_eq!(next.status, 200, "{target}: {}", String::from_utf8_lossy(&next.body));
        let channel =
            |page: &Answer| page.json()["rockets"][0]["channel"].as_str().unwrap().to_owned();
        assert!(channel(&next) > channel(&page), "{target}");
    }
}

#[test]
fn a_path_that_is_not_utf_8_is_no_rocket_of_another_name() {
    let app = App::spawn(Backend::SqliteMemory);
    let mut client = app.client();
    assert_eq!(client.post(&launched("\u{fffd}", 1)).status, 204);
    assert_eq!(client.get("/rockets/%EF%BF%BD").status, 200);
    client.get("/rockets/%ff").problem(404);
}

#[test]
fn upgrade_is_ignored_and_the_body_ends_where_its_length_says() {
    let app = App::spawn(Backend::SqliteMemory);
    let message = |channel: &str| launched(channel, 1).to_string();
    let chunked = |body: &str| format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let length = |body: &str| format!("Content-Length: {}\r\n", body.len());
    const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let (first, second, third) = (message("a"), message("b"), message("c"));
    for (headers, body, status) in [
        (format!("{WEBSOCKET}{}", length(&first)), first.clone(), 204),
        (format!("Upgrade: websocket\r\n{}", length(&second)), second.clone(), 204),
        (format!("{WEBSOCKET}Transfer-Encoding: chunked\r\n"), chunked(&third), 204),
        (
            format!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n{}", length(&first)),
            first.clone(),
            204,
        ),
        // What follows the body is not part of it.
        (format!("{WEBSOCKET}{}", length(&first)), format!("{first}{second}"), 204),
        (WEBSOCKET.to_owned(), first.clone(), 400),
        (format!("{WEBSOCKET}Content-Length: 0\r\n"), String::new(), 400),
    ] {
        let (mut client, asked) = (app.client(), Instant::now());
        let head = format!("POST /messages HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        client.send(format!("{head}{body}").as_bytes()).unwrap();
        let answer = client.answer(false).unwrap();
        assert!(asked.elapsed() < Duration::from_secs(10), "{headers}");
        // Another request on this connection would not be read.
        assert_eq!(
            (answer.status, answer.header("connection")),
            (status, Some("close")),
            "{headers} {answer:?}"
        );
    }
    for (method, status) in
        [("GET", 200), ("HEAD", 200), ("CONNECT", 405), ("PUT", 405), ("DELETE", 204)]
    {
        let mut client = app.client();
        let request = format!("{method} /rockets/a HTTP/1.1\r\nHost: localhost\r\n{WEBSOCKET}\r\n");
        client.send(request.as_bytes()).unwrap();
        assert_eq!(client.answer(method == "HEAD").unwrap().status, status, "{method}");
    }
    // A stream is not announced as chunks: the end of the connection ends it.
    let mut stream = TcpStream::connect(app.address).unwrap();
    write!(stream, "GET /events HTTP/1.1\r\nHost: localhost\r\n{WEBSOCKET}\r\n").unwrap();
    let mut head = String::new();
    let mut lines = BufReader::new(stream);
    while !head.ends_with("\r\n\r\n") {
        assert!(lines.read_line(&mut head).unwrap() > 0, "{head}");
    }
    assert!(head.contains("connection: close") && !head.contains("chunked"), "{head}");
    // Nor is this, which has no body and no more requests behind it.
    let mut client = app.client();
    client.send(b"GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap();
    assert_eq!(client.answer(false).unwrap().status, 200);
    client.send(b"nonsense\r\n\r\n").unwrap();
    let refused = client.answer(false).unwrap();
    assert_eq!(refused.status, 400);
    assert!(client.answer(false).is_err(), "the connection goes on");
}

#[test]
fn an_upgrade_with_a_body_that_breaks_off_is_no_whole_body() {
    let app = App::spawn(Backend::SqliteMemory);
    let mut client = app.client();
    let lines = format!("{}\n", launched("a", 1));
    let head = "POST /messages HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
                Content-Type: application/x-ndjson\r\nContent-Length: 10000\r\n\r\n";
    client.send(format!("{head}{lines}").as_bytes()).unwrap();
    client.send_no_more();
    client.answer(false).unwrap().problem(400);
}
