//! The dashboard in a real browser.

mod activity;
mod connection;
mod filters;
mod fleet;
mod gaps;
mod layout;
mod reports;
mod rocket;
mod sign_in;
mod text;

use testkit::browser::Browser;
use testkit::client::Client;

const LIVE: &str = "return document.querySelector('#connection').dataset.state";

/// The channels of the table's rows, in order.
const ROWS: &str = "return [...document.querySelectorAll('#rockets tr[data-channel]')]\
                    .map(row => row.dataset.channel)";

/// The text of a rocket's row.
fn row(channel: &str) -> String {
    format!("document.querySelector('#rockets tr[data-channel=\"{channel}\"]').textContent")
}

fn post(client: &mut Client, messages: &[serde_json::Value]) {
    for message in messages {
        assert_eq!(client.post(message).status, 204);
    }
}

/// The text of an element.
fn text(selector: &str) -> String {
    format!("return document.querySelector('{selector}').textContent")
}

/// Whether an element is visible.
fn visible(selector: &str) -> String {
    format!("return document.querySelector('{selector}').checkVisibility()")
}

/// Keeps the addresses of all streams that the page opens.
const KEEP_STREAMS: &str = "window.streams = []; const Original = EventSource;
    window.EventSource = class extends Original {
        constructor(url) { super(url); window.streams.push(url); }
    };";

/// Sets a field of the filters, as a user does who then leaves it.
fn set_filter(browser: &mut Browser, name: &str, value: &str) {
    browser.run(&format!(
        "const field = document.querySelector('#filter-{name}'); field.value = {};
         field.dispatchEvent(new Event('change', {{ bubbles: true }}))",
        serde_json::json!(value)
    ));
}

/// Types into the search field.
fn search(browser: &mut Browser, prefix: &str) {
    browser.run(&format!(
        "const field = document.querySelector('#filter-channelPrefix');
         field.focus(); field.value = {};
         field.dispatchEvent(new Event('input', {{ bubbles: true }}))",
        serde_json::json!(prefix)
    ));
}

/// Selects a status filter, as a user does.
fn filter_by_status(browser: &mut Browser, status: &str) {
    browser.run(&format!(
        "const filter = document.querySelector('#filter-status'); filter.value = '{status}';
         filter.dispatchEvent(new Event('change', {{ bubbles: true }}))"
    ));
}
