//! Whatever goes wrong at whatever step of a change: no content is lost, success is never claimed falsely, and nothing
//! is published.

use keymount::emulator::storra::{Account, Assumptions, TrashUse, Visibility};
use keymount::emulator::{Fault, Rule};
use keymount::model::{Entry, Result};
use reqwest::Method;

use super::Bench;
use super::steps::at_step;

/// More requests than any change here makes, retries included.
const STEPS: usize = 24;

fn faults() -> [Fault; 8] {
    [
        Fault::DropConnection,
        Fault::DropAfterEffect,
        Fault::status(500),
        Fault::status_after_effect(500),
        Fault::status(429),
        Fault::status(403),
        Fault::LieAboutSuccess,
        Fault::Garbage,
    ]
}

/// Whether a content is somewhere: under some name, or where it can be restored from.
fn holds(account: &Account, bytes: &str) -> bool {
    let names = account.list("").unwrap();
    let trashed = |path: &str| account.trash().iter().any(|trashed| trashed == path);
    names
        .iter()
        .any(|name| account.read_all(name).iter().any(|content| content == bytes))
        || (bytes == "old" && trashed("file"))
}

/// Runs a change with every fault at every step and hands what is stored afterwards to `check`.
async fn sweep(
    trash: TrashUse,
    change: impl AsyncFn(&Bench, &Entry, &Entry) -> Result<Entry>,
    check: impl Fn(&str, &Result<Entry>, &Account),
) {
    for dies in [false, true] {
        for fault in faults() {
            for step in 0..STEPS {
                let bench = Bench::new(Assumptions::default()).await;
                bench.account.set_trash(trash);
                bench.account.put("file", "old").unwrap();
                bench.account.put("file.tmp", "new!").unwrap();
                let (old, fresh) = (bench.entry("file").await, bench.entry("file.tmp").await);
                bench.running.faults().inject(at_step(step, dies, fault.clone()));
                let result = change(&bench, &old, &fresh).await;
                bench.running.faults().clear();
                let what = format!("{fault:?} at step {step}, dies: {dies}, trash: {trash:?}, result {result:?}");
                check(&what, &result, &bench.account);
                for (path, visibility) in bench.account.visibilities() {
                    assert_eq!(visibility, Visibility::Private, "{path}: {what}");
                }
            }
        }
    }
}

#[tokio::test]
async fn replacing_never_loses_content() {
    for trash in [TrashUse::On, TrashUse::Off] {
        let change = async |bench: &Bench, old: &Entry, _: &Entry| bench.replace(old, b"fresh").await;
        sweep(trash, change, |what, result, account| {
            let names = account.list("").unwrap();
            match result {
                Ok(_) => assert_eq!(account.read_all("file"), ["fresh"], "{what}"),
                Err(_) => {
                    let old_is_there = account.read("file").is_some_and(|bytes| bytes == "old");
                    assert!(old_is_there || holds(account, "fresh"), "{what}: {names:?}");
                    assert!(holds(account, "old") || trash == TrashUse::Off, "{what}: {names:?}");
                }
            }
            for content in account.read_all("file") {
                assert!(content == "old" || content == "fresh", "{what}");
            }
        })
        .await;
    }
}

#[tokio::test]
async fn renaming_over_never_loses_content() {
    let change = async |bench: &Bench, old: &Entry, fresh: &Entry| bench.rename_over(fresh, old).await;
    sweep(TrashUse::On, change, |what, result, account| {
        assert!(holds(account, "new!"), "{what}");
        match result {
            Ok(_) => {
                assert_eq!(account.read_all("file"), ["new!"], "{what}");
                assert!(!account.exists("file.tmp"), "{what}");
            }
            Err(_) => assert!(
                holds(account, "old") || account.read("file").is_some_and(|bytes| bytes == "new!"),
                "{what}"
            ),
        }
    })
    .await;
}

#[tokio::test]
async fn a_new_file_is_there_when_it_is_said_to_be() {
    for name in ["added", "added \"so\""] {
        let change = async |bench: &Bench, _: &Entry, _: &Entry| bench.put(name, b"content").await;
        sweep(TrashUse::On, change, |what, result, account| {
            assert_eq!(account.read("file").unwrap(), "old", "{what}");
            if result.is_ok() {
                assert_eq!(account.read_all(name), ["content"], "{what}");
            }
            for stored in account.read_all(name) {
                assert_eq!(stored, "content", "{what}");
            }
        })
        .await;
    }
}

/// One lost answer isn't an error to the caller: the change is looked for and, if need be, made again.
#[tokio::test]
async fn one_lost_answer_is_made_up_for() {
    for fault in [
        Fault::DropConnection,
        Fault::DropAfterEffect,
        Fault::status_after_effect(502),
    ] {
        for (method, path) in [
            (Method::POST, "/files/upload"),
            (Method::PUT, "/move"),
            (Method::DELETE, "/file"),
        ] {
            let bench = Bench::new(Assumptions::default()).await;
            bench.account.put("file", "old").unwrap();
            let old = bench.entry("file").await;
            let lost = Rule::once(method.clone(), path, fault.clone());
            bench.running.faults().inject(lost);
            bench.replace(&old, b"fresh").await.unwrap();
            assert_eq!(bench.account.read_all("file"), ["fresh"], "{fault:?} {method} {path}");
            assert_eq!(bench.account.list("").unwrap(), ["file"], "{fault:?} {method} {path}");
        }
    }
}
