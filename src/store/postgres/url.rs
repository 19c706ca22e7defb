//! Where a Postgres database is, and how to be connected to it: what `--database postgres://…` says.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

/// How many connections read at the same time, unless the URL says otherwise.
const POOL_SIZE: u32 = 8;
/// How long to wait for a connection, unless the URL says otherwise.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a batch or a read may take, unless the URL says otherwise.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// A Postgres database and how to be connected to it. It displays without the password.
#[derive(Clone)]
pub struct PostgresUrl {
    shown: String,
    /// How to connect.
    pub(super) connect: Box<PgConnectOptions>,
    /// How many connections read at the same time.
    pub(super) pool_size: u32,
    /// How long to wait for a connection.
    pub(super) acquire_timeout: Duration,
    /// How long a batch or a read may take before it is given up.
    pub(super) statement_timeout: Duration,
}

impl FromStr for PostgresUrl {
    type Err = String;

    /// The parameters that libpq knows, and `pool_size`, `acquire_timeout` and `statement_timeout` (in seconds).
    fn from_str(url: &str) -> Result<Self, String> {
        let (mut pool_size, mut acquire_timeout, mut statement_timeout) =
            (POOL_SIZE, ACQUIRE_TIMEOUT, STATEMENT_TIMEOUT);
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let mut kept = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("pool_size", size) => pool_size = positive("pool_size", size)?,
                ("acquire_timeout", seconds) => acquire_timeout = timeout("acquire_timeout", seconds)?,
                ("statement_timeout", seconds) => statement_timeout = timeout("statement_timeout", seconds)?,
                _ => kept.push(pair),
            }
        }
        let known = if kept.is_empty() { place.to_owned() } else { format!("{place}?{}", kept.join("&")) };
        // The parser's own message may repeat parts of the URL, and so of the password.
        let connect = PgConnectOptions::from_str(&known)
            .map_err(|_| "must be like postgres://user:password@host:5432/database?sslmode=require".to_owned())?;
        let connect = Box::new(connect.application_name("rocket-monitor").disable_statement_logging());
        Ok(Self { shown: without_password(url), connect, pool_size, acquire_timeout, statement_timeout })
    }
}

fn positive(name: &str, text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("{name} must be an integer above 0, not {text:?}"))
}

fn timeout(name: &str, text: &str) -> Result<Duration, String> {
    positive(name, text).map(|seconds| Duration::from_secs(seconds.into()))
}

/// Whether a text holds a Postgres URL with a password.
pub fn has_password(text: &str) -> bool {
    ["postgres://", "postgresql://"].iter().any(|scheme| text.contains(scheme)) && without_password(text) != text
}

/// The URL with its password, if any, left out.
fn without_password(url: &str) -> String {
    let (place, query) = url.split_once('?').map_or((url, None), |(place, query)| (place, Some(query)));
    let mut shown = match place.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?))) {
        Some((scheme, (user, host))) => match user.split_once(':') {
            Some((user, _)) => format!("{scheme}://{user}@{host}"),
            None => place.to_owned(),
        },
        None => place.to_owned(),
    };
    if let Some(query) = query {
        let kept: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("password=")).collect();
        shown += "?";
        shown += &kept.join("&");
    }
    shown
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.shown)
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.shown)
    }
}

impl PartialEq for PostgresUrl {
    fn eq(&self, other: &Self) -> bool {
        self.shown == other.shown
    }
}

impl Eq for PostgresUrl {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (url, shown) in [
            ("postgres://u:p%40@h:1/d", "postgres://u@h:1/d"),
            ("postgresql://u:p@q@h/d?sslmode=require", "postgresql://u@h/d?sslmode=require"),
            ("postgres:///d?user=u&password=p&host=/tmp", "postgres:///d?user=u&host=/tmp"),
            ("postgres://u@h/d", "postgres://u@h/d"),
        ] {
            assert_eq!(url.parse::<PostgresUrl>().unwrap().to_string(), shown);
            assert_eq!(has_password(url), url != shown);
        }
        assert!(!has_password("rockets.db?password=x"));
    }

    #[test]
    fn our_own_parameters_are_read_and_bad_ones_named() {
        let url: PostgresUrl = "postgres://h/d?pool_size=3&acquire_timeout=7&statement_timeout=9".parse().unwrap();
        assert_eq!((url.pool_size, url.acquire_timeout.as_secs(), url.statement_timeout.as_secs()), (3, 7, 9));
        assert!("postgres://h/d?pool_size=0".parse::<PostgresUrl>().unwrap_err().contains("pool_size"));
        assert!("postgres://h/d?acquire_timeout=1s".parse::<PostgresUrl>().unwrap_err().contains("acquire_timeout"));
        assert!("postgres://h:port/d".parse::<PostgresUrl>().is_err());
    }
}
