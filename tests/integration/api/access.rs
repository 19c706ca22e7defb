//! Tokens, the dashboard's session, and cross-site requests.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::app::{App, Backend};
use testkit::browser::Browser;
use testkit::client::Client;
use testkit::message::{faster, launched};
use testkit::postgres::Cluster;
use testkit::process::{Service, program, run, stderr, stdout, without_settings};
use testkit::wait::eventually;

const WRITE: &str = "write-token-4711";
const READ: &str = "read.token/0815==";

/// A service that requires tokens, and the directory of the token files.
fn guarded() -> (Service, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("write"), format!("{WRITE}\n")).unwrap();
    std::fs::write(path("read"), format!("another-reader\n{READ}\n")).unwrap();
    let service = Service::start_with(&[
        "--database",
        "memory",
        "--write-token-file",
        &path("write"),
        "--read-token-file",
        &path("read"),
    ]);
    (service, directory)
}

fn status(client: &mut Client, method: &str, path: &str, token: Option<&str>) -> u16 {
    let authorization = format!("Bearer {}", token.unwrap_or_default());
    let headers: &[(&str, &str)] =
        if token.is_some() { &[("Authorization", &authorization)] } else { &[] };
    let body = if method == "POST" { launched("r", 1).to_string() } else { String::new() };
    let answer = client.request(method, path, headers, body.as_bytes()).unwrap();
    if answer.status == 401 && method != "HEAD" {
        answer.problem(401);
        assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"), "{answer:?}");
    }
    answer.status
}

#[test]
fn each_token_opens_its_own_door() {
    let (service, _directory) = guarded();
    let mut client = Client::new(service.address);
    for (token, write, read) in [
        (None, 401, 401),
        (Some(WRITE), 204, 401),
        (Some(READ), 401, 200),
        (Some("another-reader"), 401, 200),
        (Some("wrong"), 401, 401),
        (Some(""), 401, 401),
        (Some("write-token-471"), 401, 401),
    ] {
        assert_eq!(status(&mut client, "POST", "/messages", token), write, "{token:?}");
        let forgotten = status(&mut client, "DELETE", "/rockets/unknown", token);
        assert_eq!(forgotten, if write == 204 { 404 } else { 401 }, "{token:?}");
        for path in
            ["/rockets", "/rockets?limit=1", "/stats", "/reports", "/reports/fleet", "/metrics"]
        {
            assert_eq!(status(&mut client, "GET", path, token), read, "{token:?} {path}");
            assert_eq!(status(&mut client, "HEAD", path, token), read, "{token:?} {path}");
        }
        assert_eq!(status(&mut client, "HEAD", "/events", token), read, "{token:?}");
        // Open paths hold no data.
        for path in [
            "/livez",
            "/readyz",
            "/",
            "/assets/dashboard.js",
            "/docs",
            "/docs/swagger-ui.css",
            "/openapi.json",
        ] {
            assert_eq!(status(&mut client, "GET", path, token), 200, "{token:?} {path}");
        }
    }
    // Another spelling of a path is not a way around.
    for path in ["/%6Dessages", "//messages", "/messages/"] {
        assert_eq!(status(&mut client, "POST", path, Some(READ)), 401, "{path}");
    }
    let basic = client
        .request("GET", "/stats", &[("Authorization", &format!("Basic {READ}"))], b"")
        .unwrap();
    assert_eq!(basic.status, 401);
    for name in ["Authorization: Bearer", "bearer"] {
        let value = format!("{} {READ}", name.trim_start_matches("Authorization: "));
        assert_eq!(
            client.request("GET", "/stats", &[("Authorization", &value)], b"").unwrap().status,
            200
        );
    }
}

#[test]
fn tokens_are_changed_without_a_restart() {
    let (service, directory) = guarded();
    let file = directory.path().join("write");
    let mut client = Client::new(service.address);
    std::fs::write(&file, format!("{WRITE}\nnew-token\n")).unwrap();
    eventually("the new one is taken", || {
        status(&mut client, "POST", "/messages", Some("new-token")) == 204
    });
    assert_eq!(status(&mut client, "POST", "/messages", Some(WRITE)), 204, "both are");
    std::fs::write(&file, "new-token\n").unwrap();
    eventually("the old one is refused", || {
        status(&mut client, "POST", "/messages", Some(WRITE)) == 401
    });
    // An unusable file changes nothing.
    std::fs::write(&file, "").unwrap();
    let until = Instant::now() + Duration::from_millis(1_500);
    while Instant::now() < until {
        assert_eq!(status(&mut client, "POST", "/messages", Some("new-token")), 204);
    }
}

