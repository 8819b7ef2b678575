//! Directories: made, listed, looked into, missing.

use std::collections::BTreeSet;

use futures_util::stream::{self, StreamExt};
use keymount::model::ErrorKind;

use super::Outcome::{self, Passed};
use super::helpers::{Bench, kind, name};

pub async fn a_deep_tree(bench: &Bench) -> Outcome {
    let mut at = bench.root.clone();
    for level in 0..20 {
        at = bench.make_directory(&at, &format!("level {level}")).await.key;
    }
    bench.put(&at, "leaf", b"deep").await;
    let mut at = bench.root.clone();
    for level in 0..20 {
        at = bench.lookup(&at, &format!("level {level}")).await.unwrap().key;
    }
    assert_eq!(bench.content(&at, "leaf").await, b"deep");
    Passed
}

pub async fn many_entries_in_one_directory(bench: &Bench) -> Outcome {
    let folder = bench.make_directory(&bench.root, "many").await;
    let names: BTreeSet<String> = (0..300).map(|i| format!("file-{i:03}")).collect();
    stream::iter(&names)
        .for_each_concurrent(8, async |text| {
            bench.put(&folder.key, text, text.as_bytes()).await;
        })
        .await;
    assert_eq!(bench.names(&folder.key).await, names);
    assert_eq!(bench.content(&folder.key, "file-177").await, b"file-177");
    Passed
}

pub async fn an_empty_directory(bench: &Bench) -> Outcome {
    let folder = bench.make_directory(&bench.root, "empty").await;
    assert!(bench.names(&folder.key).await.is_empty());
    let again = bench.provider.stat(&folder).await.unwrap();
    assert_eq!((again.key, again.kind), (folder.key, folder.kind));
    Passed
}

pub async fn create_over_an_existing_name_is_refused(bench: &Bench) -> Outcome {
    let folder = bench.make_directory(&bench.root, "folder").await;
    bench.put(&folder.key, "inside", b"kept").await;
    bench.put(&bench.root, "file", b"kept").await;
    for text in ["folder", "file"] {
        let refused = bench.provider.create_directory(&bench.root, &name(text)).await;
        assert_eq!(kind(&refused), Some(ErrorKind::AlreadyExists), "{text}");
    }
    assert_eq!(bench.content(&folder.key, "inside").await, b"kept");
    assert_eq!(bench.content(&bench.root, "file").await, b"kept");
    Passed
}

pub async fn list_of_a_file(bench: &Bench) -> Outcome {
    for bytes in [&b"[]"[..], b"", br#"{"data":[]}"#] {
        let file = bench.put(&bench.root, "file", bytes).await;
        let refused = bench.provider.list(&file.key).await;
        assert_eq!(kind(&refused), Some(ErrorKind::NotADirectory), "{bytes:?}");
        bench.provider.remove_file(&file).await.unwrap();
    }
    Passed
}

pub async fn list_of_a_missing_directory(bench: &Bench) -> Outcome {
    let gone = bench.make_directory(&bench.root, "gone").await;
    bench.provider.remove_directory(&gone).await.unwrap();
    assert_eq!(kind(&bench.provider.list(&gone.key).await), Some(ErrorKind::NotFound));
    Passed
}

pub async fn lookup_of_a_missing_name(bench: &Bench) -> Outcome {
    let folder = bench.make_directory(&bench.root, "folder").await;
    bench.put(&folder.key, "prefix-and-more", b"x").await;
    for text in ["missing", "prefix", "prefix-and-more "] {
        let missing = bench.lookup(&folder.key, text).await;
        assert_eq!(kind(&missing), Some(ErrorKind::NotFound), "{text:?}");
    }
    Passed
}

pub async fn stat_of_a_removed_entry(bench: &Bench) -> Outcome {
    let file = bench.put(&bench.root, "file", b"x").await;
    let folder = bench.make_directory(&bench.root, "folder").await;
    bench.provider.remove_file(&file).await.unwrap();
    bench.provider.remove_directory(&folder).await.unwrap();
    for gone in [&file, &folder] {
        assert_eq!(kind(&bench.provider.stat(gone).await), Some(ErrorKind::NotFound));
    }
    // The other kind in its place is another object.
    bench.make_directory(&bench.root, "file").await;
    assert_eq!(kind(&bench.provider.stat(&file).await), Some(ErrorKind::NotFound));
    Passed
}

pub async fn changes_in_a_missing_directory(bench: &Bench) -> Outcome {
    let gone = bench.make_directory(&bench.root, "gone").await;
    bench.provider.remove_directory(&gone).await.unwrap();
    let refused = bench.provider.create_directory(&gone.key, &name("inside")).await;
    assert_eq!(kind(&refused), Some(ErrorKind::NotFound), "create a directory");
    for bytes in [&b"x"[..], b""] {
        let refused = bench.try_put(&gone.key, "file", bytes).await;
        assert_eq!(kind(&refused), Some(ErrorKind::NotFound), "upload {bytes:?}");
    }
    let refused = bench.lookup(&gone.key, "file").await;
    assert_eq!(kind(&refused), Some(ErrorKind::NotFound), "lookup");
    assert!(bench.names(&bench.root).await.is_empty());
    Passed
}
