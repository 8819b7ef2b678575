//! A small fast cache before a large slow one.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{BlockCache, CacheUsage, ContentId};

/// Memory before disk: a block that is read in many small pieces is read from disk and checked once.
///
/// What is in front is behind as well, so bytes and cap are those behind.
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
    async fn get(&self, content: &ContentId, block: u64) -> Option<Bytes> {
        if let Some(bytes) = self.front.get(content, block).await {
            return Some(bytes);
        }
        let bytes = self.back.get(content, block).await?;
        self.front.put(content, block, bytes.clone()).await;
        Some(bytes)
    }

    async fn put(&self, content: &ContentId, block: u64, bytes: Bytes) {
        self.front.put(content, block, bytes.clone()).await;
        self.back.put(content, block, bytes).await;
    }

    async fn forget(&self, content: &ContentId) {
        self.front.forget(content).await;
        self.back.forget(content).await;
    }

    async fn clear(&self) {
        self.front.clear().await;
        self.back.clear().await;
    }

    fn usage(&self) -> CacheUsage {
        let (front, back) = (self.front.usage(), self.back.usage());
        CacheUsage {
            hits: front.hits + back.hits,
            ..back
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryCache;
    use super::super::testing::content;
    use super::*;

    #[tokio::test]
    async fn what_fell_out_in_front_comes_back_from_behind_once() {
        let (front, back) = (Arc::new(MemoryCache::new(2000)), Arc::new(MemoryCache::new(1 << 20)));
        let cache = Layered::new(front.clone(), back.clone());
        for block in 0..3 {
            cache.put(&content(0), block, vec![block as u8; 1000].into()).await;
        }
        for _ in 0..2 {
            assert_eq!(cache.get(&content(0), 0).await.unwrap()[0], 0);
        }
        assert_eq!((back.usage().hits, front.usage().hits), (1, 1));
        let usage = cache.usage();
        assert_eq!((usage.hits, usage.misses, usage.cap), (2, 0, 1 << 20));
        cache.forget(&content(0)).await;
        assert!(cache.get(&content(0), 0).await.is_none());
    }
}
