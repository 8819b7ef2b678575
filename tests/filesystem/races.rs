//! Answers that come late, in another order, or not at all.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keymount::fs::{Access, AttributeChange, Ino, RenameMode};
use keymount::model::{ErrorKind, Kind, Progress};
use keymount::provider::faulty::{Fault, Gate, Operation, Times};
use keymount::provider::memory::{Memory, Options};

use crate::kernel::open_emptied;
use crate::support::{Fixture, os};

const HOUR: Duration = Duration::from_secs(3600);

/// Lets every other task go as far as it can.
async fn others_go_on() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_listing_that_was_asked_for_earlier_does_not_undo_an_upload() {
    let it = Fixture::with_ttl(HOUR);
    it.store.put("a", "v1").unwrap();
    let ino = it.ino("a").await;
    let gate = Gate::new();
    it.provider
        .inject(Operation::List, Times::Next(1), Fault::StallAnswer(gate.clone()));
    let listing = tokio::spawn({
        let fs = Arc::clone(&it.fs);
        async move {
            let handle = fs.open_directory(Ino::ROOT).await.unwrap();
            fs.read_directory(handle, 0).await.map(drop)
        }
    });
    gate.reached(1).await;
    it.write("a", b"a longer version").await;
    gate.open();
    listing.await.unwrap().unwrap();
    assert_eq!(it.fs.attributes(ino).await.unwrap().attributes.size, 16);
    assert_eq!(it.read("a").await, b"a longer version");
}

#[tokio::test]
async fn attributes_that_were_asked_for_earlier_do_not_undo_an_upload() {
    let it = Fixture::with_ttl(HOUR);
    it.store.put("a", "v1").unwrap();
    let ino = it.ino("a").await;
    it.fs.refresh().await.unwrap();
    let gate = Gate::new();
    it.provider
        .inject(Operation::Stat, Times::Next(1), Fault::StallAnswer(gate.clone()));
    let asking = tokio::spawn({
        let fs = Arc::clone(&it.fs);
        async move { fs.attributes(ino).await.map(drop) }
    });
    gate.reached(1).await;
    it.write("a", b"a longer version").await;
    gate.open();
    asking.await.unwrap().unwrap();
    assert_eq!(it.fs.attributes(ino).await.unwrap().attributes.size, 16);
}

/// A name that was removed while a listing was on its way does not come back with it.
#[tokio::test]
async fn a_removed_name_does_not_come_back_with_an_older_listing() {
    let it = Fixture::with_ttl(HOUR);
    it.store.put("a", "1").unwrap();
    it.store.put("b", "2").unwrap();
    let handle = it.fs.open_directory(Ino::ROOT).await.unwrap();
    let listed = it.fs.read_directory(handle, 0).await.unwrap();
    it.fs.unlink(Ino::ROOT, os("a")).await.unwrap();
    for entry in listed.iter().filter(|entry| entry.name == "a") {
        // What `readdirplus` does with the rest of a listing.
        let _ = it.fs.listed_attributes(Ino::ROOT, entry, None);
    }
    let found = it.fs.lookup(Ino::ROOT, os("a")).await;
    assert_eq!(found.map(drop).unwrap_err().kind(), ErrorKind::NotFound);
    it.fs.close_directory(handle);

    let gate = Gate::new();
    it.fs.refresh().await.unwrap();
    it.provider
        .inject(Operation::List, Times::Next(1), Fault::StallAnswer(gate.clone()));
    let listing = tokio::spawn({
        let fs = Arc::clone(&it.fs);
        async move {
            let handle = fs.open_directory(Ino::ROOT).await.unwrap();
            fs.read_directory(handle, 0).await.unwrap()
        }
    });
    gate.reached(1).await;
    it.fs.unlink(Ino::ROOT, os("b")).await.unwrap();
    gate.open();
    assert!(listing.await.unwrap().iter().all(|entry| entry.name != "b"));
}

