//! Decides whether to open, migrate or refuse a database, for both engines.

/// The contents of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Neither our tables nor others in their place.
    Nothing,
    /// Our schema, as the migration with this number left it.
    Version(i64),
    /// Something else. The text says what, and what to do.
    Foreign(String),
}

/// What to do with a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is up to date.
    Open,
    /// Run the migrations that are missing.
    Migrate,
    /// Leave it untouched. The text says why, and what to do.
    Refuse(String),
}

/// Decides what to do with a database. `latest` is the number of this program's last migration.
pub(super) fn decide(found: Found, latest: i64, may_migrate: bool) -> Decision {
    match found {
        Found::Foreign(reason) => Decision::Refuse(reason),
        Found::Version(version) if version > latest => Decision::Refuse(format!(
            "its schema has version {version}, but this program supports versions up to {latest}; \
             use a newer program"
        )),
        Found::Version(version) if version == latest => Decision::Open,
        Found::Nothing | Found::Version(_) if may_migrate => Decision::Migrate,
        Found::Nothing => Decision::Refuse(
            "it has no schema, so it is not up to date; run `migrate`, or leave out --no-migrate"
                .into(),
        ),
        Found::Version(_) => Decision::Refuse(
            "its schema is not up to date; run `migrate`, or leave out --no-migrate".into(),
        ),
    }
}

/// Why a table or view with other columns can't be used.
pub(super) fn wrong_shape(difference: &str) -> String {
    format!(
        "{difference}, which is not the shape that this program created; restore a backup, or give \
         another database"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_schema_is_opened_or_migrated() {
        let foreign = || Found::Foreign("it is another program's".to_owned());
        for (found, may_migrate, expected) in [
            (Found::Version(5), true, Ok(Decision::Open)),
            (Found::Version(5), false, Ok(Decision::Open)),
            (Found::Version(4), true, Ok(Decision::Migrate)),
            (Found::Version(4), false, Err("not up to date")),
            (Found::Nothing, true, Ok(Decision::Migrate)),
            (Found::Nothing, false, Err("no schema")),
            (Found::Version(6), true, Err("newer program")),
            (Found::Version(6), false, Err("newer program")),
            (foreign(), true, Err("another program's")),
            (foreign(), false, Err("another program's")),
        ] {
            let decision = decide(found.clone(), 5, may_migrate);
            match (&decision, expected) {
                (Decision::Refuse(reason), Err(part)) => assert!(reason.contains(part), "{reason}"),
                (decision, expected) => assert_eq!(Ok(decision), expected.as_ref(), "{found:?}"),
            }
        }
    }
}
