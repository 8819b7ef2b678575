//! Changes that the provider tells of: seen at once, at no request while nobody looks, and again after failures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keymount::fs::{Ino, KernelCaches};
use keymount::model::ErrorKind;
use keymount::provider::faulty::Operation;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::kernel::open_emptied;
use crate::support::{Fixture, os};

const LONG: Duration = Duration::from_secs(3600);

/// Counts what the kernel is told to forget.
#[derive(Default)]
struct Kernel {
    attributes: AtomicU64,
    names: Mutex<Vec<String>>,
}

impl KernelCaches for Kernel {
    fn forget_attributes(&self, _: Ino) {
        self.attributes.fetch_add(1, Ordering::Relaxed);
    }

    fn forget_name(&self, _: Ino, name: &std::ffi::OsStr) {
        self.names.lock().push(name.to_string_lossy().into_owned());
    }

    fn forget_content(&self, _: Ino) {}
}

/// A file system that follows its provider, and is given up at the end.
struct Following {
    it: Fixture,
    kernel: Arc<Kernel>,
    task: JoinHandle<()>,
}

impl Following {
    fn with_ttl(ttl: Duration) -> Self {
        let it = Fixture::with_ttl(ttl);
        let kernel = Arc::new(Kernel::default());
        it.fs.connect_kernel(Arc::clone(&kernel) as _);
        let fs = Arc::clone(&it.fs);
        let task = tokio::spawn(async move { fs.follow_changes().await });
        Self { it, kernel, task }
    }

    /// Waits until the provider was asked for changes so often; the clock is the test's.
    async fn asked(&self, times: u64) {
        while self.it.store.feed_requests() < times {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Waits until the kernel was told to forget something more than so much.
    async fn forgotten(&self, before: u64) {
        while self.kernel.attributes.load(Ordering::Relaxed) <= before {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn what_others_change_is_seen_before_the_ttl_is_over() {
    let at = Following::with_ttl(LONG);
    let it = &at.it;
    it.store.put("d/old", "1").unwrap();
    it.store.put("elsewhere/x", "1").unwrap();
    let (d, elsewhere) = (it.ino("d").await, it.ino("elsewhere").await);
    assert_eq!(it.names(d).await, ["old"]);
    assert_eq!(it.names(elsewhere).await, ["x"]);
    let old = it.child(d, "old").await;
    at.asked(1).await;

    it.store.put("d/new", "2").unwrap();
    it.store.put("d/old", "longer").unwrap();
    at.asked(2).await;
    assert_eq!(it.names(d).await, ["new", "old"]);
    assert_eq!(it.fs.attributes(old).await.unwrap().attributes.size, 6);
    it.store.remove("d/new").unwrap();
    at.asked(3).await;
    assert_eq!(it.names(d).await, ["old"]);

    let listings = it.provider.calls(Operation::List);
    assert_eq!(it.names(elsewhere).await, ["x"]);
    assert_eq!(
        it.provider.calls(Operation::List),
        listings,
        "what nobody changed isn't asked for again"
    );
    while !at.kernel.names.lock().contains(&"old".to_owned()) {
        tokio::task::yield_now().await;
    }
    assert!(
        !at.kernel.names.lock().contains(&"d".to_owned()),
        "somebody may be in the directory"
    );
    assert!(at.kernel.attributes.load(Ordering::Relaxed) > 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_while_nobody_relies_on_anything() {
    let at = Following::with_ttl(Duration::from_secs(10));
    at.it.store.put("f", "1").unwrap();
    tokio::time::sleep(LONG).await;
    assert_eq!(at.it.store.feed_requests(), 0);
    at.it.names(Ino::ROOT).await;
    at.asked(1).await;
    tokio::time::sleep(LONG).await;
    let asked = at.it.store.feed_requests();
    tokio::time::sleep(LONG).await;
    assert_eq!(
        at.it.store.feed_requests(),
        asked,
        "what was listed is too old to rely on"
    );

    let never = Following::with_ttl(Duration::ZERO);
    never.it.store.put("f", "1").unwrap();
    never.it.names(Ino::ROOT).await;
    tokio::time::sleep(LONG).await;
    assert_eq!(never.it.store.feed_requests(), 0, "everything is asked for anyway");
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_fails_is_asked_again_with_longer_and_longer_pauses() {
    let at = Following::with_ttl(LONG * 24);
    at.it.names(Ino::ROOT).await;
    at.asked(1).await;
    let mut pauses = Vec::new();
    for n in 1..=12 {
        let start = tokio::time::Instant::now();
        at.it.store.fail_feeds(ErrorKind::Unreachable);
        at.asked(n + 1).await;
        pauses.push(start.elapsed().as_secs());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    at.it.store.put("f", "1").unwrap();
    at.forgotten(0).await;
    assert_eq!(at.it.names(Ino::ROOT).await, ["f"]);
    at.asked(14).await;
    let start = tokio::time::Instant::now();
    at.it.store.fail_feeds(ErrorKind::RateLimited {
        retry_after: Some(Duration::from_secs(50)),
    });
    at.asked(15).await;
    assert_eq!(start.elapsed().as_secs(), 50, "the provider's own word counts more");
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_missed_something_doubts_everything() {
    let at = Following::with_ttl(LONG);
    let it = &at.it;
    it.store.put("d/f", "1").unwrap();
    let d = it.ino("d").await;
    assert_eq!(it.names(d).await, ["f"]);
    at.asked(1).await;
    for n in 0..200 {
        it.store.put(&format!("many/{n}"), "x").unwrap();
    }
    let listings = it.provider.calls(Operation::List);
    at.forgotten(0).await;
    it.names(d).await;
    assert_eq!(it.provider.calls(Operation::List), listings + 1);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_tells_nothing_is_left_alone() {
    let at = Following::with_ttl(LONG);
    at.it.names(Ino::ROOT).await;
    at.asked(1).await;
    at.it.store.fail_feeds(ErrorKind::Unsupported);
    while !at.task.is_finished() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn changes_that_are_not_sent_yet_survive_the_news() {
    let at = Following::with_ttl(LONG);
    let it = &at.it;
    it.store.put("f", "theirs").unwrap();
    assert_eq!(it.names(Ino::ROOT).await, ["f"]);
    at.asked(1).await;
    let ino = it.ino("f").await;
    let opened = open_emptied(&it.fs, ino, keymount::fs::Access::ReadWrite)
        .await
        .unwrap();
    it.fs
        .write(opened.handle, Some(0), bytes::Bytes::from_static(b"mine"))
        .await
        .unwrap();
    it.store.put("other", "x").unwrap();
    at.forgotten(0).await;
    assert_eq!(it.fs.read(opened.handle, 0, 100).await.unwrap(), "mine");
    assert_eq!(it.names(Ino::ROOT).await, ["f", "other"]);
    assert_eq!(
        it.fs.lookup(Ino::ROOT, os("f")).await.unwrap().attributes.ino,
        ino,
        "the file is the same one"
    );
    it.fs.flush(opened.handle).await.unwrap();
    it.close(opened.handle).await;
    assert_eq!(it.store.content("f").unwrap(), "mine");
}