#[test]
fn a_file_of_tokens_is_read_again_whatever_its_time_says_and_never_waited_for() {
    let (service, directory) = guarded();
    let file = directory.path().join("write");
    let time = std::fs::metadata(&file).unwrap().modified().unwrap();
    let mut client = Client::new(service.address);
    // The same length and time as before.
    let replaced = WRITE.replace("4711", "1147");
    std::fs::write(&file, format!("{replaced}\n")).unwrap();
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
    eventually("the new token is accepted", || {
        status(&mut client, "POST", "/messages", Some(&replaced)) == 204
    });
    assert_eq!(status(&mut client, "POST", "/messages", Some(WRITE)), 401);

    let fifo = || assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    let huge = || std::fs::File::create(&file).unwrap().set_len(1 << 40).unwrap();
    let folder = || std::fs::create_dir(&file).unwrap();
    let device = || std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
    let breakages: [(&str, &dyn Fn()); 4] =
        [("fifo", &fifo), ("huge", &huge), ("folder", &folder), ("device", &device)];
    for (what, replace) in breakages {
        if std::fs::remove_file(&file).is_err() {
            std::fs::remove_dir(&file).unwrap();
        }
        replace();
        // The file is read at least once in this time.
        let until = Instant::now() + Duration::from_millis(1_500);
        while Instant::now() < until {
            let asked = Instant::now();
            assert_eq!(status(&mut client, "POST", "/messages", Some(&replaced)), 204, "{what}");
            assert_eq!(status(&mut client, "GET", "/livez", None), 200, "{what}");
            // A file that is waited for holds up requests for ever.
            let took = asked.elapsed();
            assert!(took < Duration::from_secs(10), "{what} holds up requests: {took:?}");
        }
    }
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, WRITE).unwrap();
    eventually("a good file is used again", || {
        status(&mut client, "POST", "/messages", Some(WRITE)) == 204
    });
}

#[test]
fn a_place_that_is_no_file_of_tokens_is_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    assert!(Command::new("mkfifo").arg(path("fifo")).status().unwrap().success());
    std::fs::File::create(path("huge")).unwrap().set_len(1 << 40).unwrap();
    for (file, why) in [
        (path("fifo"), "is not a regular file"),
        (path(""), "is not a regular file"),
        ("/dev/zero".to_owned(), "is not a regular file"),
        (path("huge"), "is larger than 64 KiB"),
    ] {
        let serve = [
            "serve",
            "--database",
            "memory",
            "--listen",
            "127.0.0.1:0",
            "--write-token-file",
            &file,
        ];
        // A FIFO must not be waited for.
        let mut limited = Command::new("timeout");
        limited.args(["20", env!("CARGO_BIN_EXE_rocket-monitor")]).args(serve);
        let output = without_settings(&mut limited).output().unwrap();
        assert!(!output.status.success() && stderr(&output).contains(why), "{file}: {output:?}");
    }
}

#[test]
fn a_token_that_is_not_text_is_no_reason_to_go_without() {
    let token = OsStr::from_bytes(b"s3cret\xfftoken");
    let serve = &["serve", "--database", "memory", "--listen", "127.0.0.1:0"][..];
    for command in [serve, &["launch", "http://127.0.0.1:1"]] {
        for variable in ["ROCKET_MONITOR_WRITE_TOKEN", "ROCKET_MONITOR_READ_TOKEN"] {
            // An open service would run on.
            let mut limited = Command::new("timeout");
            limited.args(["20", env!("CARGO_BIN_EXE_rocket-monitor")]).args(command);
            without_settings(&mut limited).env(variable, token);
            let output = limited.output().unwrap();
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{command:?} {said}");
            assert!(said.contains(variable) && said.contains("is not a token"), "{said}");
            assert!(!said.contains("s3cret"), "{said}");
        }
    }
}

