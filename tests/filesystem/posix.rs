//! What programs expect of a file system and no provider knows: files without a name, nodes that are no files, numbers
//! that last, times that stay.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use keymount::fs::{Access, AttributeChange, Attributes, Caller, Ino, RenameMode, SetMode};
use keymount::model::{ErrorKind, FileType, Special};

use crate::support::{Fixture, os};

async fn stat(it: &Fixture, ino: Ino) -> Attributes {
    it.fs.attributes(ino).await.unwrap().attributes
}

#[tokio::test]
async fn a_file_that_lost_its_name_goes_on_for_whoever_has_it_open() {
    let it = Fixture::new();
    it.store.put("removed", "some text").unwrap();
    it.store.put("replaced", "other text").unwrap();
    it.store.put("new", "newer").unwrap();
    let (removed, replaced) = (it.ino("removed").await, it.ino("replaced").await);
    let first = it.fs.open(removed, Access::ReadWrite).await.unwrap().handle;
    let second = it.fs.open(replaced, Access::Read).await.unwrap().handle;
    it.fs.unlink(Ino::ROOT, os("removed")).await.unwrap();
    let new = (Ino::ROOT, os("new"));
    it.fs
        .rename(new, (Ino::ROOT, os("replaced")), RenameMode::Replace)
        .await
        .unwrap();
    assert_eq!(&it.fs.read(first, 0, 100).await.unwrap()[..], b"some text");
    assert_eq!(&it.fs.read(second, 6, 100).await.unwrap()[..], b"text");
    it.fs.write(first, Some(5), Bytes::from_static(b"more")).await.unwrap();
    it.fs.fsync(first).await.unwrap();
    assert_eq!(&it.fs.read(first, 0, 100).await.unwrap()[..], b"some more");
    let shown = stat(&it, removed).await;
    assert_eq!((shown.size, shown.links, stat(&it, replaced).await.links), (9, 0, 0));
    it.fs.flush(first).await.unwrap();
    it.close(first).await;
    it.close(second).await;
    assert_eq!(it.names(Ino::ROOT).await, ["replaced"]);
    assert_eq!(it.store.content("replaced").unwrap(), "newer");
    assert_eq!(it.store.content("removed"), None);
    assert!(it.fs.pending().is_empty());
}

#[tokio::test]
async fn nodes_that_no_provider_has_are_there_after_the_next_mount() {
    let it = Fixture::new();
    let folder = it.fs.make_directory(Ino::ROOT, os("d"), 0o755, 0).await.unwrap().keep();
    let folder = folder.attributes.ino;
    let make = |name, special| it.fs.make_special(folder, os(name), special, 0o640);
    let target = Special::Symlink((*b"../some \xffwhere").into());
    let link = make("link", target).await.unwrap().keep().attributes;
    let fifo = make("fifo", Special::Fifo).await.unwrap().keep().attributes;
    make("device", Special::CharacterDevice(0x0103)).await.unwrap();
    assert_eq!((link.file_type, link.size, link.mode), (FileType::Symlink, 14, 0o777));
    assert_eq!((fifo.file_type, fifo.mode, fifo.links), (FileType::Fifo, 0o640, 1));
    let taken = make("fifo", Special::Socket).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    let second = it
        .fs
        .link(fifo.ino, Ino::ROOT, os("second"))
        .await
        .unwrap()
        .keep()
        .attributes;
    assert_eq!((second.ino, second.links), (fifo.ino, 2));
    it.fs
        .rename((folder, os("link")), (Ino::ROOT, os("moved")), RenameMode::Replace)
        .await
        .unwrap();

    let it = it.remount();
    assert_eq!(it.names(Ino::ROOT).await, ["d", "moved", "second"]);
    assert_eq!(it.ino("d").await, folder, "numbers last");
    assert_eq!(it.names(folder).await, ["device", "fifo"]);
    let moved = it.ino("moved").await;
    assert_eq!(
        (moved, it.fs.read_link(moved).unwrap()),
        (link.ino, b"../some \xffwhere".to_vec())
    );
    let device = stat(&it, it.child(folder, "device").await).await;
    assert_eq!((device.file_type, device.device), (FileType::CharacterDevice, 0x0103));
    assert_eq!(it.child(folder, "fifo").await, it.ino("second").await);
    let not_empty = it.fs.remove_directory(Ino::ROOT, os("d")).await.unwrap_err();
    assert_eq!(not_empty.kind(), ErrorKind::NotEmpty);
    for name in ["fifo", "device"] {
        it.fs.unlink(folder, os(name)).await.unwrap();
    }
    assert_eq!(stat(&it, fifo.ino).await.links, 1);
    it.fs.remove_directory(Ino::ROOT, os("d")).await.unwrap();
    it.fs.unlink(Ino::ROOT, os("second")).await.unwrap();
    assert_eq!(stat(&it, fifo.ino).await.links, 0);
    assert_eq!(it.remount().names(Ino::ROOT).await, ["moved"]);
}

