//! For how long the kernel may believe that a name is free, and when it is told to forget that.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use keymount::fs::{Access, Ino, KernelCaches, Looked, RenameMode};
use keymount::model::{ErrorKind, Result, Special};
use keymount::provider::faulty::{Fault, Gate, Operation, Times};
use keymount::provider::memory::Memory;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::conflicts::{beat, beaten};
use crate::support::{Fixture, os};

const TTL: Duration = Duration::from_secs(10);

/// Which names the kernel was told to forget.
#[derive(Default)]
struct Kernel(Mutex<Vec<(Ino, String)>>);

impl KernelCaches for Kernel {
    fn forget_attributes(&self, _: Ino) {}

    fn forget_name(&self, parent: Ino, name: &OsStr) {
        self.0.lock().push((parent, name.to_string_lossy().into_owned()));
    }

    fn forget_content(&self, _: Ino) {}
}

/// A file system with a kernel.
struct Mounted {
    it: Fixture,
    kernel: Arc<Kernel>,
}

impl Mounted {
    fn over(it: Fixture) -> Self {
        it.store.put("sentinel/other", "x").unwrap();
        let kernel = Arc::new(Kernel::default());
        it.fs.connect_kernel(Arc::clone(&kernel) as _);
        Self { it, kernel }
    }

    fn new() -> Self {
        Self::over(Fixture::with_ttl(TTL))
    }

    /// The kernel asks for a name in the root; the provider has answered, and the answer waits at the gate.
    async fn looks_late(&self, name: &'static str) -> (Gate, JoinHandle<Result<Looked>>) {
        let gate = Gate::new();
        let late = Fault::StallAnswer(gate.clone());
        self.it.provider.inject(Operation::Lookup, Times::Next(1), late);
        let fs = Arc::clone(&self.it.fs);
        let looking = tokio::spawn(async move { fs.look(Ino::ROOT, os(name)).await });
        gate.reached(1).await;
        (gate, looking)
    }

    /// How long the kernel answers by itself that nothing is there, as from now on it does.
    async fn stays(&self, parent: Ino, name: &str) -> Duration {
        match self.it.fs.look(parent, os(name)).await {
            Ok(Looked::Missing { stays }) => stays,
            Ok(Looked::There(child)) => panic!("{name}: {child:?}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound, "{name}: {error}");
                Duration::ZERO
            }
        }
    }

    async fn believes(&self, parent: Ino, names: &[&str]) {
        for name in names {
            assert!(self.stays(parent, name).await > Duration::ZERO, "{name}");
        }
        self.kernel.0.lock().clear();
    }

    fn was_told(&self, parent: Ino, name: &str) -> bool {
        self.kernel.0.lock().contains(&(parent, name.to_owned()))
    }

    async fn is_told(&self, parent: Ino, name: &str) {
        while !self.was_told(parent, name) {
            tokio::task::yield_now().await;
        }
    }

