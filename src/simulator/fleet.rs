//! Simulates a fleet: the messages of its rockets, their order of arrival, and the resulting state.
//!
//! A message depends only on the fleet's seed, the channel and the message number. So a run can be
//! repeated, and a longer run continues a shorter one. The in-order fold here shares no code with
//! the service's fold, because the two are compared.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::Write;

use crate::domain::timestamp::Timestamp;

const TYPES: [&str; 6] = ["Falcon-9", "Ariane-6", "Electron", "Soyuz-2", "Vega-C", "Vulcan"];
const MISSIONS: [&str; 8] =
    ["ARTEMIS", "APOLLO", "CASSINI", "GEMINI", "JUNO", "ROSETTA", "SHUTTLE_MIR", "VOYAGER"];
const REASONS: [&str; 4] =
    ["ENGINE_FAILURE", "GUIDANCE_LOST", "PRESSURE_VESSEL_FAILURE", "STAGE_SEPARATION_FAILURE"];

/// 2022-02-02T18:00:00Z, when the first rockets launch, in microseconds since 1970.
const FIRST_LAUNCH: i64 = 1_643_824_800_000_000;

/// A fleet, and how its messages arrive.
#[derive(Clone, Copy, Debug)]
pub struct Fleet {
    /// Selects the fleet: each seed has its own rockets and messages.
    pub seed: u64,
    /// The number of rockets.
    pub rockets: u32,
    /// The number of distinct messages, spread evenly over all rockets.
    pub messages: u64,
    /// The percentage of messages that arrive a second time.
    pub duplicate_percent: f64,
    /// The percentage of messages that are left out.
    pub lossy_percent: f64,
    /// How many positions late a message may arrive in the order of its channel.
    pub displacement: u32,
}

/// The content of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Launched { rocket_type: &'static str, speed: i32, mission: &'static str },
    SpeedIncreased(i32),
    SpeedDecreased(i32),
    MissionChanged(&'static str),
    Exploded(&'static str),
}

/// The maximum number of gaps that a rocket lists.
const MAX_GAPS: usize = 100;

/// What the service should know of a rocket's messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpectedProgress {
    /// The number of messages that are sent.
    pub processed: u32,
    /// The highest number up to which none is left out.
    pub complete_through: u32,
    /// The highest number that is sent.
    pub highest: u32,
    /// The first ranges below it that are left out.
    pub gaps: Vec<(u32, u32)>,
}

/// The state of a rocket after some of its messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpectedRocket {
    /// `awaitingLaunch`, `launched` or `exploded`.
    pub status: &'static str,
    pub rocket_type: Option<&'static str>,
    pub speed: i64,
    pub mission: Option<&'static str>,
    pub exploded_reason: Option<&'static str>,
    /// The number of the message that set the mission.
    pub latest_mission_message: Option<u32>,
    /// The number of the explosion that set the reason.
    pub latest_exploded_message: Option<u32>,
    /// The greatest message time, as the API writes it.
    pub latest_update: Option<String>,
}

impl Fleet {
    /// The channel of a rocket: a version 8 UUID made from the seed and the rocket's index.
    pub fn channel(&self, rocket: u32) -> String {
        let (high, low) = (self.random(rocket, 0, 1), self.random(rocket, 0, 2));
        format!(
            "{:08x}-{:04x}-8{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            0x8000 | (low >> 50),
            low & 0xffff_ffff_ffff
        )
    }

    /// The number of messages of a rocket. They are numbered from 1.
    pub fn messages_of(&self, rocket: u32) -> u32 {
        let rockets = u64::from(self.rockets.max(1));
        let more = u64::from(u64::from(rocket) < self.messages % rockets);
        u32::try_from(self.messages / rockets + more).unwrap_or(u32::MAX)
    }

    /// Whether a message is left out. As with its content, only the seed, the channel and the
    /// number decide.
    pub fn is_left_out(&self, rocket: u32, number: u32) -> bool {
        percent(self.random(rocket, number, 5)) < self.lossy_percent
    }

