//! The store's clock, which tests move and stop.
//!
//! Responsible for the time that items, rates and the trash go by.

use jiff::{SignedDuration, Timestamp};

/// A clock that can be ahead of the real one, or stand still.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    reading: Reading,
    /// The time of the latest change.
    latest: Timestamp,
}

#[derive(Debug, Clone, Copy)]
enum Reading {
    Running { ahead: SignedDuration },
    Stopped(Timestamp),
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            reading: Reading::Running {
                ahead: SignedDuration::ZERO,
            },
            latest: Timestamp::UNIX_EPOCH,
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        let now = match self.reading {
            Reading::Running { ahead } => Timestamp::now().checked_add(ahead).unwrap_or(Timestamp::MAX),
            Reading::Stopped(time) => time,
        };
        Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    }

    pub(super) fn stop(&mut self) {
        self.reading = Reading::Stopped(self.now());
    }

    pub(super) fn advance(&mut self, by: SignedDuration) {
        self.reading = match self.reading {
            Reading::Running { ahead } => Reading::Running {
                ahead: ahead.saturating_add(by),
            },
            Reading::Stopped(time) => Reading::Stopped(time.checked_add(by).unwrap_or(Timestamp::MAX)),
        };
    }

    /// The time of a new change: now, but later than the latest by a millisecond at least.
    pub(super) fn tick(&mut self) -> Timestamp {
        let later = self
            .latest
            .checked_add(SignedDuration::from_millis(1))
            .unwrap_or(self.latest);
        self.latest = self.now().max(later);
        self.latest
    }
}
