//! The location of a Postgres database and how to connect to it, as given by `--database
//! postgres://…`.
//!
//! URLs are read as in libpq, whose grammar differs from that of web URLs: there may be a user
//! without a host, `#` has no meaning, and `+` is not a space. libpq's environment variables supply
//! what a URL omits. Anything unknown is refused, because it could be what keeps the connection
//! safe.
//!
//! Errors repeat nothing of the URL but the names of parameters, because any part of it may be a
//! password.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::Ipv6Addr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::password_file::{self, Account};

const POOL_SIZE: u32 = 8;
/// The default time to wait for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// The default time that a batch or a read may take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_PORT: u16 = 5_432;
/// The directories of servers' sockets on this machine.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// The parameters of URLs, each with the environment variable that supplies it if the URL doesn't.
const PARAMETERS: [(&str, Option<&str>); 19] = [
    ("host", Some("PGHOST")),
    ("hostaddr", Some("PGHOSTADDR")),
    ("port", Some("PGPORT")),
    ("dbname", Some("PGDATABASE")),
    ("user", Some("PGUSER")),
    ("password", Some("PGPASSWORD")),
    ("passfile", Some("PGPASSFILE")),
    ("sslmode", Some("PGSSLMODE")),
    ("sslrootcert", Some("PGSSLROOTCERT")),
    ("sslcert", Some("PGSSLCERT")),
    ("sslkey", Some("PGSSLKEY")),
    ("application_name", Some("PGAPPNAME")),
    ("options", Some("PGOPTIONS")),
    ("connect_timeout", Some("PGCONNECT_TIMEOUT")),
    ("target_session_attrs", Some("PGTARGETSESSIONATTRS")),
    // Other programs' way to write sslmode=require.
    ("ssl", None),
    ("pool_size", None),
    ("acquire_timeout", None),
    ("statement_timeout", None),
];

/// Variables that make libpq connect elsewhere, or more carefully, but are not supported.
const REFUSED_VARIABLES: [&str; 6] =
    ["PGSERVICE", "PGREQUIREAUTH", "PGCHANNELBINDING", "PGSSLCRL", "PGSSLCRLDIR", "PGREQUIRESSL"];

const FORM: &str = "must be like postgres://user:password@host:5432/database. In the user, the \
                    password and the name of the database, percent-encode @ as %40, / as %2F, : as \
                    %3A, ? as %3F, # as %23 and % as %25; put an IPv6 address in brackets";

/// The acceptable servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TargetSession {
    /// Any server.
    Any,
    /// A server on which sessions can write.
    ReadWrite,
    /// A server that is not a standby.
    Primary,
}

/// A Postgres database and how to connect to it. It displays without its password and parameters.
#[derive(Clone)]
pub struct PostgresUrl {
    display: String,
    has_password: bool,
    pub(super) connect: Box<PgConnectOptions>,
    /// The acceptable servers.
    pub(super) target: TargetSession,
    /// Why the password file was ignored, if it was.
    pub(super) ignored_file: Option<String>,
    /// The number of connections for reads.
    pub(super) pool_size: u32,
    /// How long to wait for a connection.
    pub(super) acquire_timeout: Duration,
    /// How long a batch or a read may take.
    pub(super) statement_timeout: Duration,
}

impl PostgresUrl {
    /// Whether the URL itself holds a password.
    pub fn has_password(&self) -> bool {
        self.has_password
    }

    /// Whether connections should be encrypted, but need not be.
    pub(super) fn prefers_encryption(&self) -> bool {
        matches!(self.connect.get_ssl_mode(), PgSslMode::Prefer)
    }

    /// The same database over plain connections.
    pub(super) fn without_encryption(&self) -> Self {
        let plain = (*self.connect).clone().ssl_mode(PgSslMode::Disable);
        Self { connect: Box::new(plain), ..self.clone() }
    }

