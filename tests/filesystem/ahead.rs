//! What is fetched before anybody asks for it: files and directories in order, nothing else.

use std::time::Duration;

use keymount::fs::Ino;
use keymount::provider::faulty::Operation;

use crate::support::Fixture;

const MINUTE: Duration = Duration::from_secs(60);

fn walked() -> Fixture {
    let it = Fixture::with_ttl(MINUTE);
    it.fs.start_fetching_ahead();
    it
}

impl Fixture {
    /// Waits until the provider was asked so often.
    async fn asked(&self, operation: Operation, times: u64) {
        while self.provider.calls(operation) < times {
            tokio::task::yield_now().await;
        }
    }

    /// Lets the tasks run that have something to do.
    async fn settle(&self) {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn directories_listed_in_order_are_listed_ahead_and_once() {
    let it = walked();
    for number in 0..30 {
        it.store.put(&format!("d{number:02}/file"), "x").unwrap();
    }
    it.names(Ino::ROOT).await;
    let first = it.ino("d00").await;
    it.names(first).await;
    it.settle().await;
    assert_eq!(it.provider.calls(Operation::List), 2, "one directory is no walk");
    for number in 1..30 {
        let directory = it.ino(&format!("d{number:02}")).await;
        let before = it.provider.calls(Operation::List);
        assert_eq!(it.names(directory).await, ["file"]);
        let asked = it.provider.calls(Operation::List) - before;
        assert!(number == 1 || asked == 0, "d{number:02} was not there");
        it.settle().await;
    }
    assert_eq!(it.provider.calls(Operation::List), 31);
}

#[tokio::test]
async fn who_lists_a_directory_while_it_is_being_listed_waits_for_that_answer() {
    let it = walked();
    it.store.put("d/file", "x").unwrap();
    let directory = it.ino("d").await;
    let (one, other) = tokio::join!(it.names(directory), it.names(directory));
    assert_eq!((one, other), (vec!["file".to_owned()], vec!["file".to_owned()]));
    assert_eq!(it.provider.calls(Operation::List), 1);
}

#[tokio::test]
async fn small_files_read_in_order_are_fetched_ahead_and_once() {
    let it = walked();
    for number in 0..40 {
        it.store
            .put(&format!("f{number:02}"), format!("content {number}"))
            .unwrap();
    }
    it.store.put("f20", vec![1; 1_000_000]).unwrap();
    it.names(Ino::ROOT).await;
    for number in 0..3 {
        it.read(&format!("f{number:02}")).await;
    }
    it.asked(Operation::Read, 3 + 8).await;
    for number in (3..40).filter(|number| *number != 20) {
        let before = it.provider.calls(Operation::Read);
        let content = it.read(&format!("f{number:02}")).await;
        assert_eq!(content, format!("content {number}").as_bytes());
        assert!(it.provider.calls(Operation::Read) >= before);
        it.settle().await;
    }
    assert_eq!(
        it.provider.calls(Operation::Read),
        39,
        "each once, and the large one not"
    );
}

#[tokio::test]
async fn files_read_in_no_order_bring_nothing_ahead() {
    let it = walked();
    for number in 0..40 {
        it.store.put(&format!("f{number:02}"), "x").unwrap();
    }
    it.names(Ino::ROOT).await;
    for number in [30, 3, 17, 39, 0, 22, 11] {
        it.read(&format!("f{number:02}")).await;
        it.settle().await;
    }
    assert_eq!(it.provider.calls(Operation::Read), 7);
}
