use std::collections::BTreeMap;

use super::*;
use crate::model::{Special, Version};

fn times(seconds: i64, nanos: u32) -> Option<LocalTimes> {
    let time = from_epoch(seconds, nanos);
    Some(LocalTimes {
        modified: time,
        accessed: time,
        version: Version::new("v1"),
    })
}

#[test]
fn what_was_set_outlives_the_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let set = LocalAttributes {
        mode: Some(0o755),
        times: times(-5, 999_999_999),
        standing: Standing::Ours,
        ..LocalAttributes::default()
    };
    StateDb::open(&path).unwrap().set_attributes("n", "a/b", &set).unwrap();
    let db = StateDb::open(&path).unwrap();
    assert_eq!(db.attributes("n", "a/b").unwrap(), set);
    assert_eq!(db.attributes("other", "a/b").unwrap(), LocalAttributes::default());
    db.set_attributes("n", "a/b", &LocalAttributes::default()).unwrap();
    assert_eq!(db.attributes("n", "a/b").unwrap(), LocalAttributes::default());
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn renaming_and_removing_take_what_is_below() {
    let folder = tempfile::tempdir().unwrap();
    let db = StateDb::open(&folder.path().join("state.db")).unwrap();
    let mode = |mode| LocalAttributes {
        mode: Some(mode),
        ..LocalAttributes::default()
    };
    for (number, path) in ["d", "d/a%_", "d/b/c", "dd", "e", "e/old"].iter().enumerate() {
        db.set_attributes("n", path, &mode(number as u32)).unwrap();
    }
    db.rename("n", "d", "e").unwrap();
    let shown = |path: &str| db.attributes("n", path).unwrap().mode;
    assert_eq!(
        [shown("e"), shown("e/a%_"), shown("e/b/c"), shown("dd")],
        [Some(0), Some(1), Some(2), Some(3)]
    );
    assert_eq!([shown("d"), shown("d/b/c"), shown("e/old")], [None; 3]);
    db.remove("n", "e/b").unwrap();
    assert_eq!([shown("e/b/c"), shown("e/a%_")], [None, Some(1)]);
    db.remove("n", "e").unwrap();
    assert_eq!([shown("e"), shown("e/a%_"), shown("dd")], [None, None, Some(3)]);
}

#[test]
fn what_waits_for_a_commit_is_seen_at_once_and_comes_with_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let mode = |mode| LocalAttributes {
        mode: Some(mode),
        ..LocalAttributes::default()
    };
    let db = StateDb::open(&path).unwrap();
    // As after `kill -9`: what another program finds meanwhile.
    let found = |path_in_mount: &str| {
        let other = StateDb::open(&path).unwrap();
        other.attributes("n", path_in_mount).unwrap().mode
    };
    let here = |path_in_mount: &str| db.attributes("n", path_in_mount).unwrap().mode;
    db.set_attributes_later("n", "d/a", &mode(1)).unwrap();
    db.set_attributes_later("n", "d/a", &mode(2)).unwrap();
    assert_eq!((here("d/a"), found("d/a")), (Some(2), None));
    db.set_attributes("n", "beside", &mode(3)).unwrap();
    assert_eq!(found("d/a"), Some(2), "in the same commit");
    // What waits belongs to the path of then.
    db.set_attributes_later("n", "d/a", &mode(4)).unwrap();
    db.rename("n", "d", "e").unwrap();
    assert_eq!((here("d/a"), here("e/a"), found("e/a")), (None, Some(4), Some(4)));
    db.set_attributes_later("n", "e/a", &mode(5)).unwrap();
    db.remove("n", "e").unwrap();
    assert_eq!((here("e/a"), found("e/a")), (None, None));
    // While nothing can be committed, it goes on waiting.
    let other = Connection::open(&path).unwrap();
    db.connection.lock().busy_timeout(Duration::ZERO).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    db.set_attributes_later("n", "f", &mode(6)).unwrap();
    assert!(db.keep_attributes().is_err());
    assert_eq!(here("f"), Some(6));
    other.execute_batch("ROLLBACK").unwrap();
    db.keep_attributes().unwrap();
    assert_eq!(found("f"), Some(6));
    db.set_attributes_later("n", "g", &mode(7)).unwrap();
    drop(db);
    assert_eq!(found("g"), Some(7), "nothing waits any more at the end");
}

