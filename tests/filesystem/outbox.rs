//! What `close` promised holds: when the provider is away, when the daemon is killed, when somebody else was faster.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keymount::fs::{Access, Ino, RenameMode, Resumed};
use keymount::model::ErrorKind;
use keymount::provider::faulty::{Fault, Gate, Operation, Times};
use keymount::state::StateDb;

use crate::kernel::open_emptied;
use crate::support::{Fixture, Wreck, os};

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
    let (_, opened) = it.begin(folder.attributes.ino, "below", 0o700, b"deep").await;
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
    let (_, _) = it.begin(Ino::ROOT, "half", 0o644, b"half of it").await;
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
    everything_is_away(&it, ErrorKind::Unreachable);
    assert_eq!(it.read("a").await, b"text", "it is in the cache");
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
    everything_is_away(&it, ErrorKind::Unreachable);
    assert_eq!(it.read("a").await, b"two", "it is in the cache");
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
        .inject(Operation::Upload, Times::Next(8), Fault::Stall(gate.clone()));
    for name in ["busy1", "busy2", "busy3", "busy4", "busy5", "busy6", "busy7", "busy8"] {
        it.write(name, b"x").await;
    }
    gate.reached(8).await;
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
    let (_, opened) = it.begin(folder.attributes.ino, "a", 0o644, b"text").await;
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
    let (_, opened) = it.begin(Ino::ROOT, "a", 0o644, b"text").await;
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

/// What `fsync` could not send stays and is sent though nobody closes it, also when somebody gave up waiting or the daemon
/// is killed.
#[tokio::test(start_paused = true)]
async fn what_fsync_did_not_send_is_sent_before_anybody_closes_it() {
    for fixture in [Fixture::new, Fixture::in_background] {
        for killed in [false, true] {
            for fault in [Fault::Fail(ErrorKind::Unreachable), Fault::Stall(Gate::new())] {
                let it = fixture();
                let (_, opened) = it.begin(Ino::ROOT, "a", 0o644, b"text").await;
                it.provider.inject(Operation::Upload, Times::Next(1), fault);
                let patience = Duration::from_secs(60);
                let synced = tokio::time::timeout(patience, it.fs.fsync(opened.handle)).await;
                assert!(!matches!(synced, Ok(Ok(()))));
                if killed {
                    let (it, resumed) = it.killed().mounted_again().await;
                    assert_eq!((resumed.files, resumed.saved), (1, 0));
                    it.sent().await;
                    assert_eq!(text(&it, "a").as_deref(), Some("text"));
                    continue;
                }
                it.fs.start_sending();
                it.sent().await;
                assert_eq!(text(&it, "a").as_deref(), Some("text"));
                it.fs.fsync(opened.handle).await.unwrap();
                it.close(opened.handle).await;
            }
        }
    }
}

/// A daemon that was killed with a new and a changed file in `d`, neither of which was sent.
async fn killed_with_two_below() -> Wreck {
    let it = Fixture::in_background();
    it.store.put("d/changed", "first").unwrap();
    let folder = it.ino("d").await;
    it.provider
        .inject(Operation::Upload, Times::Always, Fault::Fail(ErrorKind::Unreachable));
    write_below(&it, folder, "changed", b"second").await;
    write_below(&it, folder, "new", b"text").await;
    it.killed()
}

async fn write_below(it: &Fixture, folder: Ino, name: &str, bytes: &'static [u8]) {
    let opened = match it.fs.lookup(folder, os(name)).await {
        Ok(found) => {
            let opened = open_emptied(&it.fs, found.attributes.ino, Access::Write).await.unwrap();
            it.fs
                .write(opened.handle, Some(0), Bytes::from_static(bytes))
                .await
                .unwrap();
            opened
        }
        Err(_) => it.begin(folder, name, 0o644, bytes).await.1,
    };
    it.fs.flush(opened.handle).await.unwrap();
    it.close(opened.handle).await;
}

/// What each name below a directory of the provider has.
async fn contents(it: &Fixture, folder: &str) -> Vec<(String, String)> {
    let names = it.names(it.ino(folder).await).await;
    let content = |name: String| {
        let content = text(it, &format!("{folder}/{name}")).unwrap();
        (name, content)
    };
    names.into_iter().map(content).collect()
}

/// A service that is away for longer than anybody waits costs no file its place in the mount.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_taken_over_when_mounting_is_as_soon_as_the_provider_answers() {
    for kind in [ErrorKind::Unreachable, ErrorKind::Denied] {
        for asked_for in [false, true] {
            let wreck = killed_with_two_below().await;
            let away = |it: &Fixture| it.provider.inject(Operation::Lookup, Times::Always, Fault::Fail(kind));
            let (it, resumed) = wreck.mounted_while(away).await;
            assert_eq!(resumed, Resumed::default());
            tokio::time::sleep(Duration::from_secs(1000)).await;
            assert_eq!(it.fs.waiting(), 2, "whoever unmounts waits for them");
            assert!(it.fs.drain().await.is_err());
            let pending = it.fs.pending();
            let paths: Vec<&str> = pending.iter().map(|file| file.path.as_str()).collect();
            assert_eq!(paths, ["d/changed", "d/new"]);
            assert!(pending.iter().all(|file| file.bytes > 0 && file.error.is_some()));
            let journaled = StateDb::open(&it.state_database()).unwrap().journaled(None).unwrap();
            assert!(
                journaled.iter().all(|row| row.postponed.is_some()),
                "others are told, too"
            );

            it.provider.heal();
            let healed = tokio::time::Instant::now();
            if asked_for {
                it.fs.retry_pending();
            }
            it.sent().await;
            let most = if asked_for { 1 } else { 301 };
            assert!(
                healed.elapsed() < Duration::from_secs(most),
                "{kind:?}: {:?}",
                healed.elapsed()
            );
            let expected = [("changed", "second"), ("new", "text")].map(|(a, b)| (a.to_owned(), b.to_owned()));
            assert_eq!(contents(&it, "d").await, expected);
            assert_eq!(it.fs.left_over(), 0);
        }
    }
}

