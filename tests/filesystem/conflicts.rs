//! What programs on this host build on after somebody else was faster: never on what was put aside.

use std::time::Duration;

use bytes::Bytes;
use keymount::fs::{Access, HandleId, Ino, RenameMode};
use keymount::model::ErrorKind;
use keymount::provider::faulty::{Fault, Gate, Operation, Times};

use crate::kernel::open_emptied;
use crate::support::{Fixture, os};

/// How a program saves what it doesn't change in its place.
#[derive(Clone, Copy, Debug)]
enum Saving {
    Rename,
    /// It opens the file with O_TRUNC.
    Emptying(Access),
}

/// A mount in which `b` was changed while somebody else stored it; what is changed here waits at the gate.
pub async fn beaten() -> (Fixture, Gate) {
    let it = Fixture::in_background();
    let gate = beat(&it).await;
    (it, gate)
}

/// As `beaten`, in this mount.
pub async fn beat(it: &Fixture) -> Gate {
    it.write("b", b"base").await;
    it.sent().await;
    let gate = Gate::new();
    it.provider
        .inject(Operation::Upload, Times::Next(1), Fault::Stall(gate.clone()));
    it.write("b", b"base, mine").await;
    gate.reached(1).await;
    it.store.put("b", "base, theirs").unwrap();
    gate
}

/// As editors save: another file, then its name.
async fn save_by_rename(it: &Fixture, bytes: &'static [u8]) {
    it.write("b saved", bytes).await;
    it.sent().await;
    rename(it).await;
}

async fn save(it: &Fixture, bytes: &'static [u8], by_rename: bool) {
    if by_rename {
        save_by_rename(it, bytes).await;
    } else {
        it.write("b", bytes).await;
        it.sent().await;
    }
}

async fn rename(it: &Fixture) {
    let (from, to) = ((Ino::ROOT, os("b saved")), (Ino::ROOT, os("b")));
    it.fs.rename(from, to, RenameMode::Replace).await.unwrap();
}

/// All that is stored, beginning with the file itself.
async fn texts(it: &Fixture) -> Vec<String> {
    it.sent().await;
    let names = it.names(Ino::ROOT).await;
    names
        .iter()
        .map(|name| String::from_utf8(it.store.content(name).unwrap().to_vec()).unwrap())
        .collect()
}

async fn open_to_change(it: &Fixture, name: &str) -> HandleId {
    let ino = it.ino(name).await;
    it.fs.open(ino, Access::ReadWrite).await.unwrap().handle
}

