//! The arguments of commands, the environment, and exit statuses.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;
use testkit::client::Client;
use testkit::message::{faster, launched};
use testkit::process::{Service, program, run, stderr, stdout, without_settings};
use testkit::sqlite::query;
use testkit::wait::{DEADLINE, eventually};

#[test]
fn files_and_standard_input_are_ingested() {
    let directory = tempfile::tempdir().unwrap();
    let (database, file) =
        (directory.path().join("rockets.db"), directory.path().join("messages.ndjson"));
    let database_arguments = ["--database", database.to_str().unwrap()];
    std::fs::write(&file, format!("{}\n{}\n", launched("r", 1), faster("r", 3, 1))).unwrap();
    let good = run(&[&["ingest", file.to_str().unwrap()][..], &database_arguments].concat());
    assert_eq!(
        (good.status.code(), stdout(&good)),
        (Some(0), "received 2: 2 applied, 0 duplicates, 0 rejected\n".into())
    );

    let mut child = program(&[&["ingest", "-"][..], &database_arguments].concat());
    let mut child =
        child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    write!(child.stdin.take().unwrap(), "{}\nnonsense\n\n{}", faster("r", 3, 1), faster("r", 2, 1))
        .unwrap();
    let mixed = child.wait_with_output().unwrap();
    assert_eq!(mixed.status.code(), Some(2));
    assert_eq!(stdout(&mixed), "received 3: 1 applied, 1 duplicates, 1 rejected\n");
    assert!(stderr(&mixed).starts_with("line 2: not one JSON text"), "{}", stderr(&mixed));
    assert_eq!(
        query(&database, "SELECT speed, complete_through FROM rockets"),
        [[json!(502), json!(3)]]
    );

    for (file, why) in [("/nowhere/at/all", "No such file"), ("/", "is a directory")] {
        let failed = run(&[&["ingest", file][..], &database_arguments].concat());
        assert_eq!(failed.status.code(), Some(1));
        assert!(stderr(&failed).contains(why), "{}", stderr(&failed));
    }
    assert!(stderr(&run(&["ingest", "-", "--database", "memory"])).contains("would be lost"));
}

#[test]
fn a_forgotten_rocket_starts_anew() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    let service = Service::start(&database);
    let mut client = Client::new(service.address);
    for message in [launched("r", 1), faster("r", 5, 1), launched("s", 1)] {
        client.post(&message);
    }
    let forget =
        |channel: &str| run(&["forget", channel, "--database", database.to_str().unwrap()]);
    assert!(forget("r").status.success());
    assert_eq!(client.get("/rockets/r").status, 404);
    assert_eq!(
        query(&database, "SELECT count(*) FROM processed_ranges WHERE channel = 'r'"),
        [[json!(0)]]
    );
    assert_eq!(client.get("/rockets/s").status, 200);
    let again = client.post(&launched("r", 1));
    assert_eq!((again.status, again.header("idempotent-replayed")), (204, None));
    assert_eq!(forget("unknown").status.code(), Some(1));
}

#[test]
fn termination_answers_what_was_taken() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    let mut service = Service::start(&database);
    let (address, started) = (service.address, std::time::Instant::now());
    // One idle connection, one in the middle of a head, one in the middle of a body, and one in the
    // middle of a stream.
    let mut idle = Client::new(address);
    assert_eq!(idle.get("/livez").status, 200);
    let mut half = Client::new(address);
    half.send(b"POST /messages HTTP/1.1\r\n").unwrap();
    let mut stalled = Client::new(address);
    stalled
        .send(b"POST /messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        .unwrap();
    let mut stream = Client::new(address);
    let line = launched("stream", 1).to_string() + "\n";
    let head = "POST /messages HTTP/1.1\r\nHost: localhost\r\n\
                Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.send(format!("{head}{:x}\r\n{line}\r\n", line.len()).as_bytes()).unwrap();
    eventually("the stream's first line is stored", || idle.get("/rockets/stream").status == 200);
    let acknowledged = std::thread::scope(|scope| {
        let posting: Vec<_> = (0..8)
            .map(|client| {
                scope.spawn(move || {
                    let mut poster = Client::new(address);
                    let mut acknowledged = 0;
                    for number in 1.. {
                        let body = faster(&format!("c{client}"), number, 1).to_string();
                        match poster.request("POST", "/messages", &[], body.as_bytes()) {
                            Ok(answer) if answer.status == 204 => acknowledged = number,
                            Ok(_) | Err(_) => break,
                        }
                    }
                    acknowledged
                })
            })
            .collect();
        eventually("they all post", || {
            let listed = idle.get("/rockets").json();
            listed["rockets"].as_array().unwrap().len() == 9
        });
        assert!(service.terminate().success());
        posting.into_iter().map(|client| client.join().unwrap()).collect::<Vec<u32>>()
    });
    assert!(started.elapsed() < DEADLINE);
    let problem = stream.answer(false).unwrap().problem(503);
    assert_eq!((&problem["received"], &problem["applied"]), (&json!(1), &json!(1)));
    stalled.answer(false).unwrap().problem(503);
    for (client, acknowledged) in acknowledged.into_iter().enumerate() {
        let rows = query(
            &database,
            &format!("SELECT complete_through FROM rockets WHERE channel = 'c{client}'"),
        );
        assert!(rows[0][0].as_u64().unwrap() >= acknowledged.into(), "{client}");
    }
}

