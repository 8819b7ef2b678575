//! Blocks on disk: they survive restarts, and never take more than they may.
//!
//! One sparse file per version with its bytes where they are in the object, and a map of those that are there
//! (`map`). Room is reserved, and others are evicted, before a byte is written. Nothing is synced: what a power
//! failure tears, its checksum tells.
//!
//! What an earlier run left is counted beside the work, for it may be a million files. Until that is done nothing new
//! is kept, for nobody knows yet how much room there is; what is there is found all the same.
//!
//! One lock guards the index; it is a leaf. Bytes are read and written without it, under a pin on their version;
//! evictions happen under it, because room is there only once they are done. All of it runs on threads that may block.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use parking_lot::Mutex;
use rustix::fs::FallocateFlags;

use super::data::{DataFiles, Patience, read_stretch, stretches};
use super::folder::{Folder, file_options, pages};
use super::health::Health;
use super::index::{Block, Blocks, Fate, Index, Kept, runs};
use super::map::{self, Record};
use super::{BLOCK, BlockCache, CacheUsage, ContentId, FEW, Run, Tally, WholeFile, count};
use crate::model::Result;

mod at_once;
mod whole;

/// A version that takes more than this loses its least recently used blocks one by one; a smaller one goes at once.
const PIECEWISE_ABOVE: u64 = 16 << 20;
/// The most blocks that are written with one reservation.
const MOST_AT_ONCE: usize = 32;
/// How many files are written at the same time at most.
const WRITERS: usize = 8;

/// A cache in a folder. Clones share it.
///
/// `cap` is for one daemon: a second one on the same folder has blocks of its own, as long as it runs.
#[derive(Clone)]
pub struct DiskCache(Arc<Disk>);

impl DiskCache {
    /// Takes over what an earlier run left, down to `cap` bytes, on a thread of its own. Must not be called where waiting
    /// for the disk is a harm.
    ///
    /// # Errors
    /// When nothing can be written in the folder.
    pub fn open(folder: &Path, cap: u64) -> Result<Self> {
        let disk = Arc::new(Disk::open(folder, cap, PIECEWISE_ABOVE)?);
        let counting = Arc::clone(&disk);
        let thread = std::thread::Builder::new().name("cache count".to_owned());
        if thread.spawn(move || counting.take_over()).is_err() {
            disk.take_over();
        }
        Ok(Self(disk))
    }

    /// Empties the cache in a folder that no daemon has. Gives the bytes that were freed; `None` when one has it.
    ///
    /// # Errors
    /// As `open`.
    pub fn empty(folder: &Path) -> Result<Option<u64>> {
        let disk = Disk::open(folder, u64::MAX, PIECEWISE_ABOVE)?;
        if disk.folder.is_private() {
            return Ok(None);
        }
        disk.take_over();
        let before = disk.usage().bytes;
        disk.clear(&HashSet::new());
        Ok(Some(before - disk.usage().bytes))
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
    async fn get(&self, content: &ContentId, blocks: Range<u64>) -> Vec<Run> {
        if let Some(found) = self.0.get_at_once(content, &blocks) {
            return found;
        }
        let content = *content;
        self.run(move |disk| disk.get(&content, blocks))
            .await
            .unwrap_or_default()
    }

    async fn missing(&self, content: &ContentId, blocks: Range<u64>) -> Vec<u64> {
        if let Some(missing) = self.0.missing_at_once(content, &blocks) {
            return missing;
        }
        let content = *content;
        self.run(move |disk| disk.missing(&content, blocks))
            .await
            .unwrap_or_default()
    }

    async fn put(&self, content: &ContentId, runs: Vec<Run>) {
        let content = *content;
        let put = move |disk: &Disk| runs.iter().for_each(|run| disk.put(&content, run));
        self.run(put).await;
    }

    async fn whole(&self, content: &ContentId, size: u64) -> Option<WholeFile> {
        if !self.0.may_be_whole(content, size) {
            return None;
        }
        let (disk, content) = (Arc::clone(&self.0), *content);
        let held = tokio::task::spawn_blocking(move || whole::hold(&disk, &content, size));
        held.await.ok().flatten()
    }

    async fn forget(&self, content: &ContentId) {
        let content = *content;
        self.run(move |disk| disk.forget(&content)).await;
    }

    async fn clear(&self, keep: &HashSet<ContentId>) {
        let keep = keep.clone();
        self.run(move |disk| disk.clear(&keep)).await;
    }

    fn is_on_disk(&self) -> bool {
        true
    }

    fn usage(&self) -> CacheUsage {
        self.0.usage()
    }
}

struct Disk {
    folder: Folder,
    files: DataFiles,
    cap: u64,
    piecewise_above: u64,
    index: Mutex<Index>,
    /// One of them is held while blocks are written into a file, the same for the same file. Leaf locks.
    writing: [Mutex<()>; WRITERS],
    /// Whether the index has all that earlier runs left.
    counted: AtomicBool,
    /// Held while that is counted: it takes halves of versions away, as what is being written seems to be. Taken first.
    counting: Mutex<()>,
    /// What the index holds, to be read without its lock.
    bytes: Arc<AtomicU64>,
    tally: Tally,
    health: Health,
}

impl Disk {
    /// Finds what is there, and keeps nothing new before `take_over`.
    fn open(folder: &Path, cap: u64, piecewise_above: u64) -> Result<Self> {
        let bytes = Arc::new(AtomicU64::new(0));
        Ok(Self {
            folder: Folder::open(folder)?,
            files: DataFiles::default(),
            cap,
            piecewise_above,
            index: Mutex::new(Index::new(Arc::clone(&bytes))),
            writing: Default::default(),
            counted: AtomicBool::new(false),
            counting: Mutex::default(),
            bytes,
            tally: Tally::default(),
            health: Health::default(),
        })
    }

