//! Directories that are getting another name at the provider. Until its answer is known here, what is below may have either
//! key there: nothing below is begun to be sent, and "not found" by one of those keys says nothing.
//!
//! Not whose turn it is to give a directory another name: that is `FileSystem::renaming`.

use tokio::sync::watch;

use super::inode::{Freshness, Node};
use super::{FileSystem, Ino};
use crate::model::{Error, ErrorKind, Holder, ObjectKey, Result};

/// The directory that is on its way.
#[derive(Default)]
pub struct Moving {
    directory: watch::Sender<Option<Ino>>,
    mover: Holder,
}

/// As long as this lives, a directory is on its way.
pub struct Move<'a>(&'a Moving);

impl Drop for Move<'_> {
    fn drop(&mut self) {
        self.0.directory.send_replace(None);
    }
}

impl Moving {
    /// To be called before the provider is asked, by who may rename directories until this ends.
    pub fn begin(&self, directory: Ino) -> Move<'_> {
        self.mover.is_current();
        self.directory.send_replace(Some(directory));
        Move(self)
    }

    /// Waits for a directory that something is in.
    async fn passed(&self, is_in: impl Fn(Ino) -> bool) {
        let mut directory = self.directory.subscribe();
        let passed = directory.wait_for(|directory| !directory.is_some_and(&is_in));
        // The sender lives as long as `self`.
        let _ = self.mover.wait(passed).await;
    }
}

/// The keys in a directory, as they were known at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeysThen {
    directory: Ino,
    since: u64,
}

impl FileSystem {
    /// Returns when no directory is on its way that this is, or is in.
    pub(super) async fn stands_still(&self, ino: Ino) {
        self.moving
            .passed(|directory| self.table.is_within(ino, directory))
            .await;
    }

    /// Whether something that was not found by a key is to be asked for by another: it is known, or to be looked up, when
    /// this returns.
    pub(super) async fn was_moved(&self, ino: Ino, by: &ObjectKey, error: &Error) -> bool {
        if error.kind() != ErrorKind::NotFound {
            return false;
        }
        self.stands_still(ino).await;
        let has_another = |node: &mut Node| node.freshness == Freshness::KeyLost || node.entry.key != *by;
        self.table.with(ino, has_another).unwrap_or(false)
    }

    /// To be called before the provider is given a key in this directory, or below it.
    pub(super) fn keys_now(&self, directory: Ino) -> KeysThen {
        let since = self.table.with(directory, |node| node.keys_since);
        KeysThen {
            directory,
            since: since.unwrap_or_default(),
        }
    }

    /// As `keys_now`, in the directory that something is in.
    pub(super) fn keys_beside(&self, ino: Ino) -> Result<KeysThen> {
        // The root is in none, and doesn't move.
        let directory = self.place(ino)?.map_or(Ino::ROOT, |(directory, _)| directory);
        Ok(self.keys_now(directory))
    }

    /// What the provider answered has a key of then: if a directory above was moved since, it has another by now.
    pub(super) fn doubt_key(&self, ino: Ino, then: KeysThen) {
        let since = self.table.with(then.directory, |node| node.keys_since);
        if since.is_ok_and(|since| since != then.since) {
            let _ = self.table.with(ino, |node| node.freshness = Freshness::KeyLost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_below_waits() {
        let moving = Moving::default();
        let (above, elsewhere) = (Ino(7), Ino(8));
        let on_its_way = moving.begin(above);
        moving.passed(|directory| directory == elsewhere).await;
        let mut waits = std::pin::pin!(moving.passed(|directory| directory == above));
        assert!(futures_util::poll!(waits.as_mut()).is_pending());
        drop(on_its_way);
        waits.await;
        moving.passed(|_| true).await;
    }
}
