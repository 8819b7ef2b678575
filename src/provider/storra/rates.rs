//! How often Storra may be asked, by kind of request (Storra documentation, rate limiting): rolling windows per key.

use std::sync::Arc;
use std::time::Duration;

use crate::net::{Metering, RateBucket};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Listings in an hour.
const LISTS: u32 = 100;

/// One bucket for each kind of request that keymount sends.
pub(super) struct Rates {
    /// `GET /users/me`.
    pub(super) profile: Arc<RateBucket>,
    pub(super) uploads: Arc<RateBucket>,
    /// Both listings.
    pub(super) lists: Arc<RateBucket>,
    pub(super) downloads: Arc<RateBucket>,
    /// Making folders and asking about them.
    pub(super) folders: Arc<RateBucket>,
    /// Moving, deleting, changing who may see something.
    pub(super) file_ops: Arc<RateBucket>,
    pub(super) trash: Arc<RateBucket>,
}

impl Rates {
    pub(super) fn documented() -> Self {
        let bucket = |what, limit, window| Arc::new(RateBucket::new(what, limit, window));
        Self {
            profile: bucket("questions about the account", 60, MINUTE),
            uploads: bucket("uploads", 50, HOUR),
            lists: bucket("listings", LISTS, HOUR),
            downloads: bucket("downloads", 200, HOUR),
            folders: bucket("new folders", 100, HOUR),
            file_ops: bucket("moves and deletions", 100, HOUR),
            trash: bucket("restoring from the trash", 50, HOUR),
        }
    }
}

pub(super) fn counted(bucket: &Arc<RateBucket>) -> Metering {
    Metering::Counted(Arc::clone(bucket))
}

pub(super) fn prepaid(bucket: &Arc<RateBucket>) -> Metering {
    Metering::Prepaid(Arc::clone(bucket))
}

/// How long a listing of so many requests counts as current. Half of the listings in an hour are for this; the other
/// half is for looking at a folder when something in it is changed.
pub(super) fn affordable_age(requests: u32) -> Duration {
    HOUR * requests.max(1) / (LISTS / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_accounts_are_listed_less_often() {
        assert_eq!(affordable_age(0), Duration::from_secs(72));
        assert_eq!(affordable_age(1), Duration::from_secs(72));
        assert_eq!(affordable_age(10), Duration::from_secs(720));
    }
}
