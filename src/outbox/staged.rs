//! The local copy of a file that is being changed: all of it, or what was changed and a map of the rest.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tracing::warn;

use super::map::Map;
use super::spool::{SpoolFile, map_of};
use super::unanswered::Unanswered;
use crate::model::{Error, ErrorKind, Holder, ObjectId, Result};
use crate::provider::Content;
use crate::state::{Durability, Phase, SentContent};

/// A file's content as changed here.
///
/// What was begun on disk is finished and entered, even if the caller stops waiting in the middle.
pub struct Staged {
    pub(super) shared: Arc<Shared>,
    pub(super) backing: Arc<SpoolFile>,
    /// What it takes the place of as soon as it is closed: content that was closed and not sent.
    supersedes: Mutex<Option<Arc<Staged>>>,
    unanswered: Unanswered,
    /// Held shared by writers and exclusively while an upload reads.
    pub(super) gate: Arc<RwLock<()>>,
    /// Who has the gate for an upload.
    pub(super) holder: Holder,
}

/// So many bytes are copied into the kernel's memory in less time than another thread takes to begin: 16 KiB, some
/// microseconds.
const SMALL: usize = 16 << 10;

pub(super) struct Shared {
    pub(super) file: Arc<File>,
    pub(super) state: Mutex<State>,
}

pub(super) struct State {
    pub(super) len: u64,
    modified: SystemTime,
    /// Counts changes; what is sent is compared with it.
    changes: u64,
    sent: u64,
    /// What somebody closed.
    closed: u64,
    /// What the journal has as closed.
    journaled: u64,
    /// What is as in the version that the provider has, and not here; `None` when nothing ever was.
    map: Option<Map>,
}

