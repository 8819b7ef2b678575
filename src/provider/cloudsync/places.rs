//! Where folders were a moment ago: CloudSync names folders by id and lists them by path.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a folder is taken to be where it was seen: one walk through a tree, and far less than anybody's listing is
/// believed. Every folder would cost a request of its own without.
const BELIEVED: Duration = Duration::from_secs(2);
/// How many are remembered at once.
const MOST: usize = 4096;

/// Paths of folders by id.
#[derive(Default)]
pub(super) struct Places(Mutex<HashMap<String, Seen>>);

struct Seen {
    path: String,
    at: Instant,
}

impl Places {
    pub(super) fn saw(&self, id: &str, path: &str) {
        let mut seen = self.0.lock();
        if seen.len() >= MOST {
            seen.retain(|_, seen| seen.at.elapsed() < BELIEVED);
            if seen.len() >= MOST {
                return;
            }
        }
        let now = Seen {
            path: path.to_owned(),
            at: Instant::now(),
        };
        seen.insert(id.to_owned(), now);
    }

    pub(super) fn path(&self, id: &str) -> Option<String> {
        let seen = self.0.lock();
        let seen = seen.get(id).filter(|seen| seen.at.elapsed() < BELIEVED)?;
        Some(seen.path.clone())
    }

    /// A folder was moved or removed, and with it all below.
    pub(super) fn forget_all(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_place_is_believed_for_a_moment() {
        let places = Places::default();
        places.saw("folder_1", "/a");
        tokio::time::advance(BELIEVED / 2).await;
        assert_eq!(places.path("folder_1").as_deref(), Some("/a"));
        tokio::time::advance(BELIEVED).await;
        assert_eq!(places.path("folder_1"), None);
        places.saw("folder_1", "/b");
        places.forget_all();
        assert_eq!(places.path("folder_1"), None);
    }
}
