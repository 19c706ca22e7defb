//! The output of commands: on full disks, into closed pipes, with hostile text, and on terminals.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use testkit::app::{App, Backend};
use testkit::message::{exploded, faster, launched, launched_as};
use testkit::process::{COMMANDS, Service, program, run, stderr, stdout, without_settings};
use testkit::sqlite::sql;

/// Erases the screen, sets colours, rings the bell, starts a line, reverses the writing direction;
/// some of it is invisible.
const HOSTILE: &str = "\u{1b}[2J\u{9b}31m\u{7}\nline 99: forged\u{202e}\u{200b}\u{feff}é🚀";

/// Texts of messages can't hold control characters.
const HOSTILE_TEXT: &str = "\u{202e}\u{200b}\u{2066}\u{feff}\u{2028}é👩\u{200d}🚀";

const HOSTILE_TEXT_SHOWN: &str = "\\u{202e}\\u{200b}\\u{2066}\\u{feff}\\u{2028}é👩\u{200d}🚀";

/// Asserts that nothing in it acts on a terminal, except line ends.
fn assert_harmless(text: &str) {
    assert_eq!(rocket_monitor::terminal::escape_lines(text), text);
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// A pipe without a reader.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// A database with a rocket, a file of messages with a bad line, and a service on another database.
struct Everything {
    directory: tempfile::TempDir,
    service: Service,
}

impl Everything {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let service = Service::start(directory.path().join("served.db"));
        let everything = Self { directory, service };
        std::fs::write(everything.path("messages.ndjson"), format!("{}\nbad\n", launched("r", 1)))
            .unwrap();
        assert_eq!(everything.ingest().status.code(), Some(2));
        everything
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn ingest(&self) -> Output {
        run(&["ingest", &self.path("messages.ndjson"), "--database", &self.path("rockets.db")])
    }

    /// Every command that prints, with its exit status, and with the one if its output can't be
    /// written.
    fn commands(&self) -> Vec<(Vec<String>, i32, i32)> {
        let database = self.path("rockets.db");
        let mut commands = Vec::new();
        let mut add = |words: &str, more: &[&str], usual, failed| {
            let words = words.split_whitespace().chain(more.iter().copied());
            commands.push((words.map(str::to_owned).collect(), usual, failed));
        };
        for words in [
            "--help",
            "-h",
            "--version",
            "help report",
            "serve --help",
            "completions bash",
            "completions zsh",
            "man",
        ] {
            add(words, &[], 0, 1);
        }
        for words in
            ["report missions", "report gaps --format json", "report fleet --format csv", "migrate"]
        {
            add(words, &["--database", &database], 0, 1);
        }
        add("check", &["--database", &database], 0, 2);
        add("ingest", &[&self.path("messages.ndjson"), "--database", &database], 2, 1);
        add("backup --replace", &[&self.path("copy.db"), "--database", &database], 0, 1);
        add("launch --messages 20 --verify", &[&format!("http://{}", self.service.address)], 0, 1);
        add("forget r", &["--database", &database], 0, 1);
        add("forget --status launched", &["--database", &database], 0, 1);
        commands
    }
}

#[test]
fn output_that_is_not_wanted_or_can_not_be_written_panics_nowhere() {
    let everything = Everything::new();
    for (words, usual, failed) in everything.commands() {
        // Restores what was removed.
        everything.ingest();
        let args: Vec<&str> = words.iter().map(String::as_str).collect();
        let onto_full = program(&args).stdout(full()).output().unwrap();
        assert_eq!(onto_full.status.code(), Some(failed), "{words:?}: {onto_full:?}");
        let reason = "rocket-monitor: standard output can't be written: No space left on device";
        assert!(stderr(&onto_full).contains(reason), "{words:?}: {onto_full:?}");
        everything.ingest();
        let unread = program(&args).stdout(closed()).output().unwrap();
        assert_eq!(unread.status.code(), Some(usual), "{words:?}: {unread:?}");
        let complaint = stderr(&unread);
        assert!(
            complaint.is_empty() || complaint.starts_with("line 2: "),
            "{words:?}: {complaint}"
        );
        for errors in [full(), closed()] {
            everything.ingest();
            let mute = program(&args).stderr(errors).output().unwrap();
            assert_eq!(mute.status.code(), Some(usual), "{words:?}: {mute:?}");
        }
        let deaf_and_mute = program(&args).stdout(full()).stderr(full()).output().unwrap();
        assert!(
            deaf_and_mute.status.code().is_some_and(|status| (1..=2).contains(&status)),
            "{words:?}: {deaf_and_mute:?}"
        );
    }
}

#[test]
fn failures_have_their_status_though_nobody_can_read_why() {
    let everything = Everything::new();
    let database = everything.path("rockets.db");
    sql(database.as_ref(), "UPDATE rockets SET speed = 1");
    for (words, status) in [
        (&["--nonsense"][..], 2),
        (&["report", "nothing"], 2),
        (&["-r"], 2),
        (&["ingest", "/nowhere/at/all", "--database", &database], 1),
        (&["forget", "unknown", "--database", &database], 1),
        (&["check", "--database", &database], 1),
        (&["check", "--database", "postgres://u:secret@127.0.0.1:1/rockets"], 2),
        (&["launch", "http://127.0.0.1:1"], 1),
        (&["serve", "--listen", "8088", "--database", "memory"], 1),
    ] {
        for errors in [full(), closed()] {
            let failed = program(words).stderr(errors).output().unwrap();
            assert_eq!(failed.status.code(), Some(status), "{words:?}: {failed:?}");
        }
    }
    // Problems are still problems if only the first of them is read.
    let unread = program(&["check", "--database", &database]).stdout(closed()).output().unwrap();
    assert_eq!((unread.status.code(), stderr(&unread).as_str()), (Some(1), ""));
}

#[test]
fn a_long_report_may_be_read_in_part() {
    let directory = tempfile::tempdir().unwrap();
    let (database, file) =
        (directory.path().join("rockets.db"), directory.path().join("messages.ndjson"));
    let lines: String =
        (0..3_000).map(|rocket| format!("{}\n", faster(&format!("r{rocket}"), 2, 1))).collect();
    std::fs::write(&file, lines).unwrap();
    let (file, database) = (file.to_str().unwrap(), database.to_str().unwrap());
    assert!(run(&["ingest", file, "--database", database]).status.success());
    for format in ["table", "csv", "json"] {
        let mut command = program(&["report", "gaps", "--format", format, "--database", database]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // When the pipe is closed, more than it can hold is still to come.
        child.stdout.take().unwrap().read_exact(&mut [0; 100]).unwrap();
        let read = child.wait_with_output().unwrap();
        assert_eq!((read.status.code(), stderr(&read).as_str()), (Some(0), ""), "{format}");
    }
}

#[test]
fn help_documents_every_exit_status() {
    for command in [""].iter().chain(&COMMANDS) {
        let words: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        assert!(stdout(&run(&words)).contains("Exit status:"), "{command}");
    }
    assert!(stdout(&run(&["man"])).contains("Exit status:"));
}

#[test]
fn bad_lines_are_shown_and_can_not_act() {
    let directory = tempfile::tempdir().unwrap();
    let (database, file) =
        (directory.path().join("rockets.db"), directory.path().join("messages.ndjson"));
    let mut line = launched("r", 1);
    line["metadata"]["messageType"] = json!(HOSTILE);
    let mut doubled = launched("r", 1).to_string();
    let member = json!(HOSTILE).to_string();
    doubled.insert_str(1, &format!("{member}:1,{member}:2,"));
    std::fs::write(&file, format!("{line}\n{doubled}\n")).unwrap();
    let told = run(&["ingest", file.to_str().unwrap(), "--database", database.to_str().unwrap()]);
    assert_eq!(told.status.code(), Some(2));
    let told = stderr(&told);
    assert_eq!(told.lines().count(), 2, "{told}");
    assert!(
        told.lines().zip(1..).all(|(line, number)| line.starts_with(&format!("line {number}: "))),
        "{told}"
    );
    assert_harmless(&told);
}

#[test]
fn ingest_says_how_many_bad_lines_it_does_not_show() {
    let directory = tempfile::tempdir().unwrap();
    let (database, file) =
        (directory.path().join("rockets.db"), directory.path().join("messages.ndjson"));
    std::fs::write(&file, "bad\n".repeat(123)).unwrap();
    let told = run(&["ingest", file.to_str().unwrap(), "--database", database.to_str().unwrap()]);
    assert_eq!(stdout(&told), "received 123: 0 applied, 0 duplicates, 123 rejected\n");
    assert_eq!(
        (stderr(&told).lines().count(), stderr(&told).lines().last()),
        (101, Some("23 more lines were rejected"))
    );
}

/// A database with hostile texts, also such as only other programs can write.
fn hostile_database(path: &str) {
    assert!(run(&["migrate", "--database", path]).status.success());
    let file = format!("{path}.ndjson");
    let launch = launched_as(HOSTILE_TEXT, 1, "Falcon-9", 500, HOSTILE_TEXT);
    let explosion = exploded(HOSTILE_TEXT, 3, HOSTILE_TEXT);
    std::fs::write(&file, format!("{launch}\n{explosion}\n")).unwrap();
    assert!(run(&["ingest", &file, "--database", path]).status.success());
}

#[test]
fn what_senders_wrote_can_not_act_on_a_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db").to_str().unwrap().to_owned();
    hostile_database(&database);
    for report in ["missions", "explosions", "gaps"] {
        let table = stdout(&run(&["report", report, "--database", &database]));
        assert!(table.contains(HOSTILE_TEXT_SHOWN), "{table}");
        assert_harmless(&table);
        // Programs get the text as it is, people see it escaped.
        for (format, shown) in [
            ("csv", HOSTILE_TEXT_SHOWN),
            ("json", "\\u202e\\u200b\\u2066\\ufeff\\u2028é👩\u{200d}🚀"),
        ] {
            let words = ["report", report, "--format", format, "--database", &database];
            assert!(stdout(&run(&words)).contains(HOSTILE_TEXT), "{report} as {format}");
            let seen = on_terminal(&words, &[]);
            assert!(seen.contains(shown), "{seen}");
            assert_harmless(&seen);
        }
    }
    sql(database.as_ref(), "UPDATE rockets SET speed = 1");
    let checked = run(&["check", "--database", &database]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(stdout(&checked).contains(HOSTILE_TEXT_SHOWN), "{checked:?}");
    assert_harmless(&stdout(&checked));
    let forgotten = stdout(&run(&["forget", HOSTILE_TEXT, "--database", &database]));
    assert_eq!(forgotten, format!("forgot {HOSTILE_TEXT_SHOWN}\n"));
    let unknown = stderr(&run(&["forget", HOSTILE_TEXT, "--database", &database]));
    assert!(unknown.contains(HOSTILE_TEXT_SHOWN), "{unknown}");
}

#[test]
fn names_of_files_and_arguments_can_not_act() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (database, hostile) = (path("rockets.db"), path(HOSTILE));
    assert!(run(&["migrate", "--database", &database]).status.success());
    let words: [&[&str]; 8] = [
        &["backup", &hostile, "--database", &database],
        &["backup", &hostile, "--database", &database],
        &["migrate", "--database", &hostile],
        &["ingest", &path("\u{1b}[31mnothing\n"), "--database", &database],
        &["report", HOSTILE, "--database", &database],
        &[HOSTILE],
        &["launch", &format!("https://{HOSTILE}")],
        &["serve", "--database", "memory", "--listen", HOSTILE],
    ];
    for (words, lines) in words.into_iter().zip([1, 1, 1, 1, 4, 6, 1, 1]) {
        let said = run(words);
        let text = stdout(&said) + &stderr(&said);
        assert_harmless(&text);
        assert_eq!(text.lines().count(), lines, "{text}");
        let seen = on_terminal(words, &[("NO_COLOR", "1")]);
        assert_harmless(&seen);
    }
}

/// Answers a request on its own connection.
fn answer_once(listener: &TcpListener, status: &str, body: &str) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap() > "\r\n".len() {
        line.clear();
    }
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes()).unwrap();
    // Until the client has read it.
    let _ = std::io::copy(&mut reader, &mut std::io::sink());
}

