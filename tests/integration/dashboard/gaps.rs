//! The gaps of a rocket: shown as a bar and as a list, declared lost, withdrawn; and forgetting it.

use serde_json::json;
use testkit::app::{App, Backend};
use testkit::browser::Browser;
use testkit::client::Client;
use testkit::message::{faster, launched};

use super::sign_in::{guarded, sign_in};
use super::*;

/// The gaps of the list, each with its losses.
const GAPS: &str =
    "return [...document.querySelectorAll('#gaps > li > b')].map(it => it.textContent)";
const LOSSES: &str =
    "return [...document.querySelectorAll('#gaps ul li')].map(it => it.textContent)";
const DIALOG: &str = "return document.querySelector('#change-dialog').open";

/// Contains a text, sooner or later.
fn says(browser: &mut Browser, selector: &str, part: &str) {
    browser.until(&format!("{}.includes({})", text(selector), json!(part)), &json!(true));
}

/// Presses a button of the list.
fn press(browser: &mut Browser, action: &str, first: u32) {
    browser.click(&format!("#gaps button[data-action={action}][data-first=\"{first}\"]"));
    assert_eq!(browser.run(DIALOG), true);
}

/// Fills in a field of the dialog.
fn fill(browser: &mut Browser, field: &str, value: &str) {
    let value = json!(value);
    browser.run(&format!("document.querySelector('#change-{field}').value = {value}"));
}

fn confirm(browser: &mut Browser) {
    browser.click("#change-submit");
}

