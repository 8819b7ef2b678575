//! Reading versions' bytes from disk: their files stay open from one read to the next, because the kernel remembers
//! there how far it reads ahead, and what the page cache has is read without waiting. What is read on in large pieces
//! leaves nothing in the page cache, for the kernel keeps the mounted file's pages.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::map::Record;
use super::{BLOCK, ContentId, FEW, Run};

/// The most files that are kept open: more than are read at a time by most, and few beside the 1024 a process may have.
const MOST_OPEN: usize = 64;

/// `RWF_DONTCACHE` of preadv2(2), since Linux 6.14: pages that come for this read alone go with it. Memory for them is found
/// at once then, which otherwise costs more than the read where a virtual machine gives free memory back to its host.
const DONT_CACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// Open files, for reading. A leaf lock guards them.
pub(super) struct DataFiles(Mutex<LruCache<ContentId, Arc<File>>>);

impl Default for DataFiles {
    fn default() -> Self {
        Self(Mutex::new(LruCache::unbounded()))
    }
}

impl DataFiles {
    pub(super) fn opened(&self, content: &ContentId) -> Option<Arc<File>> {
        self.0.lock().get(content).cloned()
    }

    /// To be called for a pinned version: nobody closes it meanwhile.
    ///
    /// # Errors
    /// The disk's own.
    pub(super) fn open(&self, content: &ContentId, path: impl FnOnce() -> PathBuf) -> io::Result<Arc<File>> {
        if let Some(file) = self.opened(content) {
            return Ok(file);
        }
        let file = Arc::new(File::open(path())?);
        let mut open = self.0.lock();
        open.put(*content, Arc::clone(&file));
        while open.len() > MOST_OPEN {
            open.pop_lru();
        }
        Ok(file)
    }

    /// Of a version that goes, or whose file isn't what it was.
    pub(super) fn close(&self, content: &ContentId) {
        self.0.lock().pop(content);
    }
}

/// Whether a read may wait for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    Waits,
    /// `WouldBlock` for what the page cache doesn't have.
    Never,
}

/// Neighbours of which each is `BLOCK` long but the last, so that one read brings them all.
pub(super) fn stretches(records: &[(u64, Record)]) -> impl Iterator<Item = &[(u64, Record)]> {
    records.chunk_by(|(a, record), (b, _)| a + 1 == *b && u64::from(record.len) == BLOCK)
}

/// Reads a stretch at once, and tells those apart that are what was put there. What is missing, cut off or torn is wrong.
///
/// # Errors
/// The disk's own, after which all of them count as wrong, and `WouldBlock`.
pub(super) fn read_stretch(
    file: &File,
    stretch: &[(u64, Record)],
    patience: Patience,
    found: &mut Vec<Run>,
    wrong: &mut Vec<(u64, Record)>,
) -> io::Result<()> {
    let len: usize = stretch.iter().map(|(_, record)| record.len as usize).sum();
    let mut bytes = vec![0; len];
    let mut have = 0;
    while have < len {
        let at = stretch[0].0 * BLOCK + have as u64;
        match read_at(file, &mut bytes[have..], at, patience) {
            Ok(0) => break,
            Ok(more) => have += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                wrong.extend_from_slice(stretch);
                return Err(error);
            }
        }
    }
    bytes.truncate(have);
    let first = stretch[0].0;
    let mut right: Vec<Range<usize>> = Vec::new();
    for &(block, record) in stretch {
        let from = (((block - first) * BLOCK) as usize).min(have);
        let to = (from + record.len as usize).min(have);
        if Record::of(block, &bytes[from..to]) != record {
            wrong.push((block, record));
        } else if let Some(before) = right.last_mut().filter(|before| before.end == from) {
            before.end = to;
        } else {
            right.push(from..to);
        }
    }
    let bytes = Bytes::from(bytes);
    found.extend(right.into_iter().map(|place| Run {
        first: first + place.start as u64 / BLOCK,
        bytes: bytes.slice(place),
    }));
    Ok(())
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64, patience: Patience) -> io::Result<usize> {
    let flags = match patience {
        Patience::Never => ReadWriteFlags::NOWAIT,
        Patience::Waits if buffer.len() as u64 > FEW as u64 * BLOCK => DONT_CACHE,
        Patience::Waits => return file.read_at(buffer, offset),
    };
    match preadv2(file, &mut [IoSliceMut::new(buffer)], offset, flags) {
        // File systems without such reads, and kernels.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => match patience {
            Patience::Never => Err(io::ErrorKind::WouldBlock.into()),
            Patience::Waits => file.read_at(buffer, offset),
        },
        read => Ok(read?),
    }
}
