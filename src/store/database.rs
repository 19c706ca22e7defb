//! The location of a database, as given by `--database`: a path, a word, or a URL.
//!
//! Formats of other programs are rejected, because they would become file names. No error repeats
//! any of the text, because it may hold a password.

use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::postgres::PostgresUrl;

/// The location of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    File(PathBuf),
    /// SQLite in memory, lost when the process ends.
    Memory,
    /// A database on a Postgres server.
    Postgres(PostgresUrl),
}

/// The accepted forms.
const FORMS: &str = "the path of an SQLite file, the word memory, or postgres://user@host/database";

/// The schemes of URLs and connection strings of other programs.
const OTHER_SCHEMES: [&str; 14] = [
    "postgres",
    "postgresql",
    "jdbc",
    "odbc",
    "sqlite",
    "sqlite3",
    "mysql",
    "mariadb",
    "sqlserver",
    "mssql",
    "oracle",
    "redis",
    "http",
    "https",
];

impl Database {
    /// Parses the value of `--database`. The error explains why it can't be used.
    pub fn parse(text: &OsStr) -> Result<Self, String> {
        match text.to_str() {
            Some(text) => text.parse(),
            // Not UTF-8: it can't be a URL, but may be a path.
            None => require_path(&text.to_string_lossy()).map(|()| Self::File(text.into())),
        }
    }

    /// Whether it ends with the process.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Memory)
    }

    /// Whether the parsed text held a password.
    pub fn has_password(&self) -> bool {
        matches!(self, Self::Postgres(url) if url.has_password())
    }
}

impl FromStr for Database {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "memory" {
            return Ok(Self::Memory);
        }
        // Schemes are case-insensitive.
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        if let Some("postgres" | "postgresql") = scheme.as_deref() {
            let is_bare = text.trim_end_matches(is_quote_or_space) == text;
            return if is_bare { text.parse().map(Self::Postgres) } else { Err(QUOTED.to_owned()) };
        }
        require_path(text).map(|()| Self::File(text.into()))
    }
}

const QUOTED: &str = "starts or ends with a space or a quotation mark; remove it";

/// Characters that a shell or an editor may leave around a text.
fn is_quote_or_space(char: char) -> bool {
    char.is_whitespace() || matches!(char, '"' | '\'' | '`' | '“' | '”' | '‘' | '’')
}

/// Accepts a text that can be the path of a file. Otherwise, the error says what it is instead.
fn require_path(text: &str) -> Result<(), String> {
    let bare = text.trim_matches(is_quote_or_space);
    let lower = bare.to_ascii_lowercase();
    if lower.is_empty() {
        return Err(format!("is empty; give {FORMS}"));
    }
    if lower.starts_with(":memory") || lower.starts_with("file::memory") {
        return Err("is SQLite's own name for a database in memory; write memory".to_owned());
    }
    if lower.starts_with("file:") {
        return Err(
            "starts with file:, like an SQLite URI; give only the path, without file: and \
                    parameters"
                .into(),
        );
    }
    let scheme = lower.split_once(':').map_or("", |(scheme, _)| scheme);
    if lower.contains("://") || OTHER_SCHEMES.contains(&scheme) {
        let is_ours = lower.starts_with("postgres://") || lower.starts_with("postgresql://");
        return Err(if is_ours && bare != text {
            QUOTED.to_owned()
        } else if lower.contains("postgres") {
            "is a Postgres URL in the format of another program; write \
             postgres://user:password@host/database"
                .to_owned()
        } else {
            format!("is not a supported URL; give {FORMS}")
        });
    }
    if is_connection_string(&lower) {
        return Err("is a connection string of keywords and values; write it as a URL: \
                    postgres://user:password@host:5432/database?sslmode=require"
            .to_owned());
    }
    if has_colon_before_at(text) && !is_plainly_path(text) {
        return Err("looks like a URL without its scheme; write \
                    postgres://user:password@host/database, or start a path with / or ./"
            .to_owned());
    }
    Ok(())
}

/// Whether a text starts like a path and nothing else. A URL without its scheme may start with
/// `//`.
fn is_plainly_path(text: &str) -> bool {
    let is_absolute = text.starts_with('/') && !text.starts_with("//");
    is_absolute || text.starts_with("./") || text.starts_with("../")
}

/// Whether a text has `user:password@`, or what looks like it.
fn has_colon_before_at(text: &str) -> bool {
    text.split_once(':').is_some_and(|(_, rest)| rest.contains('@'))
}

/// Whether a text starts with a keyword and `=`, as paths don't, or holds a password as a keyword's
/// value.
fn is_connection_string(lower: &str) -> bool {
    let is_word = |text: &str| {
        !text.is_empty() && text.chars().all(|it| it.is_ascii_alphabetic() || "_ ".contains(it))
    };
    lower.split_once('=').is_some_and(|(keyword, _)| is_word(keyword)) || names_password(lower)
}

