//! The last hour: the rate of messages, and the latest explosions.

use serde_json::json;
use testkit::app::{App, Backend};
use testkit::browser::Browser;
use testkit::message::{exploded, launched};

use super::*;

const EXPLOSIONS: &str = "return [...document.querySelectorAll('#explosions li')]\
                          .map(it => it.querySelector('a').textContent + ': ' \
                               + it.querySelector('.reason').textContent)";

#[test]
fn the_last_hour_is_plotted_and_described() {
    let app = App::spawn(Backend::SqliteMemory);
    let mut client = app.client();
    let message = launched("a", 1);
    post(&mut client, &[message.clone(), message, launched("b", 1)]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", app.address));
    let summary =
        format!("{}.startsWith('2 new messages and 1 duplicate in ')", text("#activity-summary"));
    browser.until(&summary, &json!(true));
    // The first interval has a rate when it is a few seconds old.
    browser.until("return document.querySelectorAll('#activity-plot path.line').length", &json!(1));
    let label = "return document.querySelector('#activity-plot svg').ariaLabel";
    let label = browser.run(label);
    let label = label.as_str().unwrap();
    assert!(
        label.contains("Messages per second over time") && label.contains("Highest rate"),
        "{label}"
    );
    // Live, without a reload.
    post(&mut client, &[launched("c", 1)]);
    let summary = format!("{}.startsWith('3 new messages')", text("#activity-summary"));
    browser.until(&summary, &json!(true));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn explosions_are_listed_as_text_and_lead_to_their_rockets() {
    let app = App::spawn(Backend::SqliteMemory);
    let mut client = app.client();
    post(&mut client, &[launched("a", 1)]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", app.address));
    browser.until(&visible("#no-explosions"), &json!(true));
    let (channel, reason) = ("\"><b>c</b>/?#", "<img src=x onerror=alert(1)>");
    post(&mut client, &[exploded("a", 2, "BOOM"), exploded(channel, 1, reason)]);
    let expected = json!([format!("{channel}: {reason}"), "a: BOOM"]);
    browser.until(EXPLOSIONS, &expected);
    assert_eq!(
        browser.run("return document.querySelectorAll('#explosions :is(img, b)').length"),
        0
    );
    assert_eq!(browser.run(&visible("#no-explosions")), false);
    // A new one comes first, and the focus stays on the row that has it.
    browser.run("document.querySelector('#explosions li:last-child a').focus()");
    post(&mut client, &[exploded("b", 1, "LATER")]);
    browser.until(&format!("{EXPLOSIONS}[0]"), &json!("b: LATER"));
    assert_eq!(browser.run("return document.activeElement.textContent"), "a");
    browser.click("#explosions li:nth-child(2) a");
    browser.until(&text("#detail-channel"), &json!(channel));
    browser.until(&visible("#detail-known"), &json!(true));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