#[test]
fn the_simulator_takes_tokens() {
    let (service, directory) = guarded();
    let url = format!("http://{}", service.address);
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let refused = run(&["launch", &url, "--rockets", "3", "--messages", "30"]);
    assert!(!refused.status.success() && stderr(&refused).contains("401"), "{refused:?}");
    let launched = program(&["launch", &url, "--rockets", "3", "--messages", "30", "--verify"])
        .args(["--write-token-file", &path("write")])
        .env("ROCKET_MONITOR_READ_TOKEN", READ)
        .output()
        .unwrap();
    assert!(stdout(&launched).contains("0 disagree"), "{launched:?}");
}

#[test]
fn a_service_that_others_can_reach_wants_both_tokens() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("token"), READ).unwrap();
    std::fs::write(path("empty"), "\n").unwrap();
    let refused = |args: &[&str], why: &str| {
        let serve = [&["serve", "--database", "memory"], args].concat();
        let output = run(&serve);
        assert!(!output.status.success() && stderr(&output).contains(why), "{args:?} {output:?}");
        assert!(!stderr(&output).contains(READ));
    };
    refused(&["--listen", "0.0.0.0:0"], "--write-token-file and --read-token-file");
    refused(&["--listen", "0.0.0.0:0", "--read-token-file", &path("token")], "--write-token-file");
    refused(&["--listen", "127.0.0.1:0", "--read-token-file", &path("empty")], "holds no token");
    refused(&["--listen", "127.0.0.1:0", "--write-token-file", &path("none")], "none");
    let both = ["--write-token-file", &path("token"), "--read-token-file", &path("token")];
    let service = Service::start_with(
        &[&["--database", "memory", "--listen", "0.0.0.0:0"][..], &both].concat(),
    );
    let mut client = Client::new(([127, 0, 0, 1], service.address.port()).into());
    assert_eq!(status(&mut client, "GET", "/stats", Some(READ)), 200);
    assert_eq!(status(&mut client, "GET", "/stats", None), 401);
}

