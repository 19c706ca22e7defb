//! Services for tests, in this process or as a child, each with its own database and a free port.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rocket_monitor::feed::Feed;
use rocket_monitor::http::{Access, Capacity, Server, Stopper};
use rocket_monitor::ingest::{Committers, Ingest, Limits};
use rocket_monitor::metrics::Metrics;
use rocket_monitor::store::fault_injection::Failures;
use rocket_monitor::store::{Database, OpenOptions, Store};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::postgres::{TestDatabase, execute};

/// The longest time that anything may take in a test.
pub const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
pub enum Backend {
    SqliteFile,
    SqliteMemory,
    Postgres,
    /// A cluster, over which the tables are distributed.
    Citus,
}

/// The commands of the program.
pub const COMMANDS: [&str; 9] =
    ["serve", "launch", "ingest", "check", "report", "backup", "forget", "migrate", "completions"];

/// Runs each of the functions as a test on every backend.
#[allow(unused_macros)]
macro_rules! conformance {
    ($($test:ident),* $(,)?) => {
        mod sqlite_file { $(#[test] fn $test() { super::$test($crate::support::Backend::SqliteFile); })* }
        mod sqlite_memory { $(#[test] fn $test() { super::$test($crate::support::Backend::SqliteMemory); })* }
        mod postgres { $(#[test] fn $test() { super::$test($crate::support::Backend::Postgres); })* }
        mod citus {
            $(
                #[test]
                #[ignore = "needs a cluster, named by ROCKET_MONITOR_TEST_CITUS"]
                fn $test() { super::$test($crate::support::Backend::Citus); }
            )*
        }
    };
}
#[allow(unused_imports)]
pub(crate) use conformance;

/// A service in this process.
pub struct App {
    pub address: SocketAddr,
    pub failures: Failures,
    pub directory: TempDir,
    postgres: Option<TestDatabase>,
    stopper: Stopper,
    serving: Option<std::thread::JoinHandle<()>>,
    committers: Mutex<Option<Committers>>,
    ingest: Ingest,
    feed: Feed,
    feeding: Option<std::thread::JoinHandle<()>>,
}

impl App {
    pub fn spawn(backend: Backend) -> Self {
        Self::spawn_with(backend, Limits::default())
    }

    pub fn spawn_with(backend: Backend, limits: Limits) -> Self {
        Self::spawn_in(tempfile::tempdir().unwrap(), backend, limits, OpenOptions::default())
    }

    /// With its file, if it has one, in this directory.
    pub fn spawn_in(
        directory: TempDir,
        backend: Backend,
        limits: Limits,
        options: OpenOptions,
    ) -> Self {
        let postgres = match backend {
            Backend::SqliteFile | Backend::SqliteMemory => None,
            Backend::Postgres => Some(TestDatabase::create()),
            Backend::Citus => Some(distributed()),
        };
        let database = match backend {
            Backend::SqliteFile => Database::File(directory.path().join("rockets.db")),
            Backend::SqliteMemory => Database::Memory,
            Backend::Postgres | Backend::Citus => postgres.as_ref().unwrap().url.parse().unwrap(),
        };
        let failures = Failures::plannable();
        let store =
            Store::open(&database, &OpenOptions { failures: failures.clone(), ..options }).unwrap();
        let metrics = Metrics::new(rocket_monitor::http::paths()).unwrap();
        let (feed, feeding) = Feed::start(&store).unwrap();
        let (ingest, committers) = Ingest::start(&store, &feed, &metrics, limits).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let (handed, handed_feed) = (ingest.clone(), feed.clone());
        let serving = std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let access = Access::default();
                let capacity = Capacity { workers: 2, connections: 1_000 };
                let server = Server::new(
                    vec![listener],
                    store,
                    handed,
                    handed_feed,
                    metrics,
                    access,
                    capacity,
                )
                .unwrap();
                sender.send((server.addresses()[0], server.stopper())).unwrap();
                server.run().await.unwrap();
            });
        });
        let (address, stopper) = receiver.recv_timeout(DEADLINE).unwrap();
        let (serving, committers) = (Some(serving), Mutex::new(Some(committers)));
        Self {
            address,
            failures,
            directory,
            postgres,
            stopper,
            serving,
            committers,
            ingest,
            feed,
            feeding: Some(feeding),
        }
    }

    pub fn database(&self) -> PathBuf {
        self.directory.path().join("rockets.db")
    }

    /// The `--database` argument for another process. A database in memory has none.
    pub fn database_argument(&self) -> String {
        match &self.postgres {
            Some(postgres) => postgres.url.clone(),
            None => self.database().to_str().unwrap().to_owned(),
        }
    }

    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    pub fn metrics(&self) -> String {
        String::from_utf8(self.client().get("/metrics").body).unwrap()
    }

    /// The rocket without `lastReceived`.
    pub fn rocket(&self, channel: &str, view: &str) -> Value {
        rocket(&mut self.client(), channel, view)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(self.stopper.stop());
        self.ingest.stop();
        self.feed.stop();
        let _ = self.feeding.take().map(std::thread::JoinHandle::join);
        // A panic there has failed the test already.
        let _ = self.serving.take().map(std::thread::JoinHandle::join);
        let _ =
            self.committers.get_mut().unwrap().take().map(|committers| committers.wait(DEADLINE));
    }
}

/// A database of a cluster, over which its tables are distributed.
pub fn distributed() -> TestDatabase {
    let database = TestDatabase::create_on_cluster();
    let migrated = run(&["migrate", "--distribute", "--database", &database.url]);
    assert!(migrated.status.success(), "{migrated:?}");
    database
}

/// A database whose rockets are divided as in a cluster, but on one server.
pub fn divided() -> TestDatabase {
    let database = TestDatabase::create();
    assert!(run(&["migrate", "--database", &database.url]).status.success());
    execute(&database.url, "INSERT INTO rocket_buckets SELECT generate_series(3, 45, 3)");
    database
}

/// The rocket without `lastReceived`.
pub fn rocket(client: &mut Client, channel: &str, view: &str) -> Value {
    let answer = client.get(&format!("/rockets/{}?view={view}", encode(channel)));
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut json = answer.json();
    assert!(json.as_object_mut().unwrap().remove("lastReceived").unwrap().is_string());
    json
}

pub fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// The example of the README, as JSON that tests can change.
pub fn launched(channel: &str, number: u32) -> Value {
    json!({
        "metadata": {
            "channel": channel, "messageNumber": number, "messageTime": "2022-02-02T19:39:05.86337+01:00",
            "messageType": "RocketLaunched",
        },
        "message": { "type": "Falcon-9", "launchSpeed": 500, "mission": "ARTEMIS" },
    })
}

pub fn faster(channel: &str, number: u32, by: i32) -> Value {
    json!({
        "metadata": {
            "channel": channel, "messageNumber": number, "messageTime": "2022-02-02T19:39:06Z",
            "messageType": "RocketSpeedIncreased",
        },
        "message": { "by": by },
    })
}

/// Polls until the condition holds.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::yield_now();
    }
}