#[test]
fn what_a_service_answers_can_not_act() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        answer_once(&listener, "503 Service Unavailable", HOSTILE);
        answer_once(&listener, "400 Bad Request", HOSTILE);
    });
    let refused = run(&["launch", &url, "--connections", "1"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = stderr(&refused);
    assert_eq!((said.lines().count(), said.matches("forged").count()), (2, 2), "{said}");
    assert_harmless(&said);
}

#[test]
fn cells_that_look_like_formulas_are_texts_in_csv() {
    let app = App::spawn(Backend::SqliteFile);
    let mut client = app.client();
    let missions = ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\u{ff1d}1", "'", "a=b", "1"];
    for (rocket, mission) in missions.iter().enumerate() {
        let mut message = launched(&format!("r{rocket}"), 1);
        message["message"]["mission"] = json!(mission);
        message["message"]["launchSpeed"] = json!(-7);
        assert_eq!(client.post(&message).status, 204);
    }
    let answer =
        client.request("GET", "/reports/missions", &[("Accept", "text/csv")], b"").unwrap();
    let printed =
        run(&["report", "missions", "--format", "csv", "--database", &app.database_argument()]);
    for csv in [String::from_utf8(answer.body).unwrap(), stdout(&printed)] {
        let cells: Vec<&str> =
            csv.lines().skip(1).map(|line| line.split(',').next().unwrap()).collect();
        let mut expected =
            ["'=1+1", "'+1", "'-1", "'@SUM(A1)", "' =1", "'\u{ff1d}1", "'", "a=b", "1"];
        expected.sort_by_key(|cell| {
            cell.strip_prefix('\'').filter(|rest| !rest.is_empty()).unwrap_or(cell).to_owned()
        });
        assert_eq!(cells, expected);
        // Numbers stay numbers.
        assert!(csv.lines().skip(1).all(|line| line.ends_with(",1,1,0,-7.0,-7")), "{csv}");
    }
    let json = client.get("/reports/missions").json();
    let names: Vec<&str> = json["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["mission"].as_str().unwrap())
        .collect();
    assert!(missions.iter().all(|mission| names.contains(mission)), "{names:?}");
    assert!(stdout(&run(&["report", "--help"])).contains("apostrophe"));
}

/// Runs the program on a terminal: `script` creates one, and copies its output.
fn on_terminal_spawned(words: &[&str], variables: &[(&str, &str)]) -> Child {
    let quoted: Vec<String> = [&[env!("CARGO_BIN_EXE_rocket-monitor")], words]
        .concat()
        .iter()
        .map(|word| format!("'{}'", word.replace('\'', r"'\''")))
        .collect();
    let mut command = Command::new("script");
    without_settings(&mut command);
    command.env("TERM", "xterm-256color").envs(variables.iter().copied());
    // With exec, so that the process id of the shell is that of the program.
    command.args([
        "--quiet",
        "--return",
        "--command",
        &format!("echo $$; exec {}", quoted.join(" ")),
        "/dev/null",
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("script is there: on Debian, apt-get install bsdutils")
}

/// The program's output on a terminal.
fn on_terminal(words: &[&str], variables: &[(&str, &str)]) -> String {
    let output = on_terminal_spawned(words, variables).wait_with_output().unwrap();
    let seen = stdout(&output);
    // The terminal starts each line with its own carriage return.
    let (_, seen) = seen.split_once("\r\n").unwrap();
    seen.replace("\r\n", "\n")
}

/// Kills the process when it is dropped, so that a failed test leaves nothing running.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The output of a service on a terminal until it has stopped.
fn service_on_terminal(variables: &[(&str, &str)], options: &[&str]) -> String {
    let words = [&["serve", "--database", "memory", "--listen", "127.0.0.1:0"], options].concat();
    // Ends with the terminal, and with what runs there.
    let mut running = Running(on_terminal_spawned(&words, variables));
    let mut screen = BufReader::new(running.0.stdout.take().unwrap());
    let mut pid = String::new();
    screen.read_line(&mut pid).unwrap();
    let mut seen = String::new();
    while !seen.contains("ready") {
        assert!(screen.read_line(&mut seen).unwrap() > 0, "it ended: {seen}");
    }
    assert!(Command::new("kill").args(["-TERM", pid.trim()]).status().unwrap().success());
    screen.read_to_string(&mut seen).unwrap();
    assert!(running.0.wait().unwrap().success(), "{seen}");
    seen
}

#[test]
fn people_are_given_an_address_to_open_and_no_lines_of_libraries() {
    let seen = service_on_terminal(&[("NO_COLOR", "1")], &[]);
    let (_, url) = seen.split_once("Rocket Monitor is ready: open http://127.0.0.1:").unwrap();
    let (port, _) = url.split_once("/ ").unwrap();
    assert!(port.parse::<u16>().is_ok_and(|port| port > 0), "{seen}");
    assert!(!seen.contains("workers") && !seen.contains("untime found"), "{seen}");
    assert_harmless(&seen);
    // They are visible for debugging.
    assert!(service_on_terminal(&[], &["--log-level", "debug"]).contains("workers"));
}

#[test]
fn colours_are_for_terminals_that_have_them_and_people_who_want_them() {
    assert!(service_on_terminal(&[], &[]).contains('\u{1b}'));
    assert!(on_terminal(&["--help"], &[]).contains('\u{1b}'));
    let without =
        [&[("NO_COLOR", "1")][..], &[("TERM", "dumb")], &[("TERM", "dumb"), ("CI", "true")]];
    for variables in without {
        assert!(!service_on_terminal(variables, &[]).contains('\u{1b}'), "{variables:?}");
        for words in
            [&["--help"][..], &["--nonsense"], &["report", "--format", "nonsense", "fleet"]]
        {
            let seen = on_terminal(words, variables);
            assert!(!seen.contains('\u{1b}'), "{words:?} {variables:?}");
        }
    }
}

#[test]
fn a_log_for_programs_says_where_the_service_is() {
    let mut command = program(&["serve", "--database", "memory", "--listen", "127.0.0.1:0"]);
    let mut running = Running(command.stderr(Stdio::piped()).spawn().unwrap());
    let mut log = BufReader::new(running.0.stderr.take().unwrap());
    let mut first = String::new();
    log.read_line(&mut first).unwrap();
    let event: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(event["message"], "listening", "the first line");
    assert_eq!(event["url"], format!("http://{}/", event["address"].as_str().unwrap()));
    assert!(
        Command::new("kill")
            .args(["-TERM", &running.0.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert!(running.0.wait().unwrap().success());
    for line in rest.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(event["target"].as_str().unwrap().starts_with("rocket_monitor"), "{line}");
    }
}
