//! What is seen on narrow and zoomed screens, in forced colours, and on paper.

use serde_json::json;
use testkit::app::{App, Backend};
use testkit::browser::Browser;
use testkit::message::{exploded, faster, launched};
use testkit::sqlite::sql;

use super::*;

#[test]
fn numbers_and_signs_are_never_cut_off() {
    let app = App::spawn(Backend::SqliteFile);
    let mut client = app.client();
    post(
        &mut client,
        &[launched("fast", 1), launched("slow", 1), launched("usual", 1), faster("limit", 1, 1)],
    );
    let speeds = [("fast", 161_040_000_000_i64), ("slow", -6_440_303_457_353), ("limit", i64::MIN)];
    for (channel, speed) in speeds {
        sql(
            &app.database(),
            &format!("UPDATE rockets SET speed = {speed} WHERE channel = '{channel}'"),
        );
    }
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", app.address));
    browser.until(&format!("{ROWS}.length"), &json!(4));
    let told = browser.run(&format!("return {}", row("limit")));
    assert!(
        told.as_str().unwrap().contains("-9,223,372,036,854,775,808"),
        "to the last digit: {told}"
    );
    for width in [390, 700, 1_000, 1_224, 1_280, 1_399, 1_400, 1_600, 1_920] {
        browser.look_like(width, false);
        let cut = browser.run(
            "document.querySelectorAll('td.last-received').forEach(cell => {
                 cell.classList.add('silent');
                 cell.firstElementChild.textContent = '12,345 d ago';
             });
             const columns = '.status, .speed, .latest-update, .last-received, .messages';
             return [...document.querySelectorAll(`#rockets td:is(${columns})`)]
                 .filter(cell => cell.scrollWidth > cell.clientWidth
                     || cell.scrollHeight > cell.clientHeight)
                 .map(cell => cell.textContent)",
        );
        assert_eq!(cut, json!([]), "{width}");
        // Ordinary values take one line.
        let height = "return document.querySelector('tr[data-channel=CHANNEL] .speed > span')\
                      .getClientRects().length";
        for channel in ["usual", "fast"] {
            assert_eq!(browser.run(&height.replace("CHANNEL", channel)), 1, "{channel} {width}");
        }
    }
}

#[test]
fn nothing_hides_the_filters_at_a_large_zoom() {
    let app = App::spawn(Backend::SqliteMemory);
    let messages: Vec<_> = (0..40).map(|number| launched(&format!("r{number}"), 1)).collect();
    post(&mut app.client(), &messages);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", app.address));
    browser.until(&format!("{ROWS}.length"), &json!(40));
    for (width, height) in [(640, 450), (320, 256), (1_280, 450), (390, 844)] {
        browser.resize(width, height, 2);
        let hidden = browser.run(
            "return [...document.querySelectorAll('#filters :is(input, select, button)')]
                .filter(field => field.checkVisibility()).filter(field => {
                    field.scrollIntoView({ block: 'end' });
                    const { x, y, width, height } = field.getBoundingClientRect();
                    const seen = document.elementFromPoint(x + width / 2, y + height / 2);
                    return !field.contains(seen);
                }).map(field => field.id)",
        );
        assert_eq!(hidden, json!([]), "{width} x {height}");
        let wide = browser.run(
            "return document.documentElement.scrollWidth > document.documentElement.clientWidth",
        );
        assert_eq!(wide, false, "{width} x {height}: nothing has to be scrolled sideways");
    }
}

#[test]
fn forced_colours_and_paper_show_what_the_screen_shows() {
    let app = App::spawn(Backend::SqliteMemory);
    post(
        &mut app.client(),
        &[launched("a", 1), launched("b", 1), exploded("b", 2, "PRESSURE_VESSEL_FAILURE")],
    );
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/#/?mission=ARTEMIS", app.address));
    browser
        .until("return document.querySelectorAll('#missions a[aria-current]').length", &json!(1));
    browser.emulate_media("", "forced-colors", "active");
    let style = |selector: &str, property: &str| {
        format!("return getComputedStyle(document.querySelector('{selector}')).{property}")
    };
    // The active filter has an outline, and the two parts of a bar differ from each other and from
    // the background.
    let outline = style("#missions a[aria-current]", "outlineStyle");
    assert_eq!(browser.run(&outline), "solid");
    browser.run("location.hash = '#/'");
    browser.until(&style("a.tile[aria-current]", "outlineStyle"), &json!("solid"));
    let canvas = browser.run(&style("body", "backgroundColor"));
    assert_ne!(browser.run(&style("#missions .alive", "backgroundColor")), canvas);
    assert_ne!(browser.run(&style("#missions .exploded", "backgroundImage")), "none");
    browser.emulate_media("print", "prefers-color-scheme", "dark");
    for pressed in ["#next", "#filters button[type=submit]", ".top nav", "footer nav"] {
        assert_eq!(browser.run(&visible(pressed)), false, "{pressed}");
    }
    for shown in ["#range", "#filter-mission", "#rockets td.speed", "#rows-as-of", "#connection"] {
        assert_eq!(browser.run(&visible(shown)), true, "{shown}");
    }
    assert_eq!(browser.run(&style(".pager", "position")), "static", "nothing lies on the rows");
    assert_eq!(browser.run(&style("#rockets td", "display")), "table-cell");
    assert_eq!(
        browser.run(&style("#rockets td.speed", "color")),
        "rgb(26, 33, 44)",
        "dark text, for paper is light"
    );
}
