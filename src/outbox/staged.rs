//! The local copy of a file that is being changed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::spool::SpoolFile;
use crate::model::{Error, ErrorKind, Holder, Result};
use crate::provider::Content;

/// A file's content as changed here.
///
/// What was begun on disk is finished and entered, even if the caller stops waiting in the middle.
pub struct Staged {
    shared: Arc<Shared>,
    backing: SpoolFile,
    /// Held shared by writers and exclusively while an upload reads.
    gate: Arc<RwLock<()>>,
    /// Who has the gate for an upload.
    holder: Holder,
}

struct Shared {
    file: Arc<File>,
    state: Mutex<State>,
}

struct State {
    len: u64,
    modified: SystemTime,
    /// Counts changes; what is sent is compared with it.
    changes: u64,
    sent: u64,
}

/// An upload in progress: writers wait while it lives.
pub struct Sending<'a> {
    staged: &'a Staged,
    content: Content,
    changes: u64,
    _gate: OwnedRwLockWriteGuard<()>,
}

impl Staged {
    /// A file that the provider doesn't have: to be sent even if nobody writes to it.
    pub fn new_file(backing: SpoolFile) -> Self {
        Self::with(backing, 0, SystemTime::now(), 1)
    }

    /// A copy of what the provider has.
    pub fn copy(backing: SpoolFile, len: u64, modified: SystemTime) -> Self {
        Self::with(backing, len, modified, 0)
    }

    /// What a daemon that ended left: to be sent.
    ///
    /// # Errors
    /// When the local disk fails.
    pub fn left_behind(backing: SpoolFile) -> Result<Self> {
        let metadata = backing.file().metadata()?;
        let modified = metadata.modified()?;
        Ok(Self::with(backing, metadata.len(), modified, 1))
    }

    fn with(backing: SpoolFile, len: u64, modified: SystemTime, changes: u64) -> Self {
        let state = State {
            len,
            modified,
            changes,
            sent: 0,
        };
        Self {
            shared: Arc::new(Shared {
                file: Arc::clone(backing.file()),
                state: Mutex::new(state),
            }),
            backing,
            gate: Arc::default(),
            holder: Holder::default(),
        }
    }

    /// Where it is on disk.
    pub fn backing(&self) -> &SpoolFile {
        &self.backing
    }

    /// In bytes.
    pub fn len(&self) -> u64 {
        self.shared.state.lock().len
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn modified(&self) -> SystemTime {
        self.shared.state.lock().modified
    }

    /// Whether the provider lacks something.
    pub fn is_dirty(&self) -> bool {
        let state = self.shared.state.lock();
        state.changes > state.sent
    }

    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.shared.file)
    }

    /// Up to `len` bytes from `offset`, fewer only at the end.
    ///
    /// # Errors
    /// When the local disk fails.
    pub async fn read(&self, offset: u64, len: usize) -> Result<Bytes> {
        let want = self.len().saturating_sub(offset).min(len as u64) as usize;
        let file = self.file();
        on_disk(move || {
            let mut buffer = vec![0; want];
            let mut have = 0;
            // It may be truncated meanwhile.
            while have < want {
                match file.read_at(&mut buffer[have..], offset + have as u64) {
                    Ok(0) => break,
                    Ok(more) => have += more,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error.into()),
                }
            }
            buffer.truncate(have);
            Ok(buffer.into())
        })
        .await
    }

    /// Writes at `offset`, or at the end without one; gives the length of the file afterwards.
    ///
    /// # Errors
    /// `TooLarge` beyond `limit` bytes, `NoSpace` and others of the local disk.
    pub async fn write(&self, offset: Option<u64>, bytes: Bytes, limit: Option<u64>) -> Result<u64> {
        let gate = match offset {
            Some(_) => Gate::Shared(self.holder.wait(Arc::clone(&self.gate).read_owned()).await),
            // Two appends must not choose the same end.
            None => Gate::Exclusive(self.holder.wait(Arc::clone(&self.gate).write_owned()).await),
        };
        let offset = offset.unwrap_or_else(|| self.len());
        let end = checked_end(offset, bytes.len() as u64, limit)?;
        let shared = Arc::clone(&self.shared);
        on_disk(move || {
            let _gate = gate;
            shared.file.write_all_at(&bytes, offset)?;
            let mut state = shared.state.lock();
            state.len = state.len.max(end);
            state.changed();
            Ok(state.len)
        })
        .await
    }

    /// # Errors
    /// `TooLarge` beyond `limit` bytes, and the local disk's.
    pub async fn truncate(&self, len: u64, limit: Option<u64>) -> Result<()> {
        checked_end(len, 0, limit)?;
        let gate = self.holder.wait(Arc::clone(&self.gate).write_owned()).await;
        let shared = Arc::clone(&self.shared);
        on_disk(move || {
            let _gate = gate;
            shared.file.set_len(len)?;
            let mut state = shared.state.lock();
            state.len = len;
            state.changed();
            Ok(())
        })
        .await
    }

    /// Stops writers and gives what to send; `None` when everything was sent.
    pub async fn begin_upload(&self) -> Option<Sending<'_>> {
        let gate = self.holder.wait(Arc::clone(&self.gate).write_owned()).await;
        self.holder.is_current();
        let (changes, len) = {
            let state = self.shared.state.lock();
            (state.changes > state.sent).then_some((state.changes, state.len))?
        };
        Some(Sending {
            staged: self,
            content: Content::new(self.file(), len),
            changes,
            _gate: gate,
        })
    }
}

