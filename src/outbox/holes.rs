//! Room, zeros and holes in a staged file: `fallocate` and `lseek`.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno as Os;

use super::staged::{Staged, checked_end, on_disk};
use crate::model::Result;

/// What `lseek` looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    Data,
    Hole,
}

/// What becomes of the length when a range ends behind the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    Grows,
    /// `FALLOC_FL_KEEP_SIZE`.
    Stays,
}

impl Staged {
    /// Sets room aside for a range, which makes the file longer when it ends behind it and `length` lets it. Gives whether
    /// anything changed.
    ///
    /// # Errors
    /// `TooLarge` beyond `limit` bytes, `NoSpace` and others of the local disk.
    pub async fn allocate(&self, range: Range<u64>, length: Length, limit: Option<u64>) -> Result<bool> {
        checked_end(range.end, 0, limit)?;
        self.remember_unanswered().await?;
        self.backing.reserve(range.end)?;
        let gate = self.holder.wait(Arc::clone(&self.gate).write_owned()).await;
        let shared = Arc::clone(&self.shared);
        on_disk(move || {
            let _gate = gate;
            let flags = match length {
                Length::Grows => FallocateFlags::empty(),
                Length::Stays => FallocateFlags::KEEP_SIZE,
            };
            match rustix::fs::fallocate(&shared.file, flags, range.start, range.end - range.start) {
                Ok(()) => {}
                // A disk without that has room when something is written.
                Err(Os::OPNOTSUPP) if length == Length::Stays => {}
                Err(Os::OPNOTSUPP) => shared.file.set_len(range.end.max(shared.file.metadata()?.len()))?,
                Err(error) => return Err(io::Error::from(error).into()),
            }
            let mut state = shared.state.lock();
            let longer = length == Length::Grows && range.end > state.len;
            if longer {
                state.len = range.end;
                state.changed();
            }
            Ok(longer)
        })
        .await
    }

    /// Makes a range zeros, as far as the file goes; where it ends behind the file, that gets longer if `length`
    /// lets it.
    ///
    /// # Errors
    /// `TooLarge` beyond `limit` bytes, `NoSpace` and others of the local disk.
    pub async fn clear(&self, range: Range<u64>, length: Length, limit: Option<u64>) -> Result<()> {
        self.remember_unanswered().await?;
        let gate = self.holder.wait(Arc::clone(&self.gate).write_owned()).await;
        let len = self.len();
        if length == Length::Grows {
            self.backing.reserve(checked_end(range.end.max(len), 0, limit)?)?;
        }
        let shared = Arc::clone(&self.shared);
        on_disk(move || {
            let _gate = gate;
            let inside = range.start.min(len)..range.end.min(len);
            if !inside.is_empty() {
                make_zeros(&shared.file, &inside)?;
            }
            if length == Length::Grows && range.end > len {
                shared.file.set_len(range.end)?;
            }
            let mut state = shared.state.lock();
            state.is_local(inside)?;
            if length == Length::Grows {
                state.len = state.len.max(range.end);
            }
            state.changed();
            Ok(())
        })
        .await
    }

    /// The next data or hole from `offset` on; what is missing counts as data. `None` at and behind the end, and when no
    /// data follows. The end of the file is a hole.
    ///
    /// # Errors
    /// When the local disk fails.
    pub async fn seek(&self, offset: u64, what: Seek) -> Result<Option<u64>> {
        let len = self.len();
        if offset >= len {
            return Ok(None);
        }
        let shared = Arc::clone(&self.shared);
        on_disk(move || {
            let mut at = offset;
            loop {
                let missing = shared.state.lock().first_gap(&(at..len));
                let here = missing.as_ref().is_some_and(|gap| gap.start == at);
                let found = match what {
                    Seek::Data if here => return Ok(Some(at)),
                    Seek::Data => {
                        let data = next_in_file(&shared.file, SeekFrom::Data(at), len)?;
                        data.into_iter().chain(missing.map(|gap| gap.start)).min()
                    }
                    // What is missing is a hole in the local file only.
                    Seek::Hole => match missing {
                        Some(gap) if here && gap.end >= len => Some(len),
                        Some(gap) if here => {
                            at = gap.end;
                            continue;
                        }
                        missing => {
                            let hole = next_in_file(&shared.file, SeekFrom::Hole(at), len)?.unwrap_or(len);
                            match missing {
                                Some(gap) if gap.start <= hole => {
                                    at = gap.start;
                                    continue;
                                }
                                _ => Some(hole),
                            }
                        }
                    },
                };
                return Ok(found);
            }
        })
        .await
    }
}

