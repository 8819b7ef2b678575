//! Whether the disk does its work.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// After a failure one in so many writes is tried, to see whether the disk works again.
pub(super) const TRY_EVERY: u32 = 64;

/// One line in the log for each change.
#[derive(Default)]
pub(super) struct Health {
    pub(super) failing: AtomicBool,
    skipped: AtomicU32,
}

impl Health {
    /// Whether the next write is to be tried.
    pub(super) fn allows(&self) -> bool {
        !self.failing.load(Ordering::Relaxed)
            || self.skipped.fetch_add(1, Ordering::Relaxed) % TRY_EVERY == TRY_EVERY - 1
    }

    pub(super) fn failed(&self, what: &str, error: &io::Error) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!("the disk cache cannot be {what} and is done without: {error}");
        }
    }

    pub(super) fn worked(&self) {
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("the disk cache works again");
        }
    }
}
