//! The service's rules for uploads: names, limits, duplicates, overwriting.

use std::sync::Arc;
use std::time::Duration;

use keymount::emulator::cludz::{Assumptions, Duplicates, Overwrite};
use keymount::emulator::{Fault, Rule};
use keymount::model::{Entry, ErrorKind};
use keymount::provider::{Content, Provider, Target};
use reqwest::Method;
use tokio::sync::Notify;

use super::steps::at_step;
use super::{Bench, content, kind, name, new, over, place, root};

#[tokio::test]
async fn impossible_names_never_reach_the_service() {
    let bench = Bench::new().await;
    bench.drive.put("/file", "content").unwrap();
    let file = bench.entry("file").await;
    bench.running.forget_requests();
    let too_long = "x".repeat(51);
    for (text, expected) in [
        ("a?b", ErrorKind::InvalidName),
        ("it's", ErrorKind::InvalidName),
        ("aux.txt", ErrorKind::InvalidName),
        (too_long.as_str(), ErrorKind::NameTooLong),
    ] {
        let cludz = &bench.cludz;
        let results = [
            kind(&cludz.upload(&new(text), &content(b"x")).await),
            kind(&cludz.create_directory(&root(), &name(text)).await),
            kind(&cludz.rename(&file, &place("file"), &place(text), None).await),
        ];
        assert_eq!(results, [Some(expected); 3], "{text}");
    }
    assert!(bench.running.requests().is_empty());
}

#[tokio::test]
async fn an_empty_file_that_gets_another_name_is_taken_back() {
    let bench = Bench::new().await;
    bench.drive.put("/altered", "").unwrap();
    let answer = Fault::Status {
        status: 201,
        headers: Vec::new(),
        body: r#"{"statusCode":201,"message":"File created","location":"/altered","fileName":"altered"}"#.into(),
    };
    bench.running.faults().inject(Rule::once(Method::POST, "", answer));
    let refused = bench.cludz.upload(&new("as asked"), &content(b"")).await;
    assert_eq!(kind(&refused), Some(ErrorKind::InvalidName));
    assert!(bench.files().is_empty());
}

#[tokio::test]
async fn a_name_altered_behind_our_back_is_noticed() {
    let bench = Bench::new().await;
    // The service says yes, and the file isn't there under the name that was asked for.
    for bytes in [&b"content"[..], b""] {
        bench
            .running
            .faults()
            .inject(Rule::once(Method::POST, "", Fault::LieAboutSuccess));
        let refused = bench.cludz.upload(&new("file"), &content(bytes)).await;
        assert_eq!(kind(&refused), Some(ErrorKind::BadData), "{bytes:?}");
    }
}

#[tokio::test]
async fn files_above_the_limit() {
    let bench = Bench::with(Assumptions {
        file_limit: 1000,
        ..Assumptions::default()
    })
    .await;
    let sparse = tempfile::tempfile().unwrap();
    sparse.set_len(100_000_001).unwrap();
    let huge = Content::new(Arc::new(sparse), 100_000_001);
    assert_eq!(
        kind(&bench.cludz.upload(&new("huge"), &huge).await),
        Some(ErrorKind::TooLarge)
    );
    assert!(
        bench.running.requests().is_empty(),
        "the documented limit is checked here"
    );
    // A lower one is found out.
    let refused = bench.cludz.upload(&new("file"), &content(&[7; 1001])).await;
    assert_eq!(kind(&refused), Some(ErrorKind::TooLarge));
    bench.cludz.upload(&new("file"), &content(&[7; 1000])).await.unwrap();
    let file = bench.entry("file").await;
    let refused = bench.cludz.upload(&over(&file), &content(&[8; 1001])).await;
    assert_eq!(kind(&refused), Some(ErrorKind::TooLarge));
    assert_eq!(bench.files(), [("file".to_owned(), vec![7; 1000])].into());
}

#[tokio::test]
async fn content_that_the_drive_refuses_for_being_known_is_never_said_to_be_stored() {
    let bench = Bench::with(Assumptions {
        duplicates: Duplicates::Anywhere,
        ..Assumptions::default()
    })
    .await;
    bench.drive.put("/one", "the same").unwrap();
    bench.drive.put("/two", "another").unwrap();
    let refused = bench
        .cludz
        .upload(&new("copy"), &content(b"the same"))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::BadData);
    assert!(refused.message().contains("File unchanged"), "{refused}");
    let two = bench.entry("two").await;
    let refused = bench.cludz.upload(&over(&two), &content(b"the same")).await;
    assert_eq!(kind(&refused), Some(ErrorKind::BadData));
    assert_eq!(bench.files()["two"], b"another");
    assert_eq!(bench.files().len(), 2);
}

#[tokio::test]
async fn the_same_content_for_the_same_file_is_success_without_an_upload() {
    let bench = Bench::new().await;
    bench.drive.put("/file", "content").unwrap();
    let file = bench.entry("file").await;
    let stored = bench.cludz.upload(&over(&file), &content(b"content")).await.unwrap();
    assert_eq!(stored, file);
    assert_eq!(bench.changes(), []);
}

