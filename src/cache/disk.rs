//! Blocks on disk: they survive restarts, and never take more than they may.
//!
//! One sparse file per version with its bytes where they are in the object, and a map of those that are there
//! (`map`). Room is reserved, and others are evicted, before a byte is written. Nothing is synced: what a power
//! failure tears, its checksum tells.
//!
//! One lock guards the index; it is a leaf. Bytes are read and written without it, under a pin on their version;
//! evictions happen under it, because room is there only once they are done. All of it runs on threads that may block.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;
use rustix::fs::FallocateFlags;

use super::folder::{Folder, file_options, pages};
use super::map::{self, Record};
use super::{BLOCK, BlockCache, CacheUsage, ContentId, Tally};
use crate::model::Result;

/// A version that takes more than this loses its least recently used blocks one by one; a smaller one goes at once.
const PIECEWISE_ABOVE: u64 = 16 * BLOCK;

/// After a failure one in so many blocks is written, to see whether the disk works again.
const TRY_EVERY: u32 = 64;

/// A cache in a folder. Clones share it.
///
/// `cap` is for one daemon: a second one on the same folder has blocks of its own, as long as it runs.
#[derive(Clone)]
pub struct DiskCache(Arc<Disk>);

impl DiskCache {
    /// Takes over what an earlier run left, down to `cap` bytes. Blocks the thread for the time of an `ls -l`.
    ///
    /// # Errors
    /// When nothing can be written in the folder.
    pub fn open(folder: &Path, cap: u64) -> Result<Self> {
        Disk::open(folder, cap, PIECEWISE_ABOVE).map(|disk| Self(Arc::new(disk)))
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Disk) -> T + Send + 'static) -> Option<T> {
        let disk = Arc::clone(&self.0);
        // Fails when the runtime is going down.
        tokio::task::spawn_blocking(move || work(&disk)).await.ok()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl BlockCache for DiskCache {
    async fn get(&self, content: &ContentId, block: u64) -> Option<Bytes> {
        let content = *content;
        self.run(move |disk| disk.get(&content, block)).await?
    }

    async fn put(&self, content: &ContentId, block: u64, bytes: Bytes) {
        let content = *content;
        self.run(move |disk| disk.put(&content, block, &bytes)).await;
    }

    async fn forget(&self, content: &ContentId) {
        let content = *content;
        self.run(move |disk| disk.forget(&content)).await;
    }

    async fn clear(&self) {
        self.run(Disk::clear).await;
    }

    fn usage(&self) -> CacheUsage {
        self.0.usage()
    }
}

struct Disk {
    folder: Folder,
    cap: u64,
    piecewise_above: u64,
    index: Mutex<Index>,
    /// What the index holds, to be read without its lock.
    bytes: Arc<AtomicU64>,
    tally: Tally,
    health: Health,
}

struct Index {
    versions: LruCache<ContentId, Kept>,
    bytes: Arc<AtomicU64>,
    /// Counts uses, to order the blocks of one version.
    clock: u64,
}

/// One version on disk.
struct Kept {
    /// What both files take, with what is reserved for blocks that are being written.
    bytes: u64,
    /// The part of `bytes` that is the map's.
    map_bytes: u64,
    blocks: Blocks,
    /// Reads and writes going on: as long as there are any, the files stay.
    pins: u32,
    fate: Fate,
}

enum Blocks {
    /// Left by an earlier run; the map wasn't read yet.
    Unread,
    Known(HashMap<u64, Block>),
}

enum Block {
    /// Reserved, not to be read yet.
    Arriving,
    Present {
        record: Record,
        used: u64,
    },
}

#[derive(PartialEq, Eq)]
enum Fate {
    Stays,
    /// Goes when the last pin does.
    Leaves,
}

impl Disk {
    fn open(folder: &Path, cap: u64, piecewise_above: u64) -> Result<Self> {
        let folder = Folder::open(folder)?;
        let bytes = Arc::new(AtomicU64::new(0));
        let mut index = Index {
            versions: LruCache::unbounded(),
            bytes: Arc::clone(&bytes),
            clock: 0,
        };
        for found in folder.scan()? {
            index.grow(found.bytes);
            let kept = Kept {
                bytes: found.bytes,
                map_bytes: found.map_bytes,
                blocks: Blocks::Unread,
                pins: 0,
                fate: Fate::Stays,
            };
            index.versions.put(found.content, kept);
        }
        let disk = Self {
            folder,
            cap,
            piecewise_above,
            index: Mutex::new(index),
            bytes,
            tally: Tally::default(),
            health: Health::default(),
        };
        disk.make_room(&mut disk.index.lock(), 0);
        Ok(disk)
    }

