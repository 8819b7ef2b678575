//! What a mount shows of what a former one knew, and what it never shows.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use keymount::fs::{Access, Ino, KernelCaches};
use keymount::model::{ErrorKind, Rights};
use keymount::provider::Capabilities;
use keymount::provider::faulty::{Fault, Gate, Operation, Times};
use keymount::provider::memory::{Memory, Options};
use parking_lot::Mutex;

use crate::support::{Fixture, os};

const MINUTE: Duration = Duration::from_secs(60);

fn mounted() -> Fixture {
    Fixture::with_ttl(MINUTE).keeping("me")
}

impl Fixture {
    async fn unmounted(&self) {
        self.fs.write_kept().await;
    }

    fn mounted_again(&self) -> Fixture {
        self.remount().keeping("me")
    }

    /// From now on no listing is answered until the gate is opened.
    fn hold_listings(&self) -> Gate {
        let gate = Gate::new();
        let held = Fault::Stall(gate.clone());
        self.provider.inject(Operation::List, Times::Always, held);
        gate
    }

    async fn until_asked(&self, operation: Operation, times: u64) {
        while self.provider.calls(operation) < times {
            tokio::task::yield_now().await;
        }
    }
}

/// What the kernel was told to forget.
#[derive(Default)]
struct Notices(Mutex<BTreeSet<String>>);

impl KernelCaches for Notices {
    fn forget_attributes(&self, ino: Ino) {
        self.0.lock().insert(format!("attributes {}", ino.0));
    }

    fn forget_name(&self, parent: Ino, name: &OsStr) {
        self.0.lock().insert(format!("{} {}", parent.0, name.display()));
    }