impl State {
    fn changed(&mut self) {
        self.changes += 1;
        self.modified = SystemTime::now();
    }
}

enum Gate {
    Shared(#[allow(dead_code)] OwnedRwLockReadGuard<()>),
    Exclusive(#[allow(dead_code)] OwnedRwLockWriteGuard<()>),
}

impl Sending<'_> {
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The provider has it.
    pub fn done(&self) {
        let mut state = self.staged.shared.state.lock();
        state.sent = state.sent.max(self.changes);
    }
}

fn checked_end(offset: u64, len: u64, limit: Option<u64>) -> Result<u64> {
    match offset.checked_add(len) {
        Some(end) if limit.is_none_or(|limit| end <= limit) && end <= i64::MAX as u64 => Ok(end),
        _ => Err(Error::new(
            ErrorKind::TooLarge,
            "the file would be larger than the provider takes",
        )),
    }
}

async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(Error::internal("work on a staged file was interrupted")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Spool;

    fn backing() -> SpoolFile {
        // The folder goes at once; what is in it stays usable as long as it is open.
        let folder = tempfile::tempdir().unwrap();
        Spool::open(folder.path()).unwrap().new_file().unwrap()
    }

    fn staged() -> Staged {
        Staged::copy(backing(), 0, SystemTime::UNIX_EPOCH)
    }

    #[tokio::test]
    async fn appends_follow_each_other() {
        let staged = Arc::new(staged());
        let appends: Vec<_> = (0..20u8)
            .map(|n| {
                let staged = Arc::clone(&staged);
                tokio::spawn(async move { staged.write(None, Bytes::from(vec![n; 10]), None).await.unwrap() })
            })
            .collect();
        for append in appends {
            append.await.unwrap();
        }
        let bytes = staged.read(0, 1000).await.unwrap();
        let mut seen: Vec<u8> = bytes.chunks(10).map(|run| run[0]).collect();
        assert!(bytes.chunks(10).all(|run| run.iter().all(|byte| *byte == run[0])));
        seen.sort_unstable();
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn only_what_was_sent_is_clean() {
        let staged = Staged::new_file(backing());
        assert!(staged.is_dirty(), "an empty new file is to be sent too");
        drop(staged.begin_upload().await.unwrap());
        assert!(staged.is_dirty(), "a failed upload sends nothing");
        staged.begin_upload().await.unwrap().done();
        assert!(staged.begin_upload().await.is_none());
        staged.write(Some(5), Bytes::from_static(b"x"), None).await.unwrap();
        assert!(staged.is_dirty());
        assert_eq!(&staged.read(0, 100).await.unwrap()[..], b"\0\0\0\0\0x");
    }

    #[tokio::test]
    async fn a_write_that_nobody_waits_for_is_entered_all_the_same() {
        let staged = staged();
        for step in 0..20 {
            let mut work: std::pin::Pin<Box<dyn Future<Output = ()>>> = match step % 3 {
                0 => Box::pin(async { staged.truncate(3, None).await.unwrap() }),
                1 => Box::pin(async { drop(staged.write(Some(8), Bytes::from_static(b"xy"), None).await) }),
                _ => Box::pin(async { drop(staged.write(None, Bytes::from_static(b"end"), None).await) }),
            };
            // As a deadline does: begun, and dropped.
            let _ = futures_util::poll!(work.as_mut());
            drop(work);
            let sending = staged.begin_upload().await.unwrap();
            assert_eq!(sending.content().len(), staged.file().metadata().unwrap().len());
        }
    }

    #[tokio::test]
    async fn a_read_beside_a_truncation_is_short() {
        let backing = backing();
        let file = Arc::clone(backing.file());
        file.write_all_at(b"0123456789", 0).unwrap();
        let staged = Staged::copy(backing, 10, SystemTime::UNIX_EPOCH);
        file.set_len(4).unwrap();
        assert_eq!(&staged.read(2, 8).await.unwrap()[..], b"23");
    }

    #[tokio::test]
    async fn limits_hold_before_anything_is_written() {
        let staged = staged();
        let refused = staged
            .write(Some(90), Bytes::from(vec![0; 11]), Some(100))
            .await
            .unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::TooLarge);
        assert!(staged.truncate(101, Some(100)).await.is_err());
        assert!(
            staged
                .write(Some(u64::MAX), Bytes::from_static(b"x"), None)
                .await
                .is_err()
        );
        assert_eq!(staged.len(), 0);
        assert!(!staged.is_dirty());
    }
}
