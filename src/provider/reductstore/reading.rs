//! Reading a record so that wrong bytes never pass for right ones.
//!
//! While a record is sent, the removal of an earlier one in the same block shifts what follows: status 200, the right
//! length, other bytes (measured on ReductStore 1.21.5). Own removals therefore wait for own readers of the entry, and
//! what others remove is found by the checksum that keymount stores with every record.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::key::EntryId;
use super::records::Record;
use crate::model::{Error, Result};
use crate::provider::ByteStream;
use crate::provider::content::hex;

/// Locks for each entry that is being read, stored into or removed from.
#[derive(Default)]
pub(super) struct EntryLocks {
    /// Shared by readers and uploads, exclusive for a removal.
    records: LockMap<RwLock<()>>,
    /// Held by one upload after the other, taken before the lock in `records`.
    turns: LockMap<AsyncMutex<()>>,
}

struct LockMap<L>(Mutex<HashMap<EntryId, Arc<L>>>);

impl<L> Default for LockMap<L> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<L: Default> LockMap<L> {
    fn of(&self, entry: &EntryId) -> Arc<L> {
        let mut locks = self.0.lock();
        // Nobody else can take a lock that only the map knows while the map is locked.
        locks.retain(|known, lock| known == entry || Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(entry.clone()).or_default())
    }
}

impl EntryLocks {
    /// Held for as long as a record's bytes are on their way.
    pub(super) async fn reading(&self, entry: &EntryId) -> OwnedRwLockReadGuard<()> {
        self.records.of(entry).read_owned().await
    }

    /// Held for as long as a record is being stored.
    pub(super) async fn storing(&self, entry: &EntryId) -> OwnedRwLockReadGuard<()> {
        self.records.of(entry).read_owned().await
    }

    /// Held while a record of the entry is removed.
    pub(super) async fn removing(&self, entry: &EntryId) -> OwnedRwLockWriteGuard<()> {
        self.records.of(entry).write_owned().await
    }

    /// Held by the one upload into the entry that is going on.
    pub(super) async fn turn(&self, entry: &EntryId) -> OwnedMutexGuard<()> {
        self.turns.of(entry).lock_owned().await
    }
}

/// A record's bytes; the last item is `BadData` unless all of them and no others came.
pub(super) fn verified(bytes: ByteStream, record: &Record, guard: OwnedRwLockReadGuard<()>) -> ByteStream {
    let check = Check {
        bytes,
        left: record.size,
        digest: record.sha256().map(|digest| (Sha256::new(), digest.to_owned())),
        _guard: guard,
    };
    stream::try_unfold(check, |mut check| async move {
        let chunk = check.next().await?;
        Ok(chunk.map(|chunk| (chunk, check)))
    })
    .boxed()
}

struct Check {
    bytes: ByteStream,
    /// Bytes that are still to come.
    left: u64,
    /// The checksum so far and the promised one, for records that have one.
    digest: Option<(Sha256, String)>,
    _guard: OwnedRwLockReadGuard<()>,
}

impl Check {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        match self.bytes.next().await.transpose()? {
            Some(chunk) => {
                self.left = self
                    .left
                    .checked_sub(chunk.len() as u64)
                    .ok_or_else(|| Error::bad_data("read the file: the record is longer than it was said to be"))?;
                if let Some((hasher, _)) = &mut self.digest {
                    hasher.update(&chunk);
                }
                Ok(Some(chunk))
            }
            None if self.left > 0 => Err(Error::bad_data(format!(
                "read the file: {} bytes are missing at the end",
                self.left
            ))),
            None => match self
                .digest
                .take()
                .map(|(hasher, promised)| (hex(&hasher.finalize()), promised))
            {
                Some((found, promised)) if found != promised => Err(Error::bad_data(
                    "read the file: the bytes don't have the checksum that was stored with them",
                )),
                _ => Ok(None),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::Timestamp;
    use super::super::records::SHA256;
    use super::*;
    use crate::model::ErrorKind;

    fn entry() -> EntryId {
        EntryId {
            bucket: "b".into(),
            path: "e".into(),
        }
    }

    async fn outcome(sent: &'static [u8], size: u64, digest_of: Option<&[u8]>) -> Result<Vec<u8>, ErrorKind> {
        let record = Record {
            at: Timestamp(1),
            size,
            content_type: String::new(),
            labels: digest_of
                .map(|bytes| (SHA256.to_owned(), hex(&Sha256::digest(bytes))))
                .into_iter()
                .collect(),
        };
        let guard = EntryLocks::default().reading(&entry()).await;
        let chunks = stream::iter(sent.chunks(2).map(|chunk| Ok(Bytes::from_static(chunk)))).boxed();
        let mut stream = verified(chunks, &record, guard);
        let mut all = Vec::new();
        while let Some(chunk) = stream.next().await {
            all.extend_from_slice(&chunk.map_err(|error| error.kind())?);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn only_the_promised_bytes_pass() {
        assert_eq!(outcome(b"hello", 5, Some(b"hello")).await, Ok(b"hello".to_vec()));
        assert_eq!(outcome(b"hello", 5, None).await, Ok(b"hello".to_vec()));
        assert_eq!(outcome(b"", 0, Some(b"")).await, Ok(Vec::new()));
        assert_eq!(outcome(b"hellO", 5, Some(b"hello")).await, Err(ErrorKind::BadData));
        assert_eq!(outcome(b"hell", 5, None).await, Err(ErrorKind::BadData));
        assert_eq!(outcome(b"hello!", 5, None).await, Err(ErrorKind::BadData));
    }

    #[tokio::test]
    async fn a_removal_waits_for_the_readers_of_its_entry_only() {
        let locks = EntryLocks::default();
        let reader = locks.reading(&entry()).await;
        let other = EntryId {
            path: "other".into(),
            ..entry()
        };
        drop(locks.removing(&other).await);
        let here = entry();
        let mut removal = std::pin::pin!(locks.removing(&here));
        assert!(futures_util::poll!(removal.as_mut()).is_pending());
        drop(reader);
        drop(removal.await);
        drop(locks.reading(&other).await);
        assert_eq!(locks.records.0.lock().len(), 1, "locks that nobody holds are forgotten");
    }
}
