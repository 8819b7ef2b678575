//! The server's clock.
//!
//! Responsible for letting tests stop it or put it wrong. Not responsible for waiting: nothing in this stand-in does.

use jiff::{SignedDuration, Timestamp};

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Clock {
    stopped_at: Option<Timestamp>,
    ahead: SignedDuration,
}

impl Clock {
    pub(super) fn now(&self) -> Timestamp {
        let base = self.stopped_at.unwrap_or_else(Timestamp::now);
        // Time past what can be written down stays at its end.
        base.saturating_add(self.ahead).unwrap_or(base)
    }

    /// Whole seconds since 1970.
    pub(super) fn seconds(&self) -> i64 {
        self.now().as_second()
    }

    /// Stops at this time.
    pub(super) fn stop_at(&mut self, time: Timestamp) {
        *self = Self {
            stopped_at: Some(time),
            ahead: SignedDuration::ZERO,
        };
    }

    /// Puts the clock forward, or back.
    pub(super) fn shift(&mut self, by: SignedDuration) {
        self.ahead = self.ahead.saturating_add(by);
    }
}
