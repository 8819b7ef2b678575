//! Changes of a part of a file: what is here, what is still at the provider, and how the one becomes whole by the other.
//!
//! What is missing is read from exactly the version that the change began with. When that can be had no more, the change
//! stays as it is and says so.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tracing::warn;

use super::files::replaced_if_gone;
use super::handle::{FileHandle, HandleId};
use super::inode::{LocalContent, Node};
use super::{FileSystem, Ino};
use crate::model::{Entry, Error, ErrorKind, ObjectId, Progress, Result};
use crate::outbox::{Length, Seek, Staged};

/// Up to this many bytes a file is fetched whole when it is changed: that is one request, as its edges would be.
const SMALL: u64 = 1 << 20;
/// How much is fetched in one go, in bytes: as much as one request of `fetch` brings.
const WINDOW: u64 = 8 << 20;
/// How much one `copy_file_range` copies at most, in bytes; whoever asked asks again for the rest.
const COPY: u64 = 4 << 20;

/// What `fallocate` is to do with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// Set room aside.
    Room,
    /// Make it zeros (`FALLOC_FL_PUNCH_HOLE` and `FALLOC_FL_ZERO_RANGE`).
    Zeros,
}

impl FileSystem {
    /// The staged copy of a file with content, for a caller that has the node's turn; and what it is a change of.
    pub(super) async fn begin_change(&self, ino: Ino, known: Entry) -> Result<(Entry, Staged)> {
        if known.size <= SMALL {
            let whole = self.fetcher.open(known.object()).read(0, known.size as usize).await;
            match whole {
                Ok(bytes) => {
                    let staged = Staged::copy(self.spool.new_file()?, 0, known.modified);
                    staged.begin_with(bytes).await?;
                    return Ok((known, staged));
                }
                // What was written is kept, and joined with the rest when somebody answers.
                Err(error) if self.means_away(&error) => {}
                Err(error) => return Err(error),
            }
        }
        // The version that a change is pinned to is the one of now, as far as anybody answers.
        self.doubt(&[ino]);
        let entry = self.fresh_entry(ino).await.map_err(replaced_if_gone)?;
        let staged = Staged::partial(self.spool.new_partial_file()?, entry.object(), entry.modified)?;
        Ok((entry, staged))
    }

    /// Up to `len` bytes from `offset` of a file that was changed here.
    pub(super) async fn read_changed(
        &self,
        ino: Ino,
        content: &LocalContent,
        offset: u64,
        len: usize,
    ) -> Result<Bytes> {
        let mut part = content.staged.read_part(offset, len).await?;
        if let (Some(first), Some(last)) = (part.missing.first(), part.missing.last()) {
            let wanted = first.start..last.end;
            let base = self.read_base(ino, &content.staged, wanted.clone()).await?;
            for gap in part.missing {
                let Some(place) = part
                    .bytes
                    .get_mut((gap.start - offset) as usize..(gap.end - offset) as usize)
                else {
                    // It was truncated meanwhile.
                    break;
                };
                let from = (gap.start - wanted.start) as usize;
                place.copy_from_slice(&base[from..from + place.len()]);
            }
        }
        Ok(part.bytes.freeze())
    }

    /// Fetches what a changed file lacks.
    ///
    /// # Errors
    /// `Changed` when that can be had no more; the change stays staged. And as `Provider::read`, `NoSpace`.
    pub(super) async fn complete(&self, ino: Ino, staged: &Staged) -> Result<()> {
        while let Some(range) = staged.next_missing(WINDOW) {
            let bytes = self.read_base(ino, staged, range.clone()).await?;
            staged.fill(range.start, bytes).await?;
            Progress::tick();
        }
        Ok(())
    }

    /// A file that is open is about to lose its name, and with it what it is a change of: what it lacks is fetched before.
    /// Without an answer the name goes all the same.
    pub(super) async fn keep_readable(&self, ino: Ino) {
        let open = |node: &mut Node| node.content.clone().filter(|_| node.opens > 0);
        if let Ok(Some(content)) = self.table.with(ino, open)
            && let Err(error) = self.complete(ino, &content.staged).await
        {
            warn!(ino = ino.0, %error, "an open file that is removed cannot be read as a whole any more");
        }
    }

    /// As `complete`, for a file that the tree doesn't have.
    pub(super) async fn complete_left_behind(&self, staged: &Staged) -> Result<()> {
        let Some(base) = staged.base() else { return Ok(()) };
        let source = self.fetcher.open(base);
        while let Some(range) = staged.next_missing(WINDOW) {
            let bytes = source.read(range.start, (range.end - range.start) as usize).await;
            staged.fill(range.start, bytes.map_err(lost)?).await?;
            Progress::tick();
        }
        Ok(())
    }

