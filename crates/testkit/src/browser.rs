//! A headless Chromium, driven over the parts of WebDriver that these tests need
//! (<https://www.w3.org/TR/webdriver2/>).

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::Client;
use crate::wait::eventually;

/// A browser with one window. Dropping it ends the browser, and removes its profile.
pub struct Browser {
    _driver: Driver,
    client: Client,
    session: String,
    _profile: TempDir,
}

/// The program that drives the browser. It is ended even if the browser didn't start.
struct Driver(Child);

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The key of an element reference.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

impl Browser {
    pub fn start() -> Self {
        let driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut driver = Driver(driver.expect(
            "Chromium and its driver are there: \
             on Debian, apt-get install chromium chromium-driver",
        ));
        let mut said = BufReader::new(driver.0.stdout.take().unwrap()).lines();
        let port: u16 = loop {
            let line = said.next().expect("chromedriver ended").unwrap();
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').parse().unwrap();
            }
        };
        let profile = tempfile::tempdir().unwrap();
        let mut client = Client::new(([127, 0, 0, 1], port).into());
        let data = format!("--user-data-dir={}", profile.path().display());
        // Without these, it checks for updates and contacts its vendor.
        let args = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1280,900",
            &data,
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": args },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let answer = command(&mut client, "POST", "/session", &wanted);
        let session = answer["sessionId"].as_str().unwrap().to_owned();
        Self { _driver: driver, client, session, _profile: profile }
    }

    fn command(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let path = format!("/session/{}{path}", self.session);
        command(&mut self.client, method, &path, body)
    }

    pub fn open(&mut self, url: &str) {
        self.command("POST", "/url", &json!({ "url": url }));
    }

    /// Runs a script, and returns its result.
    pub fn run(&mut self, script: &str) -> Value {
        self.command("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Polls until a script returns this value.
    pub fn until(&mut self, script: &str, expected: &Value) {
        eventually(script, || self.run(script) == *expected);
    }

    /// Clicks an element as a user would.
    pub fn click(&mut self, selector: &str) {
        let element = self.find(selector);
        self.command("POST", &format!("/element/{element}/click"), &json!({}));
    }

    fn find(&mut self, selector: &str) -> String {
        let found = self.command(
            "POST",
            "/element",
            &json!({ "using": "css selector", "value": selector }),
        );
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    /// Sets the width of the page, and whether the user prefers dark mode.
    pub fn look_like(&mut self, width: u32, dark: bool) {
        let scheme = if dark { "dark" } else { "light" };
        self.resize(width, 900, 1);
        self.emulate_media("", "prefers-color-scheme", scheme);
    }

    /// Sets the page's size in CSS pixels, and its zoom in screen pixels per CSS pixel.
    pub fn resize(&mut self, width: u32, height: u32, zoom: u32) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": zoom, "mobile": width < 600,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Sets the medium (`print`, or the screen if empty), and one media feature.
    pub fn emulate_media(&mut self, medium: &str, feature: &str, value: &str) {
        let media = json!({ "media": medium, "features": [{ "name": feature, "value": value }] });
        self.devtools("Emulation.setEmulatedMedia", &media);
    }

    /// Runs a script in each page before its own scripts.
    pub fn run_before_pages(&mut self, script: &str) {
        self.devtools("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": script }));
    }

    /// Sends a Chrome DevTools Protocol command.
    fn devtools(&mut self, command: &str, params: &Value) {
        self.command("POST", "/goog/cdp/execute", &json!({ "cmd": command, "params": params }));
    }

    /// A screenshot: PNG in base64.
    pub fn screenshot(&mut self) -> String {
        self.command("GET", "/screenshot", &json!({})).as_str().unwrap().to_owned()
    }

    /// The browser's complaints, except for connections that failed.
    pub fn complaints(&mut self) -> Vec<String> {
        let log = self.command("POST", "/se/log", &json!({ "type": "browser" }));
        let entries = log.as_array().unwrap().iter().filter(|entry| entry["level"] == "SEVERE");
        let messages = entries.map(|entry| entry["message"].as_str().unwrap().to_owned());
        messages.filter(|message| !message.contains("net::ERR_")).collect()
    }
}

fn command(client: &mut Client, method: &str, path: &str, body: &Value) -> Value {
    let answer = client.request(
        method,
        path,
        &[("Content-Type", "application/json")],
        body.to_string().as_bytes(),
    );
    let answer = answer.unwrap();
    let json = answer.json();
    assert_eq!(answer.status, 200, "{method} {path} {body}: {json}");
    json["value"].clone()
}

impl Drop for Browser {
    fn drop(&mut self) {
        // A second panic would abort the tests.
        let path = format!("/session/{}", self.session);
        let _ = self.client.request("DELETE", &path, &[], b"");
    }
}
