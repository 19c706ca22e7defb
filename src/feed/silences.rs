//! For how long rockets must have been silent to match a follower's filters. Time alone makes a
//! rocket match, without any message. So a check finds the rockets that have become silent, once
//! for all followers, and the change log has them like changes. Nothing here reads the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::domain::query::SilentFor;
use crate::domain::timestamp::Timestamp;

/// The maximum number of different silences. Each one is a search of the fleet.
const MAX_SILENCES: usize = 64;
/// If the clock is set back by more than this, rockets would be silent too early.
const MAX_CLOCK_STEP_BACK: Duration = Duration::from_secs(1);

/// Held by the followers of a silence.
pub(super) type Token = Arc<()>;

#[derive(Debug, Default)]
pub(super) struct Silences {
    /// The time at which rockets are silent or not, for all followers. None before the first one.
    now: Option<Timestamp>,
    followed: HashMap<SilentFor, Silence>,
}

#[derive(Debug)]
struct Silence {
    token: Token,
    /// From this position on, the change log has every rocket that has become silent.
    since: u64,
    /// The rockets that were silent at this time have been found. Those that have become silent
    /// since then have not.
    checked: Timestamp,
    /// As far as is known, no other rocket becomes silent before.
    due: Timestamp,
    last_followed: Instant,
}

impl Silences {
    pub(super) fn now(&self) -> Timestamp {
        self.now.unwrap_or(Timestamp::FIRST)
    }

    /// Follows a silence from a position of the change log on; none if there are too many others.
    pub(super) fn follow(
        &mut self,
        silent_for: SilentFor,
        position: u64,
        now: Timestamp,
    ) -> Option<Token> {
        if self.followed.is_empty() {
            // The clock may have been set back while nobody looked.
            self.now = Some(now);
        }
        let now = now.max(self.now());
        self.now = Some(now);
        if let Some(silence) = self.followed.get(&silent_for) {
            return Some(Arc::clone(&silence.token));
        }
        if self.followed.len() >= MAX_SILENCES {
            self.followed.retain(|_, silence| silence.is_followed());
        }
        if self.followed.len() >= MAX_SILENCES {
            return None;
        }
        let token = Token::default();
        let silence = Silence {
            token: Arc::clone(&token),
            since: position,
            checked: now,
            due: now,
            last_followed: Instant::now(),
        };
        self.followed.insert(silent_for, silence);
        Some(token)
    }

    /// Whether the change log has every rocket that has become silent since the position.
    pub(super) fn is_complete_since(&self, silent_for: SilentFor, position: u64) -> bool {
        self.followed.get(&silent_for).is_some_and(|silence| silence.since <= position)
    }

    /// A rocket was last received at this time: later it may become silent.
    pub(super) fn received(&mut self, last_received: Timestamp) {
        for (silent_for, silence) in &mut self.followed {
            if last_received > silent_for.cutoff(silence.checked) {
                silence.due = silence.due.min(last_received.plus(silent_for.duration()));
            }
        }
    }

    /// When the next rocket may become silent; none without followers.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.followed.values().map(|silence| silence.due).min()
    }

    /// Whether the clock was set back, so that followers must start again.
    pub(super) fn is_clock_set_back(&self, now: Timestamp) -> bool {
        !self.followed.is_empty() && now < self.now().minus(MAX_CLOCK_STEP_BACK)
    }

    /// Starts a check at this time: returns the silences that are due, the most urgent first, and
    /// the time of their last check. Forgets those that nobody has followed for a while.
    pub(super) fn start_check(
        &mut self,
        now: Timestamp,
        retention: Duration,
    ) -> Vec<(SilentFor, Timestamp)> {
        for silence in self.followed.values_mut().filter(|silence| silence.is_followed()) {
            silence.last_followed = Instant::now();
        }
        self.followed.retain(|_, silence| silence.last_followed.elapsed() < retention);
        let now = now.max(self.now());
        self.now = Some(now);
        let due = self.followed.iter().filter(|(_, silence)| silence.due <= now);
        let mut due: Vec<_> =
            due.map(|(silent_for, it)| (it.due, *silent_for, it.checked)).collect();
        due.sort_unstable();
        due.into_iter().map(|(_, silent_for, checked)| (silent_for, checked)).collect()
    }

    /// The rockets that were silent at this time have been found. No other becomes silent before
    /// `due`.
    pub(super) fn end_check(&mut self, silent_for: SilentFor, checked: Timestamp, due: Timestamp) {
        if let Some(silence) = self.followed.get_mut(&silent_for) {
            (silence.checked, silence.due) = (checked, due);
        }
    }
}

