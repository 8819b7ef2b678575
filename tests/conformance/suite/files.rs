//! Uploads and the entries they make.

use std::sync::Arc;

use futures_util::future::join_all;
use keymount::model::{ErrorKind, Rights, ToldAttributes};
use keymount::provider::{Content, Target};
use sha2::{Digest, Sha256};

use super::Outcome::{self, NotApplicable, Passed};
use super::helpers::{Bench, check_file, kind, name, once_replaced, pattern};

pub async fn probe_gives_an_empty_writable_directory(bench: &Bench) -> Outcome {
    let root = bench.provider.probe().await.unwrap();
    assert!(root.is_directory());
    assert_eq!((root.size, root.rights), (0, Rights::ALL));
    match bench.fixture().workplace() {
        None => assert_eq!(root.key, bench.root, "the root's key is stable"),
        Some(workplace) => {
            let found = bench.lookup(&root.key, workplace).await.unwrap();
            assert_eq!(found.key, bench.root, "keys are stable");
            assert_eq!(bench.names(&root.key).await.len(), 1);
        }
    }
    assert!(bench.names(&bench.root).await.is_empty());
    assert!(!bench.provider.kind().is_empty());
    assert!(bench.provider.identity().starts_with(bench.provider.kind()));
    assert_eq!(bench.provider.identity(), bench.provider.identity());
    Passed
}

pub async fn an_empty_file(bench: &Bench) -> Outcome {
    bench.put(&bench.root, "empty.txt", b"").await;
    assert_eq!(bench.content(&bench.root, "empty.txt").await, b"");
    Passed
}

pub async fn a_small_file(bench: &Bench) -> Outcome {
    let entry = bench.put(&bench.root, "small.txt", b"hello\n").await;
    assert_eq!(bench.read(&entry).await, b"hello\n");
    assert_eq!(bench.content(&bench.root, "small.txt").await, b"hello\n");
    Passed
}

pub async fn a_large_file(bench: &Bench) -> Outcome {
    let bytes = pattern(5 * 1024 * 1024 + 7, 1);
    let entry = bench.put(&bench.root, "large.bin", &bytes).await;
    assert_eq!(Sha256::digest(bench.read(&entry).await), Sha256::digest(&bytes));
    Passed
}

pub async fn equal_contents_under_two_names(bench: &Bench) -> Outcome {
    let first = bench.put(&bench.root, "first", b"the same").await;
    let second = bench.put(&bench.root, "second", b"the same").await;
    assert_ne!(first.key, second.key);
    bench.provider.remove_file(&first).await.unwrap();
    assert_eq!(bench.read(&second).await, b"the same");
    Passed
}

pub async fn every_view_gives_the_same_entry(bench: &Bench) -> Outcome {
    let folder = bench.make_directory(&bench.root, "folder").await;
    let file = bench.put(&bench.root, "file.txt", b"content").await;
    for made in [&folder, &file] {
        let looked_up = bench.provider.lookup(&bench.root, &made.name).await.unwrap();
        let listed = bench.provider.list(&bench.root).await.unwrap();
        let listed = listed.iter().find(|entry| entry.name == made.name).unwrap();
        let stated = bench.provider.stat(made).await.unwrap();
        assert_eq!(looked_up, stated, "lookup and stat");
        let mut listed = listed.clone();
        if listed.posix == ToldAttributes::Untold {
            // A listing needn't tell them.
            listed.posix = stated.posix.clone();
        }
        assert_eq!(listed, stated, "list and stat");
        assert_eq!(
            (&made.key, &made.version, made.size, made.kind),
            (&stated.key, &stated.version, stated.size, stated.kind),
            "made and stat"
        );
    }
    Passed
}

pub async fn a_version_changes_with_the_content_only(bench: &Bench) -> Outcome {
    let one = bench.put(&bench.root, "file", b"one").await;
    bench.put(&bench.root, "neighbour", b"x").await;
    assert_eq!(bench.provider.stat(&one).await.unwrap().version, one.version);
    bench.read(&one).await;
    assert_eq!(bench.provider.stat(&one).await.unwrap().version, one.version);
    let two = bench.replace(&bench.root, &one, b"two").await;
    assert_ne!(two.version, one.version);
    assert_eq!(bench.provider.stat(&two).await.unwrap().version, two.version);
    Passed
}

