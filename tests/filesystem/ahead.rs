//! What is fetched before anybody asks for it: files and directories in order, nothing else.

use std::time::Duration;

use keymount::fs::{Access, HandleReads, Ino};
use keymount::provider::faulty::{Fault, Gate, Operation, Times};
use keymount::provider::memory::{Memory, Options};
use keymount::provider::{Capabilities, LISTS_AHEAD};

use crate::support::Fixture;

const MINUTE: Duration = Duration::from_secs(60);

fn walked() -> Fixture {
    let it = Fixture::with_ttl(MINUTE);
    it.fs.start_fetching_ahead();
    it
}

/// A person's pause between two commands.
const NO_PROGRAM: Duration = Duration::from_secs(1);

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

#[tokio::test(start_paused = true)]
async fn directories_listed_in_order_are_listed_ahead_and_once() {
    let it = walked();
    for number in 0..30 {
        it.store.put(&format!("d{number:02}/file"), "x").unwrap();
    }
    it.names(Ino::ROOT).await;
    tokio::time::advance(NO_PROGRAM).await;
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

#[tokio::test(start_paused = true)]
async fn so_many_directories_are_listed_at_once_and_in_order() {
    let it = walked();
    for number in 0..60 {
        it.store.make_directory(&format!("d{number:02}")).unwrap();
    }
    it.names(Ino::ROOT).await;
    tokio::time::advance(NO_PROGRAM).await;
    it.names(it.ino("d00").await).await;
    let gate = Gate::new();
    let held = Fault::Stall(gate.clone());
    it.provider.inject(Operation::List, Times::Always, held);
    it.provider.reset_counts();
    let next = it.ino("d01").await;
    let (_, ()) = tokio::join!(it.names(next), async {
        gate.reached(1 + LISTS_AHEAD as u64).await;
        it.settle().await;
        let listed: Vec<String> = it.provider.listed().iter().map(ToString::to_string).collect();
        let expected: Vec<String> = (1..2 + LISTS_AHEAD).map(|number| format!("d{number:02}")).collect();
        assert_eq!(listed, expected, "the one that is asked for, and those after it");
        gate.open();
    });
    for number in 2..60 {
        it.names(it.ino(&format!("d{number:02}")).await).await;
    }
    let mut listed = it.provider.listed();
    listed.sort_unstable();
    listed.dedup();
    assert_eq!((listed.len(), it.provider.calls(Operation::List)), (59, 59));
}

#[tokio::test(start_paused = true)]
async fn who_goes_straight_into_the_first_directory_has_those_after_it_on_the_way() {
    let it = walked();
    for number in 0..60 {
        it.store.make_directory(&format!("d{number:02}")).unwrap();
    }
    it.names(Ino::ROOT).await;
    it.names(it.ino("d00").await).await;
    it.settle().await;
    let listed: Vec<String> = it.provider.listed().iter().map(ToString::to_string).collect();
    let expected: Vec<String> = (0..=LISTS_AHEAD / 2).map(|number| format!("d{number:02}")).collect();
    assert_eq!(listed[1..], expected);
}

/// Walks as `find` does and gives how many directories there are.
async fn find(it: &Fixture, directory: Ino) -> usize {
    let mut directories = 1;
    for name in it.names(directory).await {
        if name.starts_with('d') {
            directories += Box::pin(find(it, it.child(directory, &name).await)).await;
        }
    }
    directories
}

/// The clock is the test's: it goes on only while everybody waits for the provider.
#[tokio::test(start_paused = true)]
async fn a_walk_through_a_tree_waits_for_an_eighth_of_its_directories() {
    const ROUND_TRIP: Duration = Duration::from_millis(20);
    for (wide, deep) in [(100, 1), (9, 2), (4, 3)] {
        let it = walked();
        let mut paths = vec![String::new()];
        for _ in 0..deep {
            let below = |path: &String| {
                (0..wide)
                    .map(|number| format!("{path}d{number:02}/"))
                    .collect::<Vec<_>>()
            };
            let deeper: Vec<String> = paths.iter().flat_map(below).collect();
            paths = deeper;
        }
        for path in &paths {
            it.store.put(&format!("{path}file"), "x").unwrap();
        }
        it.provider
            .inject(Operation::List, Times::Always, Fault::Delay(ROUND_TRIP));
        let began = tokio::time::Instant::now();
        let directories = find(&it, Ino::ROOT).await;
        let round_trips = (began.elapsed().as_secs_f64() / ROUND_TRIP.as_secs_f64()).round() as usize;
        assert_eq!(it.provider.calls(Operation::List), directories as u64, "each once");
        // Two are listed before it is a walk; below, the first of each level is known late.
        let most = directories / 8 + 2 * deep + 3;
        assert!(
            round_trips <= most,
            "{wide} wide, {deep} deep: {directories} directories took {round_trips}, not {most}"
        );
    }
}

#[tokio::test]
async fn where_questions_are_few_nothing_is_listed_ahead() {
    let defaults = Options::default();
    let store = Memory::new(Options {
        capabilities: Capabilities {
            lists_ahead: 0,
            ..defaults.capabilities
        },
        ..defaults
    });
    let it = Fixture::with_ttl_over(store, MINUTE);
    it.fs.start_fetching_ahead();
    for number in 0..20 {
        it.store.make_directory(&format!("d{number:02}")).unwrap();
    }
    it.names(Ino::ROOT).await;
    for number in 0..5 {
        it.names(it.ino(&format!("d{number:02}")).await).await;
        it.settle().await;
    }
    assert_eq!(it.provider.calls(Operation::List), 6);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_cannot_be_listed_ahead_is_asked_for_again_by_who_wants_it() {
    let it = walked();
    for number in 0..6 {
        it.store.put(&format!("d{number:02}/file"), "x").unwrap();
    }
    it.names(Ino::ROOT).await;
    it.names(it.ino("d00").await).await;
    let second = it.ino("d01").await;
    // The one that is asked for is well; those ahead are not.
    it.provider
        .inject(Operation::List, Times::Next(1), Fault::Delay(Duration::ZERO));
    it.provider.inject(
        Operation::List,
        Times::Next(4),
        Fault::Fail(keymount::model::ErrorKind::BadData),
    );
    it.names(second).await;
    it.asked(Operation::List, 3 + 4).await;
    it.settle().await;
    for number in 2..6 {
        assert_eq!(it.names(it.ino(&format!("d{number:02}")).await).await, ["file"]);
    }
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

impl Fixture {
    /// Reads a file unless the kernel does so by itself; whether it did.
    async fn read_or_not(&self, name: &str) -> bool {
        let opened = self.fs.open(self.ino(name).await, Access::Read).await.unwrap();
        let by_the_kernel = matches!(opened.reads, HandleReads::Itself(_));
        if !by_the_kernel {
            self.fs.read(opened.handle, 0, 100).await.unwrap();
        }
        self.close(opened.handle).await;
        by_the_kernel
    }
}

/// The kernel doesn't say when it reads a file by itself: opening it must count.
#[tokio::test]
async fn small_files_that_the_kernel_reads_by_itself_are_fetched_ahead_and_once() {
    let it = Fixture::read_only_with_ttl(MINUTE).read_by_the_kernel().await;
    it.fs.start_fetching_ahead();
    for number in 0..100 {
        it.store
            .put(&format!("f{number:02}"), format!("content {number}"))
            .unwrap();
    }
    it.names(Ino::ROOT).await;
    for number in 0..3 {
        assert!(!it.read_or_not(&format!("f{number:02}")).await);
    }
    for number in 3..100 {
        // It is on its way, and then on the disk.
        it.asked(Operation::Read, number + 1).await;
        while !it.read_or_not(&format!("f{number:02}")).await {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(it.provider.calls(Operation::Read), 100);
    assert_eq!(it.provider.calls(Operation::List), 1);
    assert_eq!(
        it.provider.calls(Operation::Stat) + it.provider.calls(Operation::Lookup),
        0
    );
}

/// `cp -r` reads so.
#[tokio::test]
async fn small_files_read_in_the_order_of_their_numbers_are_fetched_ahead_too() {
    let it = walked();
    let mut numbers = Vec::new();
    for number in 0..40 {
        it.store.put(&format!("f{number:02}"), "x").unwrap();
    }
    for name in it.names(Ino::ROOT).await {
        numbers.push((it.ino(&name).await, name));
    }
    numbers.sort_unstable();
    for (_, name) in &numbers[..3] {
        it.read(name).await;
    }
    it.asked(Operation::Read, 3 + 8).await;
    for (_, name) in &numbers[3..] {
        it.read(name).await;
        it.settle().await;
    }
    assert_eq!(it.provider.calls(Operation::Read), 40);
}

#[tokio::test]
async fn who_reads_through_one_directory_after_another_has_the_files_of_the_next_one_at_once() {
    let it = walked();
    for directory in ["a", "b"] {
        for number in 0..8 {
            it.store.put(&format!("{directory}/f{number}"), "x").unwrap();
        }
        it.names(it.ino(directory).await).await;
    }
    let read = async |directory: &str, number: u64| {
        let ino = it.child(it.ino(directory).await, &format!("f{number}")).await;
        let opened = it.fs.open(ino, Access::Read).await.unwrap();
        it.fs.read(opened.handle, 0, 10).await.unwrap();
        it.close(opened.handle).await;
        it.settle().await;
    };
    for number in 0..8 {
        read("a", number).await;
    }
    read("b", 0).await;
    it.asked(Operation::Read, 16).await;
}

/// What is known of files counts for a minute here: then all are asked for in one request, as long as they are read in
/// order.
#[tokio::test(start_paused = true)]
async fn a_long_walk_through_files_asks_for_their_directory_and_not_for_each() {
    let it = walked();
    for number in 0..60 {
        it.store.put(&format!("f{number:02}"), "x").unwrap();
    }
    it.names(Ino::ROOT).await;
    let known: Vec<_> = {
        let mut known = Vec::new();
        for number in 0..60 {
            known.push(it.child(Ino::ROOT, &format!("f{number:02}")).await);
        }
        known
    };
    for (number, ino) in known.into_iter().enumerate() {
        if number % 20 == 19 {
            tokio::time::advance(MINUTE).await;
        }
        let opened = it.fs.open(ino, Access::Read).await.unwrap();
        assert_eq!(it.fs.read(opened.handle, 0, 10).await.unwrap(), "x");
        it.close(opened.handle).await;
        it.settle().await;
    }
    assert_eq!(it.provider.calls(Operation::List), 4);
    assert_eq!(
        it.provider.calls(Operation::Stat) + it.provider.calls(Operation::Lookup),
        0
    );
    assert_eq!(it.provider.calls(Operation::Read), 60);
}