    fn read(url: &str, environment: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, String> {
        let given = UrlSource { by_url: parameters_of(url)?, environment };
        given.refuse_variables()?;
        let port = given.port()?;
        let host = given.host(port)?;
        let user = given.user()?;
        // The server would choose the same database.
        let database = given.value("dbname")?.unwrap_or_else(|| user.clone());
        let mut ignored_file = None;
        let password = match given.value("password")? {
            Some(password) => password,
            None => {
                let account = Account { host: &host, port, database: &database, user: &user };
                let found = given.password_file()?.map(|path| password_file::find(&path, &account));
                match found {
                    Some(Ok(password)) => password.unwrap_or_default(),
                    Some(Err(reason)) => {
                        ignored_file = Some(reason);
                        String::new()
                    }
                    None => String::new(),
                }
            }
        };
        let mut parameters = vec![
            ("host", host.clone()),
            ("port", port.to_string()),
            ("user", user.clone()),
            ("dbname", database.clone()),
            // Even if it is empty: otherwise sqlx would search its own places for a password file.
            ("password", password),
            (
                "application_name",
                given.value("application_name")?.unwrap_or_else(|| "rocket-monitor".to_owned()),
            ),
        ];
        // sqlx reads PGOPTIONS itself, but takes one that is not UTF-8 for none.
        given.find("options")?;
        parameters.extend(given.by_url.get("options").map(|options| ("options", options.clone())));
        let tls = given.tls(&host)?;
        let trusts_system =
            tls.iter().any(|(name, value)| *name == "sslrootcert" && value == "system");
        parameters.extend(
            tls.into_iter().filter(|(name, value)| *name != "sslrootcert" || value != "system"),
        );
        let query: Vec<String> =
            parameters.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let connect =
            PgConnectOptions::from_str(&format!("postgres://localhost/?{}", query.join("&")));
        let mut connect = connect.map_err(|_| FORM.to_owned())?.disable_statement_logging();
        if trusts_system {
            // No other certificate, even if PGSSLROOTCERT names one.
            connect = connect.ssl_root_cert_from_pem(Vec::new());
        }
        Ok(Self {
            display: display(&user, &host, port, &database),
            has_password: given.by_url.contains_key("password"),
            connect: Box::new(connect),
            target: given.target()?,
            ignored_file,
            pool_size: given.positive("pool_size")?.unwrap_or(POOL_SIZE),
            acquire_timeout: match given.seconds("acquire_timeout")? {
                Some(timeout) => timeout,
                None => given.seconds("connect_timeout")?.unwrap_or(ACQUIRE_TIMEOUT),
            },
            statement_timeout: given.seconds("statement_timeout")?.unwrap_or(STATEMENT_TIMEOUT),
        })
    }
}

impl FromStr for PostgresUrl {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        Self::read(url, &|name| std::env::var_os(name))
    }
}

/// The decoded parameters of a URL, by name or by position.
fn parameters_of(url: &str) -> Result<BTreeMap<String, String>, String> {
    let (_, rest) = url.split_once("://").ok_or(FORM)?;
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = place.split_once('/').unwrap_or((place, ""));
    if database.contains('@') || query.contains('@') {
        return Err(format!("has an @ after the host: {FORM}"));
    }
    let (account, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = account.split_once(':').unwrap_or((account, ""));
    let (host, port) = host_and_port(host)?;
    let mut parameters = BTreeMap::new();
    let in_place = [
        ("user", user),
        ("password", password),
        ("host", host),
        ("port", port),
        ("dbname", database),
    ];
    for (name, value) in in_place.into_iter().filter(|(_, value)| !value.is_empty()) {
        parameters.insert(name.to_owned(), decoded(value)?);
    }
    let mut named = BTreeMap::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter
            .split_once('=')
            .ok_or("has a parameter without a value after the question mark")?;
        let name = decoded(name)?;
        if !PARAMETERS.iter().any(|(known, _)| *known == name) {
            return Err(unknown(&name));
        }
        if named.insert(name.clone(), decoded(value)?).is_some() {
            return Err(format!("has the parameter {name} twice"));
        }
    }
    parameters.extend(named.into_iter().filter(|(_, value)| !value.is_empty()));
    Ok(parameters)
}

