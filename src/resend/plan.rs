//! What the service lacks of a file's channels.

use std::collections::HashMap;

use super::ChannelReport;
use crate::domain::message::MessageNumber;
use crate::domain::missing::{Missing, Question};
use crate::domain::numbers::NumberSet;
use crate::domain::text::Channel;

/// The maximum number of ranges in memory, of about 20 bytes each. What is beyond that is asked for
/// in another round.
const MAX_RANGES: usize = 4_000_000;

/// The channels of a file, and what is missing of them.
#[derive(Debug)]
pub(super) struct Plan {
    rockets: HashMap<Channel, Rocket>,
    max_ranges: usize,
    /// How many ranges the answers of this round had.
    ranges: usize,
}

/// A channel of the file.
#[derive(Debug, Default)]
struct Rocket {
    /// The highest number in the file; 0 at first.
    highest: u32,
    /// The first number that no round has asked for; none at the end.
    next: Option<MessageNumber>,
    /// The numbers that this round has asked for; none if it did not ask.
    asked: Option<(MessageNumber, MessageNumber)>,
    /// What is missing of them, less what was sent.
    missing: NumberSet,
    /// How many are missing of them.
    missing_count: u64,
    /// What was still missing after sending.
    missing_again: NumberSet,
}

impl Default for Plan {
    fn default() -> Self {
        Self { rockets: HashMap::new(), max_ranges: MAX_RANGES, ranges: 0 }
    }
}

impl Plan {
    /// Notes that the file has a message.
    pub(super) fn note(&mut self, channel: &Channel, number: MessageNumber) {
        let rocket = match self.rockets.get_mut(channel) {
            Some(rocket) => rocket,
            None => self.rockets.entry(channel.detached()).or_default(),
        };
        rocket.highest = rocket.highest.max(number.as_u32());
        // A round asks for the numbers from 1.
        rocket.next = MessageNumber::new(MessageNumber::MIN);
    }

    pub(super) fn channels(&self) -> usize {
        self.rockets.len()
    }

    /// Forgets what the last round has done. Returns false if everything was asked for.
    pub(super) fn begin_round(&mut self) -> bool {
        self.ranges = 0;
        for rocket in self.rockets.values_mut() {
            (rocket.asked, rocket.missing_count) = (None, 0);
            (rocket.missing, rocket.missing_again) = Default::default();
        }
        self.rockets.values().any(|rocket| rocket.next.is_some())
    }

    /// What no round has asked for.
    pub(super) fn questions(&self) -> Vec<Question> {
        let question = |(channel, rocket): (&Channel, &Rocket)| {
            let through = MessageNumber::new(i64::from(rocket.highest))?;
            Some(Question { channel: channel.clone(), from: rocket.next?, through })
        };
        self.rockets.iter().filter_map(question).collect()
    }

    /// Adds an answer. Returns the question with which to go on.
    pub(super) fn add(&mut self, question: &Question, answer: Missing) -> Option<Question> {
        let rocket = self.rockets.get_mut(&question.channel)?;
        if self.ranges >= self.max_ranges {
            // There is no room for it, so another round asks again.
            return None;
        }
        self.ranges += answer.ranges.len();
        for (first, last) in answer.ranges {
            rocket.missing.push_range(first, last);
        }
        rocket.missing_count = rocket.missing.count();
        rocket.next = answer.next_from.and_then(|next| MessageNumber::new(next.into()));
        let from = rocket.asked.map_or(question.from, |(from, _)| from);
        let through = rocket.next.and_then(|next| MessageNumber::new(next.get() - 1));
        rocket.asked = Some((from, through.unwrap_or(question.through)));
        Some(Question { from: rocket.next?, ..question.clone() })
    }

