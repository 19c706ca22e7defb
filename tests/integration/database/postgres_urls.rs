//! Postgres URLs: passwords are never shown, whatever is wrong; the URL takes precedence; and its
//! encryption settings are honoured.

use std::ffi::OsStr;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use testkit::client::Client;
use testkit::message::faster;
use testkit::postgres::{Cluster, TestDatabase, execute, query};
use testkit::process::{logged, logged_as, program, run, stderr, stdout};
use testkit::wait::eventually;

/// The password of these tests.
const SECRET: &str = "hush4711";

/// Common mistakes, and unreachable servers.
const SPELLINGS: [&str; 32] = [
    "postgres://u:hush4711@127.0.0.1:1/d",
    "Postgres://u:hush4711@127.0.0.1:1/d",
    "postgres://u@127.0.0.1:1/d?password=hush4711",
    "postgres://u@127.0.0.1:1/d?sslpassword=hush4711",
    "postgres://u@127.0.0.1:1/d?sslPassword=hush4711",
    "postgres://u@127.0.0.1:1/d?Password=hush4711",
    "postgres://u:hush4711/@127.0.0.1:1/d",
    "postgres://u:a/hush4711@127.0.0.1:1/d",
    "postgres://u:1/hush4711@127.0.0.1:1/d",
    "postgres://u:a?hush4711@127.0.0.1:1/d",
    "postgres://u:1?hush4711=@127.0.0.1:1/d",
    "postgres://u:a#hush4711@127.0.0.1:1/d",
    "postgres://u:a@hush4711@127.0.0.1:1/d",
    "postgres://u:a@1/hush4711@127.0.0.1:1/d",
    "postgres://u:a:hush4711@127.0.0.1:1/d",
    "postgres://u:100%hush4711@127.0.0.1:1/d",
    "postgres://u:[hush4711@127.0.0.1:1/d",
    "postgres://u:hush4711@127.0.0.1:port/d",
    "postgres://u:hush4711",
    "postgres:u:hush4711@127.0.0.1/d",
    "postgres:/u:hush4711@127.0.0.1/d",
    " postgres://u:hush4711@127.0.0.1:1/d",
    "postgres://u:hush4711@127.0.0.1:1/d ",
    "\"postgres://u:hush4711@127.0.0.1:1/d\"",
    "'postgres://u:hush4711@127.0.0.1:1/d'",
    "postgresql+psycopg://u:hush4711@127.0.0.1/d",
    "jdbc:postgresql://127.0.0.1/d?user=u&password=hush4711",
    "mysql://u:hush4711@127.0.0.1/d",
    "sqlite:///x.db?password=hush4711",
    "host=127.0.0.1 port=1 user=u password=hush4711",
    "Host=127.0.0.1;Username=u;Password=hush4711",
    "u:hush4711@127.0.0.1/d",
];

/// Every command that takes `--database`, with its other arguments.
const COMMANDS: [&[&str]; 7] = [
    // It would serve on a new file of that name.
    &["serve", "--no-migrate", "--listen", "127.0.0.1:0"],
    &["ingest", "/dev/null"],
    &["check"],
    &["report", "fleet"],
    &["backup", "copy.db"],
    &["forget", "r"],
    &["migrate"],
];

/// Asserts that a command failed, created nothing, and printed an error without the password.
fn nothing_is_shown(directory: &Path, what: &str, output: &Output) {
    let said = stdout(output) + &stderr(output);
    assert!(!said.contains(SECRET), "{what}: {said}");
    assert!(!output.status.success() && !stderr(output).is_empty(), "{what}: {said}");
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 0, "{what} made a file");
}

#[test]
fn no_spelling_of_a_database_shows_its_password() {
    let directory = tempfile::tempdir().unwrap();
    let in_directory = |args: &[&str]| {
        let mut command = program(args);
        command.current_dir(directory.path());
        command
    };
    for (index, spelling) in SPELLINGS.into_iter().enumerate() {
        // All spellings and all commands, but not every combination.
        let command = COMMANDS[index % COMMANDS.len()];
        let given = in_directory(&[command, &["--database", spelling]].concat()).output().unwrap();
        nothing_is_shown(directory.path(), &format!("{command:?} {spelling}"), &given);
        let joined = in_directory(&["check", &format!("--database={spelling}")]).output().unwrap();
        nothing_is_shown(directory.path(), &format!("check --database={spelling}"), &joined);
        let set = in_directory(command).env("ROCKET_MONITOR_DATABASE", spelling).output().unwrap();
        nothing_is_shown(
            directory.path(),
            &format!("{command:?} with the variable {spelling}"),
            &set,
        );
    }
    for command in COMMANDS {
        for spelling in [SPELLINGS[0], SPELLINGS[7], SPELLINGS[29]] {
            let given =
                in_directory(&[command, &["--database", spelling]].concat()).output().unwrap();
            nothing_is_shown(directory.path(), &format!("{command:?} {spelling}"), &given);
        }
    }
}

