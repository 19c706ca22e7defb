//! That the work of the database doesn't grow with its tables.

use serde_json::Value;
use testkit::client::Client;
use testkit::message::faster;
use testkit::postgres::{TestDatabase, query};
use testkit::process::Service;
use testkit::wait::eventually;

const ROCKETS: u64 = 2_000;
const SINGLE_MESSAGES: u64 = 100;

/// Postgres keeps the plans that it makes for empty tables, of which it knows nothing.
#[test]
fn a_message_reads_only_its_own_rows_of_tables_that_were_empty() {
    let database = TestDatabase::create();
    let mut service = Service::start(&database.url);
    let mut client = Client::new(service.address);
    let post = |client: &mut Client, messages: &mut dyn Iterator<Item = Value>| {
        let lines: String = messages.map(|message| message.to_string() + "\n").collect();
        assert_eq!(client.post_lines(lines.as_bytes()).json()["rejected"], 0);
    };
    // Each statement is planned: message 2 removes the range of message 3, and updates its rocket.
    for number in [1, 3, 2] {
        post(&mut client, &mut std::iter::once(faster("first", number, 1)));
    }
    let many = |number| (0..ROCKETS).map(move |rocket| faster(&format!("r{rocket}"), number, 1));
    post(&mut client, &mut many(1).chain(many(3)));
    for message in many(2).take(SINGLE_MESSAGES as usize) {
        assert_eq!(client.post(&message).status, 204);
    }
    assert!(service.terminate().success());
    let sum = |column: &str, view: &str| {
        let sql = format!(
            "SELECT sum({column}) AS rows FROM {view} \
             WHERE relname IN ('rockets', 'processed_ranges')"
        );
        query(&database.url, &sql)[0]["rows"].as_u64()
    };
    // A server process reports what it has done when it ends.
    eventually("the statistics are complete", || {
        sum("n_tup_del", "pg_stat_user_tables") == Some(1 + SINGLE_MESSAGES)
    });
    let read = sum("idx_tup_read", "pg_stat_user_indexes").unwrap();
    assert!(read < 10 * (2 * ROCKETS + SINGLE_MESSAGES), "{read} entries of indexes were read");
}
