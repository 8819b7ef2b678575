//! Blocks in memory, least recently used out first.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;
use std::collections::HashSet;

use super::{BlockCache, CacheUsage, ContentId, Run, Tally, WholeFile};

/// What an entry costs beside its bytes: key, list node, hash slot and allocator, rounded up (judged, not measured).
const OVERHEAD: u64 = 192;

/// A cache that ends with the daemon.
pub struct MemoryCache {
    cap: u64,
    held: Mutex<Held>,
    tally: Tally,
}

struct Held {
    blocks: LruCache<(ContentId, u64), Bytes>,
    bytes: u64,
}

impl Held {
    fn put(&mut self, key: (ContentId, u64), bytes: Bytes, cap: u64) {
        let cost = cost(&bytes);
        if cost > cap {
            return;
        }
        self.remove(&key);
        while self.bytes + cost > cap {
            let Some((_, old)) = self.blocks.pop_lru() else { break };
            self.bytes -= self::cost(&old);
        }
        self.bytes += cost;
        self.blocks.put(key, bytes);
    }

    fn remove(&mut self, key: &(ContentId, u64)) {
        if let Some(old) = self.blocks.pop(key) {
            self.bytes -= cost(&old);
        }
    }
}

fn cost(bytes: &Bytes) -> u64 {
    bytes.len() as u64 + OVERHEAD
}

impl MemoryCache {
    /// `cap` is in bytes; 0 keeps nothing.
    pub fn new(cap: u64) -> Self {
        Self {
            cap,
            held: Mutex::new(Held {
                blocks: LruCache::unbounded(),
                bytes: 0,
            }),
            tally: Tally::default(),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl BlockCache for MemoryCache {
    async fn get(&self, content: &ContentId, blocks: Range<u64>) -> Vec<Run> {
        let mut held = self.held.lock();
        let there = |first| {
            let bytes = held.blocks.get(&(*content, first))?.clone();
            Some(Run { first, bytes })
        };
        let found: Vec<_> = blocks.clone().filter_map(there).collect();
        self.tally.count(&blocks, found.len());
        found
    }

    async fn missing(&self, content: &ContentId, blocks: Range<u64>) -> Vec<u64> {
        let held = self.held.lock();
        blocks
            .filter(|&block| !held.blocks.contains(&(*content, block)))
            .collect()
    }

    async fn put(&self, content: &ContentId, runs: Vec<Run>) {
        for (block, bytes) in runs.iter().flat_map(Run::split) {
            // A part of something larger would keep all of it.
            let own = Bytes::copy_from_slice(&bytes);
            self.held.lock().put((*content, block), own, self.cap);
        }
    }

    async fn whole(&self, _: &ContentId, _: u64) -> Option<WholeFile> {
        None
    }

    async fn forget(&self, content: &ContentId) {
        let mut held = self.held.lock();
        let blocks = held.blocks.iter().map(|(key, _)| *key);
        let gone: Vec<_> = blocks.filter(|(of, _)| of == content).collect();
        for key in gone {
            held.remove(&key);
        }
    }

    async fn clear(&self, keep: &HashSet<ContentId>) {
        let mut held = self.held.lock();
        let blocks = held.blocks.iter().map(|(key, _)| *key);
        let gone: Vec<_> = blocks.filter(|(of, _)| !keep.contains(of)).collect();
        for key in gone {
            held.remove(&key);
        }
    }

    fn is_on_disk(&self) -> bool {
        false
    }

    fn usage(&self) -> CacheUsage {
        self.tally.usage(self.held.lock().bytes, self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Model, Op, content, one, ops, run};
    use super::*;
    use futures_util::FutureExt;
    use proptest::prelude::*;

    #[tokio::test]
    async fn the_least_recently_used_goes_first() {
        let cache = MemoryCache::new(2 * (1000 + OVERHEAD));
        for (block, byte) in [(0, 0u8), (1, 1)] {
            cache.put(&content(0), vec![run(block, vec![byte; 1000])]).await;
        }
        assert_eq!(cache.get(&content(0), 0..1).await.len(), 1);
        cache.put(&content(1), vec![run(0, vec![2; 1000])]).await;
        let found = cache.get(&content(0), 0..2).await;
        assert_eq!(found, [run(0, vec![0; 1000])]);
        assert_eq!(cache.missing(&content(0), 0..2).await, [1]);
        assert_eq!(cache.get(&content(1), 0..1).await.len(), 1);
        let usage = cache.usage();
        assert_eq!((usage.hits, usage.misses, usage.bytes), (3, 1, usage.cap));
    }

    proptest! {
        #[test]
        fn gives_what_was_put_and_stays_below_its_cap(cap in 0u64..40_000, ops in ops()) {
            let cache = MemoryCache::new(cap);
            let mut model = Model::default();
            for op in ops {
                match op {
                    Op::Put { content: id, block, bytes } => {
                        let bytes = model.put(id, block, bytes);
                        cache.put(&content(id), vec![run(block, bytes.clone())]).now_or_never().unwrap();
                        let fits = cost(&bytes) <= cap;
                        let found = one(cache.get(&content(id), block..block + 1).now_or_never().unwrap());
                        prop_assert_eq!(found, fits.then_some(bytes));
                    }
                    Op::Get { content: id, block } => {
                        let found = one(cache.get(&content(id), block..block + 1).now_or_never().unwrap());
                        prop_assert!(model.allows(id, block, found.as_ref()));
                    }
                    Op::Forget { content: id } => {
                        model.forget(id);
                        cache.forget(&content(id)).now_or_never().unwrap();
                    }
                    Op::Clear | Op::Reopen => {
                        model.clear();
                        cache.clear(&HashSet::new()).now_or_never().unwrap();
                        prop_assert_eq!(cache.usage().bytes, 0);
                    }
                }
                let held = cache.held.lock();
                prop_assert_eq!(held.bytes, held.blocks.iter().map(|(_, bytes)| cost(bytes)).sum::<u64>());
                prop_assert!(held.bytes <= cap);
            }
        }
    }
}
