//! How many bytes may be staged at the same time, and how many the disk has room for.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::{Error, ErrorKind, Result};

/// What is left free on the disk for the journal, which must be able to say where the staged files are: 16 MiB, a
/// thousand times what a file's row takes.
const LEFT_FREE: u64 = 16 << 20;

/// The room of one mount.
#[derive(Debug)]
pub struct Room {
    /// In bytes; `None` leaves it to the disk.
    limit: Option<u64>,
    used: AtomicU64,
    /// On the disk that is meant.
    folder: File,
}

impl Room {
    pub fn new(folder: File, limit: Option<u64>) -> Self {
        Self {
            limit,
            used: AtomicU64::new(0),
            folder,
        }
    }

    /// In bytes.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// # Errors
    /// `NoSpace` when there is none, and nothing is taken then.
    pub fn take(&self, more: u64) -> Result<()> {
        let fits = |used: u64| {
            let sum = used.checked_add(more)?;
            self.limit.is_none_or(|limit| sum <= limit).then_some(sum)
        };
        if self
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, fits)
            .is_err()
        {
            return Err(Error::new(
                ErrorKind::NoSpace,
                "as much waits to be uploaded as --staging-size allows; write again when some of it is sent, see: keymount status",
            ));
        }
        if self.free_on_disk() < LEFT_FREE.saturating_add(more) {
            self.give_back(more);
            return Err(Error::new(
                ErrorKind::NoSpace,
                "the local disk is nearly full, and what is written waits there until it is uploaded; make room, see: keymount status",
            ));
        }
        Ok(())
    }

    /// As `take`, for what is there anyway.
    pub fn insist(&self, more: u64) {
        self.used.fetch_add(more, Ordering::AcqRel);
    }

    pub fn give_back(&self, less: u64) {
        self.used.fetch_sub(less, Ordering::AcqRel);
    }

    /// In bytes; a disk that doesn't tell is thought to have room until it refuses.
    fn free_on_disk(&self) -> u64 {
        match rustix::fs::fstatvfs(&self.folder) {
            Ok(told) => told.f_bavail.saturating_mul(told.f_frsize),
            Err(_) => u64::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(limit: Option<u64>) -> Room {
        Room::new(File::open(".").unwrap(), limit)
    }

    #[test]
    fn the_limit_holds_at_every_moment_and_room_comes_back() {
        let room = room(Some(100));
        room.take(60).unwrap();
        assert_eq!(room.take(41).unwrap_err().kind(), ErrorKind::NoSpace);
        assert_eq!(room.used(), 60, "what was refused takes nothing");
        room.take(40).unwrap();
        room.give_back(60);
        room.take(60).unwrap();
        room.insist(1000);
        assert!(room.take(1).is_err());
    }

    #[test]
    fn a_disk_that_would_be_full_says_so_before_it_is() {
        let refused = room(None).take(1 << 60).unwrap_err();
        assert!(
            refused.kind() == ErrorKind::NoSpace && refused.message().contains("disk"),
            "{refused}"
        );
    }
}
