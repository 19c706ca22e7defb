//! A panic costs one batch or one request, never the service: one is planted in each place.

use rocket_monitor::store::fault_injection::FailurePoint;
use serde_json::json;
use testkit::app::{App, Backend};
use testkit::client::Client;
use testkit::conformance;
use testkit::events::Events;
use testkit::message::{faster, launched};
use testkit::wait::eventually;

conformance!(
    a_panic_in_a_commit_costs_its_batch,
    a_panic_in_a_read_costs_its_request,
    a_panic_in_the_feed_ends_no_event_stream_for_good,
);

fn a_panic_in_a_commit_costs_its_batch(backend: Backend) {
    for (point, stored) in [
        (FailurePoint::BeforeLoad, false),
        (FailurePoint::BeforeCommit, false),
        (FailurePoint::AfterCommit, true),
        // Outside the store.
        (FailurePoint::BeforeReport, true),
    ] {
        let app = App::spawn(backend);
        let mut client = app.client();
        assert_eq!(client.post(&launched("r", 1)).status, 204);
        app.failures.plan_panic(point, 1);
        client.post(&faster("r", 2, 5)).problem(503);
        eventually("it is ready again", || client.get("/readyz").status == 200);
        let again = client.post(&faster("r", 2, 5));
        assert_eq!(again.status, 204, "{point:?}");
        assert_eq!(again.header("idempotent-replayed"), stored.then_some("true"), "{point:?}");
        assert_eq!(app.rocket("r", "exact")["speed"], 505);
    }
}

fn a_panic_in_a_read_costs_its_request(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    assert_eq!(client.post(&launched("r", 1)).status, 204);
    let paths = ["/rockets/r", "/rockets/r?view=both", "/rockets?sort=channel", "/reports/gaps"];
    for (number, path) in (2..).zip(paths) {
        // The feed tells other instances of this meanwhile. The panic is not for it.
        assert_eq!(client.post(&faster("r", number, 1)).status, 204);
        app.failures.plan_panic(FailurePoint::BeforeRead, 1);
        let mut other = app.client();
        let answer = Client::new(app.address).get(path);
        // In the handler itself, or on a thread that reads for it.
        assert!([500, 503].contains(&answer.status), "{path}: {answer:?}");
        answer.problem(answer.status);
        assert_eq!(other.get(path).status, 200, "{path}");
    }
    assert_eq!(client.post(&faster("r", 6, 1)).status, 204);
}

fn a_panic_in_the_feed_ends_no_event_stream_for_good(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    assert_eq!(client.post(&launched("r", 1)).status, 204);
    let mut events = Events::open(app.address, "", None);
    events.snapshot();
    app.failures.plan_panic(FailurePoint::BeforeReadOfChanges, 1);
    assert_eq!(client.post(&faster("r", 2, 5)).status, 204);
    // The stream ends, as it does for a client that is too slow, and a new one has everything.
    eventually("a new stream has the change", || {
        let answer = client.get("/rockets?limit=1");
        answer.json()["rockets"][0]["messages"]["processed"] == json!(2)
    });
    while events.next().is_some() {}
    let mut events = Events::open(app.address, "", None);
    let snapshot = events.snapshot();
    assert_eq!(snapshot.len(), 1);
    assert_eq!(client.post(&faster("r", 3, 5)).status, 204);
    events.until("the next change", |event| event.data["messages"]["processed"] == 3);
}