pub async fn upload_over_an_existing_name_is_refused(bench: &Bench) -> Outcome {
    let old = bench.put(&bench.root, "taken", b"old").await;
    for bytes in [&b"new content"[..], b"old", b""] {
        let refused = bench.try_put(&bench.root, "taken", bytes).await;
        assert_eq!(kind(&refused), Some(ErrorKind::AlreadyExists), "{bytes:?}");
    }
    assert_eq!(bench.provider.stat(&old).await.unwrap().version, old.version);
    assert_eq!(bench.content(&bench.root, "taken").await, b"old");
    bench.make_directory(&bench.root, "folder").await;
    let refused = bench.try_put(&bench.root, "folder", b"x").await;
    assert_eq!(kind(&refused), Some(ErrorKind::AlreadyExists));
    assert_eq!(bench.names(&bench.root).await.len(), 2);
    Passed
}

pub async fn replace_the_expected_version(bench: &Bench) -> Outcome {
    let folder = bench.make_directory(&bench.root, "folder").await;
    let mut entry = bench.put(&folder.key, "file", b"0").await;
    for round in 1..4u64 {
        let bytes = pattern(1000 * round as usize, round);
        entry = bench.replace(&folder.key, &entry, &bytes).await;
        assert_eq!(bench.content(&folder.key, "file").await, bytes);
    }
    assert_eq!(bench.names(&folder.key).await.len(), 1, "nothing is left beside it");
    Passed
}

pub async fn replace_a_stale_version_is_refused(bench: &Bench) -> Outcome {
    let stale = bench.put(&bench.root, "file", b"first").await;
    let now = bench.replace(&bench.root, &stale, b"second").await;
    let refused = bench.try_replace(&bench.root, &stale, b"third").await;
    assert_eq!(kind(&refused), Some(ErrorKind::Changed));
    assert_eq!(bench.read(&now).await, b"second");
    assert_eq!(bench.names(&bench.root).await.len(), 1);
    Passed
}

pub async fn replace_a_removed_file_is_refused(bench: &Bench) -> Outcome {
    let gone = bench.put(&bench.root, "file", b"first").await;
    bench.provider.remove_file(&gone).await.unwrap();
    let refused = bench.try_replace(&bench.root, &gone, b"second").await;
    assert_eq!(kind(&refused), Some(ErrorKind::Changed));
    assert!(bench.names(&bench.root).await.is_empty());
    Passed
}

pub async fn replace_by_the_same_content(bench: &Bench) -> Outcome {
    for (text, bytes) in [("file", &b"the same"[..]), ("empty", b"")] {
        let entry = bench.put(&bench.root, text, bytes).await;
        let again = bench.replace(&bench.root, &entry, bytes).await;
        assert_eq!(bench.read(&again).await, bytes);
    }
    Passed
}

pub async fn replace_content_by_nothing_and_back(bench: &Bench) -> Outcome {
    let entry = bench.put(&bench.root, "file", b"something").await;
    let empty = bench.replace(&bench.root, &entry, b"").await;
    assert_eq!(bench.content(&bench.root, "file").await, b"");
    bench.replace(&bench.root, &empty, b"again").await;
    assert_eq!(bench.content(&bench.root, "file").await, b"again");
    assert_eq!(bench.names(&bench.root).await.len(), 1);
    Passed
}

pub async fn concurrent_creates_of_one_name_have_one_winner(bench: &Bench) -> Outcome {
    let contents: Vec<Vec<u8>> = (0..6).map(|seed| pattern(20_000, seed)).collect();
    let results = join_all(contents.iter().map(|bytes| bench.try_put(&bench.root, "one", bytes))).await;
    let winners: Vec<usize> = (0..6).filter(|&i| results[i].is_ok()).collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    for result in results.iter().filter(|result| result.is_err()) {
        assert_eq!(kind(result), Some(ErrorKind::AlreadyExists), "{results:?}");
    }
    assert_eq!(bench.content(&bench.root, "one").await, contents[winners[0]]);
    assert_eq!(bench.names(&bench.root).await.len(), 1);
    Passed
}

