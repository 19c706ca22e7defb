//! The tables and views are a public interface: their names, columns and contents.

use serde_json::{Value, json};
use testkit::app::{App, Backend};
use testkit::message::{exploded, faster, launched};
use testkit::sqlite::{query, sql};

fn columns(database: &std::path::Path, table: &str) -> Vec<String> {
    let rows = query(database, &format!("SELECT name FROM pragma_table_xinfo('{table}')"));
    rows.into_iter().map(|row| row[0].as_str().unwrap().to_owned()).collect()
}

#[test]
fn tables_and_views_have_their_columns() {
    let app = App::spawn(Backend::SqliteFile);
    let rockets = [
        "channel",
        "status",
        "type",
        "speed",
        "mission",
        "exploded_reason",
        "latest_launch_msg",
        "latest_mission_msg",
        "latest_exploded_msg",
        "latest_update",
        "last_received",
        "processed",
        "complete_through",
        "highest",
    ];
    for (table, must) in [
        ("rockets", &rockets[..]),
        ("rockets_exact", &[&rockets[..], &["exact_through"]].concat()[..]),
        ("losses", &["channel", "first_msg", "last_msg", "reason", "declared_at"]),
        ("gaps", &["channel", "first_missing", "last_missing", "after_time", "since", "lost"]),
        (
            "report_missions",
            &["mission", "rockets", "launched", "exploded", "mean_speed", "max_speed"],
        ),
        ("report_types", &["type", "rockets", "launched", "exploded", "mean_speed", "max_speed"]),
        ("report_explosions", &["reason", "rockets", "latest_update"]),
        (
            "report_fleet",
            &[
                "rockets",
                "awaiting_launch",
                "launched",
                "exploded",
                "processed",
                "missing",
                "rockets_with_gaps",
                "latest_update",
            ],
        ),
    ] {
        assert_eq!(columns(&app.database(), table), must, "{table}");
    }
    assert_eq!(
        columns(&app.database(), "processed_ranges")[..3],
        ["channel", "first_msg", "last_msg"]
    );
}

#[test]
fn views_say_what_the_api_says() {
    let app = App::spawn(Backend::SqliteFile);
    let database = app.database();
    let fleet = "SELECT * FROM report_fleet";
    let nulls = [json!(0), json!(0), json!(0), json!(0), json!(0), json!(0), json!(0), Value::Null];
    assert_eq!(query(&database, fleet), [nulls], "an empty fleet");
    for view in ["gaps", "report_missions", "report_types", "report_explosions", "rockets_exact"] {
        assert!(query(&database, &format!("SELECT * FROM {view}")).is_empty(), "{view}");
    }
    let mut client = app.client();
    let mut explosion = exploded("b", 2, "BOOM");
    explosion["metadata"]["messageTime"] = json!("2022-02-02T20:00:00Z");
    for message in [
        launched("a", 1),
        faster("a", 4, 1),
        launched("b", 1),
        explosion,
        faster("c", 3, 7),
        faster("c", 5, 7),
        faster("c", 6, 7),
    ] {
        assert_eq!(client.post(&message).status, 204);
    }
    let late = "2022-02-02T19:39:06.000000Z";
    assert_eq!(
        query(
            &database,
            "SELECT channel, first_missing, last_missing, after_time FROM gaps
             ORDER BY channel, first_missing"
        ),
        [
            [json!("a"), json!(2), json!(3), json!("2022-02-02T18:39:05.863370Z")],
            [json!("c"), json!(1), json!(2), Value::Null],
            [json!("c"), json!(4), json!(4), json!(late)],
        ]
    );
    let missions = [
        [Value::Null, json!(1), json!(0), json!(0), json!(21.0), json!(21)],
        [json!("ARTEMIS"), json!(2), json!(1), json!(1), json!(500.5), json!(501)],
    ];
    assert_eq!(query(&database, "SELECT * FROM report_missions ORDER BY mission"), missions);
    let types = query(&database, "SELECT * FROM report_types ORDER BY type");
    assert_eq!(
        (&types[1][0], &types[1][1..], &types[0]),
        (&json!("Falcon-9"), &missions[1][1..], &missions[0].to_vec())
    );
    assert_eq!(
        query(&database, "SELECT * FROM report_explosions"),
        [[json!("BOOM"), json!(1), json!("2022-02-02T20:00:00.000000Z")]]
    );
    assert_eq!(
        query(&database, fleet),
        [[
            json!(3),
            json!(1),
            json!(1),
            json!(1),
            json!(7),
            json!(5),
            json!(2),
            json!("2022-02-02T20:00:00.000000Z")
        ]]
    );
    let exact = query(
        &database,
        "SELECT channel, status, type, speed, latest_update, complete_through FROM rockets_exact \
         ORDER BY 1",
    );
    assert_eq!(
        exact[2],
        [json!("c"), json!("awaitingLaunch"), Value::Null, json!(0), Value::Null, json!(0)]
    );
    for row in exact {
        let api = app.rocket(row[0].as_str().unwrap(), "exact");
        let members = [
            &api["status"],
            &api["type"],
            &api["speed"],
            &api["latestUpdate"],
            &api["messages"]["completeThrough"],
        ];
        assert_eq!(row[1..].iter().collect::<Vec<_>>(), members);
    }
    // Means are rounded to three digits.
    client.post(&faster("d", 1, 8));
    client.post(&faster("e", 1, 8));
    assert_eq!(
        query(&database, "SELECT mean_speed FROM report_missions WHERE mission IS NULL"),
        [[json!(12.333)]]
    );
}

#[test]
fn a_reader_of_the_file_does_not_hold_up_ingestion() {
    let app = App::spawn(Backend::SqliteFile);
    let mut client = app.client();
    client.post(&launched("r", 1));
    let analyst = rusqlite::Connection::open(app.database()).unwrap();
    analyst.execute_batch("BEGIN; SELECT * FROM rockets;").unwrap();
    for number in 2..200 {
        assert_eq!(client.post(&faster("r", number, 1)).status, 204);
    }
    let seen: i64 = analyst.query_row("SELECT speed FROM rockets", [], |row| row.get(0)).unwrap();
    assert_eq!(seen, 500, "a snapshot stays what it was");
    analyst.execute_batch("COMMIT").unwrap();
    let seen: i64 = analyst.query_row("SELECT speed FROM rockets", [], |row| row.get(0)).unwrap();
    assert_eq!(seen, 698);
}

#[test]
fn the_queries_of_the_guide_to_sql_run() {
    let app = App::spawn(Backend::SqliteFile);
    let mut client = app.client();
    for message in [launched("a", 1), faster("a", 4, 1), launched("b", 1), faster("c", 3, 7)] {
        assert_eq!(client.post(&message).status, 204);
    }
    // As if it had been silent for long.
    sql(
        &app.database(),
        "UPDATE rockets SET last_received = '2022-02-02T00:00:00.000000Z' WHERE channel = 'c'",
    );
    let guide = include_str!("../../../docs/sql.md");
    let queries = guide.split("```sql").nth(1).unwrap().split("```").next().unwrap();
    let answers: Vec<_> = queries
        .split(';')
        .filter(|statement| !statement.trim().is_empty())
        .map(|statement| query(&app.database(), statement))
        .collect();
    // The fleet; one mission; the two that fly; the two that lag; the one that is silent.
    assert_eq!(answers.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 2, 2, 1], "{answers:?}");
}