fn host_and_port(text: &str) -> Result<(&str, &str), String> {
    let Some(bracketed) = text.strip_prefix('[') else {
        let (host, port) = text.split_once(':').unwrap_or((text, ""));
        // Several hosts are refused later, by name.
        return if port.contains(':') && !text.contains(',') {
            Err(FORM.to_owned())
        } else {
            Ok((host, port))
        };
    };
    let (address, port) = bracketed.split_once(']').ok_or(FORM)?;
    let ip = address.split_once('%').map_or(address, |(ip, _)| ip);
    let port = if port.is_empty() { Some("") } else { port.strip_prefix(':') };
    match (ip.parse::<Ipv6Addr>(), port) {
        (Ok(_), Some(port)) => Ok((address, port)),
        _ => Err(FORM.to_owned()),
    }
}

fn unknown(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    if PARAMETERS.iter().any(|(known, _)| *known == lower) {
        return format!("has the parameter {name}, which must be written {lower}");
    }
    let is_name = name.len() <= 40
        && name.chars().all(|char| char.is_ascii_alphanumeric() || "_-[].".contains(char));
    let name = if is_name { format!("the parameter {name}") } else { "a parameter".to_owned() };
    let known: Vec<&str> = PARAMETERS.iter().map(|(known, _)| *known).collect();
    format!("has {name}, which is not supported; supported parameters are: {}", known.join(", "))
}

fn decoded(text: &str) -> Result<String, String> {
    let is_hex = |at: usize| text.as_bytes().get(at).is_some_and(u8::is_ascii_hexdigit);
    let is_sound = text.match_indices('%').all(|(at, _)| is_hex(at + 1) && is_hex(at + 2));
    let decoded =
        percent_decode_str(text).decode_utf8().ok().filter(|text| is_sound && !text.contains('\0'));
    decoded
        .map(Into::into)
        .ok_or_else(|| format!("has a % that does not start a percent-encoded character: {FORM}"))
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Formats the URL as people write it, with anything unsafe for a terminal encoded.
const PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

fn display(user: &str, host: &str, port: u16, database: &str) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, PLAIN).to_string();
    let (user, database) = (encoded(user).replace('/', "%2F"), encoded(database));
    let port = (port != DEFAULT_PORT).then_some(port);
    if host.starts_with('/') {
        let port = port.map_or_else(String::new, |port| format!("&port={port}"));
        return format!("postgres://{user}@/{database}?host={}{port}", encoded(host));
    }
    let port = port.map_or_else(String::new, |port| format!(":{port}"));
    let host = if host.contains(':') {
        format!("[{}]", encoded(host).replace("%3A", ":"))
    } else {
        encoded(host)
    };
    format!("postgres://{user}@{host}{port}/{database}")
}

/// The contents of the URL and the environment.
struct UrlSource<'e> {
    by_url: BTreeMap<String, String>,
    environment: &'e dyn Fn(&str) -> Option<OsString>,
}

