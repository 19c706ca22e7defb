//! `give-up`: declares missing messages lost.

use serde_json::{Value, json};
use testkit::app::{App, Backend};
use testkit::client::rocket;
use testkit::conformance;
use testkit::message::{faster, launched};
use testkit::process::{run, stderr, stdout};
use testkit::wait::eventually;

conformance!(numbers_of_a_channel_are_given_up, old_gaps_are_given_up);

/// Runs `give-up` on the app's database. Returns its exit status and output.
fn give_up(app: &App, args: &[&str]) -> (Option<i32>, String) {
    let database = app.database_argument();
    let output = run(&[&["give-up"], args, &["--database", &database]].concat());
    (output.status.code(), stdout(&output) + &stderr(&output))
}

/// What is known of the rocket's losses.
fn lost(app: &App) -> (Value, Value) {
    let messages = &rocket(&mut app.client(), "r", "exact")["messages"];
    (messages["lost"].clone(), messages["exactThrough"].clone())
}

fn fill(app: &App) {
    for message in [launched("r", 1), faster("r", 4, 10), faster("r", 9, 100)] {
        assert_eq!(app.client().post(&message).status, 204);
    }
}

fn numbers_of_a_channel_are_given_up(backend: Backend) {
    if matches!(backend, Backend::SqliteMemory) {
        // No command can read it.
        return;
    }
    let app = App::spawn(backend);
    fill(&app);
    let would = give_up(&app, &["r", "2-3", "--reason", "gone", "--dry-run"]);
    assert_eq!(would, (Some(0), "r 2-3: 2\nwould be newly lost: 2\n".to_owned()));
    assert_eq!(lost(&app), (json!(0), json!(1)));
    let done = give_up(&app, &["r", "2-3", "--reason", "gone"]);
    assert_eq!(done, (Some(0), "newly lost: 2\n".to_owned()));
    assert_eq!(lost(&app), (json!(2), json!(4)));
    let again = give_up(&app, &["r", "3", "--reason", "gone"]);
    assert_eq!(again, (Some(0), "newly lost: 0\n".to_owned()));
    let withdrawn = give_up(&app, &["r", "2", "--withdraw"]);
    assert_eq!(withdrawn, (Some(0), "no longer lost: 1\n".to_owned()));
    assert_eq!(lost(&app), (json!(1), json!(1)));
    for (args, status, why) in [
        (&["q", "2", "--reason", "gone"][..], 1, "no message of channel q"),
        (&["r", "5-9", "--reason", "gone"], 1, "not below the highest"),
        (&["r", "5", "--reason", ""], 2, "must hold 1 to 255 characters"),
        (&["r", "5"], 2, "--reason"),
        (&["r", "--reason", "gone"], 2, "FIRST"),
        (&["r", "0", "--reason", "gone"], 2, "must be a number"),
        (&["--reason", "gone"], 2, "--older-than"),
        (&["r", "5", "--older-than", "1d", "--reason", "gone"], 2, "cannot be used with"),
        (&["--older-than", "1w", "--reason", "gone"], 2, "must be an integer and a unit"),
    ] {
        let (actual, said) = give_up(&app, args);
        assert!(actual == Some(status) && said.contains(why), "{args:?} {actual:?}: {said}");
    }
    assert_eq!(lost(&app), (json!(1), json!(1)));
}

fn old_gaps_are_given_up(backend: Backend) {
    if matches!(backend, Backend::SqliteMemory) {
        return;
    }
    let app = App::spawn(backend);
    fill(&app);
    let none = give_up(&app, &["--older-than", "1h", "--reason", "gone"]);
    assert_eq!(none, (Some(0), "newly lost: 0\n".to_owned()));
    give_up(&app, &["r", "3", "--reason", "earlier"]);
    eventually("the gaps are a second old", || {
        let (_, said) = give_up(&app, &["--older-than", "1s", "--reason", "gone", "--dry-run"]);
        said == "r 2-3: 1\nr 5-8: 4\nwould be newly lost: 5\n"
    });
    let done = give_up(&app, &["--older-than", "1s", "--reason", "gone"]);
    assert_eq!(done, (Some(0), "newly lost: 5\n".to_owned()));
    assert_eq!(lost(&app), (json!(6), json!(9)));
    let gaps = app.client().get("/rockets/r/gaps").json();
    let reasons: Vec<&Value> = gaps["gaps"][0]["lost"].as_array().unwrap().iter().collect();
    let reasons: Vec<&Value> = reasons.iter().map(|loss| &loss["reason"]).collect();
    assert_eq!(reasons, ["gone", "earlier"]);
    let withdrawn = give_up(&app, &["--older-than", "1s", "--withdraw"]);
    assert_eq!(withdrawn, (Some(0), "no longer lost: 6\n".to_owned()));
    assert_eq!(lost(&app), (json!(0), json!(1)));
}
