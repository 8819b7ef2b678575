//! The stand-in's clock: the real one, moved or stopped by a test.
//!
//! Responsible for every time that answers carry and that something ends at: tokens, codes, windows of requests.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

/// Tells the time; clones are the same clock. Starts as the real one.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Mutex<Hands>>);

#[derive(Debug, Clone, Copy)]
enum Hands {
    /// Goes with the real clock.
    Running { ahead: SignedDuration },
    /// Shows this until it is moved.
    Stopped { at: Timestamp },
}

impl Default for Clock {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Hands::Running {
            ahead: SignedDuration::ZERO,
        })))
    }
}

impl Clock {
    /// What the clock shows.
    pub fn now(&self) -> Timestamp {
        match *self.0.lock() {
            Hands::Running { ahead } => later(Timestamp::now(), ahead),
            Hands::Stopped { at } => at,
        }
    }

    /// Moves the clock forward (or back), so that nobody waits for something to end.
    pub fn advance(&self, by: SignedDuration) {
        let mut hands = self.0.lock();
        *hands = match *hands {
            Hands::Running { ahead } => Hands::Running {
                ahead: ahead.saturating_add(by),
            },
            Hands::Stopped { at } => Hands::Stopped { at: later(at, by) },
        };
    }

    /// Stops the clock at this time.
    pub fn stop_at(&self, at: Timestamp) {
        *self.0.lock() = Hands::Stopped { at };
    }

    /// Lets the clock go with the real one again.
    pub fn follow_real_time(&self) {
        *self.0.lock() = Hands::Running {
            ahead: SignedDuration::ZERO,
        };
    }
}

/// `by` after `from`, or the end of time.
pub(super) fn later(from: Timestamp, by: SignedDuration) -> Timestamp {
    from.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_moves_stands_and_follows() {
        let clock = Clock::default();
        let at: Timestamp = "2026-01-06T10:30:00Z".parse().unwrap();
        clock.stop_at(at);
        clock.clone().advance(SignedDuration::from_secs(90));
        assert_eq!(clock.now().to_string(), "2026-01-06T10:31:30Z");
        clock.follow_real_time();
        let before = Timestamp::now();
        assert!(clock.now() >= before);
        clock.advance(SignedDuration::from_hours(1));
        assert!(clock.now() >= later(before, SignedDuration::from_hours(1)));
        clock.advance(SignedDuration::MAX);
        assert_eq!(clock.now(), Timestamp::MAX);
    }
}