impl UrlSource<'_> {
    fn refuse_variables(&self) -> Result<(), String> {
        let refused = REFUSED_VARIABLES
            .iter()
            .find(|name| (self.environment)(name).is_some_and(|it| !it.is_empty()));
        refused.map_or(Ok(()), |name| {
            Err(format!("can't be used while {name} is set, which is not supported; unset it"))
        })
    }

    /// A value, and the name of its source.
    fn find(&self, parameter: &str) -> Result<Option<(String, String)>, String> {
        if let Some(value) = self.by_url.get(parameter) {
            return Ok(Some((parameter.to_owned(), value.clone())));
        }
        let Some((_, Some(variable))) = PARAMETERS.iter().find(|(name, _)| *name == parameter)
        else {
            return Ok(None);
        };
        match (self.environment)(variable)
            .filter(|value| !value.is_empty())
            .map(OsString::into_string)
        {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(((*variable).to_owned(), value))),
            Some(Err(_)) => Err(format!("can't be used with a {variable} that is not UTF-8")),
        }
    }

    fn value(&self, parameter: &str) -> Result<Option<String>, String> {
        Ok(self.find(parameter)?.map(|(_, value)| value))
    }

    fn positive(&self, parameter: &str) -> Result<Option<u32>, String> {
        let Some((name, value)) = self.find(parameter)? else { return Ok(None) };
        let number = value.parse().ok().filter(|number| *number > 0);
        number.map(Some).ok_or_else(|| format!("has a {name} that is not an integer above 0"))
    }

    fn seconds(&self, parameter: &str) -> Result<Option<Duration>, String> {
        match self.positive(parameter)? {
            Some(seconds) if seconds > MAX_SECONDS => {
                Err(format!("has a {parameter} of more than {MAX_SECONDS} seconds"))
            }
            seconds => Ok(seconds.map(|seconds| Duration::from_secs(seconds.into()))),
        }
    }

    fn port(&self) -> Result<u16, String> {
        let Some((name, value)) = self.find("port")? else { return Ok(DEFAULT_PORT) };
        if value.contains(',') {
            return Err(SEVERAL_HOSTS.to_owned());
        }
        let port = value.parse().ok().filter(|port| *port > 0);
        port.ok_or_else(|| format!("has a {name} that is not a number from 1 to 65535: {FORM}"))
    }

    /// A name, an address, or the directory of a socket.
    fn host(&self, port: u16) -> Result<String, String> {
        let host = match (self.find("host")?, self.find("hostaddr")?) {
            (Some(_), Some((address, _))) => {
                return Err(format!(
                    "has both a host and {address}, which is not supported; give one of them"
                ));
            }
            (None, Some((address, value))) if value.parse::<std::net::IpAddr>().is_err() => {
                return Err(format!("has a {address} that is not an IP address"));
            }
            (Some((_, host)), None) | (None, Some((_, host))) => host,
            (None, None) => {
                let has_socket =
                    |folder: &&&str| Path::new(folder).join(format!(".s.PGSQL.{port}")).exists();
                SOCKET_DIRECTORIES
                    .iter()
                    .find(has_socket)
                    .map_or("localhost", |folder| *folder)
                    .to_owned()
            }
        };
        if host.contains(',') {
            return Err(SEVERAL_HOSTS.to_owned());
        }
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        Ok(bracketed.map(str::to_owned).unwrap_or(host))
    }

    fn user(&self) -> Result<String, String> {
        match self.value("user")? {
            Some(user) => Ok(user),
            None => whoami::username().map_err(|_| {
                "names no user, and the operating system has no name for the one that runs this: \
                 write postgres://USER@…"
                    .to_owned()
            }),
        }
    }

    fn password_file(&self) -> Result<Option<std::path::PathBuf>, String> {
        if let Some(file) = self.value("passfile")? {
            return Ok(Some(file.into()));
        }
        let home = (self.environment)("HOME").filter(|home| !home.is_empty());
        Ok(home.map(|home| Path::new(&home).join(".pgpass")).filter(|file| file.exists()))
    }

    /// The TLS parameters, as sqlx takes them.
    fn tls(&self, host: &str) -> Result<Vec<(&'static str, String)>, String> {
        let root = self.value("sslrootcert")?;
        let trusts_system = root.as_deref() == Some("system");
        let by_ssl = match self.value("ssl")?.as_deref() {
            None => None,
            Some("true") => Some(("ssl".to_owned(), "require".to_owned())),
            Some(_) => {
                return Err(
                    "has the parameter ssl, which supports only the value true; use sslmode"
                        .to_owned(),
                );
            }
        };
        let default = if trusts_system { "verify-full" } else { "prefer" };
        let mode = match self.find("sslmode")?.or(by_ssl) {
            None => default,
            Some((name, mode)) => match (mode.as_str(), &root) {
                ("disable", _) => "disable",
                ("verify-full", _) => "verify-full",
                ("prefer" | "require" | "verify-ca", Some(_)) if trusts_system => {
                    return Err(format!(
                        "has sslrootcert=system with a weaker {name} than verify-full"
                    ));
                }
                ("prefer", _) => "prefer",
                // As in libpq: a root certificate implies verification.
                ("require", None) => "require",
                ("require" | "verify-ca", _) => "verify-ca",
                _ => {
                    return Err(format!(
                        "has a {name} that is none of disable, prefer, require, verify-ca and \
                         verify-full"
                    ));
                }
            },
        };
        // As in libpq: there is no TLS over a local socket.
        let mode = if host.starts_with('/') { "disable" } else { mode };
        let mut tls = vec![("sslmode", mode.to_owned())];
        tls.extend(root.map(|root| ("sslrootcert", root)));
        match (self.value("sslcert")?, self.value("sslkey")?) {
            (Some(certificate), Some(key)) => {
                tls.extend([("sslcert", certificate), ("sslkey", key)])
            }
            (None, None) => {}
            _ => return Err("has only one of sslcert and sslkey; give both or neither".to_owned()),
        }
        let is_missing = |(name, value): &&(&str, String)| {
            *name != "sslmode"
                && !(trusts_system && *name == "sslrootcert")
                && !Path::new(value).exists()
        };
        match tls.iter().find(is_missing) {
            Some((name, _)) if mode != "disable" => {
                Err(format!("has a {name} that names a file that does not exist"))
            }
            _ => Ok(tls),
        }
    }

    fn target(&self) -> Result<TargetSession, String> {
        let Some((name, target)) = self.find("target_session_attrs")? else {
            return Ok(TargetSession::Any);
        };
        match target.as_str() {
            "any" => Ok(TargetSession::Any),
            "read-write" => Ok(TargetSession::ReadWrite),
            "primary" => Ok(TargetSession::Primary),
            _ => Err(format!(
                "has a {name} that is none of any, read-write and primary; other values are not \
                 supported"
            )),
        }
    }
}