    fn usage(&self) -> CacheUsage {
        self.tally.usage(self.bytes.load(Ordering::Relaxed), self.cap)
    }

    fn get(&self, content: &ContentId, block: u64) -> Option<Bytes> {
        self.tally.count(self.find(content, block))
    }

    fn find(&self, content: &ContentId, block: u64) -> Option<Bytes> {
        let record = {
            let mut index = self.index.lock();
            index.clock += 1;
            let now = index.clock;
            let Some(Block::Present { record, used }) = self.blocks(&mut index, content)?.get_mut(&block) else {
                return None;
            };
            *used = now;
            let record = *record;
            let kept = index.versions.get_mut(content)?;
            kept.pins += 1;
            record
        };
        let read = read_block(&self.folder.data(content), block, record);
        let mut index = self.index.lock();
        if let Err(error) = &read {
            match error.kind() {
                // Torn, overwritten, removed by somebody, or evicted in this moment.
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound => {}
                _ => self.health.failed("read", error),
            }
            let kept = index.versions.get_mut(content);
            if kept.is_some_and(|kept| kept.holds(block, record))
                && self.punch(&mut index, content, &[block]).is_err()
                && let Some(kept) = index.versions.get_mut(content)
            {
                kept.fate = Fate::Leaves;
            }
        }
        self.unpin(&mut index, content);
        read.ok()
    }

    fn put(&self, content: &ContentId, block: u64, bytes: &[u8]) {
        if bytes.is_empty()
            || bytes.len() as u64 > BLOCK
            || !self.health.allows()
            || !self.reserve(content, block, bytes)
        {
            return;
        }
        let record = Record::of(block, bytes);
        let written = self.write_block(content, block, bytes, record);
        let mut index = self.index.lock();
        index.clock += 1;
        let used = index.clock;
        if let Some(kept) = index.versions.get_mut(content) {
            match &written {
                Ok(()) => kept.arrived(block, Block::Present { record, used }),
                Err(_) => kept.fate = Fate::Leaves,
            }
        }
        self.unpin(&mut index, content);
        match written {
            Ok(()) => self.health.worked(),
            Err(error) => self.health.failed("written", &error),
        }
    }

    /// Makes room for a block, accounts for it and pins its version. Not if it is there or on its way
    /// already, and not if its version is about to go.
    fn reserve(&self, content: &ContentId, block: u64, bytes: &[u8]) -> bool {
        let mut index = self.index.lock();
        let there = self
            .blocks(&mut index, content)
            .map(|blocks| blocks.contains_key(&block));
        if there.unwrap_or_else(|| index.versions.contains(content)) {
            return false;
        }
        let cost = loop {
            let map_then = index.versions.peek(content).map_or(0, |kept| kept.map_bytes);
            let map_now = pages(map::length_with(block)).max(map_then);
            let cost = pages(bytes.len() as u64) + map_now - map_then;
            if self.bytes.load(Ordering::Relaxed) + cost <= self.cap {
                break cost;
            }
            // This may take the rest of the very same version, and then its map is to be paid for again.
            if !self.make_room(&mut index, cost) {
                return false;
            }
        };
        index.grow(cost);
        let kept = index.versions.get_or_insert_mut(*content, || Kept {
            bytes: 0,
            map_bytes: 0,
            blocks: Blocks::Known(HashMap::new()),
            pins: 0,
            fate: Fate::Stays,
        });
        kept.bytes += cost;
        kept.map_bytes = kept.map_bytes.max(pages(map::length_with(block)));
        kept.pins += 1;
        kept.arrived(block, Block::Arriving);
        true
    }

