//! What is deployed: one file that needs the C library and nothing else, and the files in `deploy`.

use std::process::Command;

use serde_json::Value;
use testkit::app::{App, Backend};
use testkit::process::stderr;

#[test]
fn the_program_needs_the_c_library_and_nothing_else() {
    let output = Command::new("readelf")
        .args(["--dynamic", "--wide", env!("CARGO_BIN_EXE_rocket-monitor")])
        .output();
    let output = output.expect("readelf is there, for it comes with the linker (binutils)");
    assert!(output.status.success());
    let section = String::from_utf8(output.stdout).unwrap();
    let needed: Vec<&str> = section
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| line.split(['[', ']']).nth(1))
        .collect();
    assert!(needed.contains(&"libc.so.6"), "{needed:?}");
    // The dynamic loader and the math library are parts of the C library.
    let part = |library: &&str| {
        ["libc.so.", "libm.so.", "ld-linux"].iter().any(|part| library.starts_with(part))
    };
    assert!(needed.iter().all(part), "{needed:?}");
}

/// A file in `deploy`.
fn deployed(name: &str) -> String {
    std::fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name),
    )
    .unwrap()
}

#[test]
fn the_grafana_dashboard_shows_metrics_that_exist() {
    let app = App::spawn(Backend::SqliteFile);
    let mut client = app.client();
    // So that something was answered.
    client.get("/livez");
    let metrics = String::from_utf8(client.get("/metrics").body).unwrap();
    let exist =
        |name: &str| metrics.lines().any(|line| line.starts_with(&format!("# TYPE {name} ")));
    let dashboard = deployed("grafana-dashboard.json");
    let json: Value = serde_json::from_str(&dashboard).unwrap();
    assert!(json["panels"].as_array().unwrap().len() > 10);
    let names = dashboard.split("rocket_monitor_").skip(1).map(|rest| {
        let end = rest.find(|char: char| !char.is_ascii_alphanumeric() && char != '_').unwrap();
        format!("rocket_monitor_{}", rest[..end].trim_end_matches("_bucket"))
    });
    let unknown: Vec<String> = names.filter(|name| !exist(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn the_systemd_unit_is_sound() {
    let directory = tempfile::tempdir().unwrap();
    let unit = directory.path().join("rocket-monitor.service");
    // The program is not where it will be installed.
    let text = deployed("rocket-monitor.service");
    let here = text.replace("/usr/local/bin/rocket-monitor", env!("CARGO_BIN_EXE_rocket-monitor"));
    assert_ne!(here, text);
    std::fs::write(&unit, here).unwrap();
    let verified = Command::new("systemd-analyze").arg("verify").arg(&unit).output();
    let verified = verified.expect("systemd-analyze is there: on Debian, apt-get install systemd");
    assert!(verified.status.success(), "{}", stderr(&verified));
    assert!(!stderr(&verified).contains("rocket-monitor.service"), "{}", stderr(&verified));
}
