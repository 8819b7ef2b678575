//! Whatever goes wrong at whatever step of a change: no content is lost, and success is never claimed falsely.

use std::collections::BTreeMap;

use keymount::emulator::{Fault, Rule};
use keymount::model::{Entry, ErrorKind, Result};
use keymount::provider::Provider;
use reqwest::Method;

use super::steps::at_step;
use super::support::{Token, client};
use super::{Bench, content, kind, name, new, over, place, root};

/// More requests than any change here makes, retries included.
const STEPS: usize = 24;

fn faults() -> [Fault; 7] {
    [
        Fault::DropConnection,
        Fault::DropAfterEffect,
        Fault::status(500),
        Fault::status_after_effect(500),
        Fault::status(503),
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
        bench.drive.put("/file", "old").unwrap();
        bench.entry("file").await
    };
    let change = async |bench: &Bench, old: &Entry| bench.cludz.upload(&over(old), &content(b"new!")).await;
    sweep(prepare, change, |what, result, files| {
        for stored in files.values() {
            assert!([&b"old"[..], b"new!"].contains(&stored.as_slice()), "{what}: {files:?}");
        }
        match result {
            Ok(_) => assert_eq!(files.get("file").map(Vec::as_slice), Some(&b"new!"[..]), "{what}"),
            Err(_) => assert!(
                holds(files, b"old") || files.get("file").is_some_and(|bytes| bytes == b"new!"),
                "{what}: {files:?}"
            ),
        }
        if let Some(bytes) = files.get("file") {
            assert!(bytes == b"old" || bytes == b"new!", "{what}");
        }
    })
    .await;
}

#[tokio::test]
async fn renaming_over_never_loses_content() {
    let prepare = async |bench: &Bench| {
        bench.drive.put("/file", "old").unwrap();
        bench.drive.put("/file.tmp", "new!").unwrap();
        bench.entry("file").await
    };
    let change = async |bench: &Bench, old: &Entry| {
        let source = Entry {
            name: name("file.tmp"),
            key: keymount::model::ObjectKey::new("file.tmp"),
            ..old.clone()
        };
        bench
            .cludz
            .rename(&source, &place("file.tmp"), &place("file"), Some(old))
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
            bench.drive.put("/other", "other").unwrap();
            bench.entry("other").await
        };
        let change = async |bench: &Bench, _: &Entry| bench.cludz.upload(&new("file"), &content(bytes)).await;
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
        bench.drive.put("/file", "content").unwrap();
        bench.drive.put("/gone", "content").unwrap();
        let (file, gone) = (bench.entry("file").await, bench.entry("gone").await);
        bench
            .running
            .faults()
            .inject(Rule::once(Method::PUT, "/file", fault.clone()));
        let renamed = bench.cludz.rename(&file, &place("file"), &place("renamed"), None).await;
        assert_eq!(renamed.unwrap().name.as_str(), "renamed");
        bench
            .running
            .faults()
            .inject(Rule::once(Method::DELETE, "/gone", fault.clone()));
        bench.cludz.remove_file(&gone).await.unwrap();
        assert_eq!(bench.files(), [("renamed".to_owned(), b"content".to_vec())].into());
    }
    for fault in [Fault::DropAfterEffect, Fault::status_after_effect(502)] {
        let bench = Bench::new().await;
        bench.running.faults().inject(Rule::times(2, Method::POST, "", fault));
        bench.cludz.upload(&new("file"), &content(b"content")).await.unwrap();
        bench.cludz.create_directory(&root(), &name("folder")).await.unwrap();
        assert_eq!(bench.drive.list("/").unwrap(), ["file", "folder"]);
    }
}

#[tokio::test]
async fn a_folder_that_was_not_made_is_not_said_to_be() {
    let bench = Bench::new().await;
    bench
        .running
        .faults()
        .inject(Rule::once(Method::POST, "", Fault::LieAboutSuccess));
    let lie = bench.cludz.create_directory(&root(), &name("folder")).await;
    assert_eq!(kind(&lie), Some(ErrorKind::BadData));
}

#[tokio::test]
async fn garbage_instead_of_a_listing_is_wrong_data() {
    let bench = Bench::new().await;
    bench.running.faults().inject(Rule::everything(Fault::Garbage));
    assert_eq!(kind(&bench.cludz.list(&root()).await), Some(ErrorKind::BadData));
    assert_eq!(
        kind(&bench.cludz.lookup(&root(), &name("x")).await),
        Some(ErrorKind::BadData)
    );
    assert_eq!(kind(&bench.cludz.probe().await), Some(ErrorKind::BadData));
}

#[tokio::test]
async fn an_unreachable_service_is_named_and_the_token_is_not() {
    let bench = Bench::new().await;
    let (url, id) = (bench.running.url(), bench.drive.id());
    bench.running.stop().await;
    for token in [Token::Header("canary-4711".into()), Token::Query("canary-4711".into())] {
        let cludz = client(url.clone(), id, token).await;
        let error = cludz.probe().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        assert!(error.message().contains("127.0.0.1"), "{error}");
        let shown = format!("{error} {error:?} {}", cludz.identity());
        assert!(!shown.contains("canary"), "{shown}");
    }
}
