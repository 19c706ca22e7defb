//! `resend`, `launch --lossy` and `ingest --dry-run`: what a service lacks of a file.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rocket_monitor::store::fault_injection::FailurePoint;
use serde_json::Value;
use testkit::app::{App, Backend};
use testkit::client::Client;
use testkit::conformance;
use testkit::message::{faster, launched};
use testkit::process::{Service, program, run, stderr, stdout};
use testkit::wait::eventually;

conformance!(
    exactly_what_is_missing_is_sent,
    an_outage_is_waited_for,
    numbers_that_the_file_lacks_are_counted,
);

/// A directory with a file of these messages.
fn file(messages: &[Value]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages.ndjson");
    fs::write(&path, lines(messages)).unwrap();
    (directory, path)
}

fn lines(messages: &[Value]) -> String {
    messages.iter().map(|message| message.to_string() + "\n").collect()
}

fn resend(path: &Path, app: &App, more: &[&str]) -> Output {
    let url = format!("http://{}", app.address);
    run(&[&["resend", path.to_str().unwrap(), &url], more].concat())
}

fn processed(app: &App) -> u64 {
    app.client().get("/stats").json()["processed"].as_u64().unwrap()
}

/// Messages of some rockets in any order, some of them twice.
fn fleet(random: &mut StdRng) -> Vec<Value> {
    let mut messages = Vec::new();
    for rocket in 0..20 {
        let last = random.random_range(1..300);
        messages.extend((1..=last).map(|number| faster(&format!("r{rocket}"), number, 1)));
    }
    let twice: Vec<Value> =
        messages.iter().filter(|_| random.random_range(0..10) == 0).cloned().collect();
    messages.extend(twice);
    messages.shuffle(random);
    messages
}

fn identity(message: &Value) -> String {
    format!("{} {}", message["metadata"]["channel"], message["metadata"]["messageNumber"])
}

fn exactly_what_is_missing_is_sent(backend: Backend) {
    let mut random = StdRng::seed_from_u64(18);
    let messages = fleet(&mut random);
    let app = App::spawn(backend);
    // The service has some of them, and others.
    let known: Vec<Value> =
        messages.iter().filter(|_| random.random_range(0..3) > 0).cloned().collect();
    let others = [faster("r0", 100_000, 1), launched("elsewhere", 7)];
    let taken = app.client().post_lines((lines(&known) + &lines(&others)).as_bytes()).json();
    assert_eq!(taken["rejected"], 0);
    let all: BTreeSet<String> = messages.iter().map(identity).collect();
    let stored: BTreeSet<String> = known.iter().map(identity).collect();
    let missing = all.len() - stored.len();
    assert!(missing > 100);
    let (_directory, path) = file(&messages);

    let dry = resend(&path, &app, &["--dry-run"]);
    assert_eq!(dry.status.code(), Some(0), "{dry:?}");
    let said =
        format!("missing   {missing} messages: {missing} that are in the file, 0 that are not");
    assert!(stdout(&dry).contains(&said), "{}", stdout(&dry));
    let by_channel = stdout(&dry)
        .lines()
        .filter_map(|line| {
            let (_, counts) = line.strip_prefix('r')?.split_once(": ")?;
            counts.split(' ').next()?.parse::<usize>().ok()
        })
        .sum::<usize>();
    assert_eq!(by_channel, missing);
    assert_eq!(processed(&app), stored.len() as u64 + 2);

    let sent = resend(&path, &app, &[]);
    assert_eq!(sent.status.code(), Some(0), "{sent:?}");
    // Nothing twice, although the file has some of them twice.
    let counts = format!(": {missing} applied, 0 duplicates, 0 rejected");
    assert!(stdout(&sent).contains(&counts), "{}", stdout(&sent));
    assert!(stdout(&sent).contains("nothing that the file has is missing"), "{}", stdout(&sent));
    assert_eq!(processed(&app), all.len() as u64 + 2);
    let again = resend(&path, &app, &[]);
    assert!(again.status.success() && stdout(&again).contains("sent      0 messages"), "{again:?}");
}

fn an_outage_is_waited_for(backend: Backend) {
    let messages: Vec<Value> = (1..=20_000).map(|number| faster("r", number, 1)).collect();
    let (_directory, path) = file(&messages);
    let app = App::spawn(backend);
    app.failures.plan(FailurePoint::BeforeCommit, 3);
    app.failures.plan(FailurePoint::BeforeRead, 2);
    let sent = resend(&path, &app, &[]);
    assert_eq!(sent.status.code(), Some(0), "{sent:?}");
    assert!(stderr(&sent).contains("503") && stderr(&sent).contains("retrying"), "{sent:?}");
    assert_eq!(app.rocket("r", "exact")["messages"]["completeThrough"], 20_000);
}