pub async fn concurrent_creates_of_many_names_all_succeed(bench: &Bench) -> Outcome {
    let names: Vec<String> = (0..16).map(|i| format!("file {i}")).collect();
    join_all(names.iter().map(|text| bench.put(&bench.root, text, text.as_bytes()))).await;
    for text in &names {
        assert_eq!(bench.content(&bench.root, text).await, text.as_bytes());
    }
    assert_eq!(bench.names(&bench.root).await.len(), 16);
    Passed
}

/// Where the provider has no conditional requests more than one may believe to have won, but nothing is mixed or lost.
pub async fn concurrent_replaces_of_one_version_keep_a_whole_content(bench: &Bench) -> Outcome {
    let old = bench.put(&bench.root, "one", b"old").await;
    let contents: Vec<Vec<u8>> = (0..4).map(|seed| pattern(20_000, seed)).collect();
    let results = join_all(contents.iter().map(|bytes| bench.try_replace(&bench.root, &old, bytes))).await;
    assert!(results.iter().any(Result::is_ok), "{results:?}");
    for result in results.iter().filter(|result| result.is_err()) {
        assert_eq!(kind(result), Some(ErrorKind::Changed));
    }
    let now = bench.content(&bench.root, "one").await;
    let winner = contents.iter().position(|bytes| *bytes == now);
    assert!(winner.is_some_and(|winner| results[winner].is_ok()));
    assert_eq!(bench.names(&bench.root).await.len(), 1);
    Passed
}

pub async fn a_file_above_the_limit_is_refused(bench: &Bench) -> Outcome {
    let Some(limit) = bench.provider.capabilities().max_file_size else {
        return NotApplicable("files have no limit");
    };
    let sparse = tempfile::tempfile().unwrap();
    sparse.set_len(limit + 1).unwrap();
    let content = Content::new(Arc::new(sparse), limit + 1);
    let target = Target::New {
        parent: bench.root.clone(),
        name: name("huge"),
    };
    let refused = bench.provider.upload(&target, &content).await;
    assert_eq!(kind(&refused), Some(ErrorKind::TooLarge));
    assert!(bench.names(&bench.root).await.is_empty());
    Passed
}

pub async fn uploads_are_what_the_store_holds(bench: &Bench) -> Outcome {
    let Some(raw) = bench.raw() else {
        return NotApplicable("there is no other way to the store");
    };
    let folder = bench.make_directory(&bench.root, "folder").await;
    let bytes = pattern(70_000, 3);
    let entry = bench.put(&folder.key, "file.bin", &bytes).await;
    assert_eq!(raw.read("folder/file.bin").await, Some(bytes));
    let entry = bench.replace(&folder.key, &entry, b"short").await;
    assert_eq!(raw.read("folder/file.bin").await.as_deref(), Some(&b"short"[..]));
    assert_eq!(raw.names("folder").await, ["file.bin"]);
    bench.provider.remove_file(&entry).await.unwrap();
    assert_eq!(raw.read("folder/file.bin").await, None);
    Passed
}

pub async fn edits_by_others_are_seen(bench: &Bench) -> Outcome {
    let Some(raw) = bench.raw() else {
        return NotApplicable("there is no other way to the store");
    };
    let ours = bench.put(&bench.root, "file", b"ours").await;
    raw.write("file", b"theirs!").await;
    let theirs = bench.lookup(&bench.root, "file").await.unwrap();
    check_file(&theirs, "file", 7);
    assert_ne!(theirs.version, ours.version);
    let stale = bench.try_read(&ours, 0..4).await;
    assert_eq!(kind(&stale), Some(once_replaced(&ours, &theirs)));
    let refused = bench.try_replace(&bench.root, &ours, b"ours again").await;
    assert_eq!(kind(&refused), Some(ErrorKind::Changed));
    assert_eq!(raw.read("file").await.as_deref(), Some(&b"theirs!"[..]));
    raw.write("other", b"new").await;
    assert_eq!(bench.content(&bench.root, "other").await, b"new");
    raw.remove("file").await;
    assert_eq!(
        kind(&bench.lookup(&bench.root, "file").await),
        Some(ErrorKind::NotFound)
    );
    Passed
}
