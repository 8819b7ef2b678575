//! The file system without a kernel: every operation against the reference provider, with faults on demand.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod ahead;
mod backing;
#[path = "../support/cludz.rs"]
#[allow(dead_code)]
mod client;
mod conflicts;
mod faults;
mod journal;
mod kept;
#[path = "../support/kernel.rs"]
mod kernel;
mod missing;
mod outbox;
mod partial;
mod posix;
mod races;
mod service;
mod shared;
#[path = "../support/steps.rs"]
mod steps;
mod stress;
mod support;
mod unanswered;
mod versions;
mod watch;

use std::ffi::OsStr;
use std::sync::Arc;

use bytes::Bytes;
use kernel::open_emptied;
use keymount::fs::{Access, AttributeChange, Child, HandleReads, Ino, RenameMode, SetMode};
use keymount::model::{ErrorKind, Kind, Rights};
use keymount::provider::faulty::{Fault, Operation, Times};
use support::{Fixture, os};

#[tokio::test]
async fn a_new_file_reaches_the_provider_at_flush() {
    let it = Fixture::new();
    let (found, opened) = it.begin(Ino::ROOT, "new.txt", 0o644, b"hello").await;
    assert_eq!(it.store.content("new.txt"), None);
    assert_eq!(it.names(Ino::ROOT).await, ["new.txt"], "it is listed before it is sent");
    it.fs.flush(opened.handle).await.unwrap();
    assert_eq!(it.store.content("new.txt").unwrap(), "hello");
    it.close(opened.handle).await;
    assert_eq!(it.read("new.txt").await, b"hello");
    assert_eq!(it.fs.attributes(found.attributes.ino).await.unwrap().attributes.size, 5);
}

#[tokio::test]
async fn an_empty_file_is_made_too() {
    let it = Fixture::new();
    it.write("empty", b"").await;
    assert_eq!(it.store.content("empty").unwrap(), "");
}

#[tokio::test]
async fn a_part_is_changed_and_the_rest_stays() {
    let it = Fixture::new();
    it.store.put("a", "0123456789").unwrap();
    let ino = it.ino("a").await;
    let opened = it.fs.open(ino, Access::ReadWrite).await.unwrap();
    it.fs
        .write(opened.handle, Some(3), Bytes::from_static(b"xy"))
        .await
        .unwrap();
    assert_eq!(it.fs.read(opened.handle, 0, 100).await.unwrap(), "012xy56789");
    it.fs
        .write(opened.handle, None, Bytes::from_static(b"+"))
        .await
        .unwrap();
    it.fs.fsync(opened.handle).await.unwrap();
    assert_eq!(it.store.content("a").unwrap(), "012xy56789+");
    it.close(opened.handle).await;
}

#[tokio::test]
async fn truncation_works_open_and_closed() {
    let it = Fixture::new();
    it.store.put("a", "0123456789").unwrap();
    let ino = it.ino("a").await;
    it.fs
        .set_attributes(
            ino,
            AttributeChange {
                size: Some(4),
                ..Default::default()
            },
        )
        .await
        .unwrap();
    assert_eq!(it.store.content("a").unwrap(), "0123");
    it.fs
        .set_attributes(
            ino,
            AttributeChange {
                size: Some(6),
                ..Default::default()
            },
        )
        .await
        .unwrap();
    assert_eq!(it.store.content("a").unwrap(), "0123\0\0");
    let opened = open_emptied(&it.fs, ino, Access::Write).await.unwrap();
    assert_eq!(it.fs.attributes(ino).await.unwrap().attributes.size, 0);
    it.fs.flush(opened.handle).await.unwrap();
    it.close(opened.handle).await;
    assert_eq!(it.store.content("a").unwrap(), "");
}

#[tokio::test]
async fn an_editors_save_replaces_in_one_step() {
    let it = Fixture::new();
    it.store.put("text", "old").unwrap();
    let before = it.ino("text").await;
    it.write(".text.tmp", b"new").await;
    it.fs
        .rename(
            (Ino::ROOT, os(".text.tmp")),
            (Ino::ROOT, os("text")),
            RenameMode::Replace,
        )
        .await
        .unwrap();
    assert_eq!(it.store.content("text").unwrap(), "new");
    assert_eq!(it.store.content(".text.tmp"), None);
    assert_eq!(it.names(Ino::ROOT).await, ["text"]);
    assert_ne!(it.ino("text").await, before);
    assert_eq!(it.read("text").await, b"new");
}