#[tokio::test(start_paused = true)]
async fn what_was_read_before_it_was_put_aside_does_not_replace_the_winner_by_a_rename() {
    for is_sent in [true, false] {
        let (it, gate) = beaten().await;
        assert_eq!(it.read("b").await, b"base, mine");
        gate.open();
        it.sent().await;
        if is_sent {
            save_by_rename(&it, b"base, mine, more").await;
        } else {
            // What isn't at the provider takes its name here, and is sent under that.
            let gate = Gate::new();
            it.provider
                .inject(Operation::Upload, Times::Next(1), Fault::Stall(gate.clone()));
            it.write("b saved", b"base, mine, more").await;
            rename(&it).await;
            gate.open();
        }
        let mut all = texts(&it).await;
        assert_eq!(all.remove(0), "base, theirs", "{is_sent}: {all:?}");
        all.sort();
        assert_eq!(all, ["base, mine", "base, mine, more"], "{is_sent}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_read_before_it_was_put_aside_does_not_replace_the_winner_by_a_new_beginning() {
    let (it, gate) = beaten().await;
    assert_eq!(it.read("b").await, b"base, mine");
    gate.open();
    it.sent().await;
    it.write("b", b"base, mine, more").await;
    let mut all = texts(&it).await;
    assert_eq!(all.remove(0), "base, theirs", "{all:?}");
    all.sort();
    assert_eq!(all, ["base, mine", "base, mine, more"]);
}

#[tokio::test(start_paused = true)]
async fn who_has_read_the_winners_version_may_replace_it() {
    let (it, gate) = beaten().await;
    it.read("b").await;
    gate.open();
    it.sent().await;
    assert_eq!(it.read("b").await, b"base, theirs");
    save_by_rename(&it, b"base, theirs, more").await;
    let all = texts(&it).await;
    assert_eq!(all, ["base, theirs, more", "base, mine"]);
}

/// A program that only ever writes loses no conflict because of one that it lost before.
#[tokio::test(start_paused = true)]
async fn who_reads_nothing_replaces_what_is_there() {
    let (it, gate) = beaten().await;
    gate.open();
    it.sent().await;
    it.write("b", b"new").await;
    assert_eq!(texts(&it).await, ["new", "base, mine"]);
    it.store.put("b", "other").unwrap();
    save_by_rename(&it, b"newer").await;
    assert_eq!(texts(&it).await, ["newer", "base, mine"]);
}

#[tokio::test(start_paused = true)]
async fn all_is_kept_beside_the_winners_version_until_that_is_opened() {
    for by_rename in [true, false] {
        let (it, gate) = beaten().await;
        it.read("b").await;
        gate.open();
        it.sent().await;
        for bytes in [b"second", b"third!"] {
            save(&it, bytes, by_rename).await;
        }
        let mut all = texts(&it).await;
        assert_eq!(all.remove(0), "base, theirs", "{by_rename}: {all:?}");
        all.sort();
        assert_eq!(all, ["base, mine", "second", "third!"], "{by_rename}");
        assert_eq!(it.read("b").await, b"base, theirs");
        save(&it, b"fourth", by_rename).await;
        assert_eq!(texts(&it).await[0], "fourth", "{by_rename}");
        assert_eq!(it.names(Ino::ROOT).await.len(), 4, "{by_rename}");
    }
}

/// Removing what only this host has any more is no failure: it was there to see, and is gone.
#[tokio::test(start_paused = true)]
async fn what_was_changed_here_and_removed_there_can_be_removed() {
    let it = Fixture::in_background();
    it.write("b", b"base").await;
    it.sent().await;
    it.provider
        .inject(Operation::Upload, Times::Always, Fault::Fail(ErrorKind::Unreachable));
    it.write("b", b"base, mine").await;
    it.store.remove("b").unwrap();
    assert_eq!(it.read("b").await, b"base, mine");
    it.fs.unlink(Ino::ROOT, os("b")).await.unwrap();
    let again = it.fs.unlink(Ino::ROOT, os("b")).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::NotFound);
    it.provider.heal();
    assert_eq!(texts(&it).await, [""; 0]);
}

/// What was changed here and removed there is a new file by now, which can get another name.
#[tokio::test(start_paused = true)]
async fn what_was_changed_here_and_removed_there_can_be_renamed() {
    let it = Fixture::in_background();
    it.write("b", b"base").await;
    it.sent().await;
    it.provider
        .inject(Operation::Upload, Times::Next(1), Fault::Fail(ErrorKind::Unreachable));
    it.write("b", b"base, mine").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    it.store.remove("b").unwrap();
    let (from, to) = ((Ino::ROOT, os("b")), (Ino::ROOT, os("c")));
    it.fs.rename(from, to, RenameMode::Replace).await.unwrap();
    assert_eq!(texts(&it).await, ["base, mine"]);
    assert_eq!(it.names(Ino::ROOT).await, ["c"]);
}

/// A file that is open and changed here, and was replaced by somebody else.
async fn changed_here_and_there() -> (Fixture, HandleId) {
    let it = Fixture::in_background();
    it.write("b", b"base").await;
    it.sent().await;
    let handle = open_to_change(&it, "b").await;
    it.fs
        .write(handle, Some(4), Bytes::from_static(b", mine"))
        .await
        .unwrap();
    it.store.put("b", "base, theirs").unwrap();
    (it, handle)
}

#[tokio::test(start_paused = true)]
async fn when_fsync_was_refused_the_name_stands_for_the_winners_version() {
    let (it, handle) = changed_here_and_there().await;
    assert_eq!(it.fs.fsync(handle).await.unwrap_err().kind(), ErrorKind::Changed);
    assert_eq!(it.read("b").await, b"base, theirs");
    // Whoever has the other one open goes on with it.
    it.fs
        .write(handle, Some(10), Bytes::from_static(b", more"))
        .await
        .unwrap();
    it.fs.fsync(handle).await.unwrap();
    it.close(handle).await;
    assert_eq!(texts(&it).await, ["base, theirs", "base, mine, more"]);
}

#[tokio::test(start_paused = true)]
async fn fsync_of_what_an_attempt_without_an_answer_has_stored_says_so() {
    let it = Fixture::in_background();
    it.write("b", b"base").await;
    it.sent().await;
    let handle = open_to_change(&it, "b").await;
    it.fs
        .write(handle, Some(4), Bytes::from_static(b", mine"))
        .await
        .unwrap();
    it.provider.inject(
        Operation::Upload,
        Times::Next(1),
        Fault::FailAfterEffect(ErrorKind::Unreachable),
    );
    assert_eq!(it.fs.fsync(handle).await.unwrap_err().kind(), ErrorKind::Unreachable);
    it.fs.fsync(handle).await.unwrap();
    it.close(handle).await;
    assert_eq!(texts(&it).await, ["base, mine"]);
}

/// From the moment at which the provider has refused what is here, nobody is shown it by a new `open`.
#[tokio::test(start_paused = true)]
async fn an_open_that_begins_after_the_refusal_waits_for_the_winners_version() {
    let (it, gate) = beaten().await;
    let ino = it.ino("b").await;
    let looking = Gate::new();
    it.provider
        .inject(Operation::Lookup, Times::Next(1), Fault::Stall(looking.clone()));
    gate.open();
    looking.reached(1).await;
    let opening = tokio::spawn({
        let fs = std::sync::Arc::clone(&it.fs);
        async move { fs.open(ino, Access::Read).await.map(drop) }
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!opening.is_finished());
    looking.open();
    // The kernel looks the name up again then.
    assert_eq!(opening.await.unwrap().unwrap_err().kind(), ErrorKind::Changed);
    assert_eq!(it.read("b").await, b"base, theirs");
}

/// While nobody answers, what is here is all there is.
#[tokio::test(start_paused = true)]
async fn an_open_after_the_refusal_shows_what_is_here_while_nobody_answers() {
    let (it, gate) = beaten().await;
    it.provider
        .inject(Operation::Lookup, Times::Always, Fault::Fail(ErrorKind::Unreachable));
    gate.open();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(it.read("b").await, b"base, mine");
    it.provider.heal();
    assert_eq!(texts(&it).await, ["base, theirs", "base, mine"]);
}

/// What was read from what is cached may have been outdated then.
#[tokio::test(start_paused = true)]
async fn what_was_read_within_the_ttl_does_not_replace_what_was_stored_before() {
    for by in [
        Saving::Rename,
        Saving::Emptying(Access::Write),
        Saving::Emptying(Access::ReadWrite),
    ] {
        let it = Fixture::with_ttl_in_background(Duration::from_secs(10));
        it.store.put("b", "base").unwrap();
        assert_eq!(it.read("b").await, b"base");
        it.store.put("b", "base, theirs").unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(it.read("b").await, b"base");
        tokio::time::sleep(Duration::from_secs(6)).await;
        match by {
            Saving::Rename => save_by_rename(&it, b"base, mine").await,
            Saving::Emptying(access) => {
                let ino = it.ino("b").await;
                let opened = open_emptied(&it.fs, ino, access).await.unwrap();
                let mine = Bytes::from_static(b"base, mine");
                it.fs.write(opened.handle, Some(0), mine).await.unwrap();
                it.fs.flush(opened.handle).await.unwrap();
                it.close(opened.handle).await;
            }
        }
        assert_eq!(texts(&it).await, ["base, theirs", "base, mine"], "{by:?}");
    }
}

/// As on any network file system: whoever opens it later and closes last wins.
#[tokio::test(start_paused = true)]
async fn what_was_the_latest_when_it_was_read_may_be_replaced_by_whoever_comes_last() {
    for by_rename in [true, false] {
        let it = Fixture::with_ttl_in_background(Duration::from_secs(10));
        it.store.put("b", "base").unwrap();
        // The second one is answered from what is known, which turns out to have been right.
        assert_eq!(it.read("b").await, b"base");
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(it.read("b").await, b"base");
        tokio::time::sleep(Duration::from_secs(6)).await;
        it.ino("b").await;
        it.store.put("b", "base, theirs").unwrap();
        tokio::time::sleep(Duration::from_secs(11)).await;
        if by_rename {
            save_by_rename(&it, b"mine").await;
        } else {
            it.write("b", b"mine").await;
        }
        assert_eq!(texts(&it).await, ["mine"], "{by_rename}");
    }
}

/// What was shown counts, too, when the kernel has forgotten the file meanwhile.
#[tokio::test(start_paused = true)]
async fn what_was_shown_is_remembered_without_the_file() {
    for is_changed in [true, false] {
        let it = Fixture::with_ttl_in_background(Duration::from_secs(10));
        it.store.put("b", "base").unwrap();
        let ino = it.ino("b").await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let opened = it.fs.open(ino, Access::Read).await.unwrap();
        it.close(opened.handle).await;
        it.fs.forget(ino, 1);
        assert_eq!(it.fs.known(), 1);
        if is_changed {
            it.store.put("b", "base, theirs").unwrap();
        }
        tokio::time::sleep(Duration::from_secs(6)).await;
        save_by_rename(&it, b"base, mine").await;
        let expected: &[&str] = match is_changed {
            true => &["base, theirs", "base, mine"],
            false => &["base, mine"],
        };
        assert_eq!(texts(&it).await, expected);
    }
}

/// While a file is written here, a listing tells of the version that will win; no rename takes it for this host's.
#[tokio::test(start_paused = true)]
async fn what_is_changed_here_and_outdated_gives_nobody_leave_to_replace_the_winner() {
    let (it, handle) = changed_here_and_there().await;
    assert_eq!(it.names(Ino::ROOT).await, ["b"]);
    it.write("b saved", b"base, mine, more").await;
    while it.store.content("b saved").is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    rename(&it).await;
    it.fs.flush(handle).await.unwrap();
    it.close(handle).await;
    let mut all = texts(&it).await;
    assert_eq!(all.remove(0), "base, theirs", "{all:?}");
    all.sort();
    assert_eq!(all, ["base, mine", "base, mine, more"]);
}

/// What a program does next with a file.
#[derive(Clone, Copy, Debug)]
enum Next {
    Rename,
    Truncate,
    Sync,
}

impl Next {
    const ALL: [Self; 3] = [Self::Rename, Self::Truncate, Self::Sync];

    async fn carry_out(self, it: &Fixture) {
        match self {
            Self::Rename => {
                it.write("b saved", b"more of mine").await;
                it.sent().await;
                rename(it).await;
            }
            Self::Truncate => it.write("b", b"more of mine").await,
            Self::Sync => {
                let handle = open_to_change(it, "b").await;
                let bytes = Bytes::from_static(b"more of mine");
                it.fs.write(handle, Some(0), bytes).await.unwrap();
                it.fs.fsync(handle).await.unwrap();
                it.fs.flush(handle).await.unwrap();
                it.close(handle).await;
            }
        }
    }
}

/// Looks at everything anew, as somebody else who works in the same mount may.
async fn look_around(it: &Fixture) {
    it.fs.refresh().await.unwrap();
    it.names(Ino::ROOT).await;
    it.read("b").await;
}

/// What this mount may have stored is nobody else's, whoever finds it first.
#[tokio::test(start_paused = true)]
async fn an_own_upload_whose_answer_was_lost_makes_no_conflict() {
    for ttl in [0, 10] {
        for next in Next::ALL {
            let it = Fixture::with_ttl_in_background(Duration::from_secs(ttl));
            it.write("b", b"base").await;
            it.sent().await;
            tokio::time::sleep(Duration::from_secs(5)).await;
            it.read("b").await;
            let lost = Fault::FailAfterEffect(ErrorKind::Unreachable);
            it.provider.inject(Operation::Upload, Times::Next(1), lost);
            it.write("b", b"mine").await;
            while it.store.content("b").unwrap() != "mine" {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            look_around(&it).await;
            next.carry_out(&it).await;
            look_around(&it).await;
            next.carry_out(&it).await;
            assert_eq!(texts(&it).await, ["more of mine"], "{ttl} {next:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_own_upload_that_is_found_before_its_answer_makes_no_conflict() {
    for next in Next::ALL {
        let it = Fixture::with_ttl_in_background(Duration::from_secs(10));
        it.write("b", b"base").await;
        it.sent().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        it.read("b").await;
        let answer = Gate::new();
        it.provider
            .inject(Operation::Upload, Times::Next(1), Fault::StallAnswer(answer.clone()));
        it.write("b", b"mine").await;
        answer.reached(1).await;
        look_around(&it).await;
        let open_later = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            answer.open();
        };
        tokio::join!(next.carry_out(&it), open_later);
        assert_eq!(texts(&it).await, ["more of mine"], "{next:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_own_rename_whose_answer_was_lost_makes_no_conflict() {
    for next in Next::ALL {
        let it = Fixture::with_ttl_in_background(Duration::from_secs(10));
        it.store.put("b", "base").unwrap();
        it.ino("b").await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        it.read("b").await;
        it.write("b saved", b"mine").await;
        it.sent().await;
        let lost = Fault::FailAfterEffect(ErrorKind::Unreachable);
        it.provider.inject(Operation::Rename, Times::Next(1), lost);
        let (from, to) = ((Ino::ROOT, os("b saved")), (Ino::ROOT, os("b")));
        let renamed = it.fs.rename(from, to, RenameMode::Replace).await;
        assert_eq!(renamed.unwrap_err().kind(), ErrorKind::Unreachable);
        assert_eq!(it.names(Ino::ROOT).await, ["b"]);
        next.carry_out(&it).await;
        assert_eq!(texts(&it).await, ["more of mine"], "{next:?}");
    }
}

/// Two who send it are refused one after the other before the first steps aside: what the second was told is past then.
#[tokio::test(start_paused = true)]
async fn who_was_refused_while_another_stepped_aside_sends_it_under_its_new_name() {
    let (it, gate) = beaten().await;
    let draining = tokio::spawn({
        let fs = std::sync::Arc::clone(&it.fs);
        async move { fs.drain().await }
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    gate.open();
    draining.await.unwrap().unwrap();
    assert_eq!(texts(&it).await, ["base, theirs", "base, mine"]);

    // The other way round: the one in the background is the second.
    let it = Fixture::in_background();
    it.write("b", b"base").await;
    it.sent().await;
    let handle = open_to_change(&it, "b").await;
    let gate = Gate::new();
    it.provider
        .inject(Operation::Upload, Times::Next(1), Fault::Stall(gate.clone()));
    it.fs
        .write(handle, Some(4), Bytes::from_static(b", mine"))
        .await
        .unwrap();
    let syncing = tokio::spawn({
        let fs = std::sync::Arc::clone(&it.fs);
        async move { fs.fsync(handle).await }
    });
    gate.reached(1).await;
    it.close(handle).await;
    it.fs.retry_pending();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    it.store.put("b", "base, theirs").unwrap();
    gate.open();
    assert_eq!(syncing.await.unwrap().unwrap_err().kind(), ErrorKind::Changed);
    // Not only when what is refused for good is tried again.
    let texts = tokio::time::timeout(Duration::from_secs(10), texts(&it)).await;
    assert_eq!(texts.unwrap(), ["base, theirs", "base, mine"]);
}