    /// Counts what earlier runs left, unless that is done; waits for whoever does it.
    fn take_over(&self) {
        let _one = self.counting.lock();
        if self.counted.load(Ordering::Relaxed) {
            return;
        }
        let found = self.folder.scan().unwrap_or_else(|error| {
            self.health.failed("looked through", &error);
            Vec::new()
        });
        let mut index = self.index.lock();
        // What was used since the start is younger than all that wasn't.
        let used: Vec<ContentId> = index.versions.iter().rev().map(|(content, _)| *content).collect();
        for found in found {
            if !index.versions.contains(&found.content) {
                index.take_in(&found);
            }
        }
        for content in used {
            index.versions.promote(&content);
        }
        self.make_room(&mut index, 0);
        self.counted.store(true, Ordering::Relaxed);
    }

    fn usage(&self) -> CacheUsage {
        self.tally.usage(self.bytes.load(Ordering::Relaxed), self.cap)
    }

    fn get(&self, content: &ContentId, blocks: Range<u64>) -> Vec<Run> {
        let found = self.find(content, blocks.clone());
        self.tally.count(&blocks, count(&found));
        found
    }

    fn find(&self, content: &ContentId, wanted: Range<u64>) -> Vec<Run> {
        let records = {
            let mut index = self.index.lock();
            if self.blocks(&mut index, content).is_none() {
                return Vec::new();
            }
            index.pin(content, &wanted)
        };
        if records.is_empty() {
            return Vec::new();
        }
        let mut found = Vec::with_capacity(records.len());
        let mut wrong = Vec::new();
        match self.files.open(content, || self.folder.data(content)) {
            Ok(file) => {
                for stretch in stretches(&records) {
                    if let Err(error) = read_stretch(&file, stretch, Patience::Waits, &mut found, &mut wrong) {
                        self.health.failed("read", &error);
                    }
                }
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    self.health.failed("read", &error);
                }
                wrong = records;
            }
        }
        if !wrong.is_empty() {
            // Somebody may have put another file in its place.
            self.files.close(content);
        }
        let mut index = self.index.lock();
        index.prove(content, found.iter().flat_map(Run::blocks));
        self.drop_wrong(&mut index, content, wrong);
        self.unpin(&mut index, content);
        found
    }

    /// Takes blocks off the disk that are not what they should be, unless they changed meanwhile.
    fn drop_wrong(&self, index: &mut Index, content: &ContentId, wrong: Vec<(u64, Record)>) {
        let Some(kept) = index.versions.peek(content) else {
            return;
        };
        let still = wrong.into_iter().filter(|(block, record)| kept.holds(*block, *record));
        let still: Vec<u64> = still.map(|(block, _)| block).collect();
        if !still.is_empty()
            && (kept.holds > 0 || self.punch(index, content, &still).is_err())
            && let Some(kept) = index.versions.peek_mut(content)
        {
            kept.fate = Fate::Leaves;
        }
    }

