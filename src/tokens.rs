//! Write and read access: bearer tokens (RFC 6750), from files or the environment.
//!
//! A file has one token per line, so that a new token can be added before the old one is removed. A
//! thread reloads the file every second, so no request waits for it. Tokens never appear in logs or
//! errors.

use std::ffi::OsStr;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use subtle::{Choice, ConstantTimeEq};

/// How often a token file is reloaded.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);
/// The largest token file: room for hundreds of tokens.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// A token: at least one character that the Authorization header allows.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

impl Token {
    /// `None` if the text is not a token.
    pub fn parse(text: &str) -> Option<Self> {
        let (start, padding) = text.split_at(text.trim_end_matches('=').len());
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        let valid = !start.is_empty()
            && start.bytes().all(allowed)
            && padding.bytes().all(|byte| byte == b'=');
        valid.then(|| Self(text.into()))
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(…)")
    }
}

/// Why tokens can't be loaded. The error names the file or the variable, never its contents.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("{}: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    /// A FIFO, a device or a directory, which could block a read forever.
    #[error("{} is not a regular file; save the tokens to a file, one per line", path.display())]
    NotAFile { path: PathBuf },
    /// Too large for a list of tokens.
    #[error("{} is larger than {} KiB; is it the right file? A token file has one token per line",
            path.display(), MAX_FILE_BYTES / 1024)]
    TooLarge { path: PathBuf },
    #[error("{origin} holds no token; add at least one (one per line)")]
    Empty {
        /// A file or a variable.
        origin: String,
    },
    #[error(
        "{origin}: line {line} is not a token; a token may hold letters, digits and -._~+/ and end \
         in ="
    )]
    Malformed {
        /// A file or a variable.
        origin: String,
        /// The line number, from 1.
        line: usize,
    },
    /// Both the file and the variable are set.
    #[error("{file} and {variable} are both set; use only one of them")]
    BothSet {
        /// The option that names the file.
        file: &'static str,
        variable: &'static str,
    },
}

/// The tokens for one kind of access. A request must have one of them.
#[derive(Debug)]
pub struct Tokens {
    file: Option<PathBuf>,
    /// Never locked while the file is read.
    tokens: RwLock<Arc<[Token]>>,
}

