//! Whatever goes wrong at whatever step of a change: no content is lost, and success is never claimed falsely.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keymount::emulator::{Fault, Rule};
use keymount::model::{Entry, ErrorKind, Result};
use keymount::provider::Provider;
use reqwest::Method;
use tokio::sync::Notify;

use super::steps::at_step;
use super::support::{Credential, client, settings};
use super::{Bench, content, kind, name, read};

/// More requests than any change here makes, retries included.
const STEPS: usize = 16;

fn faults() -> [Fault; 7] {
    [
        Fault::DropConnection,
        Fault::DropAfterEffect,
        Fault::status(500),
        Fault::status_after_effect(500),
        Fault::status(400),
        Fault::LieAboutSuccess,
        Fault::Garbage,
    ]
}

fn holds(files: &BTreeMap<String, Vec<u8>>, bytes: &[u8]) -> bool {
    files.values().any(|content| content == bytes)
}

/// Runs a change with every fault at every step and hands what is stored afterwards to `check`.
async fn sweep(
    prepare: impl AsyncFn(&Bench) -> Entry,
    change: impl AsyncFn(&Bench, &Entry) -> Result<Entry>,
    check: impl Fn(&str, &Result<Entry>, &BTreeMap<String, Vec<u8>>),
) {
    for dies in [false, true] {
        for fault in faults() {
            for step in 0..STEPS {
                let bench = Bench::new().await;
                let entry = prepare(&bench).await;
                bench.running.faults().inject(at_step(step, dies, fault.clone()));
                let result = change(&bench, &entry).await;
                bench.running.faults().clear();
                let what = format!("{fault:?} at step {step}, dies: {dies}, result {result:?}");
                check(&what, &result, &bench.files());
            }
        }
    }
}

#[tokio::test]
async fn replacing_never_loses_content() {
    let prepare = async |bench: &Bench| {
        bench.workspace.put("/file", "old").unwrap();
        bench.entry("file").await
    };
    let change = async |bench: &Bench, old: &Entry| bench.cloudsync.upload(&bench.over(old), &content(b"new!")).await;
    sweep(prepare, change, |what, result, files| {
        assert_eq!(files.len(), 1, "{what}: {files:?}");
        match result {
            Ok(_) => assert_eq!(files["file"], b"new!", "{what}"),
            Err(_) => assert!(files["file"] == b"old" || files["file"] == b"new!", "{what}"),
        }
    })
    .await;
}

#[tokio::test]
async fn renaming_over_never_loses_content() {
    let prepare = async |bench: &Bench| {
        bench.workspace.put("/file", "old").unwrap();
        bench.workspace.put("/file.tmp", "new!").unwrap();
        bench.entry("file").await
    };
    let change = async |bench: &Bench, old: &Entry| {
        let source = bench.cloudsync.lookup(&bench.root(), &name("file.tmp")).await?;
        bench
            .cloudsync
            .rename(&source, &bench.place("file.tmp"), &bench.place("file"), Some(old))
            .await
    };
    sweep(prepare, change, |what, result, files| {
        assert!(holds(files, b"new!"), "{what}: {files:?}");
        match result {
            Ok(_) => {
                assert_eq!(files.get("file").map(Vec::as_slice), Some(&b"new!"[..]), "{what}");
                assert!(!files.contains_key("file.tmp"), "{what}");
            }
            Err(_) => assert!(
                holds(files, b"old") || files.get("file").is_some_and(|bytes| bytes == b"new!"),
                "{what}: {files:?}"
            ),
        }
    })
    .await;
}