    fn missing(&self, content: &ContentId, wanted: Range<u64>) -> Vec<u64> {
        let mut index = self.index.lock();
        let _ = self.blocks(&mut index, content);
        index.missing(content, &wanted)
    }

    fn put(&self, content: &ContentId, run: &Run) {
        if !self.counted.load(Ordering::Relaxed) || !self.health.allows() {
            return;
        }
        let all = run.blocks();
        for first in all.clone().step_by(MOST_AT_ONCE) {
            self.put_part(content, &run.part(&(first..first + MOST_AT_ONCE as u64)));
        }
    }

    fn put_part(&self, content: &ContentId, run: &Run) {
        let all = run.blocks();
        match self.reserve(content, run) {
            Room::None if all.end - all.start > 1 => {
                let middle = all.start + (all.end - all.start) / 2;
                self.put_part(content, &run.part(&(all.start..middle)));
                self.put_part(content, &run.part(&(middle..all.end)));
            }
            Room::None => {}
            Room::Reserved(new) if new.is_empty() => {}
            Room::Reserved(new) => self.fill(content, run, &new),
        }
    }

    /// Writes blocks whose room is reserved.
    fn fill(&self, content: &ContentId, run: &Run, new: &[u64]) {
        let new: Vec<Run> = runs(new.iter().copied()).iter().map(|new| run.part(new)).collect();
        let blocks = new.iter().flat_map(Run::split);
        let records: Vec<(u64, Record)> = blocks
            .map(|(block, bytes)| (block, Record::of(block, &bytes)))
            .collect();
        let written = self.write_runs(content, &new, &records);
        let mut index = self.index.lock();
        let used = index.tick();
        if let Some(kept) = index.versions.get_mut(content) {
            match &written {
                Ok(()) => {
                    for (block, record) in records {
                        let proven = true;
                        kept.arrived(block, Block::Present { record, used, proven });
                    }
                }
                Err(_) => kept.fate = Fate::Leaves,
            }
        }
        self.unpin(&mut index, content);
        match written {
            Ok(()) => self.health.worked(),
            Err(error) => self.health.failed("written", &error),
        }
    }

    /// Makes room for blocks, accounts for them and pins their version. Not for those that are there or on
    /// their way already, and not if their version is about to go.
    fn reserve(&self, content: &ContentId, run: &Run) -> Room {
        let mut index = self.index.lock();
        let all = run.blocks();
        let absent = self.blocks(&mut index, content).map(|there| {
            let absent = all.clone().filter(|block| !there.contains_key(block));
            absent.collect::<Vec<u64>>()
        });
        let new = match absent {
            Some(absent) => absent,
            // It is about to go.
            None if index.versions.contains(content) => Vec::new(),
            None => all.collect(),
        };
        let Some(&last) = new.last() else {
            return Room::Reserved(new);
        };
        let bytes: u64 = runs(new.iter().copied())
            .iter()
            .map(|new| pages(run.part(new).bytes.len() as u64))
            .sum();
        let cost = loop {
            let map_then = index.versions.peek(content).map_or(0, |kept| kept.map_bytes);
            let map_now = pages(map::length_with(last)).max(map_then);
            let cost = bytes + map_now - map_then;
            if self.bytes.load(Ordering::Relaxed) + cost <= self.cap {
                break cost;
            }
            // This may take the rest of the very same version, and then its map is to be paid for again.
            if !self.make_room(&mut index, cost) {
                return Room::None;
            }
        };
        index.grow(cost);
        let kept = index.versions.get_or_insert_mut(*content, Kept::empty);
        kept.bytes += cost;
        kept.map_bytes = kept.map_bytes.max(pages(map::length_with(last)));
        kept.pins += 1;
        for &block in &new {
            kept.arrived(block, Block::Arriving);
        }
        Room::Reserved(new)
    }

