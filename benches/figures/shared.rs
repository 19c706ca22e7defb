//! Figures of Postgres.

use std::path::Path;
use std::process::Command;

use testkit::postgres;

use crate::input::{fleet, lines_rate, post_requests};
use crate::measure::{PAIRS, drive, pairs, row};
use crate::servers::{Server, program};

/// One message per transaction, like a service without group commit: its key, and the rocket's
/// guarded row.
const ONE_AT_A_TIME: &str = "\\set rocket random(1, 1000)
\\set number random(1, 2000000000)
BEGIN;
INSERT INTO keys VALUES ('193270a9-c9cf-404a-8f83-' || :rocket, :number) ON CONFLICT DO NOTHING;
INSERT INTO rockets (channel, speed, mission, latest_mission_msg, latest_update)
VALUES ('193270a9-c9cf-404a-8f83-' || :rocket, 5, 'ARTEMIS', :number, now())
ON CONFLICT (channel) DO UPDATE SET
    speed = rockets.speed + excluded.speed,
    latest_update = greatest(rockets.latest_update, excluded.latest_update),
    mission = CASE WHEN excluded.latest_mission_msg > rockets.latest_mission_msg
                   THEN excluded.mission ELSE rockets.mission END,
    latest_mission_msg = greatest(rockets.latest_mission_msg, excluded.latest_mission_msg);
COMMIT;
";

pub fn on_postgres(directory: &Path) -> String {
    let cluster = postgres::Cluster::start_with("-c shared_buffers=512MB -c max_wal_size=4GB");
    postgres::execute(&cluster.url("postgres"), "CREATE DATABASE rockets");
    postgres::execute(&cluster.url("postgres"), "CREATE DATABASE yardstick");
    let tables = "CREATE TABLE keys (channel text, number bigint, PRIMARY KEY (channel, number));
                  CREATE TABLE rockets (channel text PRIMARY KEY, speed bigint, mission text,
                                        latest_mission_msg bigint, latest_update timestamptz)";
    postgres::execute(&cluster.url("yardstick"), tables);
    let script = directory.join("one-at-a-time.sql");
    std::fs::write(&script, ONE_AT_A_TIME).unwrap();
    let database = cluster.url("rockets");
    let ours =
        Server::start(program(&["serve", "--listen", "127.0.0.1:0", "--database", &database]));
    const POSTS: usize = 40_000;
    let mut requests = post_requests(fleet((PAIRS as u64 + 1) * POSTS as u64));
    let posted = pairs(|measured| {
        if !measured {
            return pgbench(&cluster, &script);
        }
        let batch: Vec<Vec<u8>> = requests.by_ref().take(POSTS).collect();
        drive(ours.address, &batch)
    });
    let mut seed = 100;
    let streamed = pairs(|measured| {
        if !measured {
            return pgbench(&cluster, &script);
        }
        seed += 1;
        lines_rate(ours.address, &directory.join("messages.ndjson"), seed)
    });
    row("durable POST on Postgres, 64 connections, of pgbench's one at a time", &posted)
        + &row("lines over HTTP into Postgres, 1,000,000 messages, of the same", &streamed)
}

/// The rate of commits by pgbench with 64 clients.
fn pgbench(cluster: &postgres::Cluster, script: &Path) -> f64 {
    let output = Command::new(postgres::programs().join("pgbench"))
        .args([
            "--no-vacuum",
            "--client=64",
            "--jobs=2",
            "--protocol=prepared",
            "--time=4",
            "--username=postgres",
        ])
        .arg(format!("--host={}", cluster.socket().display()))
        .arg(format!("--file={}", script.display()))
        .arg("yardstick")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let rate =
        said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    rate.unwrap_or_else(|| panic!("{said} {}", String::from_utf8_lossy(&output.stderr)))
}