    fn write_block(&self, content: &ContentId, block: u64, bytes: &[u8], record: Record) -> io::Result<()> {
        file_options()
            .open(self.folder.data(content))?
            .write_all_at(bytes, block * BLOCK)?;
        let map = file_options().open(self.folder.map(content))?;
        if map.metadata()?.len() == 0 {
            map::write_header(&map, content)?;
        }
        map::write_record(&map, block, Some(record))
    }

    fn forget(&self, content: &ContentId) {
        let mut index = self.index.lock();
        self.condemn(&mut index, content);
    }

    fn clear(&self) {
        let mut index = self.index.lock();
        let all: Vec<_> = index.versions.iter().map(|(content, _)| *content).collect();
        for content in all {
            self.condemn(&mut index, &content);
        }
    }

    fn condemn(&self, index: &mut Index, content: &ContentId) {
        if let Some(kept) = index.versions.peek_mut(content) {
            kept.fate = Fate::Leaves;
            if kept.pins == 0 {
                self.remove(index, content);
            }
        }
    }

    fn unpin(&self, index: &mut Index, content: &ContentId) {
        if let Some(kept) = index.versions.peek_mut(content) {
            kept.pins -= 1;
            if kept.pins == 0 && kept.fate == Fate::Leaves {
                self.remove(index, content);
            }
        }
    }

    /// Takes a version off the disk. If that fails it stays accounted for.
    fn remove(&self, index: &mut Index, content: &ContentId) -> bool {
        if let Err(error) = self.folder.remove(content) {
            self.health.failed("emptied", &error);
            return false;
        }
        if let Some(kept) = index.versions.pop(content) {
            index.shrink(kept.bytes);
        }
        true
    }

    /// The blocks of a version that stays, after making it the most recently used one.
    fn blocks<'a>(&self, index: &'a mut Index, content: &ContentId) -> Option<&'a mut HashMap<u64, Block>> {
        let unread = matches!(index.versions.peek(content)?.blocks, Blocks::Unread);
        if !self.load(index, content) {
            return None;
        }
        if unread {
            // Word for later runs that the version is of use still; as good as it gets if it fails.
            let _ = open_map(&self.folder.map(content)).and_then(|map| map.set_modified(SystemTime::now()));
        }
        match index.versions.get_mut(content)? {
            Kept {
                blocks: Blocks::Known(blocks),
                fate: Fate::Stays,
                ..
            } => Some(blocks),
            _ => None,
        }
    }

    /// Reads the map of a version that an earlier run left. A version whose map is none is removed.
    fn load(&self, index: &mut Index, content: &ContentId) -> bool {
        let Some(kept) = index.versions.peek_mut(content) else {
            return false;
        };
        if let Blocks::Known(_) = kept.blocks {
            return true;
        }
        let read = open_map(&self.folder.map(content)).and_then(|map| map::read(&map, content));
        if let Ok(Some(records)) = read {
            let present = |(block, record)| (block, Block::Present { record, used: 0 });
            kept.blocks = Blocks::Known(records.into_iter().map(present).collect());
            return true;
        }
        tracing::debug!(?content, "a cached file of no use was removed");
        self.remove(index, content);
        false
    }

    /// Evicts until `wanted` more bytes fit.
    fn make_room(&self, index: &mut Index, wanted: u64) -> bool {
        if wanted > self.cap {
            return false;
        }
        loop {
            let excess = (self.bytes.load(Ordering::Relaxed) + wanted).saturating_sub(self.cap);
            if excess == 0 {
                return true;
            }
            let mut oldest = index.versions.iter().rev();
            let Some((&victim, kept)) = oldest.find(|(_, kept)| kept.has_to_give()) else {
                return false;
            };
            let whole = kept.pins == 0 && kept.bytes <= self.piecewise_above;
            let done = if whole {
                self.remove(index, &victim)
            } else {
                self.evict_blocks(index, &victim, excess)
            };
            if !done {
                return false;
            }
        }
    }

    /// Frees `excess` bytes of one version if it has them, least recently used blocks first.
    fn evict_blocks(&self, index: &mut Index, content: &ContentId, excess: u64) -> bool {
        if !self.load(index, content) {
            return true;
        }
        let Some(kept) = index.versions.peek(content) else {
            return true;
        };
        let mut present = kept.present();
        present.sort_unstable_by_key(|&(block, used, _)| (used, block));
        let mut freed = 0;
        let enough = |&(_, _, bytes): &(u64, u64, u64)| {
            let more = freed < excess;
            freed += bytes;
            more
        };
        let blocks: Vec<u64> = present
            .into_iter()
            .take_while(enough)
            .map(|(block, ..)| block)
            .collect();
        let unpinned = kept.pins == 0;
        if blocks.is_empty() || self.punch(index, content, &blocks).is_err() {
            // The file system cannot make holes, or nothing but the map is left.
            return unpinned && self.remove(index, content);
        }
        true
    }

    /// Takes blocks off the disk and leaves the rest of their version.
    fn punch(&self, index: &mut Index, content: &ContentId, blocks: &[u64]) -> io::Result<()> {
        let map = open_map(&self.folder.map(content))?;
        let data = OpenOptions::new().write(true).open(self.folder.data(content))?;
        for &block in blocks {
            map::write_record(&map, block, None)?;
            let Some(kept) = index.versions.peek_mut(content) else {
                return Ok(());
            };
            let freed = kept.left(block);
            rustix::fs::fallocate(
                &data,
                FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                block * BLOCK,
                BLOCK,
            )?;
            // Earlier runs are accounted for by what the disk said, which compression makes less than the blocks.
            let freed = freed.min(kept.bytes - kept.map_bytes);
            kept.bytes -= freed;
            index.shrink(freed);
        }
        Ok(())
    }
}

