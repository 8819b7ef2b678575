//! What one reader has on the way before it asks.

use std::ops::Range;

use tokio::time::Instant;

use super::access;
use super::flight::{Origin, Waiter};
use super::pattern::{Pace, Pattern};

pub(super) struct Ahead {
    pattern: Pattern,
    /// The downloads for which nobody but this waits; they end when it lets go of them.
    held: Vec<Waiter>,
}

impl Ahead {
    pub(super) fn new(largest_window: u64) -> Self {
        Self {
            pattern: Pattern::new(largest_window),
            held: Vec::new(),
        }
    }

    /// Takes note of a read. Gives what is to be asked for in its place, what is to be asked for ahead of it, and what
    /// came or comes in vain: to be dropped without a lock.
    pub(super) fn note(&mut self, wanted: &Range<u64>, size: u64) -> (Range<u64>, Vec<Range<u64>>, Vec<Waiter>) {
        let extent = if self.pattern.is_new() {
            access::opening(wanted.clone(), size)
        } else {
            wanted.clone()
        };
        let plan = self.pattern.note(wanted, size);
        let is_behind =
            |waiter: &Waiter| waiter.has_all() && self.pattern.has_passed(&access::bytes(waiter.blocks(), size));
        let done = self
            .held
            .extract_if(.., |waiter| plan.anew || waiter.is_over() || is_behind(waiter))
            .collect();
        (extent, plan.ranges, done)
    }

    pub(super) fn hold(&mut self, waiters: Vec<Waiter>) {
        self.held.extend(waiters);
    }

    /// Keeps an object coming that comes as a whole, if nothing does so already. Gives what is to be dropped without a
    /// lock.
    pub(super) fn hold_one(&mut self, waiter: Waiter) -> Vec<Waiter> {
        let mut done: Vec<Waiter> = self.held.extract_if(.., |waiter| waiter.is_over()).collect();
        let place = if self.held.is_empty() {
            &mut self.held
        } else {
            &mut done
        };
        place.push(waiter);
        done
    }

    pub(super) fn answered(&mut self, pace: Pace) {
        self.pattern.answered(pace);
    }

    /// What is to be asked for, because the reader waits for what is on the way.
    pub(super) fn stalled(&mut self, wanted: &Range<u64>, size: u64, now: Instant, origin: Origin) -> Vec<Range<u64>> {
        match origin {
            Origin::Provider => self.pattern.stalled(wanted, size, now),
            Origin::Cache => self.pattern.stalled_by_disk(size),
        }
    }

    pub(super) fn give_back(&mut self, from: u64) {
        self.pattern.give_back(from);
    }
}
