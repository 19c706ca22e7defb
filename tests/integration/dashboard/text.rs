//! Text from senders: markup, invisible characters and emojis.

use serde_json::json;
use testkit::app::{App, Backend};
use testkit::browser::Browser;
use testkit::message::{launched, launched_as};

use super::*;

/// The codes of the invisible characters that are marked in an element.
fn codes(place: &str) -> String {
    let marks = format!("[...document.querySelectorAll('{place} .unseen')]");
    format!("return {marks}.map(it => it.dataset.code)")
}

#[test]
fn hostile_text_is_text() {
    let app = App::spawn(Backend::SqliteMemory);
    let mut client = app.client();
    let hostile = "<img src=x onerror=alert(1)>";
    let mut message = launched("\"><b>c</b>", 1);
    message["message"]["mission"] = json!(hostile);
    message["message"]["type"] = json!("{{7*7}}<script>alert(2)</script>");
    post(&mut client, &[message]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", app.address));
    browser.until(&format!("{ROWS}.length"), &json!(1));
    let told =
        browser.run("return document.querySelector('#rockets tr[data-channel]').textContent");
    let told = told.as_str().unwrap();
    assert!(
        told.contains(hostile) && told.contains("{{7*7}}<script>") && told.contains("\"><b>c</b>"),
        "{told}"
    );
    assert_eq!(
        browser.run("return document.querySelectorAll('main img, main b > b, main script').length"),
        0
    );
    // The page of the rocket, whose URL needs escaping.
    browser.click("#rockets tr[data-channel] a");
    browser.until("return document.querySelector('#detail').hidden", &json!(false));
    browser.until(
        "return document.querySelector('#detail-channel').textContent",
        &json!("\"><b>c</b>"),
    );
    let both = "return ['#detail-best-effort', '#detail-exact'].every(view => \
                document.querySelector(view).textContent.includes('<img src=x onerror=alert(1)>'))";
    browser.until(both, &json!(true));
    assert_eq!(
        browser.run("return document.querySelectorAll('#detail img, #detail script').length"),
        0
    );
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn text_that_cannot_be_seen_is_named() {
    let app = App::spawn(Backend::SqliteMemory);
    let mut client = app.client();
    let (zero_width, reversed) = ("\u{200b}\u{2060}", "ARTEMIS\u{202e}SIMETRA");
    post(&mut client, &[launched_as(zero_width, 1, " ", 500, reversed)]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", app.address));
    browser.until(ROWS, &json!([zero_width]));
    assert_eq!(browser.run(&codes("#rockets .channel")), json!(["U+200B", "U+2060"]));
    assert_eq!(browser.run(&codes("#rockets .mission")), json!(["U+202E"]));
    assert_eq!(browser.run(&codes("#rockets .type")), json!(["U+0020"]));
    // Copying gives exactly what was sent.
    assert_eq!(browser.run(&text("#rockets td.channel")), zero_width);
    assert_eq!(browser.run(&text("#rockets td.mission")), reversed);
    browser.click("#rockets td.channel a");
    browser.until(&visible("#detail-known"), &json!(true));
    assert_eq!(browser.run(&codes("#detail-channel")), json!(["U+200B", "U+2060"]));
    assert_eq!(browser.run("return document.title"), "[U+200B][U+2060] – Rocket Monitor");
}

#[test]
fn what_belongs_to_an_emoji_stays_in_it() {
    let app = App::spawn(Backend::SqliteMemory);
    let whole = "🏳️‍🌈 👩‍🚀 👩🏽‍🚀 🧑‍⚕️ 1️⃣ \u{600}12";
    // The same characters where they are no part of an emoji hide something.
    let hiding = "a\u{200d}🚀\u{fe0f}\u{fe0f}\u{200d}b\u{200c}c\u{fe0f}";
    post(&mut app.client(), &[launched_as(whole, 1, hiding, 500, whole)]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", app.address));
    browser.until(ROWS, &json!([whole]));
    let parts = |place: &str| format!("return document.querySelector('{place}').childNodes.length");
    for cell in ["#rockets td.channel > a", "#rockets td.mission > span", "#missions .name"] {
        browser.until(&parts(cell), &json!(1));
        assert_eq!(browser.run(&codes(cell)), json!([]), "{cell}");
    }
    assert_eq!(browser.run("return document.querySelector('#rockets td.channel').title"), whole);
    let hidden = json!(["U+200D", "U+FE0F", "U+200D", "U+200C", "U+FE0F"]);
    assert_eq!(browser.run(&codes("#rockets td.type")), hidden);
}