#[test]
fn tidying_up_shortens_what_the_next_commits_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let db = StateDb::open(&path).unwrap();
    let log = folder.path().join("state.db-wal");
    let mut longest = 0;
    for number in 0..4 * MANY {
        let mode = LocalAttributes {
            mode: Some(number as u32),
            ..LocalAttributes::default()
        };
        db.set_attributes("n", "f", &mode).unwrap();
        if number % MANY == MANY - 1 {
            db.tidy().unwrap();
        }
        if number == 2 * MANY {
            longest = log.metadata().unwrap().len();
        }
    }
    assert_eq!(log.metadata().unwrap().len(), longest, "it is used again");
    assert_eq!(db.attributes("n", "f").unwrap().mode, Some(4 * MANY as u32 - 1));
}

#[test]
fn nodes_that_no_provider_has_move_with_their_directory_and_share_what_is_set() {
    let db = StateDb::in_memory().unwrap();
    let link = |ino, special| LocalAttributes {
        ino: Some(ino),
        changed: Some(from_epoch(7, 8)),
        special: Some(special),
        ..LocalAttributes::default()
    };
    let target = Special::Symlink((*b"../x\xff").into());
    db.set_attributes("n", "d/link", &link(5, target.clone())).unwrap();
    db.set_attributes("n", "d/deep/fifo", &link(6, Special::Fifo)).unwrap();
    db.set_attributes("n", "device", &link(7, Special::BlockDevice(0x0801)))
        .unwrap();
    db.set_attributes(
        "n",
        "d/plain",
        &LocalAttributes {
            mode: Some(0o600),
            ..Default::default()
        },
    )
    .unwrap();
    db.set_xattr("n", "d/plain", "colour", Some(&LocalXattr::Set(b"\0blue".to_vec())))
        .unwrap();
    db.rename("n", "d", "e").unwrap();
    let names = |directory: &str| -> Vec<String> {
        let found = db.specials("n", directory).unwrap();
        found.into_iter().map(|child| child.name).collect()
    };
    assert_eq!(
        [names("e"), names("e/deep"), names("")],
        [["link"], ["fifo"], ["device"]]
    );
    assert!(names("d").is_empty());
    assert_eq!(db.attributes("n", "e/link").unwrap(), link(5, target));
    db.set_xattr("n", "e/plain", "shape", Some(&LocalXattr::Removed))
        .unwrap();
    let kept = [
        ("colour".to_owned(), LocalXattr::Set(b"\0blue".to_vec())),
        ("shape".to_owned(), LocalXattr::Removed),
    ];
    assert_eq!(db.xattrs("n", "e/plain").unwrap(), kept.into());
    db.set_attributes("n", "second", &link(6, Special::Fifo)).unwrap();
    assert_eq!(db.special_names("n", 6).unwrap(), 2);
    let painted = LocalAttributes {
        uid: Some(3),
        ..link(6, Special::Fifo)
    };
    db.set_special("n", 6, &painted).unwrap();
    assert_eq!(
        [db.attributes("n", "second"), db.attributes("n", "e/deep/fifo")].map(Result::unwrap),
        [painted.clone(), painted]
    );
    db.remove("n", "e").unwrap();
    assert_eq!(
        (db.special_names("n", 6).unwrap(), db.xattrs("n", "e/plain").unwrap()),
        (1, BTreeMap::new())
    );
}

#[test]
fn what_is_kept_in_a_directory_is_found_whatever_its_names_are() {
    let db = StateDb::in_memory().unwrap();
    let attributes = LocalAttributes {
        mode: Some(0o600),
        ..LocalAttributes::default()
    };
    let last = char::MAX;
    let paths = ["", "a", "a.b", "a/b", "a0", "z"].map(str::to_owned).into_iter();
    for path in paths.chain([format!("{last}x"), format!("a/{last}x"), format!("a/b/{last}x")]) {
        db.set_attributes("n", &path, &attributes).unwrap();
    }
    db.set_attributes_later("n", "a/later", &attributes).unwrap();
    for (directory, expected) in [
        (
            "",
            vec![
                "a".to_owned(),
                "a.b".to_owned(),
                "a0".to_owned(),
                "z".to_owned(),
                format!("{last}x"),
            ],
        ),
        ("a", vec!["b".to_owned(), "later".to_owned(), format!("{last}x")]),
        ("none", Vec::new()),
    ] {
        let found = db.attributes_in("n", directory).unwrap();
        let mut names: Vec<_> = found.by_name.keys().cloned().collect();
        names.sort();
        assert_eq!(names, expected, "{directory}");
        assert!(names.iter().all(|name| found.of(name) == attributes));
        let kept = db.kept_names("n", directory, from_epoch(9_000, 0), None, 100).unwrap();
        assert_eq!(kept.next, None, "{directory}");
    }
}

