//! Classifies and describes Postgres errors.

use std::io::ErrorKind;

use sqlx::Error;
use sqlx::postgres::PgDatabaseError;

/// The states of a deadlock and of a serialization failure.
const CONFLICTS: [&str; 2] = ["40P01", "40001"];

/// The states of timeouts on the server: waiting for a lock, running a statement.
const LOCK_NOT_AVAILABLE: &str = "55P03";
const QUERY_CANCELED: &str = "57014";

/// The states of sessions ended by the server: it stops, has crashed, or the session was idle for
/// too long.
const SESSION_ENDED: [&str; 4] = ["57P01", "57P02", "57P05", "25P03"];
/// The class of states for failed connections.
const CONNECTION_EXCEPTION: &str = "08";

/// The class of states for refused logins.
const INVALID_AUTHORIZATION: &str = "28";

fn state(error: &Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(Into::into)
}

/// Whether the transaction was rolled back because of a conflict with others, so that a retry may
/// work.
pub(super) fn is_conflict(error: &Error) -> bool {
    state(error).is_some_and(|state| CONFLICTS.contains(&state.as_str()))
}

/// Whether the connection is lost, so that another one may work.
pub(super) fn is_connection_lost(error: &Error) -> bool {
    let by_state = |state: String| {
        SESSION_ENDED.contains(&state.as_str()) || state.starts_with(CONNECTION_EXCEPTION)
    };
    matches!(error, Error::Io(_)) || state(error).is_some_and(by_state)
}

/// Whether the server refused the user or the password.
pub(super) fn is_login_refused(error: &Error) -> bool {
    state(error).is_some_and(|state| state.starts_with(INVALID_AUTHORIZATION))
}

/// Whether the connection could be opened, but not encrypted.
pub(super) fn is_encryption_failure(error: &Error) -> bool {
    // rustls reports errors about certificates, and alerts of the server, as the second kind.
    matches!(error, Error::Tls(_))
        || matches!(error, Error::Io(error) if error.kind() == ErrorKind::InvalidData)
}

/// Whether the error is a timeout.
pub(in crate::store) fn is_timeout(error: &Error) -> bool {
    matches!(error, Error::PoolTimedOut)
        || state(error)
            .is_some_and(|state| [LOCK_NOT_AVAILABLE, QUERY_CANCELED].contains(&state.as_str()))
}

/// Describes the error in one line, without the location in the server's source.
pub(in crate::store) fn describe(error: &Error) -> String {
    match error {
        Error::Database(error) => {
            let state = error.code().unwrap_or_default();
            let meaning = match &*state {
                LOCK_NOT_AVAILABLE => "another session has held a lock for too long: ",
                QUERY_CANCELED => "the server gave up: ",
                _ => "",
            };
            let hint = error.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::hint);
            let hint = hint.map_or_else(String::new, |hint| format!("; {hint}"));
            format!("{meaning}{} (SQLSTATE {state}){hint}", error.message())
        }
        Error::Io(error) if error.kind() == ErrorKind::UnexpectedEof => {
            "the server closed the connection".to_owned()
        }
        Error::Io(error) => format!("the connection failed: {error}"),
        Error::Tls(error) => format!("the connection can't be encrypted: {error}"),
        Error::Configuration(error) => error.to_string(),
        Error::PoolTimedOut => "no connection became available in time".to_owned(),
        other => other.to_string(),
    }
}