#[test]
fn gaps_are_declared_lost_and_that_is_withdrawn() {
    let app = App::spawn(Backend::SqliteFile);
    let mut client = app.client();
    post(&mut client, &[launched("r", 1), faster("r", 3, 1_000), faster("r", 7, 30)]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/#/rockets/r", app.address));
    browser.until(GAPS, &json!(["2", "4–6"]));
    says(
        &mut browser,
        "#gaps-summary",
        "4 messages are missing. 3 processed, complete through 1, exact through 1, highest 7.",
    );
    let hostile = "<img src=x onerror=alert(1)>";
    press(&mut browser, "declare", 2);
    fill(&mut browser, "reason", hostile);
    confirm(&mut browser);
    browser.until(DIALOG, &json!(false));
    browser.until(LOSSES, &json!([format!("2 lost: {hostile} Withdraw…")]));
    assert_eq!(browser.run("return document.querySelectorAll('#gaps img').length"), 0);
    assert_eq!(browser.run(&text("#change-status")), "1 number is newly declared lost.");
    says(
        &mut browser,
        "#gaps-summary",
        "4 messages are missing, 1 declared lost. 3 processed, complete through 1, \
         exact through 3,",
    );
    says(&mut browser, "#detail-exact", "1,500");
    says(&mut browser, "#exact-hint", "first gap that is not declared lost: through 3.");
    // What is left of it, and only a part.
    press(&mut browser, "declare", 4);
    fill(&mut browser, "first", "5");
    fill(&mut browser, "reason", "off");
    confirm(&mut browser);
    browser.until(&format!("{LOSSES}.at(-1)"), &json!("5–6 lost: off Withdraw…"));
    let label = "return document.querySelector('#ranges svg').ariaLabel";
    browser.until(
        label,
        &json!(
            "Messages 1 to 7: 3 processed in 3 ranges, 4 missing in 2 gaps, 3 of them declared \
             lost."
        ),
    );
    press(&mut browser, "withdraw", 2);
    assert_eq!(browser.run(&visible("#change-reason")), false);
    confirm(&mut browser);
    browser.until(LOSSES, &json!(["5–6 lost: off Withdraw…"]));
    says(&mut browser, "#gaps-summary", "exact through 1,");
    assert_eq!(client.get("/rockets/r").json()["messages"]["lost"], 2);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn what_cannot_be_declared_is_explained_and_can_be_corrected() {
    let app = App::spawn(Backend::SqliteMemory);
    post(&mut app.client(), &[launched("r", 1), faster("r", 3, 1)]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/#/rockets/r", app.address));
    browser.until(GAPS, &json!(["2"]));
    press(&mut browser, "declare", 2);
    fill(&mut browser, "reason", "off");
    fill(&mut browser, "last", "3");
    confirm(&mut browser);
    says(&mut browser, "#change-problem", "must be below the highest processed number, 3");
    assert_eq!(browser.run(DIALOG), true);
    fill(&mut browser, "last", "2");
    confirm(&mut browser);
    browser.until(LOSSES, &json!(["2 lost: off Withdraw…"]));
    // Another rocket's page closes the dialog of this one.
    press(&mut browser, "withdraw", 2);
    browser.run("location.hash = '#/rockets/other'");
    browser.until(DIALOG, &json!(false));
    browser.until(GAPS, &json!([]));
}

#[test]
fn ten_thousand_gaps_are_pages_and_one_bar() {
    let app = App::spawn(Backend::SqliteMemory);
    let lines = |channel: &str, numbers: &mut dyn Iterator<Item = u32>| -> String {
        numbers.map(|number| faster(channel, number, 1).to_string() + "\n").collect()
    };
    let mut client = app.client();
    client.post_lines(lines("many", &mut (1..=20_001).step_by(2)).as_bytes());
    // One missing number among very many.
    let mut all_but_one = (1..=1_000_u32).chain(1_002..=20_000);
    client.post_lines(lines("one", &mut all_but_one).as_bytes());
    client.post_lines(lines("none", &mut (1..=3)).as_bytes());
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/#/rockets/many", app.address));
    browser.until(&text("#gaps-range"), &json!("Gaps 1–50 of 10,000"));
    let summary = "Messages 1 to 20,001: 10,001 processed in 10,001 ranges, 10,000 missing in \
                   10,000 gaps, \
                   0 of them declared lost.";
    browser.until(&text("#ranges-summary"), &json!(summary));
    browser.click("#gaps-next");
    browser.until(&format!("{GAPS}.length"), &json!(50));
    browser.until(&format!("{GAPS}[0]"), &json!("102"));
    assert_eq!(browser.run(&text("#gaps-range")), "Gaps 51–100 of 10,000");
    browser.click("#gaps-previous");
    browser.until(&format!("{GAPS}[0]"), &json!("2"));
    // It is drawn for the pixels that there are.
    let height =
        |class: &str| format!("return document.querySelector('#ranges .{class}').getBBox().height");
    browser.until(&format!("{} > 0", height("missing")), &json!(true));
    let drawn = "return document.querySelector('#ranges .processed').getAttribute('d').length";
    assert!(browser.run(drawn).as_u64().unwrap() < 40_000);
    browser.run("location.hash = '#/rockets/one'");
    browser.until(GAPS, &json!(["1,001"]));
    assert_eq!(browser.run(&visible("#gaps-pager")), false);
    browser.until(&format!("{} >= 4", height("missing")), &json!(true));
    browser.run("location.hash = '#/rockets/none'");
    browser.until(&text("#ranges-summary"), &json!("3 messages in one range, none missing."));
    browser.until(&height("missing"), &json!(0));
    assert_eq!(browser.run(GAPS), json!([]));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_rocket_is_forgotten_only_after_a_confirmation() {
    let app = App::spawn(Backend::SqliteMemory);
    let mut client = app.client();
    let channel = "a/b%2F?#<b>";
    post(&mut client, &[launched(channel, 1)]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", app.address));
    browser.until(ROWS, &json!([channel]));
    browser.click("#rockets tr[data-channel] a");
    browser.until(&visible("#forget"), &json!(true));
    browser.click("#forget");
    assert_eq!(browser.run(DIALOG), true);
    assert_eq!(browser.run(&text("#change-channel")), channel);
    browser.click("#change-cancel");
    assert_eq!(browser.run(DIALOG), false);
    assert_eq!(browser.run("return document.activeElement.id"), "forget");
    assert_eq!(client.get("/rockets").json()["rockets"].as_array().unwrap().len(), 1);
    browser.click("#forget");
    confirm(&mut browser);
    says(&mut browser, "#detail-notice", "removed");
    assert_eq!(browser.run(&visible("#forget")), false);
    assert_eq!(client.get("/rockets").json()["rockets"], json!([]));
}

#[test]
fn a_channel_without_a_path_can_be_seen_and_not_changed() {
    let app = App::spawn(Backend::SqliteMemory);
    post(&mut app.client(), &[launched(".", 1), faster(".", 3, 1), launched("r", 1)]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/#/rockets/.", app.address));
    browser.until(&visible("#no-path"), &json!(true));
    assert_eq!(browser.run(&visible("#forget")), false);
    browser.run("location.hash = '#/rockets/r'");
    browser.until(&visible("#no-path"), &json!(false));
    browser.until(LIVE, &json!("live"));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_change_asks_for_the_write_token_and_does_not_keep_it() {
    let (service, _directory) = guarded();
    let mut client = Client::new(service.address);
    let token = [("Authorization", "Bearer write-token")];
    for message in [launched("r", 1), faster("r", 3, 1)] {
        let body = message.to_string();
        let answer = client.request("POST", "/messages", &token, body.as_bytes()).unwrap();
        assert_eq!(answer.status, 204);
    }
    let mut browser = Browser::start();
    sign_in(&mut browser, &service);
    browser.run("location.hash = '#/rockets/r'");
    browser.until(GAPS, &json!(["2"]));
    // The session reads. It changes nothing, not even from the service's own page.
    let forgets = "return fetch('rockets/r', { method: 'DELETE' }).then(answer => answer.status)";
    assert_eq!(browser.run(forgets), 401);
    press(&mut browser, "declare", 2);
    assert_eq!(browser.run(&visible("#change-token")), true);
    fill(&mut browser, "reason", "off");
    fill(&mut browser, "token", "read-token");
    confirm(&mut browser);
    says(&mut browser, "#change-problem", "does not accept this token for writing");
    assert_eq!(browser.run(DIALOG), true);
    fill(&mut browser, "token", "write-token");
    confirm(&mut browser);
    browser.until(LOSSES, &json!(["2 lost: off Withdraw…"]));
    // Nothing holds it afterwards, and the session is as it was.
    let kept = "return [document.querySelector('#change-token').value, localStorage.length,
                        sessionStorage.length, document.cookie].join()";
    assert_eq!(browser.run(kept), ",0,0,");
    assert_eq!(browser.run(&visible("#sign-out")), true);
    assert_eq!(browser.run(LIVE), "live");
    browser.click("#forget");
    fill(&mut browser, "token", "write-token");
    browser.click("#change-cancel");
    browser.click("#forget");
    assert_eq!(browser.run("return document.querySelector('#change-token').value"), "");
    fill(&mut browser, "token", "write-token");
    confirm(&mut browser);
    says(&mut browser, "#detail-notice", "removed");
}

/// Such a service has open reads, so nothing tells the page of the token before it is needed.
#[test]
fn a_service_that_reads_without_a_token_asks_for_one_when_it_is_needed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("write").to_str().unwrap().to_owned();
    std::fs::write(&path, "write-token").unwrap();
    let options = ["--database", "memory", "--write-token-file", &path];
    let service = testkit::process::Service::start_with(&options);
    let token = [("Authorization", "Bearer write-token")];
    let body = launched("r", 1).to_string();
    Client::new(service.address).request("POST", "/messages", &token, body.as_bytes()).unwrap();
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/#/rockets/r", service.address));
    browser.until(&visible("#forget"), &json!(true));
    browser.click("#forget");
    assert_eq!(browser.run(&visible("#change-token")), false);
    confirm(&mut browser);
    says(&mut browser, "#change-problem", "requires a write token");
    assert_eq!(browser.run(&visible("#change-token")), true);
    fill(&mut browser, "token", "write-token");
    confirm(&mut browser);
    says(&mut browser, "#detail-notice", "removed");
}
