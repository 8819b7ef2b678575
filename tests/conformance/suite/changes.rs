//! Removing and renaming.

use std::collections::BTreeSet;

use futures_util::future::{join, join_all};
use keymount::model::{ErrorKind, Kind};

use super::Outcome::{self, NotApplicable, Passed};
use super::helpers::{Bench, check_directory, check_file, kind, pattern};

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|text| (*text).to_owned()).collect()
}

pub async fn remove_a_file_and_use_its_name_again(bench: &Bench) -> Outcome {
    let file = bench.put(&bench.root, "name", b"first").await;
    bench.provider.remove_file(&file).await.unwrap();
    assert_eq!(
        kind(&bench.lookup(&bench.root, "name").await),
        Some(ErrorKind::NotFound)
    );
    bench.put(&bench.root, "name", b"second").await;
    assert_eq!(bench.content(&bench.root, "name").await, b"second");
    let file = bench.lookup(&bench.root, "name").await.unwrap();
    bench.provider.remove_file(&file).await.unwrap();
    let folder = bench.make_directory(&bench.root, "name").await;
    bench.provider.remove_directory(&folder).await.unwrap();
    bench.put(&bench.root, "name", b"third").await;
    assert_eq!(bench.content(&bench.root, "name").await, b"third");
    Passed
}

pub async fn remove_what_is_missing(bench: &Bench) -> Outcome {
    let file = bench.put(&bench.root, "file", b"x").await;
    let folder = bench.make_directory(&bench.root, "folder").await;
    bench.provider.remove_file(&file).await.unwrap();
    bench.provider.remove_directory(&folder).await.unwrap();
    assert_eq!(
        kind(&bench.provider.remove_file(&file).await),
        Some(ErrorKind::NotFound)
    );
    assert_eq!(
        kind(&bench.provider.remove_directory(&folder).await),
        Some(ErrorKind::NotFound)
    );
    Passed
}

pub async fn remove_an_empty_directory(bench: &Bench) -> Outcome {
    let folder = bench.make_directory(&bench.root, "folder").await;
    let file = bench.put(&folder.key, "file", b"x").await;
    bench.provider.remove_file(&file).await.unwrap();
    bench.provider.remove_directory(&folder).await.unwrap();
    assert!(bench.names(&bench.root).await.is_empty());
    Passed
}

pub async fn removals_beside_uploads_leave_all_others(bench: &Bench) -> Outcome {
    let text = |what: &str, number: u64| format!("{what} {number}");
    for number in 0..6 {
        bench
            .put(&bench.root, &text("kept", number), &pattern(2_000, number))
            .await;
        bench.put(&bench.root, &text("removed", number), b"soon gone").await;
    }
    let uploads = (0..6).map(async |number| {
        bench
            .put(&bench.root, &text("new", number), &pattern(700_000, number))
            .await;
    });
    let removals = (0..6).map(async |number| {
        let entry = bench.lookup(&bench.root, &text("removed", number)).await.unwrap();
        bench.provider.remove_file(&entry).await.unwrap();
    });
    join(join_all(uploads), join_all(removals)).await;
    for number in 0..6 {
        assert!(bench.content(&bench.root, &text("kept", number)).await == pattern(2_000, number));
        assert!(bench.content(&bench.root, &text("new", number)).await == pattern(700_000, number));
    }
    assert_eq!(bench.names(&bench.root).await.len(), 12);
    Passed
}

pub async fn a_directory_that_is_not_empty_stays(bench: &Bench) -> Outcome {
    let with_file = bench.make_directory(&bench.root, "with file").await;
    bench.put(&with_file.key, "file", b"").await;
    let with_folder = bench.make_directory(&bench.root, "with folder").await;
    bench.make_directory(&with_folder.key, "folder").await;
    for folder in [&with_file, &with_folder] {
        let refused = bench.provider.remove_directory(folder).await;
        assert_eq!(kind(&refused), Some(ErrorKind::NotEmpty));
        assert_eq!(bench.names(&folder.key).await.len(), 1);
    }
    Passed
}