#[test]
fn what_is_kept_of_names_that_are_gone_is_found_and_forgotten() {
    let db = StateDb::in_memory().unwrap();
    let old = from_epoch(1_000, 0);
    let set = |path: &str, changed: SystemTime, special: Option<Special>| {
        let attributes = LocalAttributes {
            changed: Some(changed),
            special,
            ..LocalAttributes::default()
        };
        db.set_attributes("n", path, &attributes).unwrap();
        db.set_xattr("n", path, "x", Some(&LocalXattr::Set(vec![1]))).unwrap();
    };
    for path in [
        "d/a", "d/a-b", "d/a.b", "d/a/b", "d/a/c/d", "d/a0", "d/z/deep", "d0", "other",
    ] {
        set(path, old, None);
    }
    set("d/a/fifo", old, Some(Special::Fifo));
    set("d/young", from_epoch(5_000, 0), None);
    let names = |directory: &str, from: Option<&str>, most| {
        db.kept_names("n", directory, from_epoch(2_000, 0), from, most).unwrap()
    };
    let all = names("d", None, 100);
    assert_eq!(all.names, ["a", "a-b", "a.b", "a", "a0", "z"]);
    assert_eq!(all.next, None);
    let mut steps = names("d", None, 2);
    let mut seen = steps.names.clone();
    while let Some(from) = &steps.next {
        steps = names("d", Some(from), 2);
        seen.extend(steps.names.clone());
    }
    assert_eq!(seen, all.names);
    assert_eq!(names("", None, 100).names, ["d", "d0", "other"]);
    db.forget_gone("n", "d/a").unwrap();
    assert_eq!(names("d", None, 100).names, ["a-b", "a.b", "a0", "z"]);
    assert!(db.xattrs("n", "d/a/b").unwrap().is_empty());
    assert_eq!(db.xattrs("n", "d/a/fifo").unwrap().len(), 1, "only this host has it");
    assert!(db.attributes("n", "d/a/fifo").unwrap().special.is_some());
    assert_eq!(db.xattrs("n", "d/a-b").unwrap().len(), 1);
}

#[test]
fn a_damaged_database_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    std::fs::write(&path, vec![7; 8192]).unwrap();
    let db = StateDb::open(&path).unwrap();
    db.set_attributes(
        "n",
        "a",
        &LocalAttributes {
            mode: Some(1),
            ..LocalAttributes::default()
        },
    )
    .unwrap();
    let names: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        names.iter().any(|name| name.starts_with("state.db.corrupt-")),
        "{names:?}"
    );
}

#[test]
fn a_newer_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    drop(StateDb::open(&path).unwrap());
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    let refused = StateDb::open(&path).map(drop).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(refused.message().contains("newer keymount"), "{refused}");
}

#[test]
fn times_before_1970_keep_their_nanoseconds() {
    for (seconds, nanos) in [(0, 0), (-1, 500_000_000), (-1, 0), (1_600_000_000, 123_456_789)] {
        assert_eq!(since_epoch(from_epoch(seconds, nanos)), (seconds, nanos));
    }
}

mod tree {
    use std::sync::Arc;

    use super::*;
    use crate::model::{ContentAddress, IndexId, Indexed, IndexedContent, IndexedFile, Name};
    use crate::state::Shared;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn file(letter: &str, size: u64) -> IndexedFile {
        IndexedFile {
            address: ContentAddress::new(&letter.repeat(46)).unwrap(),
            size,
            sha256: Some(letter.repeat(64)),
        }
    }

    fn put(index: &PathIndex, parent: IndexId, text: &str, file: IndexedFile) -> Result<Indexed> {
        index.insert(parent, &name(text), &IndexedContent::File(file), from_epoch(7, 8))
    }

