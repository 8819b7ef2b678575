//! Where folders were a moment ago: CloudSync names folders by id and lists them by path.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What a folder's place is wanted for, and so how long it is taken to be where it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Something is put there: a moved folder must not come into being again at its former path.
    Change,
    /// What is in it is shown. Whoever comes by a path has just looked the folder up; without this a walk that takes
    /// longer than a moment costs two requests for each folder.
    Listing,
}

impl Use {
    fn believed(self) -> Duration {
        match self {
            Self::Change => Duration::from_secs(2),
            Self::Listing => Duration::from_secs(60),
        }
    }
}

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
            seen.retain(|_, seen| seen.at.elapsed() < Use::Listing.believed());
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

    pub(super) fn path(&self, id: &str, wanted_for: Use) -> Option<String> {
        let seen = self.0.lock();
        let seen = seen.get(id).filter(|seen| seen.at.elapsed() < wanted_for.believed())?;
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
    async fn a_place_is_believed_longer_for_a_look_than_for_a_change() {
        let places = Places::default();
        places.saw("folder_1", "/a");
        tokio::time::advance(Use::Change.believed() / 2).await;
        assert_eq!(places.path("folder_1", Use::Change).as_deref(), Some("/a"));
        tokio::time::advance(Use::Change.believed()).await;
        assert_eq!(places.path("folder_1", Use::Change), None);
        assert_eq!(places.path("folder_1", Use::Listing).as_deref(), Some("/a"));
        tokio::time::advance(Use::Listing.believed()).await;
        assert_eq!(places.path("folder_1", Use::Listing), None);
        places.saw("folder_1", "/b");
        places.forget_all();
        assert_eq!(places.path("folder_1", Use::Listing), None);
    }
}