#[tokio::test]
async fn what_only_this_host_has_and_what_the_provider_has_can_replace_each_other() {
    let it = Fixture::new();
    it.store.put("a", "file a").unwrap();
    it.store.put("b", "file b").unwrap();
    let link = Special::Symlink((*b"a").into());
    it.fs.make_special(Ino::ROOT, os("link"), link, 0o777).await.unwrap();
    let rename = |from: &'static str, to: &'static str| {
        it.fs
            .rename((Ino::ROOT, os(from)), (Ino::ROOT, os(to)), RenameMode::Replace)
    };
    rename("link", "b").await.unwrap();
    assert_eq!(it.store.content("b"), None);
    assert_eq!(it.fs.read_link(it.ino("b").await).unwrap(), b"a");
    it.store.put("b", "somebody else's").unwrap();
    assert_eq!(it.names(Ino::ROOT).await, ["a", "b"]);
    assert_eq!(
        it.fs.read_link(it.ino("b").await).unwrap(),
        b"a",
        "it hides what came later"
    );
    it.fs.unlink(Ino::ROOT, os("b")).await.unwrap();
    assert_eq!(it.read("b").await, b"somebody else's");
    it.fs
        .make_special(Ino::ROOT, os("fifo"), Special::Fifo, 0o600)
        .await
        .unwrap();
    rename("a", "fifo").await.unwrap();
    assert_eq!(it.read("fifo").await, b"file a");
    let file = it.ino("fifo").await;
    assert_eq!(
        it.fs.link(file, Ino::ROOT, os("hard")).await.unwrap_err().kind(),
        ErrorKind::NotPermitted
    );
    assert_eq!(it.names(Ino::ROOT).await, ["b", "fifo"]);
}

#[tokio::test(start_paused = true)]
async fn sending_a_file_changes_neither_its_times_nor_its_number() {
    let it = Fixture::in_background();
    let (child, opened) = it.begin(Ino::ROOT, "f", 0o4755, b"text").await;
    let ino = child.keep().attributes.ino;
    it.fs.flush(opened.handle).await.unwrap();
    let before = stat(&it, ino).await;
    it.close(opened.handle).await;
    it.sent().await;
    assert_eq!((stat(&it, ino).await, before.mode), (before, 0o4755));
    it.fs
        .rename((Ino::ROOT, os("f")), (Ino::ROOT, os("g")), RenameMode::Replace)
        .await
        .unwrap();
    let renamed = stat(&it, ino).await;
    assert!(renamed.changed > before.changed);
    assert_eq!(
        Attributes {
            changed: before.changed,
            ..renamed
        },
        before
    );
    let it = it.remount();
    assert_eq!(stat(&it, it.ino("g").await).await, renamed);
    it.store.put("g", "from elsewhere").unwrap();
    let theirs = stat(&it, it.ino("g").await).await;
    assert_eq!((theirs.size, theirs.ino), (14, ino));
    assert_ne!(
        theirs.modified, before.modified,
        "the times belong to the content of then"
    );
}

#[tokio::test]
async fn a_directory_has_the_times_of_what_happened_in_it() {
    let it = Fixture::new();
    let folder = it.fs.make_directory(Ino::ROOT, os("d"), 0o755, 0).await.unwrap().keep();
    let folder = folder.attributes.ino;
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000, 123_456_789);
    let aged = AttributeChange {
        modified: Some(old),
        accessed: Some(old),
        ..Default::default()
    };
    it.fs.set_attributes(folder, aged.clone()).await.unwrap();
    assert_eq!(
        it.remount()
            .fs
            .lookup(Ino::ROOT, os("d"))
            .await
            .unwrap()
            .attributes
            .modified,
        old
    );
    it.fs.make_directory(folder, os("sub"), 0o755, 0).await.unwrap().keep();
    let shown = stat(&it, folder).await;
    assert!(shown.modified > old && shown.changed >= shown.modified);
    assert_eq!((shown.accessed, shown.links), (old, 3));
    it.fs.set_attributes(folder, aged).await.unwrap();
    it.names(folder).await;
    assert_eq!(stat(&it, folder).await.modified, old);
    it.store.put("d/theirs", "x").unwrap();
    assert_eq!(it.names(folder).await, ["sub", "theirs"]);
    assert!(
        stat(&it, folder).await.modified > old,
        "somebody else's change counts too"
    );
    it.fs.remove_directory(folder, os("sub")).await.unwrap();
    assert_eq!(stat(&it, folder).await.links, 2);
}

