//! Real disks of a few MiB that fill up, and a read-only file. They need root for `mount` and for
//! changing the user: `./run faults` runs them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use testkit::client::Client;
use testkit::faults;
use testkit::message::{faster, launched};
use testkit::postgres::{self, Cluster};
use testkit::process::{Service, run, stdout};
use testkit::sqlite::query;
use testkit::wait::eventually;

/// A disk in memory, with a file that can be removed to free space.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(mebibytes: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m,mode=0777");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(directory.path())
            .status();
        assert!(mounted.unwrap().success(), "mounting needs root");
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills the disk, except for this many KiB.
    fn fill_but(&self, kibibytes: u64) {
        let output =
            Command::new("df").args(["--output=avail", "-k"]).arg(self.path()).output().unwrap();
        let free: u64 = stdout(&output).lines().last().unwrap().trim().parse().unwrap();
        std::fs::write(self.path().join("ballast"), vec![1; ((free - kibibytes) * 1024) as usize])
            .unwrap();
    }

    /// Leaves no space, not even for a small message.
    fn fill_the_rest(&self) {
        let mut rest = std::fs::File::create(self.path().join("rest")).unwrap();
        while std::io::Write::write(&mut rest, &[1; 512]).is_ok_and(|written| written > 0) {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.path().join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

/// A rocket with long texts.
fn wordy(rocket: u32) -> Value {
    let mut message = launched(&format!("{rocket:0>200}"), 1);
    message["message"]["mission"] = "m".repeat(255).into();
    message
}

/// Sends rockets until one is refused. Returns how many were acknowledged.
fn fill(client: &mut Client) -> u32 {
    for rocket in 0..1_000_000 {
        let answer = client.post(&wordy(rocket));
        if answer.status != 204 {
            answer.problem(503);
            assert!(answer.header("retry-after").is_some());
            return rocket;
        }
    }
    panic!("the disk never filled up");
}

fn refuses(client: &mut Client, message: &Value) {
    for _ in 0..3 {
        client.post(message).problem(503);
        client.get("/readyz").problem(503);
        assert_eq!(client.get("/livez").status, 200);
    }
}

#[test]
#[ignore = "needs root; ./run faults"]
fn a_full_disk_under_sqlite() {
    let disk = SmallDisk::mount(12);
    let database = disk.path().join("rockets.db");
    let service = Service::start(&database);
    let mut client = Client::new(service.address);
    assert_eq!(client.post(&launched("r", 1)).status, 204);
    disk.fill_but(3_000);
    let stored = fill(&mut client);
    disk.fill_the_rest();
    // The place of a refused message in the log is free for smaller ones.
    let mut number = 2;
    while client.post(&faster("r", number, 1)).status == 204 {
        number += 1;
    }
    eventually("a probe finds no place either", || client.get("/readyz").status == 503);
    refuses(&mut client, &faster("r", number, 1));
    assert_eq!(client.get("/rockets/r").json()["speed"], 500 + number - 2, "reads go on");
    disk.make_room();
    eventually("it is ready", || client.get("/readyz").status == 200);
    for rocket in 0..stored {
        assert_eq!(
            client.post(&wordy(rocket)).header("idempotent-replayed"),
            Some("true"),
            "{rocket} of {stored}"
        );
    }
    assert_eq!(client.post(&faster("r", number, 1)).header("idempotent-replayed"), None);
    assert_eq!(client.get("/rockets/r").json()["speed"], 500 + number - 1);
    let checked = run(&["check", "--database", database.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(0), "{}", stdout(&checked));
    drop(service);
    assert_eq!(
        query(&database, "SELECT count(*) FROM rockets WHERE channel <> 'r'")[0][0]
            .as_u64()
            .unwrap()
            / u64::from(stored),
        1
    );
    faults::row(
        "a full disk (SQLite)",
        format!("full after {stored} messages"),
        "lost 0; ready again once there is room",
    );
}

#[test]
#[ignore = "needs root; ./run faults"]
fn a_full_disk_under_postgres() {
    let disk = SmallDisk::mount(160);
    let mut cluster =
        Cluster::start_in(disk.path(), "-c fsync=off -c min_wal_size=32MB -c max_wal_size=32MB");
    let url = cluster.url("postgres");
    let service = Service::start(&url);
    let mut client = Client::new(service.address);
    assert_eq!(client.post(&launched("r", 1)).status, 204);
    disk.fill_but(3_000);
    let stored = fill(&mut client);
    assert_eq!(client.get("/livez").status, 200);
    disk.make_room();
    // A server that can't write its log stops.
    cluster.start_again();
    eventually("it is ready", || client.get("/readyz").status == 200);
    for rocket in 0..stored {
        assert_eq!(
            client.post(&wordy(rocket)).header("idempotent-replayed"),
            Some("true"),
            "{rocket} of {stored}"
        );
    }
    assert_eq!(client.post(&faster("r", 2, 1)).status, 204);
    assert_eq!(run(&["check", "--database", &url]).status.code(), Some(0));
    assert_eq!(
        postgres::query(&url, "SELECT speed FROM rockets WHERE channel = 'r'")[0]["speed"],
        501
    );
    faults::row(
        "a full disk (Postgres)",
        format!("full after {stored} messages"),
        "lost 0; ready again once there is room",
    );
}

#[test]
#[ignore = "needs root; ./run faults"]
fn a_file_that_may_only_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let allow = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap()
    };
    let database = directory.path().join("rockets.db");
    assert!(run(&["migrate", "--database", database.to_str().unwrap()]).status.success());
    allow(directory.path(), 0o777);
    allow(&database, 0o444);
    // Root may write anywhere.
    let program = directory.path().join("rocket-monitor");
    std::fs::copy(env!("CARGO_BIN_EXE_rocket-monitor"), &program).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--database"])
        .arg(&database)
        .stdin(Stdio::null());
    let service = Service::spawn(command);
    let mut client = Client::new(service.address);
    assert_eq!(client.get("/rockets").json()["rockets"], serde_json::json!([]), "it can be read");
    refuses(&mut client, &launched("r", 1));
    // SQLite creates these with the permissions of the file.
    for suffix in ["", "-wal", "-shm"] {
        allow(&directory.path().join(format!("rockets.db{suffix}")), 0o666);
    }
    eventually("it is ready", || client.get("/readyz").status == 200);
    assert_eq!(client.post(&launched("r", 1)).status, 204);
    faults::row(
        "a read-only file (SQLite)",
        "1 time",
        "reads continue, messages are refused; ready again by itself",
    );
}