#[tokio::test]
async fn another_kind_of_thing_gets_another_number_in_listings_too() {
    let it = Fixture::new();
    it.store.put("x", "file").unwrap();
    let file = it.ino("x").await;
    it.store.remove("x").unwrap();
    it.store.make_directory("x").unwrap();
    let handle = it.fs.open_directory(Ino::ROOT).await.unwrap();
    let listed = it.fs.read_directory(handle, 0).await.unwrap();
    let entry = listed.iter().find(|entry| entry.name == "x").unwrap();
    assert_eq!(entry.kind, Kind::Directory);
    assert_ne!(entry.ino, file);
    let (found, _reference) = it.fs.listed_attributes(Ino::ROOT, entry, None).unwrap();
    assert_ne!(found.attributes.ino, file);
    assert_eq!(found.attributes.kind, Kind::Directory);
    it.fs.close_directory(handle);
}

/// Otherwise what was listed just before its end would count for nearly twice as long.
#[tokio::test(start_paused = true)]
async fn what_a_listing_said_counts_from_the_listing_on() {
    let it = Fixture::with_ttl(Duration::from_secs(10));
    it.store.put("a", "x").unwrap();
    it.names(Ino::ROOT).await;
    tokio::time::advance(Duration::from_secs(8)).await;
    let found = it.fs.lookup(Ino::ROOT, os("a")).await.unwrap();
    assert!(found.ttl <= Duration::from_secs(2), "{:?}", found.ttl);
}

