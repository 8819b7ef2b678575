//! What this mount has removed a moment ago, and a listing may still show.
//!
//! Amazon S3's listings never do. Garage asks a quorum of its nodes and takes what any of them still has, so a removed
//! object is listed until the last node knows of its end. A look at the object itself is right at once, so those that
//! were removed here, and no others, are looked at again. The marker of a directory cannot be looked at: it counts as gone for
//! that time, also when somebody else makes the directory again.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a listing may lag behind; milliseconds were seen on Garage.
const LAG: Duration = Duration::from_secs(5);
/// Removals after which the old ones are forgotten.
const MANY: usize = 1_000;

/// The keys that were removed here, each with its moment.
#[derive(Default)]
pub(super) struct Ghosts(Mutex<HashMap<String, Instant>>);

impl Ghosts {
    pub(super) fn removed(&self, key: &str) {
        let mut keys = self.0.lock();
        if keys.len() >= MANY {
            keys.retain(|_, removed| removed.elapsed() < LAG);
        }
        keys.insert(key.to_owned(), Instant::now());
    }

    /// Something was stored there again, or it was looked at and is there.
    pub(super) fn is_there(&self, key: &str) {
        self.0.lock().remove(key);
    }

    /// Whether a listed key may be one that is gone.
    pub(super) fn may_be(&self, key: &str) -> bool {
        self.0.lock().get(key).is_some_and(|removed| removed.elapsed() < LAG)
    }

    /// Whether a key that begins like this may be one that is gone.
    pub(super) fn may_be_below(&self, directory: &str) -> bool {
        let keys = self.0.lock();
        keys.iter()
            .any(|(key, removed)| key.starts_with(directory) && removed.elapsed() < LAG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_removed_is_doubted_for_a_while() {
        let ghosts = Ghosts::default();
        ghosts.removed("a/b");
        assert!(ghosts.may_be("a/b") && ghosts.may_be_below("a/"));
        assert!(!ghosts.may_be("a/c") && !ghosts.may_be_below("b/"));
        ghosts.is_there("a/b");
        assert!(!ghosts.may_be("a/b") && !ghosts.may_be_below("a/"));
        ghosts.removed("a/b");
        tokio::time::advance(LAG).await;
        assert!(!ghosts.may_be("a/b"));
    }
}
