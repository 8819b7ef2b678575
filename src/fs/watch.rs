//! Changes that the provider tells of: what they touch is asked for again when somebody looks, before it is too old.
//!
//! Nothing is fetched here. As long as nothing that is known is young enough to be relied on, the provider isn't asked
//! for changes either.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info};

use super::FileSystem;
use super::table::Outdated;
use crate::model::{Error, ErrorKind, Kind, ObjectKey, Result};
use crate::provider::{Change, ChangeFeed};

/// The first and the longest pause after a feed failed; each is twice the one before.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// How often is looked whether anything is relied on.
const IDLE: Duration = Duration::from_secs(1);
/// How many directories the provider is asked to watch.
const MOST_WATCHED: usize = 64;
/// A feed that says nothing for so long is given up: each has requests with deadlines of their own.
const SILENCE: Duration = Duration::from_secs(120);

impl FileSystem {
    /// Follows what the provider tells of changes, for as long as it is waited for; returns when the provider tells none.
    pub async fn follow_changes(&self) {
        let mut feed = self.provider.changes();
        let mut pause = PAUSES.0;
        loop {
            let watched = self.table.relied_on(self.settings.attr_ttl, MOST_WATCHED);
            if watched.is_empty() || self.provider_is_away() {
                tokio::time::sleep(IDLE).await;
                continue;
            }
            let Some(following) = feed.as_mut() else {
                // Before anybody was logged in there was no telling.
                feed = self.provider.changes();
                match feed {
                    Some(_) => continue,
                    None => return,
                }
            };
            match next(following.as_mut(), &watched).await {
                Ok(changes) => {
                    pause = PAUSES.0;
                    self.outdate(&changes);
                }
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    info!(%error, "changes made by others are found by asking only");
                    return;
                }
                Err(error) => {
                    let wait = match error.kind() {
                        ErrorKind::RateLimited {
                            retry_after: Some(wait),
                        } => wait.max(pause),
                        _ => pause,
                    };
                    debug!(%error, ?wait, "changes made by others are not told for now");
                    tokio::time::sleep(wait).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }

    /// All that is known has to be asked for again.
    pub(super) fn everything_changed(&self) {
        self.outdate(&[Change::Anywhere]);
    }

    /// What is known there has to be asked for again.
    fn outdate(&self, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        let within: Option<HashSet<&ObjectKey>> = changes
            .iter()
            .map(|change| match change {
                Change::Within(directory) => Some(directory),
                Change::Anywhere => None,
            })
            .collect();
        match &within {
            Some(directories) => directories
                .iter()
                .for_each(|directory| self.kept_is_of_another(directory)),
            None => self.forget_all_kept(),
        }
        let (outdated, free) = self.table.expire_within(within.as_ref());
        debug!(
            directories = changes.len(),
            entries = outdated.len(),
            "changed by others"
        );
        self.tell_kernel(move |kernel| {
            for Outdated { ino, kind, place } in outdated {
                kernel.forget_attributes(ino);
                // A directory that somebody is in would seem deleted without its name.
                if let (Kind::File, Some((parent, name))) = (kind, place) {
                    kernel.forget_name(parent, name.as_str().as_ref());
                }
            }
            for (parent, name) in free {
                kernel.forget_name(parent, name.as_str().as_ref());
            }
        });
    }
}

async fn next(feed: &mut dyn ChangeFeed, watched: &[ObjectKey]) -> Result<Vec<Change>> {
    let began = Instant::now();
    tokio::time::timeout(SILENCE, feed.next(watched))
        .await
        .unwrap_or_else(|_| {
            let waited = began.elapsed().as_secs();
            Err(Error::new(
                ErrorKind::TimedOut,
                format!("wait for changes: nothing came for {waited} s"),
            ))
        })
}
