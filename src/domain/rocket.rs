//! A rocket's state in its two views, derived from its processed ranges.

use std::str::FromStr;

use super::ranges::ProcessedRange;
use super::summary::{Latest, Summary};
use super::text::{Channel, Text};
use super::timestamp::Timestamp;

/// Which messages are folded into a rocket's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum View {
    /// Every message processed so far.
    #[default]
    BestEffort,
    /// The unbroken sequence from message 1 only. Numbers that are declared lost don't break it.
    Exact,
}

impl View {
    pub const ALL: [Self; 2] = [Self::BestEffort, Self::Exact];

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::BestEffort => "best-effort",
            Self::Exact => "exact",
        }
    }
}

/// The views of one rocket that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Views {
    One(View),
    /// Both, from one snapshot.
    Both,
}

impl Views {
    pub const ALL: [Self; 3] = [Self::One(View::BestEffort), Self::One(View::Exact), Self::Both];

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::One(view) => view.name(),
            Self::Both => "both",
        }
    }
}

/// The status of a rocket, by the messages processed so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Neither a launch nor an explosion was processed.
    AwaitingLaunch,
    /// An explosion was processed.
    Exploded,
    /// A launch was processed, but no explosion.
    Launched,
}

impl Status {
    /// Every status, in the order of the names.
    pub const ALL: [Self; 3] = [Self::AwaitingLaunch, Self::Exploded, Self::Launched];

    /// The status of a rocket of which these messages were processed.
    pub fn of(launched: bool, exploded: bool) -> Self {
        match (exploded, launched) {
            (true, _) => Self::Exploded,
            (false, true) => Self::Launched,
            (false, false) => Self::AwaitingLaunch,
        }
    }

    /// Its name in the API and in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::AwaitingLaunch => "awaitingLaunch",
            Self::Exploded => "exploded",
            Self::Launched => "launched",
        }
    }
}

impl FromStr for Status {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|status| status.name() == name).ok_or(())
    }
}

/// A rocket's state in one view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RocketState {
    pub status: Status,
    /// The type, known from the latest launch.
    pub rocket_type: Option<Text>,
    /// The sum of all speed changes.
    pub speed: i64,
    pub mission: Option<Text>,
    pub exploded_reason: Option<Text>,
    /// The number of the launch that set the type.
    pub latest_launch_message: Option<i64>,
    /// The number of the message that set the mission.
    pub latest_mission_message: Option<i64>,
    /// The number of the explosion that set the reason.
    pub latest_exploded_message: Option<i64>,
    /// The greatest message time in the view.
    pub latest_update: Option<Timestamp>,
}

impl RocketState {
    /// The state for the summary of some messages; none for no messages.
    pub fn of(summary: Option<Summary>) -> Self {
        let (speed, latest_update) = summary
            .as_ref()
            .map_or((0, None), |summary| (summary.speed_change, Some(summary.latest_time)));
        let (launch, mission, explosion) = summary.map_or((None, None, None), |summary| {
            (summary.launch, summary.mission, summary.explosion)
        });
        let status = Status::of(launch.is_some(), explosion.is_some());
        let split =
            |latest: Option<Latest>| latest.map(|latest| (latest.number, latest.value)).unzip();
        let (latest_launch_message, rocket_type) = split(launch);
        let (latest_mission_message, mission) = split(mission);
        let (latest_exploded_message, exploded_reason) = split(explosion);
        Self {
            status,
            rocket_type,
            speed,
            mission,
            exploded_reason,
            latest_launch_message,
            latest_mission_message,
            latest_exploded_message,
            latest_update,
        }
    }
}

/// How far a channel's messages have been processed. Both views have the same progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The number of processed messages.
    pub processed: i64,
    /// The highest number up to which the sequence is complete; 0 without message 1.
    pub complete_through: i64,
    /// The highest processed number.
    pub highest: i64,
    /// The highest number up to which every number is processed or declared lost. The exact view
    /// ends here.
    pub exact_through: i64,
    /// The number of missing messages that are declared lost.
    pub lost: i64,
}

impl Progress {
    /// The progress of a channel without losses.
    pub fn without_losses(processed: i64, complete_through: i64, highest: i64) -> Self {
        Self { processed, complete_through, highest, exact_through: complete_through, lost: 0 }
    }

    /// Adds what depends on the losses: `prefix` is the fold of the channel's losses, and of all
    /// ranges that the exact view can reach across them.
    pub fn add_losses(&mut self, prefix: &RangeFold) {
        let Self { exact_through, lost, .. } = prefix.progress;
        (self.exact_through, self.lost) = (exact_through, lost);
    }

    /// The number of missing messages below `highest`.
    pub fn missing(&self) -> i64 {
        self.highest - self.processed
    }

    /// The greatest number of processed ranges that the channel can have.
    pub fn max_ranges(&self) -> i64 {
        self.processed.min(self.missing() + 1)
    }
}