#[test]
fn other_sites_and_other_names_are_refused_without_tokens() {
    let app = App::spawn(Backend::SqliteMemory);
    let mut client = app.client();
    let own = format!("http://{}", app.address);
    for (name, value, allowed) in [
        ("Origin", own.as_str(), true),
        ("Origin", "http://localhost:3000", true),
        ("Origin", "https://evil.example", false),
        ("Origin", "null", false),
        ("Origin", "http://127.0.0.1.evil.example", false),
    ] {
        let body = faster("r", 1, 1).to_string();
        let post = client.request("POST", "/messages", &[(name, value)], body.as_bytes()).unwrap();
        assert_eq!(post.status, if allowed { 204 } else { 403 }, "{value}");
        let get = client.request("GET", "/rockets", &[(name, value)], b"").unwrap();
        assert_eq!(get.status, if allowed { 200 } else { 403 }, "{value}");
        if !allowed {
            get.problem(403);
        }
    }
    for (host, allowed) in [
        ("localhost:8088", true),
        ("[::1]", true),
        ("evil.example", false),
        ("127.0.0.1.nip.io", false),
    ] {
        let mut client = app.client();
        client.send(format!("GET /rockets HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(client.answer(false).unwrap().status, if allowed { 200 } else { 403 }, "{host}");
    }
    let anonymous = Service::start_with(&[
        "--database",
        "memory",
        "--listen",
        "0.0.0.0:0",
        "--allow-anonymous",
    ]);
    let mut client = Client::new(([127, 0, 0, 1], anonymous.address.port()).into());
    let foreign =
        client.request("GET", "/stats", &[("Origin", "https://evil.example")], b"").unwrap();
    assert_eq!(foreign.status, 200, "--allow-anonymous lets everybody in");
}

/// The status of a request that is given literally, without its last line.
fn raw_status(address: std::net::SocketAddr, head: &str) -> u16 {
    let mut client = Client::new(address);
    client.send(format!("{head}\r\n\r\n").as_bytes()).unwrap();
    let answer = client.answer(false).unwrap();
    // HTTP/1.1 requires exactly one Host (RFC 9112, section 3.2).
    let is_http = head.matches("Host: ").count() == 1 || head.contains("HTTP/1.0");
    if answer.status >= 400 && is_http {
        answer.problem(answer.status);
    }
    answer.status
}

#[test]
fn hosts_and_origins_are_read_as_the_rfcs_write_them() {
    let app = App::spawn(Backend::SqliteMemory);
    let (service, _directory) = guarded();
    for (head, without_tokens, with_tokens) in [
        ("GET /livez HTTP/1.1\r\nHost: localhost", 200, 200),
        ("GET /livez HTTP/1.1\r\nHost: rockets.example", 403, 200),
        ("GET /livez HTTP/1.1\r\nHost: localhost:80@evil.example", 400, 400),
        ("GET /livez HTTP/1.1\r\nHost: evil.example@localhost", 400, 400),
        ("GET /livez HTTP/1.1\r\nHost: localhost/", 400, 400),
        ("GET /livez HTTP/1.1\r\nHost: local host", 400, 400),
        ("GET /livez HTTP/1.1\r\nHost: http://localhost", 400, 400),
        ("GET /livez HTTP/1.1\r\nHost: ", 400, 400),
        ("GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: localhost", 400, 400),
        ("GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: evil.example", 400, 400),
        ("GET /livez HTTP/1.1\r\nAccept: */*", 400, 400),
        ("GET /livez HTTP/1.0\r\nAccept: */*", 200, 200),
        ("GET http://localhost/livez HTTP/1.1\r\nHost: localhost", 200, 200),
        ("GET http://evil.example/livez HTTP/1.1\r\nHost: localhost", 403, 200),
        ("GET http://localhost@evil.example/livez HTTP/1.1\r\nHost: localhost", 400, 400),
        ("GET http://evil.example@localhost/livez HTTP/1.1\r\nHost: localhost", 400, 400),
        ("GET ftp://localhost/livez HTTP/1.1\r\nHost: localhost", 400, 400),
        ("GET /livez HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:3000", 200, 200),
        ("GET /livez HTTP/1.1\r\nHost: localhost\r\nOrigin: evil.example://localhost", 403, 200),
        ("GET /livez HTTP/1.1\r\nHost: localhost\r\nOrigin: localhost", 403, 200),
        (
            "GET /livez HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:80@evil.example",
            403,
            200,
        ),
        ("GET /livez HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost/x", 403, 200),
        (
            "GET /livez HTTP/1.1\r\nHost: localhost\r\n\
             Origin: http://localhost http://evil.example",
            403,
            200,
        ),
        (
            "GET /livez HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\
             Origin: http://evil.example",
            403,
            200,
        ),
    ] {
        assert_eq!(raw_status(app.address, head), without_tokens, "without tokens: {head}");
        assert_eq!(raw_status(service.address, head), with_tokens, "with tokens: {head}");
    }
}

#[test]
fn a_page_of_another_origin_changes_nothing_by_the_cookie() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("token"), READ).unwrap();
    // One token for both: the cookie may write.
    let both = ["--write-token-file", &path("token"), "--read-token-file", &path("token")];
    let service = Service::start_with(&[&["--database", "memory"][..], &both].concat());
    let mut client = Client::new(service.address);
    let signed_in = client.request("POST", "/session", &[], READ.as_bytes()).unwrap();
    let cookie = signed_in.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let authorization = format!("Bearer {READ}");
    let by = [("Cookie", cookie.as_str()), ("Authorization", authorization.as_str())];
    // The client's Host is localhost.
    for (origin, own) in [
        (None, true),
        (Some("http://localhost"), true),
        (Some("http://localhost:3000"), false),
        (Some("https://evil.example"), false),
        (Some("null"), false),
        (Some("http://localhost http://localhost"), false),
    ] {
        let origin: Option<&str> = origin;
        let mut status = |method, path, by: Option<(&str, &str)>, body: &str| {
            let headers: Vec<_> =
                by.into_iter().chain(origin.map(|origin| ("Origin", origin))).collect();
            client.request(method, path, &headers, body.as_bytes()).unwrap().status
        };
        let message = faster("r", 1, 1).to_string();
        let expected = |well| if own { well } else { 403 };
        assert_eq!(status("POST", "/messages", Some(by[0]), &message), expected(204), "{origin:?}");
        assert_eq!(status("POST", "/session", None, READ), expected(204), "{origin:?}");
        assert_eq!(status("DELETE", "/session", None, ""), expected(204), "{origin:?}");
        // No page can send this header, so the request is not made by a page; and reading changes
        // nothing.
        assert_eq!(status("POST", "/messages", Some(by[1]), &message), 204, "{origin:?}");
        assert_eq!(status("GET", "/stats", Some(by[0]), ""), 200, "{origin:?}");
    }
    // Behind a proxy that changes the Host, the browser still knows. Pages can't set this header.
    for (site, expected) in
        [("same-origin", 204), ("same-site", 403), ("cross-site", 403), ("none", 403)]
    {
        let headers = [by[0], ("Origin", "https://rockets.example"), ("Sec-Fetch-Site", site)];
        let message = faster("r", 1, 1).to_string();
        for (path, body) in [("/messages", message.as_str()), ("/session", READ)] {
            let answer = client.request("POST", path, &headers, body.as_bytes()).unwrap();
            assert_eq!(answer.status, expected, "{site} {path}");
        }
    }
    // Credentials of another scheme, which are for a proxy, don't hide the cookie.
    let with_basic = [by[0], ("Authorization", "Basic dXNlcjpwYXNzd29yZA==")];
    assert_eq!(client.request("GET", "/stats", &with_basic, b"").unwrap().status, 200);
    assert_eq!(client.request("GET", "/stats", &with_basic[1..], b"").unwrap().status, 401);
}