/// What is here of some bytes.
#[derive(Debug)]
pub struct Part {
    /// Zeros where something is missing.
    pub bytes: BytesMut,
    /// What is to be read from the base, as places in the file, in order.
    pub missing: Vec<Range<u64>>,
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
        Self::with(backing, 0, SystemTime::now(), 1, None)
    }

    /// A copy of what the provider has.
    pub fn copy(backing: SpoolFile, len: u64, modified: SystemTime) -> Self {
        Self::with(backing, len, modified, 0, None)
    }

    /// The content that the provider has, into an empty copy. Doesn't count as a change.
    ///
    /// # Errors
    /// `NoSpace` and others of the local disk.
    pub async fn begin_with(&self, bytes: Bytes) -> Result<()> {
        self.backing.reserve(bytes.len() as u64)?;
        let shared = Arc::clone(&self.shared);
        on_disk(move || {
            shared.file.write_all_at(&bytes, 0)?;
            shared.state.lock().len = bytes.len() as u64;
            Ok(())
        })
        .await
    }

    /// What the provider has, without any of its bytes: `fill` brings them when they are needed.
    ///
    /// # Errors
    /// When the local disk fails.
    pub fn partial(backing: SpoolFile, base: ObjectId, modified: SystemTime) -> Result<Self> {
        let path = map_of(backing.path()).ok_or_else(|| Error::internal("a staged file has no place for its map"))?;
        let len = base.size;
        // All of it will be here before it is sent.
        backing.reserve(len)?;
        let map = Map::begin(&path, base)?;
        fail_point!("map.begun");
        backing.file().set_len(len)?;
        Ok(Self::with(backing, len, modified, 0, Some(map)))
    }

    /// What a daemon that ended left: closed, and to be sent. `unanswered` was sent of it before.
    ///
    /// # Errors
    /// `BadData` when nobody can tell what it lacks, and when the local disk fails.
    pub fn left_behind(backing: SpoolFile, durability: &Durability, unanswered: Vec<SentContent>) -> Result<Self> {
        let metadata = backing.file().metadata()?;
        let modified = metadata.modified()?;
        let map = map_of(backing.path());
        let map = map.map(|map| Map::reopen(&map, metadata.len())).transpose()?;
        if *durability == Durability::Flushed {
            backing.flushed(1);
        }
        let staged = Self {
            unanswered: Unanswered::new(unanswered),
            ..Self::with(backing, metadata.len(), modified, 1, map)
        };
        staged.journaled(staged.close());
        // What lacks something was not sent.
        if staged.is_whole() {
            staged.unanswered.begin();
        }
        Ok(staged)
    }

    /// Empty, in the place of content that was closed and not sent: that stays until this is closed.
    pub fn superseding(backing: SpoolFile, closed: Arc<Self>) -> Self {
        Self {
            // What was sent of that may be at the provider.
            unanswered: Unanswered::new(closed.unanswered.contents()),
            supersedes: Mutex::new(Some(closed)),
            // Being empty is a change already: nobody may let go of it.
            ..Self::with(backing, 0, SystemTime::now(), 1, None)
        }
    }

    /// Before it is changed, or looked for at the provider: what is here may be there already, because whoever sent it gave
    /// up waiting or ended. Gives whether that is news.
    ///
    /// # Errors
    /// When the local disk fails.
    pub async fn remember_unanswered(&self) -> Result<bool> {
        if !self.unanswered.is_now() {
            return Ok(false);
        }
        // Whoever is sending it now comes to an end first.
        match self.begin_upload().await {
            Some(sending) if self.unanswered.is_now() => sending.gets_no_answer().await,
            _ => Ok(false),
        }
    }

    /// What was sent of it without an answer, as far as that was remembered.
    pub fn unanswered(&self) -> Vec<SentContent> {
        self.unanswered.contents()
    }

    /// Whether the provider may have a state of it that it isn't known to have.
    pub fn may_be_stored(&self) -> bool {
        self.unanswered.is_any()
    }

    /// Whether something of this length was sent without an answer, in bytes.
    pub fn may_have_stored(&self, len: u64) -> bool {
        self.unanswered.any(|content| content.len == len)
    }

    /// Whether a content with this SHA-256, in lower-case hexadecimal, was sent without an answer.
    pub fn has_sent(&self, sha256: &str) -> bool {
        self.unanswered.any(|content| content.sha256 == sha256)
    }

    fn with(backing: SpoolFile, len: u64, modified: SystemTime, changes: u64, map: Option<Map>) -> Self {
        let state = State {
            len,
            modified,
            changes,
            sent: 0,
            closed: 0,
            journaled: 0,
            map,
        };
        Self {
            shared: Arc::new(Shared {
                file: Arc::clone(backing.file()),
                state: Mutex::new(state),
            }),
            backing: Arc::new(backing),
            supersedes: Mutex::default(),
            unanswered: Unanswered::new(Vec::new()),
            gate: Arc::default(),
            holder: Holder::default(),
        }
    }

    /// Where it is on disk.
    pub fn backing(&self) -> &Arc<SpoolFile> {
        &self.backing
    }

    /// Whether somebody closed something that the provider lacks. What is written over that without being closed stays
    /// with it: as in every file system, whoever writes over bytes gives them up.
    pub fn phase(&self) -> Phase {
        let state = self.shared.state.lock();
        if state.closed > state.sent {
            Phase::Closed
        } else {
            Phase::Writing
        }
    }

    /// Counts the states of its content.
    pub fn changes(&self) -> u64 {
        self.shared.state.lock().changes
    }

    /// Somebody closed it; gives the state that was closed.
    pub fn close(&self) -> u64 {
        let mut state = self.shared.state.lock();
        state.closed = state.changes;
        state.changes
    }

    /// The journal has this state as closed.
    pub fn journaled(&self, changes: u64) {
        let mut state = self.shared.state.lock();
        state.journaled = state.journaled.max(changes);
    }

    /// Whether the journal has what is here as closed.
    pub fn is_journaled(&self) -> bool {
        let state = self.shared.state.lock();
        state.journaled == state.changes && state.closed == state.changes
    }

    /// What it took the place of, if that is still kept; asked once.
    pub fn take_superseded(&self) -> Option<Arc<Self>> {
        self.supersedes.lock().take()
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

    /// Which version of what the missing bytes are to be read from; `None` when none is missing.
    pub fn base(&self) -> Option<ObjectId> {
        let state = self.shared.state.lock();
        let map = state.map.as_ref().filter(|map| !map.is_whole())?;
        Some(map.base().clone())
    }

    pub fn is_whole(&self) -> bool {
        self.base().is_none()
    }

    /// Bytes to be brought next until none is missing, at most `most`.
    pub fn next_missing(&self, most: u64) -> Option<Range<u64>> {
        self.shared.state.lock().map.as_ref()?.next(most)
    }

    /// What is here of up to `len` bytes from `offset`, fewer only at the end.
    ///
    /// # Errors
    /// When the local disk fails.
    pub async fn read_part(&self, offset: u64, len: usize) -> Result<Part> {
        let (want, missing) = {
            let state = self.shared.state.lock();
            let want = state.len.saturating_sub(offset).min(len as u64);
            // Before the bytes are read: what comes meanwhile is the base's or newer.
            let missing = state.gaps(&(offset..offset + want));
            (want as usize, missing)
        };
        let file = self.file();
        on_disk(move || {
            let mut bytes = BytesMut::zeroed(want);
            let mut have = 0;
            // It may be truncated meanwhile.
            while have < want {
                match file.read_at(&mut bytes[have..], offset + have as u64) {
                    Ok(0) => break,
                    Ok(more) => have += more,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error.into()),
                }
            }
            bytes.truncate(have);
            Ok(Part { bytes, missing })
        })
        .await
    }

    /// Up to `len` bytes from `offset`, fewer only at the end.
    ///
    /// # Errors
    /// When some of them are missing, and when the local disk fails.
    pub async fn read(&self, offset: u64, len: usize) -> Result<Bytes> {
        let part = self.read_part(offset, len).await?;
        if part.missing.is_empty() {
            Ok(part.bytes.freeze())
        } else {
            Err(Error::internal("a part of a changed file was taken for the whole"))
        }
    }

    /// Bytes of the base, for what is still missing there. Doesn't count as a change.
    ///
    /// # Errors
    /// `NoSpace` and others of the local disk.
    pub async fn fill(&self, offset: u64, bytes: Bytes) -> Result<()> {
        // Nobody writes between the look at what is missing and the end.
        let gate = self.holder.wait(Arc::clone(&self.gate).write_owned()).await;
        let shared = Arc::clone(&self.shared);
        on_disk(move || {
            let _gate = gate;
            let range = offset..offset + bytes.len() as u64;
            let gaps = shared.state.lock().gaps(&range);
            for gap in gaps {
                let piece = (gap.start - offset) as usize..(gap.end - offset) as usize;
                shared.file.write_all_at(&bytes[piece], gap.start)?;
                fail_point!("map.filled");
                shared.state.lock().is_local(gap)?;
            }
            Ok(())
        })
        .await
    }

    /// What is here outlives a power cut, as far as the local disk keeps what it promises. For those with a map alone:
    /// without its bytes a map would tell lies.
    ///
    /// # Errors
    /// The local disk's.
    pub async fn sync_part(&self) -> Result<()> {
        if self.shared.state.lock().map.as_ref().is_none_or(Map::has_told_all) {
            return Ok(());
        }
        let gate = self.holder.wait(Arc::clone(&self.gate).write_owned()).await;
        let shared = Arc::clone(&self.shared);
        on_disk(move || {
            let _gate = gate;
            shared.file.sync_data()?;
            fail_point!("map.synced");
            let mut state = shared.state.lock();
            state.map.as_mut().map_or(Ok(()), Map::is_synced)
        })
        .await
    }

    /// Writes at `offset`, or at the end without one; gives the length of the file afterwards.
    ///
    /// # Errors
    /// `TooLarge` beyond `limit` bytes, `NoSpace` and others of the local disk.
    pub async fn write(&self, offset: Option<u64>, bytes: Bytes, limit: Option<u64>) -> Result<u64> {
        self.remember_unanswered().await?;
        let gate = self.gate_to_write(offset, bytes.len() as u64).await;
        let offset = offset.unwrap_or_else(|| self.len());
        let end = checked_end(offset, bytes.len() as u64, limit)?;
        self.backing.reserve(end)?;
        let shared = Arc::clone(&self.shared);
        let is_small = bytes.len() <= SMALL;
        let work = move || {
            let _gate = gate;
            if let Err(error) = shared.file.write_all_at(&bytes, offset) {
                shared.forget_part_of_write(offset, end);
                return Err(error.into());
            }
            fail_point!("staged.written");
            let mut state = shared.state.lock();
            state.is_local(offset..end)?;
            state.len = state.len.max(end);
            state.changed();
            Ok(state.len)
        };
        if is_small { work() } else { on_disk(work).await }
    }

    /// Those who write within the file do so at the same time. Who makes it longer is alone: two appends must not choose the
    /// same end, and what is behind the end after a failure is then nobody else's.
    async fn gate_to_write(&self, offset: Option<u64>, len: u64) -> Gate {
        let is_within = |offset: u64| offset.checked_add(len).is_some_and(|end| end <= self.len());
        if let Some(offset) = offset.filter(|offset| is_within(*offset)) {
            let gate = self.holder.wait(Arc::clone(&self.gate).read_owned()).await;
            // It may have been cut off meanwhile.
            if is_within(offset) {
                return Gate::Shared(gate);
            }
        }
        Gate::Exclusive(self.holder.wait(Arc::clone(&self.gate).write_owned()).await)
    }

    /// # Errors
    /// `TooLarge` beyond `limit` bytes, and the local disk's.
    pub async fn truncate(&self, len: u64, limit: Option<u64>) -> Result<()> {
        checked_end(len, 0, limit)?;
        self.remember_unanswered().await?;
        let gate = self.holder.wait(Arc::clone(&self.gate).write_owned()).await;
        self.backing.reserve(len)?;
        let (shared, backing) = (Arc::clone(&self.shared), Arc::clone(&self.backing));
        on_disk(move || {
            let _gate = gate;
            shared.file.set_len(len)?;
            backing.give_back_beyond(len);
            fail_point!("staged.truncated");
            let mut state = shared.state.lock();
            state.len = len;
            state.changed();
            match &mut state.map {
                Some(map) => map.is_cut(len),
                None => Ok(()),
            }
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

impl Shared {
    /// After a write that failed, perhaps in the middle: nobody is to find its bytes behind the end when the file gets
    /// longer, nor the next process, which takes the length from the disk. Within the file it may have changed some.
    fn forget_part_of_write(&self, offset: u64, end: u64) {
        let mut state = self.state.lock();
        if offset < state.len {
            state.changed();
        }
        if end > state.len
            && let Err(error) = self.file.set_len(state.len)
        {
            warn!(%error, "a part of a write that failed stays behind the end of a staged file");
        }
    }
}

impl State {
    pub(super) fn changed(&mut self) {
        self.changes += 1;
        self.modified = SystemTime::now();
    }

    pub(super) fn gaps(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        self.map.as_ref().map_or_else(Vec::new, |map| map.gaps(range))
    }

    pub(super) fn first_gap(&self, range: &Range<u64>) -> Option<Range<u64>> {
        self.map.as_ref()?.first_gap(range)
    }

    pub(super) fn is_local(&mut self, range: Range<u64>) -> Result<()> {
        self.map.as_mut().map_or(Ok(()), |map| map.is_local(range))
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

    /// From now on the provider may have it.
    pub fn begins(&self) {
        self.staged.unanswered.begin();
    }

    /// The provider has it, or has it not, and nobody has to ask.
    pub fn is_answered(&self) {
        self.staged.unanswered.end();
    }

    /// It was sent, and nobody knows whether the provider has it. Gives whether that is news.
    ///
    /// # Errors
    /// When the local disk fails.
    pub async fn gets_no_answer(&self) -> Result<bool> {
        let unanswered = &self.staged.unanswered;
        let is_news = !unanswered.has_state(self.changes);
        if is_news {
            let content = SentContent {
                len: self.content.len(),
                sha256: self.content.sha256().await?,
            };
            unanswered.add(self.changes, content);
        }
        unanswered.end();
        Ok(is_news)
    }

    /// The provider has it.
    pub fn done(&self) {
        let mut state = self.staged.shared.state.lock();
        state.sent = state.sent.max(self.changes);
    }
}

pub(super) fn checked_end(offset: u64, len: u64, limit: Option<u64>) -> Result<u64> {
    match offset.checked_add(len) {
        Some(end) if limit.is_none_or(|limit| end <= limit) && end <= i64::MAX as u64 => Ok(end),
        _ => Err(Error::new(
            ErrorKind::TooLarge,
            "the file would be larger than the provider takes",
        )),
    }
}

pub(super) async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(Error::internal("work on a staged file was interrupted")),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{ObjectKey, Version};
    use crate::outbox::{Length, Spool};

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

    /// A file that takes so many bytes and refuses what is beyond, after it has taken what is not.
    fn that_takes(len: u64) -> SpoolFile {
        use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
        let file = File::from(memfd_create("full", MemfdFlags::ALLOW_SEALING).unwrap());
        file.set_len(len).unwrap();
        fcntl_add_seals(&file, SealFlags::GROW).unwrap();
        backing().over(file)
    }

    #[tokio::test]
    async fn what_a_write_left_that_failed_half_way_is_nowhere() {
        const TAKES: usize = 1 << 16;
        for at in [0, 100] {
            let staged = Staged::copy(that_takes(TAKES as u64), at, SystemTime::UNIX_EPOCH);
            let write = staged.write(Some(at), Bytes::from(vec![7; 2 * TAKES]), None);
            assert!(write.await.is_err());
            assert_eq!((staged.len(), staged.is_dirty()), (at, false));
            assert_eq!(
                staged.file().metadata().unwrap().len(),
                at,
                "the next process takes the length from the disk"
            );
        }
        let staged = Staged::copy(that_takes(TAKES as u64), 100, SystemTime::UNIX_EPOCH);
        assert!(
            staged
                .write(Some(50), Bytes::from(vec![7; 2 * TAKES]), None)
                .await
                .is_err()
        );
        assert_eq!(staged.len(), 100);
        assert!(staged.is_dirty(), "what was written over may be another content now");
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

    pub(in crate::outbox) struct Partial {
        pub(in crate::outbox) staged: Staged,
        _spool: Spool,
        _folder: tempfile::TempDir,
    }

    fn base(size: u64) -> ObjectId {
        ObjectId {
            key: ObjectKey::new("k"),
            version: Version::new("v"),
            size,
        }
    }

    /// A change of `size` bytes, none of which is here.
    pub(in crate::outbox) fn partial(size: u64) -> Partial {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path()).unwrap();
        let staged = Staged::partial(spool.new_partial_file().unwrap(), base(size), SystemTime::UNIX_EPOCH).unwrap();
        Partial {
            staged,
            _spool: spool,
            _folder: folder,
        }
    }

    pub(in crate::outbox) async fn missing(staged: &Staged) -> Vec<Range<u64>> {
        staged.read_part(0, 1 << 20).await.unwrap().missing
    }

    #[tokio::test]
    async fn what_is_not_here_is_never_zeros() {
        let it = partial(100);
        let staged = &it.staged;
        assert_eq!((staged.len(), staged.is_dirty()), (100, false));
        staged.write(Some(10), Bytes::from_static(b"mine"), None).await.unwrap();
        assert_eq!(missing(staged).await, [0..10, 14..100]);
        assert!(staged.read(0, 100).await.is_err());
        assert_eq!(&staged.read(10, 4).await.unwrap()[..], b"mine");
        // Bytes that come late don't win over what was written.
        staged.fill(0, Bytes::from(vec![b'b'; 20])).await.unwrap();
        assert_eq!(&staged.read(8, 8).await.unwrap()[..], b"bbminebb");
        staged.truncate(50, None).await.unwrap();
        staged.truncate(60, None).await.unwrap();
        assert_eq!(missing(staged).await, [20..50], "what was cut off comes back as zeros");
        staged.clear(30..40, Length::Stays, None).await.unwrap();
        assert_eq!(missing(staged).await, [20..30, 40..50]);
        assert_eq!(staged.base(), Some(base(100)));
        assert_eq!(staged.next_missing(1000), Some(20..50));
        staged.fill(20, Bytes::from(vec![b'b'; 30])).await.unwrap();
        assert!(staged.is_whole());
        let mut expected = [b'b'; 60];
        expected[10..14].copy_from_slice(b"mine");
        expected[30..40].fill(0);
        expected[50..].fill(0);
        assert_eq!(&staged.read(0, 100).await.unwrap()[..], expected);
    }

    #[tokio::test]
    async fn the_next_process_knows_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let place = {
            let spool = Spool::open(folder.path()).unwrap();
            let staged = Staged::partial(spool.new_partial_file().unwrap(), base(100), SystemTime::UNIX_EPOCH).unwrap();
            staged.write(Some(10), Bytes::from_static(b"mine"), None).await.unwrap();
            staged.sync_part().await.unwrap();
            staged.truncate(90, None).await.unwrap();
            staged.write(None, Bytes::from_static(b"end"), None).await.unwrap();
            staged.backing().entered();
            (staged.backing().spool.clone(), staged.backing().name.clone())
        };
        let spool = Spool::open(folder.path()).unwrap();
        assert!(spool.adopt(&place.0).unwrap());
        let staged = Staged::left_behind(
            spool.reopen(&place.0, &place.1).unwrap(),
            &Durability::Flushed,
            Vec::new(),
        )
        .unwrap();
        assert_eq!((staged.len(), staged.base()), (93, Some(base(100))));
        assert_eq!(missing(&staged).await, [0..10, 14..90]);
        let path = staged.backing().path().to_owned();
        assert_eq!(crate::outbox::missing_bytes(&path).unwrap(), 86);
        std::fs::remove_file(map_of(&path).unwrap()).unwrap();
        assert!(crate::outbox::missing_bytes(&path).is_err());
        assert!(
            Staged::left_behind(
                spool.reopen(&place.0, &place.1).unwrap(),
                &Durability::Flushed,
                Vec::new()
            )
            .is_err()
        );
        staged.backing().struck();
        staged.backing().forget_posted();
        drop((staged, spool));
        assert_eq!(
            folder.path().read_dir().unwrap().count(),
            0,
            "the map goes with its file"
        );
    }

    #[tokio::test]
    async fn a_part_is_never_sent_for_the_whole() {
        let it = partial(100);
        it.staged.write(Some(0), Bytes::from_static(b"x"), None).await.unwrap();
        let target = crate::provider::Target::New {
            parent: ObjectKey::new(""),
            name: crate::model::Name::new("a").unwrap(),
        };
        let provider = crate::provider::memory::Memory::default();
        let refused = crate::outbox::upload(&provider, &it.staged, target, || Ok(None), async {})
            .await
            .err()
            .unwrap();
        assert_eq!(refused.kind(), ErrorKind::Internal);
        assert_eq!(provider.content("a"), None);
    }
}