    /// What the service should know of a rocket's messages.
    pub fn progress(&self, rocket: u32) -> ExpectedProgress {
        let mut progress = ExpectedProgress::default();
        for number in 1..=self.messages_of(rocket) {
            if self.is_left_out(rocket, number) {
                continue;
            }
            if progress.highest + 1 < number && progress.gaps.len() < MAX_GAPS {
                progress.gaps.push((progress.highest + 1, number - 1));
            }
            progress.processed += 1;
            if progress.processed == number {
                progress.complete_through = number;
            }
            progress.highest = number;
        }
        progress
    }

    /// Writes a message as JSON, without a line end.
    pub fn write_message(&self, channel: &str, rocket: u32, number: u32, json: &mut Vec<u8>) {
        let (time, content) = self.message(rocket, number);
        let (kind, body) = match content {
            Content::Launched { rocket_type, speed, mission } => (
                "Launched",
                format!(r#""type":"{rocket_type}","launchSpeed":{speed},"mission":"{mission}""#),
            ),
            Content::SpeedIncreased(by) => ("SpeedIncreased", format!(r#""by":{by}"#)),
            Content::SpeedDecreased(by) => ("SpeedDecreased", format!(r#""by":{by}"#)),
            Content::MissionChanged(mission) => {
                ("MissionChanged", format!(r#""newMission":"{mission}""#))
            }
            Content::Exploded(reason) => ("Exploded", format!(r#""reason":"{reason}""#)),
        };
        // Writing to memory can't fail.
        let _ = write!(
            json,
            concat!(
                r#"{{"metadata":{{"channel":"{channel}","messageNumber":{number},"#,
                r#""messageTime":"{time}","messageType":"Rocket{kind}"}},"message":{{{body}}}}}"#
            ),
            channel = channel,
            number = number,
            time = time,
            kind = kind,
            body = body
        );
    }

    /// The order of arrival, as (rocket, number). The rockets alternate; each rocket's messages are
    /// displaced and partly repeated.
    pub fn arrivals(&self) -> Arrivals {
        let channels = (0..self.rockets).map(|rocket| ChannelArrivals {
            next: 1,
            last: self.messages_of(rocket),
            draw_count: 0,
            displaced: BinaryHeap::new(),
        });
        Arrivals { fleet: *self, channels: channels.collect(), next_rocket: 0, finished_rockets: 0 }
    }

    /// The state of a rocket: its messages up to this number, less those that are left out, folded
    /// in order.
    pub fn expected(&self, rocket: u32, through: u32) -> ExpectedRocket {
        let mut expected = ExpectedRocket { status: "awaitingLaunch", ..ExpectedRocket::default() };
        let mut latest: Option<Timestamp> = None;
        for number in (1..=through).filter(|number| !self.is_left_out(rocket, *number)) {
            let (time, content) = self.message(rocket, number);
            latest = latest.max(Some(time));
            match content {
                Content::Launched { rocket_type, speed, mission } => {
                    if expected.status != "exploded" {
                        expected.status = "launched";
                    }
                    expected.rocket_type = Some(rocket_type);
                    expected.speed += i64::from(speed);
                    (expected.mission, expected.latest_mission_message) =
                        (Some(mission), Some(number));
                }
                Content::SpeedIncreased(by) => expected.speed += i64::from(by),
                Content::SpeedDecreased(by) => expected.speed -= i64::from(by),
                Content::MissionChanged(mission) => {
                    (expected.mission, expected.latest_mission_message) =
                        (Some(mission), Some(number));
                }
                Content::Exploded(reason) => {
                    expected.status = "exploded";
                    (expected.exploded_reason, expected.latest_exploded_message) =
                        (Some(reason), Some(number));
                }
            }
        }
        expected.latest_update = latest.map(|time| time.to_string());
        expected
    }

    #[expect(clippy::expect_used, reason = "the numbers of messages bound the times")]
    fn message(&self, rocket: u32, number: u32) -> (Timestamp, Content) {
        let random = self.random(rocket, number, 3);
        let pick = |from: &[&'static str], random: u64| from[(random % from.len() as u64) as usize];
        let by = (random >> 32 & 0xfff) as i32 + 1;
        let content = match random % 100 {
            _ if number == 1 => Content::Launched {
                rocket_type: pick(&TYPES, random >> 8),
                speed: by,
                mission: pick(&MISSIONS, random >> 16),
            },
            0..50 => Content::SpeedIncreased(by),
            50..90 => Content::SpeedDecreased(by),
            90..99 => Content::MissionChanged(pick(&MISSIONS, random >> 8)),
            _ => Content::Exploded(pick(&REASONS, random >> 8)),
        };
        // The messages are one second apart, by clocks that are off by up to two seconds.
        let micros =
            i64::from(number) * 1_000_000 + i64::from(rocket) * 137 + (random >> 44) as i64 * 2;
        let time = Timestamp::from_unix_micros(FIRST_LAUNCH + micros);
        (time.expect("2^32 seconds after 2022 are before the year 10000"), content)
    }

    /// A number that depends only on its arguments and the seed: SplitMix64 (Steele, Lea and Flood,
    /// 2014).
    fn random(&self, rocket: u32, number: u32, purpose: u64) -> u64 {
        let mixed = mix(self.seed ^ mix(purpose));
        mix(mixed ^ mix(u64::from(rocket) << 32 | u64::from(number)))
    }
}

/// A random percentage.
fn percent(random: u64) -> f64 {
    (random % 1_000_000) as f64 / 10_000.0
}

fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Iterates over [`Fleet::arrivals`]. Its memory grows with the rockets and the displacement, not
/// with the messages.
#[derive(Clone, Debug)]
pub struct Arrivals {
    fleet: Fleet,
    channels: Vec<ChannelArrivals>,
    next_rocket: usize,
    /// The number of consecutive rockets that had nothing left to send.
    finished_rockets: usize,
}

#[derive(Clone, Debug)]
struct ChannelArrivals {
    next: u32,
    last: u32,
    draw_count: u32,
    /// Messages that were sent but have not arrived, by their position of arrival.
    displaced: BinaryHeap<Reverse<(u64, u32)>>,
}

impl Iterator for Arrivals {
    /// The rocket's index and the message's number.
    type Item = (u32, u32);

    #[expect(clippy::expect_used, reason = "the fleet counts its rockets as u32")]
    fn next(&mut self) -> Option<Self::Item> {
        while self.finished_rockets < self.channels.len() {
            let next_rocket = self.next_rocket;
            self.next_rocket = (next_rocket + 1) % self.channels.len();
            let rocket = u32::try_from(next_rocket).expect("the fleet counts its rockets as u32");
            match self
                .channels
                .get_mut(next_rocket)
                .and_then(|channel| channel.next(&self.fleet, rocket))
            {
                Some(number) => {
                    self.finished_rockets = 0;
                    return Some((rocket, number));
                }
                None => self.finished_rockets += 1,
            }
        }
        None
    }
}

impl ChannelArrivals {
    fn next(&mut self, fleet: &Fleet, rocket: u32) -> Option<u32> {
        loop {
            // Later messages arrive at position `next` or after it.
            let due = |position: u64| self.next > self.last || position <= u64::from(self.next);
            if let Some(Reverse((_, number))) =
                self.displaced.peek().filter(|arrival| due(arrival.0.0))
            {
                let number = *number;
                self.displaced.pop();
                return Some(number);
            }
            if self.next > self.last {
                return None;
            }
            self.send_next(fleet, rocket);
        }
    }

    fn send_next(&mut self, fleet: &Fleet, rocket: u32) {
        let number = self.next;
        self.next += 1;
        let delay = |draw: u64| draw % (u64::from(fleet.displacement) + 1);
        let position = u64::from(number) + delay(self.draw(fleet, rocket));
        let mut positions = vec![position];
        if percent(self.draw(fleet, rocket)) < fleet.duplicate_percent {
            positions.push(u64::from(number) + delay(self.draw(fleet, rocket)));
        }
        if !fleet.is_left_out(rocket, number) {
            self.displaced.extend(positions.into_iter().map(|at| Reverse((at, number))));
        }
    }

    fn draw(&mut self, fleet: &Fleet, rocket: u32) -> u64 {
        self.draw_count = self.draw_count.wrapping_add(1);
        fleet.random(rocket, self.draw_count, 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLEET: Fleet = Fleet {
        seed: 7,
        rockets: 10,
        messages: 1_003,
        duplicate_percent: 10.0,
        lossy_percent: 0.0,
        displacement: 20,
    };

    #[test]
    fn every_message_arrives_near_its_place_and_some_twice() {
        let mut seen = vec![Vec::new(); 10];
        for (rocket, number) in FLEET.arrivals() {
            seen[rocket as usize].push(number);
        }
        let total: usize = seen.iter().map(Vec::len).sum();
        assert!((1_053..=1_163).contains(&total), "{total}");
        for (rocket, numbers) in (0..).zip(&seen) {
            assert_eq!(FLEET.messages_of(rocket), if rocket < 3 { 101 } else { 100 });
            let mut distinct = Vec::new();
            for number in numbers {
                if !distinct.contains(number) {
                    distinct.push(*number);
                }
            }
            assert!(distinct.windows(2).any(|pair| pair[0] > pair[1]), "in order");
            for (position, number) in (1..).zip(&distinct) {
                assert!(number.abs_diff(position) <= FLEET.displacement, "{number} at {position}");
            }
            distinct.sort_unstable();
            assert!(distinct.into_iter().eq(1..=FLEET.messages_of(rocket)));
        }
    }

    #[test]
    fn a_lossy_run_leaves_out_the_same_messages_each_time() {
        let lossy = Fleet { lossy_percent: 20.0, ..FLEET };
        let arrivals: Vec<_> = lossy.arrivals().collect();
        assert!(arrivals.iter().all(|(rocket, number)| !lossy.is_left_out(*rocket, *number)));
        for rocket in 0..10 {
            // The others arrive in the same order.
            let sent = arrivals.iter().copied().filter(|(of, _)| *of == rocket);
            let kept =
                |(of, number): &(u32, u32)| *of == rocket && !lossy.is_left_out(*of, *number);
            assert!(FLEET.arrivals().filter(kept).eq(sent));
        }
        let processed: u32 = (0..10).map(|rocket| lossy.progress(rocket).processed).sum();
        assert!((700..900).contains(&processed), "{processed}");
        for rocket in 0..10 {
            let progress = lossy.progress(rocket);
            let (first, _) = progress.gaps[0];
            assert_eq!(progress.complete_through, first - 1);
            let missing: u32 = progress.gaps.iter().map(|(first, last)| last - first + 1).sum();
            assert_eq!(progress.highest, progress.processed + missing);
            let complete = FLEET.progress(rocket);
            assert_eq!((complete.processed, complete.gaps.len()), (FLEET.messages_of(rocket), 0));
        }
    }

    #[test]
    fn a_longer_run_repeats_the_messages_of_a_shorter_run() {
        let longer = Fleet { messages: 5_000, duplicate_percent: 0.0, ..FLEET };
        let json = |fleet: &Fleet| {
            let mut json = Vec::new();
            fleet.write_message(&fleet.channel(3), 3, 42, &mut json);
            json
        };
        assert_eq!(json(&FLEET), json(&longer));
        assert_ne!(json(&FLEET), json(&Fleet { seed: 8, ..FLEET }));
    }
}