#[test]
fn mistakes_are_explained() {
    let old = run(&["-r"]);
    assert_eq!(old.status.code(), Some(2));
    assert!(stderr(&old).contains("--database"), "{}", stderr(&old));
    let open = run(&["serve", "--listen", "0.0.0.0:0", "--database", "memory"]);
    assert!(
        !open.status.success() && stderr(&open).contains("--allow-anonymous"),
        "{}",
        stderr(&open)
    );
    let nonsense = run(&["serve", "--listen", "nonsense", "--database", "memory"]);
    assert!(
        !nonsense.status.success() && stderr(&nonsense).contains("--listen nonsense"),
        "{}",
        stderr(&nonsense)
    );
    let postgres = run(&["check", "--database", "postgres://u:secret@127.0.0.1:1/rockets"]);
    assert_eq!(postgres.status.code(), Some(2));
    assert!(
        stderr(&postgres).contains("postgres://u@127.0.0.1:1/rockets: Postgres: "),
        "{}",
        stderr(&postgres)
    );
    assert!(
        stderr(&postgres).contains("others on this machine can see")
            && !stderr(&postgres).contains("secret")
    );
    let alone = run(&["migrate", "--distribute", "--database", "memory"]);
    assert!(!alone.status.success() && stderr(&alone).contains("citus"), "{}", stderr(&alone));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let second = run(&["serve", "--listen", &address, "--database", "memory"]);
    assert!(!second.status.success() && stderr(&second).contains("in use"), "{}", stderr(&second));
    assert!(stdout(&run(&["--version"])).starts_with("rocket-monitor "));
    for command in ["serve", "launch", "ingest", "check", "forget", "migrate"] {
        let help = run(&[command, "--help"]);
        assert!(help.status.success() && stdout(&help).contains("ROCKET_MONITOR_"), "{command}");
    }
}

#[test]
fn a_variable_stops_only_the_commands_that_have_its_option() {
    let directory = tempfile::tempdir().unwrap();
    let in_directory = |words: &[&str], variable: &str, value: &str| {
        let mut command = program(words);
        command.current_dir(directory.path()).env(variable, value).output().unwrap()
    };
    let launch = &["launch", "http://127.0.0.1:1"][..];
    for (words, variable, value, status) in [
        (&["completions", "bash"][..], "ROCKET_MONITOR_DATABASE", "mysql://x", 0),
        (&["man"], "ROCKET_MONITOR_DATABASE", "mysql://x", 0),
        (&["migrate"], "ROCKET_MONITOR_NO_MIGRATE", "maybe", 0),
        (&["check"], "ROCKET_MONITOR_LOG_LEVEL", "loud", 0),
        (&["report", "fleet"], "ROCKET_MONITOR_WRITE_TOKEN_FILE", "", 0),
        (launch, "ROCKET_MONITOR_DATABASE", "mysql://x", 1),
        // Those that have it are stopped, and say what is wrong.
        (&["migrate"], "ROCKET_MONITOR_DATABASE", "mysql://x", 2),
        (&["serve"], "ROCKET_MONITOR_NO_MIGRATE", "maybe", 2),
        (&[], "ROCKET_MONITOR_NO_MIGRATE", "maybe", 2),
        (&["--listen", "127.0.0.1:0"], "ROCKET_MONITOR_LOG_LEVEL", "loud", 2),
        (launch, "ROCKET_MONITOR_SEED", "none", 2),
    ] {
        let output = in_directory(words, variable, value);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(status), "{variable} {words:?}: {said}");
        assert_eq!(said.contains(variable), status == 2, "{words:?}: {said}");
    }
}