pub async fn rename_to_a_free_name(bench: &Bench) -> Outcome {
    let bytes = pattern(10_000, 9);
    let old = bench.put(&bench.root, "old.txt", &bytes).await;
    let new = bench.rename(&bench.root, &old, "new.txt", None).await.unwrap();
    check_file(&new, "new.txt", 10_000);
    assert_eq!(bench.read(&new).await, bytes);
    assert_eq!(bench.names(&bench.root).await, set(&["new.txt"]));
    assert_eq!(bench.provider.stat(&new).await.unwrap().version, new.version);
    Passed
}

pub async fn rename_to_unusual_names(bench: &Bench) -> Outcome {
    let mut entry = bench.put(&bench.root, "start", b"content").await;
    let unusual = [
        "with space",
        "100%",
        "%2F",
        "a#b",
        "a?b",
        "a+b&c=d",
        ".hidden",
        "é",
        "e\u{301}",
        "日本語",
        "Start",
        "end.",
    ];
    for text in unusual.into_iter().filter(|text| bench.allows(Kind::File, text)) {
        entry = bench.rename(&bench.root, &entry, text, None).await.unwrap();
        check_file(&entry, text, 7);
        assert_eq!(bench.names(&bench.root).await, set(&[text]));
    }
    assert_eq!(bench.read(&entry).await, b"content");
    Passed
}

pub async fn rename_over_a_file(bench: &Bench) -> Outcome {
    let target = bench.put(&bench.root, "file", b"old content").await;
    let source = bench.put(&bench.root, "file.tmp", b"new").await;
    let renamed = bench.rename(&bench.root, &source, "file", Some(&target)).await.unwrap();
    check_file(&renamed, "file", 3);
    assert_eq!(bench.content(&bench.root, "file").await, b"new");
    assert_eq!(bench.names(&bench.root).await, set(&["file"]));
    // What was to be replaced is gone already: the name is free.
    let source = bench.put(&bench.root, "again.tmp", b"newer").await;
    bench.provider.remove_file(&renamed).await.unwrap();
    bench
        .rename(&bench.root, &source, "file", Some(&renamed))
        .await
        .unwrap();
    assert_eq!(bench.content(&bench.root, "file").await, b"newer");
    Passed
}

/// The same name with a content that the caller hasn't seen is "something else than `replaced`".
pub async fn rename_over_a_changed_file_is_refused(bench: &Bench) -> Outcome {
    let stale = bench.put(&bench.root, "file", b"old").await;
    bench.replace(&bench.root, &stale, b"changed by somebody").await;
    let source = bench.put(&bench.root, "file.tmp", b"new").await;
    let refused = bench.rename(&bench.root, &source, "file", Some(&stale)).await;
    assert_eq!(kind(&refused), Some(ErrorKind::AlreadyExists));
    assert_eq!(bench.content(&bench.root, "file").await, b"changed by somebody");
    assert_eq!(bench.content(&bench.root, "file.tmp").await, b"new");
    Passed
}

pub async fn rename_to_a_taken_name_is_refused(bench: &Bench) -> Outcome {
    bench.put(&bench.root, "taken", b"kept").await;
    bench.make_directory(&bench.root, "folder").await;
    let source = bench.put(&bench.root, "source", b"also kept").await;
    for text in ["taken", "folder"] {
        let refused = bench.rename(&bench.root, &source, text, None).await;
        assert_eq!(kind(&refused), Some(ErrorKind::AlreadyExists), "{text}");
    }
    assert_eq!(bench.content(&bench.root, "taken").await, b"kept");
    assert_eq!(bench.content(&bench.root, "source").await, b"also kept");
    assert_eq!(bench.names(&bench.root).await.len(), 3);
    Passed
}

