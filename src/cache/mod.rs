//! Blocks of object versions that were read before: in memory and on disk, capped in bytes.
//!
//! A block is named by what it holds, for ever: provider, object, version, position. So nothing is ever invalidated,
//! only forgotten. A cache never fails: whatever goes wrong inside is a miss. Who asks the provider is `fetch`.

mod data;
mod disk;
mod folder;
mod health;
mod index;
mod layered;
mod map;
mod memory;
#[cfg(test)]
mod testing;

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};

pub use disk::DiskCache;
pub use folder::{Survey, survey};
pub use layered::Layered;
pub use memory::MemoryCache;

use crate::model::ObjectId;

/// Bytes per block; the last one of an object is shorter.
///
/// It is what a small random read brings, what one checksum covers and what one eviction frees; whoever reads on asks
/// for many at once (`fetch`). Of 4 KiB asked for, 64 KiB come: at 10 Gbit/s that adds 0.05 ms to a round trip.
pub const BLOCK: u64 = 64 * 1024;

/// More blocks than these at once are what somebody reads on in large pieces, and has in memory until they are read.
pub const FEW: usize = 4;

/// Names the bytes of one version of one object of one provider.
///
/// A SHA-256, so that neither the provider's identity nor the object's name reaches the disk in the clear.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentId([u8; 32]);

impl ContentId {
    /// `namespace` is the provider's identity: remotes with equal ones share their blocks.
    pub fn new(namespace: &str, object: &ObjectId) -> Self {
        let mut hash = Sha256::new();
        for part in [namespace, object.key.as_str(), object.version.as_str()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update(object.size.to_le_bytes());
        Self(hash.finalize().into())
    }

    /// 64 digits of lower-case hexadecimal.
    pub fn hex(&self) -> String {
        use fmt::Write;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = value(pair[0])? << 4 | value(pair[1])?;
        }
        Some(Self(bytes))
    }
}

/// Of a lower-case hexadecimal digit.
fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex()[..12])
    }
}

/// What `status` shows of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheUsage {
    /// Held now, with the cache's own bookkeeping.
    pub bytes: u64,
    /// Never exceeded.
    pub cap: u64,
    /// Blocks given, since the start.
    pub hits: u64,
    /// Blocks asked for in vain, since the start.
    pub misses: u64,
}

/// Neighbouring blocks in one piece of memory: each is [`BLOCK`] bytes long but the last, which may be shorter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The number of the first one.
    pub first: u64,
    pub bytes: Bytes,
}

impl Run {
    /// Their numbers.
    pub fn blocks(&self) -> Range<u64> {
        self.first..self.first + (self.bytes.len() as u64).div_ceil(BLOCK)
    }

    /// Those of the blocks that it has.
    pub fn part(&self, blocks: &Range<u64>) -> Self {
        let place = |block: u64| ((block.saturating_sub(self.first) * BLOCK) as usize).min(self.bytes.len());
        Self {
            first: blocks.start.max(self.first),
            bytes: self.bytes.slice(place(blocks.start)..place(blocks.end)),
        }
    }

    /// One by one, with their numbers; they share the memory.
    pub fn split(&self) -> impl Iterator<Item = (u64, Bytes)> {
        let starts = (0..self.bytes.len()).step_by(BLOCK as usize);
        let slice = |from: usize| self.bytes.slice(from..(from + BLOCK as usize).min(self.bytes.len()));
        (self.first..).zip(starts.map(slice))
    }
}

/// How many blocks these are.
fn count(runs: &[Run]) -> usize {
    let each = runs.iter().map(|run| run.blocks().count());
    each.sum()
}

/// Somewhere to keep blocks. No method has a default: a wrapper must forward each.
#[async_trait]
pub trait BlockCache: Send + Sync + 'static {
    /// Those of the blocks that are there, in order: the bytes that were put there, never others.
    async fn get(&self, content: &ContentId, blocks: Range<u64>) -> Vec<Run>;

    /// Those of the blocks that are not there, in order. Reads none, and counts neither hits nor misses.
    async fn missing(&self, content: &ContentId, blocks: Range<u64>) -> Vec<u64>;

    /// Keeps blocks for as long as there is room, but not the memory that they came in.
    async fn put(&self, content: &ContentId, runs: Vec<Run>);

    /// The file that has all of a version, if there is one and every block of it is known to be right. As long as it is
    /// held, nothing is taken from it; what is held takes at most half of the cap.
    async fn whole(&self, content: &ContentId, size: u64) -> Option<WholeFile>;

    /// Drops all blocks of one version.
    async fn forget(&self, content: &ContentId);

    /// Drops everything but these versions and what somebody is reading at this moment.
    async fn clear(&self, keep: &HashSet<ContentId>);

    /// Whether what it has comes from a disk, so that it is worth having ahead of who reads on.
    fn is_on_disk(&self) -> bool;

    /// Never waits.
    fn usage(&self) -> CacheUsage;
}

/// An open file with all bytes of one version and no others, to be read as it is.
pub struct WholeFile {
    file: File,
    /// Lets go of it when it is dropped.
    _hold: Box<dyn Send + Sync>,
}

impl WholeFile {
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl fmt::Debug for WholeFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WholeFile").field(&self.file).finish()
    }
}

/// Hits and misses.
#[derive(Debug, Default)]
struct Tally {
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Tally {
    fn count(&self, asked: &Range<u64>, found: usize) {
        let misses = (asked.end - asked.start).saturating_sub(found as u64);
        self.hits.fetch_add(found as u64, Ordering::Relaxed);
        self.misses.fetch_add(misses, Ordering::Relaxed);
    }

    fn usage(&self, bytes: u64, cap: u64) -> CacheUsage {
        CacheUsage {
            bytes,
            cap,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ObjectKey, Version};

    fn object(key: &str, version: &str, size: u64) -> ObjectId {
        ObjectId {
            key: ObjectKey::new(key),
            version: Version::new(version),
            size,
        }
    }

    #[test]
    fn contents_are_told_apart_by_every_part_of_their_name() {
        let ids = [
            ContentId::new("n", &object("k", "v", 1)),
            ContentId::new("m", &object("k", "v", 1)),
            ContentId::new("n", &object("l", "v", 1)),
            ContentId::new("n", &object("k", "w", 1)),
            ContentId::new("n", &object("k", "v", 2)),
            // The same text, divided elsewhere.
            ContentId::new("nk", &object("", "v", 1)),
            ContentId::new("n", &object("kv", "", 1)),
        ];
        let distinct: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
        assert_eq!(ids[0], ContentId::new("n", &object("k", "v", 1)));
    }

    #[test]
    fn hexadecimal_round_trips_and_nothing_else_is_taken() {
        let id = ContentId::new("n", &object("k", "v", 1));
        assert_eq!(ContentId::from_hex(&id.hex()), Some(id));
        for other in [
            "",
            "ab",
            &id.hex().to_uppercase().replace(|c: char| c.is_ascii_digit(), "A"),
            &"é".repeat(32),
        ] {
            assert_eq!(ContentId::from_hex(other), None, "{other:?}");
        }
    }
}