/// The server takes timeouts in milliseconds, as 32-bit integers.
const MAX_SECONDS: u32 = i32::MAX as u32 / 1_000;

const SEVERAL_HOSTS: &str = "names several hosts or ports, which is not supported; give one name \
                             that resolves to the primary";

impl fmt::Display for PostgresUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.display)
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.display)
    }
}

impl PartialEq for PostgresUrl {
    fn eq(&self, other: &Self) -> bool {
        // Options can select another schema.
        self.display == other.display && self.connect.get_options() == other.connect.get_options()
    }
}

impl Eq for PostgresUrl {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn read_in<V>(url: &str, environment: &[(&str, V)]) -> Result<PostgresUrl, String>
    where
        V: AsRef<OsStr>,
    {
        PostgresUrl::read(url, &|name| {
            let set = environment.iter().find(|(variable, _)| *variable == name);
            set.map(|(_, value)| value.as_ref().to_owned())
        })
    }

    fn read(url: &str) -> Result<PostgresUrl, String> {
        read_in::<&str>(url, &[])
    }

    #[test]
    fn urls_are_read_as_in_libpq() {
        for (url, shown) in [
            ("postgres://u:p%40@h:1/d", "postgres://u@h:1/d"),
            ("postgresql://u:p@q@h/d?sslmode=require", "postgres://u@h/d"),
            ("postgres://u:p#1:2@h/d", "postgres://u@h/d"),
            ("postgres:///d?user=u&password=p&host=/tmp", "postgres://u@/d?host=/tmp"),
            ("postgres://u:p@/d?host=/run/pg&port=5433", "postgres://u@/d?host=/run/pg&port=5433"),
            ("postgres://u@%2Frun%2Fpg/d", "postgres://u@/d?host=/run/pg"),
            ("postgres://u@%2Frun%2Fpg:5433/d", "postgres://u@/d?host=/run/pg&port=5433"),
            ("postgres://other@h1/d?host=h2&user=u&dbname=e&port=7", "postgres://u@h2:7/e"),
            ("postgres://u@h", "postgres://u@h/u"),
            ("postgres://u@h?connect_timeout=1", "postgres://u@h/u"),
            ("postgres://u@[::1]:5433/d", "postgres://u@[::1]:5433/d"),
            ("postgres://u@[::1]/d", "postgres://u@[::1]/d"),
            ("postgres://u@[fe80::1%25eth0]/d", "postgres://u@[fe80::1%25eth0]/d"),
            ("postgres://u@%3A%3A1/d", "postgres://u@[::1]/d"),
            ("postgres://u@/d?host=::1", "postgres://u@[::1]/d"),
            ("postgres://u@/d?host=[::1]", "postgres://u@[::1]/d"),
            ("postgres://u@/d?hostaddr=127.0.0.1", "postgres://u@127.0.0.1/d"),
            ("postgres://a%2Fb%1B@h/c%1B%20d", "postgres://a%2Fb%1B@h/c%1B%20d"),
        ] {
            let read = read(url).unwrap();
            assert_eq!(
                (read.to_string(), format!("{read:?}")),
                (shown.to_owned(), shown.to_owned()),
                "{url}"
            );
        }
    }

