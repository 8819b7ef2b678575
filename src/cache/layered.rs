//! A small fast cache before a large slow one.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;

use super::{BlockCache, CacheUsage, ContentId, FEW, Run, WholeFile, count};

/// Memory before disk: what was asked for by itself is read in many small pieces. What is read on in large ones is put
/// behind only, if there is room.
///
/// What is in front is behind as well, so bytes and cap are those behind. What comes from behind is not put in front: the
/// kernel keeps the disk's pages.
pub struct Layered {
    front: Arc<dyn BlockCache>,
    back: Arc<dyn BlockCache>,
}

impl Layered {
    pub fn new(front: Arc<dyn BlockCache>, back: Arc<dyn BlockCache>) -> Self {
        Self { front, back }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl BlockCache for Layered {
    async fn get(&self, content: &ContentId, blocks: Range<u64>) -> Vec<Run> {
        let mut found = self.front.get(content, blocks.clone()).await;
        for gap in gaps(&blocks, found.iter().flat_map(Run::blocks)) {
            found.extend(self.back.get(content, gap).await);
        }
        found.sort_unstable_by_key(|run| run.first);
        found
    }

    async fn missing(&self, content: &ContentId, blocks: Range<u64>) -> Vec<u64> {
        let mut missing = self.front.missing(content, blocks).await;
        if let (Some(first), Some(last)) = (missing.first(), missing.last()) {
            let behind = self.back.missing(content, *first..last + 1).await;
            missing.retain(|block| behind.binary_search(block).is_ok());
        }
        missing
    }

    async fn put(&self, content: &ContentId, runs: Vec<Run>) {
        if count(&runs) <= FEW {
            self.front.put(content, runs.clone()).await;
            self.back.put(content, runs).await;
            return;
        }
        self.back.put(content, runs.clone()).await;
        for run in runs {
            if !self.back.missing(content, run.blocks()).await.is_empty() {
                self.front.put(content, vec![run]).await;
            }
        }
    }

    async fn whole(&self, content: &ContentId, size: u64) -> Option<WholeFile> {
        match self.front.whole(content, size).await {
            Some(whole) => Some(whole),
            None => self.back.whole(content, size).await,
        }
    }

    async fn forget(&self, content: &ContentId) {
        self.front.forget(content).await;
        self.back.forget(content).await;
    }

    async fn clear(&self, keep: &HashSet<ContentId>) {
        self.front.clear(keep).await;
        self.back.clear(keep).await;
    }

    fn is_on_disk(&self) -> bool {
        self.back.is_on_disk()
    }

    fn usage(&self) -> CacheUsage {
        let (front, back) = (self.front.usage(), self.back.usage());
        CacheUsage {
            hits: front.hits + back.hits,
            ..back
        }
    }
}

/// The runs of blocks that are not among those, which are in order.
fn gaps(blocks: &Range<u64>, there: impl Iterator<Item = u64>) -> Vec<Range<u64>> {
    let mut gaps = Vec::new();
    let mut next = blocks.start;
    for block in there {
        if next < block {
            gaps.push(next..block);
        }
        next = block + 1;
    }
    if next < blocks.end {
        gaps.push(next..blocks.end);
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::super::testing::{content, run};
    use super::super::{BLOCK, MemoryCache};
    use super::*;

    #[tokio::test]
    async fn what_fell_out_in_front_comes_from_behind() {
        let (front, back) = (Arc::new(MemoryCache::new(2400)), Arc::new(MemoryCache::new(1 << 20)));
        let cache = Layered::new(front.clone(), back.clone());
        let block = |number: u8| run(number.into(), vec![number; 1000]);
        let all: Vec<Run> = (0..4).map(block).collect();
        cache.put(&content(0), all.clone()).await;
        assert_eq!(front.missing(&content(0), 0..4).await, [0, 1]);
        assert_eq!(cache.get(&content(0), 0..6).await, all);
        assert_eq!(cache.missing(&content(0), 0..6).await, [4, 5]);
        assert_eq!((back.usage().hits, front.usage().hits), (2, 2));
        let usage = cache.usage();
        assert_eq!((usage.hits, usage.misses, usage.cap), (4, 2, 1 << 20));
        cache.forget(&content(0)).await;
        assert!(cache.get(&content(0), 0..6).await.is_empty());
    }

    #[tokio::test]
    async fn what_is_read_on_in_large_pieces_is_behind_only() {
        let (front, back) = (Arc::new(MemoryCache::new(1 << 20)), Arc::new(MemoryCache::new(1 << 20)));
        let cache = Layered::new(front.clone(), back.clone());
        let zeros = |blocks: u64| vec![0; (blocks * BLOCK) as usize];
        cache.put(&content(0), vec![run(0, zeros(4))]).await;
        cache.put(&content(0), vec![run(4, zeros(5))]).await;
        let all = [0, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(front.missing(&content(0), 0..9).await, all[4..]);
        assert!(back.missing(&content(0), 0..9).await.is_empty());
    }

    #[test]
    fn gaps_are_what_is_between() {
        assert_eq!(gaps(&(0..6), [1, 2, 4].into_iter()), [0..1, 3..4, 5..6]);
        assert_eq!(gaps(&(3..5), [].into_iter()), [3..5]);
        assert!(gaps(&(3..5), [3, 4].into_iter()).is_empty());
    }
}
