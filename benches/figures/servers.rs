//! The service, and the server that it is compared with.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use actix_web::{App, HttpResponse, HttpServer, web};
use rocket_monitor::wire::message::parse;

/// Makes the program act as the yardstick server.
const CEILING: &str = "ROCKET_MONITOR_BENCH_CEILING";

/// Whether this process is the yardstick server.
pub fn is_yardstick() -> bool {
    std::env::var_os(CEILING).is_some()
}

/// An actix-web server that parses the same message and stores nothing.
pub fn ceiling() {
    async fn parse_only(body: web::Bytes) -> HttpResponse {
        match parse(body) {
            Ok(message) => {
                std::hint::black_box(message);
                HttpResponse::NoContent().finish()
            }
            Err(_) => HttpResponse::UnprocessableEntity().finish(),
        }
    }
    let served = actix_web::rt::System::new().block_on(async {
        let server = HttpServer::new(|| App::new().route("/messages", web::post().to(parse_only)))
            .bind("127.0.0.1:0")
            .unwrap();
        eprintln!(r#"{{"message":"listening","address":"{}"}}"#, server.addrs()[0]);
        server.run().await
    });
    served.unwrap();
}

pub fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rocket-monitor"));
    command.args(args).stdout(Stdio::null());
    command
}

pub struct Server {
    pub child: Child,
    pub address: SocketAddr,
}

impl Server {
    pub fn ours(directory: &Path) -> Self {
        let database = directory.join("rockets.db");
        Self::start(program(&[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--database",
            database.to_str().unwrap(),
        ]))
    }

    pub fn ceiling() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(CEILING, "1");
        Self::start(command)
    }

    pub fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let deadline = Instant::now() + Duration::from_secs(30);
        let address = loop {
            let line = log.next().expect("the server ended").unwrap();
            assert!(Instant::now() < deadline, "the server did not start");
            let json: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if json["message"] == "listening" {
                break json["address"].as_str().unwrap().parse().unwrap();
            }
        };
        // The rest of the log is shown.
        std::thread::spawn(move || log.map_while(Result::ok).for_each(|line| eprintln!("{line}")));
        Self { child, address }
    }
}

/// The most memory of a process that was resident, in KiB; none if it has ended.
pub fn peak_kib(child: &Child) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(peak.trim().trim_end_matches(" kB").parse().unwrap())
}

impl Server {
    /// Stops it cleanly.
    pub fn terminate(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
