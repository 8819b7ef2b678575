//! What can be answered without waiting for the disk or for a lock, on the thread that asks.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Blocks, ContentId, Disk, FEW, Fate, Index, Patience, Run, count, read_stretch, stretches};

impl Disk {
    /// What can be had without waiting for the disk or for a lock, of few blocks. `None` when that isn't all of what is
    /// there.
    pub(super) fn get_at_once(self: &Arc<Self>, content: &ContentId, wanted: &Range<u64>) -> Option<Vec<Run>> {
        if wanted.end - wanted.start > FEW as u64 {
            return None;
        }
        let records = {
            let mut index = self.index.try_lock()?;
            self.is_known(&index, content).then(|| index.pin(content, wanted))?
        };
        let mut found = Vec::with_capacity(records.len());
        let mut wrong = Vec::new();
        if !records.is_empty() {
            let read = self.files.opened(content).map(|file| {
                let mut all = stretches(&records);
                all.try_for_each(|stretch| read_stretch(&file, stretch, Patience::Never, &mut found, &mut wrong))
            });
            self.unpin_without_waiting(content, &found);
            if !matches!(read, Some(Ok(()))) || !wrong.is_empty() {
                return None;
            }
        }
        self.tally.count(wanted, count(&found));
        Some(found)
    }

    /// Whether the index says all about a version, without asking the disk.
    fn is_known(&self, index: &Index, content: &ContentId) -> bool {
        match index.versions.peek(content) {
            Some(kept) => matches!(kept.blocks, Blocks::Known(_)),
            None => self.counted.load(Ordering::Relaxed),
        }
    }

    fn unpin_without_waiting(self: &Arc<Self>, content: &ContentId, found: &[Run]) {
        let is_last = |index: &Index| {
            let kept = index.versions.peek(content);
            kept.is_some_and(|kept| kept.pins == 1 && kept.fate == Fate::Leaves)
        };
        match self.index.try_lock() {
            Some(mut index) if !is_last(&index) => {
                index.prove(content, found.iter().flat_map(Run::blocks));
                self.unpin(&mut index, content);
            }
            _ => {
                let (disk, content) = (Arc::clone(self), *content);
                tokio::task::spawn_blocking(move || disk.unpin(&mut disk.index.lock(), &content));
            }
        }
    }

    pub(super) fn missing_at_once(&self, content: &ContentId, wanted: &Range<u64>) -> Option<Vec<u64>> {
        let mut index = self.index.try_lock()?;
        self.is_known(&index, content).then(|| index.missing(content, wanted))
    }

    /// Whether it is worth the wait for the lock and the disk. Nothing waits here.
    pub(super) fn may_be_whole(&self, content: &ContentId, size: u64) -> bool {
        let Some(index) = self.index.try_lock() else {
            return true;
        };
        index.versions.peek(content).is_some_and(|kept| kept.is_whole(size))
    }
}