fn numbers_that_the_file_lacks_are_counted(backend: Backend) {
    let app = App::spawn(backend);
    // More than 10,000 ranges are missing, of which the file has every second.
    let messages: Vec<Value> = (1..=30_000)
        .filter(|number| number % 2 == 1)
        .map(|number| faster("gaps", number, 1))
        .collect();
    let (known, unknown): (Vec<Value>, Vec<Value>) = messages
        .iter()
        .cloned()
        .partition(|message| message["metadata"]["messageNumber"].as_u64().unwrap() % 4 == 1);
    assert_eq!(app.client().post_lines(lines(&known).as_bytes()).json()["applied"], 7_500);
    let (_directory, path) = file(&unknown);
    let sent = resend(&path, &app, &[]);
    assert_eq!(sent.status.code(), Some(0), "{sent:?}");
    // The highest number of the file is 29,999.
    let said = "missing   22499 messages: 7500 that are in the file, 14999 that are not";
    assert!(stdout(&sent).contains(said), "{}", stdout(&sent));
    assert!(stdout(&sent).contains("7500 applied, 0 duplicates"), "{}", stdout(&sent));
    assert_eq!(app.rocket("gaps", "best-effort")["messages"]["processed"], 15_000);
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn files_may_be_compressed_or_standard_input() {
    let text = lines(&(1..=3_000).map(|number| faster("r", number, 1)).collect::<Vec<_>>());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages");
    let zstd = zstd::stream::encode_all(text.as_bytes(), 3).unwrap();
    for content in [text.clone().into_bytes(), gzip(&text), zstd] {
        fs::write(&path, &content).unwrap();
        let app = App::spawn(Backend::SqliteFile);
        let sent = resend(&path, &app, &[]);
        assert!(stdout(&sent).contains("3000 applied"), "{sent:?}");
        let url = format!("http://{}", app.address);
        let redirected = fs::File::open(&path).unwrap();
        let again = program(&["resend", "-", &url]).stdin(redirected).output().unwrap();
        assert!(again.status.success(), "{again:?}");
        assert!(stdout(&again).contains("read      3000 messages"), "{again:?}");
        let database = directory.path().join("ingested.db");
        let database = database.to_str().unwrap();
        assert!(run(&["migrate", "--database", database]).status.success());
        let ingest = |more: &[&str]| {
            let all = [&["ingest", path.to_str().unwrap(), "--database", database], more].concat();
            stdout(&run(&all))
        };
        let dry =
            "received 3000: 3000 would be applied, 0 duplicates, 0 rejected; nothing was stored";
        assert_eq!(ingest(&["--dry-run"]).trim(), dry);
        assert_eq!(ingest(&[]).trim(), "received 3000: 3000 applied, 0 duplicates, 0 rejected");
        fs::remove_file(database).unwrap();
    }
    let app = App::spawn(Backend::SqliteMemory);
    let url = format!("http://{}", app.address);
    let mut piped = program(&["resend", "-", &url]);
    piped.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut piped = piped.spawn().unwrap();
    // The command may have ended before it reads.
    let _ = piped.stdin.take().unwrap().write_all(text.as_bytes());
    let refused = piped.wait_with_output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("write them to a file first"), "{refused:?}");
    let folder = run(&["resend", directory.path().to_str().unwrap(), &url]);
    assert!(stderr(&folder).contains("is a directory"), "{folder:?}");
}

#[test]
fn bad_lines_are_printed_and_the_others_sent() {
    let app = App::spawn(Backend::SqliteMemory);
    let bad: String = (0..150).map(|_| "{}\n".to_owned() + &"x".repeat(70_000) + "\n\n").collect();
    let text = format!("{}{bad}{}", lines(&[launched("r", 1)]), faster("r", 2, 1));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages.ndjson");
    fs::write(&path, text).unwrap();
    let sent = resend(&path, &app, &[]);
    assert_eq!(sent.status.code(), Some(2), "{sent:?}");
    assert!(stdout(&sent).contains("300 bad lines") && stdout(&sent).contains("2 applied"));
    let complaints = stderr(&sent);
    assert_eq!(complaints.lines().count(), 101, "{complaints}");
    assert!(complaints.starts_with("line 2: /metadata is missing"), "{complaints}");
    assert!(complaints.contains("line 3: longer than 65536 bytes"), "{complaints}");
    assert_eq!(resend(&path, &app, &[]).status.code(), Some(2));
    // What is before the end of a truncated file counts.
    let text = lines(&(1..=5_000).map(|number| faster("cut", number, 1)).collect::<Vec<_>>());
    let whole = gzip(&text);
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let cut = resend(&path, &app, &[]);
    assert_eq!(cut.status.code(), Some(1), "{cut:?}");
    assert!(stderr(&cut).contains("the gzip data ends before its end"), "{cut:?}");
    let stored = app.rocket("cut", "exact")["messages"]["completeThrough"].as_u64().unwrap();
    assert!((1_000..5_000).contains(&stored), "{stored}");
}