#[tokio::test]
async fn a_new_file_is_there_when_it_is_said_to_be() {
    for bytes in [&b"new!"[..], b""] {
        let prepare = async |bench: &Bench| {
            bench.workspace.put("/other", "other").unwrap();
            bench.entry("other").await
        };
        let change =
            async |bench: &Bench, _: &Entry| bench.cloudsync.upload(&bench.new_file("file"), &content(bytes)).await;
        sweep(prepare, change, |what, result, files| {
            assert_eq!(files["other"], b"other", "{what}");
            if result.is_ok() {
                assert_eq!(files.get("file").map(Vec::as_slice), Some(bytes), "{what}");
            }
            assert!(files.get("file").is_none_or(|stored| stored == bytes), "{what}");
        })
        .await;
    }
}

/// One lost answer isn't an error to the caller: the change is looked for and, if need be, made again.
#[tokio::test]
async fn one_lost_answer_is_made_up_for() {
    for fault in [Fault::DropConnection, Fault::DropAfterEffect, Fault::status(502)] {
        let bench = Bench::new().await;
        bench.workspace.put("/file", "content").unwrap();
        bench.workspace.put("/gone", "content").unwrap();
        let (file, gone) = (bench.entry("file").await, bench.entry("gone").await);
        let faults = bench.running.faults();
        faults.inject(Rule::once(Method::PATCH, "/files/", fault.clone()));
        let renamed = bench
            .cloudsync
            .rename(&file, &bench.place("file"), &bench.place("renamed"), None)
            .await;
        assert_eq!(renamed.unwrap().name.as_str(), "renamed");
        faults.inject(Rule::once(Method::DELETE, "/files/", fault.clone()));
        bench.cloudsync.remove_file(&gone).await.unwrap();
        assert_eq!(bench.files(), [("renamed".to_owned(), b"content".to_vec())].into());
    }
    for fault in [Fault::DropAfterEffect, Fault::status_after_effect(502), Fault::Garbage] {
        let bench = Bench::new().await;
        let garbage = matches!(fault, Fault::Garbage);
        bench
            .running
            .faults()
            .inject(Rule::times(2, Method::POST, "/files", fault));
        let uploaded = bench
            .cloudsync
            .upload(&bench.new_file("file"), &content(b"content"))
            .await;
        let made = bench.cloudsync.create_directory(&bench.root(), &name("folder")).await;
        if garbage {
            // Success was claimed and nothing done.
            assert_eq!(kind(&uploaded), Some(ErrorKind::BadData));
            assert!(made.is_ok(), "by the second way: {made:?}");
        } else {
            uploaded.unwrap();
            made.unwrap();
            assert_eq!(bench.workspace.list("/").unwrap(), ["file", "folder"]);
        }
    }
}

#[tokio::test]
async fn a_folder_that_was_not_made_is_not_said_to_be() {
    let bench = Bench::new().await;
    let faults = bench.running.faults();
    faults.inject(Rule::once(Method::POST, "/files", Fault::LieAboutSuccess));
    let lie = bench.cloudsync.create_directory(&bench.root(), &name("folder")).await;
    assert_eq!(kind(&lie), Some(ErrorKind::BadData));
    assert!(bench.workspace.list("/").unwrap().is_empty());
}

/// Nobody can be kept from writing between our look and our upload; whoever is overwritten learns it and keeps a copy.
#[tokio::test]
async fn somebody_elses_content_right_after_ours_is_a_conflict() {
    let bench = Arc::new(Bench::new().await);
    bench.workspace.put("/file", "old").unwrap();
    let old = bench.entry("file").await;
    let go_on = Arc::new(Notify::new());
    // The first look is before the upload.
    let looks = AtomicUsize::new(0);
    let second_look = move |method: &Method, target: &str| {
        *method == Method::GET && target.contains("/files/file_") && looks.fetch_add(1, Ordering::Relaxed) == 1
    };
    let hold = Rule::when(usize::MAX, second_look, Fault::Hold(Arc::clone(&go_on)));
    bench.running.faults().inject(hold);
    let (ours, target) = (Arc::clone(&bench), bench.over(&old));
    let upload = tokio::spawn(async move { ours.cloudsync.upload(&target, &content(b"ours")).await });
    bench
        .running
        .wait_until(|requests| {
            let done =
                |request: &keymount::emulator::Recorded| request.method == Method::POST && request.status.is_some();
            let looking = requests.last().is_some_and(|last| last.method == Method::GET);
            requests.iter().any(done) && looking
        })
        .await;
    assert_eq!(bench.workspace.read("/file").unwrap(), "ours");
    bench.workspace.put("/file", "theirs").unwrap();
    go_on.notify_one();
    let outcome = upload.await.unwrap();
    assert_eq!(kind(&outcome), Some(ErrorKind::Changed), "{outcome:?}");
    assert_eq!(bench.workspace.read("/file").unwrap(), "theirs");
}

