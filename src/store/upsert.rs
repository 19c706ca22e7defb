//! How new messages change a row of `rockets`. Both engines share the SQL, except for the name of
//! the function that returns the greater of two values.

/// The end of an upsert into `rockets` whose proposed row sums up the new messages.
///
/// `received` is the expression for the time of receipt, in most statements
/// `excluded.last_received`. Messages that change only the speed, which are most, can omit the
/// `guarded` columns: an engine may rewrite the index of every column that a statement names,
/// changed or not.
pub(super) fn on_conflict(greatest: &str, received: &str, guarded: bool) -> String {
    format!(
        "ON CONFLICT (channel) DO UPDATE SET {}",
        assignments(greatest, "excluded", received, guarded)
    )
}

/// The assignments of an update of `rockets` by `new`, a row that sums up the new messages. Every
/// column is guarded by its current value, so that an older message never overwrites a newer one,
/// whichever process wrote that.
pub(super) fn assignments(greatest: &str, new: &str, received: &str, guarded: bool) -> String {
    let mut assignments = vec![format!("speed = rockets.speed + {new}.speed")];
    assignments.push(format!("processed = rockets.processed + {new}.processed"));
    for column in ["latest_update", "complete_through", "highest"] {
        assignments.push(format!("{column} = {greatest}(rockets.{column}, {new}.{column})"));
    }
    assignments.push(format!("last_received = {greatest}(rockets.last_received, {received})"));
    let guards = [
        ("latest_launch_msg", "type"),
        ("latest_mission_msg", "mission"),
        ("latest_exploded_msg", "exploded_reason"),
    ];
    for (number, value) in guards.into_iter().filter(|_| guarded) {
        for column in [number, value] {
            assignments.push(format!(
                "{column} = CASE WHEN {new}.{number} > coalesce(rockets.{number}, 0)
                                 THEN {new}.{column} ELSE rockets.{column} END"
            ));
        }
    }
    assignments.join(", ")
}
