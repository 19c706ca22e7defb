//! Who may write and who may read: bearer tokens (RFC 6750), from files or the environment.
//!
//! A file has one token a line, so that a new one can be added before the old one is taken away; it is read again when it
//! changes, without a restart. Tokens are never shown, in logs and errors neither.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use subtle::{Choice, ConstantTimeEq};

/// How often a file of tokens is looked at, at most.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A token: at least one character of those that the Authorization header can carry.
#[derive(Clone)]
pub struct Token(Box<str>);

impl Token {
    /// None if it is no token.
    pub fn parse(text: &str) -> Option<Self> {
        let (start, padding) = text.split_at(text.trim_end_matches('=').len());
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        let valid = !start.is_empty() && start.bytes().all(allowed) && padding.bytes().all(|byte| byte == b'=');
        valid.then(|| Self(text.into()))
    }

    /// The token itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(…)")
    }
}

/// Why there are no tokens. It says where, and not what.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A file can't be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// There is none.
    #[error("{place} holds no token: it has to have one a line")]
    Empty {
        /// A file or a variable.
        place: String,
    },
    /// A line is none.
    #[error("{place}: line {line} is no token: it may hold letters, digits and -._~+/ and end in =")]
    Malformed {
        /// A file or a variable.
        place: String,
        /// From 1.
        line: usize,
    },
    /// There are two places.
    #[error("{file} and {variable} both say the token; leave one of them out")]
    Twice {
        /// The option of the file.
        file: &'static str,
        /// The variable.
        variable: &'static str,
    },
}

/// The tokens of which one has to be given.
#[derive(Debug)]
pub struct Tokens {
    file: Option<PathBuf>,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    tokens: Vec<Token>,
    looked: Instant,
    changed: Option<SystemTime>,
}

impl Tokens {
    /// From an option that names a file, or a variable that holds the token itself; none if neither is there.
    pub fn from(
        (option, file): (&'static str, Option<&Path>),
        (variable, value): (&'static str, Option<&str>),
    ) -> Result<Option<Self>, TokenError> {
        let known = |tokens, changed| Mutex::new(Known { tokens, looked: Instant::now(), changed });
        match (file, value) {
            (Some(_), Some(_)) => Err(TokenError::Twice { file: option, variable }),
            (Some(path), None) => {
                let (tokens, changed) = read(path)?;
                Ok(Some(Self { file: Some(path.to_owned()), known: known(tokens, changed) }))
            }
            (None, Some(value)) => Ok(Some(Self { file: None, known: known(parse(variable, value)?, None) })),
            (None, None) => Ok(None),
        }
    }

    /// One of them, for who has to give one.
    pub fn first(&self) -> Option<Token> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).tokens.first().cloned()
    }

    /// Whether this is one of them. How long it takes does not tell how much of it is right.
    pub fn accept(&self, given: &str) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.look_again(&mut known);
        let accepted = known
            .tokens
            .iter()
            .fold(Choice::from(0), |accepted, token| accepted | token.0.as_bytes().ct_eq(given.as_bytes()));
        accepted.into()
    }

    /// Reads the file again if it has changed. If it can't be used now, the tokens of before go on.
    fn look_again(&self, known: &mut Known) {
        let Some(path) = self.file.as_deref().filter(|_| known.looked.elapsed() > LOOK_AGAIN) else {
            return;
        };
        known.looked = Instant::now();
        let changed = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        if changed.is_some() && changed == known.changed {
            return;
        }
        match read(path) {
            Ok((tokens, changed)) => {
                (known.tokens, known.changed) = (tokens, changed);
                tracing::info!(path = %path.display(), tokens = known.tokens.len(), "tokens were read again");
            }
            Err(error) => tracing::error!(%error, "tokens can't be read again; those of before go on"),
        }
    }
}

fn read(path: &Path) -> Result<(Vec<Token>, Option<SystemTime>), TokenError> {
    let unreadable = |error| TokenError::Unreadable { path: path.to_owned(), error };
    // Before it is read: whatever is written later is another change.
    let changed = std::fs::metadata(path).map_err(unreadable)?.modified().ok();
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    Ok((parse(&path.display().to_string(), &text)?, changed))
}

/// A token a line; white space around it, and lines of white space, don't matter.
fn parse(place: &str, text: &str) -> Result<Vec<Token>, TokenError> {
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
    let tokens: Vec<Token> = lines
        .map(|(index, line)| {
            let malformed = || TokenError::Malformed { place: place.to_owned(), line: index + 1 };
            Token::parse(line).ok_or_else(malformed)
        })
        .collect::<Result<_, _>>()?;
    if tokens.is_empty() { Err(TokenError::Empty { place: place.to_owned() }) } else { Ok(tokens) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(value: &str) -> Result<Option<Tokens>, TokenError> {
        Tokens::from(("--file", None), ("VARIABLE", Some(value)))
    }

    #[test]
    fn what_is_given_has_to_be_one_of_them_exactly() {
        let tokens = of("first-token\n\n  second/token==\r\n").unwrap().unwrap();
        for (given, accepted) in [
            ("first-token", true),
            ("second/token==", true),
            ("first-toke", false),
            ("first-token ", false),
            ("first-tokens", false),
            ("", false),
        ] {
            assert_eq!(tokens.accept(given), accepted, "{given:?}");
        }
        assert_eq!(tokens.first().unwrap().expose(), "first-token");
        assert!(!format!("{tokens:?}").contains("first"));
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_repeated() {
        for (value, told) in [("", "holds no token"), (" \n ", "holds no token"), ("good\nsecret word", "line 2")] {
            let error = of(value).unwrap_err().to_string();
            assert!(error.contains(told) && !error.contains("secret"), "{error}");
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tokens");
        let from_file = || Tokens::from(("--file", Some(&file)), ("VARIABLE", None));
        assert!(from_file().unwrap_err().to_string().contains("tokens"));
        std::fs::write(&file, "a\n").unwrap();
        assert!(from_file().unwrap().unwrap().accept("a"));
        let twice = Tokens::from(("--file", Some(&file)), ("VARIABLE", Some("b"))).unwrap_err();
        assert_eq!(twice.to_string(), "--file and VARIABLE both say the token; leave one of them out");
    }
}