/// Somebody else stores the same content between the check and the upload: `File unchanged` is good news then.
#[tokio::test]
async fn unchanged_is_success_when_the_file_has_the_content() {
    for overwrite in [Overwrite::Refuse, Overwrite::Replace] {
        let bench = Bench::with(Assumptions {
            overwrite,
            ..Assumptions::default()
        })
        .await;
        bench.drive.put("/file", "old").unwrap();
        let file = bench.entry("file").await;
        let release = Arc::new(Notify::new());
        let hold = Fault::Hold(Arc::clone(&release));
        bench.running.faults().inject(Rule::once(Method::POST, "", hold));
        let (target, bytes) = (over(&file), content(b"new"));
        let upload = bench.cludz.upload(&target, &bytes);
        let meanwhile = async {
            bench
                .running
                .wait_until(|log| log.iter().any(|request| request.method == Method::POST))
                .await;
            bench.drive.put("/file", "new").unwrap();
            release.notify_one();
        };
        let (stored, ()) = tokio::join!(upload, meanwhile);
        assert_eq!(stored.unwrap().version, bench.entry("file").await.version);
    }
}

/// Nobody who lists meanwhile meets names that are gone in the next moment; what a crash leaves is shown.
#[tokio::test]
async fn temporary_names_are_not_listed_while_they_are_in_use() {
    let bench = Bench::new().await;
    bench.drive.put("/file", "old").unwrap();
    bench.drive.put("/.keymount-new-1a2b3c4d5e6f-left", "x").unwrap();
    let file = bench.entry("file").await;
    let release = Arc::new(Notify::new());
    let hold = Fault::Hold(Arc::clone(&release));
    bench.running.faults().inject(Rule::once(Method::PUT, "/file", hold));
    let (target, bytes) = (over(&file), content(b"ours"));
    let upload = bench.cludz.upload(&target, &bytes);
    let meanwhile = async {
        bench
            .running
            .wait_until(|log| log.iter().any(|request| request.method == Method::PUT))
            .await;
        assert_eq!(
            bench.drive.list("/").unwrap().len(),
            3,
            "the new content is there already"
        );
        let listed = bench.cludz.list(&root()).await.unwrap();
        let mut names: Vec<&str> = listed.iter().map(|entry| entry.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, [".keymount-new-1a2b3c4d5e6f-left", "file"]);
        release.notify_one();
    };
    let (stored, ()) = tokio::join!(upload, meanwhile);
    stored.unwrap();
    assert_eq!(bench.cludz.list(&root()).await.unwrap().len(), 2);
}

async fn replace_twice(bench: &Bench) -> Vec<(Method, String)> {
    bench.drive.put("/file", "0").unwrap();
    let mut entry: Entry = bench.entry("file").await;
    for bytes in [b"1", b"2"] {
        bench.running.forget_requests();
        entry = bench.cludz.upload(&over(&entry), &content(bytes)).await.unwrap();
    }
    assert_eq!(bench.files(), [("file".to_owned(), b"2".to_vec())].into());
    bench.changes()
}

#[tokio::test]
async fn where_uploads_overwrite_one_request_replaces() {
    let bench = Bench::with(Assumptions {
        overwrite: Overwrite::Replace,
        ..Assumptions::default()
    })
    .await;
    assert_eq!(replace_twice(&bench).await, [(Method::POST, "/".to_owned())]);
    // A new file doesn't overwrite even there.
    let refused = bench.cludz.upload(&new("file"), &content(b"3")).await;
    assert_eq!(kind(&refused), Some(ErrorKind::AlreadyExists));
    assert_eq!(bench.files()["file"], b"2");
}

#[tokio::test]
async fn where_uploads_never_overwrite_that_is_learned_once() {
    let bench = Bench::new().await;
    let changes = replace_twice(&bench).await;
    let methods: Vec<_> = changes.iter().map(|(method, _)| method.clone()).collect();
    assert_eq!(methods, [Method::POST, Method::PUT, Method::PUT, Method::DELETE]);
    assert_eq!(changes[1].1, "/file");
    assert!(changes[2].1.starts_with("/.keymount-new-"), "{changes:?}");
    assert!(changes[3].1.starts_with("/.keymount-old-"), "{changes:?}");
}