/// A rocket in one view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rocket {
    pub channel: Channel,
    pub state: RocketState,
    /// When the service last received a new message of the rocket, by its own clock.
    pub last_received: Timestamp,
    /// How far its messages have been processed.
    pub progress: Progress,
}

/// Both views and the progress of a channel, computed from its ranges and losses, which are added
/// together in ascending order of their first numbers.
///
/// It stores none of them, so a channel with any number of gaps is folded in constant memory.
#[derive(Clone, Debug, Default)]
pub struct RangeFold {
    all: Option<Summary>,
    exact: Option<Summary>,
    progress: Progress,
    /// The end of the latest loss.
    lost_through: i64,
}

impl RangeFold {
    /// Adds the next range.
    pub fn add(&mut self, range: ProcessedRange) {
        self.progress.processed += range.count();
        self.progress.highest = self.progress.highest.max(range.last);
        // Only the latest loss can reach into it. What was processed is not lost.
        self.progress.lost -= overlap((range.first, range.last), self.lost_through);
        if range.first == 1 {
            self.progress.complete_through = range.last;
        }
        if self.extend_exact(range.first, range.last) {
            combine(&mut self.exact, range.summary.clone());
        }
        combine(&mut self.all, range.summary);
    }

    /// Adds the next loss.
    pub fn add_loss(&mut self, first: i64, last: i64) {
        // Only the latest range can reach into it.
        self.progress.lost += last - first + 1 - overlap((first, last), self.progress.highest);
        self.lost_through = last;
        self.extend_exact(first, last);
    }

    /// Continues the exact view with these numbers. Returns whether it reaches them.
    fn extend_exact(&mut self, first: i64, last: i64) -> bool {
        let through = &mut self.progress.exact_through;
        let is_reached = first <= *through + 1;
        if is_reached {
            *through = last.max(*through);
        }
        is_reached
    }

    /// The state in a view.
    pub fn state(&self, view: View) -> RocketState {
        RocketState::of(match view {
            View::BestEffort => self.all.clone(),
            View::Exact => self.exact.clone(),
        })
    }

    /// How far the messages have been processed.
    pub fn progress(&self) -> Progress {
        self.progress
    }
}

fn combine(all: &mut Option<Summary>, summary: Summary) {
    match all {
        Some(all) => all.combine(summary),
        all => *all = Some(summary),
    }
}

/// How many numbers of a range are not above `through`.
fn overlap((first, last): (i64, i64), through: i64) -> i64 {
    (last.min(through) - first + 1).max(0)
}