#[tokio::test]
async fn a_download_that_breaks_off_or_lies_is_never_taken_for_whole() {
    let bench = Bench::new().await;
    bench.workspace.put("/file", vec![7; 100_000]).unwrap();
    let entry = bench.entry("file").await;
    let faults = bench.running.faults();
    faults.inject(Rule::once(
        Method::GET,
        "/content",
        Fault::TruncateBody { after: 50_000 },
    ));
    assert_eq!(
        kind(&read(&bench.cloudsync, &entry).await),
        Some(ErrorKind::Unreachable)
    );
    faults.inject(Rule::once(Method::GET, "/content", Fault::Garbage));
    assert_eq!(kind(&read(&bench.cloudsync, &entry).await), Some(ErrorKind::BadData));
    let wrong = Fault::Status {
        status: 200,
        headers: vec![("content-type".into(), "application/octet-stream".into())],
        body: "x".repeat(100_000),
    };
    faults.inject(Rule::once(Method::GET, "/content", wrong));
    let error = read(&bench.cloudsync, &entry).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadData);
    assert!(error.message().contains("SHA-256"), "{error}");
    assert_eq!(read(&bench.cloudsync, &entry).await.unwrap(), vec![7; 100_000]);
}

/// The same length, so only the hash can tell.
#[tokio::test]
async fn content_that_was_replaced_by_another_of_the_same_length_is_changed() {
    let bench = Bench::new().await;
    bench.workspace.put("/file", "one").unwrap();
    let entry = bench.entry("file").await;
    bench.workspace.put("/file", "two").unwrap();
    assert_eq!(kind(&read(&bench.cloudsync, &entry).await), Some(ErrorKind::Changed));
}

#[tokio::test]
async fn a_full_account_says_so() {
    use keymount::emulator::cloudsync::{Assumptions, Limits, Plan, Statuses};
    for (statuses, expected) in [
        (Statuses::Listed, ErrorKind::Quota),
        (Statuses::Standard, ErrorKind::NoSpace),
    ] {
        let assumptions = Assumptions {
            statuses,
            ..Assumptions::default()
        };
        let plan = Plan::Enterprise(Limits {
            storage: Some(1000),
            workspaces: None,
            requests: 1000,
        });
        let bench = Bench::with(assumptions, plan).await;
        let full = bench
            .cloudsync
            .upload(&bench.new_file("file"), &content(&[0; 2000]))
            .await;
        assert_eq!(kind(&full), Some(expected));
        let usage = bench.cloudsync.usage().await.unwrap();
        assert_eq!((usage.used, usage.total), (0, Some(1000)));
    }
    let unlimited = Bench::new().await.cloudsync.usage().await.unwrap();
    assert_eq!(unlimited.total, None);
}

#[tokio::test]
async fn an_unreachable_service_is_named_and_the_key_is_not() {
    let bench = Bench::new().await;
    let url = bench.running.url();
    bench.running.stop().await;
    let credential = Credential::ApiKey("sk_live_canary-4711-canary-4711".into());
    let cloudsync = client(&url, credential, settings(None, "")).await;
    let error = cloudsync.probe().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.message().contains("127.0.0.1"), "{error}");
    let shown = format!("{error} {error:?} {}", cloudsync.identity());
    assert!(!shown.contains("canary"), "{shown}");
}