#[test]
fn only_the_write_token_is_needed_and_other_failures_are_told_at_once() {
    let (directory, path) = file(&[launched("r", 1)]);
    let [write, read] = ["write", "read"].map(|name| {
        let file = directory.path().join(name);
        fs::write(&file, format!("{name}-token")).unwrap();
        file.to_str().unwrap().to_owned()
    });
    let options =
        ["--database", "memory", "--write-token-file", &write, "--read-token-file", &read];
    let service = Service::start_with(&options);
    let url = format!("http://{}", service.address);
    let path = path.to_str().unwrap();
    let sent = run(&["resend", path, &url, "--write-token-file", &write]);
    assert!(sent.status.success(), "{sent:?}");
    let with_wrong = run(&["resend", path, &url, "--write-token-file", &read]);
    assert!(stderr(&with_wrong).contains("401"), "{with_wrong:?}");
    let elsewhere =
        run(&["resend", path, &format!("{url}/elsewhere"), "--write-token-file", &write]);
    assert!(stderr(&elsewhere).contains("404"), "{elsewhere:?}");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = run(&["resend", path, &format!("http://{free}")]);
    assert!(stderr(&nobody).contains("no service answers there"), "{nobody:?}");
    for failed in [with_wrong, elsewhere, nobody] {
        assert_eq!(failed.status.code(), Some(1));
    }
}

#[test]
fn it_can_be_interrupted_and_the_service_can_be_restarted() {
    const MESSAGES: u64 = 60_000;
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    let service = Service::start(&database);
    let address = service.address;
    let url = format!("http://{address}");
    let path = directory.path().join("all.ndjson");
    let path = path.to_str().unwrap();
    // Writes the file, and sends hardly anything.
    let fleet = ["--messages", "60000", "--rockets", "700", "--lossy", "99.9", "--save", path];
    assert!(run(&[&["launch", &url][..], &fleet].concat()).status.success());
    let processed = || Client::new(address).get("/stats").json()["processed"].as_u64().unwrap();
    let few = processed();
    assert!(few < 200, "{few}");
    // Killed while it sends.
    let mut killed = program(&["resend", path, &url]).stdout(Stdio::null()).spawn().unwrap();
    eventually("it sends", || processed() > few);
    killed.kill().unwrap();
    killed.wait().unwrap();
    let some = processed();
    // The service is killed, too, while it goes on, and comes back.
    let mut command = program(&["resend", path, &url]);
    let mut resend = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    if some < MESSAGES {
        eventually("it sends more", || processed() > some);
    }
    drop(service);
    let _service = Service::start_at(&database, address);
    let mut complaints = String::new();
    BufReader::new(resend.stderr.take().unwrap()).read_line(&mut complaints).unwrap();
    let sent = resend.wait_with_output().unwrap();
    assert!(sent.status.success(), "{sent:?} {complaints}");
    assert_eq!(processed(), MESSAGES);
    let last = run(&["resend", path, &url]);
    assert!(last.status.success() && stdout(&last).contains("sent      0 messages"), "{last:?}");
    // The same as without any loss.
    let verified = run(&["launch", &url, "--messages", "60000", "--rockets", "700", "--verify"]);
    assert!(stdout(&verified).contains("0 disagree"), "{}", stdout(&verified));
}

#[test]
fn a_lossy_fleet_has_gaps_that_a_file_fills() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path().join("rockets.db"));
    let url = format!("http://{}", service.address);
    let path = directory.path().join("all.ndjson");
    let path = path.to_str().unwrap();
    let fleet = ["--messages", "3000", "--rockets", "40", "--seed", "3", "--verify"];
    let launch = |more: &[&str]| run(&[&["launch", &url][..], &fleet, more].concat());
    let lossy = launch(&["--lossy", "5%", "--save", path]);
    assert!(lossy.status.success(), "{lossy:?}");
    assert!(stdout(&lossy).contains(" of 3000 messages left out"), "{}", stdout(&lossy));
    assert!(stdout(&lossy).contains("0 disagree"), "{}", stdout(&lossy));
    assert_eq!(fs::read_to_string(path).unwrap().lines().count(), 3_000);
    let stats = Client::new(service.address).get("/stats").json();
    let processed = stats["processed"].as_u64().unwrap();
    assert!((2_750..2_950).contains(&processed), "{stats}");
    // A fleet without losses is another.
    let whole = |launched: Output| stdout(&launched).contains("0 disagree");
    assert!(run(&["resend", path, &url]).status.success());
    assert!(!whole(launch(&["--lossy", "5"])));
    assert!(whole(launch(&[])));
    let bad = launch(&["--lossy", "101"]);
    assert_eq!(bad.status.code(), Some(2), "{bad:?}");
    let unwritable = launch(&["--save", "/nowhere/all.ndjson"]);
    assert!(stderr(&unwritable).contains("/nowhere/all.ndjson"), "{unwritable:?}");
}