pub async fn rename_to_an_impossible_name_is_refused(bench: &Bench) -> Outcome {
    let source = bench.put(&bench.root, "source", b"kept").await;
    if let Some(longest) = bench.provider.capabilities().max_name_chars
        && longest < 255
    {
        let refused = bench.rename(&bench.root, &source, &"x".repeat(longest + 1), None).await;
        assert_eq!(kind(&refused), Some(ErrorKind::NameTooLong));
    }
    for text in ["a?b", "a\\b", "CON", "a:b"] {
        let Some(expected) = bench.fixture().refuses(Kind::File, text) else {
            continue;
        };
        let refused = bench.rename(&bench.root, &source, text, None).await;
        assert_eq!(kind(&refused), Some(expected), "{text:?}");
    }
    assert_eq!(bench.content(&bench.root, "source").await, b"kept");
    assert_eq!(bench.names(&bench.root).await, set(&["source"]));
    Passed
}

pub async fn rename_of_a_missing_entry(bench: &Bench) -> Outcome {
    let gone = bench.put(&bench.root, "gone", b"x").await;
    let target = bench.put(&bench.root, "target", b"kept").await;
    bench.provider.remove_file(&gone).await.unwrap();
    let refused = bench.rename(&bench.root, &gone, "free", None).await;
    assert_eq!(kind(&refused), Some(ErrorKind::NotFound));
    let refused = bench.rename(&bench.root, &gone, "target", Some(&target)).await;
    assert_eq!(kind(&refused), Some(ErrorKind::NotFound));
    assert_eq!(bench.content(&bench.root, "target").await, b"kept");
    Passed
}

pub async fn rename_to_another_directory(bench: &Bench) -> Outcome {
    let folder = bench.make_directory(&bench.root, "folder").await;
    let file = bench.put(&bench.root, "file", b"content").await;
    let from = bench.place(&bench.root, "file");
    let to = bench.place(&folder.key, "moved");
    let result = bench.provider.rename(&file, &from, &to, None).await;
    if bench.provider.capabilities().move_files {
        let moved = result.unwrap();
        check_file(&moved, "moved", 7);
        assert_eq!(bench.read(&moved).await, b"content");
        assert_eq!(bench.names(&bench.root).await, set(&["folder"]));
        return Passed;
    }
    assert_eq!(kind(&result), Some(ErrorKind::CrossDevice));
    assert_eq!(bench.content(&bench.root, "file").await, b"content");
    assert!(bench.names(&folder.key).await.is_empty());
    Passed
}

pub async fn rename_a_directory_with_content(bench: &Bench) -> Outcome {
    let folder = bench.make_directory(&bench.root, "folder").await;
    let inner = bench.make_directory(&folder.key, "inner").await;
    bench.put(&inner.key, "file", b"content").await;
    let result = bench.rename(&bench.root, &folder, "renamed", None).await;
    if !bench.provider.capabilities().rename_directories {
        assert_eq!(kind(&result), Some(ErrorKind::CrossDevice));
        assert_eq!(bench.content(&inner.key, "file").await, b"content");
        return Passed;
    }
    let renamed = result.unwrap();
    check_directory(&renamed, "renamed");
    let inner = bench.lookup(&renamed.key, "inner").await.unwrap();
    assert_eq!(bench.content(&inner.key, "file").await, b"content");
    assert_eq!(bench.names(&bench.root).await, set(&["renamed"]));
    Passed
}

pub async fn rename_a_directory_over_an_empty_one(bench: &Bench) -> Outcome {
    if !bench.provider.capabilities().rename_directories {
        return NotApplicable("directories cannot be renamed");
    }
    let folder = bench.make_directory(&bench.root, "folder").await;
    bench.put(&folder.key, "file", b"content").await;
    let full = bench.make_directory(&bench.root, "full").await;
    bench.put(&full.key, "file", b"kept").await;
    let refused = bench.rename(&bench.root, &folder, "full", Some(&full)).await;
    assert_eq!(kind(&refused), Some(ErrorKind::NotEmpty));
    assert_eq!(bench.content(&full.key, "file").await, b"kept");
    let empty = bench.make_directory(&bench.root, "empty").await;
    let renamed = bench.rename(&bench.root, &folder, "empty", Some(&empty)).await.unwrap();
    assert_eq!(bench.content(&renamed.key, "file").await, b"content");
    assert_eq!(bench.names(&bench.root).await, set(&["empty", "full"]));
    Passed
}
