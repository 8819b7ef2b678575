//! What a disk cache knows of its versions: blocks, room, use. No I/O.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lru::LruCache;

use super::folder::{Found, pages};
use super::map::Record;
use super::{BLOCK, ContentId};

pub(super) struct Index {
    pub(super) versions: LruCache<ContentId, Kept>,
    /// What all versions take, to be read without the index's lock.
    bytes: Arc<AtomicU64>,
    /// Counts uses, to order the blocks of one version.
    clock: u64,
    /// What the versions take that are held as a whole.
    pub(super) held_bytes: u64,
}

/// One version on disk.
pub(super) struct Kept {
    /// What both files take, with what is reserved for blocks that are being written.
    pub(super) bytes: u64,
    /// The part of `bytes` that is the map's.
    pub(super) map_bytes: u64,
    pub(super) blocks: Blocks,
    /// Reads and writes going on: as long as there are any, the files stay.
    pub(super) pins: u32,
    /// Those of the pins whose owners read the file behind this cache's back: nothing is taken from it meanwhile.
    pub(super) holds: u32,
    /// How many of the blocks are proven.
    pub(super) proven: u64,
    pub(super) fate: Fate,
}

pub(super) enum Blocks {
    /// Left by an earlier run; the map wasn't read yet.
    Unread,
    Known(HashMap<u64, Block>),
}

pub(super) enum Block {
    /// Reserved, not to be read yet.
    Arriving,
    Present {
        record: Record,
        used: u64,
        /// Whether this process wrote it, or read it and found it right.
        proven: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Stays,
    /// Goes when the last pin does.
    Leaves,
}

/// A block that can be read: what it should be, and what it takes on disk.
pub(super) struct Present {
    pub(super) block: u64,
    pub(super) used: u64,
    pub(super) bytes: u64,
}

impl Index {
    pub(super) fn new(bytes: Arc<AtomicU64>) -> Self {
        Self {
            versions: LruCache::unbounded(),
            bytes,
            clock: 0,
            held_bytes: 0,
        }
    }

    /// The time of a use: later ones are larger.
    pub(super) fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    pub(super) fn grow(&mut self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn shrink(&mut self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes in what an earlier run left, as the most recently used version.
    pub(super) fn take_in(&mut self, found: &Found) {
        self.grow(found.bytes);
        let kept = Kept {
            bytes: found.bytes,
            map_bytes: found.map_bytes,
            blocks: Blocks::Unread,
            pins: 0,
            holds: 0,
            proven: 0,
            fate: Fate::Stays,
        };
        self.versions.put(found.content, kept);
    }
}

impl Index {
    /// Those of the blocks that can be read, used now; their version is pinned if there are any.
    pub(super) fn pin(&mut self, content: &ContentId, wanted: &Range<u64>) -> Vec<(u64, Record)> {
        let now = self.tick();
        let Some(kept) = self.versions.get_mut(content) else {
            return Vec::new();
        };
        let Some(blocks) = kept.staying() else {
            return Vec::new();
        };
        let mut records = Vec::new();
        for block in wanted.clone() {
            if let Some(Block::Present { record, used, .. }) = blocks.get_mut(&block) {
                *used = now;
                records.push((block, *record));
            }
        }
        kept.pins += u32::from(!records.is_empty());
        records
    }

    /// These blocks were read and found right.
    pub(super) fn prove(&mut self, content: &ContentId, right: impl Iterator<Item = u64>) {
        let Some(kept) = self.versions.peek_mut(content) else {
            return;
        };
        let Blocks::Known(blocks) = &mut kept.blocks else {
            return;
        };
        for block in right {
            if let Some(Block::Present { proven, .. }) = blocks.get_mut(&block)
                && !std::mem::replace(proven, true)
            {
                kept.proven += 1;
            }
        }
    }

    /// Those of the blocks that are neither there nor arriving.
    pub(super) fn missing(&mut self, content: &ContentId, wanted: &Range<u64>) -> Vec<u64> {
        match self.versions.get_mut(content).and_then(Kept::staying) {
            Some(blocks) => wanted.clone().filter(|block| !blocks.contains_key(block)).collect(),
            None => wanted.clone().collect(),
        }
    }
}

impl Kept {
    /// Whether all blocks of so many bytes are there and known to be right.
    pub(super) fn is_whole(&self, size: u64) -> bool {
        size > 0 && self.fate == Fate::Stays && self.proven == size.div_ceil(BLOCK)
    }

    /// The blocks of a version that stays.
    pub(super) fn staying(&mut self) -> Option<&mut HashMap<u64, Block>> {
        match self {
            Self {
                blocks: Blocks::Known(blocks),
                fate: Fate::Stays,
                ..
            } => Some(blocks),
            _ => None,
        }
    }

    pub(super) fn empty() -> Self {
        Self {
            bytes: 0,
            map_bytes: 0,
            blocks: Blocks::Known(HashMap::new()),
            pins: 0,
            holds: 0,
            proven: 0,
            fate: Fate::Stays,
        }
    }

    /// Whether an eviction here can free anything.
    pub(super) fn has_to_give(&self) -> bool {
        let present =
            |blocks: &HashMap<u64, Block>| blocks.values().any(|state| matches!(state, Block::Present { .. }));
        self.holds == 0 && (self.pins == 0 || matches!(&self.blocks, Blocks::Known(blocks) if present(blocks)))
    }

    /// All blocks that can be read.
    pub(super) fn present(&self) -> Vec<Present> {
        let Blocks::Known(blocks) = &self.blocks else {
            return Vec::new();
        };
        let present = blocks.iter().filter_map(|(&block, state)| match state {
            Block::Arriving => None,
            Block::Present { record, used, .. } => Some(Present {
                block,
                used: *used,
                bytes: pages(record.len.into()),
            }),
        });
        present.collect()
    }

    pub(super) fn holds(&self, block: u64, wanted: Record) -> bool {
        match &self.blocks {
            Blocks::Known(blocks) => {
                matches!(blocks.get(&block), Some(Block::Present { record, .. }) if *record == wanted)
            }
            Blocks::Unread => false,
        }
    }

    pub(super) fn arrived(&mut self, block: u64, state: Block) {
        if let Blocks::Known(blocks) = &mut self.blocks {
            self.proven += u64::from(matches!(state, Block::Present { proven: true, .. }));
            blocks.insert(block, state);
        }
    }

    /// Gives the bytes that the block took.
    pub(super) fn left(&mut self, block: u64) -> u64 {
        match &mut self.blocks {
            Blocks::Known(blocks) => match blocks.remove(&block) {
                Some(Block::Present { record, proven, .. }) => {
                    self.proven -= u64::from(proven);
                    pages(record.len.into())
                }
                _ => 0,
            },
            Blocks::Unread => 0,
        }
    }
}

/// The runs of neighbours among blocks that are in order.
pub(super) fn runs(blocks: impl IntoIterator<Item = u64>) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for block in blocks {
        match runs.last_mut() {
            Some(run) if run.end == block => run.end += 1,
            _ => runs.push(block..block + 1),
        }
    }
    runs
}