/// A path that was changed meanwhile has both contents, and none is taken over twice.
#[tokio::test(start_paused = true)]
async fn what_is_taken_over_late_takes_nothing_away_from_what_was_done_meanwhile() {
    for sent_before in [false, true] {
        let it = killed_with_two_below().await.unmounted();
        let unsent = it.state_database().with_file_name("unsent");
        it.provider
            .inject(Operation::Lookup, Times::Next(1), Fault::Fail(ErrorKind::Unreachable));
        assert_eq!(it.fs.resume(&unsent).await.unwrap(), Resumed::default());
        assert_eq!(it.fs.left_over(), 2);
        let folder = it.ino("d").await;
        write_below(&it, folder, "changed", b"third").await;
        write_below(&it, folder, "new", b"another").await;
        // Somebody is at it while the others are taken over.
        let open = it
            .fs
            .open(it.child(folder, "changed").await, Access::ReadWrite)
            .await
            .unwrap();
        if sent_before {
            for name in ["changed", "new"] {
                let ino = it.child(folder, name).await;
                let opened = it.fs.open(ino, Access::Write).await.unwrap();
                it.fs.fsync(opened.handle).await.unwrap();
                it.close(opened.handle).await;
            }
            assert_eq!(text(&it, "d/changed").as_deref(), Some("third"));
        }
        it.provider
            .inject(Operation::Upload, Times::Always, Fault::Fail(ErrorKind::Unreachable));
        assert_eq!(it.fs.resume(&unsent).await.unwrap().files, 2);
        assert_eq!(it.fs.left_over(), 0);
        assert_eq!(it.fs.resume(&unsent).await.unwrap(), Resumed::default(), "once");
        assert_eq!(it.fs.read(open.handle, 0, 100).await.unwrap(), "third");
        it.fs
            .write(open.handle, Some(5), Bytes::from_static(b"!"))
            .await
            .unwrap();
        it.fs.flush(open.handle).await.unwrap();
        it.close(open.handle).await;
        it.provider.heal();
        it.fs.start_sending();
        it.fs.retry_pending();
        it.sent().await;
        let found = contents(&it, "d").await;
        let of = |name: &str| found.iter().find(|(found, _)| found == name).unwrap().1.clone();
        assert_eq!((of("changed").as_str(), of("new").as_str()), ("third!", "another"));
        let mut beside: Vec<&str> = found
            .iter()
            .filter(|(name, _)| name.contains("conflict from"))
            .map(|(_, content)| content.as_str())
            .collect();
        beside.sort_unstable();
        assert_eq!(
            (beside.as_slice(), found.len()),
            (["second", "text"].as_slice(), 4),
            "{found:?}"
        );
        assert!(!unsent.exists());
    }
}

/// The directory of what is left over gets another name; so does what is taken over then.
#[tokio::test(start_paused = true)]
async fn what_is_taken_over_late_is_where_its_directory_is_by_then() {
    let it = killed_with_two_below().await.unmounted();
    let unsent = it.state_database().with_file_name("unsent");
    it.provider
        .inject(Operation::Lookup, Times::Next(1), Fault::Fail(ErrorKind::Unreachable));
    it.fs.resume(&unsent).await.unwrap();
    it.fs
        .rename((Ino::ROOT, os("d")), (Ino::ROOT, os("e")), RenameMode::Replace)
        .await
        .unwrap();
    it.fs.start_sending();
    it.sent().await;
    let expected = [("changed", "second"), ("new", "text")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(contents(&it, "e").await, expected);
}

/// Whoever makes many files in a directory that nobody has listed looks for each name first. While others are sent, the
/// listing that answers that is old as soon as it is here, and counts all the same, with what was sent since.
#[tokio::test(start_paused = true)]
async fn a_listing_counts_though_files_were_sent_while_it_was_on_its_way() {
    let it = Fixture::with_ttl_in_background(Duration::from_secs(10));
    it.store.put("theirs", "text").unwrap();
    for (operation, takes) in [(Operation::List, 20), (Operation::Lookup, 20), (Operation::Upload, 7)] {
        let delay = Fault::Delay(Duration::from_millis(takes));
        it.provider.inject(operation, Times::Always, delay);
    }
    for number in 0..200 {
        let (_, opened) = it.begin(Ino::ROOT, &format!("f{number}"), 0o644, b"text").await;
        it.fs.flush(opened.handle).await.unwrap();
        it.close(opened.handle).await;
    }
    for number in 0..20 {
        assert!(it.fs.lookup(Ino::ROOT, os(&format!("g{number}"))).await.is_err());
    }
    assert!(it.fs.waiting() > 0, "all the time files were sent");
    let asked = it.provider.calls(Operation::Lookup) + it.provider.calls(Operation::List);
    assert!(asked <= 4, "{asked} requests for names that aren't there");
    assert_eq!(it.names(Ino::ROOT).await.len(), 201);
    it.sent().await;
    assert_eq!(it.names(Ino::ROOT).await.len(), 201);
    it.fs.unlink(Ino::ROOT, os("f7")).await.unwrap();
    assert!(it.fs.lookup(Ino::ROOT, os("f7")).await.is_err());
    assert!(it.fs.lookup(Ino::ROOT, os("f8")).await.is_ok());
    assert_eq!(it.provider.calls(Operation::List), 1);
}
