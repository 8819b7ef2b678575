//! A hundred listings and fifty uploads an hour are enough for ordinary work.

use std::time::Duration;

use futures_util::future::join_all;
use keymount::emulator::storra::Bucket;
use keymount::model::{Entry, ErrorKind};
use keymount::provider::Provider;

use super::{Bench, kind, name, place, read, root};

const FOLDERS: usize = 40;
const FILES: usize = 50;

/// Everything below the root, listed and then looked up and looked at one by one: `find` and `ls -lR`.
async fn walk(bench: &Bench) -> Vec<Entry> {
    let mut found = Vec::new();
    let mut directories = vec![root()];
    while let Some(directory) = directories.pop() {
        for listed in bench.storra.list(&directory).await.unwrap() {
            let looked_up = bench.storra.lookup(&directory, &listed.name).await.unwrap();
            assert_eq!(looked_up, bench.storra.stat(&listed).await.unwrap());
            if listed.is_directory() {
                directories.push(listed.key.clone());
            }
            found.push(listed);
        }
    }
    found
}

#[tokio::test]
async fn two_thousand_files_cost_three_listings() {
    let bench = Bench::limited().await;
    for folder in 0..FOLDERS {
        for file in 0..FILES {
            bench.account.put(&format!("d{folder}/f{file}"), "x").unwrap();
        }
    }
    bench.storra.probe().await.unwrap();
    for _ in 0..3 {
        assert_eq!(walk(&bench).await.len(), FOLDERS * FILES + FOLDERS);
    }
    assert_eq!(
        bench.account.counted(Bucket::List),
        3,
        "2,040 entries, a thousand in each answer"
    );
    assert_eq!(
        bench.running.requests().len(),
        4,
        "and one that asked who the key belongs to"
    );
}

#[tokio::test]
async fn questions_at_the_same_time_share_a_listing() {
    let bench = Bench::limited().await;
    bench.account.put("file", "x").unwrap();
    let asked = (0..50).map(|_| bench.entry("file"));
    join_all(asked).await;
    assert_eq!(bench.account.counted(Bucket::List), 1);
}

/// What keymount does itself is known without asking; uploads are looked up until their answer is known to say enough.
#[tokio::test]
async fn own_changes_are_known_without_asking() {
    let bench = Bench::limited().await;
    for number in 0..40 {
        let file = bench.put(&format!("file {number}"), b"x").await.unwrap();
        assert_eq!(bench.entry(&format!("file {number}")).await, file);
    }
    assert_eq!(bench.account.counted(Bucket::List), 2);
    let folder = bench.storra.create_directory(&root(), &name("folder")).await.unwrap();
    assert_eq!(bench.entry("folder").await.key, folder.key);
    for number in 0..20 {
        let file = bench.entry(&format!("file {number}")).await;
        bench.storra.remove_file(&file).await.unwrap();
    }
    let file = bench.entry("file 20").await;
    let moved = bench
        .storra
        .rename(&file, &place("file 20"), &place("moved"), None)
        .await
        .unwrap();
    assert_eq!(bench.entry("moved").await, moved);
    assert_eq!(bench.storra.list(&root()).await.unwrap().len(), 21);
    assert_eq!(
        bench.account.counted(Bucket::List),
        3,
        "the move doesn't tell when it was"
    );
}

/// The limit is learned from the answers; beyond it nobody is asked.
#[tokio::test]
async fn a_reached_limit_is_an_error_here_and_no_request() {
    let bench = Bench::limited().await;
    bench.account.put("file", "content").unwrap();
    let file = bench.entry("file").await;
    bench.store.set_limit(Bucket::Download, 3);
    for _ in 0..3 {
        assert_eq!(read(&bench.storra, &file).await.unwrap(), b"content");
    }
    let before = bench.running.requests().len();
    let refused = read(&bench.storra, &file).await;
    let Some(ErrorKind::RateLimited {
        retry_after: Some(wait),
    }) = kind(&refused)
    else {
        panic!("{refused:?}");
    };
    assert!(wait <= Duration::from_secs(3600), "{wait:?}");
    let sentence = refused.unwrap_err().to_string();
    assert!(sentence.contains("limit for downloads is reached"), "{sentence}");
    assert_eq!(bench.running.requests().len(), before);
}

/// Another program with the same key has used it up: the service says so once, and is left alone for as long as it says.
#[tokio::test]
async fn a_refusal_is_believed_for_as_long_as_it_says() {
    let bench = Bench::limited().await;
    bench.account.put("file", "content").unwrap();
    let file = bench.entry("file").await;
    bench.store.set_limit(Bucket::Download, 0);
    for _ in 0..5 {
        assert!(matches!(
            kind(&read(&bench.storra, &file).await),
            Some(ErrorKind::RateLimited { .. })
        ));
    }
    let asked = bench.running.requests();
    assert_eq!(
        asked
            .iter()
            .filter(|request| request.target.contains("/download/"))
            .count(),
        1
    );
}

/// What was listed before is better than nothing.
#[tokio::test]
async fn without_listings_the_last_one_is_shown() {
    let bench = Bench::limited().await;
    bench.account.put("file", "content").unwrap();
    let file = bench.entry("file").await;
    bench.store.set_limit(Bucket::List, 1);
    bench.storra.probe().await.unwrap();
    assert_eq!(bench.entry("file").await, file);
    assert_eq!(bench.storra.list(&root()).await.unwrap(), std::slice::from_ref(&file));
    assert_eq!(bench.account.counted(Bucket::List), 1);
    // But nothing is changed by what may be out of date.
    let refused = bench.replace(&file, b"new").await;
    assert!(
        matches!(kind(&refused), Some(ErrorKind::RateLimited { .. })),
        "{refused:?}"
    );
    assert_eq!(bench.account.read("file").unwrap(), "content");
}

/// A replacement takes two changes in a row: neither is begun when there isn't room for both.
#[tokio::test]
async fn a_replacement_is_not_begun_that_could_not_be_ended() {
    let bench = Bench::limited().await;
    bench.account.put("file", "old").unwrap();
    bench.account.put("other", "x").unwrap();
    bench.store.set_limit(Bucket::FileOps, 2);
    let other = bench.entry("other").await;
    bench.storra.remove_file(&other).await.unwrap();
    let file = bench.entry("file").await;
    let refused = bench.replace(&file, b"new").await;
    assert!(
        matches!(kind(&refused), Some(ErrorKind::RateLimited { .. })),
        "{refused:?}"
    );
    assert_eq!(bench.account.read("file").unwrap(), "old");
    assert_eq!(bench.account.counted(Bucket::Upload), 0);
    assert_eq!(bench.account.list("").unwrap(), ["file"]);
}