#[test]
fn nor_does_it_in_the_wrong_place() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let source = elsewhere.path().join("rockets.db");
    let source = source.to_str().unwrap();
    assert!(run(&["migrate", "--database", source]).status.success());
    for spelling in [SPELLINGS[0], SPELLINGS[2], SPELLINGS[29], SPELLINGS[31]] {
        let no_migrate = format!("--no-migrate={spelling}");
        let rockets = format!("--rockets={spelling}");
        for args in [
            &[spelling][..],
            &["check", spelling],
            &["migrate", "--distribute", spelling],
            &["serve", &no_migrate],
            &["check", "--databse", spelling],
            &["launch", "http://127.0.0.1:1", &rockets],
            &["launch", spelling],
            &["ingest", spelling, "--database", "memory"],
            &["serve", "--database", "memory", "--listen", spelling],
            &["backup", spelling, "--database", source],
        ] {
            let output = program(args).current_dir(directory.path()).output().unwrap();
            nothing_is_shown(directory.path(), &format!("{args:?}"), &output);
        }
        // The service has no passwords, but people try.
        for url in [
            "http://u:hush4711@127.0.0.1:1/",
            "HTTP://u:hush4711@127.0.0.1:1/messages",
            "https://u:hush4711@127.0.0.1:1",
            "http://127.0.0.1:1/?password=hush4711",
        ] {
            let launch = program(&["launch", url]).output().unwrap();
            nothing_is_shown(directory.path(), &format!("launch {url}"), &launch);
        }
        for help in [&["help", "serve"][..], &["--help"], &["serve", "-h"]] {
            let help = program(help).env("ROCKET_MONITOR_LISTEN", spelling).output().unwrap();
            assert!(help.status.success() && !stdout(&help).contains(SECRET), "{}", stdout(&help));
        }
        let mut launch = program(&["launch", "http://127.0.0.1:1"]);
        let output = launch
            .env("ROCKET_MONITOR_ROCKETS", spelling)
            .current_dir(directory.path())
            .output()
            .unwrap();
        nothing_is_shown(directory.path(), &format!("ROCKET_MONITOR_ROCKETS={spelling}"), &output);
    }
}

#[test]
fn a_path_is_shown_though_it_reads_like_a_password() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(path("pwd")).unwrap();
    let (notes, database) = (path("password-notes.ndjson"), path("pwd/rockets.db"));
    let unreadable = run(&["ingest", &notes, "--database", &database]);
    assert!(stderr(&unreadable).contains(&notes), "{}", stderr(&unreadable));
    let missing = run(&["check", "--database", &database]);
    assert!(stderr(&missing).contains(&database), "{}", stderr(&missing));
    // Colons and at signs are allowed where it is plain that this is a path.
    for name in ["x:y@z.db", "2026-11-26T10:00:00-me@host.db"] {
        for database in [path(name), format!("./{name}"), format!("../{name}")] {
            let mut command = program(&["migrate", "--database", &database]);
            let migrated = command.current_dir(path("pwd")).output().unwrap();
            assert!(migrated.status.success(), "{database}: {}", stderr(&migrated));
        }
        assert!(Path::new(&path(name)).exists(), "{name}");
        assert!(Path::new(&path("pwd")).join(name).exists(), "{name}");
    }
    // What can't be decoded is hidden as well.
    let not_text = OsStr::from_bytes(b"u:hush4711\xff@h");
    let mut ingest = program(&["ingest", "--database", &database]);
    let ingest = ingest.arg(not_text).output().unwrap();
    assert!(!ingest.status.success() && !stderr(&ingest).contains(SECRET), "{}", stderr(&ingest));
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    for (spelling, hint) in [
        ("postgres://u:a/hush4711@h/d", "percent-encode"),
        ("postgres://u@h/d?sslMode=verify-full", "sslMode, which must be written sslmode"),
        ("postgres://u@h/d?service=s", "service, which is not supported"),
        ("mysql://h/d", "the path of an SQLite file"),
        (":memory:", "write memory"),
        ("file:y.db", "give only the path"),
    ] {
        let output = run(&["check", "--database", spelling]);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(hint), "{spelling}: {}", stderr(&output));
        assert!(stderr(&output).contains("--database"), "{}", stderr(&output));
    }
}

