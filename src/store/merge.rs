//! How a row of `rockets` takes in what new messages came to: the same for every engine, but for the name of the
//! function that gives the greater of two values.

/// The end of an upsert into `rockets` whose proposed row holds what the new messages came to. Every column is guarded
/// by what stands there, so that an older message never overwrites a newer one, whoever wrote that.
///
/// `received` is where the time of receipt is, which most statements propose as `excluded.last_received`. Messages that
/// change nothing but the speed, which most do, can leave out the columns that `guarded` says: an engine may rewrite the
/// index of every column that a statement names, changed or not.
pub(super) fn on_conflict(greatest: &str, received: &str, guarded: bool) -> String {
    let mut assignments = vec!["speed = rockets.speed + excluded.speed".to_owned()];
    assignments.push("processed = rockets.processed + excluded.processed".to_owned());
    for column in ["latest_update", "complete_through", "highest"] {
        assignments.push(format!("{column} = {greatest}(rockets.{column}, excluded.{column})"));
    }
    assignments.push(format!("last_received = {greatest}(rockets.last_received, {received})"));
    let guards =
        [("latest_launch_msg", "type"), ("latest_mission_msg", "mission"), ("latest_exploded_msg", "exploded_reason")];
    for (number, value) in guards.into_iter().filter(|_| guarded) {
        for column in [number, value] {
            assignments.push(format!(
                "{column} = CASE WHEN excluded.{number} > coalesce(rockets.{number}, 0)
                                 THEN excluded.{column} ELSE rockets.{column} END"
            ));
        }
    }
    format!("ON CONFLICT (channel) DO UPDATE SET {}", assignments.join(", "))
}
