//! The API description: checked against the service's behaviour, and used as others use it, by
//! generated clients.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use testkit::app::{App, Backend};
use testkit::client::Client;
use testkit::message::launched;
use testkit::process::{Service, program};

const WRITE: &str = "write-4711";
const READ: &str = "read-0815";

fn with_tokens() -> Service {
    let mut command = program(&["serve", "--database", "memory", "--listen", "127.0.0.1:0"]);
    command.env("ROCKET_MONITOR_WRITE_TOKEN", WRITE).env("ROCKET_MONITOR_READ_TOKEN", READ);
    Service::spawn(command)
}

/// The methods of each path, each with its operation.
fn operations(description: &Value) -> Vec<(String, String, &Value)> {
    let paths = description["paths"].as_object().unwrap().iter();
    let operations = paths.flat_map(|(path, item)| {
        let operations = item.as_object().unwrap().iter();
        operations.map(|(method, operation)| (path.clone(), method.to_uppercase(), operation))
    });
    operations.collect()
}

/// A path that matches the pattern.
fn concrete(pattern: &str) -> String {
    pattern.replace("{name}", "fleet").replace("{channel}", "r")
}

#[test]
fn every_operation_has_a_name_of_its_own_and_says_what_it_holds() {
    let description = App::spawn(Backend::SqliteMemory).client().get("/openapi.json").json();
    let operations = operations(&description);
    let ids: BTreeSet<&str> = operations
        .iter()
        .map(|(_, _, operation)| operation["operationId"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), operations.len(), "{ids:?}");
    for id in [
        "postMessages",
        "listRockets",
        "getRocket",
        "followEvents",
        "getStats",
        "getReport",
        "deleteSession",
    ] {
        assert!(ids.contains(id), "{id} is not in {ids:?}");
    }
    assert!(ids.iter().all(|id| id.bytes().all(|byte| byte.is_ascii_alphanumeric())), "{ids:?}");
    for (path, method, operation) in &operations {
        let responses = operation["responses"].as_object().unwrap().values();
        let bodies = responses
            .chain([&operation["requestBody"]])
            .filter_map(|body| body["content"].as_object());
        for (media_type, content) in bodies.flatten() {
            assert!(content["schema"].is_object(), "{method} {path}: {media_type} has no schema");
        }
    }
    let schemas = &description["components"]["schemas"];
    assert_eq!(
        schemas["Metadata_LaunchedType"]["properties"]["messageTime"]["format"],
        "date-time"
    );
    let text = description.to_string();
    assert!(
        !text.contains("crate::") && !text.contains("[`"),
        "a description for programmers of the service"
    );
    for reference in text.split("\"$ref\":\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas[name].is_object(), "{name} is referred to, and not there");
    }
}

#[test]
fn tokens_are_needed_where_the_description_says_so() {
    let service = with_tokens();
    let mut client = Client::new(service.address);
    let description = client.get("/openapi.json").json();
    assert_eq!(description["components"]["securitySchemes"]["writeToken"]["scheme"], "bearer");
    assert_eq!(description["components"]["securitySchemes"]["session"]["in"], "cookie");
    for (pattern, method, operation) in operations(&description) {
        let schemes = operation["security"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|one| one.as_object().unwrap().keys());
        let schemes: Vec<&String> = schemes.collect();
        let path = concrete(&pattern);
        let status = |token: Option<&str>| {
            let mut client = Client::new(service.address);
            let authorization = format!("Bearer {}", token.unwrap_or_default());
            let headers: &[(&str, &str)] =
                if token.is_some() { &[("Authorization", &authorization)] } else { &[] };
            // The response of /events is endless.
            let method = if pattern == "/events" { "HEAD" } else { &method };
            let body = if method == "POST" { launched("r", 1).to_string() } else { String::new() };
            client.request(method, &path, headers, body.as_bytes()).unwrap().status
        };
        let refused = |token| status(token) == 401;
        let needed = match schemes.iter().map(|scheme| scheme.as_str()).collect::<Vec<_>>()[..] {
            [] => None,
            ["writeToken"] => Some((WRITE, READ)),
            ["readToken", "session"] => Some((READ, WRITE)),
            _ => panic!("{method} {pattern}: {schemes:?}"),
        };
        match needed {
            None => assert!(!refused(None) && !refused(Some("wrong")), "{method} {pattern}"),
            Some((right, wrong)) => {
                assert!(
                    refused(None) && refused(Some(wrong)) && !refused(Some(right)),
                    "{method} {pattern}"
                );
            }
        }
    }
}