    fn make(index: &PathIndex, parent: IndexId, text: &str) -> IndexId {
        let made = index.insert(parent, &name(text), &IndexedContent::Directory, from_epoch(1, 0));
        made.unwrap().id
    }

    fn kind<T>(outcome: &Result<T>) -> Option<ErrorKind> {
        outcome.as_ref().err().map(Error::kind)
    }

    #[test]
    fn the_tree_outlives_the_daemon_and_its_neighbours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let open =
            |namespace: &str| PathIndex::open(Arc::new(StateDb::open(&path).unwrap()), namespace, Shared::No).unwrap();
        let made = {
            let index = open("one");
            let directory = make(&index, index.root(), "d");
            put(&index, directory, "ü %", file("a", u64::MAX)).unwrap()
        };
        let index = open("one");
        let directory = index.child(index.root(), &name("d")).unwrap();
        let found = index.child(directory.id, &name("ü %")).unwrap();
        assert_eq!(found, made);
        assert_eq!(
            (found.modified, found.file()),
            (from_epoch(7, 8), Some(&file("a", u64::MAX)))
        );
        assert_eq!(index.path(found.id).unwrap(), [name("d"), name("ü %")]);
        assert!(index.path(index.root()).unwrap().is_empty());
        assert_eq!(index.uses(&file("a", 0).address).unwrap(), 1);
        let other = open("two");
        assert_ne!(other.root(), index.root());
        assert!(other.children(other.root()).unwrap().is_empty());
    }

    #[test]
    fn ids_are_never_given_twice() {
        let index = PathIndex::open(Arc::new(StateDb::in_memory().unwrap()), "n", Shared::No).unwrap();
        let first = put(&index, index.root(), "f", file("a", 1)).unwrap();
        index.remove(first.id).unwrap();
        let second = put(&index, index.root(), "f", file("a", 1)).unwrap();
        assert_ne!(first.id, second.id);
        assert_eq!(kind(&index.entry(first.id)), Some(ErrorKind::NotFound));
        assert_eq!(kind(&index.remove(first.id)), Some(ErrorKind::NotFound));
    }

    #[test]
    fn what_must_not_be_changed_is_not() {
        let index = PathIndex::open(Arc::new(StateDb::in_memory().unwrap()), "n", Shared::No).unwrap();
        let root = index.root();
        let directory = make(&index, root, "d");
        let inside = put(&index, directory, "f", file("a", 1)).unwrap();
        assert_eq!(
            kind(&put(&index, root, "d", file("a", 1))),
            Some(ErrorKind::AlreadyExists)
        );
        assert_eq!(
            kind(&put(&index, inside.id, "x", file("a", 1))),
            Some(ErrorKind::NotADirectory)
        );
        assert_eq!(
            kind(&put(&index, IndexId(99), "x", file("a", 1))),
            Some(ErrorKind::NotFound)
        );
        assert_eq!(kind(&index.children(inside.id)), Some(ErrorKind::NotADirectory));
        assert_eq!(kind(&index.remove(directory)), Some(ErrorKind::NotEmpty));
        let stale = file("b", 1).address;
        let replaced = index.replace(inside.id, &stale, &file("c", 1), from_epoch(1, 0));
        assert_eq!(kind(&replaced), Some(ErrorKind::Changed));
        let below = make(&index, directory, "below");
        let moved = index.relocate(directory, below, &name("x"), None);
        assert_eq!(kind(&moved), Some(ErrorKind::InvalidInput));
        let other = put(&index, root, "other", file("b", 1)).unwrap();
        let moved = index.relocate(other.id, directory, &name("f"), None);
        assert_eq!(kind(&moved), Some(ErrorKind::AlreadyExists));
        let seen = Indexed {
            content: IndexedContent::File(file("z", 1)),
            ..inside.clone()
        };
        let moved = index.relocate(other.id, directory, &name("f"), Some(&seen));
        assert_eq!(kind(&moved), Some(ErrorKind::AlreadyExists), "it was replaced unseen");
        let full = index.entry(directory).unwrap();
        let moved = index.relocate(other.id, root, &name("d"), Some(&full));
        assert_eq!(kind(&moved), Some(ErrorKind::IsADirectory));
        assert_eq!(index.entry(inside.id).unwrap(), inside);
        index.relocate(other.id, directory, &name("f"), Some(&inside)).unwrap();
        assert_eq!(kind(&index.entry(inside.id)), Some(ErrorKind::NotFound));
    }

    #[test]
    fn an_immutable_folder_goes_as_a_whole() {
        let index = PathIndex::open(Arc::new(StateDb::in_memory().unwrap()), "n", Shared::No).unwrap();
        let content = IndexedContent::Folder(file("f", 0).address);
        let folder = index
            .insert(index.root(), &name("d"), &content, from_epoch(1, 0))
            .unwrap();
        let inner = index.insert(folder.id, &name("d"), &content, from_epoch(1, 0)).unwrap();
        let inside = put(&index, inner.id, "f", file("a", 1)).unwrap();
        assert_eq!([folder.sealed, inner.sealed, inside.sealed], [false, true, true]);
        index.remove(folder.id).unwrap();
        assert_eq!(kind(&index.entry(inside.id)), Some(ErrorKind::NotFound));
        assert_eq!(index.uses(&file("a", 1).address).unwrap(), 0);
    }
}

