//! What the journal promises: who waits for whom, what it costs, and what is left when it is lost, torn or too old.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use keymount::fs::{Access, Ino, RenameMode, Resumed};
use keymount::model::ErrorKind;
use keymount::provider::faulty::{Fault, Gate, Operation, Times};

use crate::kernel::open_emptied;
use crate::support::{Fixture, Wreck, os};
use keymount::state::StateDb;

fn away(it: &Fixture) {
    it.provider
        .inject(Operation::Upload, Times::Always, Fault::Fail(ErrorKind::Unreachable));
}

fn text(it: &Fixture, path: &str) -> Option<String> {
    Some(String::from_utf8(it.store.content(path)?.to_vec()).unwrap())
}

/// The database as another program sees it.
fn database(wreck: &Wreck) -> rusqlite::Connection {
    rusqlite::Connection::open(wreck.path("state.db")).unwrap()
}

/// A daemon that was killed with `a` changed, `b` new, and nothing sent.
async fn killed_with_two() -> Wreck {
    let it = Fixture::in_background();
    it.write("a", b"first").await;
    it.sent().await;
    away(&it);
    it.write("a", b"second").await;
    it.write("b", b"new").await;
    it.killed()
}

async fn both_arrive(it: &Fixture) {
    assert_eq!(it.read("a").await, b"second");
    assert_eq!(it.read("b").await, b"new");
    it.sent().await;
    assert_eq!(text(it, "a").as_deref(), Some("second"));
    assert_eq!(text(it, "b").as_deref(), Some("new"));
    assert_eq!(it.names(Ino::ROOT).await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_being_written_stays_so_when_it_is_renamed_or_looked_at() {
    let it = Fixture::in_background();
    let _open = it.begin(Ino::ROOT, "a", 0o644, b"half of it").await;
    it.fs
        .rename((Ino::ROOT, os("a")), (Ino::ROOT, os("b")), RenameMode::Replace)
        .await
        .unwrap();
    it.fs.retry_pending();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(it.provider.calls(Operation::Upload), 0, "it is half of what is meant");
    assert_eq!((it.fs.pending().len(), it.fs.waiting()), (1, 0));
    it.fs.keep_pending().unwrap();
    let (it, resumed) = it.killed().mounted_again().await;
    assert_eq!(
        resumed,
        Resumed {
            saved: 1,
            ..Resumed::default()
        }
    );
    let saved = it.state_database().with_file_name("unsent").join("b");
    assert_eq!(std::fs::read(saved).unwrap(), b"half of it");
}

/// Who unmounts and looks at what is pending sees nothing that was sent.
#[tokio::test(start_paused = true)]
async fn what_was_sent_is_out_of_the_journal_at_the_end() {
    let it = Fixture::in_background();
    let journal = StateDb::open(&it.state_database()).unwrap();
    for _ in 0..20 {
        it.write("a", b"text").await;
        it.sent().await;
        it.fs.write_kept().await;
        assert!(journal.journaled(None).unwrap().is_empty());
    }
}

/// Emptying a file is the first half of writing it anew: the closed content stays until the second half is done.
#[tokio::test(start_paused = true)]
async fn closed_content_outlives_a_kill_while_it_is_written_anew() {
    let it = Fixture::in_background();
    away(&it);
    it.write("a", b"closed").await;
    let ino = it.ino("a").await;
    let opened = open_emptied(&it.fs, ino, Access::Write).await.unwrap();
    it.fs
        .write(opened.handle, Some(0), Bytes::from_static(b"ne"))
        .await
        .unwrap();
    assert_eq!(it.read("a").await, b"ne", "in the mount it counts at once");
    let (it, resumed) = it.killed().mounted_again().await;
    assert_eq!((resumed.files, resumed.saved), (1, 1));
    assert_eq!(it.read("a").await, b"closed");
    it.sent().await;
    assert_eq!(text(&it, "a").as_deref(), Some("closed"));

    away(&it);
    it.write("a", b"closed again").await;
    it.write("a", b"and anew").await;
    assert_eq!(it.fs.pending().len(), 1);
    let (it, resumed) = it.killed().mounted_again().await;
    assert_eq!((resumed.files, resumed.saved), (1, 0));
    it.sent().await;
    assert_eq!(text(&it, "a").as_deref(), Some("and anew"));
}

#[tokio::test(start_paused = true)]
async fn a_staged_file_that_is_gone_is_told_once_and_forgotten() {
    let wreck = killed_with_two().await;
    for file in wreck.staged_files() {
        std::fs::remove_file(file).unwrap();
    }
    let (it, resumed) = wreck.mounted_again().await;
    assert_eq!(
        resumed,
        Resumed {
            gone: 2,
            ..Resumed::default()
        }
    );
    assert_eq!(it.read("a").await, b"first");
    let (_, resumed) = it.killed().mounted_again().await;
    assert_eq!(resumed, Resumed::default());
}

/// What the provider refuses isn't half-written: it waits.
#[tokio::test(start_paused = true)]
async fn a_refusal_while_taking_over_leaves_the_file_for_the_next_mount() {
    let it = Fixture::in_background();
    let folder = it.fs.make_directory(Ino::ROOT, os("d"), 0o755, 0).await.unwrap().keep();
    away(&it);
    let (_, opened) = it.begin(folder.attributes.ino, "a", 0o644, b"text").await;
    it.fs.flush(opened.handle).await.unwrap();
    let next = it.killed().unmounted();
    next.provider
        .inject(Operation::Lookup, Times::Next(1), Fault::Fail(ErrorKind::InvalidInput));
    let unsent = next.state_database().with_file_name("unsent");
    assert_eq!(next.fs.resume(&unsent).await.unwrap(), Resumed::default());
    assert!(!unsent.exists());
    assert_eq!(next.fs.resume(&unsent).await.unwrap().files, 1);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_database_is_made_again_from_the_staged_files() {
    for damage in ["garbage", "empty", "gone"] {
        let wreck = killed_with_two().await;
        let path = wreck.path("state.db");
        for beside in ["state.db-wal", "state.db-shm"] {
            let _ = std::fs::remove_file(wreck.path(beside));
        }
        match damage {
            "garbage" => std::fs::write(&path, vec![0x5a; 20_000]).unwrap(),
            "empty" => std::fs::write(&path, "").unwrap(),
            _ => std::fs::remove_file(&path).unwrap(),
        }
        let (it, resumed) = wreck.mounted_again().await;
        assert_eq!((resumed.files, resumed.saved), (2, 0), "{damage}");
        both_arrive(&it).await;
        let aside = it.state_database().parent().unwrap().read_dir().unwrap().flatten();
        let aside = aside.filter(|entry| entry.file_name().to_string_lossy().contains(".corrupt-"));
        assert_eq!(
            aside.count(),
            usize::from(damage == "garbage"),
            "what cannot be read is kept"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_torn_journal_loses_no_file() {
    let whole = killed_with_two().await;
    let log = std::fs::metadata(whole.path("state.db-wal")).unwrap().len();
    assert!(log > 0);
    for tenth in 0..=10 {
        let wreck = killed_with_two().await;
        let wal = std::fs::OpenOptions::new()
            .write(true)
            .open(wreck.path("state.db-wal"))
            .unwrap();
        let at = wal.metadata().unwrap().len() * tenth / 10;
        if tenth % 2 == 0 {
            wal.set_len(at).unwrap();
        } else {
            wal.write_all_at(&[0xff; 100], at).unwrap();
        }
        let (it, resumed) = wreck.mounted_again().await;
        assert_eq!(resumed.files, 2, "torn at {tenth} tenths");
        both_arrive(&it).await;
    }
}

/// A machine that stopped may have the journal and not the content: such a file must not replace what the provider has.
#[tokio::test(start_paused = true)]
async fn after_a_power_cut_only_what_the_disk_had_is_sent() {
    let it = Fixture::in_background();
    away(&it);
    it.write("flushed", b"text").await;
    it.fs.journal().flush();
    it.write("closed", b"text").await;
    let wreck = it.killed();
    database(&wreck)
        .execute("UPDATE journal SET boot = 'another' WHERE boot IS NOT NULL", [])
        .unwrap();
    let (it, resumed) = wreck.mounted_again().await;
    assert_eq!((resumed.files, resumed.saved), (1, 1));
    it.sent().await;
    assert_eq!(it.names(Ino::ROOT).await, ["flushed"]);
    let saved = it.state_database().with_file_name("unsent").join("closed");
    assert_eq!(std::fs::read(saved).unwrap(), b"text");
}

/// `fsync` of a directory: names that only this host has outlive a power cut, and what was closed under them.
#[tokio::test(start_paused = true)]
async fn after_a_power_cut_names_are_as_when_their_directory_was_synced() {
    let it = Fixture::in_background();
    away(&it);
    it.write("a.tmp", b"text").await;
    it.write("gone", b"text").await;
    it.fs
        .rename((Ino::ROOT, os("a.tmp")), (Ino::ROOT, os("a")), RenameMode::Replace)
        .await
        .unwrap();
    it.fs.unlink(Ino::ROOT, os("gone")).await.unwrap();
    it.fs.sync_names().await.unwrap();
    let (_, before) = it.fs.journal().costs();
    it.fs
        .rename((Ino::ROOT, os("a")), (Ino::ROOT, os("b")), RenameMode::Replace)
        .await
        .unwrap();
    it.fs.sync_names().await.unwrap();
    let (_, after) = it.fs.journal().costs();
    assert!(after > before, "a name alone is waited for, too");
    let wreck = it.killed();
    database(&wreck)
        .execute("UPDATE journal SET boot = 'another' WHERE boot IS NOT NULL", [])
        .unwrap();
    let (it, resumed) = wreck.mounted_again().await;
    assert_eq!((resumed.files, resumed.saved), (1, 0));
    it.sent().await;
    assert_eq!(it.names(Ino::ROOT).await, ["b"]);
    assert_eq!(text(&it, "b").as_deref(), Some("text"));
}

/// A disk that refuses is told.
#[tokio::test(start_paused = true)]
async fn who_syncs_a_directory_is_told_that_the_disk_refuses() {
    let it = Fixture::in_background();
    away(&it);
    let (_, opened) = it.begin(Ino::ROOT, "a", 0o644, b"text").await;
    let elsewhere = it.staging().with_file_name("elsewhere");
    std::fs::rename(it.staging(), &elsewhere).unwrap();
    it.fs.flush(opened.handle).await.unwrap();
    assert!(it.fs.sync_names().await.is_err());
    std::fs::rename(&elsewhere, it.staging()).unwrap();
    it.fs.sync_names().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_changes_nothing() {
    for jump in [
        SystemTime::UNIX_EPOCH,
        SystemTime::now() + Duration::from_secs(200 * 365 * 86_400),
    ] {
        let wreck = killed_with_two().await;
        for file in wreck.staged_files() {
            let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
            file.set_modified(jump).unwrap();
        }
        let (it, resumed) = wreck.mounted_again().await;
        assert_eq!(resumed.files, 2);
        both_arrive(&it).await;
    }
}

/// A thousand files closed one after the other wait for no disk, and reach it together.
#[tokio::test(start_paused = true)]
async fn a_thousand_small_files_cost_no_thousand_disk_flushes() {
    let it = Fixture::with_ttl_in_background(Duration::from_secs(1000));
    it.provider
        .inject(Operation::Upload, Times::Always, Fault::Stall(Gate::new()));
    it.names(Ino::ROOT).await;
    let started = std::time::Instant::now();
    for number in 0..1000 {
        let (_, opened) = it
            .fs
            .create(Ino::ROOT, os(&format!("f{number}")), Access::Write, 0o644, 0)
            .await
            .unwrap();
        it.fs
            .write(opened.handle, Some(0), Bytes::from_static(&[7; 4096]))
            .await
            .unwrap();
        it.fs.flush(opened.handle).await.unwrap();
        it.close(opened.handle).await;
    }
    let (commits, syncs) = it.fs.journal().costs();
    println!(
        "1000 files: {commits} commits, {syncs} waits for the disk, {:?}",
        started.elapsed()
    );
    // The clock may move while nothing else does, and what is due then is flushed: once a second.
    assert!(syncs <= 100, "{syncs}");
    assert!(
        commits <= 2100,
        "{commits}: at most one when it is made and one when it is closed"
    );
    it.fs.journal().flush();
    let (_, flushed) = it.fs.journal().costs();
    assert!(flushed - syncs <= 2, "all of it with one wait, and one for the journal");
}

/// Those who close at the same time share a commit.
#[tokio::test]
async fn whoever_waits_at_the_moment_shares_a_commit() {
    let it = Arc::new(Fixture::with_ttl_in_background(Duration::from_secs(1000)));
    it.provider
        .inject(Operation::Upload, Times::Always, Fault::Stall(Gate::new()));
    it.names(Ino::ROOT).await;
    let mut handles = Vec::new();
    for number in 0..200 {
        let name = format!("f{number}");
        let made = it
            .fs
            .create(Ino::ROOT, os(&name), Access::Write, 0o644, 0)
            .await
            .unwrap();
        handles.push(made.1.handle);
    }
    it.fs.journal().caught_up().await;
    let (before, _) = it.fs.journal().costs();
    // Somebody else writes to the database, so that all of them have to wait.
    let other = rusqlite::Connection::open(it.state_database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let closing: Vec<_> = handles
        .into_iter()
        .map(|handle| {
            let it = Arc::clone(&it);
            tokio::spawn(async move { it.fs.flush(handle).await.unwrap() })
        })
        .collect();
    // One thread runs the tasks: each has handed in its change before this goes on.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    other.execute_batch("COMMIT").unwrap();
    for closing in closing {
        closing.await.unwrap();
    }
    let (after, _) = it.fs.journal().costs();
    assert!(after - before <= 5, "{} commits for 200 files", after - before);
}

#[tokio::test(start_paused = true)]
async fn no_more_is_staged_than_allowed_and_nothing_of_it_is_lost() {
    let it = Fixture::with_room_for(10_000);
    let gate = Gate::new();
    it.provider
        .inject(Operation::Upload, Times::Next(2), Fault::Stall(gate.clone()));
    it.write("a", &[1; 4000]).await;
    it.write("b", &[2; 4000]).await;
    assert_eq!(it.fs.staged_bytes(), 8000);
    let (_, opened) = it.fs.create(Ino::ROOT, os("c"), Access::Write, 0o644, 0).await.unwrap();
    let write = |offset, len| it.fs.write(opened.handle, Some(offset), Bytes::from(vec![3; len]));
    write(0, 2000).await.unwrap();
    let refused = write(2000, 1).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoSpace);
    assert!(refused.message().contains("--staging-size"), "{refused}");
    write(0, 2000).await.unwrap();
    assert_eq!(it.fs.staged_bytes(), 10_000, "at no moment more");
    assert_eq!(it.read("a").await, [1; 4000]);
    gate.open();
    while it.fs.pending().len() > 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    write(2000, 2000).await.unwrap();
    it.fs.flush(opened.handle).await.unwrap();
    it.close(opened.handle).await;
    it.sent().await;
    assert_eq!(it.store.content("a").unwrap(), vec![1; 4000]);
    assert_eq!(it.store.content("b").unwrap(), vec![2; 4000]);
    assert_eq!(it.store.content("c").unwrap(), vec![3; 4000]);
    it.fs.journal().caught_up().await;
    assert_eq!(it.fs.staged_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_fit_at_the_provider_is_refused_when_it_is_written() {
    let it = Fixture::in_background();
    it.write("old", &[1; 600]).await;
    it.sent().await;
    it.store.set_quota(Some(1000));
    let _ = it.fs.statistics();
    while it.fs.statistics().blocks > 1 {
        tokio::task::yield_now().await;
    }
    let (_, opened) = it
        .fs
        .create(Ino::ROOT, os("new"), Access::Write, 0o644, 0)
        .await
        .unwrap();
    let write = |handle, len| it.fs.write(handle, Some(0), Bytes::from(vec![2; len]));
    write(opened.handle, 400).await.unwrap();
    assert_eq!(write(opened.handle, 401).await.unwrap_err().kind(), ErrorKind::Quota);
    let ino = it.ino("old").await;
    let old = it.fs.open(ino, Access::Write).await.unwrap();
    assert_eq!(
        write(old.handle, 601).await.unwrap_err().kind(),
        ErrorKind::Quota,
        "what waits takes room, too"
    );
    write(old.handle, 600).await.unwrap();
    // Somebody makes room: before the next refusal the provider is asked.
    it.store.set_quota(None);
    tokio::time::sleep(Duration::from_secs(6)).await;
    write(opened.handle, 401).await.unwrap();
}

/// A hundred files that fit one by one, and not together, aren't taken only to be refused by the provider later.
#[tokio::test(start_paused = true)]
async fn what_waits_and_what_was_sent_since_take_room_at_the_provider() {
    let it = Fixture::in_background();
    it.store.set_quota(Some(50_000));
    let _ = it.fs.statistics();
    while it.fs.statistics().blocks > 100 {
        tokio::task::yield_now().await;
    }
    let gate = Gate::new();
    it.provider
        .inject(Operation::Upload, Times::Always, Fault::Stall(gate.clone()));
    let write = async |name: &str, len: usize| {
        let made = it.fs.create(Ino::ROOT, os(name), Access::Write, 0o644, 0).await;
        let (_, opened) = made.unwrap();
        let written = it.fs.write(opened.handle, Some(0), Bytes::from(vec![1; len])).await;
        if written.is_err() {
            it.fs.unlink(Ino::ROOT, os(name)).await.unwrap();
        }
        it.fs.flush(opened.handle).await.unwrap();
        it.close(opened.handle).await;
        written.map_err(|error| error.kind())
    };
    for number in 0..5 {
        write(&format!("f{number}"), 10_000).await.unwrap();
    }
    assert_eq!(write("beyond", 1).await, Err(ErrorKind::Quota));
    let asked = it.provider.calls(Operation::Usage);
    gate.open();
    it.sent().await;
    assert_eq!(
        write("beyond", 1).await,
        Err(ErrorKind::Quota),
        "what was sent is there"
    );
    // What takes the place of something is as large as before.
    it.write("f0", &[2; 10_000]).await;
    it.sent().await;
    assert!(
        asked <= 2 && it.provider.calls(Operation::Usage) <= 4,
        "not with every write"
    );
    it.store.set_quota(None);
    tokio::time::sleep(Duration::from_secs(6)).await;
    write("beyond", 1).await.unwrap();
}

/// Nobody has to ask `df` first.
#[tokio::test(start_paused = true)]
async fn who_writes_much_learns_what_room_there_is() {
    let it = Fixture::in_background();
    it.store.set_quota(Some(1 << 20));
    it.provider
        .inject(Operation::Upload, Times::Always, Fault::Stall(Gate::new()));
    let (_, opened) = it.fs.create(Ino::ROOT, os("a"), Access::Write, 0o644, 0).await.unwrap();
    let mut refused = None;
    for number in 0..40 {
        let bytes = Bytes::from(vec![1; 1 << 20]);
        if let Err(error) = it.fs.write(opened.handle, Some(number << 20), bytes).await {
            refused = Some((number, error.kind()));
            break;
        }
        tokio::task::yield_now().await;
    }
    let (number, kind) = refused.unwrap();
    assert_eq!(kind, ErrorKind::Quota);
    assert!(number >= 16, "little costs no question");
    assert_eq!(it.provider.calls(Operation::Usage), 1);
}
