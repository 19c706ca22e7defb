//! Takes the screenshots of the dashboard for the README: `./run screenshots`. A simulated fleet is
//! sent to a private service, and a headless Chromium shows it.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use testkit::browser::Browser;
use testkit::client::Client;
use testkit::process::{Service, program};

/// A screenshot: its name, its width, and whether it is dark.
type Picture = (&'static str, u32, bool);

fn main() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    std::fs::create_dir_all(&directory).unwrap();
    let service = Service::start("memory");
    let url = format!("http://{}", service.address);
    let mut browser = Browser::start();
    let mut take = |(name, width, dark): Picture, fragment: &str, ready: &str| {
        browser.look_like(width, dark);
        browser.open("about:blank");
        browser.open(&format!("{url}/{fragment}"));
        browser.until(ready, &json!(true));
        let picture = STANDARD.decode(browser.screenshot()).unwrap();
        std::fs::write(directory.join(format!("{name}.png")), picture).unwrap();
        eprintln!("docs/{name}.png");
    };
    take(("empty", 1_280, false), "", "return !document.querySelector('#empty').hidden");
    // Numbers change while the fleet is being sent. Some are lost, so that there are gaps.
    let fleet = ["--rockets", "300", "--messages", "200000", "--seed", "7", "--lossy", "1"];
    let mut launch = program(&[&["launch", &url], &fleet[..]].concat());
    let mut launching = launch
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let moving = "return document.querySelectorAll('#rockets tr[data-channel]').length >= 50 \
                  && /[1-9]/.test(document.querySelector('#message-rate').textContent) \
                  && document.querySelectorAll('#missions li').length > 3";
    take(("fleet", 1_280, false), "", moving);
    take(("fleet-dark", 1_600, true), "", moving);
    take(("fleet-narrow", 380, false), "", moving);
    let fastest = Client::new(service.address).get("/rockets?sort=speed&limit=1").json();
    let channel = fastest["rockets"][0]["channel"].as_str().unwrap().to_owned();
    let known = "return !document.querySelector('#detail-known').hidden \
                 && document.querySelectorAll('#plot *').length > 20 \
                 && document.querySelectorAll('#gaps > li').length > 2";
    take(("rocket", 1_280, false), &format!("#/rockets/{channel}"), known);
    let shown = "return !document.querySelector('#detail-known').hidden";
    take(("rocket-narrow-dark", 380, true), &format!("#/rockets/{channel}"), shown);
    let _ = launching.kill();
    launching.wait().unwrap();
}