#[tokio::test]
async fn attributes_that_a_label_cannot_hold_are_kept_here() {
    let it = Fixture::new();
    it.write("f", b"x").await;
    let ino = it.ino("f").await;
    let set = |value: &'static [u8], mode| it.fs.set_xattr(ino, os("user.x"), value, mode);
    set(b"text", SetMode::Any).await.unwrap();
    set(b"\xff\0", SetMode::Replace).await.unwrap();
    assert_eq!(
        set(b"", SetMode::Create).await.unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    let it = it.remount();
    let ino = it.ino("f").await;
    assert_eq!(it.fs.get_xattr(ino, os("user.x")).await.unwrap(), b"\xff\0");
    let names = it.fs.list_xattrs(ino).await.unwrap();
    assert_eq!(names.iter().filter(|name| *name == "user.x").count(), 1);
    it.fs.set_xattr(ino, os("user.x"), b"text", SetMode::Any).await.unwrap();
    assert_eq!(it.fs.get_xattr(ino, os("user.x")).await.unwrap(), b"text");
    it.fs.remove_xattr(ino, os("user.x")).await.unwrap();
    let gone = it.fs.remove_xattr(ino, os("user.x")).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NoAttribute);
}

#[tokio::test]
async fn where_owners_are_kept_things_belong_to_who_made_them() {
    let it = Fixture::with_kept_owners();
    let somebody = Caller { uid: 7, gid: 8 };
    let folder = it.fs.make_directory(Ino::ROOT, os("d"), 0o2775, 0).await.unwrap();
    let folder = it.fs.give_to(folder, Ino::ROOT, somebody).unwrap().keep().attributes;
    assert_eq!((folder.uid, folder.gid, folder.mode), (7, 8, 0o2775));
    let below = it.fs.make_directory(folder.ino, os("sub"), 0o755, 0).await.unwrap();
    let below = it
        .fs
        .give_to(below, folder.ino, Caller { uid: 9, gid: 9 })
        .unwrap()
        .keep();
    let below = below.attributes;
    assert_eq!(
        (below.uid, below.gid, below.mode),
        (9, 8, 0o2755),
        "the directory's group"
    );
    let change = AttributeChange {
        uid: Some(11),
        gid: Some(u32::MAX),
        ..Default::default()
    };
    it.fs.set_attributes(below.ino, change).await.unwrap();
    let shown = stat(&it, below.ino).await;
    assert_eq!((shown.uid, shown.gid), (11, 8));
}

#[tokio::test]
async fn two_names_are_exchanged_while_only_this_host_has_what_they_stand_for() {
    let it = Fixture::new();
    let folder = it.fs.make_directory(Ino::ROOT, os("d"), 0o755, 0).await.unwrap().keep();
    let folder = folder.attributes.ino;
    let mut handles = Vec::new();
    for (parent, name, mode) in [(Ino::ROOT, "one", 0o600), (folder, "other", 0o755)] {
        let made = it.fs.create(parent, os(name), Access::Write, mode, 0).await.unwrap();
        let number = made.0.keep().attributes.ino;
        let text = Bytes::copy_from_slice(name.as_bytes());
        it.fs.write(made.1.handle, Some(0), text).await.unwrap();
        handles.push((number, made.1.handle));
    }
    let (one, other) = ((Ino::ROOT, os("one")), (folder, os("other")));
    it.fs.exchange(one, other).await.unwrap();
    assert_eq!(it.child(Ino::ROOT, "one").await, handles[1].0);
    assert_eq!(it.child(folder, "other").await, handles[0].0);
    for (_, handle) in handles {
        it.fs.flush(handle).await.unwrap();
        it.close(handle).await;
    }
    assert_eq!(it.store.content("one").unwrap(), "other");
    assert_eq!(it.store.content("d/other").unwrap(), "one");
    assert_eq!(it.names(Ino::ROOT).await, ["d", "one"]);
    let refused = it.fs.exchange(one, other).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    let missing = it.fs.exchange(one, (folder, os("nothing"))).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    // Links are never at the provider.
    for name in ["first", "second"] {
        let target = Special::Symlink(name.as_bytes().into());
        it.fs
            .make_special(folder, os(name), target, 0o777)
            .await
            .unwrap()
            .keep();
    }
    let (first, second) = ((folder, os("first")), (folder, os("second")));
    it.fs.exchange(first, second).await.unwrap();
    let it = it.remount();
    let folder = it.ino("d").await;
    for (name, target) in [("first", "second"), ("second", "first")] {
        let link = it.child(folder, name).await;
        assert_eq!(it.fs.read_link(link).unwrap(), target.as_bytes());
    }
    // The modes went along.
    assert_eq!(stat(&it, it.ino("one").await).await.mode & 0o777, 0o755);
    assert_eq!(stat(&it, it.child(folder, "other").await).await.mode & 0o777, 0o600);
}
