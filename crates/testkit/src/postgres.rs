//! A Postgres server for the tests: that of `ROCKET_MONITOR_TEST_POSTGRES` (the URL of a database
//! on a server on which databases may be created), or a private one, started from the installed
//! programs, and stopped and removed when the tests end. The benchmarks use it, too.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use crate::process::run;

/// A server's location.
#[derive(Clone)]
pub struct Server {
    /// The parts of a database's URL before and after its name.
    before: String,
    after: String,
    /// The database name in the given URL.
    maintenance: String,
}

/// The database of one test, removed at its end.
pub struct TestDatabase {
    pub name: String,
    pub url: String,
    /// The servers that have it, each with a database from which it can be created and dropped. Of
    /// a cluster, the first one is the coordinator.
    pub servers: Vec<Server>,
}

impl TestDatabase {
    pub fn create() -> Self {
        Self::create_with("")
    }

    /// With further options of CREATE DATABASE.
    pub fn create_with(options: &str) -> Self {
        Self::create_on(vec![server().clone()], options)
    }

    /// A database of the cluster that `ROCKET_MONITOR_TEST_CITUS` names, on all nodes.
    pub fn create_on_cluster() -> Self {
        let database = Self::create_on(nodes(), "");
        for url in database.urls() {
            execute(&url, "CREATE EXTENSION citus");
        }
        for (place, server) in database.servers.iter().enumerate() {
            let add = if place == 0 { "citus_set_coordinator_host" } else { "citus_add_node" };
            let (host, port) = server.host_and_port();
            execute(&database.url, &format!("SELECT {add}('{host}', {port})"));
        }
        database
    }

    /// A database on these servers.
    pub fn create_on(servers: Vec<Server>, options: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("rm_test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        for server in &servers {
            execute(
                &server.url(&server.maintenance),
                &format!("CREATE DATABASE {name} TEMPLATE template0 {options}"),
            );
        }
        Self { url: servers[0].url(&name), name, servers }
    }

    /// Its URL on each server.
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(|server| server.url(&self.name)).collect()
    }
}

impl TestDatabase {
    /// Whether anyone else is connected, even if only because the server has not noticed yet that a
    /// client was killed.
    pub fn is_used(&self) -> bool {
        let others = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() \
                      AND pid <> pg_backend_pid()";
        !query(&self.url, others).is_empty()
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // Workers first: the coordinator connects to them.
        for server in self.servers.iter().rev() {
            execute(
                &server.url(&server.maintenance),
                &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name),
            );
        }
    }
}

impl Server {
    /// The server, and the database that a URL names.
    fn named_by(url: &str, variable: &str) -> Self {
        let (place, after) = url.split_at(url.find('?').unwrap_or(url.len()));
        let (before, name) =
            place.rsplit_once('/').unwrap_or_else(|| panic!("{variable} names no database"));
        Self { before: format!("{before}/"), after: after.to_owned(), maintenance: name.to_owned() }
    }

    fn url(&self, database: &str) -> String {
        format!("{}{database}{}", self.before, self.after)
    }

    /// A database on it that is not of a test.
    pub fn maintenance_url(&self) -> String {
        self.url(&self.maintenance)
    }

    /// For servers that are reached over TCP.
    pub fn host_and_port(&self) -> (String, String) {
        let place = self.before.trim_end_matches('/').rsplit(['@', '/']).next().unwrap();
        let (host, port) = place.rsplit_once(':').unwrap_or((place, "5432"));
        (host.to_owned(), port.to_owned())
    }

    /// Another server, with the same user and options.
    fn at(&self, host: &str, port: i64) -> Self {
        let (mine, mine_port) = self.host_and_port();
        let before =
            self.before.replace(&format!("{mine}:{mine_port}/"), &format!("{host}:{port}/"));
        Self { before, ..self.clone() }
    }
}

/// The nodes of the cluster that `ROCKET_MONITOR_TEST_CITUS` names: the URL of a database on the
/// coordinator, with its port, in which the workers have been added.
pub fn nodes() -> Vec<Server> {
    const VARIABLE: &str = "ROCKET_MONITOR_TEST_CITUS";
    let url = std::env::var(VARIABLE).unwrap_or_else(|_| panic!("{VARIABLE} names no cluster"));
    let coordinator = Server::named_by(&url, VARIABLE);
    let workers =
        "SELECT nodename, nodeport FROM pg_dist_node WHERE groupid <> 0 ORDER BY nodeport";
    let workers = query(&url, workers).into_iter().map(|node| {
        coordinator.at(node["nodename"].as_str().unwrap(), node["nodeport"].as_i64().unwrap())
    });
    let workers: Vec<Server> = workers.collect();
    [vec![coordinator], workers].concat()
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| match std::env::var("ROCKET_MONITOR_TEST_POSTGRES") {
        Ok(url) => Server::named_by(&url, "ROCKET_MONITOR_TEST_POSTGRES"),
        Err(_) => {
            static PRIVATE: OnceLock<Mutex<Cluster>> = OnceLock::new();
            let cluster = PRIVATE.get_or_init(|| Mutex::new(Cluster::start())).lock().unwrap();
            let url = cluster.url("");
            let (before, after) = url.split_at(url.find('?').unwrap());
            Server {
                before: before.to_owned(),
                after: after.to_owned(),
                maintenance: "postgres".to_owned(),
            }
        }
    })
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

/// A private server that listens on a socket in its own directory.
pub struct Cluster {
    directory: PathBuf,
    /// A shell that stops the server and removes the directory when its standard input is closed,
    /// that is, whenever the tests end.
    guard: Child,
    answers: BufReader<ChildStdout>,
}

