//! Directories that were there a moment ago.
//!
//! Whoever stores many files in one needn't ask for it each time. What somebody else removes meanwhile is there again
//! then, with the new file in it: a directory of S3 is nothing but the beginning of a key.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::names::folder_of;

/// How long one is taken to be there still.
const MOMENT: Duration = Duration::from_secs(10);
/// Directories after which the old ones are forgotten.
const MANY: usize = 1_000;

/// Those of one bucket, each with the time when it was seen.
#[derive(Default)]
pub(super) struct Rooms(Mutex<HashMap<String, Instant>>);

impl Rooms {
    pub(super) fn seen(&self, directory: &str) {
        let mut rooms = self.0.lock();
        if rooms.len() >= MANY {
            rooms.retain(|_, seen| seen.elapsed() < MOMENT);
        }
        rooms.insert(directory.to_owned(), Instant::now());
    }

    pub(super) fn is_there(&self, directory: &str) -> bool {
        self.0.lock().get(directory).is_some_and(|seen| seen.elapsed() < MOMENT)
    }

    /// A key was removed, and with it perhaps the last that began with the path of a directory above it.
    pub(super) fn doubt(&self, key: &str) {
        let mut rooms = self.0.lock();
        rooms.remove(key);
        let mut above = folder_of(key);
        while !above.is_empty() {
            rooms.remove(above);
            above = folder_of(above);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_seen_counts_for_a_moment_and_until_something_goes() {
        let rooms = Rooms::default();
        rooms.seen("a/b/");
        rooms.seen("a/");
        rooms.seen("c/");
        assert!(rooms.is_there("a/b/") && rooms.is_there("a/") && !rooms.is_there("b/"));
        rooms.doubt("a/b/file");
        assert!(!rooms.is_there("a/b/") && !rooms.is_there("a/") && rooms.is_there("c/"));
        rooms.doubt("c/");
        assert!(!rooms.is_there("c/"));
        rooms.seen("c/");
        tokio::time::advance(MOMENT).await;
        assert!(!rooms.is_there("c/"));
    }
}
