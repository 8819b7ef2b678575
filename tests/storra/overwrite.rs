//! New content for a file that is there, whatever an upload or a move to a taken path would do.

use keymount::emulator::storra::{
    Account, Assumptions, MoveOnto, Overwrite, ReservedNames, SharedPath, TrashUse, Visibility,
};
use keymount::model::{Entry, ErrorKind};
use keymount::provider::Provider;

use super::{Bench, kind, name, place, read, root};

/// Each guess about taken paths with each other.
fn worlds() -> Vec<(Assumptions, TrashUse)> {
    let mut worlds = Vec::new();
    for overwrite in [Overwrite::Duplicate, Overwrite::Replace, Overwrite::Refuse] {
        for move_onto in [MoveOnto::Refuse, MoveOnto::Replace, MoveOnto::Duplicate] {
            for trash in [TrashUse::On, TrashUse::Off] {
                let assumptions = Assumptions {
                    overwrite,
                    move_onto,
                    shared_path: SharedPath::Newest,
                    ..Assumptions::default()
                };
                worlds.push((assumptions, trash));
            }
        }
    }
    worlds
}

fn holds_only(account: &Account, path: &str, bytes: &str) {
    assert_eq!(account.read_all(path), [bytes], "one content, and this one");
    assert_eq!(account.info(path).unwrap().visibility, Visibility::Private);
    assert_eq!(account.list("").unwrap(), [path], "nothing is left beside it");
}

#[tokio::test]
async fn a_replaced_file_is_one_private_file_with_the_new_content() {
    for (assumptions, trash) in worlds() {
        let bench = Bench::new(assumptions).await;
        bench.account.set_trash(trash);
        bench.put("file", b"old").await.unwrap();
        let old = bench.entry("file").await;
        let new = bench.replace(&old, b"new!").await.unwrap();
        holds_only(&bench.account, "file", "new!");
        assert_eq!(bench.entry("file").await, new);
        assert_eq!(read(&bench.storra, &new).await.unwrap(), b"new!");
        assert_eq!(kind(&read(&bench.storra, &old).await), Some(ErrorKind::Changed));
        let trashed = bench.account.trash();
        assert_eq!(trashed.len(), usize::from(trash == TrashUse::On), "{trashed:?}");
    }
}

#[tokio::test]
async fn a_rename_over_a_file_is_one_private_file_with_the_new_content() {
    for (assumptions, trash) in worlds() {
        let bench = Bench::new(assumptions).await;
        bench.account.set_trash(trash);
        bench.put("file", b"old").await.unwrap();
        let fresh = bench.put("file.tmp", b"new!").await.unwrap();
        let old = bench.entry("file").await;
        bench.rename_over(&fresh, &old).await.unwrap();
        holds_only(&bench.account, "file", "new!");
    }
}

/// Also when the last listing is a moment old: it is looked at again right before.
#[tokio::test]
async fn what_somebody_else_changed_is_not_replaced() {
    for edit in [
        (|account: &Account| account.put("file", "them").unwrap()) as fn(&Account),
        |account| assert!(account.remove("file")),
        |account| account.rename("file", "elsewhere").unwrap(),
        |account| {
            account.remove("file");
            account.mkdir("file/inside").unwrap();
        },
    ] {
        let bench = Bench::limited().await;
        bench.account.put("file", "this").unwrap();
        bench.account.put("file.tmp", "new!").unwrap();
        let (old, fresh) = (bench.entry("file").await, bench.entry("file.tmp").await);
        edit(&bench.account);
        let before = bench.account.visibilities();
        assert_eq!(kind(&bench.replace(&old, b"ours").await), Some(ErrorKind::Changed));
        assert_eq!(bench.account.visibilities(), before);
        if bench.account.exists("file") {
            assert_eq!(
                kind(&bench.rename_over(&fresh, &old).await),
                Some(ErrorKind::AlreadyExists)
            );
            assert_eq!(bench.account.visibilities(), before);
        }
    }
}

/// What the API takes for its own routes can be removed and replaced all the same.
#[tokio::test]
async fn names_of_routes_are_names() {
    for reserved_names in [ReservedNames::ApiFirst, ReservedNames::PathsFirst] {
        let bench = Bench::new(Assumptions {
            reserved_names,
            ..Assumptions::default()
        })
        .await;
        for taken in [
            "permissions",
            "trash",
            "files",
            "users",
            "move",
            "list",
            "info",
            "privacy",
        ] {
            let old = bench.put(taken, b"old").await.unwrap();
            let new = bench.replace(&old, b"new").await.unwrap();
            holds_only(&bench.account, taken, "new");
            bench.storra.remove_file(&new).await.unwrap();
            let folder = bench.storra.create_directory(&root(), &name(taken)).await.unwrap();
            bench.account.put(&format!("{taken}/inside"), "x").unwrap();
            let inside: Entry = bench.storra.lookup(&folder.key, &name("inside")).await.unwrap();
            bench.storra.remove_file(&inside).await.unwrap();
            bench.storra.remove_directory(&folder).await.unwrap();
            assert!(
                bench.account.list("").unwrap().is_empty(),
                "{taken}: {:?}",
                bench.account.list("")
            );
        }
    }
}

/// Removing takes what is in a folder with it, so it is looked into right before.
#[tokio::test]
async fn a_folder_that_somebody_filled_is_not_removed() {
    let bench = Bench::limited().await;
    let folder = bench.storra.create_directory(&root(), &name("folder")).await.unwrap();
    assert!(bench.storra.list(&folder.key).await.unwrap().is_empty());
    bench.account.put("folder/theirs", "x").unwrap();
    assert_eq!(
        kind(&bench.storra.remove_directory(&folder).await),
        Some(ErrorKind::NotEmpty)
    );
    assert_eq!(bench.account.read("folder/theirs").unwrap(), "x");
    let other = bench.storra.create_directory(&root(), &name("other")).await.unwrap();
    let over = bench
        .storra
        .rename(&other, &place("other"), &place("folder"), Some(&folder))
        .await;
    assert_eq!(kind(&over), Some(ErrorKind::NotEmpty));
    assert_eq!(bench.account.read("folder/theirs").unwrap(), "x");
}