    fn write_runs(&self, content: &ContentId, runs: &[Run], records: &[(u64, Record)]) -> io::Result<()> {
        let data = file_options().open(self.folder.data(content))?;
        {
            // Threads that write into the same file would wait for each other in the kernel, and burn time there.
            let _one = self.writing[usize::from(content.0[0]) % WRITERS].lock();
            for run in runs {
                let (place, bytes) = (run.first * BLOCK, run.bytes.len() as u64);
                if bytes > BLOCK {
                    // At once: page by page it takes the file system half as long again, and leaves the file in pieces. Where
                    // that isn't possible, writing says what is wrong.
                    let _ = rustix::fs::fallocate(&data, FallocateFlags::KEEP_SIZE, place, bytes);
                }
                // The kernel takes memory as large as what is written at once. Where it gives free memory back to a host, large
                // pieces are those that it has to ask for again: writing 2 MiB at once took three times as long.
                for (block, bytes) in run.split() {
                    data.write_all_at(&bytes, block * BLOCK)?;
                }
            }
        }
        let map = file_options().open(self.folder.map(content))?;
        if map.metadata()?.len() == 0 {
            map::write_header(&map, content)?;
        }
        for run in records.chunk_by(|(a, _), (b, _)| a + 1 == *b) {
            let known: Vec<Option<Record>> = run.iter().map(|(_, record)| Some(*record)).collect();
            map::write_records(&map, run[0].0, &known)?;
        }
        Ok(())
    }

    fn forget(&self, content: &ContentId) {
        let mut index = self.index.lock();
        self.meet(&mut index, content);
        self.condemn(&mut index, content);
    }

    fn clear(&self, keep: &HashSet<ContentId>) {
        self.take_over();
        let mut index = self.index.lock();
        let all = index.versions.iter().map(|(content, _)| *content);
        let gone: Vec<_> = all.filter(|content| !keep.contains(content)).collect();
        for content in gone {
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
        self.files.close(content);
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
        self.meet(index, content);
        let unread = matches!(index.versions.peek(content)?.blocks, Blocks::Unread);
        if !self.load(index, content) {
            return None;
        }
        if unread {
            // Word for later runs that the version is of use still; as good as it gets if it fails.
            let _ = open_map(&self.folder.map(content)).and_then(|map| map.set_modified(SystemTime::now()));
        }
        index.versions.get_mut(content).and_then(Kept::staying)
    }

    /// Finds a version that an earlier run left and that isn't counted yet.
    fn meet(&self, index: &mut Index, content: &ContentId) {
        if !self.counted.load(Ordering::Relaxed)
            && !index.versions.contains(content)
            && let Ok(Some(found)) = self.folder.find(content)
        {
            index.take_in(&found);
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
            let present = |(block, record)| {
                let (used, proven) = (0, false);
                (block, Block::Present { record, used, proven })
            };
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
        present.sort_unstable_by_key(|present| (present.used, present.block));
        let mut freed = 0;
        present.retain(|present| {
            let more = freed < excess;
            freed += present.bytes;
            more
        });
        let mut blocks: Vec<u64> = present.into_iter().map(|present| present.block).collect();
        blocks.sort_unstable();
        let unpinned = kept.pins == 0;
        if blocks.is_empty() || self.punch(index, content, &blocks).is_err() {
            // The file system cannot make holes, or nothing but the map is left.
            return unpinned && self.remove(index, content);
        }
        true
    }

    /// Takes blocks, in order, off the disk and leaves the rest of their version.
    fn punch(&self, index: &mut Index, content: &ContentId, blocks: &[u64]) -> io::Result<()> {
        let map = open_map(&self.folder.map(content))?;
        let data = OpenOptions::new().write(true).open(self.folder.data(content))?;
        for run in runs(blocks.iter().copied()) {
            map::write_records(&map, run.start, &vec![None; (run.end - run.start) as usize])?;
            let Some(kept) = index.versions.peek_mut(content) else {
                return Ok(());
            };
            let freed: u64 = run.clone().map(|block| kept.left(block)).sum();
            rustix::fs::fallocate(
                &data,
                FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                run.start * BLOCK,
                (run.end - run.start) * BLOCK,
            )?;
            // Earlier runs are accounted for by what the disk said, which compression makes less than the blocks.
            let freed = freed.min(kept.bytes - kept.map_bytes);
            kept.bytes -= freed;
            index.shrink(freed);
        }
        Ok(())
    }
}

/// What came of asking for room.
enum Room {
    /// There is none.
    None,
    /// For these blocks; the others need none.
    Reserved(Vec<u64>),
}

fn open_map(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