#[test]
fn signing_out_removes_the_cookie() {
    let (service, _directory) = guarded();
    let mut client = Client::new(service.address);
    let out = client.request("DELETE", "/session", &[], b"").unwrap();
    assert_eq!(out.status, 204);
    let cookie = out.header("set-cookie").unwrap();
    let (pair, attributes) = cookie.split_once("; ").unwrap();
    assert_eq!(pair, "rocket_monitor_token=");
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=0"] {
        assert!(attributes.split("; ").any(|given| given == attribute), "{cookie}");
    }
    let put = client.request("PUT", "/session", &[], b"").unwrap();
    assert_eq!((put.status, put.header("allow")), (405, Some("POST, DELETE")));
    let metrics = client
        .request("GET", "/metrics", &[("Authorization", &format!("Bearer {READ}"))], b"")
        .unwrap();
    let metrics = String::from_utf8(metrics.body).unwrap();
    assert!(metrics.contains("requests_total{route=\"/session\",status=\"204\"} 1"), "{metrics}");
}

#[test]
fn what_is_no_token_is_answered_with_a_problem() {
    let app = App::spawn(Backend::SqliteMemory);
    let mut client = app.client();
    for (body, status) in
        [(&b""[..], 400), (b"two words", 400), (b"\xff", 400), (&[b'a'; 300_000], 413)]
    {
        client.request("POST", "/session", &[], body).unwrap().problem(status);
    }
    client
        .send(
            b"POST /session HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        )
        .unwrap();
    client.answer(false).unwrap().problem(400);
}

#[test]
fn the_dashboard_asks_for_the_token_once() {
    let (service, _directory) = guarded();
    let mut client = Client::new(service.address);
    assert_eq!(status(&mut client, "POST", "/messages", Some(WRITE)), 204);
    let wrong = client
        .request("POST", "/session", &[("Content-Type", "text/plain")], WRITE.as_bytes())
        .unwrap();
    wrong.problem(401);
    let right = client
        .request("POST", "/session", &[("Content-Type", "text/plain")], READ.as_bytes())
        .unwrap();
    let cookie = right.header("set-cookie").unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let pair = cookie.split(';').next().unwrap().to_owned();
    assert_eq!(client.request("GET", "/stats", &[("Cookie", &pair)], b"").unwrap().status, 200);
    let body = faster("r", 2, 1).to_string();
    assert_eq!(
        client.request("POST", "/messages", &[("Cookie", &pair)], body.as_bytes()).unwrap().status,
        401
    );
    // In a browser.
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", service.address));
    browser.until("return document.querySelector('#token-dialog').open", &json!(true));
    browser.run(
        "document.querySelector('#token').value = 'wrong'; \
         document.querySelector('#token-form').requestSubmit()",
    );
    browser
        .until("return document.querySelector('#token-problem').textContent !== ''", &json!(true));
    browser.run(&format!(
        "document.querySelector('#token').value = '{READ}'; \
         document.querySelector('#token-form').requestSubmit()"
    ));
    let live = "return document.querySelector('#connection').dataset.state === 'live' \
                && document.querySelectorAll('#rockets tr[data-channel]').length === 1";
    browser.until(live, &json!(true));
    assert_eq!(browser.run("return document.cookie"), "", "no script can read it");
    browser.run("location.reload()");
    browser.until(live, &json!(true));
    assert_eq!(browser.run("return document.querySelector('#token-dialog').open"), false);
}

#[test]
fn secrets_are_told_to_nobody() {
    const PASSWORD: &str = "pg-secret-4711";
    let mut cluster = Cluster::start();
    let directory = tempfile::tempdir().unwrap();
    let (log, file) = (directory.path().join("log"), directory.path().join("write"));
    std::fs::write(&file, WRITE).unwrap();
    let url = cluster.url("postgres").replace("postgres@", &format!("postgres:{PASSWORD}@"));
    let child = program(&["serve", "--listen", "127.0.0.1:0", "--log-level", "trace"])
        .args(["--write-token-file", file.to_str().unwrap()])
        .env("ROCKET_MONITOR_DATABASE", &url)
        .env("ROCKET_MONITOR_READ_TOKEN", READ)
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn();
    let logged = || std::fs::read_to_string(&log).unwrap();
    let listening = || {
        let logged = logged();
        let line = logged.lines().find(|line| line.contains("\"listening\""))?;
        serde_json::from_str::<serde_json::Value>(line).ok()?["address"].as_str()?.parse().ok()
    };
    eventually("it listens", || listening().is_some());
    let service = Service { child: child.unwrap(), address: listening().unwrap() };
    let mut client = Client::new(service.address);
    let mut told = String::new();
    let mut ask = |method: &str, path: &str, token: &str| {
        let body = match (method, path) {
            ("POST", "/session") => token.to_owned(),
            ("POST", _) => launched("r", 1).to_string(),
            _ => String::new(),
        };
        let authorization = format!("Bearer {token}");
        let answer = client
            .request(method, path, &[("Authorization", &authorization)], body.as_bytes())
            .unwrap();
        told += &format!("{answer:?}{}", String::from_utf8_lossy(&answer.body));
        answer.status
    };
    assert_eq!(ask("POST", "/messages", WRITE), 204);
    for wrong in [READ, "nearly-a-token"] {
        assert_eq!(ask("POST", "/messages", wrong), 401);
    }
    for path in ["/stats", "/metrics", "/rockets/r", "/rockets?sort=x"] {
        ask("GET", path, READ);
        assert_eq!(ask("GET", path, WRITE), 401);
    }
    assert_eq!(ask("POST", "/session", "nearly-a-token"), 401);
    cluster.kill();
    eventually("the store is gone", || ask("GET", "/readyz", "") == 503);
    assert_eq!(ask("POST", "/messages", WRITE), 503);
    assert_eq!(ask("GET", "/rockets", READ), 503);
    let seen_by_ps =
        std::fs::read_to_string(format!("/proc/{}/cmdline", service.child.id())).unwrap();
    let logged = logged();
    assert!(logged.contains("TRACE") && logged.contains("a batch was not committed"), "{logged}");
    for secret in [WRITE, READ, PASSWORD, "nearly-a-token"] {
        for (place, text) in [("the log", &logged), ("the answers", &told), ("ps", &seen_by_ps)] {
            assert!(!text.contains(secret), "{secret} is in {place}: {text}");
        }
    }
}

#[test]
fn answers_tell_browsers_to_do_nothing_with_them() {
    let app = App::spawn(Backend::SqliteMemory);
    let mut client = app.client();
    client.post(&launched("r", 1));
    for path in
        ["/rockets", "/rockets/r", "/stats", "/reports/missions", "/metrics", "/none", "/livez"]
    {
        let answer = client.get(path);
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert!(
            answer.header("content-security-policy").unwrap().contains("default-src 'none'"),
            "{path}"
        );
        assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
    }
    for path in ["/", "/assets/dashboard.js", "/docs"] {
        let answer = client.get(path);
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe-eval"),
            "{path}: {policy}"
        );
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
    }
}