impl Index {
    fn grow(&mut self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn shrink(&mut self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Kept {
    /// Whether an eviction here can free anything.
    fn has_to_give(&self) -> bool {
        let present =
            |blocks: &HashMap<u64, Block>| blocks.values().any(|state| matches!(state, Block::Present { .. }));
        self.pins == 0 || matches!(&self.blocks, Blocks::Known(blocks) if present(blocks))
    }

    /// Block, last use and bytes on disk of all that can be read.
    fn present(&self) -> Vec<(u64, u64, u64)> {
        let Blocks::Known(blocks) = &self.blocks else {
            return Vec::new();
        };
        let present = blocks.iter().filter_map(|(&block, state)| match state {
            Block::Arriving => None,
            Block::Present { record, used } => Some((block, *used, pages(record.len.into()))),
        });
        present.collect()
    }

    fn holds(&self, block: u64, wanted: Record) -> bool {
        match &self.blocks {
            Blocks::Known(blocks) => {
                matches!(blocks.get(&block), Some(Block::Present { record, .. }) if *record == wanted)
            }
            Blocks::Unread => false,
        }
    }

    fn arrived(&mut self, block: u64, state: Block) {
        if let Blocks::Known(blocks) = &mut self.blocks {
            blocks.insert(block, state);
        }
    }

    /// Gives the bytes that the block took.
    fn left(&mut self, block: u64) -> u64 {
        match &mut self.blocks {
            Blocks::Known(blocks) => match blocks.remove(&block) {
                Some(Block::Present { record, .. }) => pages(record.len.into()),
                _ => 0,
            },
            Blocks::Unread => 0,
        }
    }
}

/// Whether the disk does its work; one line in the log for each change.
#[derive(Default)]
struct Health {
    failing: AtomicBool,
    skipped: AtomicU32,
}

impl Health {
    /// Whether the next block is to be written.
    fn allows(&self) -> bool {
        !self.failing.load(Ordering::Relaxed)
            || self.skipped.fetch_add(1, Ordering::Relaxed) % TRY_EVERY == TRY_EVERY - 1
    }

    fn failed(&self, what: &str, error: &io::Error) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!("the disk cache cannot be {what} and is done without: {error}");
        }
    }

    fn worked(&self) {
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("the disk cache works again");
        }
    }
}

fn open_map(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// # Errors
/// `InvalidData` when these aren't the bytes that were put there.
fn read_block(path: &Path, block: u64, record: Record) -> io::Result<Bytes> {
    let mut bytes = vec![0; record.len as usize];
    File::open(path)?.read_exact_at(&mut bytes, block * BLOCK)?;
    if Record::of(block, &bytes) == record {
        Ok(bytes.into())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