    fn forget_content(&self, ino: Ino) {
        self.0.lock().insert(format!("content {}", ino.0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_tree_is_shown_at_once_after_a_remount_and_asked_for_once() {
    let it = mounted();
    for directory in 0..10 {
        for file in 0..10 {
            it.store.put(&format!("d{directory}/f{file}"), "x").unwrap();
        }
    }
    let walk = async |it: &Fixture| {
        let mut seen = Vec::new();
        for directory in it.names(Ino::ROOT).await {
            let names = it.names(it.ino(&directory).await).await;
            seen.extend(names.into_iter().map(|name| format!("{directory}/{name}")));
        }
        seen
    };
    let cold = walk(&it).await;
    assert_eq!((cold.len(), it.provider.calls(Operation::List)), (100, 11));
    it.unmounted().await;

    let it = it.mounted_again();
    let gate = it.hold_listings();
    assert_eq!(walk(&it).await, cold, "nobody has answered yet");
    gate.open();
    it.until_asked(Operation::List, 11).await;
    assert_eq!(walk(&it).await, cold);
    assert_eq!(it.provider.all_calls(), 11, "each directory once, and nothing else");
}

#[tokio::test(start_paused = true)]
async fn what_others_did_meanwhile_is_seen_by_who_asks_for_it_and_told_to_the_kernel() {
    let it = mounted();
    for file in ["changed", "gone", "same"] {
        it.store.put(&format!("d/{file}"), "old").unwrap();
    }
    let directory = it.ino("d").await;
    it.names(directory).await;
    let former = it.child(directory, "changed").await;
    it.unmounted().await;
    it.store.put("d/changed", "newer").unwrap();
    it.store.put("d/added", "x").unwrap();
    it.store.remove("d/gone").unwrap();

    let it = it.mounted_again();
    let notices = Arc::new(Notices::default());
    it.fs.connect_kernel(Arc::clone(&notices) as Arc<dyn KernelCaches>);
    let directory = it.ino("d").await;
    it.provider.reset_counts();
    let gate = it.hold_listings();
    assert_eq!(it.names(directory).await, ["changed", "gone", "same"]);
    let asking = async {
        let gone = it.fs.lookup(directory, os("gone")).await;
        assert_eq!(gone.unwrap_err().kind(), ErrorKind::NotFound);
        let changed = it.fs.lookup(directory, os("changed")).await.unwrap();
        assert_eq!(changed.attributes.size, 5);
        assert_eq!(it.fs.lookup(directory, os("added")).await.unwrap().attributes.size, 1);
    };
    tokio::join!(asking, async {
        gate.reached(1).await;
        gate.open();
    });
    assert_eq!(it.names(directory).await, ["added", "changed", "same"]);
    assert_eq!(it.provider.all_calls(), 1, "one listing answers all of it");
    let expected = ["added", "gone"].map(|name| format!("{} {name}", directory.0));
    let expected = BTreeSet::from_iter(
        expected
            .into_iter()
            .chain([format!("content {}", directory.0), format!("content {}", former.0)]),
    );
    for _ in 0..1_000 {
        if *notices.0.lock() == expected {
            return;
        }
        // The clock is the test's, so this costs no time.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(*notices.0.lock(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_file_is_opened_only_as_the_provider_has_it_now() {
    let it = mounted();
    it.store.put("d/file", "old").unwrap();
    it.store.put("d/gone", "old").unwrap();
    let directory = it.ino("d").await;
    it.names(directory).await;
    it.unmounted().await;

    let it = it.mounted_again();
    let directory = it.ino("d").await;
    let gate = it.hold_listings();
    let handle = it.fs.open_directory(directory).await.unwrap();
    let listed = it.fs.read_directory(handle, 0).await.unwrap();
    // As `readdirplus` gives them to the kernel.
    let entries = listed.iter().skip(2).map(|entry| {
        let (found, reference) = it.fs.listed_attributes(directory, entry, None).unwrap();
        assert_eq!(
            found.ttl,
            Duration::ZERO,
            "the kernel is to ask before it relies on a file"
        );
        reference.unwrap()
    });
    let [file, gone] = entries.collect::<Vec<_>>().try_into().unwrap();
    it.store.put("d/file", "newer").unwrap();
    it.store.remove("d/gone").unwrap();
    let opening = async {
        let missing = it.fs.open(gone.ino(), Access::Read).await;
        assert!(missing.is_err(), "nothing of it is shown");
        let looked = it.fs.lookup(directory, os("gone")).await;
        assert_eq!(looked.unwrap_err().kind(), ErrorKind::NotFound);
        let opened = it.fs.open(file.ino(), Access::Read).await.unwrap();
        assert_eq!(it.fs.read(opened.handle, 0, 100).await.unwrap(), "newer");
        it.close(opened.handle).await;
    };
    tokio::join!(opening, async {
        gate.reached(1).await;
        gate.open();
    });
    it.fs.close_directory(handle);
}

#[tokio::test(start_paused = true)]
async fn while_nobody_answers_after_a_remount_what_was_known_is_shown() {
    let it = mounted();
    it.store.put("d/file", "content").unwrap();
    let directory = it.ino("d").await;
    it.names(Ino::ROOT).await;
    it.names(directory).await;
    it.unmounted().await;
    for away in [ErrorKind::Unreachable, ErrorKind::NeedsLogin] {
        let it = it.mounted_again();
        for operation in [Operation::List, Operation::Lookup, Operation::Stat, Operation::Read] {
            it.provider.inject(operation, Times::Always, Fault::Fail(away));
        }
        let directory = it.ino("d").await;
        assert_eq!(it.names(directory).await, ["file"]);
        let file = it.fs.lookup(directory, os("file")).await.unwrap();
        assert_eq!(file.attributes.size, 7);
        let opened = it.fs.open(file.attributes.ino, Access::Read).await.unwrap();
        assert!(it.fs.read(opened.handle, 0, 10).await.is_err(), "it was never read");
        it.close(opened.handle).await;
        let absent = it.fs.lookup(directory, os("new")).await.unwrap_err();
        assert_eq!(absent.kind(), ErrorKind::NotFound, "so that it can be made");
    }
}

#[tokio::test]
async fn nobody_sees_what_another_credential_saw() {
    let it = mounted();
    it.store.put("secret", "x").unwrap();
    it.names(Ino::ROOT).await;
    it.unmounted().await;
    it.store.remove("secret").unwrap();
    let other = it.remount().keeping("somebody else");
    assert_eq!(other.names(Ino::ROOT).await, [""; 0]);
    assert_eq!(other.provider.calls(Operation::List), 1);
    it.store.set_rights("", Rights::READ).unwrap();
    let weaker = it.mounted_again();
    let gate = weaker.hold_listings();
    let (names, ()) = tokio::join!(weaker.names(Ino::ROOT), async {
        gate.reached(1).await;
        gate.open();
    });
    assert_eq!(names, [""; 0], "the same key with other rights");
}

#[tokio::test(start_paused = true)]
async fn what_was_made_here_is_shown_after_a_remount_and_after_a_crash() {
    let it = mounted();
    it.store.put("old", "x").unwrap();
    it.names(Ino::ROOT).await;
    it.unmounted().await;
    it.write("new", b"text").await;
    // Killed now: what was kept is gone, and the provider is asked.
    let killed = it.mounted_again();
    assert_eq!(killed.names(Ino::ROOT).await, ["new", "old"]);
    assert_eq!(killed.provider.calls(Operation::List), 1);
    it.unmounted().await;
    let it = it.mounted_again();
    let _gate = it.hold_listings();
    assert_eq!(it.names(Ino::ROOT).await, ["new", "old"]);
}

#[tokio::test(start_paused = true)]
async fn another_directory_under_an_old_name_shows_nothing_of_the_former_one() {
    let it = mounted();
    it.store.put("d/file", "x").unwrap();
    let directory = it.ino("d").await;
    it.names(directory).await;
    it.unmounted().await;
    let rename = it.fs.rename(
        (Ino::ROOT, os("d")),
        (Ino::ROOT, os("e")),
        keymount::fs::RenameMode::Replace,
    );
    rename.await.unwrap();
    it.fs.make_directory(Ino::ROOT, os("d"), 0o755, 0).await.unwrap();
    it.unmounted().await;
    let it = it.mounted_again();
    assert_eq!(it.names(it.ino("d").await).await, [""; 0]);
    assert_eq!(it.names(it.ino("e").await).await, ["file"]);
}

#[tokio::test]
async fn a_refresh_forgets_what_was_kept() {
    let it = mounted();
    it.store.put("d/old", "x").unwrap();
    it.names(it.ino("d").await).await;
    it.unmounted().await;
    it.store.remove("d/old").unwrap();
    let it = it.mounted_again();
    it.fs.refresh().await.unwrap();
    assert_eq!(it.names(it.ino("d").await).await, [""; 0]);
}

#[tokio::test]
async fn who_wants_every_answer_fresh_is_shown_nothing_old() {
    let it = Fixture::new().keeping("me");
    it.store.put("old", "x").unwrap();
    it.names(Ino::ROOT).await;
    it.unmounted().await;
    it.store.remove("old").unwrap();
    assert_eq!(it.mounted_again().names(Ino::ROOT).await, [""; 0]);
}

/// Else a walk through a large tree would use up what the service answers in a minute.
#[tokio::test(start_paused = true)]
async fn where_questions_are_few_not_all_that_a_walk_shows_is_asked_for_behind() {
    let defaults = Options::default();
    let store = Memory::new(Options {
        capabilities: Capabilities {
            lists_ahead: 1,
            ..defaults.capabilities
        },
        ..defaults
    });
    let it = Fixture::with_ttl_over(store, MINUTE).keeping("me");
    for directory in 0..30 {
        it.store.put(&format!("d{directory}/file"), "x").unwrap();
    }
    let walk = async |it: &Fixture| {
        for directory in it.names(Ino::ROOT).await {
            assert_eq!(it.names(it.ino(&directory).await).await, ["file"]);
        }
    };
    walk(&it).await;
    it.unmounted().await;

    let it = it.mounted_again();
    let gate = it.hold_listings();
    walk(&it).await;
    gate.open();
    it.until_asked(Operation::List, 8).await;
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(it.provider.calls(Operation::List), 8);
    // What somebody needs to know is asked for all the same.
    let last = it.ino("d9").await;
    assert_eq!(it.fs.lookup(last, os("file")).await.unwrap().attributes.size, 1);
    assert_eq!(it.provider.all_calls(), 9);
}