    #[test]
    fn unknown_forms_are_rejected_without_repeating_them() {
        for (url, why) in [
            ("postgres://u:secret/d", "has a port that is not a number"),
            ("postgres://u:se/secret@h/d", "has an @ after the host"),
            ("postgres://u:12?secret@h/d", "must be like"),
            ("postgres://u:12/3?secret=@h/d", "has an @ after the host"),
            ("postgres://u:100%secret@h/d", "does not start a percent-encoded character"),
            ("postgres://u:secret%00@h/d", "does not start a percent-encoded character"),
            ("postgres://u:secret%ff@h/d", "does not start a percent-encoded character"),
            ("postgres://u@h:secret/d", "has a port"),
            ("postgres://u@h:0/d", "has a port"),
            ("postgres://u@::1/d", "in brackets"),
            ("postgres://u@[::1/d", "in brackets"),
            ("postgres://u@[secret]/d", "in brackets"),
            ("postgres://u@h1,h2/d", "several hosts"),
            ("postgres://u@h1:1,h2:2/d", "several hosts"),
            ("postgres://u@/d?host=h1,h2", "several hosts"),
            ("postgres://u@h/d?port=1,2", "several hosts"),
            ("postgres://u@h/d?hostaddr=::1", "give one of them"),
            ("postgres://u@/d?hostaddr=h", "not an IP address"),
            ("postgres://u@h/d?sslMode=verify-full", "sslMode, which must be written sslmode"),
            ("postgres://u@h/d?sslmode=Verify-Full", "has a sslmode that is none of"),
            ("postgres://u@h/d?sslmode=allow", "has a sslmode that is none of"),
            ("postgres://u@h/d?sslrootcert=system&sslmode=require", "weaker sslmode"),
            ("postgres://u@h/d?ssl=1", "ssl, which supports only the value true"),
            ("postgres://u@h/d?sslcert=c", "give both or neither"),
            (
                "postgres://u@h/d?sslrootcert=secret",
                "has a sslrootcert that names a file that does not exist",
            ),
            (
                "postgres://u@h/d?sslcert=Cargo.toml&sslkey=secret",
                "has a sslkey that names a file that does not exist",
            ),
            ("postgres://u@h/d?service=secret", "the parameter service, which is not supported"),
            (
                "postgres://u@h/d?sslpassword=secret",
                "the parameter sslpassword, which is not supported",
            ),
            (
                "postgres://u@h/d?channel_binding=require",
                "the parameter channel_binding, which is not supported",
            ),
            ("postgres://u@h/d?se\u{1b}cret=1", "has a parameter, which"),
            ("postgres://u@h/d?secret", "without a value"),
            ("postgres://u@h/d?user=a&user=b", "user twice"),
            (
                "postgres://u@h/d?target_session_attrs=standby",
                "none of any, read-write and primary",
            ),
            ("postgres://u@h/d?pool_size=0", "has a pool_size that"),
            ("postgres://u@h/d?acquire_timeout=1s", "has a acquire_timeout that"),
            ("postgres://u@h/d?connect_timeout=-1", "has a connect_timeout that"),
        ] {
            let error = read(url).unwrap_err();
            assert!(error.contains(why), "{url}: {error}");
            assert!(!error.contains("secret"), "{url}: {error}");
        }
    }

    #[test]
    fn parameters_are_those_of_libpq_and_our_own() {
        let url = read(
            "postgres://u@h/d?pool_size=3&acquire_timeout=7&statement_timeout=9&connect_timeout=1",
        )
        .unwrap();
        assert_eq!(
            (url.pool_size, url.acquire_timeout.as_secs(), url.statement_timeout.as_secs()),
            (3, 7, 9)
        );
        let url = read(
            "postgres://u@h/d?connect_timeout=4&application_name=a+b&options=-csearch_path%3Dx",
        )
        .unwrap();
        assert_eq!(
            (url.pool_size, url.acquire_timeout.as_secs(), url.statement_timeout.as_secs()),
            (8, 4, 5)
        );
        assert_eq!(url.connect.get_application_name(), Some("a+b"));
        assert_eq!(url.connect.get_options(), Some("-csearch_path=x"));
        assert_eq!((url.target, url.has_password()), (TargetSession::Any, false));
        let url = read("postgres://u@h/d?target_session_attrs=primary&password=x").unwrap();
        assert_eq!((url.target, url.has_password()), (TargetSession::Primary, true));
        assert_eq!(url.connect.get_application_name(), Some("rocket-monitor"));
        let addressed = read("postgres://u@[::1]:7/d").unwrap();
        assert_eq!((addressed.connect.get_host(), addressed.connect.get_port()), ("::1", 7));
    }