/// Whether a text has `password=` or a keyword like it.
fn names_password(lower: &str) -> bool {
    const KEYWORDS: [&str; 3] = ["password", "passwd", "pwd"];
    let mut values = lower.split('=');
    // The text after the last = is not a keyword.
    values.next_back();
    values.any(|text| KEYWORDS.iter().any(|keyword| text.trim_end().ends_with(keyword)))
}

impl fmt::Display for Database {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::Memory => formatter.write_str("memory"),
            Self::Postgres(url) => url.fmt(formatter),
        }
    }
}

/// Whether a text may hold a password, so that it should not be shown.
///
/// It looks for the patterns of URLs and connection strings: `user:password@` and `password=`. A
/// word like password alone is not enough, because paths have it, too.
pub fn may_hold_password(text: &str) -> bool {
    has_colon_before_at(text) || names_password(&text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn accepts_paths_of_any_kind() {
        let paths = [
            "rockets.db",
            "./rockets.db",
            "/var/lib/rocket-monitor/rockets.db",
            "a b.db",
            "Memory",
            "./memory",
            "db@home",
            "at 12:30.db",
            "./a=b.db",
            "memory.db",
            "räkete.db",
            "postgres.db",
            "dir/host=1/x.db",
            "C:rockets",
            "http.db",
            "password-notes.db",
            "/srv/pwd/rockets.db",
            "/tmp/rv/x:y@z.db",
            "./x:y@z.db",
            "../x:y@z.db",
            "/srv/2026-11-26T10:00:00-me@host.db",
            "me@host-10:00.db",
        ];
        for path in paths {
            assert_eq!(path.parse(), Ok(Database::File(path.into())));
        }
        assert_eq!("memory".parse(), Ok(Database::Memory));
        let postgres: Database = "PostgreSQL://u@h/d".parse().unwrap();
        assert_eq!(postgres.to_string(), "postgres://u@h/d");
    }

    #[test]
    fn rejects_formats_of_other_programs_without_repeating_them() {
        for (text, hint) in [
            ("", "is empty"),
            (" \t", "is empty"),
            (":memory:", "write memory"),
            ("file::memory:?cache=shared", "write memory"),
            ("file:secret.db", "only the path"),
            ("FILE:///secret.db?mode=ro", "only the path"),
            ("sqlite:///secret.db", "not a supported URL"),
            ("sqlite:secret.db", "not a supported URL"),
            ("mysql://u:secret@h/d", "not a supported URL"),
            ("redis://:secret@h", "not a supported URL"),
            ("jdbc:postgresql://h/d?user=u&password=secret", "format of another program"),
            ("postgresql+psycopg://u:secret@h/d", "format of another program"),
            ("postgres:u:secret@h/d", "format of another program"),
            ("postgres:/u:secret@h/d", "format of another program"),
            (" postgres://u:secret@h/d", "remove it"),
            ("postgres://u:secret@h/d\n", "remove it"),
            ("\"postgres://u:secret@h/d\"", "remove it"),
            ("'Postgres://u:secret@h/d'", "remove it"),
            ("“postgres://u:secret@h/d”", "remove it"),
            ("host=h password=secret", "keywords and values"),
            (" user = u password = secret", "keywords and values"),
            ("Server=h;User Id=u;Pwd=secret", "keywords and values"),
            ("rockets.db?password=secret", "keywords and values"),
            ("u:secret@h/d", "without its scheme"),
            ("//u:secret@h/d", "without its scheme"),
            ("u:secret@h/d", "start a path with / or ./"),
            (" /u:secret@h/d", "without its scheme"),
            ("/srv/rockets.db?password=secret", "keywords and values"),
            ("postgres://u:secret/d", "percent-encode"),
            ("postgres://u:se/secret@h/d", "percent-encode"),
            ("postgres://h/d?secret=1", "not supported"),
        ] {
            let error = text.parse::<Database>().unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
            assert!(text.contains("?secret") || !error.contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn recognizes_texts_that_may_hold_a_password() {
        for secret in [
            "postgres://u:p@h",
            "u:p@h",
            "u:@p@h",
            "host=h password=p",
            "password = p user=u",
            "h?sslPassword=x",
            "Pwd=x",
            "--rockets=host=h Passwd=x",
        ] {
            assert!(may_hold_password(secret), "{secret}");
        }
        for harmless in [
            "rockets.db",
            "postgres://h/d",
            "127.0.0.1:8088",
            "--database",
            "db@home",
            "password-notes.ndjson",
            "/srv/pwd/rockets.db",
            "passwords",
            "--database=/srv/pwd/x.db",
            "a=password",
            "me@host:notes.ndjson",
        ] {
            assert!(!may_hold_password(harmless), "{harmless}");
        }
    }
}