impl Silence {
    fn is_followed(&self) -> bool {
        Arc::strong_count(&self.token) > 1
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const RETENTION: Duration = Duration::from_secs(60);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_micros(second * 1_000_000).unwrap()
    }

    fn silent_for(text: &str) -> SilentFor {
        SilentFor::parse(text).unwrap()
    }

    #[test]
    fn the_first_rocket_to_become_silent_decides_when_to_check() {
        let mut silences = Silences::default();
        assert_eq!(silences.next_due(), None);
        let (minute, hour) = (silent_for("1m"), silent_for("1h"));
        let _tokens = [minute, hour].map(|it| silences.follow(it, 7, at(10_000)).unwrap());
        assert_eq!(
            silences.start_check(at(10_001), RETENTION),
            [(minute, at(10_000)), (hour, at(10_000))]
        );
        silences.end_check(minute, at(10_001), at(10_050));
        silences.end_check(hour, at(10_001), at(13_000));
        // This one has been silent for a minute, but not for an hour.
        silences.received(at(9_000));
        assert_eq!(silences.next_due(), Some(at(10_050)));
        assert_eq!(silences.start_check(at(12_599), RETENTION), [(minute, at(10_001))]);
        silences.end_check(minute, at(12_599), at(99_999));
        silences.received(at(12_590));
        assert_eq!(silences.next_due(), Some(at(12_600)));
        assert_eq!(silences.start_check(at(12_601), RETENTION), [(hour, at(10_001))]);
    }

    #[test]
    fn only_a_silence_that_was_followed_ever_since_is_complete() {
        let mut silences = Silences::default();
        let minute = silent_for("1m");
        assert!(!silences.is_complete_since(minute, 9));
        let token = silences.follow(minute, 7, at(10)).unwrap();
        drop(silences.follow(minute, 9, at(10)));
        assert!(silences.is_complete_since(minute, 7) && !silences.is_complete_since(minute, 6));
        assert!(!silences.is_complete_since(silent_for("2m"), 7));
        drop(token);
        // It is kept for who comes back.
        silences.start_check(at(11), RETENTION);
        assert!(silences.is_complete_since(minute, 7));
        silences.start_check(at(12), Duration::ZERO);
        assert!(!silences.is_complete_since(minute, 7));
    }

    #[test]
    fn the_number_of_silences_is_bounded_and_those_that_nobody_follows_make_room() {
        let mut silences = Silences::default();
        let silence = |seconds: usize| silent_for(&format!("{}s", seconds + 1));
        let mut tokens: Vec<_> =
            (0..MAX_SILENCES).map(|it| silences.follow(silence(it), 0, at(9)).unwrap()).collect();
        assert!(silences.follow(silence(MAX_SILENCES), 0, at(9)).is_none());
        assert!(silences.follow(silence(0), 0, at(9)).is_some());
        tokens.pop();
        assert!(silences.follow(silence(MAX_SILENCES), 0, at(9)).is_some());
    }

    #[test]
    fn time_goes_on_unless_the_clock_is_set_back_by_much() {
        let mut silences = Silences::default();
        assert!(!silences.is_clock_set_back(Timestamp::FIRST), "nobody follows");
        let token = silences.follow(silent_for("1m"), 0, at(100));
        drop(silences.follow(silent_for("2m"), 0, at(99)));
        assert_eq!(silences.now(), at(100));
        silences.start_check(at(99), RETENTION);
        assert_eq!(silences.now(), at(100));
        assert!(!silences.is_clock_set_back(at(99)) && silences.is_clock_set_back(at(98)));
        drop(token);
        silences.start_check(at(100), Duration::ZERO);
        let _token = silences.follow(silent_for("1m"), 0, at(50));
        assert_eq!(silences.now(), at(50), "nobody looked");
    }
}
