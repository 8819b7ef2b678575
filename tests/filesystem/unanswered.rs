//! What was sent without an answer is this mount's own, also after further changes and after a kill.

use std::time::Duration;

use bytes::Bytes;
use keymount::fs::{Access, Ino};
use keymount::model::ErrorKind;
use keymount::provider::faulty::{Fault, Gate, Operation, Times};

use crate::support::{Fixture, os};

/// How a file is changed after an attempt.
#[derive(Clone, Copy, Debug)]
enum Change {
    Anew,
    Within,
    Longer,
    Cut,
}

impl Change {
    const ALL: [Self; 4] = [Self::Anew, Self::Within, Self::Longer, Self::Cut];

    /// What becomes of `mine`.
    fn expected(self) -> &'static str {
        match self {
            Self::Anew => "newer",
            Self::Within => "mint",
            Self::Longer => "mine, too",
            Self::Cut => "mi",
        }
    }

    async fn carry_out(self, it: &Fixture) {
        let (offset, bytes) = match self {
            Self::Anew => return it.write("a", b"newer").await,
            Self::Within => (3, &b"t"[..]),
            Self::Longer => (4, &b", too"[..]),
            Self::Cut => {
                let change = keymount::fs::AttributeChange {
                    size: Some(2),
                    ..Default::default()
                };
                it.fs.set_attributes(it.ino("a").await, change).await.unwrap();
                return;
            }
        };
        let handle = it.fs.open(it.ino("a").await, Access::Write).await.unwrap().handle;
        let bytes = Bytes::from_static(bytes);
        it.fs.write(handle, Some(offset), bytes).await.unwrap();
        it.fs.flush(handle).await.unwrap();
        it.close(handle).await;
    }
}

async fn is_alone(it: &Fixture, content: &str, what: impl std::fmt::Debug) {
    it.sent().await;
    assert_eq!(it.names(Ino::ROOT).await, ["a"], "{what:?}");
    let stored = it.store.content("a").unwrap();
    assert_eq!(String::from_utf8_lossy(&stored), content, "{what:?}");
}

/// A file that the provider has, or is to get for the first time.
async fn before(is_new: bool) -> Fixture {
    let it = Fixture::in_background();
    if !is_new {
        it.write("a", b"base").await;
        it.sent().await;
    }
    it
}

fn nobody_answers(it: &Fixture) {
    let away = Fault::Fail(ErrorKind::Unreachable);
    it.provider.inject(Operation::Upload, Times::Always, away);
}

#[tokio::test(start_paused = true)]
async fn what_was_stored_without_an_answer_and_then_changed_makes_no_conflict_after_a_kill() {
    for change in Change::ALL {
        for is_new in [false, true] {
            for kills in 1..=3 {
                let mut it = before(is_new).await;
                let lost = Fault::FailAfterEffect(ErrorKind::Unreachable);
                it.provider.inject(Operation::Upload, Times::Next(1), lost);
                nobody_answers(&it);
                it.write("a", b"mine").await;
                assert!(it.fs.drain().await.is_err());
                assert_eq!(it.store.content("a").unwrap(), "mine");
                for kill in 0..kills {
                    if kill == 1 {
                        // What a daemon that ended sent is its successor's, too.
                        nobody_answers(&it);
                        it.write("a", b"mine").await;
                    }
                    if kill < 2 {
                        change.carry_out(&it).await;
                    }
                    (it, _) = it.killed().mounted_again().await;
                }
                is_alone(&it, change.expected(), (change, is_new, kills)).await;
            }
        }
    }
}

/// As a deadline does: whoever waits for an upload leaves, and what was sent arrives all the same.
#[tokio::test(start_paused = true)]
async fn what_arrives_after_its_sender_gave_up_waiting_makes_no_conflict() {
    for change in Change::ALL {
        for is_new in [false, true] {
            for is_killed in [false, true] {
                let it = before(is_new).await;
                // The background has no part in it.
                it.fs.stop_sending();
                it.write("a", b"mine").await;
                let answer = Gate::new();
                let late = Fault::StallAnswer(answer.clone());
                it.provider.inject(Operation::Upload, Times::Next(1), late);
                let handle = it.fs.open(it.ino("a").await, Access::Write).await.unwrap();
                let patience = Duration::from_secs(60);
                let synced = tokio::time::timeout(patience, it.fs.fsync(handle.handle)).await;
                assert!(synced.is_err());
                assert_eq!(it.store.content("a").unwrap(), "mine");
                nobody_answers(&it);
                change.carry_out(&it).await;
                it.close(handle.handle).await;
                let it = if is_killed {
                    it.killed().mounted_again().await.0
                } else {
                    it.provider.heal();
                    // The first one may tell that somebody changed it.
                    let _ = it.fs.drain().await;
                    it.fs.drain().await.unwrap();
                    it
                };
                is_alone(&it, change.expected(), (change, is_new, is_killed)).await;
            }
        }
    }
}

/// Somebody else's version stays somebody else's.
#[tokio::test(start_paused = true)]
async fn another_hosts_version_after_an_attempt_without_an_answer_is_kept() {
    let it = before(false).await;
    nobody_answers(&it);
    it.write("a", b"mine").await;
    assert!(it.fs.drain().await.is_err());
    it.write("a", b"newer").await;
    it.store.put("a", "their").unwrap();
    let (it, _) = it.killed().mounted_again().await;
    it.sent().await;
    assert_eq!(it.names(Ino::ROOT).await.len(), 2);
    assert_eq!(it.store.content("a").unwrap(), "their");
    assert!(it.fs.lookup(Ino::ROOT, os("a")).await.is_ok());
}