#[test]
fn options_can_come_from_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("from-environment.db");
    let migrated =
        program(&["migrate"]).env("ROCKET_MONITOR_DATABASE", &database).output().unwrap();
    assert!(migrated.status.success() && database.exists());
}

#[test]
fn variables_are_taken_as_people_write_them() {
    let directory = tempfile::tempdir().unwrap();
    let in_directory = |words: &[&str], variables: &[(&str, &str)]| {
        let mut command = program(words);
        command.current_dir(directory.path()).envs(variables.iter().copied()).output().unwrap()
    };
    // An empty variable is unset.
    assert!(in_directory(&["migrate"], &[("ROCKET_MONITOR_DATABASE", "")]).status.success());
    assert!(directory.path().join("rockets.db").exists());
    std::fs::write(directory.path().join("copy.db"), "").unwrap();
    for (value, replaces) in [
        ("1", true),
        ("yes", true),
        ("On", true),
        ("TRUE", true),
        ("0", false),
        ("no", false),
        ("off", false),
        ("False", false),
        ("", false),
    ] {
        let copied = in_directory(&["backup", "copy.db"], &[("ROCKET_MONITOR_REPLACE", value)]);
        assert_eq!(copied.status.success(), replaces, "{value:?}: {copied:?}");
    }
    for format in ["CSV", "Csv", "csv"] {
        let report = in_directory(&["report", "fleet"], &[("ROCKET_MONITOR_FORMAT", format)]);
        assert!(stdout(&report).starts_with("rockets,"), "{report:?}");
    }
    for level in ["INFO", "Warn", "warning", ""] {
        // It gets as far as the address.
        let words = ["serve", "--listen", "8088", "--database", "memory"];
        let report = in_directory(&words, &[("ROCKET_MONITOR_LOG_LEVEL", level)]);
        assert!(stderr(&report).contains("--listen 127.0.0.1:8088"), "{level}: {report:?}");
    }
    // A lost name or token must not leave the service open.
    for variable in [
        "ROCKET_MONITOR_READ_TOKEN_FILE",
        "ROCKET_MONITOR_WRITE_TOKEN",
        "ROCKET_MONITOR_READ_TOKEN",
    ] {
        let open = in_directory(
            &["serve", "--database", "memory", "--listen", "127.0.0.1:0"],
            &[(variable, "")],
        );
        assert!(!open.status.success(), "{variable}: {open:?}");
    }
    // Invalid values are explained.
    let maybe = in_directory(&["backup", "copy.db"], &[("ROCKET_MONITOR_REPLACE", "maybe")]);
    assert_eq!(maybe.status.code(), Some(2));
    let said = stderr(&maybe);
    assert!(said.contains("yes") && said.contains("variable ROCKET_MONITOR_REPLACE"), "{said}");
    assert!(
        !stderr(&in_directory(&["report", "fleet", "--format", "x"], &[])).contains("variable")
    );
}

/// The tests must not depend on how the caller has set up the shell: some that run the program are
/// run again, each with a variable that would make it fail.
#[test]
fn the_callers_settings_do_not_reach_the_program() {
    let is_failed = |(variable, value, test): &(&str, &str, &str)| {
        let mut again = Command::new(std::env::current_exe().unwrap());
        without_settings(&mut again).args(["--exact", test]);
        again.env("TERM", "xterm").env(variable, value);
        let output = again.output().unwrap();
        !output.status.success() || !stdout(&output).contains("1 passed")
    };
    let colours = "cli::output::colours_are_for_terminals_that_have_them_and_people_who_want_them";
    let cases = [
        ("PGSERVICE", "elsewhere", "cli::command_line::mistakes_are_explained"),
        (
            "ROCKET_MONITOR_FORMAT",
            "csv",
            "cli::output::what_senders_wrote_can_not_act_on_a_terminal",
        ),
        ("CLICOLOR_FORCE", "1", "cli::output::names_of_files_and_arguments_can_not_act"),
        ("NO_COLOR", "1", colours),
    ];
    let failed: Vec<_> = cases.iter().filter(|case| is_failed(case)).collect();
    assert!(failed.is_empty(), "{failed:?}");
}