    #[test]
    fn two_schemas_are_two_databases() {
        let [one, other] = ["a", "b"]
            .map(|name| read(&format!("postgres://u@h/d?options=-csearch_path%3D{name}")).unwrap());
        assert_ne!(one, other);
        assert_eq!(one, one.clone());
    }

    #[test]
    fn a_root_certificate_implies_verification() {
        for (parameters, mode) in [
            ("", "Prefer"),
            ("sslmode=disable&sslrootcert=Cargo.toml", "Disable"),
            ("sslmode=require", "Require"),
            ("sslmode=require&sslrootcert=Cargo.toml", "VerifyCa"),
            ("sslmode=verify-ca", "VerifyCa"),
            ("sslmode=verify-full&sslrootcert=Cargo.toml", "VerifyFull"),
            ("sslrootcert=system", "VerifyFull"),
            ("ssl=true", "Require"),
            ("ssl=true&sslrootcert=Cargo.toml", "VerifyCa"),
            ("sslmode=verify-full&host=/tmp", "Disable"),
        ] {
            let url = read(&format!("postgres://u@h/d?{parameters}")).unwrap();
            assert_eq!(format!("{:?}", url.connect.get_ssl_mode()), mode, "{parameters}");
        }
    }

    #[test]
    fn environment_variables_supply_missing_parameters() {
        let environment = [
            ("PGHOST", "e"),
            ("PGPORT", "9"),
            ("PGUSER", "someone"),
            ("PGDATABASE", "base"),
            ("PGSSLMODE", "require"),
        ];
        let by_environment = read_in("postgres://", &environment).unwrap();
        assert_eq!(by_environment.to_string(), "postgres://someone@e:9/base");
        assert_eq!(format!("{:?}", by_environment.connect.get_ssl_mode()), "Require");
        assert_eq!(
            read_in("postgres://u@h:1/d", &environment).unwrap().to_string(),
            "postgres://u@h:1/d"
        );
        // The user of the process, not an anonymous one.
        assert_eq!(
            read("postgres://h").unwrap().to_string(),
            format!("postgres://{0}@h/{0}", whoami::username().unwrap())
        );
        for (name, value, why) in [
            ("PGSSLMODE", "verify_full", "has a PGSSLMODE that"),
            ("PGPORT", "x", "has a PGPORT that"),
            ("PGHOST", "h1,h2", "several hosts"),
            ("PGHOSTADDR", "127.0.0.1", "both a host and PGHOSTADDR"),
            ("PGCONNECT_TIMEOUT", "0", "has a PGCONNECT_TIMEOUT that"),
            ("PGCONNECT_TIMEOUT", "2147484", "of more than 2147483 seconds"),
            ("PGTARGETSESSIONATTRS", "standby", "has a PGTARGETSESSIONATTRS that"),
            ("PGSERVICE", "prod", "while PGSERVICE is set"),
        ] {
            let url = if name == "PGHOSTADDR" { "postgres://u@h" } else { "postgres://u@" };
            assert!(read_in(url, &[(name, value)]).unwrap_err().contains(why), "{name}");
        }
        assert!(read_in("postgres://u@h", &[("PGSERVICE", "")]).is_ok());
        for name in ["PGOPTIONS", "PGSSLMODE", "PGPASSWORD"] {
            let not_text = OsString::from_vec(b"s3cret\xff".to_vec());
            let refused = read_in("postgres://u@h", &[(name, not_text)]).unwrap_err();
            assert!(refused.contains(name) && !refused.contains("s3cret"), "{refused}");
        }
    }
}