/// A hole where the disk can make one, else zeros.
fn make_zeros(file: &File, range: &Range<u64>) -> Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, flags, range.start, range.end - range.start) {
        Ok(()) => Ok(()),
        Err(Os::OPNOTSUPP) => {
            let zeros = vec![0; 64 * 1024];
            let mut at = range.start;
            while at < range.end {
                let piece = zeros.len().min((range.end - at) as usize);
                file.write_all_at(&zeros[..piece], at)?;
                at += piece as u64;
            }
            Ok(())
        }
        Err(error) => Err(io::Error::from(error).into()),
    }
}

/// `None` when nothing like that follows before `len`.
fn next_in_file(file: &File, what: SeekFrom, len: u64) -> Result<Option<u64>> {
    match rustix::fs::seek(file, what) {
        Ok(at) => Ok((at < len).then_some(at)),
        Err(Os::NXIO) => Ok(None),
        Err(error) => Err(io::Error::from(error).into()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::ErrorKind;
    use crate::outbox::staged::tests::{missing, partial};

    #[tokio::test]
    async fn holes_are_where_neither_the_file_nor_the_base_has_bytes() {
        // Blocks of the local disk have other sizes elsewhere; none is larger.
        const B: u64 = 1 << 16;
        let it = partial(4 * B);
        let staged = &it.staged;
        staged.clear(B..3 * B, Length::Stays, None).await.unwrap();
        staged.truncate(6 * B, None).await.unwrap();
        staged
            .write(Some(5 * B), Bytes::from(vec![1; B as usize]), None)
            .await
            .unwrap();
        // Missing, hole, missing, hole, data.
        for (from, data, hole) in [
            (0, Some(0), Some(B)),
            (B - 1, Some(B - 1), Some(B)),
            (B, Some(3 * B), Some(B)),
            (2 * B, Some(3 * B), Some(2 * B)),
            (3 * B + 1, Some(3 * B + 1), Some(4 * B)),
            (4 * B, Some(5 * B), Some(4 * B)),
            (5 * B, Some(5 * B), Some(6 * B)),
            (6 * B, None, None),
            (u64::MAX, None, None),
        ] {
            assert_eq!(staged.seek(from, Seek::Data).await.unwrap(), data, "data from {from}");
            assert_eq!(staged.seek(from, Seek::Hole).await.unwrap(), hole, "hole from {from}");
        }
        staged.truncate(8 * B, None).await.unwrap();
        assert_eq!(staged.seek(6 * B, Seek::Data).await.unwrap(), None, "no data follows");
        assert_eq!(staged.seek(6 * B, Seek::Hole).await.unwrap(), Some(6 * B));
    }

    #[tokio::test]
    async fn room_is_set_aside_without_a_change_of_the_bytes() {
        let it = partial(100);
        let staged = &it.staged;
        assert!(!staged.allocate(0..4096, Length::Stays, None).await.unwrap());
        assert_eq!((staged.len(), staged.is_dirty()), (100, false));
        assert_eq!(missing(staged).await, vec![0..100]);
        assert!(staged.allocate(50..200, Length::Grows, None).await.unwrap());
        assert_eq!((staged.len(), staged.is_dirty()), (200, true));
        assert_eq!(missing(staged).await, vec![0..100]);
        staged.clear(150..300, Length::Stays, None).await.unwrap();
        assert_eq!(staged.len(), 200);
        staged.clear(150..300, Length::Grows, None).await.unwrap();
        assert_eq!(staged.len(), 300);
        for refused in [
            staged.allocate(0..1001, Length::Grows, Some(1000)).await.map(drop),
            staged.clear(0..1001, Length::Grows, Some(1000)).await,
        ] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::TooLarge);
        }
    }
}