#[test]
fn a_method_that_a_path_lacks_is_405_whatever_the_token() {
    let service = with_tokens();
    let mut client = Client::new(service.address);
    let description = client.get("/openapi.json").json();
    let operations = operations(&description);
    let patterns: BTreeSet<&String> = operations.iter().map(|(pattern, _, _)| pattern).collect();
    for pattern in patterns {
        let mut there: Vec<&str> = Vec::new();
        for (_, method, _) in operations.iter().filter(|(path, _, _)| path == pattern) {
            there.push(method);
            there.extend((method == "GET").then_some("HEAD"));
        }
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"]
        {
            if there.contains(&method) {
                continue;
            }
            for token in [None, Some(READ), Some(WRITE), Some("wrong")] {
                let authorization = format!("Bearer {}", token.unwrap_or_default());
                let headers: &[(&str, &str)] =
                    if token.is_some() { &[("Authorization", &authorization)] } else { &[] };
                let answer = client.request(method, &concrete(pattern), headers, b"").unwrap();
                assert_eq!(answer.status, 405, "{method} {pattern} {token:?}");
                let allow: BTreeSet<&str> = answer.header("allow").unwrap().split(", ").collect();
                assert_eq!(allow, there.iter().copied().collect(), "{method} {pattern}");
            }
        }
    }
    // Without a token, nobody learns which paths exist.
    client.request("DELETE", "/none", &[], b"").unwrap().problem(401);
}

/// Where `./run test` installs the client generators.
fn tools() -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/clients");
    for tool in [
        "node_modules/.bin/openapi-typescript",
        "node_modules/.bin/tsc",
        "venv/bin/openapi-python-client",
    ] {
        let path = tools.join(tool);
        assert!(path.exists(), "{} is missing. ./run test installs it.", path.display());
    }
    tools
}

/// A directory with the service's description and the program that uses the client.
fn workshop(service: &Service, program: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let description = Client::new(service.address).get("/openapi.json").body;
    std::fs::write(directory.path().join("openapi.json"), description).unwrap();
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    std::fs::copy(clients.join(program), directory.path().join(program)).unwrap();
    directory
}

/// Runs a program, which must succeed. Returns its output.
fn succeed(directory: &Path, program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> String {
    let output = Command::new(program.as_ref()).args(args).current_dir(directory).output();
    let output = output
        .unwrap_or_else(|error| panic!("{:?}: {error}. ./run test installs it.", program.as_ref()));
    let written = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{:?} {args:?}: {written}", program.as_ref());
    written
}

#[test]
fn a_client_in_typescript_compiles_and_works() {
    let (tools, service) = (tools(), with_tokens());
    let directory = workshop(&service, "uses.ts");
    let here = directory.path();
    std::os::unix::fs::symlink(tools.join("node_modules"), here.join("node_modules")).unwrap();
    std::fs::write(here.join("package.json"), r#"{ "type": "module" }"#).unwrap();
    succeed(
        here,
        "node_modules/.bin/openapi-typescript",
        &["openapi.json", "--output", "schema.d.ts"],
    );
    let strictly =
        ["--strict", "--noUncheckedIndexedAccess", "--target", "es2022", "--lib", "es2022,dom"];
    let modules = ["--module", "nodenext", "--outDir", "built", "schema.d.ts", "uses.ts"];
    succeed(here, "node_modules/.bin/tsc", &[&strictly[..], &modules].concat());
    succeed(here, "node", &["built/uses.js", &format!("http://{}", service.address), WRITE, READ]);
}

#[test]
fn a_client_in_python_is_generated_whole_and_works() {
    let (tools, service) = (tools(), with_tokens());
    let directory = workshop(&service, "uses.py");
    let here = directory.path();
    std::fs::write(here.join("config.yml"), "post_hooks: []\n").unwrap();
    let generate =
        ["generate", "--path", "openapi.json", "--config", "config.yml", "--meta", "none"];
    let generate = [&generate[..], &["--output-path", "client"]].concat();
    let written = succeed(here, tools.join("venv/bin/openapi-python-client"), &generate);
    // It supports no lines of JSON, and no plain text as a body.
    let warnings: Vec<&str> = written.lines().filter(|line| line.starts_with("WARNING")).collect();
    let expected = [
        "WARNING parsing POST /session within dashboard. Endpoint will not be generated.",
        "WARNING parsing GET /export within exchange.",
        "WARNING parsing POST /merge within exchange. Endpoint will not be generated.",
        "WARNING parsing POST /messages within messages.",
        // The response, and the body.
        "WARNING parsing POST /missing within messages.",
        "WARNING parsing POST /missing within messages.",
    ];
    assert_eq!(warnings, expected, "{written}");
    let unsupported = ["Unsupported content type", "Unsupported content_type"];
    let reasons = unsupported.map(|reason| written.matches(reason).count());
    assert_eq!(reasons, [4, 2], "{written}");
    let python = tools.join("venv/bin/python");
    succeed(here, &python, &["-m", "compileall", "-q", "client"]);
    succeed(here, &python, &["uses.py", &format!("http://{}", service.address), WRITE, READ]);
}