/// The first `limit` missing ranges, both ends inclusive, below the highest processed number.
///
/// `ranges` yields (first, last) of the channel's ranges in ascending order. Only as many as needed
/// are consumed.
pub fn gaps(ranges: impl Iterator<Item = (i64, i64)>, limit: usize) -> Vec<(i64, i64)> {
    ranges
        .scan(0, |below, (first, last)| Some((std::mem::replace(below, last) + 1, first - 1)))
        .filter(|(first_missing, last_missing)| first_missing <= last_missing)
        .take(limit)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::Message;
    use crate::domain::message::example::{exploded, faster, launched, mission_changed, time};
    use crate::domain::ranges::join;

    /// The ranges that these messages make, which are in the order of their numbers.
    fn ranges(messages: &[Message]) -> Vec<ProcessedRange> {
        join(Vec::new(), messages.iter(), time(0), |_| {}).added
    }

    fn fold(messages: &[Message]) -> RangeFold {
        let mut fold = RangeFold::default();
        ranges(messages).into_iter().for_each(|range| fold.add(range));
        fold
    }

    fn shown(text: &Option<Text>) -> Option<&str> {
        text.as_ref().map(Text::as_str)
    }

    #[test]
    fn without_gaps_both_views_agree() {
        let fold =
            fold(&[launched("Falcon-9", 500, "ARTEMIS").numbered(1), faster(3_000).numbered(2)]);
        let state = fold.state(View::BestEffort);
        assert_eq!(state, fold.state(View::Exact));
        assert_eq!((state.status, state.speed), (Status::Launched, 3_500));
    }

    #[test]
    fn the_exact_view_ends_at_the_first_gap() {
        // Message 3 is missing.
        let fold = fold(&[
            launched("Falcon-9", 500, "ARTEMIS").numbered(1).at(10),
            faster(3_000).numbered(2).at(20),
            mission_changed("APOLLO").numbered(4).at(40),
            exploded("ENGINE_FAILURE").numbered(5).at(50),
        ]);
        let best_effort = fold.state(View::BestEffort);
        assert_eq!(best_effort.status, Status::Exploded);
        assert_eq!(shown(&best_effort.mission), Some("APOLLO"));
        assert_eq!(best_effort.latest_update, Some(time(50)));
        let exact = fold.state(View::Exact);
        assert_eq!(exact.status, Status::Launched);
        assert_eq!(shown(&exact.mission), Some("ARTEMIS"));
        assert_eq!(exact.latest_update, Some(time(20)));
        assert_eq!((best_effort.speed, exact.speed), (3_500, 3_500));
    }

    #[test]
    fn without_message_1_the_exact_view_is_empty() {
        let fold = fold(&[faster(3_000).numbered(2)]);
        assert_eq!(fold.state(View::BestEffort).speed, 3_000);
        let exact = fold.state(View::Exact);
        assert_eq!(exact, RocketState::of(None));
        assert_eq!((exact.status, exact.speed), (Status::AwaitingLaunch, 0));
        assert_eq!(fold.progress().complete_through, 0);
    }

    #[test]
    fn an_explosion_outweighs_every_launch() {
        let explosion = exploded("ENGINE_FAILURE").numbered(2);
        let launch = launched("Falcon-9", 500, "ARTEMIS").numbered(1);
        let status = |messages: &[Message]| fold(messages).state(View::BestEffort).status;
        assert_eq!(status(std::slice::from_ref(&explosion)), Status::Exploded);
        assert_eq!(status(&[launch, explosion.clone()]), Status::Exploded);
        // Not even a launch with a higher number changes that.
        let relaunch = launched("Falcon-9", 500, "ARTEMIS").numbered(3);
        assert_eq!(status(&[explosion, relaunch]), Status::Exploded);
    }

    #[test]
    fn progress_counts_what_is_processed_and_what_is_missing() {
        let messages = [1, 2, 5, 6, 9].map(|number| faster(1).numbered(number));
        let progress = fold(&messages).progress();
        assert_eq!(progress, Progress::without_losses(5, 2, 9));
        assert_eq!(progress.missing(), 2 + 2);
    }

    /// The fold of messages whose numbers are added to the speed, with these losses.
    fn fold_with_losses(numbers: &[i64], losses: &[(i64, i64)]) -> RangeFold {
        let messages: Vec<_> =
            numbers.iter().map(|number| faster(*number).numbered(*number)).collect();
        let mut losses = losses.iter().copied().peekable();
        let mut fold = RangeFold::default();
        for range in ranges(&messages) {
            while let Some((first, last)) = losses.next_if(|(first, _)| *first < range.first) {
                fold.add_loss(first, last);
            }
            fold.add(range);
        }
        losses.for_each(|(first, last)| fold.add_loss(first, last));
        fold
    }

    #[test]
    fn the_exact_view_goes_on_across_losses() {
        // Numbers 3, 4, 6 and 8 are missing.
        let numbers = [1, 2, 5, 7, 9];
        for (losses, exact_through, lost, exact_speed) in [
            (&[][..], 2, 0, 1 + 2),
            // A loss above the first gap matters only once the gap is closed.
            (&[(6, 6)], 2, 1, 1 + 2),
            // It ends within a gap that is partly lost.
            (&[(3, 3)], 3, 1, 1 + 2),
            (&[(4, 4)], 2, 1, 1 + 2),
            (&[(3, 4)], 5, 2, 1 + 2 + 5),
            (&[(3, 3), (4, 4)], 5, 2, 1 + 2 + 5),
            // Processed numbers within a loss are not lost.
            (&[(2, 8)], 9, 4, 1 + 2 + 5 + 7 + 9),
            (&[(1, 6)], 7, 3, 1 + 2 + 5 + 7),
            (&[(5, 5)], 2, 0, 1 + 2),
            (&[(3, 4), (6, 6), (8, 8)], 9, 4, 1 + 2 + 5 + 7 + 9),
        ] {
            let fold = fold_with_losses(&numbers, losses);
            let expected = Progress { exact_through, lost, ..Progress::without_losses(5, 2, 9) };
            assert_eq!(fold.progress(), expected, "{losses:?}");
            assert_eq!(fold.state(View::Exact).speed, exact_speed, "{losses:?}");
            assert_eq!(fold.state(View::BestEffort).speed, 1 + 2 + 5 + 7 + 9);
        }
    }

    #[test]
    fn without_message_1_a_loss_can_begin_the_exact_view() {
        let fold = fold_with_losses(&[3, 4], &[(1, 2)]);
        let expected = Progress { exact_through: 4, lost: 2, ..Progress::without_losses(2, 0, 4) };
        assert_eq!(fold.progress(), expected);
        assert_eq!(fold.state(View::Exact).speed, 3 + 4);
    }

    #[test]
    fn gaps_are_the_missing_ranges_below_the_highest_number() {
        let of = |numbers: &[i64], limit| {
            let messages: Vec<_> =
                numbers.iter().map(|number| faster(1).numbered(*number)).collect();
            let ranges = ranges(&messages);
            gaps(ranges.iter().map(|range| (range.first, range.last)), limit)
        };
        assert_eq!(of(&[1, 2, 5, 6, 9], 100), [(3, 4), (7, 8)]);
        assert_eq!(of(&[4], 100), [(1, 3)]);
        assert_eq!(of(&[1, 2, 3], 100), []);
        assert_eq!(of(&[3, 5, 7, 9], 2), [(1, 2), (4, 4)]);
    }
}
