//! One upload or removal at a time in an entry, and what has to be out of the way first.
//!
//! The server loses records of an entry in three ways (each measured on ReductStore 1.21.5):
//!
//! * Two uploads at once, where the one with the earlier time is begun later: both are answered with 200, one is gone.
//! * A removal while another record of the block is being stored: from the second removal on the server takes the
//!   unfinished record for a damaged block and gives up all records in it.
//! * A removal after an upload that was cut off: the broken record that it left has the same effect.
//!
//! So uploads into an entry take turns, removals wait for uploads and readers, and a broken record goes first. What
//! other clients do in the same moment is seen only where they are storing the latest record of the entry.

use std::collections::HashSet;

use parking_lot::Mutex;
use tracing::warn;

use super::ReductStore;
use super::key::{EntryId, Key, RecordId, Timestamp};
use super::records::Record;
use crate::model::{Error, ErrorKind, Result};
use crate::net::Replay;
use crate::provider::Content;

/// How many broken records at an entry's end are cleared away at once.
const MAX_BROKEN: u32 = 64;
/// The time of a record that is to be stored.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    /// Now, but later than this.
    After(Timestamp),
    At(Timestamp),
}

/// Entries that this process found without broken records, and left without.
#[derive(Default)]
pub(super) struct Tidy(Mutex<HashSet<EntryId>>);

impl Tidy {
    fn contains(&self, entry: &EntryId) -> bool {
        self.0.lock().contains(entry)
    }

    /// Whether the entry is one of them; it isn't any more until it is put back.
    fn take(&self, entry: &EntryId) -> bool {
        self.0.lock().remove(entry)
    }

    fn put_back(&self, entry: &EntryId) {
        self.0.lock().insert(entry.clone());
    }
}

impl ReductStore {
    /// Sends a record when it is its turn, and gives it the time that it got.
    pub(super) async fn send(&self, entry: &EntryId, record: &mut Record, when: When, content: &Content) -> Result<()> {
        let _turn = self.locks.turn(entry).await;
        // Whoever is cancelled from here on leaves an entry that must be looked at anew.
        let tidy = self.tidy.take(entry) || self.tidied(entry).await;
        let _guard = self.locks.storing(entry).await;
        record.at = match when {
            When::After(after) => self.clock.later_than(after.0),
            When::At(at) => at,
        };
        self.server.write(entry, record, content).await?;
        if tidy {
            self.tidy.put_back(entry);
        }
        Ok(())
    }

    /// Clears the end of an entry before there is a later record: in the midst of others a broken one is hard to find.
    async fn tidied(&self, entry: &EntryId) -> bool {
        if is_whole(&self.server.head_latest(entry).await) {
            return true;
        }
        let _guard = self.locks.removing(entry).await;
        let cleared = self.clear_end(entry, None).await;
        cleared.unwrap_or_else(|error| {
            warn!(%entry, %error, "whether the end of an entry is broken isn't known");
            false
        })
    }

    /// Removes one record.
    ///
    /// # Errors
    /// `NotFound`; `Busy` while another client stores one in the same entry.
    pub(super) async fn remove_record(&self, id: &RecordId) -> Result<()> {
        self.remove_carefully(id, Replay::Idempotent).await
    }

    /// The same, but without knowing after a lost answer whether it was this removal that worked.
    pub(super) async fn remove_record_once(&self, id: &RecordId) -> Result<()> {
        self.remove_carefully(id, Replay::Once).await
    }

    async fn remove_carefully(&self, id: &RecordId, replay: Replay) -> Result<()> {
        let entry = &id.entry;
        // Patient where another client is storing, therefore before nobody may read.
        let end = self.server.head_latest(entry).await;
        let _guard = self.locks.removing(entry).await;
        if (!is_whole(&end) || !self.tidy.contains(entry)) && self.clear_end(entry, Some(id.at)).await? {
            self.tidy.put_back(entry);
        }
        self.server.remove_record(id, replay).await
    }

    /// Removes broken records from an entry in which no other could be harmed by that.
    pub(super) async fn remove_broken(&self, id: &RecordId) -> Result<()> {
        let _guard = self.locks.removing(&id.entry).await;
        self.server.remove_record(id, Replay::Idempotent).await
    }

    /// Makes sure that the latest record of an entry is whole, unless it is to be removed anyway. Says whether it is.
    async fn clear_end(&self, entry: &EntryId, unless: Option<Timestamp>) -> Result<bool> {
        let granted = self.granted(&Key::Directory(entry.clone())).await?;
        if granted.write && !granted.read {
            // Nothing can be seen.
            return Ok(false);
        }
        for _ in 0..MAX_BROKEN {
            let end = self.server.head_latest(entry).await;
            let error = match end {
                Err(error) if matches!(error.kind(), ErrorKind::BadData | ErrorKind::Busy) => error,
                end if is_whole(&end) => return Ok(true),
                end => return end.map(|()| true),
            };
            let bucket = self.server.bucket(&entry.bucket).await?;
            let Some(info) = bucket.entry(&entry.path) else {
                return Ok(true);
            };
            let latest = RecordId {
                entry: entry.clone(),
                at: Timestamp(info.latest_record),
            };
            if unless == Some(latest.at) {
                return Ok(false);
            }
            if error.kind() == ErrorKind::Busy {
                return Err(error.context(
                    "another client is storing a file in this directory, and removing one now could damage the others",
                ));
            }
            match self.server.remove_record(&latest, Replay::Idempotent).await {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => warn!(%entry, at = latest.at.0, "removed what a broken upload left"),
            }
        }
        Err(Error::new(
            ErrorKind::Busy,
            "remove the file: the directory ends with many broken records",
        ))
    }
}

/// An entry without records, too, has no broken one at its end.
fn is_whole(end: &Result<()>) -> bool {
    match end {
        Ok(()) => true,
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}