#[tokio::test]
async fn a_file_that_was_never_sent_is_renamed_here_and_sent_as_the_new_version() {
    let it = Fixture::new();
    it.store.put("text", "old").unwrap();
    let (_, opened) = it.begin(Ino::ROOT, "tmp", 0o644, b"new").await;
    it.fs
        .rename((Ino::ROOT, os("tmp")), (Ino::ROOT, os("text")), RenameMode::Replace)
        .await
        .unwrap();
    assert_eq!(it.provider.calls(Operation::Rename), 0);
    assert_eq!(it.store.content("text").unwrap(), "old");
    it.fs.flush(opened.handle).await.unwrap();
    it.close(opened.handle).await;
    assert_eq!(it.store.content("text").unwrap(), "new");
    assert_eq!(it.names(Ino::ROOT).await, ["text"]);
}

#[tokio::test]
async fn rename_minds_what_is_there() {
    let it = Fixture::new();
    it.store.put("a", "a").unwrap();
    it.store.put("b", "b").unwrap();
    it.store.put("full/x", "x").unwrap();
    it.store.make_directory("empty").unwrap();
    let rename = async |from: &str, to: &str, mode| {
        let outcome = it.fs.rename((Ino::ROOT, os(from)), (Ino::ROOT, os(to)), mode).await;
        outcome.map_err(|error| error.kind())
    };
    assert_eq!(
        rename("a", "b", RenameMode::KeepExisting).await,
        Err(ErrorKind::AlreadyExists)
    );
    assert_eq!(
        rename("a", "empty", RenameMode::Replace).await,
        Err(ErrorKind::IsADirectory)
    );
    assert_eq!(
        rename("empty", "a", RenameMode::Replace).await,
        Err(ErrorKind::NotADirectory)
    );
    assert_eq!(
        rename("empty", "full", RenameMode::Replace).await,
        Err(ErrorKind::NotEmpty)
    );
    assert_eq!(rename("none", "x", RenameMode::Replace).await, Err(ErrorKind::NotFound));
    assert_eq!(rename("a", "a", RenameMode::Replace).await, Ok(()));
    assert_eq!(rename("a", "c", RenameMode::KeepExisting).await, Ok(()));
    assert_eq!(it.names(Ino::ROOT).await, ["b", "c", "empty", "full"]);
}

#[tokio::test]
async fn files_below_a_renamed_directory_keep_working() {
    let it = Fixture::new();
    it.store.put("d/e/f", "deep").unwrap();
    let folder = it.ino("d").await;
    let inner = it.child(folder, "e").await;
    let file = it.child(inner, "f").await;
    it.fs
        .rename((Ino::ROOT, os("d")), (Ino::ROOT, os("moved")), RenameMode::Replace)
        .await
        .unwrap();
    assert_eq!(it.fs.attributes(file).await.unwrap().attributes.size, 4);
    let opened = it.fs.open(file, Access::ReadWrite).await.unwrap();
    it.fs
        .write(opened.handle, None, Bytes::from_static(b"er"))
        .await
        .unwrap();
    it.fs.flush(opened.handle).await.unwrap();
    it.close(opened.handle).await;
    assert_eq!(it.store.content("moved/e/f").unwrap(), "deeper");
}