    /// Bytes of the version that a change began with.
    async fn read_base(&self, ino: Ino, staged: &Staged, range: Range<u64>) -> Result<Bytes> {
        let Some(base) = staged.base() else {
            // Brought by somebody else meanwhile.
            return staged.read(range.start, (range.end - range.start) as usize).await;
        };
        let len = (range.end - range.start) as usize;
        let object = self.base_object(ino, &base)?;
        let outcome = match self.fetcher.open(object.clone()).read(range.start, len).await {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Changed) => {
                match self.moved_base(ino, &base).await? {
                    Some(moved) if moved != object => self.fetcher.open(moved).read(range.start, len).await,
                    _ => Err(error),
                }
            }
            outcome => outcome,
        };
        match outcome {
            Ok(bytes) if bytes.len() == len => Ok(bytes),
            Ok(_) => Err(Error::internal("a changed file is longer than what it is a change of")),
            Err(error) => Err(lost(error)),
        }
    }

    /// A rename may have given the version that a change began with another key.
    fn base_object(&self, ino: Ino, base: &ObjectId) -> Result<ObjectId> {
        let replaces = self
            .table
            .with(ino, |node| node.content.as_ref().and_then(|c| c.replaces.clone()))?;
        let same = replaces.filter(|entry| entry.version == base.version && entry.size == base.size);
        Ok(same.map_or_else(|| base.clone(), |entry| entry.object()))
    }

    /// The same version where the file is now.
    async fn moved_base(&self, ino: Ino, base: &ObjectId) -> Result<Option<ObjectId>> {
        let Some((parent, name)) = self.place(ino)? else {
            return Ok(None);
        };
        let parent = self.entry(parent).await?;
        match self.provider.lookup(&parent.key, &name).await {
            Ok(found) if found.version == base.version && found.size == base.size => Ok(Some(found.object())),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `fallocate`.
    ///
    /// # Errors
    /// As `write`.
    pub async fn allocate(&self, handle: HandleId, range: Range<u64>, what: Allocation, length: Length) -> Result<()> {
        let handle = self.handles.get(handle)?;
        let file = handle.file()?;
        let limit = self.provider.capabilities().max_file_size;
        let changed = self
            .change_content(file, |staged| {
                let range = range.clone();
                async move {
                    match what {
                        Allocation::Room => staged.allocate(range, length, limit).await,
                        Allocation::Zeros => staged.clear(range, length, limit).await.map(|()| true),
                    }
                }
            })
            .await?;
        if changed {
            self.content_changed(file.ino);
        }
        Ok(())
    }

    /// `lseek` with `SEEK_DATA` and `SEEK_HOLE`; `None` is `ENXIO`. Of what wasn't changed here only the end is a hole.
    ///
    /// # Errors
    /// The local disk's.
    pub async fn seek(&self, handle: HandleId, offset: u64, what: Seek) -> Result<Option<u64>> {
        let handle = self.handles.get(handle)?;
        let ino = handle.file()?.ino;
        let (content, size) = self.table.with(ino, |node| (node.content.clone(), node.entry.size))?;
        match content {
            Some(content) => content.staged.seek(offset, what).await,
            None if offset >= size => Ok(None),
            None => Ok(Some(match what {
                Seek::Data => offset,
                Seek::Hole => size,
            })),
        }
    }

    /// `copy_file_range`: gives how many bytes were copied, fewer than asked for at the end of the source, or when they
    /// are many.
    ///
    /// # Errors
    /// As `read` and `write`.
    pub async fn copy_range(&self, from: (HandleId, u64), to: (HandleId, u64), len: u64) -> Result<u32> {
        let bytes = self.read(from.0, from.1, len.min(COPY) as usize).await?;
        let copied = bytes.len() as u32;
        if copied > 0 {
            self.write(to.0, Some(to.1), bytes).await?;
        }
        Ok(copied)
    }

    /// Changes the staged copy of an open file, made anew when there is none yet; gives whether anything changed.
    pub(super) async fn change_content<F: Future<Output = Result<bool>>>(
        &self,
        file: &FileHandle,
        change: impl Fn(Arc<Staged>) -> F,
    ) -> Result<bool> {
        if !file.access.writes() {
            return Err(Error::new(ErrorKind::BadHandle, "the file isn't open for writing"));
        }
        loop {
            let staged = self.stage_content(file.ino).await?;
            self.may_build_on(file)?;
            self.remember_unanswered(file.ino, &staged).await?;
            if !change(Arc::clone(&staged)).await? {
                return Ok(false);
            }
            if self.is_content(file.ino, &staged)? {
                self.written(file.ino, &staged);
                return Ok(true);
            }
        }
    }
}

/// The version that a change began with is gone.
fn lost(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::Changed => Error::new(
            ErrorKind::Changed,
            "somebody else replaced or removed the file while a part of it was changed here, and the rest of the former \
             version cannot be read any more; the changed part is kept",
        ),
        _ => error,
    }
}