/// A client that keeps its connection, and shows the bytes on it.
pub struct Client {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts that it is a problem (RFC 9457) with this status. Returns its members.
    pub fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert!(self.header("x-request-id").is_some());
        let json = self.json();
        assert_eq!(json["status"], status);
        for member in ["type", "title", "detail"] {
            assert!(json[member].is_string(), "{json}");
        }
        json
    }
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.request("GET", path, &[], b"").unwrap()
    }

    pub fn post(&mut self, message: &Value) -> Answer {
        self.post_bytes(message.to_string().as_bytes())
    }

    pub fn post_bytes(&mut self, body: &[u8]) -> Answer {
        self.request("POST", "/messages", &[], body).unwrap()
    }

    pub fn post_lines(&mut self, body: &[u8]) -> Answer {
        self.request("POST", "/messages", &[("Content-Type", "application/x-ndjson")], body)
            .unwrap()
    }

    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Answer> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
        if !body.is_empty() || method == "POST" {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        self.send(&[(head + "\r\n").as_bytes(), body].concat())?;
        self.answer(method == "HEAD")
    }

    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(DEADLINE))?;
            self.stream = Some(BufReader::new(stream));
        }
        self.stream.as_mut().unwrap().get_mut().write_all(bytes)
    }

    /// Whether something can be read, or the connection has ended.
    pub fn has_answer(&self) -> bool {
        let stream = self.stream.as_ref().unwrap().get_ref();
        stream.set_nonblocking(true).unwrap();
        let there = !matches!(stream.peek(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
        stream.set_nonblocking(false).unwrap();
        there
    }

    /// Like `has_answer`, but waits for up to `patience`.
    pub fn has_answer_within(&self, patience: Duration) -> bool {
        let stream = self.stream.as_ref().unwrap().get_ref();
        stream.set_read_timeout(Some(patience)).unwrap();
        let there = !matches!(stream.peek(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        there
    }

    /// Tells the service that nothing more will come.
    pub fn send_no_more(&mut self) {
        // The service may have closed the connection already.
        let _ = self.stream.as_mut().unwrap().get_mut().shutdown(std::net::Shutdown::Write);
    }

    pub fn answer(&mut self, head_only: bool) -> std::io::Result<Answer> {
        let stream = self.stream.as_mut().unwrap();
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::other(format!("no status: {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => {
                    headers.push((name.to_ascii_lowercase(), value.trim().to_owned()))
                }
                None => break,
            }
        }
        let mut answer = Answer { status, headers, body: Vec::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        if !head_only {
            answer.body.resize(length, 0);
            stream.read_exact(&mut answer.body)?;
        }
        if answer.header("connection") == Some("close") {
            self.stream = None;
        }
        Ok(answer)
    }
}

/// The program, to be run with arguments and without the caller's settings.
pub fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rocket-monitor"));
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

/// Runs SQL on a file, as another program would.
pub fn sql(database: &Path, statements: &str) {
    rusqlite::Connection::open(database).unwrap().execute_batch(statements).unwrap();
}

/// All rows of a query, each value as JSON.
pub fn query(database: &Path, query: &str) -> Vec<Vec<Value>> {
    let connection = rusqlite::Connection::open(database).unwrap();
    let mut statement = connection.prepare(query).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        (0..columns)
            .map(|column| {
                Ok(match row.get_ref(column)? {
                    rusqlite::types::ValueRef::Null => Value::Null,
                    rusqlite::types::ValueRef::Integer(integer) => json!(integer),
                    rusqlite::types::ValueRef::Real(real) => json!(real),
                    rusqlite::types::ValueRef::Text(text) => {
                        json!(std::str::from_utf8(text).unwrap())
                    }
                    rusqlite::types::ValueRef::Blob(_) => panic!("a blob"),
                })
            })
            .collect()
    });
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}