    /// When the kernel knows all that it is to know so far.
    async fn settled(&self) {
        let sentinel = self.it.ino("sentinel").await;
        assert!(self.stays(sentinel, "name").await > Duration::ZERO);
        self.it.store.put("sentinel/name", "x").unwrap();
        self.it.names(sentinel).await;
        self.is_told(sentinel, "name").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_stays_missing_as_long_as_the_answer_counts() {
    let at = Mounted::new();
    assert_eq!(at.stays(Ino::ROOT, "a").await, TTL);
    at.it.names(Ino::ROOT).await;
    tokio::time::advance(Duration::from_secs(7)).await;
    for name in ["a", "b"] {
        assert_eq!(at.stays(Ino::ROOT, name).await, Duration::from_secs(3), "{name}");
    }
    tokio::time::advance(Duration::from_secs(3)).await;
    at.it.store.put("b", "x").unwrap();
    assert_eq!(at.stays(Ino::ROOT, "a").await, TTL, "it was asked again");
    let found = at.it.fs.look(Ino::ROOT, os("b")).await;
    assert!(matches!(found, Ok(Looked::There(_))), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_that_nobody_vouches_for() {
    let never = Mounted::over(Fixture::with_ttl(Duration::ZERO));
    assert_eq!(never.stays(Ino::ROOT, "a").await, Duration::ZERO);

    let without_kernel = Fixture::with_ttl(TTL);
    let nobody = without_kernel.fs.look(Ino::ROOT, os("a")).await;
    assert_eq!(nobody.map(drop).unwrap_err().kind(), ErrorKind::NotFound);

    let at = Mounted::new();
    at.it.names(Ino::ROOT).await;
    tokio::time::advance(TTL).await;
    let away = Fault::Fail(ErrorKind::Unreachable);
    at.it.provider.inject(Operation::Lookup, Times::Always, away);
    assert_eq!(at.stays(Ino::ROOT, "a").await, Duration::ZERO, "nobody answered");
    at.it.provider.heal();
    assert_eq!(
        at.stays(Ino::ROOT, "b").await,
        Duration::ZERO,
        "nobody answered just now"
    );
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(at.stays(Ino::ROOT, "a").await, TTL);
}

/// What is made while the answer is on its way counts more.
#[tokio::test]
async fn an_answer_from_before_a_change_is_not_relied_on() {
    for is_removed_again in [false, true] {
        let at = Mounted::new();
        let (gate, looking) = at.looks_late("a").await;
        at.it.write("a", b"x").await;
        if is_removed_again {
            at.it.fs.unlink(Ino::ROOT, os("a")).await.unwrap();
        }
        gate.open();
        match looking.await.unwrap() {
            Ok(Looked::Missing { stays }) => panic!("{stays:?}"),
            Ok(Looked::There(_)) => assert!(!is_removed_again),
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_found_to_be_there_is_told() {
    let at = Mounted::new();
    at.it.store.put("d/old", "x").unwrap();
    let d = at.it.ino("d").await;
    at.believes(Ino::ROOT, &["a"]).await;
    at.believes(d, &["new", "other"]).await;
    at.it.store.put("d/new", "x").unwrap();
    assert_eq!(at.it.names(d).await, ["new", "old"]);
    at.is_told(d, "new").await;
    at.settled().await;
    assert!(!at.was_told(d, "other") && !at.was_told(Ino::ROOT, "a"));

    // Somebody else than the kernel looks it up.
    at.it.store.put("a", "x").unwrap();
    at.it.child(Ino::ROOT, "a").await;
    at.is_told(Ino::ROOT, "a").await;
}

#[tokio::test(start_paused = true)]
async fn after_a_refresh_nothing_is_missing_any_more() {
    let at = Mounted::new();
    at.it.store.put("d/old", "x").unwrap();
    let d = at.it.ino("d").await;
    at.believes(Ino::ROOT, &["a"]).await;
    at.believes(d, &["b"]).await;
    at.it.fs.refresh().await.unwrap();
    assert!(at.was_told(Ino::ROOT, "a") && at.was_told(d, "b"));

    // What was asked before is not told after.
    let (gate, looking) = at.looks_late("a").await;
    tokio::time::advance(Duration::from_millis(1)).await;
    at.it.fs.refresh().await.unwrap();
    gate.open();
    let looked = looking.await.unwrap();
    assert_eq!(looked.map(drop).unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn changes_that_the_provider_tells_of_end_it() {
    let at = Mounted::over(Fixture::with_ttl(Duration::from_secs(3600)));
    let following = tokio::spawn({
        let fs = Arc::clone(&at.it.fs);
        async move { fs.follow_changes().await }
    });
    at.it.store.put("d/old", "x").unwrap();
    let d = at.it.ino("d").await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let asked = at.it.store.feed_requests();
    at.believes(d, &["new"]).await;
    // That something is missing is all that is relied on.
    while at.it.store.feed_requests() == asked {
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    at.it.store.put("d/new", "x").unwrap();
    at.is_told(d, "new").await;
    following.abort();
}

/// The kernel knows by the answer what it had made; a notice would take it out of the kernel's tree again.
#[tokio::test(start_paused = true)]
async fn what_the_kernel_has_made_it_is_not_told() {
    let at = Mounted::new();
    let fs = &at.it.fs;
    at.believes(Ino::ROOT, &["file", "directory", "link", "second", "node", "moved"])
        .await;
    let (_, opened) = at.it.begin(Ino::ROOT, "file", 0o644, b"x").await;
    fs.flush(opened.handle).await.unwrap();
    at.it.close(opened.handle).await;
    let directory = fs.make_directory(Ino::ROOT, os("directory"), 0o755, 0).await;
    drop(directory.unwrap());
    let target = Special::Symlink(b"file".as_slice().into());
    let link = fs.make_special(Ino::ROOT, os("link"), target, 0o777).await.unwrap();
    drop(fs.link(link.attributes.ino, Ino::ROOT, os("second")).await.unwrap());
    drop(fs.make_file(Ino::ROOT, os("node"), 0o644, 0).await.unwrap());
    let (from, to) = ((Ino::ROOT, os("file")), (Ino::ROOT, os("moved")));
    fs.rename(from, to, RenameMode::KeepExisting).await.unwrap();
    at.settled().await;
    let told: Vec<_> = at.kernel.0.lock().iter().map(|(_, name)| name.clone()).collect();
    assert_eq!(told, ["name"], "only the sentinel");
    assert!(
        at.stays(Ino::ROOT, "file").await > Duration::ZERO,
        "it has another name"
    );
    drop(fs.unlink(Ino::ROOT, os("moved")).await);
    assert!(at.stays(Ino::ROOT, "moved").await > Duration::ZERO);
}

#[tokio::test]
async fn what_the_kernel_could_not_have_made_it_looks_at_again() {
    let at = Mounted::new();
    at.it.store.put("file", "x").unwrap();
    at.it.names(Ino::ROOT).await;
    at.believes(Ino::ROOT, &["directory", "node", "moved"]).await;
    let failed = Fault::FailAfterEffect(ErrorKind::TimedOut);
    for operation in [Operation::CreateDirectory, Operation::Upload, Operation::Rename] {
        at.it.provider.inject(operation, Times::Always, failed.clone());
    }
    let fs = &at.it.fs;
    let made = fs.make_directory(Ino::ROOT, os("directory"), 0o755, 0).await;
    assert!(made.is_err());
    assert!(fs.make_file(Ino::ROOT, os("node"), 0o644, 0).await.is_err());
    let (from, to) = ((Ino::ROOT, os("file")), (Ino::ROOT, os("moved")));
    assert!(fs.rename(from, to, RenameMode::Replace).await.is_err());
    for name in ["directory", "node", "moved"] {
        at.is_told(Ino::ROOT, name).await;
    }
}

/// Whoever asked for it is gone when it is there.
#[tokio::test]
async fn what_was_given_up_is_looked_at_again() {
    let at = Mounted::new();
    at.believes(Ino::ROOT, &["directory"]).await;
    let gate = Gate::new();
    let late = Fault::StallAnswer(gate.clone());
    at.it.provider.inject(Operation::CreateDirectory, Times::Next(1), late);
    let making = tokio::spawn({
        let fs = Arc::clone(&at.it.fs);
        async move { fs.make_directory(Ino::ROOT, os("directory"), 0o755, 0).await }
    });
    gate.reached(1).await;
    making.abort();
    at.is_told(Ino::ROOT, "directory").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_put_beside_another_is_told() {
    let at = Mounted::over(Fixture::with_ttl_in_background(TTL));
    let it = &at.it;
    let gate = beat(it).await;
    // Found out where the names of conflicts are made: by making one.
    let (probe, held) = beaten().await;
    held.open();
    probe.sent().await;
    let names = probe.names(Ino::ROOT).await;
    let aside = names.iter().find(|name| name.contains("conflict")).unwrap();

    at.believes(Ino::ROOT, &[aside]).await;
    gate.open();
    at.is_told(Ino::ROOT, aside).await;
    it.sent().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_former_daemon_left_is_told() {
    let it = Fixture::with_ttl_in_background(TTL);
    let away = Fault::Fail(ErrorKind::Unreachable);
    it.provider.inject(Operation::Upload, Times::Always, away);
    it.write("left", b"x").await;
    let wreck = it.killed();
    let unsent = wreck.path("unsent");
    let at = Mounted::over(wreck.unmounted());
    at.believes(Ino::ROOT, &["left"]).await;
    assert_eq!(at.it.fs.resume(&unsent).await.unwrap().files, 1);
    at.is_told(Ino::ROOT, "left").await;
}

/// After a rename the directory's key is looked up anew, and with it what is missing there.
#[tokio::test(start_paused = true)]
async fn what_is_missing_in_a_directory_that_moves_is_looked_up_again() {
    let at = Mounted::over(Fixture::with_ttl_over(Memory::default(), TTL));
    at.it.store.put("d/e/f", "x").unwrap();
    let d = at.it.ino("d").await;
    let e = at.it.child(d, "e").await;
    at.believes(e, &["g"]).await;
    let (from, to) = ((Ino::ROOT, os("d")), (Ino::ROOT, os("moved")));
    at.it.fs.rename(from, to, RenameMode::KeepExisting).await.unwrap();
    at.is_told(e, "g").await;
}

#[tokio::test(start_paused = true)]
async fn no_more_names_are_told_than_are_remembered() {
    let at = Mounted::new();
    at.it.names(Ino::ROOT).await;
    let mut told = 0;
    while at.stays(Ino::ROOT, &format!("name {told}")).await > Duration::ZERO {
        told += 1;
        assert!(told <= 10_000);
    }
    assert!(told >= 1000, "{told}");
    assert!(at.stays(Ino::ROOT, "name 0").await > Duration::ZERO, "it is remembered");
    tokio::time::advance(TTL + Duration::from_secs(1)).await;
    at.it.names(Ino::ROOT).await;
    assert!(
        at.stays(Ino::ROOT, "another").await > Duration::ZERO,
        "there is room again"
    );
    let opened = at.it.fs.create(Ino::ROOT, os("late"), Access::Write, 0o644, 0).await;
    at.it.close(opened.unwrap().1.handle).await;
    assert!(matches!(
        at.it.fs.look(Ino::ROOT, os("late")).await,
        Ok(Looked::There(_))
    ));
}
