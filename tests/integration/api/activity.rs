//! `GET /activity`, and the totals of pages.

use serde_json::{Value, json};
use testkit::app::{App, Backend};
use testkit::client::{Client, encode};
use testkit::conformance;
use testkit::message::{exploded, faster, launched, launched_as};

conformance!(an_instance_tells_what_it_has_committed, pages_say_how_many_rockets_match,);

fn sum(counts: &Value) -> u64 {
    counts.as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum()
}

fn an_instance_tells_what_it_has_committed(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let activity = client.get("/activity").json();
    assert_eq!((sum(&activity["applied"]), sum(&activity["duplicates"])), (0, 0));
    assert_eq!(activity["explosions"], json!([]));
    let hostile = "<img src=x onerror=alert(1)>";
    for message in
        [launched("a", 1), exploded("a", 2, hostile), exploded("a", 2, "again"), faster("b", 1, 1)]
    {
        assert_eq!(client.post(&message).status, 204);
    }
    let lines = [exploded("b", 3, "later"), launched("a", 1), exploded("c", 1, "latest")];
    let lines = lines.map(|line| line.to_string()).join("\n");
    assert_eq!(client.post_lines(lines.as_bytes()).json()["applied"], 2);
    client.post_bytes(b"{}").problem(422);
    let activity = client.get("/activity").json();
    assert_eq!((sum(&activity["applied"]), sum(&activity["duplicates"])), (5, 2), "{activity}");
    assert_eq!(activity["interval"], 10);
    assert_eq!(activity["since"], activity["startedAt"], "it has not run for an hour");
    assert!(activity["until"].as_str().unwrap() > activity["since"].as_str().unwrap());
    let lengths = ["applied", "duplicates"].map(|name| activity[name].as_array().unwrap().len());
    assert_eq!(lengths[0], lengths[1]);
    let explosions = activity["explosions"].as_array().unwrap();
    let reasons: Vec<_> = explosions.iter().map(|it| it["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons.len(), 3, "a copy is no explosion");
    assert_eq!(reasons[2], hostile);
    // It is the time that the rocket was last heard of.
    let rocket = client.get("/rockets/c").json();
    let of_c = explosions.iter().find(|it| it["channel"] == "c").unwrap();
    assert_eq!(of_c["receivedAt"], rocket["lastReceived"]);
    client.get("/activity?limit=1").problem(400);
}

/// The total of a query, and the number of rockets on all of its pages.
fn total(client: &mut Client, query: &str) -> (Value, usize) {
    let (mut count, mut totals) = (0, Vec::new());
    let mut cursor = String::new();
    loop {
        let page = client.get(&format!("/rockets?limit=7&total=true&{query}{cursor}")).json();
        count += page["rockets"].as_array().unwrap().len();
        totals.push(page["total"].clone());
        let Some(next) = page["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert!(totals.iter().all(|total| *total == totals[0]), "{query}: {totals:?}");
    (totals[0].clone(), count)
}

fn pages_say_how_many_rockets_match(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    assert_eq!(total(&mut client, ""), (json!(0), 0));
    let rockets = (0..40).flat_map(|index| {
        let channel = format!("{}{index}", ["é", "B"][index % 2]);
        let mission = format!("M,{}", index % 3);
        [
            launched_as(&channel, 1, "T", 5, &mission),
            match index % 4 {
                0 => faster(&channel, 3, 1),
                _ => exploded(&channel, 2, "BOOM"),
            },
        ]
    });
    let lines: String = rockets.map(|line| line.to_string() + "\n").collect();
    assert_eq!(client.post_lines(lines.as_bytes()).json()["applied"], 80);
    for (query, expected) in [
        ("", 40),
        ("sort=channel", 40),
        ("status=exploded", 30),
        ("status=exploded&view=exact", 30),
        ("status=launched,exploded&view=exact&sort=mission", 40),
        ("missing=true", 10),
        ("missing=true&view=exact", 10),
        (&format!("channelPrefix={}", encode("é")), 20),
        (&format!("channelPrefix={}&sort=channel&order=desc", encode("é")), 20),
        (&format!("mission={}&mission={}&sort=speed", encode("M,0"), encode("M,1")), 27),
        ("mission=nowhere", 0),
        ("silentFor=1h", 0),
        ("channel=B1", 1),
        ("channel=nobody", 0),
    ] {
        assert_eq!(total(&mut client, query), (json!(expected), expected), "{query}");
    }
    // Nobody pays for it who has not asked.
    for query in ["", "?total=false"] {
        assert_eq!(client.get(&format!("/rockets{query}")).json().get("total"), None);
    }
    client.get("/rockets?total=1").problem(400);
    let link = client.get("/rockets?total=true&limit=1").header("link").unwrap().to_owned();
    assert!(link.contains("total=true"), "{link}");
}
