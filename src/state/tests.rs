use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::model::ErrorKind;

fn database() -> (TempDir, StateDb) {
    let folder = tempfile::tempdir().unwrap();
    let database = StateDb::open(&folder.path().join("state.db")).unwrap();
    (folder, database)
}

fn mode(mode: u32) -> AttributeChanges {
    AttributeChanges {
        mode: Change::Set(mode),
        ..AttributeChanges::default()
    }
}

async fn modes(database: &StateDb, namespace: &str, directory: &str) -> Vec<(String, u32)> {
    let children = database.children(namespace, directory).await.unwrap();
    let modes = children.into_iter().map(|(name, set)| (name, set.mode.unwrap()));
    modes.collect()
}

#[tokio::test]
async fn each_attribute_is_set_kept_and_cleared_by_itself() {
    let (_folder, database) = database();
    assert_eq!(
        database.attributes("n", "a/b").await.unwrap(),
        LocalAttributes::default()
    );
    let time = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
    database.set_attributes("n", "a/b", mode(0o4755)).await.unwrap();
    let times = AttributeChanges {
        modified: Change::Set(time),
        accessed: Change::Set(UNIX_EPOCH - Duration::from_nanos(1)),
        ..AttributeChanges::default()
    };
    let expected = LocalAttributes {
        mode: Some(0o4755),
        modified: Some(time),
        accessed: Some(UNIX_EPOCH - Duration::from_nanos(1)),
    };
    assert_eq!(database.set_attributes("n", "a/b", times).await.unwrap(), expected);
    assert_eq!(database.attributes("n", "a/b").await.unwrap(), expected);
    assert_eq!(
        database.attributes("m", "a/b").await.unwrap(),
        LocalAttributes::default()
    );
    let clear = AttributeChanges {
        mode: Change::Clear,
        modified: Change::Clear,
        accessed: Change::Clear,
    };
    database.set_attributes("n", "a/b", clear).await.unwrap();
    assert!(database.children("n", "a").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_directory_gives_its_children_and_not_theirs() {
    let (_folder, database) = database();
    for (path, bits) in [
        ("", 0),
        ("a", 1),
        ("d", 2),
        ("d/x", 3),
        ("d/y", 4),
        ("d/y/z", 5),
        ("dd/x", 6),
    ] {
        database.set_attributes("n", path, mode(bits)).await.unwrap();
    }
    let pair = |name: &str, bits| (name.to_owned(), bits);
    assert_eq!(modes(&database, "n", "").await, [pair("a", 1), pair("d", 2)]);
    assert_eq!(modes(&database, "n", "d").await, [pair("x", 3), pair("y", 4)]);
    assert_eq!(database.attributes("n", "").await.unwrap().mode, Some(0));
}

#[tokio::test]
async fn what_is_set_survives_and_nobody_else_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep").join("state.db");
    let database = StateDb::open(&path).unwrap();
    database.set_attributes("n", "a", mode(0o700)).await.unwrap();
    for file in fs::read_dir(path.parent().unwrap()).unwrap() {
        let file = file.unwrap();
        assert_eq!(
            file.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{:?}",
            file.file_name()
        );
    }
    drop(database);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let database = StateDb::open(&path).unwrap();
    assert_eq!(database.attributes("n", "a").await.unwrap().mode, Some(0o700));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn two_daemons_share_it() {
    let (folder, one) = database();
    let other = StateDb::open(&folder.path().join("state.db")).unwrap();
    let tasks = (0..40).map(|i| {
        let database = if i % 2 == 0 { one.clone() } else { other.clone() };
        tokio::spawn(async move { database.set_attributes("n", &format!("d/{i:02}"), mode(i)).await })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap().unwrap();
    }
    assert_eq!(modes(&one, "n", "d").await.len(), 40);
    assert_eq!(modes(&one, "n", "d").await, modes(&other, "n", "d").await);
}

#[tokio::test]
async fn a_damaged_database_is_set_aside_and_replaced() {
    type Damage<'a> = &'a dyn Fn(&Path);
    let damages: [(&str, Damage); 2] = [
        ("no database", &|path| {
            fs::write(path, "not a database, but long enough to be one".repeat(100)).unwrap();
        }),
        ("pages of garbage", &|path| {
            let mut bytes = fs::read(path).unwrap();
            bytes[4096..].fill(0xa5);
            fs::write(path, bytes).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let (folder, database) = database();
        for i in 0..300 {
            database.set_attributes("n", &format!("d/{i}"), mode(i)).await.unwrap();
        }
        drop(database);
        let path = folder.path().join("state.db");
        damage(&path);
        let damaged = fs::read(&path).unwrap();
        let database = StateDb::open(&path).unwrap();
        assert!(database.children("n", "d").await.unwrap().is_empty(), "{what}");
        database.set_attributes("n", "a", mode(1)).await.unwrap();
        let names = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let aside: Vec<_> = names.filter(|name| name.starts_with("state.db.corrupt-")).collect();
        let [aside] = &aside[..] else {
            panic!("{what}: {aside:?}")
        };
        assert!(fs::read(folder.path().join(aside)).unwrap() == damaged, "{what}");
    }
}

#[tokio::test]
async fn a_newer_database_is_refused_and_left_as_it_is() {
    let (folder, database) = database();
    database.set_attributes("n", "a", mode(1)).await.unwrap();
    drop(database);
    let path = folder.path().join("state.db");
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let error = StateDb::open(&path).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("newer keymount"), "{error}");
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 1)
        .unwrap();
    let database = StateDb::open(&path).unwrap();
    assert_eq!(database.attributes("n", "a").await.unwrap().mode, Some(1));
}

/// Names that sort around the divider, one of them beyond ASCII.
fn path() -> impl Strategy<Value = String> {
    let name = prop_oneof![Just("a"), Just("a-"), Just("a0"), Just("é"), Just("%_")];
    proptest::collection::vec(name, 1..4).prop_map(|names| names.join("/"))
}

#[derive(Clone, Debug)]
enum Op {
    Set(String, u32),
    Rename(String, String),
    Remove(String),
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn subtrees_move_and_go_as_in_a_map(ops in proptest::collection::vec(prop_oneof![
        3 => (path(), 0u32..0o7777).prop_map(|(path, bits)| Op::Set(path, bits)),
        1 => (path(), path()).prop_map(|(from, to)| Op::Rename(from, to)),
        1 => path().prop_map(Op::Remove),
    ], 1..40)) {
        let (_folder, database) = database();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut model: BTreeMap<String, u32> = BTreeMap::new();
        let within = |path: &str, tree: &str| path == tree || path.starts_with(&format!("{tree}/"));
        for op in ops {
            match op {
                Op::Set(path, bits) => {
                    runtime.block_on(database.set_attributes("n", &path, mode(bits))).unwrap();
                    model.insert(path, bits);
                }
                // A directory cannot move into itself nor over one that holds it.
                Op::Rename(from, to) if within(&from, &to) || within(&to, &from) => {}
                Op::Rename(from, to) => {
                    runtime.block_on(database.rename("n", &from, &to)).unwrap();
                    model.retain(|path, _| !within(path, &to));
                    let renamed = |path: String| match within(&path, &from) {
                        true => format!("{to}{}", &path[from.len()..]),
                        false => path,
                    };
                    model = model.into_iter().map(|(path, bits)| (renamed(path), bits)).collect();
                }
                Op::Remove(path) => {
                    runtime.block_on(database.remove("n", &path)).unwrap();
                    model.retain(|other, _| !within(other, &path));
                }
            }
            let all: BTreeMap<String, u32> = {
                let connection = database.0.lock();
                let mut statement = connection
                    .prepare("SELECT ltrim(parent || '/' || name, '/'), mode FROM attributes WHERE namespace = 'n'")
                    .unwrap();
                let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
                rows.map(Result::unwrap).collect()
            };
            prop_assert_eq!(&all, &model);
        }
    }
}