#[tokio::test]
async fn removing_minds_kinds_and_contents() {
    let it = Fixture::new();
    it.store.put("d/f", "x").unwrap();
    let folder = it.ino("d").await;
    assert_eq!(
        it.fs.unlink(Ino::ROOT, os("d")).await.unwrap_err().kind(),
        ErrorKind::IsADirectory
    );
    assert_eq!(
        it.fs.remove_directory(Ino::ROOT, os("d")).await.unwrap_err().kind(),
        ErrorKind::NotEmpty
    );
    assert_eq!(
        it.fs.remove_directory(folder, os("f")).await.unwrap_err().kind(),
        ErrorKind::NotADirectory
    );
    it.fs.unlink(folder, os("f")).await.unwrap();
    it.fs.remove_directory(Ino::ROOT, os("d")).await.unwrap();
    assert!(it.store.snapshot().is_empty());
    assert_eq!(
        it.fs.unlink(Ino::ROOT, os("d")).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn an_unlinked_file_that_was_changed_is_not_sent() {
    let it = Fixture::new();
    let (_, opened) = it
        .fs
        .create(Ino::ROOT, os("tmp"), Access::ReadWrite, 0o644, 0)
        .await
        .unwrap();
    it.fs
        .write(opened.handle, Some(0), Bytes::from_static(b"scratch"))
        .await
        .unwrap();
    it.fs.unlink(Ino::ROOT, os("tmp")).await.unwrap();
    assert_eq!(it.fs.read(opened.handle, 0, 10).await.unwrap(), "scratch");
    it.fs.flush(opened.handle).await.unwrap();
    it.close(opened.handle).await;
    assert!(it.store.snapshot().is_empty());
    assert_eq!(it.provider.calls(Operation::Upload), 0);
}

#[tokio::test]
async fn what_could_not_be_sent_stays_readable_and_is_sent_later() {
    let it = Fixture::new();
    it.provider
        .inject(Operation::Upload, Times::Next(2), Fault::Fail(ErrorKind::Unreachable));
    let (_, opened) = it.begin(Ino::ROOT, "important", 0o644, b"kept").await;
    assert_eq!(
        it.fs.flush(opened.handle).await.unwrap_err().kind(),
        ErrorKind::Unreachable
    );
    it.close(opened.handle).await;
    let pending = it.fs.pending();
    assert_eq!(
        (pending.len(), pending[0].path.as_str(), pending[0].bytes),
        (1, "important", 4)
    );
    assert!(pending[0].error.is_some());
    assert_eq!(it.read("important").await, b"kept");

    let folder = tempfile::tempdir().unwrap();
    let copies = it.fs.export_unsent(folder.path()).unwrap();
    assert_eq!(std::fs::read(&copies[0]).unwrap(), b"kept");

    it.fs.drain().await.unwrap();
    assert_eq!(it.store.content("important").unwrap(), "kept");
    assert!(it.fs.pending().is_empty());
}

#[tokio::test]
async fn a_remote_change_is_not_overwritten_by_an_older_edit() {
    let it = Fixture::new();
    it.store.put("shared", "v1").unwrap();
    let ino = it.ino("shared").await;
    let opened = it.fs.open(ino, Access::ReadWrite).await.unwrap();
    it.fs
        .write(opened.handle, Some(0), Bytes::from_static(b"mine"))
        .await
        .unwrap();
    it.store.put("shared", "theirs").unwrap();
    it.names(Ino::ROOT).await;
    assert_eq!(it.fs.flush(opened.handle).await.unwrap_err().kind(), ErrorKind::Changed);
    it.close(opened.handle).await;
    assert_eq!(it.store.content("shared").unwrap(), "theirs");
    // It is sent under another name.
    assert!(it.fs.pending().is_empty());
    let names = it.names(Ino::ROOT).await;
    assert!(names[1].starts_with("shared (conflict from "), "{names:?}");
    assert_eq!(it.store.content(&names[1]).unwrap(), "mine");
}

#[tokio::test]
async fn a_handle_keeps_its_version_or_says_stale() {
    let it = Fixture::new();
    it.store.put("a", "version one").unwrap();
    let ino = it.ino("a").await;
    let old = it.fs.open(ino, Access::Read).await.unwrap();
    it.store.put("a", "version two").unwrap();
    assert_eq!(
        it.fs.read(old.handle, 0, 20).await.unwrap_err().kind(),
        ErrorKind::Changed
    );
    let new = it.fs.open(ino, Access::Read).await.unwrap();
    assert!(matches!(new.reads, HandleReads::Anew));
    assert_eq!(it.fs.read(new.handle, 0, 20).await.unwrap(), "version two");
    let again = it.fs.open(ino, Access::Read).await.unwrap();
    assert!(matches!(again.reads, HandleReads::KeepPages));
}

#[tokio::test]
async fn a_reader_follows_what_this_mount_writes() {
    let it = Fixture::new();
    it.store.put("log", "one").unwrap();
    let ino = it.ino("log").await;
    let reader = it.fs.open(ino, Access::Read).await.unwrap();
    assert_eq!(it.fs.read(reader.handle, 0, 20).await.unwrap(), "one");
    let writer = it.fs.open(ino, Access::Write).await.unwrap();
    it.fs
        .write(writer.handle, None, Bytes::from_static(b" two"))
        .await
        .unwrap();
    assert_eq!(it.fs.read(reader.handle, 0, 20).await.unwrap(), "one two");
    it.fs.flush(writer.handle).await.unwrap();
    it.close(writer.handle).await;
    assert_eq!(it.fs.read(reader.handle, 0, 20).await.unwrap(), "one two");
}

#[tokio::test]
async fn remote_edits_show_after_the_ttl() {
    let it = Fixture::new();
    it.store.put("a", "1").unwrap();
    assert_eq!(it.names(Ino::ROOT).await, ["a"]);
    it.store.put("b", "2").unwrap();
    it.store.remove("a").unwrap();
    assert_eq!(it.names(Ino::ROOT).await, ["b"]);
    assert_eq!(
        it.fs.lookup(Ino::ROOT, os("a")).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn within_the_ttl_nothing_is_asked_twice() {
    let it = Fixture::with_ttl(std::time::Duration::from_secs(3600));
    for n in 0..20 {
        it.store.put(&format!("f{n}"), "x").unwrap();
    }
    it.names(Ino::ROOT).await;
    it.provider.reset_counts();
    for n in 0..20 {
        let ino = it.ino(&format!("f{n}")).await;
        it.fs.attributes(ino).await.unwrap();
    }
    assert_eq!(
        it.fs.lookup(Ino::ROOT, os("none")).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(it.names(Ino::ROOT).await.len(), 20);
    assert_eq!(it.provider.all_calls(), 0);
    it.write("f20", b"new").await;
    it.fs.unlink(Ino::ROOT, os("f3")).await.unwrap();
    let names = it.names(Ino::ROOT).await;
    assert!(names.contains(&"f20".to_owned()) && !names.contains(&"f3".to_owned()));
    assert_eq!(it.provider.calls(Operation::List), 0);
}

/// Each right of the table, with the calls that it refuses.
#[tokio::test]
async fn rights_are_enforced_whatever_the_caller_is() {
    for rights in ["rwd", "rw", "rd", "r", "w", "wd", "d", ""] {
        let it = Fixture::new();
        it.store.put("file", "x").unwrap();
        it.store.put("other", "y").unwrap();
        it.store.make_directory("folder").unwrap();
        let granted: Rights = rights.parse().unwrap();
        it.store.set_rights("", granted).unwrap();
        it.fs.refresh().await.unwrap();
        let ino = it.ino("file").await;
        let can = |granted: bool| if granted { Ok(()) } else { Err(ErrorKind::Denied) };

        let list = it.fs.open_directory(Ino::ROOT).await.map(drop).map_err(|e| e.kind());
        assert_eq!(list, can(granted.read), "list with {rights:?}");
        let read = it.fs.open(ino, Access::Read).await.map(drop).map_err(|e| e.kind());
        assert_eq!(read, can(granted.read), "read with {rights:?}");
        let write = open_emptied(&it.fs, ino, Access::Write)
            .await
            .map(drop)
            .map_err(|e| e.kind());
        assert_eq!(write, can(granted.write), "write with {rights:?}");
        let chmod = AttributeChange {
            mode: Some(0o600),
            ..Default::default()
        };
        let chmod = it.fs.set_attributes(ino, chmod).await.map(drop).map_err(|e| e.kind());
        assert_eq!(chmod, can(granted.write), "chmod with {rights:?}");
        let create = it
            .fs
            .create(Ino::ROOT, os("new"), Access::Write, 0o644, 0)
            .await
            .map(drop)
            .map_err(|e| e.kind());
        assert_eq!(create, can(granted.write), "create with {rights:?}");
        let mkdir = it
            .fs
            .make_directory(Ino::ROOT, os("dir"), 0o755, 0)
            .await
            .map(drop)
            .map_err(|e| e.kind());
        assert_eq!(mkdir, can(granted.write), "mkdir with {rights:?}");
        let rename = async |to: &str| {
            let renamed = it
                .fs
                .rename((Ino::ROOT, os("file")), (Ino::ROOT, os(to)), RenameMode::Replace)
                .await;
            renamed.map_err(|error| error.kind())
        };
        assert_eq!(
            rename("other").await,
            can(granted.write && granted.delete),
            "rename over with {rights:?}"
        );
        let unlink = it.fs.unlink(Ino::ROOT, os("other")).await.map_err(|e| e.kind());
        assert_eq!(unlink, can(granted.delete), "unlink with {rights:?}");
        let rmdir = it
            .fs
            .remove_directory(Ino::ROOT, os("folder"))
            .await
            .map_err(|e| e.kind());
        assert_eq!(rmdir, can(granted.delete), "rmdir with {rights:?}");
        assert!(it.fs.attributes(Ino::ROOT).await.is_ok(), "stat with {rights:?}");
    }
}

#[tokio::test]
async fn a_read_only_mount_answers_so() {
    let it = Fixture::read_only();
    it.store.put("file", "x").unwrap();
    let ino = it.ino("file").await;
    assert_eq!(
        it.fs.open(ino, Access::Write).await.unwrap_err().kind(),
        ErrorKind::ReadOnly
    );
    assert_eq!(
        it.fs.unlink(Ino::ROOT, os("file")).await.unwrap_err().kind(),
        ErrorKind::ReadOnly
    );
    let created = it.fs.create(Ino::ROOT, os("new"), Access::Write, 0o644, 0).await;
    assert_eq!(created.map(drop).unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(it.fs.attributes(ino).await.unwrap().attributes.mode, 0o444);
}

#[tokio::test]
async fn modes_and_times_that_were_set_are_kept() {
    let it = Fixture::new();
    it.write("script", b"#!/bin/sh\n").await;
    let ino = it.ino("script").await;
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_600_000_000, 123_456_789);
    let change = AttributeChange {
        mode: Some(0o755),
        modified: Some(time),
        ..Default::default()
    };
    it.fs.set_attributes(ino, change).await.unwrap();
    it.fs
        .rename(
            (Ino::ROOT, os("script")),
            (Ino::ROOT, os("renamed")),
            RenameMode::Replace,
        )
        .await
        .unwrap();
    let again = it.remount();
    let shown = again.fs.lookup(Ino::ROOT, os("renamed")).await.unwrap().attributes;
    assert_eq!((shown.mode, shown.modified), (0o755, time));
    again.write("renamed", b"changed").await;
    let shown = again.fs.lookup(Ino::ROOT, os("renamed")).await.unwrap().attributes;
    assert_eq!(shown.mode, 0o755, "a chosen mode outlives the content");
    assert_ne!(shown.modified, time, "a chosen time doesn't");
    again.fs.unlink(Ino::ROOT, os("renamed")).await.unwrap();
    again.write("renamed", b"another file").await;
    assert_eq!(
        again.fs.lookup(Ino::ROOT, os("renamed")).await.unwrap().attributes.mode,
        0o644
    );
}

#[tokio::test]
async fn owners_cannot_be_given_away() {
    let it = Fixture::new();
    it.write("f", b"").await;
    let ino = it.ino("f").await;
    let own = AttributeChange {
        uid: Some(1000),
        gid: Some(1000),
        ..Default::default()
    };
    it.fs.set_attributes(ino, own).await.unwrap();
    let foreign = AttributeChange {
        uid: Some(4321),
        ..Default::default()
    };
    assert_eq!(
        it.fs.set_attributes(ino, foreign).await.map(drop).unwrap_err().kind(),
        ErrorKind::NotPermitted
    );
}

#[tokio::test]
async fn labels_are_extended_attributes() {
    let it = Fixture::new();
    it.write("f", b"x").await;
    let ino = it.ino("f").await;
    it.fs
        .set_xattr(ino, os("user.color"), b"blue", SetMode::Any)
        .await
        .unwrap();
    assert_eq!(it.fs.get_xattr(ino, os("user.color")).await.unwrap(), b"blue");
    assert!(it.fs.list_xattrs(ino).await.unwrap().contains(&"user.color".to_owned()));
    let again = it.fs.set_xattr(ino, os("user.color"), b"red", SetMode::Create).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);
    it.fs.remove_xattr(ino, os("user.color")).await.unwrap();
    assert_eq!(
        it.fs.get_xattr(ino, os("user.color")).await.unwrap_err().kind(),
        ErrorKind::NoAttribute
    );
    let own = it
        .fs
        .set_xattr(ino, os("user.keymount.rights"), b"rwd", SetMode::Any)
        .await;
    assert_eq!(own.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(it.fs.get_xattr(ino, os("user.keymount.rights")).await.unwrap(), b"rwd");
    assert_eq!(
        it.fs.get_xattr(ino, os("user.keymount.provider")).await.unwrap(),
        b"memory"
    );
    let other = it.fs.set_xattr(ino, os("trusted.x"), b"1", SetMode::Any).await;
    assert_eq!(other.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn the_last_error_is_told_in_words() {
    let it = Fixture::new();
    it.write("f", b"x").await;
    let ino = it.ino("f").await;
    it.provider
        .inject(Operation::Stat, Times::Next(1), Fault::Fail(ErrorKind::BadData));
    let error = it.fs.attributes(ino).await.unwrap_err();
    it.fs.note(ino, &error);
    let told = it.fs.get_xattr(ino, os("user.keymount.last_error")).await.unwrap();
    assert_eq!(String::from_utf8(told).unwrap(), error.message());
    assert_eq!(it.fs.problems().len(), 1);
}

#[tokio::test]
async fn a_listing_keeps_its_order_while_it_is_read() {
    let it = Fixture::new();
    for n in 0..10 {
        it.store.put(&format!("f{n}"), "x").unwrap();
    }
    let handle = it.fs.open_directory(Ino::ROOT).await.unwrap();
    let first = it.fs.read_directory(handle, 0).await.unwrap();
    it.store.remove("f4").unwrap();
    let second = it.fs.read_directory(handle, 5).await.unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(
        first
            .iter()
            .map(|entry| entry.name.as_str())
            .take(2)
            .collect::<Vec<_>>(),
        [".", ".."]
    );
    assert!(first.iter().skip(2).all(|entry| entry.kind == Kind::File));
    let rewound = it.fs.read_directory(handle, 0).await.unwrap();
    assert_eq!(rewound.len(), first.len() - 1);
    it.fs.close_directory(handle);
}

#[tokio::test]
async fn df_never_waits_for_the_provider() {
    let it = Fixture::new();
    it.provider
        .inject(Operation::Usage, Times::Always, Fault::Stall(Default::default()));
    let shown = it.fs.statistics();
    assert!(shown.blocks > 0 && shown.free <= shown.blocks);
}

#[tokio::test]
async fn names_that_the_provider_cannot_hold_are_refused_at_once() {
    let it = Fixture::new();
    let long = "x".repeat(256);
    let created = it.fs.create(Ino::ROOT, os(&long), Access::Write, 0o644, 0).await;
    assert_eq!(created.map(drop).unwrap_err().kind(), ErrorKind::NameTooLong);
    let bytes: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(&[0xff, 0xfe]);
    let created: Result<(Child, _), _> = it.fs.create(Ino::ROOT, bytes, Access::Write, 0o644, 0).await;
    assert_eq!(created.map(drop).unwrap_err().kind(), ErrorKind::InvalidName);
    assert_eq!(it.provider.all_calls(), 0);
}

#[tokio::test]
async fn what_is_known_is_shown_while_nobody_answers() {
    for kind in [ErrorKind::Unreachable, ErrorKind::NeedsLogin, ErrorKind::TimedOut] {
        let it = Fixture::new();
        it.store.put("d/known", "cached").unwrap();
        it.store.put("never-listed/x", "x").unwrap();
        let (folder, other) = (it.ino("d").await, it.ino("never-listed").await);
        assert_eq!(it.names(folder).await, ["known"]);
        let ino = it.child(folder, "known").await;
        let opened = it.fs.open(ino, Access::Read).await.unwrap();
        assert_eq!(it.fs.read(opened.handle, 0, 10).await.unwrap(), "cached");
        for operation in [Operation::Stat, Operation::List, Operation::Lookup, Operation::Read] {
            it.provider.inject(operation, Times::Always, Fault::Fail(kind));
        }
        assert_eq!(it.fs.attributes(ino).await.unwrap().attributes.size, 6);
        assert_eq!(it.child(folder, "known").await, ino);
        assert_eq!(it.names(folder).await, ["known"]);
        assert_eq!(it.fs.get_xattr(ino, os("user.keymount.state")).await.unwrap(), b"stale");
        let again = it.fs.open(ino, Access::Read).await.unwrap();
        assert_eq!(it.fs.read(again.handle, 0, 10).await.unwrap(), "cached");
        assert_eq!(it.fs.lookup(other, os("unknown")).await.unwrap_err().kind(), kind);
        // So that it can be made.
        let unknown = it.fs.lookup(folder, os("unknown")).await.unwrap_err();
        assert_eq!(unknown.kind(), ErrorKind::NotFound);
        it.provider.heal();
        it.store.put("d/known", "changed").unwrap();
        it.fs.refresh().await.unwrap();
        assert_eq!(it.fs.attributes(ino).await.unwrap().attributes.size, 7);
    }
}

/// The kernel forgets a name that it is not to rely on, and asks again.
#[tokio::test]
async fn what_was_listed_is_found_again_while_nobody_answers() {
    for kind in [ErrorKind::Unreachable, ErrorKind::NeedsLogin, ErrorKind::TimedOut] {
        let it = Fixture::new();
        it.store.put("d/known", "cached").unwrap();
        let folder = it.ino("d").await;
        assert_eq!(it.names(folder).await, ["known"]);
        let ino = it.child(folder, "known").await;
        let opened = it.fs.open(ino, Access::Read).await.unwrap();
        assert_eq!(it.fs.read(opened.handle, 0, 10).await.unwrap(), "cached");
        it.close(opened.handle).await;
        for operation in [Operation::Stat, Operation::List, Operation::Lookup, Operation::Read] {
            it.provider.inject(operation, Times::Always, Fault::Fail(kind));
        }
        for _ in 0..2 {
            it.fs.forget(ino, 1);
            assert_eq!(it.child(folder, "known").await, ino);
        }
        let again = it.fs.open(ino, Access::Read).await.unwrap();
        assert_eq!(it.fs.read(again.handle, 0, 10).await.unwrap(), "cached");
        it.close(again.handle).await;
        it.fs.forget(ino, 1);
        it.provider.heal();
        it.store.remove("d/known").unwrap();
        it.fs.refresh().await.unwrap();
        let gone = it.fs.lookup(folder, os("known")).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
    }
}

/// A kernel that is short of memory forgets directories, too, and what was found by its path only.
#[tokio::test]
async fn what_is_known_is_found_again_when_the_kernel_has_forgotten_all_of_it() {
    for (kind, is_listed) in [
        (ErrorKind::Unreachable, true),
        (ErrorKind::NeedsLogin, true),
        (ErrorKind::TimedOut, true),
        (ErrorKind::NeedsLogin, false),
    ] {
        let it = Fixture::new();
        it.store.put("d/e/known", "cached").unwrap();
        let all = async || {
            let outer = it.child(Ino::ROOT, "d").await;
            let inner = it.child(outer, "e").await;
            [outer, inner, it.child(inner, "known").await]
        };
        let read = async |ino: Ino| {
            let opened = it.fs.open(ino, Access::Read).await.unwrap();
            assert_eq!(it.fs.read(opened.handle, 0, 10).await.unwrap(), "cached");
            it.close(opened.handle).await;
        };
        let forget = |all: [Ino; 3]| {
            for ino in all.into_iter().rev() {
                it.fs.forget(ino, 1);
            }
            assert_eq!(it.fs.known(), 1, "nobody needs any of it");
        };
        let before = all().await;
        if is_listed {
            for (directory, name) in [(Ino::ROOT, "d"), (before[0], "e"), (before[1], "known")] {
                assert_eq!(it.names(directory).await, [name]);
            }
        }
        read(before[2]).await;
        forget(before);
        for operation in [Operation::Stat, Operation::List, Operation::Lookup, Operation::Read] {
            it.provider.inject(operation, Times::Always, Fault::Fail(kind));
        }
        for _ in 0..2 {
            let again = all().await;
            assert_eq!(again, before);
            if is_listed {
                assert_eq!(it.names(again[1]).await, ["known"]);
            }
            read(again[2]).await;
            forget(again);
        }
        it.provider.heal();
        it.store.remove("d/e/known").unwrap();
        it.store.remove("d/e").unwrap();
        it.fs.refresh().await.unwrap();
        let outer = it.child(Ino::ROOT, "d").await;
        let gone = it.fs.lookup(outer, os("e")).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
        it.fs.forget(outer, 1);
        assert_eq!(it.fs.known(), 1);
    }
}

/// Some providers give a file another key when somebody replaces it.
#[tokio::test]
async fn a_file_that_was_replaced_under_its_name_is_found_again() {
    let it = Fixture::with_ids();
    it.store.put("a", "one").unwrap();
    let ino = it.ino("a").await;
    it.store.remove("a").unwrap();
    it.store.put("a", "second").unwrap();
    assert_eq!(it.fs.attributes(ino).await.unwrap().attributes.size, 6);
    let opened = it.fs.open(ino, Access::Read).await.unwrap();
    assert_eq!(it.fs.read(opened.handle, 0, 10).await.unwrap(), "second");
    it.store.remove("a").unwrap();
    assert_eq!(it.fs.attributes(ino).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_rename_over_a_file_that_changed_meanwhile_keeps_both() {
    let it = Fixture::with_ttl(std::time::Duration::from_secs(3600));
    it.store.put("new", "new").unwrap();
    it.store.put("old", "v1").unwrap();
    it.names(Ino::ROOT).await;
    it.store.put("old", "v2").unwrap();
    let rename = async || {
        let (from, to) = ((Ino::ROOT, os("new")), (Ino::ROOT, os("old")));
        it.fs.rename(from, to, RenameMode::Replace).await.unwrap();
    };
    rename().await;
    assert_eq!(it.store.content("old").unwrap(), "v2");
    let names = it.names(Ino::ROOT).await;
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[1].starts_with("old (conflict from "), "{names:?}");
    assert_eq!(it.store.content(&names[1]).unwrap(), "new");
    // What was seen may be replaced.
    it.store.put("new", "newer").unwrap();
    it.fs.refresh().await.unwrap();
    rename().await;
    assert_eq!(it.store.content("old").unwrap(), "newer");
}

/// Not every provider's directories have versions that tell.
#[tokio::test]
async fn a_directorys_chosen_time_ends_with_the_next_change_in_it() {
    for change in ["create", "mkdir", "unlink", "rmdir", "rename"] {
        let it = Fixture::with_ttl(std::time::Duration::from_secs(3600));
        it.store.put("d/file", "x").unwrap();
        it.store.make_directory("d/sub").unwrap();
        let folder = it.ino("d").await;
        it.names(folder).await;
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(86400);
        let chosen = AttributeChange {
            modified: Some(old),
            ..Default::default()
        };
        it.fs.set_attributes(folder, chosen).await.unwrap();
        assert_eq!(it.fs.attributes(folder).await.unwrap().attributes.modified, old);
        match change {
            "create" => {
                drop(it.fs.create(folder, os("new"), Access::Write, 0o644, 0).await.unwrap());
            }
            "mkdir" => drop(it.fs.make_directory(folder, os("new"), 0o755, 0).await.unwrap()),
            "unlink" => it.fs.unlink(folder, os("file")).await.unwrap(),
            "rmdir" => it.fs.remove_directory(folder, os("sub")).await.unwrap(),
            _ => it
                .fs
                .rename((folder, os("file")), (Ino::ROOT, os("file")), RenameMode::Replace)
                .await
                .unwrap(),
        }
        let shown = it.fs.attributes(folder).await.unwrap().attributes.modified;
        assert_ne!(shown, old, "after {change}");
    }
}
