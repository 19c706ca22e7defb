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

/// The channels of a file with the highest number of each.
#[derive(Debug, Default)]
pub(super) struct FileChannels(HashMap<Channel, MessageNumber>);

impl FileChannels {
    /// Adds a message of the file. Returns the question about its channel if that is new. The
    /// highest number in the file is not known yet, so it asks for all numbers.
    pub(super) fn add(&mut self, channel: &Channel, number: MessageNumber) -> Option<Question> {
        if let Some(highest) = self.0.get_mut(channel) {
            *highest = number.max(*highest);
            return None;
        }
        let channel = channel.detached();
        self.0.insert(channel.clone(), number);
        Some(Question { channel, from: MessageNumber::FIRST, through: MessageNumber::LAST })
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// What is missing of the channels of a file.
#[derive(Debug)]
pub(super) struct ResendPlan {
    channels: HashMap<Channel, ChannelPlan>,
    max_ranges: usize,
    /// How many ranges the answers of this round had.
    ranges: usize,
}

#[derive(Debug, Default)]
struct ChannelPlan {
    /// The highest number in the file; none until the file was read.
    highest: Option<MessageNumber>,
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

impl Default for ResendPlan {
    fn default() -> Self {
        Self { channels: HashMap::new(), max_ranges: MAX_RANGES, ranges: 0 }
    }
}

impl ResendPlan {
    /// Adds the answer to the first question about a channel. The next one waits for
    /// [`end_file`](Self::end_file), because it needs the highest number in the file.
    pub(super) fn add_first(&mut self, question: &Question, answer: Missing) -> Option<Question> {
        self.channels.insert(
            question.channel.clone(),
            ChannelPlan { next: Some(question.from), ..ChannelPlan::default() },
        );
        self.add(question, answer)?;
        None
    }

    /// The file was read, and all channels were asked for.
    pub(super) fn end_file(&mut self, FileChannels(highest): &FileChannels) {
        for (channel, plan) in &mut self.channels {
            let highest = highest[channel];
            plan.highest = Some(highest);
            plan.missing.truncate(highest);
            plan.missing_count = plan.missing.count();
            plan.next = plan.next.filter(|next| *next <= highest);
            plan.asked = plan.asked.map(|(from, through)| (from, through.min(highest)));
        }
    }

    /// Forgets what the last round has done. Returns false if everything was asked for.
    pub(super) fn begin_round(&mut self) -> bool {
        self.ranges = 0;
        for channel in self.channels.values_mut() {
            (channel.asked, channel.missing_count) = (None, 0);
            (channel.missing, channel.missing_again) = Default::default();
        }
        self.channels.values().any(|channel| channel.next.is_some())
    }

    /// What no round has asked for.
    pub(super) fn questions(&self) -> Vec<Question> {
        let question = |(channel, plan): (&Channel, &ChannelPlan)| {
            let (from, through) = (plan.next?, plan.highest?);
            Some(Question { channel: channel.clone(), from, through })
        };
        self.channels.iter().filter_map(question).collect()
    }

    /// Adds an answer. Returns the question with which to go on.
    pub(super) fn add(&mut self, question: &Question, answer: Missing) -> Option<Question> {
        let channel = self.channels.get_mut(&question.channel)?;
        if self.ranges >= self.max_ranges {
            // There is no room for it, so another round asks again.
            return None;
        }
        self.ranges += answer.ranges.len();
        for (first, last) in answer.ranges {
            channel.missing.push_range(first, last);
            channel.missing_count += u64::from(last - first) + 1;
        }
        channel.next = answer.next_from.and_then(|next| MessageNumber::new(next.into()));
        let from = channel.asked.map_or(question.from, |(from, _)| from);
        let through = channel.next.and_then(|next| MessageNumber::new(next.get() - 1));
        channel.asked = Some((from, through.unwrap_or(question.through)));
        Some(Question { from: channel.next?, ..question.clone() })
    }

    /// How many numbers are missing.
    pub(super) fn missing(&self) -> u64 {
        self.channels.values().map(|channel| channel.missing.count()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.channels.values().all(|channel| channel.missing.is_empty())
    }

    /// Whether a message is missing. It no longer is afterwards.
    pub(super) fn take(&mut self, channel: &Channel, number: MessageNumber) -> bool {
        self.channels.get_mut(channel).is_some_and(|channel| channel.missing.remove(number))
    }

    /// The questions of this round to which something was missing.
    pub(super) fn questions_again(&self) -> Vec<Question> {
        let question = |(channel, plan): (&Channel, &ChannelPlan)| {
            let (from, through) = plan.asked.filter(|_| plan.missing_count > 0)?;
            Some(Question { channel: channel.clone(), from, through })
        };
        self.channels.iter().filter_map(question).collect()
    }

    /// Like [`add`](Self::add), for [`questions_again`](Self::questions_again).
    pub(super) fn add_again(&mut self, question: &Question, answer: Missing) -> Option<Question> {
        let channel = self.channels.get_mut(&question.channel)?;
        for (first, last) in answer.ranges {
            channel.missing_again.push_range(first, last);
        }
        let from = answer.next_from.and_then(|next| MessageNumber::new(next.into()))?;
        Some(Question { from, ..question.clone() })
    }

    /// How many numbers are missing that were sent, and how many that were not in the file.
    pub(super) fn compare(&self) -> (u64, u64) {
        let mut counts = (0, 0);
        for channel in self.channels.values() {
            for (first, last) in channel.missing_again.ranges() {
                let not_sent = channel.missing.count_within(first, last);
                counts.0 += u64::from(last - first) + 1 - not_sent;
                counts.1 += not_sent;
            }
        }
        counts
    }

    /// Makes everything that is missing now the plan.
    pub(super) fn retry(&mut self) {
        for channel in self.channels.values_mut() {
            channel.missing = std::mem::take(&mut channel.missing_again);
        }
    }

    /// What this round has found, if [`take`](Self::take) was called for every message of the file.
    pub(super) fn end_dry_round(&self) -> Vec<ChannelReport> {
        let report = |(channel, plan): (&Channel, &ChannelPlan)| {
            let missing = plan.missing_count;
            let in_file = missing - plan.missing.count();
            (missing > 0).then(|| ChannelReport { channel: channel.clone(), missing, in_file })
        };
        self.channels.iter().filter_map(report).collect()
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
            let mut plan = ResendPlan { max_ranges, ..ResendPlan::default() };
            let mut known: BTreeMap<_, BTreeSet<u32>> = BTreeMap::new();
            let mut in_file = FileChannels::default();
            for (channel, numbers) in &files {
                // The service knows messages beyond the file, too.
                let others = numbers.iter().copied().filter(|it| it % 7 > 2).chain([50, 60]);
                known.insert(channel, others.collect());
                for it in numbers {
                    if let Some(question) = in_file.add(channel, number(*it)) {
                        let missing = answer(&known[channel], &question);
                        assert_eq!(plan.add_first(&question, missing), None);
                    }
                }
            }
            plan.end_file(&in_file);
            let (mut rounds, mut not_in_file, mut sent) = (0, 0, 0);
            loop {
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
                if !plan.begin_round() {
                    break;
                }
            }
            assert!(sent > 0);
            for (channel, numbers) in &files {
                assert!(known[channel].iter().filter(|it| **it < 50).eq(numbers.iter()));
            }
            let gaps = |numbers: &BTreeSet<u32>| {
                u64::from(*numbers.last().unwrap()) - numbers.len() as u64
            };
            assert_eq!(not_in_file, files.values().map(gaps).sum::<u64>());
            assert_eq!(rounds > 1, max_ranges < 1_000, "{rounds} rounds");
        }
    }
}