#[test]
fn a_dry_run_of_ingest_counts_and_changes_nothing() {
    let mut random = StdRng::seed_from_u64(5);
    let mut backends = vec![Backend::SqliteFile, Backend::Postgres];
    if std::env::var_os("ROCKET_MONITOR_TEST_CITUS").is_some() {
        backends.push(Backend::Citus);
    }
    for backend in backends {
        let messages = fleet(&mut random);
        let app = App::spawn(backend);
        let known: Vec<Value> =
            messages.iter().filter(|_| random.random_range(0..3) > 0).cloned().collect();
        let high = faster("gaps", 4_294_967_295, 1);
        assert_eq!(app.client().post_lines(lines(&known).as_bytes()).json()["rejected"], 0);
        let (_directory, path) = file(&[messages.clone(), vec![high.clone(), high]].concat());
        let mut text = fs::read_to_string(&path).unwrap();
        text += "nonsense\n\n{}\n";
        fs::write(&path, text).unwrap();
        let stored: BTreeSet<String> = known.iter().map(identity).collect();
        let all: BTreeSet<String> = messages.iter().map(identity).collect();
        let new = all.len() - stored.len() + 1;
        let duplicates = messages.len() + 2 - new;
        let before = processed(&app);
        let database = app.database_argument();
        // Not even another process that writes holds it up.
        let blocker = matches!(backend, Backend::SqliteFile).then(|| {
            let blocker = rusqlite::Connection::open(app.database()).unwrap();
            blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
            blocker
        });
        let ingest = ["ingest", path.to_str().unwrap(), "--database", &database];
        let dry = run(&[&ingest[..], &["--dry-run"]].concat());
        assert_eq!(dry.status.code(), Some(2), "{dry:?}");
        let expected = format!(
            "received {}: {new} would be applied, {duplicates} duplicates, 2 rejected; nothing was \
             stored\n",
            new + duplicates + 2
        );
        assert_eq!(stdout(&dry), expected);
        drop(blocker);
        assert_eq!(processed(&app), before);
        let expected =
            expected.replace("would be applied", "applied").replace("; nothing was stored", "");
        assert_eq!(stdout(&run(&ingest)), expected);
    }
    let none = tempfile::tempdir().unwrap();
    let database = none.path().join("none.db");
    let (_directory, path) = file(&[launched("r", 1)]);
    let dry = run(&[
        "ingest",
        path.to_str().unwrap(),
        "--dry-run",
        "--database",
        database.to_str().unwrap(),
    ]);
    assert_eq!(dry.status.code(), Some(1), "{dry:?}");
    assert!(!database.exists());
}

/// A service that takes nothing, and says so. It lacks everything.
fn refuse_everything(listener: TcpListener) {
    for stream in listener.incoming() {
        let mut stream = BufReader::new(stream.unwrap());
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).unwrap() > 0 {}
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
        });
        let mut body = vec![0; length.unwrap_or(0)];
        std::io::Read::read_exact(&mut stream, &mut body).unwrap();
        let lines = String::from_utf8(body).unwrap();
        let response: String = if head.starts_with("POST /missing") {
            let answers = lines.lines().map(|line| {
                let question: Value = serde_json::from_str(line).unwrap();
                let missing = [[&question["from"], &question["through"]]];
                serde_json::json!({
                    "channel": question["channel"], "through": question["through"],
                    "missing": missing, "nextFrom": null,
                })
            });
            answers.map(|answer| answer.to_string() + "\n").collect()
        } else {
            let rejected = lines.lines().count();
            let errors = [serde_json::json!({ "line": 1, "detail": "not\u{1b}today" })];
            serde_json::json!({
                "received": rejected, "applied": 0, "duplicates": 0, "rejected": rejected,
                "errors": errors,
            })
            .to_string()
        };
        let length = response.len();
        let head =
            format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        stream.get_mut().write_all((head + &response).as_bytes()).unwrap();
    }
}

#[test]
fn what_is_still_missing_is_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // It ends with the tests.
    std::thread::spawn(|| refuse_everything(listener));
    let (_directory, path) = file(&[launched("r", 1), faster("r", 2, 1), faster("r", 5, 1)]);
    let sent = run(&["resend", path.to_str().unwrap(), &url]);
    assert_eq!(sent.status.code(), Some(1), "{sent:?}");
    assert!(stdout(&sent).contains("3 messages are still missing"), "{}", stdout(&sent));
    assert!(stdout(&sent).contains("sent      9 messages"), "{}", stdout(&sent));
    assert!(stderr(&sent).contains(r"rejected a message: not\u{1b}today"), "{}", stderr(&sent));
}