impl Tokens {
    /// Loads the tokens from the file that an option names, or from an environment variable that
    /// holds the tokens themselves. `None` if neither is set.
    pub fn load(
        (option, file): (&'static str, Option<&Path>),
        (variable, value): (&'static str, Option<&OsStr>),
    ) -> Result<Option<Self>, TokenError> {
        let tokens = match (file, value) {
            (Some(_), Some(_)) => return Err(TokenError::BothSet { file: option, variable }),
            (Some(path), None) => read(path)?,
            // Bytes that are not UTF-8 become U+FFFD, which no token may hold.
            (None, Some(value)) => parse(variable, &value.to_string_lossy())?,
            (None, None) => return Ok(None),
        };
        Ok(Some(Self { file: file.map(Path::to_owned), tokens: RwLock::new(tokens.into()) }))
    }

    /// Shares the tokens, and reloads their file as long as the result is alive.
    pub fn into_watched(self) -> io::Result<Arc<Self>> {
        let file = self.file.clone();
        let tokens = Arc::new(self);
        if let Some(file) = file {
            let tokens = Arc::downgrade(&tokens);
            std::thread::Builder::new()
                .name("tokens".to_owned())
                .spawn(move || reload_periodically(&file, &tokens))?;
        }
        Ok(tokens)
    }

    /// One of the tokens, for clients.
    pub fn first(&self) -> Option<Token> {
        self.current().first().cloned()
    }

    /// Whether this is one of the tokens. Compares in constant time.
    pub fn accept(&self, candidate: &str) -> bool {
        let tokens = self.current();
        let equal = |token: &Token| token.0.as_bytes().ct_eq(candidate.as_bytes());
        tokens.iter().fold(Choice::from(0), |accepted, token| accepted | equal(token)).into()
    }

    fn current(&self) -> Arc<[Token]> {
        Arc::clone(&self.tokens.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the tokens. Returns their number if they changed.
    fn replace(&self, tokens: Vec<Token>) -> Option<usize> {
        if *self.current() == tokens[..] {
            return None;
        }
        let count = tokens.len();
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens.into();
        Some(count)
    }
}

/// Reloads the file every second: neither its times nor its size show every change. While the file
/// is unusable, the previous tokens stay valid.
fn reload_periodically(file: &Path, tokens: &Weak<Tokens>) {
    let mut last_error = None;
    loop {
        std::thread::sleep(RELOAD_INTERVAL);
        let Some(tokens) = tokens.upgrade() else { return };
        let error = match read(file) {
            Ok(new) => {
                if let Some(count) = tokens.replace(new) {
                    tracing::info!(path = %file.display(), tokens = count, "the tokens have \
                        changed");
                }
                None
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = error.as_ref().filter(|error| last_error.as_ref() != Some(*error)) {
            tracing::error!(error, "the tokens can't be reloaded; the previous ones stay valid");
        }
        last_error = error;
    }
}

/// The tokens in a file. It returns quickly for any kind of path: it does not wait for a FIFO, and
/// reads at most [`MAX_FILE_BYTES`].
fn read(path: &Path) -> Result<Vec<Token>, TokenError> {
    let unreadable = |error| TokenError::Unreadable { path: path.to_owned(), error };
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = file.map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(TokenError::NotAFile { path: path.to_owned() });
    }
    let mut text = String::new();
    let mut start = file.take(MAX_FILE_BYTES + 1);
    let read = start.read_to_string(&mut text);
    if start.limit() == 0 {
        return Err(TokenError::TooLarge { path: path.to_owned() });
    }
    read.map_err(unreadable)?;
    parse(&path.display().to_string(), &text)
}

/// Parses one token per line. Surrounding white space and blank lines are ignored.
fn parse(origin: &str, text: &str) -> Result<Vec<Token>, TokenError> {
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
    let tokens: Vec<Token> = lines
        .map(|(index, line)| {
            let malformed = || TokenError::Malformed { origin: origin.to_owned(), line: index + 1 };
            Token::parse(line).ok_or_else(malformed)
        })
        .collect::<Result<_, _>>()?;
    if tokens.is_empty() {
        Err(TokenError::Empty { origin: origin.to_owned() })
    } else {
        Ok(tokens)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn from_variable(value: &str) -> Result<Option<Tokens>, TokenError> {
        Tokens::load(("--file", None), ("VARIABLE", Some(value.as_ref())))
    }

    #[test]
    fn only_exact_tokens_are_accepted() {
        let tokens = from_variable("first-token\n\n  second/token==\r\n").unwrap().unwrap();
        for (candidate, accepted) in [
            ("first-token", true),
            ("second/token==", true),
            ("first-toke", false),
            ("first-token ", false),
            ("first-tokens", false),
            ("", false),
        ] {
            assert_eq!(tokens.accept(candidate), accepted, "{candidate:?}");
        }
        assert_eq!(tokens.first().unwrap().expose(), "first-token");
        assert!(!format!("{tokens:?}").contains("first"));
    }

    #[test]
    fn errors_do_not_repeat_malformed_tokens() {
        for (value, reason) in
            [("", "holds no token"), (" \n ", "holds no token"), ("good\nsecret word", "line 2")]
        {
            let error = from_variable(value).unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains("secret"), "{error}");
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tokens");
        let from_file = || Tokens::load(("--file", Some(&file)), ("VARIABLE", None));
        assert!(from_file().unwrap_err().to_string().contains("tokens"));
        std::fs::write(&file, "a\n").unwrap();
        assert!(from_file().unwrap().unwrap().accept("a"));
        let variable = ("VARIABLE", Some("b".as_ref()));
        let both = Tokens::load(("--file", Some(&file)), variable).unwrap_err();
        assert_eq!(both.to_string(), "--file and VARIABLE are both set; use only one of them");
    }
}