/// Its arguments are the directory, the directory of the programs, and what runs a command as the
/// server's user. It starts and kills the server as told on standard input, and reports when that
/// is done.
const GUARD: &str = r#"
# An interrupt reaches the whole process group of the tests, but the server must still be stopped.
trap '' INT TERM HUP
directory=$1; programs=$2; shift 2
options="-c listen_addresses= -c unix_socket_directories=$directory"
options="$options -c max_connections=300 $SETTINGS"
as_server() {
    "$@" </dev/null >>"$directory/log" 2>&1 && return
    cat "$directory/log" >&2; echo failed; exit 1
}
start() { as_server "$@" "$programs/pg_ctl" -D "$directory/data" -w -o "$options" start; }
runs() { "$@" "$programs/pg_ctl" -D "$directory/data" status </dev/null >/dev/null 2>&1; }
start_again() { runs "$@" || start "$@"; }
stop() { as_server "$@" "$programs/pg_ctl" -D "$directory/data" -m immediate stop; }
as_server "$@" "$programs/initdb" -D "$directory/data" -U postgres -A trust -E UTF8 --locale=C \
    --no-sync
start "$@"; echo ready
while read -r command; do "$command" "$@"; echo ready; done
"$@" "$programs/pg_ctl" -D "$directory/data" -m immediate stop </dev/null >/dev/null 2>&1
rm -rf "$directory"
"#;

impl Cluster {
    /// A server for tests, which never survive a crash of the machine: it syncs nothing.
    pub fn start() -> Self {
        Self::start_with("-c fsync=off")
    }

    /// With settings, in the form of the server's command line.
    pub fn start_with(settings: &str) -> Self {
        Self::start_in(&std::env::temp_dir(), settings)
    }

    /// On a given disk.
    pub fn start_in(disk: &Path, settings: &str) -> Self {
        let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
        let directory = tempfile::Builder::new().prefix("rm-pg-").tempdir_in(disk).unwrap().keep();
        let mut guard = Command::new("bash");
        guard
            .env("SETTINGS", settings)
            .args(["-c", GUARD, "guard"])
            .arg(&directory)
            .arg(programs());
        if root {
            // The server refuses to run as root.
            let owned = Command::new("chown").arg("postgres").arg(&directory).status().unwrap();
            assert!(owned.success(), "there is a user postgres, for Debian's package makes it");
            guard.args(["runuser", "-u", "postgres", "--"]);
        } else {
            guard.arg("env");
        }
        let mut guard = guard.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = BufReader::new(guard.stdout.take().unwrap());
        let mut cluster = Self { directory, guard, answers };
        cluster.is_ready();
        cluster
    }

    /// The directory of its socket.
    pub fn socket(&self) -> &Path {
        &self.directory
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@localhost/{database}?host={}", self.directory.display())
    }

    /// Stops the server as a crash would.
    pub fn kill(&mut self) {
        self.command("stop\n");
    }

    pub fn restart(&mut self) {
        self.command("start\n");
    }

    /// Restarts it if it has stopped by itself.
    pub fn start_again(&mut self) {
        self.command("start_again\n");
    }

    fn command(&mut self, command: &str) {
        self.guard.stdin.as_mut().unwrap().write_all(command.as_bytes()).unwrap();
        self.is_ready();
    }

    fn is_ready(&mut self) {
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer, "ready\n", "the server failed; what it said is above");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // It may have ended by itself.
        let _ = self.guard.wait();
    }
}

/// The directory of the server's programs, which Debian keeps out of the PATH.
pub fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut debian: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    debian.retain(|folder| folder.join("initdb").exists());
    debian.sort();
    let elsewhere = || {
        let output = Command::new("pg_config").arg("--bindir").output().ok()?;
        let folder = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
        Path::new(&folder).join("initdb").exists().then_some(folder)
    };
    debian.pop().or_else(elsewhere).expect(
        "there is no Postgres server to start: install it (on Debian: apt-get install postgresql), \
         or name one by ROCKET_MONITOR_TEST_POSTGRES=postgres://…",
    )
}

/// Runs SQL as another program would.
pub fn execute(url: &str, statements: &str) {
    with_connection(url, async |connection| {
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(connection).await.map(|_| ())
    });
}

/// A lasting connection, for what takes several steps.
pub struct Session {
    runtime: tokio::runtime::Runtime,
    connection: PgConnection,
}

impl Session {
    pub fn open(url: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connection = runtime.block_on(PgConnection::connect(url)).unwrap();
        Self { runtime, connection }
    }

    pub fn execute(&mut self, statements: &str) {
        let sql = AssertSqlSafe(statements.to_owned());
        self.runtime.block_on(sqlx::raw_sql(sql).execute(&mut self.connection)).unwrap();
    }

    /// The result of a query that counts.
    pub fn count(&mut self, query: &str) -> usize {
        let query = sqlx::query(AssertSqlSafe(query.to_owned()));
        let row = self.runtime.block_on(query.fetch_one(&mut self.connection)).unwrap();
        row.get::<i64, _>(0) as usize
    }
}

/// All rows of a query, each as a JSON object.
pub fn query(url: &str, query: &str) -> Vec<Value> {
    let sql = format!("SELECT to_jsonb(answer)::text FROM ({query}) AS answer");
    with_connection(url, async |connection| {
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(connection).await?;
        Ok(rows.iter().map(|row| serde_json::from_str(row.get(0)).unwrap()).collect())
    })
}

fn with_connection<T>(
    url: &str,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let worked = runtime.block_on(async {
        let mut connection = PgConnection::connect(url).await?;
        let worked = work(&mut connection).await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(worked)
    });
    worked.unwrap_or_else(|error| panic!("{error}"))
}