/// Between the check and the exchange somebody else changes the file: that stays, and nothing is left beside it.
#[tokio::test]
async fn a_change_by_somebody_else_in_the_last_moment_wins() {
    for remove in [false, true] {
        let bench = Bench::new().await;
        bench.drive.put("/file", "old").unwrap();
        let file = bench.entry("file").await;
        let release = Arc::new(Notify::new());
        let hold = Fault::Hold(Arc::clone(&release));
        bench.running.faults().inject(Rule::once(Method::PUT, "/file", hold));
        let (target, bytes) = (over(&file), content(b"ours"));
        let upload = bench.cludz.upload(&target, &bytes);
        let meanwhile = async {
            bench
                .running
                .wait_until(|log| log.iter().any(|request| request.method == Method::PUT))
                .await;
            if remove {
                bench.drive.remove("/file");
            } else {
                bench.drive.put("/file", "theirs").unwrap();
            }
            release.notify_one();
        };
        let (refused, ()) = tokio::join!(upload, meanwhile);
        assert_eq!(kind(&refused), Some(ErrorKind::Changed));
        let expected = (!remove).then(|| ("file".to_owned(), b"theirs".to_vec()));
        assert_eq!(bench.files(), expected.into_iter().collect());
    }
}

/// A caller that gives up in the middle of the exchange doesn't leave it there.
#[tokio::test]
async fn an_exchange_goes_on_when_nobody_waits_for_it() {
    let bench = Bench::new().await;
    bench.drive.put("/file", "old").unwrap();
    let file = bench.entry("file").await;
    let release = Arc::new(Notify::new());
    let hold = Fault::Hold(Arc::clone(&release));
    bench
        .running
        .faults()
        .inject(Rule::once(Method::PUT, "/.keymount-new-", hold));
    {
        let (target, bytes) = (over(&file), content(b"new"));
        let upload = bench.cludz.upload(&target, &bytes);
        let arrived = bench.running.wait_until(|log| {
            log.iter()
                .any(|request| request.method == Method::PUT && request.target.contains("/.keymount-new-"))
        });
        tokio::select! {
            _ = upload => panic!("the request is held"),
            () = arrived => {}
        }
    }
    assert!(!bench.drive.exists("/file"));
    release.notify_one();
    bench
        .running
        .wait_until(|log| {
            log.iter()
                .any(|request| request.method == Method::DELETE && request.status.is_some())
        })
        .await;
    assert_eq!(bench.files(), [("file".to_owned(), b"new".to_vec())].into());
}

/// Whatever request of a replacement is under way when this mount gives the folder another name, no temporary name stays.
#[tokio::test]
async fn a_folder_gets_another_name_while_a_file_in_it_is_replaced() {
    for step in 0.. {
        let bench = Bench::new().await;
        bench.drive.put("/before/file", "old").unwrap();
        let folder = bench.entry("before").await;
        let file = bench.cludz.lookup(&folder.key, &name("file")).await.unwrap();
        bench.running.forget_requests();
        let release = Arc::new(Notify::new());
        let hold = Fault::Hold(Arc::clone(&release));
        bench.running.faults().inject(at_step(step, false, hold));
        let target = Target::Replace {
            parent: folder.key.clone(),
            entry: file,
        };
        let bytes = content(b"new");
        let mut upload = std::pin::pin!(bench.cludz.upload(&target, &bytes));
        let held = bench.running.wait_until(|log| log.len() > step);
        tokio::select! {
            biased;
            stored = &mut upload => {
                stored.unwrap();
                assert!(step > 5, "it takes several requests");
                break;
            }
            () = held => {}
        }
        let (before, after) = (place("before"), place("after"));
        let mut renaming = std::pin::pin!(bench.cludz.rename(&folder, &before, &after, None));
        // It may wait for the replacement, or not.
        let in_time = async {
            let renamed = tokio::time::timeout(Duration::from_millis(50), &mut renaming).await;
            release.notify_one();
            match renamed {
                Ok(renamed) => renamed,
                Err(_) => renaming.await,
            }
        };
        let (stored, renamed) = tokio::join!(upload, in_time);
        renamed.unwrap();
        assert_eq!(bench.drive.list("/").unwrap(), ["after"], "{step}: {stored:?}");
        assert_eq!(bench.drive.list("/after").unwrap(), ["file"], "{step}: {stored:?}");
        let text = if stored.is_ok() { "new" } else { "old" };
        assert_eq!(bench.drive.read("/after/file").unwrap(), text, "{step}: {stored:?}");
        // After any other refusal it would not be sent again at once.
        let is_known = matches!(kind(&stored), None | Some(ErrorKind::Changed | ErrorKind::NotFound));
        assert!(is_known, "{step}: {stored:?}");
    }
}

#[tokio::test]
async fn a_folder_in_a_files_place_is_not_deleted() {
    let bench = Bench::new().await;
    bench.drive.put("/name", "content").unwrap();
    let file = bench.entry("name").await;
    bench.drive.remove("/name");
    bench.drive.put("/name/inside", "kept").unwrap();
    assert_eq!(
        kind(&bench.cludz.remove_file(&file).await),
        Some(ErrorKind::IsADirectory)
    );
    let refused = bench.cludz.upload(&over(&file), &content(b"x")).await;
    assert_eq!(kind(&refused), Some(ErrorKind::Changed));
    assert_eq!(
        kind(&super::read(&bench.cludz, &file, 0..7).await),
        Some(ErrorKind::NotFound)
    );
    assert_eq!(bench.drive.read("/name/inside").as_deref(), Some(&b"kept"[..]));
}
