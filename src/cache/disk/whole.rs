//! Versions of which every byte is on disk, for readers that read the file itself: the kernel.

use std::fs::File;
use std::sync::Arc;

use super::{ContentId, Disk, WholeFile};

/// What may be held as a whole at most, as a part of the cap: the rest stays for what is read otherwise.
const HELD_PART: u64 = 2;

/// Opens the file of a version if all of it is there, and keeps it as it is until what is given is dropped.
pub(super) fn hold(disk: &Arc<Disk>, content: &ContentId, size: u64) -> Option<WholeFile> {
    {
        let mut index = disk.index.lock();
        let limit = disk.cap / HELD_PART;
        let held = index.held_bytes;
        let kept = index.versions.get_mut(content)?;
        if !kept.is_whole(size) {
            return None;
        }
        let more = if kept.holds == 0 { kept.bytes } else { 0 };
        if held + more > limit {
            return None;
        }
        kept.holds += 1;
        kept.pins += 1;
        index.held_bytes += more;
    }
    let hold = Hold {
        disk: Arc::clone(disk),
        content: *content,
    };
    // Somebody may have put another file in its place.
    let file = File::open(disk.folder.data(content)).ok()?;
    let is_whole = file.metadata().is_ok_and(|metadata| metadata.len() == size);
    is_whole.then(|| WholeFile {
        file,
        _hold: Box::new(hold),
    })
}

struct Hold {
    disk: Arc<Disk>,
    content: ContentId,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let (disk, content) = (Arc::clone(&self.disk), self.content);
        let let_go = move || {
            let mut index = disk.index.lock();
            if let Some(kept) = index.versions.peek_mut(&content) {
                kept.holds -= 1;
                let less = if kept.holds == 0 { kept.bytes } else { 0 };
                index.held_bytes -= less;
            }
            disk.unpin(&mut index, &content);
        };
        // The lock may be held by somebody who waits for the disk.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(let_go)),
            Err(_) => let_go(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::super::{DiskCache, PIECEWISE_ABOVE};
    use super::*;
    use crate::cache::testing::{content, run};
    use crate::cache::{BLOCK, BlockCache, Run, count};

    const SIZE: u64 = 2 * BLOCK + 5;

    fn all() -> Run {
        let lengths = [BLOCK, BLOCK, 5];
        run(0, lengths.map(|len| vec![len as u8; len as usize]).concat())
    }

    /// With nobody beside it who counts what is there, and has the folder for as long as that takes.
    fn open(folder: &std::path::Path, cap: u64) -> DiskCache {
        let disk = Disk::open(folder, cap, PIECEWISE_ABOVE).unwrap();
        disk.take_over();
        DiskCache(Arc::new(disk))
    }

    #[tokio::test]
    async fn all_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let cache = open(folder.path(), 1 << 30);
        let mut rest = all().bytes;
        let first = rest.split_to(BLOCK as usize);
        assert!(cache.whole(&content(1), SIZE).await.is_none());
        cache.put(&content(1), vec![run(1, rest)]).await;
        assert!(cache.whole(&content(1), SIZE).await.is_none());
        cache.put(&content(1), vec![run(0, first)]).await;
        assert!(cache.whole(&content(1), SIZE + BLOCK).await.is_none());
        let whole = cache.whole(&content(1), SIZE).await.unwrap();
        let mut bytes = Vec::new();
        whole.file().read_to_end(&mut bytes).unwrap();
        assert!(bytes == all().bytes);
    }

    #[tokio::test]
    async fn what_an_earlier_run_left_is_looked_at_first() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path(), 1 << 30).put(&content(1), vec![all()]).await;
        let cache = open(folder.path(), 1 << 30);
        assert!(cache.whole(&content(1), SIZE).await.is_none());
        assert_eq!(count(&cache.get(&content(1), 0..2).await), 2);
        assert!(
            cache.whole(&content(1), SIZE).await.is_none(),
            "the last one may be torn"
        );
        assert_eq!(count(&cache.get(&content(1), 0..3).await), 3);
        assert!(cache.whole(&content(1), SIZE).await.is_some());
    }

    #[tokio::test]
    async fn nothing_is_taken_from_what_is_held_and_the_cap_holds() {
        let folder = tempfile::tempdir().unwrap();
        let cap = 12 * BLOCK;
        let cache = open(folder.path(), cap);
        cache.put(&content(0), vec![all()]).await;
        let held = cache.whole(&content(0), SIZE).await.unwrap();
        for other in 1..20 {
            cache.put(&content(other), vec![all()]).await;
            assert!(cache.usage().bytes <= cap);
        }
        cache.forget(&content(0)).await;
        let mut bytes = Vec::new();
        held.file().read_to_end(&mut bytes).unwrap();
        assert!(bytes == all().bytes);
        assert!(cache.whole(&content(0), SIZE).await.is_none(), "it leaves");
        assert!(cache.whole(&content(19), SIZE).await.is_some());
        drop(held);
        cache
            .run(|disk| assert!(disk.index.lock().held_bytes < 8 * BLOCK))
            .await;
    }

    #[tokio::test]
    async fn the_larger_part_is_not_held() {
        let folder = tempfile::tempdir().unwrap();
        let cache = open(folder.path(), 12 * BLOCK);
        let mut held = Vec::new();
        for number in 0..4 {
            cache.put(&content(number), vec![all()]).await;
            held.extend(cache.whole(&content(number), SIZE).await);
        }
        assert_eq!(held.len(), 2);
        assert!(
            cache.whole(&content(0), SIZE).await.is_some(),
            "once more costs nothing"
        );
    }
}
