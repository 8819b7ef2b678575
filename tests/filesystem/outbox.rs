//! What `close` promised holds: when the provider is away, when the daemon is killed, when somebody else was faster.

use std::sync::Arc;

use bytes::Bytes;
use keymount::fs::{Access, Ino, RenameMode, Resumed};
use keymount::model::ErrorKind;
use keymount::provider::faulty::{Fault, Gate, Operation, Times};

use crate::support::{Fixture, os};

fn text(it: &Fixture, path: &str) -> Option<String> {
    let bytes = it.store.content(path)?;
    Some(String::from_utf8(bytes.to_vec()).unwrap())
}

fn everything_is_away(it: &Fixture, kind: ErrorKind) {
    for operation in [
        Operation::Probe,
        Operation::Lookup,
        Operation::Stat,
        Operation::List,
        Operation::Read,
        Operation::CreateDirectory,
        Operation::Upload,
        Operation::RemoveFile,
        Operation::RemoveDirectory,
        Operation::Rename,
    ] {
        it.provider.inject(operation, Times::Always, Fault::Fail(kind));
    }
}

#[tokio::test(start_paused = true)]
async fn close_returns_before_the_provider_has_it_and_reads_see_it_at_once() {
    let it = Fixture::in_background();
    let gate = Gate::new();
    it.provider
        .inject(Operation::Upload, Times::Next(1), Fault::Stall(gate.clone()));
    it.write("a", b"text").await;
    assert_eq!(it.read("a").await, b"text");
    assert_eq!(text(&it, "a"), None);
    gate.open();
    it.sent().await;
    assert_eq!(text(&it, "a").as_deref(), Some("text"));
    assert_eq!(it.read("a").await, b"text");
    assert_eq!(
        it.staging().read_dir().unwrap().count(),
        1,
        "only the daemon's own folder"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_written_while_the_provider_is_away_is_sent_when_it_is_back() {
    for kind in [ErrorKind::Unreachable, ErrorKind::TimedOut, ErrorKind::NeedsLogin] {
        let it = Fixture::in_background();
        it.write("known", b"old").await;
        it.sent().await;
        assert_eq!(it.read("known").await, b"old");
        it.names(Ino::ROOT).await;
        everything_is_away(&it, kind);
        it.write("known", b"new").await;
        it.write("fresh", b"text").await;
        assert_eq!(it.read("known").await, b"new", "{kind:?}");
        assert_eq!(it.read("fresh").await, b"text");
        assert_eq!(it.names(Ino::ROOT).await, ["fresh", "known"]);
        assert_eq!(it.fs.pending().len(), 2);
        it.provider.heal();
        it.sent().await;
        assert_eq!(text(&it, "known").as_deref(), Some("new"));
        assert_eq!(text(&it, "fresh").as_deref(), Some("text"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_killed_daemons_files_are_there_after_the_next_mount_and_then_at_the_provider() {
    let it = Fixture::in_background();
    it.write("changed", b"old").await;
    let folder = it.fs.make_directory(Ino::ROOT, os("d"), 0o755, 0).await.unwrap().keep();
    it.sent().await;
    it.provider
        .inject(Operation::Upload, Times::Always, Fault::Fail(ErrorKind::Unreachable));
    it.write("changed", b"newer").await;
    it.write("made", b"text").await;
    let (_, opened) = it
        .fs
        .create(folder.attributes.ino, os("below"), Access::Write, 0o700, 0)
        .await
        .unwrap();
    it.fs
        .write(opened.handle, Some(0), Bytes::from_static(b"deep"))
        .await
        .unwrap();
    it.fs.flush(opened.handle).await.unwrap();

    let (it, resumed) = it.killed().mounted_again().await;
    assert_eq!(
        resumed,
        Resumed {
            files: 3,
            ..Resumed::default()
        }
    );
    assert_eq!(it.read("changed").await, b"newer");
    assert_eq!(it.read("made").await, b"text");
    it.sent().await;
    assert_eq!(text(&it, "changed").as_deref(), Some("newer"));
    assert_eq!(text(&it, "made").as_deref(), Some("text"));
    assert_eq!(text(&it, "d/below").as_deref(), Some("deep"));
    let found = it.fs.lookup(it.ino("d").await, os("below")).await.unwrap();
    assert_eq!(found.attributes.mode, 0o700, "what was set here is kept too");
    let (_, resumed) = it.killed().mounted_again().await;
    assert_eq!(resumed, Resumed::default());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_closed_is_saved_and_not_sent() {
    let it = Fixture::in_background();
    let (_, opened) = it
        .fs
        .create(Ino::ROOT, os("half"), Access::Write, 0o644, 0)
        .await
        .unwrap();
    it.fs
        .write(opened.handle, Some(0), Bytes::from_static(b"half of it"))
        .await
        .unwrap();
    let wreck = it.killed();
    let (it, resumed) = wreck.mounted_again().await;
    assert_eq!(
        resumed,
        Resumed {
            saved: 1,
            ..Resumed::default()
        }
    );
    assert_eq!(it.names(Ino::ROOT).await, [""; 0]);
    let saved = it.state_database().with_file_name("unsent").join("half");
    assert_eq!(std::fs::read(saved).unwrap(), b"half of it");
}

#[tokio::test(start_paused = true)]
async fn an_upload_whose_answer_was_lost_is_not_made_twice() {
    let it = Fixture::in_background();
    it.provider.inject(
        Operation::Upload,
        Times::Next(1),
        Fault::FailAfterEffect(ErrorKind::Unreachable),
    );
    it.write("a", b"text").await;
    it.sent().await;
    assert_eq!(it.names(Ino::ROOT).await, ["a"]);
    assert_eq!(text(&it, "a").as_deref(), Some("text"));
}

#[tokio::test(start_paused = true)]
async fn a_kill_between_the_upload_and_the_journal_makes_no_second_file() {
    let it = Fixture::in_background();
    it.write("a", b"one").await;
    it.sent().await;
    let gate = Gate::new();
    it.provider
        .inject(Operation::Upload, Times::Next(1), Fault::StallAnswer(gate.clone()));
    it.write("a", b"two").await;
    gate.reached(1).await;
    let (it, resumed) = it.killed().mounted_again().await;
    assert_eq!(resumed.files, 1);
    it.sent().await;
    assert_eq!(it.names(Ino::ROOT).await, ["a"]);
    assert_eq!(text(&it, "a").as_deref(), Some("two"));
}

#[tokio::test(start_paused = true)]
async fn both_versions_are_kept_when_somebody_else_was_faster() {
    let it = Fixture::in_background();
    it.write("a.txt", b"base").await;
    it.sent().await;
    let gate = Gate::new();
    it.provider
        .inject(Operation::Upload, Times::Next(1), Fault::Stall(gate.clone()));
    it.write("a.txt", b"mine").await;
    it.write("b.txt", b"my new one").await;
    it.store.put("a.txt", "theirs").unwrap();
    it.store.put("b.txt", "their new one").unwrap();
    gate.open();
    it.sent().await;
    let names = it.names(Ino::ROOT).await;
    assert_eq!(names.len(), 4, "{names:?}");
    for (name, theirs, mine) in [("a", "theirs", "mine"), ("b", "their new one", "my new one")] {
        assert_eq!(text(&it, &format!("{name}.txt")).as_deref(), Some(theirs));
        let aside = names
            .iter()
            .find(|found| found.starts_with(&format!("{name} (conflict from ")) && found.ends_with(").txt"))
            .unwrap_or_else(|| panic!("{names:?}"));
        assert_eq!(text(&it, aside).as_deref(), Some(mine));
        assert_eq!(it.read(&format!("{name}.txt")).await, theirs.as_bytes());
        assert_eq!(it.read(aside).await, mine.as_bytes());
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_removed_elsewhere_and_changed_here_stays() {
    let it = Fixture::in_background();
    it.write("a", b"base").await;
    it.sent().await;
    let gate = Gate::new();
    it.provider
        .inject(Operation::Upload, Times::Next(1), Fault::Stall(gate.clone()));
    it.write("a", b"mine").await;
    it.store.remove("a").unwrap();
    gate.open();
    it.sent().await;
    assert_eq!(text(&it, "a").as_deref(), Some("mine"));
    assert_eq!(it.names(Ino::ROOT).await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn new_files_their_renames_and_their_removal_cost_no_request_while_unsent() {
    let it = Fixture::in_background();
    let gate = Gate::new();
    // The queue is kept busy, so that what comes later stays unsent.
    it.provider
        .inject(Operation::Upload, Times::Next(4), Fault::Stall(gate.clone()));
    for name in ["busy1", "busy2", "busy3", "busy4"] {
        it.write(name, b"x").await;
    }
    gate.reached(4).await;
    it.write("temporary", b"draft").await;
    it.write("gone", b"nothing").await;
    let changes = |it: &Fixture| {
        it.provider.calls(Operation::Upload)
            + it.provider.calls(Operation::Rename)
            + it.provider.calls(Operation::RemoveFile)
    };
    let before = changes(&it);
    it.fs
        .rename(
            (Ino::ROOT, os("temporary")),
            (Ino::ROOT, os("final")),
            RenameMode::Replace,
        )
        .await
        .unwrap();
    it.fs.unlink(Ino::ROOT, os("gone")).await.unwrap();
    assert_eq!(changes(&it), before);
    let wreck = {
        gate.open();
        it.sent().await;
        assert_eq!(text(&it, "final").as_deref(), Some("draft"));
        assert_eq!(it.store.content("temporary"), None);
        assert_eq!(it.store.content("gone"), None);
        assert_eq!(changes(&it), before + 1);
        it.killed()
    };
    let (_, resumed) = wreck.mounted_again().await;
    assert_eq!(resumed, Resumed::default());
}

#[tokio::test(start_paused = true)]
async fn a_rename_of_a_directory_takes_the_journal_along() {
    let it = Fixture::in_background();
    let folder = it
        .fs
        .make_directory(Ino::ROOT, os("old"), 0o755, 0)
        .await
        .unwrap()
        .keep();
    it.provider
        .inject(Operation::Upload, Times::Always, Fault::Fail(ErrorKind::Unreachable));
    let (_, opened) = it
        .fs
        .create(folder.attributes.ino, os("a"), Access::Write, 0o644, 0)
        .await
        .unwrap();
    it.fs
        .write(opened.handle, Some(0), Bytes::from_static(b"text"))
        .await
        .unwrap();
    it.fs.flush(opened.handle).await.unwrap();
    it.close(opened.handle).await;
    it.fs
        .rename((Ino::ROOT, os("old")), (Ino::ROOT, os("new")), RenameMode::Replace)
        .await
        .unwrap();
    let (it, resumed) = it.killed().mounted_again().await;
    assert_eq!(resumed.files, 1);
    it.sent().await;
    assert_eq!(text(&it, "new/a").as_deref(), Some("text"));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_stays_readable_and_is_sent_when_there_is_room() {
    let it = Fixture::in_background();
    it.store.set_quota(Some(3));
    it.write("large", b"more than three bytes").await;
    // Let the attempt come back.
    while it.provider.calls(Operation::Upload) == 0 || it.fs.pending()[0].error.is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(it.read("large").await, b"more than three bytes");
    assert!(
        it.fs.pending()[0].error.as_ref().unwrap().contains("full"),
        "{:?}",
        it.fs.pending()
    );
    it.store.set_quota(None);
    it.fs.retry_pending();
    it.sent().await;
    assert_eq!(text(&it, "large").as_deref(), Some("more than three bytes"));
}

#[tokio::test(start_paused = true)]
async fn fsync_waits_for_the_provider_and_says_when_it_has_not() {
    let it = Fixture::in_background();
    let (_, opened) = it.fs.create(Ino::ROOT, os("a"), Access::Write, 0o644, 0).await.unwrap();
    it.fs
        .write(opened.handle, Some(0), Bytes::from_static(b"text"))
        .await
        .unwrap();
    it.provider
        .inject(Operation::Upload, Times::Next(1), Fault::Fail(ErrorKind::Denied));
    assert_eq!(it.fs.fsync(opened.handle).await.unwrap_err().kind(), ErrorKind::Denied);
    it.fs.fsync(opened.handle).await.unwrap();
    assert_eq!(text(&it, "a").as_deref(), Some("text"));
}

#[tokio::test(start_paused = true)]
async fn two_daemons_leave_each_others_files_alone() {
    let it = Arc::new(Fixture::in_background());
    let gate = Gate::new();
    it.provider
        .inject(Operation::Upload, Times::Always, Fault::Stall(gate.clone()));
    it.write("mine", b"text").await;
    let other = it.remount();
    let unsent = other.state_database().with_file_name("unsent");
    assert_eq!(other.fs.resume(&unsent).await.unwrap(), Resumed::default());
    assert_eq!(other.fs.pending().len(), 0);
    gate.open();
    it.sent().await;
    assert_eq!(other.read("mine").await, b"text");
}

/// Who unmounts must not wait for what cannot be.
#[tokio::test(start_paused = true)]
async fn draining_tells_what_the_provider_refused() {
    for kind in [ErrorKind::NeedsLogin, ErrorKind::Denied, ErrorKind::Unreachable] {
        let it = Fixture::in_background();
        it.provider.inject(Operation::Upload, Times::Always, Fault::Fail(kind));
        it.write("a", b"text").await;
        it.write("b", b"more").await;
        assert_eq!(it.fs.drain().await.unwrap_err().kind(), kind);
        let pending = it.fs.pending();
        assert!(
            pending.len() == 2 && pending.iter().all(|file| file.error.is_some()),
            "{pending:?}"
        );
        it.provider.heal();
        it.fs.drain().await.unwrap();
        assert!(it.fs.pending().is_empty());
        assert_eq!(text(&it, "a").as_deref(), Some("text"));
        assert_eq!(text(&it, "b").as_deref(), Some("more"));
    }
}