fn listed(name: &str) -> crate::model::Entry {
    use crate::model::{Entry, Kind, Name, ObjectKey, Rights};
    Entry {
        key: ObjectKey::new(format!("key of {name}")),
        name: Name::new(name).unwrap(),
        kind: if name.starts_with('d') {
            Kind::Directory
        } else {
            Kind::File
        },
        size: 7,
        modified: from_epoch(-5, 999_999_999),
        version: Version::new("v1"),
        rights: "rd".parse::<Rights>().unwrap(),
        labels: [("a".to_owned(), "ä".to_owned())].into(),
        posix: crate::model::ToldAttributes::default(),
    }
}

#[test]
fn listings_come_back_as_they_were_and_to_whom_they_belong() {
    use crate::model::{ObjectKey, PosixAttributes, ToldAttributes};
    let db = StateDb::in_memory().unwrap();
    let mut entries = [listed("d"), listed("f"), listed("told"), listed("untold")];
    let told = PosixAttributes {
        mode: Some(0o741),
        xattrs: [("a;=".to_owned(), vec![0, 255])].into(),
        ..PosixAttributes::default()
    };
    entries[2].posix = told.into();
    entries[3].posix = ToldAttributes::Untold;
    let directory = ObjectKey::new("here");
    let keep = |namespace: &str| {
        let listing = KeptListing {
            directory: directory.clone(),
            entries: entries.iter().collect(),
        };
        db.keep_listings(namespace, &[listing], MOST_BYTES).unwrap();
    };
    keep("mine");
    let of = |namespace: &str| db.listing(namespace, &directory).unwrap();
    assert_eq!(of("mine").as_deref(), Some(&entries[..]));
    assert_eq!(of("other"), None);
    keep("other");
    db.forget_listings("mine", [&directory]).unwrap();
    assert_eq!((of("mine"), of("other").is_some()), (None, true));
    db.connection
        .lock()
        .execute("UPDATE listings SET entries = X'5B7B'", [])
        .unwrap();
    assert_eq!(of("other"), None, "what can't be read is not known");
    keep("other");
    db.forget_all_listings("other").unwrap();
    assert_eq!(of("other"), None);
}

#[test]
fn the_oldest_listings_go_first() {
    use crate::model::ObjectKey;
    let db = StateDb::in_memory().unwrap();
    let entry = listed("f");
    let keep = |number: u32, most: u64| {
        let listing = KeptListing {
            directory: ObjectKey::new(number.to_string()),
            entries: vec![&entry; 10],
        };
        db.keep_listings("n", &[listing], most).unwrap();
    };
    let there = || {
        let known = |number: &u32| db.listing("n", &ObjectKey::new(number.to_string())).unwrap().is_some();
        (0..6).filter(known).collect::<Vec<u32>>()
    };
    for number in 0..4 {
        keep(number, MOST_BYTES);
    }
    keep(0, MOST_BYTES);
    let one: i64 = db
        .connection
        .lock()
        .query_row("SELECT max(bytes) FROM listings", [], |row| row.get(0))
        .unwrap();
    keep(5, 3 * one as u64);
    assert_eq!(there(), [0, 3, 5], "it was written again later than the others");
}