    /// How many numbers are missing.
    pub(super) fn missing(&self) -> u64 {
        self.rockets.values().map(|rocket| rocket.missing.count()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rockets.values().all(|rocket| rocket.missing.is_empty())
    }

    /// Whether a message is missing. It no longer is afterwards.
    pub(super) fn take(&mut self, channel: &Channel, number: MessageNumber) -> bool {
        self.rockets.get_mut(channel).is_some_and(|rocket| rocket.missing.remove(number))
    }

    /// The questions of this round to which something was missing.
    pub(super) fn questions_again(&self) -> Vec<Question> {
        let question = |(channel, rocket): (&Channel, &Rocket)| {
            let (from, through) = rocket.asked.filter(|_| rocket.missing_count > 0)?;
            Some(Question { channel: channel.clone(), from, through })
        };
        self.rockets.iter().filter_map(question).collect()
    }

    /// Like [`add`](Self::add), for [`questions_again`](Self::questions_again).
    pub(super) fn add_again(&mut self, question: &Question, answer: Missing) -> Option<Question> {
        let rocket = self.rockets.get_mut(&question.channel)?;
        for (first, last) in answer.ranges {
            rocket.missing_again.push_range(first, last);
        }
        let from = answer.next_from.and_then(|next| MessageNumber::new(next.into()))?;
        Some(Question { from, ..question.clone() })
    }

    /// How many numbers are missing that were sent, and how many that were not in the file.
    pub(super) fn compare(&self) -> (u64, u64) {
        let mut counts = (0, 0);
        for rocket in self.rockets.values() {
            for (first, last) in rocket.missing_again.ranges() {
                let not_sent = rocket.missing.count_within(first, last);
                counts.0 += u64::from(last - first) + 1 - not_sent;
                counts.1 += not_sent;
            }
        }
        counts
    }

    /// Makes everything that is missing now the plan.
    pub(super) fn retry(&mut self) {
        for rocket in self.rockets.values_mut() {
            rocket.missing = std::mem::take(&mut rocket.missing_again);
        }
    }

    /// What this round has found, if [`take`](Self::take) was called for every message of the file.
    pub(super) fn end_dry_round(&self) -> Vec<ChannelReport> {
        let report = |(channel, rocket): (&Channel, &Rocket)| {
            let missing = rocket.missing_count;
            let in_file = missing - rocket.missing.count();
            (missing > 0).then(|| ChannelReport { channel: channel.clone(), missing, in_file })
        };
        self.rockets.iter().filter_map(report).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::domain::missing::MissingFinder;

    fn number(number: u32) -> MessageNumber {
        MessageNumber::new(i64::from(number)).unwrap()
    }

    /// What a service with these numbers answers, at most two ranges at a time.
    fn answer(known: &BTreeSet<u32>, question: &Question) -> Missing {
        let mut finder = MissingFinder::new(question, 2);
        for number in known {
            if finder.add(i64::from(*number), i64::from(*number)).is_break() {
                break;
            }
        }
        finder.finish()
    }

    #[test]
    fn rounds_ask_for_everything_once_however_little_room_there_is() {
        let files: BTreeMap<Channel, BTreeSet<u32>> = (1..6_u32)
            .map(|rocket| {
                let channel = Channel::new(format!("r{rocket}")).unwrap();
                (channel, (1..40).filter(|number| number % rocket != 1).collect())
            })
            .collect();
        for max_ranges in [1, 3, 10, 1_000] {
            let mut plan = Plan { max_ranges, ..Plan::default() };
            let mut known: BTreeMap<_, BTreeSet<u32>> = BTreeMap::new();
            for (channel, numbers) in &files {
                numbers.iter().for_each(|it| plan.note(channel, number(*it)));
                known.insert(channel, numbers.iter().copied().filter(|it| it % 7 > 2).collect());
            }
            let (mut rounds, mut not_in_file, mut sent) = (0, 0, 0);
            while plan.begin_round() {
                rounds += 1;
                let mut questions = plan.questions();
                while let Some(question) = questions.pop() {
                    let missing = answer(&known[&question.channel], &question);
                    questions.extend(plan.add(&question, missing));
                }
                for (channel, numbers) in &files {
                    for it in numbers {
                        if plan.take(channel, number(*it)) {
                            assert!(known.get_mut(channel).unwrap().insert(*it), "{channel} {it}");
                            assert!(!plan.take(channel, number(*it)));
                            sent += 1;
                        }
                    }
                }
                let mut questions = plan.questions_again();
                while let Some(question) = questions.pop() {
                    let missing = answer(&known[&question.channel], &question);
                    questions.extend(plan.add_again(&question, missing));
                }
                let (still_missing, others) = plan.compare();
                assert_eq!(still_missing, 0);
                not_in_file += others;
            }
            assert!(sent > 0 && files.iter().all(|(channel, numbers)| known[channel] == *numbers));
            let gaps = |numbers: &BTreeSet<u32>| {
                u64::from(*numbers.last().unwrap()) - numbers.len() as u64
            };
            assert_eq!(not_in_file, files.values().map(gaps).sum::<u64>());
            assert_eq!(rounds > 1, max_ranges < 1_000, "{rounds} rounds");
        }
    }
}
