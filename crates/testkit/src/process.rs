//! The program in a process of its own.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::wait::eventually;

/// The commands of the program.
pub const COMMANDS: [&str; 10] = [
    "serve",
    "launch",
    "resend",
    "ingest",
    "check",
    "report",
    "backup",
    "forget",
    "migrate",
    "completions",
];

/// The program under test. Cargo builds it for every integration test and benchmark of the main
/// package, and puts it beside the directory of their binaries.
pub fn program_path() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let program = profile.join(format!("rocket-monitor{}", std::env::consts::EXE_SUFFIX));
    assert!(
        program.exists(),
        "there is no {}: `cargo build` makes it, with the profile and the target of this test",
        program.display()
    );
    program
}

/// The program, to be run with arguments and without the caller's settings.
pub fn program(args: &[&str]) -> Command {
    let mut command = Command::new(program_path());
    without_settings(&mut command).args(args);
    command
}

/// Removes the variables that change what the program does: a test sets those that it means.
pub fn without_settings(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_setting(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    command
}

fn is_setting(variable: &str) -> bool {
    // Our own, those of Postgres clients, and those that decide about colours.
    let starts = ["ROCKET_MONITOR_", "PG", "CLICOLOR"];
    let is_proxy = variable.to_ascii_lowercase().ends_with("_proxy");
    let is_ours = starts.iter().any(|start| variable.starts_with(start));
    is_ours || is_proxy || ["NO_COLOR", "CI"].contains(&variable)
}

/// Runs the program to its end.
pub fn run(args: &[&str]) -> Output {
    program(args).output().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A service in its own process, which is killed on drop.
pub struct Service {
    pub child: Child,
    pub address: SocketAddr,
}

impl Service {
    pub fn start(database: impl AsRef<OsStr>) -> Self {
        Self::start_at(database, ([127, 0, 0, 1], 0).into())
    }

    pub fn start_at(database: impl AsRef<OsStr>, address: SocketAddr) -> Self {
        let mut command = program(&["serve", "--listen", &address.to_string(), "--database"]);
        command.arg(database);
        Self::spawn(command)
    }

    /// With options of `serve`; on a free port unless they say otherwise.
    pub fn start_with(options: &[&str]) -> Self {
        let listen: &[&str] =
            if options.contains(&"--listen") { &[] } else { &["--listen", "127.0.0.1:0"] };
        Self::spawn(program(&[&["serve"], listen, options].concat()))
    }

    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        let address = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "the service ended:\n{seen}");
            let json: Value = serde_json::from_str(&line).unwrap_or_default();
            if json["message"] == "listening" {
                break json["address"].as_str().unwrap().parse().unwrap();
            }
            seen += &line;
        };
        // Read to its end, so that the service never blocks on its log.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, address }
    }

    /// Kills it while others still use it. It is waited for on drop.
    pub fn kill_now(&self) {
        self.signal("-KILL");
    }

    /// Sends SIGTERM.
    pub fn ask_to_end(&self) {
        self.signal("-TERM");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Sends SIGTERM, and waits for the end.
    pub fn terminate(&mut self) -> std::process::ExitStatus {
        self.ask_to_end();
        self.child.wait().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A service with this log level, which logs to a file.
pub fn logged(database: &str, level: &str, log: &Path) -> Service {
    logged_as(
        program(&[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--log-level",
            level,
            "--database",
            database,
        ]),
        log,
    )
}

/// Starts a service with this command. Its log goes into a file.
pub fn logged_as(mut command: Command, log: &Path) -> Service {
    let child = command.stderr(File::create(log).unwrap()).spawn().unwrap();
    let mut service = Service { child, address: ([127, 0, 0, 1], 0).into() };
    eventually("it listens", || {
        let text = std::fs::read_to_string(log).unwrap();
        let mut lines =
            text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let address =
            lines.find(|line| line["message"] == "listening").map(|line| line["address"].clone());
        address.is_some_and(|address| {
            service.address = address.as_str().unwrap().parse().unwrap();
            true
        })
    });
    service
}