#[tokio::test]
async fn after_a_change_of_unknown_outcome_one_looks_again() {
    for kind in [ErrorKind::Unreachable, ErrorKind::TimedOut] {
        let it = Fixture::with_ttl(HOUR);
        it.store.put("a", "x").unwrap();
        it.store.put("b", "x").unwrap();
        it.names(Ino::ROOT).await;
        let lost = |operation| {
            it.provider
                .inject(operation, Times::Next(1), Fault::FailAfterEffect(kind))
        };
        lost(Operation::RemoveFile);
        assert_eq!(it.fs.unlink(Ino::ROOT, os("a")).await.unwrap_err().kind(), kind);
        assert_eq!(it.names(Ino::ROOT).await, ["b"]);
        lost(Operation::CreateDirectory);
        let made = it.fs.make_directory(Ino::ROOT, os("d"), 0o755, 0).await;
        assert_eq!(made.map(drop).unwrap_err().kind(), kind);
        assert_eq!(it.names(Ino::ROOT).await, ["b", "d"]);
        lost(Operation::Rename);
        let renamed = it
            .fs
            .rename((Ino::ROOT, os("b")), (Ino::ROOT, os("c")), RenameMode::Replace)
            .await;
        assert_eq!(renamed.unwrap_err().kind(), kind);
        assert_eq!(it.names(Ino::ROOT).await, ["c", "d"]);
        assert_eq!(it.read("c").await, b"x");
        let gone = it.fs.lookup(Ino::ROOT, os("b")).await;
        assert_eq!(gone.map(drop).unwrap_err().kind(), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn a_rename_over_a_file_waits_for_its_upload() {
    let it = Fixture::with_ttl(HOUR);
    it.store.put("new", "new").unwrap();
    it.store.put("old", "v1").unwrap();
    it.names(Ino::ROOT).await;
    let ino = it.ino("old").await;
    let writer = open_emptied(&it.fs, ino, Access::Write).await.unwrap();
    it.fs
        .write(writer.handle, Some(0), Bytes::from_static(b"v2"))
        .await
        .unwrap();
    let gate = Gate::new();
    it.provider
        .inject(Operation::Upload, Times::Next(1), Fault::StallAnswer(gate.clone()));
    let flush = tokio::spawn({
        let fs = Arc::clone(&it.fs);
        async move { fs.flush(writer.handle).await }
    });
    gate.reached(1).await;
    let rename = tokio::spawn({
        let fs = Arc::clone(&it.fs);
        async move {
            fs.rename((Ino::ROOT, os("new")), (Ino::ROOT, os("old")), RenameMode::Replace)
                .await
        }
    });
    others_go_on().await;
    gate.open();
    flush.await.unwrap().unwrap();
    rename.await.unwrap().unwrap();
    it.close(writer.handle).await;
    assert_eq!(it.store.content("old").unwrap(), "new");
}

/// An upload that moves is progress for whoever waits for it.
#[tokio::test(start_paused = true)]
async fn who_waits_for_an_upload_moves_with_it() {
    let it = Fixture::with_ttl(HOUR);
    let (_, opened) = it.begin(Ino::ROOT, "large", 0o644, b"large").await;
    let gate = Gate::new();
    it.provider
        .inject(Operation::Upload, Times::Next(1), Fault::StallAnswer(gate.clone()));
    let uploading = Progress::default();
    let first = tokio::spawn({
        let (fs, uploading) = (Arc::clone(&it.fs), uploading.clone());
        async move { uploading.scope(fs.flush(opened.handle)).await }
    });
    gate.reached(1).await;
    let (flushing, writing) = (Progress::default(), Progress::default());
    let second = tokio::spawn({
        let (fs, flushing) = (Arc::clone(&it.fs), flushing.clone());
        async move { flushing.scope(fs.fsync(opened.handle)).await }
    });
    let third = tokio::spawn({
        let (fs, writing) = (Arc::clone(&it.fs), writing.clone());
        async move {
            writing
                .scope(fs.write(opened.handle, Some(0), Bytes::from_static(b"L")))
                .await
        }
    });
    others_go_on().await;
    let (flush_before, write_before) = (flushing.value(), writing.value());
    // However long it takes them to get as far as to wait.
    while flushing.value() < flush_before + 5 || writing.value() < write_before + 5 {
        uploading.scope(async { Progress::tick() }).await;
        tokio::time::advance(Duration::from_millis(2)).await;
        others_go_on().await;
    }
    gate.open();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    third.await.unwrap().unwrap();
    it.close(opened.handle).await;
    assert_eq!(it.store.content("large").unwrap(), "Large");
}

/// What is sent while its directory is listed is nobody else's doing.
#[tokio::test]
async fn a_directory_that_is_listed_while_a_file_in_it_is_sent_keeps_its_time() {
    let it = Fixture::in_background();
    it.store.put("d/first", "x").unwrap();
    let folder = it.ino("d").await;
    it.names(folder).await;
    let (upload, listing) = (Gate::new(), Gate::new());
    for (operation, fault) in [
        (Operation::Upload, Fault::Stall(upload.clone())),
        (Operation::List, Fault::StallAnswer(listing.clone())),
    ] {
        it.provider.inject(operation, Times::Next(1), fault);
    }
    let (_, opened) = it.begin(folder, "second", 0o644, b"text").await;
    it.fs.flush(opened.handle).await.unwrap();
    it.close(opened.handle).await;
    let given = AttributeChange {
        modified: Some(std::time::UNIX_EPOCH),
        ..Default::default()
    };
    it.fs.set_attributes(folder, given).await.unwrap();
    upload.reached(1).await;
    let (names, ()) = tokio::join!(it.names(folder), async {
        listing.reached(1).await;
        upload.open();
        it.sent().await;
        listing.open();
    });
    assert_eq!(names, ["first", "second"]);
    let shown = it.fs.attributes(folder).await.unwrap().attributes.modified;
    assert_eq!(shown, std::time::UNIX_EPOCH);
    it.store.put("d/third", "somebody else's").unwrap();
    assert_eq!(it.names(folder).await, ["first", "second", "third"]);
    let shown = it.fs.attributes(folder).await.unwrap().attributes.modified;
    assert_ne!(shown, std::time::UNIX_EPOCH);
}

/// The database of modes and times is not worth an operation that the provider carried out.
#[tokio::test]
async fn a_broken_state_database_leaves_nothing_half_done() {
    let it = Fixture::with_ttl(HOUR);
    it.write("a", b"a").await;
    it.write("b", b"b").await;
    let ino = it.ino("a").await;
    let times = AttributeChange {
        modified: Some(std::time::UNIX_EPOCH),
        ..Default::default()
    };
    it.fs.set_attributes(ino, times.clone()).await.unwrap();
    let writer = it.fs.open(ino, Access::Write).await.unwrap();
    it.fs
        .write(writer.handle, None, Bytes::from_static(b"!"))
        .await
        .unwrap();
    it.fs.set_attributes(ino, times).await.unwrap();
    rusqlite::Connection::open(it.state_database())
        .unwrap()
        .execute_batch("DROP TABLE attributes")
        .unwrap();
    it.fs.flush(writer.handle).await.unwrap();
    it.fs
        .write(writer.handle, None, Bytes::from_static(b"?"))
        .await
        .unwrap();
    it.fs.flush(writer.handle).await.unwrap();
    it.close(writer.handle).await;
    assert_eq!(it.store.content("a").unwrap(), "a!?");
    it.fs
        .rename((Ino::ROOT, os("a")), (Ino::ROOT, os("c")), RenameMode::Replace)
        .await
        .unwrap();
    assert_eq!(it.read("c").await, b"a!?");
    it.fs.unlink(Ino::ROOT, os("b")).await.unwrap();
    let gone = it.fs.lookup(Ino::ROOT, os("b")).await;
    assert_eq!(gone.map(drop).unwrap_err().kind(), ErrorKind::NotFound);
}

/// A listing names its entries by keys that a rename of the directory makes void.
#[tokio::test]
async fn a_renamed_directory_is_not_read_by_its_old_keys() {
    let it = Fixture::with_ttl(HOUR);
    it.store.put("d/f", "deep").unwrap();
    let folder = it.ino("d").await;
    assert_eq!(it.names(folder).await, ["f"]);
    it.fs
        .rename((Ino::ROOT, os("d")), (Ino::ROOT, os("e")), RenameMode::Replace)
        .await
        .unwrap();
    let file = it.child(folder, "f").await;
    let opened = it.fs.open(file, Access::Read).await.unwrap();
    assert_eq!(it.fs.read(opened.handle, 0, 10).await.unwrap(), "deep");
    it.close(opened.handle).await;
}

/// A file is begun to be sent, looked at and waited for while its directory has its new name at the provider and nobody
/// here knows.
#[tokio::test(start_paused = true)]
async fn what_is_below_a_directory_on_its_way_waits_for_its_new_name() {
    for waits in [false, true] {
        let it = Fixture::in_background();
        for name in ["d/there", "d/unwanted"] {
            it.store.put(name, "text").unwrap();
        }
        let folder = it.ino("d").await;
        let there = it.child(folder, "there").await;
        let (_, opened) = it.begin(folder, "new", 0o644, b"new").await;
        let gate = Gate::new();
        it.provider
            .inject(Operation::Rename, Times::Next(1), Fault::StallAnswer(gate.clone()));
        let since = tokio::time::Instant::now();
        let rename = it
            .fs
            .rename((Ino::ROOT, os("d")), (Ino::ROOT, os("e")), RenameMode::Replace);
        let below = async {
            gate.reached(1).await;
            let attempts = it.provider.calls(Operation::Upload);
            it.fs.flush(opened.handle).await.unwrap();
            let (shown, found, removed, made, synced, ()) = tokio::join!(
                it.fs.attributes(there),
                it.fs.lookup(folder, os("there")),
                it.fs.unlink(folder, os("unwanted")),
                it.fs.make_directory(folder, os("made"), 0o755, 0),
                async {
                    if waits {
                        it.fs.fsync(opened.handle).await
                    } else {
                        Ok(())
                    }
                },
                async {
                    others_go_on().await;
                    gate.open();
                },
            );
            synced.unwrap();
            assert_eq!(shown.unwrap().attributes.ino, there);
            assert_eq!(found.unwrap().keep().attributes.ino, there, "it never went");
            removed.unwrap();
            made.unwrap();
            assert_eq!(it.names(folder).await, ["made", "new", "there"]);
            it.close(opened.handle).await;
            it.sent().await;
            assert_eq!(it.provider.calls(Operation::Upload), attempts + 1);
        };
        let (renamed, ()) = tokio::join!(rename, below);
        renamed.unwrap();
        let expected = [("e/new", "new"), ("e/there", "text")];
        assert!(
            expected
                .iter()
                .all(|(path, text)| it.store.content(path).unwrap() == text)
        );
        assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
    }
}

/// Where a directory gets another name by being made anew, one that is about to have something is none to do that with.
#[tokio::test(start_paused = true)]
async fn a_directory_that_something_is_sent_to_keeps_its_name_where_that_cannot_follow() {
    let mut options = Options::default();
    options.capabilities.rename_directories = false;
    let it = Fixture::in_background_over(Memory::new(options));
    it.store.make_directory("d").unwrap();
    let folder = it.ino("d").await;
    let rename = || {
        it.fs
            .rename((Ino::ROOT, os("d")), (Ino::ROOT, os("e")), RenameMode::Replace)
    };
    let gate = Gate::new();
    it.provider
        .inject(Operation::Upload, Times::Next(1), Fault::Stall(gate.clone()));
    let (_, opened) = it.begin(folder, "f", 0o644, b"text").await;
    it.fs.flush(opened.handle).await.unwrap();
    it.close(opened.handle).await;
    gate.reached(1).await;
    assert_eq!(rename().await.unwrap_err().kind(), ErrorKind::CrossDevice);
    gate.open();
    it.sent().await;
    assert_eq!(it.store.content("d/f").unwrap(), "text");
    it.fs.unlink(folder, os("f")).await.unwrap();

    // What only waits goes along.
    it.provider
        .inject(Operation::Upload, Times::Always, Fault::Fail(ErrorKind::Unreachable));
    let (_, opened) = it.begin(folder, "f", 0o644, b"text").await;
    it.fs.flush(opened.handle).await.unwrap();
    it.close(opened.handle).await;
    while let Err(error) = rename().await {
        assert_eq!(error.kind(), ErrorKind::CrossDevice, "it is tried again just now");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    it.provider.heal();
    it.fs.retry_pending();
    it.sent().await;
    assert_eq!(it.store.content("e/f").unwrap(), "text");
    assert_eq!(it.names(Ino::ROOT).await, ["e"]);
}

/// Two refreshes, one after the other, and a look at the rights that was begun between them: it must not show those of
/// before the first.
#[tokio::test]
async fn a_second_refresh_does_not_bring_back_what_the_first_found_outdated() {
    let it = Fixture::with_ttl(HOUR);
    it.store.put("a", "x").unwrap();
    let ino = it.ino("a").await;
    let mode = |found: keymount::fs::Found| found.attributes.mode;
    for (operation, named) in [(Operation::Stat, false), (Operation::Lookup, true)] {
        it.store.set_rights("", "rwd".parse().unwrap()).unwrap();
        it.fs.refresh().await.unwrap();
        assert_eq!(mode(it.fs.attributes(ino).await.unwrap()), 0o644);
        it.store.set_rights("", "r".parse().unwrap()).unwrap();
        it.fs.refresh().await.unwrap();
        let gate = Gate::new();
        it.provider
            .inject(operation, Times::Next(1), Fault::StallAnswer(gate.clone()));
        let looking = tokio::spawn({
            let fs = Arc::clone(&it.fs);
            async move {
                match named {
                    true => *fs.lookup(Ino::ROOT, os("a")).await.unwrap(),
                    false => fs.attributes(ino).await.unwrap(),
                }
            }
        });
        gate.reached(1).await;
        it.fs.refresh().await.unwrap();
        gate.open();
        let found = looking.await.unwrap();
        assert_eq!(mode(found), 0o444, "{operation:?}");
        assert_eq!(found.ttl, Duration::ZERO, "it was asked before the second refresh");
    }
}

/// What is on its way while a person has everything asked for again is not relied on afterwards.
#[tokio::test]
async fn an_answer_from_before_a_refresh_is_asked_for_again() {
    for operation in [Operation::Lookup, Operation::List] {
        let it = Fixture::with_ttl(HOUR);
        it.store.put("a", "x").unwrap();
        let gate = Gate::new();
        it.provider
            .inject(operation, Times::Next(1), Fault::StallAnswer(gate.clone()));
        let looking = tokio::spawn({
            let fs = Arc::clone(&it.fs);
            async move {
                if operation == Operation::Lookup {
                    return fs.lookup(Ino::ROOT, os("a")).await.unwrap().keep();
                }
                let handle = fs.open_directory(Ino::ROOT).await.unwrap();
                let listed = fs.read_directory(handle, 0).await.unwrap();
                let entry = listed.iter().find(|entry| entry.name == "a").unwrap();
                let (found, reference) = fs.listed_attributes(Ino::ROOT, entry, None).unwrap();
                reference.unwrap().keep();
                fs.close_directory(handle);
                found
            }
        });
        gate.reached(1).await;
        it.store.set_rights("", "r".parse().unwrap()).unwrap();
        it.store.put("b", "y").unwrap();
        it.fs.refresh().await.unwrap();
        gate.open();
        let found = looking.await.unwrap();
        assert_eq!(
            (found.attributes.mode, found.ttl),
            (0o644, Duration::ZERO),
            "{operation:?}"
        );
        let now = it.fs.attributes(found.attributes.ino).await.unwrap();
        assert_eq!(now.attributes.mode, 0o444, "{operation:?}");
        assert_eq!(it.names(Ino::ROOT).await, ["a", "b"], "{operation:?}");
        it.ino("b").await;
    }
}