#[test]
fn the_log_shows_no_password_and_a_warning_where_others_can_see_it() {
    let database = TestDatabase::create();
    let url = database.url.replacen("@", &format!(":{SECRET}@"), 1);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let service = logged(&url, "trace", &path);
    let log = || std::fs::read_to_string(&path).unwrap();
    let mut client = Client::new(service.address);
    assert_eq!(client.post(&faster("r", 1, 1)).status, 204);
    assert_eq!(client.get("/rockets/r").status, 200);
    drop(service);
    assert!(!log().contains(SECRET), "{}", log());
    assert!(log().contains("the --database argument holds a password"), "{}", log());
    let by_variable = program(&["check"]).env("ROCKET_MONITOR_DATABASE", &url).output().unwrap();
    assert!(by_variable.status.success());
    assert!(!stderr(&by_variable).contains("holds a password"), "{}", stderr(&by_variable));
    assert!(!(stdout(&by_variable) + &stderr(&by_variable)).contains(SECRET));
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server that is reached over TCP, with TLS and passwords.
struct Networked {
    cluster: Cluster,
    port: u16,
    /// With the certificates: `server.crt` is for `localhost` and signed by `root.crt`; `other.crt`
    /// is unrelated. `old.crt` has version 1 of X.509, which rustls doesn't read, and Citus's own
    /// have it too.
    directory: tempfile::TempDir,
}

impl Networked {
    fn start() -> Self {
        Self::start_with("server.crt")
    }

    fn start_with(certificate: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let script = r#"
            cd "$1"
            for name in root other; do
                openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$name" \
                    -keyout $name.key -out $name.crt
            done
            openssl req -newkey rsa:2048 -nodes -subj /CN=localhost \
                -keyout server.key -out server.csr
            echo subjectAltName=DNS:localhost >names
            openssl x509 -req -in server.csr -CA root.crt -CAkey root.key -CAcreateserial -days 2 \
                -extfile names -out server.crt
            openssl x509 -req -in server.csr -signkey server.key -days 2 -out old.crt
            printf 'local all all trust\nhost all all all scram-sha-256\n' >hba
            chmod 600 server.key; chmod 755 .
            [ "$(id -u)" != 0 ] || chown postgres server.key"#;
        let made = Command::new("bash")
            .args(["-ec", script, "make"])
            .arg(directory.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", stderr(&made));
        let port = free_port();
        let file = |name: &str| directory.path().join(name).display().to_string();
        let settings = format!(
            "-c fsync=off -c port={port} -c listen_addresses=localhost,127.0.0.1,::1 -c ssl=on \
             -c hba_file={} -c ssl_cert_file={} -c ssl_key_file={}",
            file("hba"),
            file(certificate),
            file("server.key")
        );
        let cluster = Cluster::start_with(&settings);
        let networked = Self { cluster, port, directory };
        execute(
            &networked.by_socket(),
            &format!("CREATE ROLE u SUPERUSER LOGIN PASSWORD '{SECRET}'"),
        );
        networked
    }

    fn by_socket(&self) -> String {
        format!("{}&port={}", self.cluster.url("postgres"), self.port)
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Whether `migrate` gets through, in a directory without password files and with these
    /// variables.
    fn migrate(&self, database: &str, variables: &[(&str, &str)]) -> Output {
        let mut command = program(&["migrate"]);
        command.env("HOME", self.directory.path()).env("ROCKET_MONITOR_DATABASE", database);
        command.envs(variables.iter().copied()).output().unwrap()
    }

    fn is_reached(&self, database: &str, variables: &[(&str, &str)]) {
        let output = self.migrate(database, variables);
        assert!(output.status.success(), "{database} {variables:?}: {}", stderr(&output));
    }

    fn is_refused(&self, database: &str, variables: &[(&str, &str)], why: &str) {
        let output = self.migrate(database, variables);
        assert!(!output.status.success(), "{database} {variables:?}: {}", stdout(&output));
        let said = stderr(&output);
        assert!(said.contains(why) && !said.contains(SECRET), "{database} {variables:?}: {said}");
    }
}

/// Whether this machine has ::1. Many containers don't, and the tests should run there, but nobody
/// should think that IPv6 was tried.
fn has_ipv6() -> bool {
    let has_it = TcpListener::bind("[::1]:0").is_ok();
    if !has_it {
        // Not by a macro: what these print is only shown if the test fails.
        let warning = "IPv6 IS NOT TESTED: this machine has no ::1.\n";
        std::io::stderr().write_all(warning.as_bytes()).unwrap();
    }
    has_it
}

#[test]
fn what_a_url_says_counts() {
    let server = Networked::start();
    let port = server.port;
    let with_password = [("PGPASSWORD", SECRET)];
    // Addresses in every form.
    let mut hosts = vec!["localhost", "127.0.0.1"];
    if has_ipv6() {
        hosts.extend(["[::1]", "%3A%3A1"]);
        server.is_reached(&format!("postgres://u@/postgres?host=::1&port={port}"), &with_password);
        server.is_reached(
            "postgres://u@/postgres",
            &[("PGHOST", "::1"), ("PGPORT", &port.to_string()), with_password[0]],
        );
    }
    for host in hosts {
        server.is_reached(&format!("postgres://u@{host}:{port}/postgres"), &with_password);
    }
    server.is_reached(
        &format!("postgres://u@/postgres?hostaddr=127.0.0.1&port={port}"),
        &with_password,
    );

    // Passwords, from any source.
    let without = format!("postgres://u@localhost:{port}/postgres");
    server.is_refused(&without, &[], "password");
    server.is_refused(&without, &[("PGPASSWORD", "wrong")], "password authentication failed");
    server.is_reached(&format!("postgres://u:{SECRET}@localhost:{port}/postgres"), &[]);
    server.is_reached(&format!("postgres://u:%68ush4711@localhost:{port}/postgres"), &[]);
    server.is_reached(&format!("{without}?password={SECRET}"), &[]);
    let (passfile, home) = (server.file("passfile"), server.file(".pgpass"));
    std::fs::write(&passfile, format!("localhost:{port}:postgres:u:{SECRET}\n")).unwrap();
    std::fs::set_permissions(&passfile, PermissionsExt::from_mode(0o600)).unwrap();
    server.is_reached(&format!("{without}?passfile={passfile}"), &[]);
    server.is_reached(&without, &[("PGPASSFILE", &passfile)]);
    std::fs::rename(&passfile, &home).unwrap();
    server.is_reached(&without, &[]);
    std::fs::set_permissions(&home, PermissionsExt::from_mode(0o644)).unwrap();
    server.is_refused(&without, &[], "chmod 600");
    std::fs::remove_file(&home).unwrap();

    // The default user is the one who runs this.
    let me = Command::new("id").arg("-un").output().unwrap();
    let me = stdout(&me).trim().to_owned();
    let socket = server.by_socket().replacen("postgres@localhost", "", 1);
    if me != "postgres" {
        server.is_refused(&socket, &[], &format!("role \"{me}\" does not exist"));
    }
    server.is_reached(&socket, &[("PGUSER", "u")]);

    // The name that the server sees, its settings, and which servers are acceptable.
    let as_user = server.by_socket();
    execute(&as_user, "CREATE SCHEMA s; ALTER ROLE u SET default_transaction_read_only = on");
    let u = as_user.replacen("postgres@", "u@", 1);
    server.is_reached(&format!("{u}&target_session_attrs=primary&options=-csearch_path%3Ds"), &[]);
    server.is_refused(&format!("{u}&target_session_attrs=read-write"), &[], "asks for read-write");
    server.is_refused(&u, &[("PGTARGETSESSIONATTRS", "read-write")], "asks for read-write");
    server.is_reached(
        &u,
        &[
            ("PGOPTIONS", "-cdefault_transaction_read_only=off"),
            ("PGTARGETSESSIONATTRS", "read-write"),
        ],
    );
    execute(&as_user, "CREATE TABLE named AS SELECT ''::text AS name");
    execute(
        &as_user,
        "CREATE FUNCTION s.note() RETURNS event_trigger LANGUAGE plpgsql AS
             $$ BEGIN UPDATE public.named SET name = current_setting('application_name'); END $$;
         CREATE EVENT TRIGGER note ON ddl_command_end WHEN TAG IN ('CREATE TABLE')
             EXECUTE FUNCTION s.note();
         CREATE SCHEMA t; CREATE SCHEMA w",
    );
    for (parameters, variables, name) in [
        ("&options=-csearch_path%3Dt", &[][..], "rocket-monitor"),
        ("&options=-csearch_path%3Dw&application_name=mine", &[("PGAPPNAME", "not mine")], "mine"),
    ] {
        server.is_reached(&format!("{as_user}{parameters}"), variables);
        assert_eq!(query(&as_user, "SELECT name FROM named")[0]["name"], name);
    }
}

#[test]
fn who_asks_for_encryption_gets_it() {
    let server = Networked::start();
    let port = server.port;
    let [root, other] = ["root.crt", "other.crt"].map(|name| server.file(name));
    let variables = [("PGPASSWORD", SECRET)];
    let url =
        |host: &str, parameters: &str| format!("postgres://u@{host}:{port}/postgres?{parameters}");
    for parameters in ["sslmode=disable", "sslmode=require", "ssl=true"] {
        server.is_reached(&url("127.0.0.1", parameters), &variables);
    }
    let rooted = |mode: &str, root: &str| format!("sslmode={mode}&sslrootcert={root}");
    for (host, parameters) in [
        ("127.0.0.1", rooted("require", &root)),
        ("127.0.0.1", rooted("verify-ca", &root)),
        ("localhost", rooted("verify-full", &root)),
    ] {
        server.is_reached(&url(host, &parameters), &variables);
    }
    let tls = "invalid peer certificate";
    for (host, parameters) in [
        ("localhost", rooted("require", &other)),
        ("localhost", rooted("verify-ca", &other)),
        ("localhost", rooted("verify-full", &other)),
        ("127.0.0.1", rooted("verify-full", &root)),
        ("localhost", "sslmode=verify-full".to_owned()),
        ("localhost", "sslrootcert=system".to_owned()),
    ] {
        server.is_refused(&url(host, &parameters), &variables, tls);
    }
    server.is_refused(&url("localhost", ""), &[variables[0], ("PGSSLMODE", "verify-full")], tls);
    server.is_refused(
        &url("localhost", ""),
        &[variables[0], ("PGSSLMODE", "verify_full")],
        "PGSSLMODE",
    );
    server.is_refused(
        &url("localhost", "sslMode=verify-full"),
        &variables,
        "which must be written sslmode",
    );
    // A preference is dropped if the server has no certificate.
    let port = free_port();
    let _plain =
        Cluster::start_with(&format!("-c fsync=off -c port={port} -c listen_addresses=127.0.0.1"));
    let tcp = format!("postgres://postgres@127.0.0.1:{port}/postgres");
    server.is_reached(&format!("{tcp}?sslmode=prefer"), &[]);
    server.is_refused(&format!("{tcp}?sslmode=require"), &[], "does not support TLS");
}

#[test]
fn who_only_prefers_encryption_gets_through_without_it() {
    let server = Networked::start_with("old.crt");
    let variables = [("PGPASSWORD", SECRET)];
    let url = |mode: &str| format!("postgres://u@localhost:{}/postgres{mode}", server.port);
    for mode in ["", "?sslmode=prefer"] {
        let log = server.directory.path().join("log");
        let mut serve = program(&["serve", "--listen", "127.0.0.1:0"]);
        serve.envs(variables).env("ROCKET_MONITOR_DATABASE", url(mode));
        let service = logged_as(serve, &log);
        let mut client = Client::new(service.address);
        // Over connections for reading and for writing.
        assert_eq!(client.post(&faster("r", 1, 1)).status, 204);
        assert_eq!(client.get("/rockets/r").status, 200);
        let said = std::fs::read_to_string(&log).unwrap();
        assert_eq!(said.matches("are not encrypted").count(), 1, "{said}");
    }
    server.is_refused(&url("?sslmode=require"), &variables, "UnsupportedCertVersion");
    // Where the server refuses plain connections, the reason is what fails the encrypted ones.
    std::fs::write(server.file("hba"), "local all all trust\nhostssl all all all scram-sha-256\n")
        .unwrap();
    execute(&server.by_socket(), "SELECT pg_reload_conf()");
    eventually("the server has read its rules", || {
        !server.migrate(&url(""), &variables).status.success()
    });
    server.is_refused(&url(""), &variables, "UnsupportedCertVersion");
}
