use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tempfile::TempDir;

use super::*;
use crate::cache::{BLOCK, DiskCache, MemoryCache};
use crate::model::{Entry, ErrorKind, ObjectId, Progress};
use crate::provider::Capabilities;
use crate::provider::faulty::{Fault, Faulty, Gate, Operation, Times};
use crate::provider::memory::{Memory, Options};

mod from_disk;

const MIB: usize = BLOCK as usize;

struct Fixture {
    service: Faulty<Memory>,
    fetcher: Fetcher,
    spills: TempDir,
}

impl Fixture {
    fn new(reads: Reads) -> Self {
        Self::with(reads, Arc::new(MemoryCache::new(64 * BLOCK)))
    }

    fn with(reads: Reads, cache: Arc<dyn BlockCache>) -> Self {
        let defaults = Options::default();
        let service = Faulty::new(Memory::new(Options {
            capabilities: Capabilities {
                reads,
                ..defaults.capabilities
            },
            ..defaults
        }));
        let spills = tempfile::tempdir().unwrap();
        let settings = FetchSettings {
            spill_directory: spills.path().join("made when needed"),
            spill_limit: 16 * BLOCK,
            memory: 16 * BLOCK,
        };
        Self {
            fetcher: Fetcher::new(Arc::new(service.clone()), cache, settings),
            service,
            spills,
        }
    }

    /// Reads with so many bytes for what is on the way, from the same provider through the same cache.
    fn use_memory(&mut self, memory: u64) {
        let provider = Arc::new(self.service.clone());
        let settings = FetchSettings {
            memory,
            ..self.fetcher.0.settings.clone()
        };
        self.fetcher = Fetcher::new(provider, Arc::clone(self.fetcher.cache()), settings);
    }

    /// When what nobody wants any more has ended.
    async fn until_all_room_is_free(&self) {
        while !self.fetcher.0.rooms.is_all_free() {
            tokio::task::yield_now().await;
        }
    }

    fn put(&self, path: &str, bytes: &[u8]) -> Entry {
        self.service.inner().put(path, bytes.to_vec()).unwrap()
    }

    fn open(&self, path: &str, bytes: &[u8]) -> Source {
        self.fetcher.open(self.put(path, bytes).object())
    }

    fn fault(&self, fault: Fault) {
        self.service.inject(Operation::Read, Times::Next(1), fault);
    }

    fn reads(&self) -> u64 {
        self.service.calls(Operation::Read)
    }

    /// Lets the tasks run that have something to do.
    async fn settle(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
}

/// Bytes that tell their place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251 + i / 65_536) as u8).collect()
}

fn kind<T>(result: Result<T, crate::model::Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[tokio::test]
async fn every_part_of_an_object_reads_right_whatever_the_provider_can() {
    let bytes = pattern(3 * MIB + 1000);
    for reads in [Reads::Ranges, Reads::WholeOnly, Reads::WholeInOrder] {
        for cap in [0, 2 * BLOCK + 1000, 64 * BLOCK] {
            let all = Fixture::with(reads, Arc::new(MemoryCache::new(cap)));
            let source = all.open("f", &bytes);
            for (offset, len) in [
                (0, 1),
                (MIB - 1, 2),
                (0, 4 * MIB),
                (2 * MIB + 7, MIB),
                (3 * MIB, MIB),
                (3 * MIB + 999, 1),
                (3 * MIB + 1000, 1),
                (9 * MIB, 1),
                (5, 0),
            ] {
                let expected = &bytes[offset.min(bytes.len())..(offset + len).min(bytes.len())];
                let read = source.read(offset as u64, len).await.unwrap();
                assert!(read == expected, "{reads:?}, {len} at {offset}, cap {cap}");
            }
        }
    }
}

#[tokio::test]
async fn many_readers_of_one_block_make_one_call() {
    for reads in [Reads::Ranges, Reads::WholeOnly, Reads::WholeInOrder] {
        let all = Fixture::new(reads);
        let bytes = pattern(MIB / 2);
        let gate = Gate::new();
        all.fault(Fault::StallAfter {
            bytes: 10_000,
            gate: gate.clone(),
        });
        let object = all.put("f", &bytes).object();
        let readers = (0..64u64).map(|reader| {
            let source = all.fetcher.open(object.clone());
            tokio::spawn(async move { source.read(reader * 100, 100).await.unwrap() })
        });
        let readers: Vec<_> = readers.collect();
        gate.reached(1).await;
        all.settle().await;
        assert!(readers.iter().all(|reader| !reader.is_finished()));
        gate.open();
        for (read, expected) in join_all(readers).await.into_iter().zip(bytes.chunks(100)) {
            assert_eq!(read.unwrap(), expected);
        }
        assert_eq!(all.reads(), 1, "{reads:?}");
        assert_eq!(all.fetcher.open(object).read(0, 10).await.unwrap(), bytes[..10]);
        assert_eq!(all.reads(), 1, "{reads:?}: it is cached");
    }
}

#[tokio::test]
async fn neighbouring_blocks_share_a_request_and_known_ones_are_not_asked_for() {
    let all = Fixture::new(Reads::Ranges);
    let bytes = pattern(20 * MIB);
    let source = all.open("f", &bytes);
    assert!(source.read(0, 2 * MIB).await.unwrap() == bytes[..2 * MIB]);
    assert_eq!(all.reads(), 1);
    assert!(source.clone().read(3 * BLOCK, MIB).await.unwrap() == bytes[3 * MIB..4 * MIB]);
    assert_eq!(all.reads(), 1, "the head of the file came with it");
    source.clone().read(12 * BLOCK, 1).await.unwrap();
    assert_eq!(all.reads(), 2);
    // Blocks 4..12 and 13..20 lie on both sides of what is there.
    assert!(source.clone().read(0, 20 * MIB).await.unwrap() == bytes);
    assert_eq!(all.reads(), 4);
}

#[tokio::test]
async fn whoever_reads_on_finds_it_there() {
    let all = Fixture::new(Reads::Ranges);
    let bytes = pattern(60 * MIB);
    let source = all.open("f", &bytes);
    for offset in (0..60 * MIB).step_by(2 * MIB) {
        assert!(source.read(offset as u64, 2 * MIB).await.unwrap() == bytes[offset..offset + 2 * MIB]);
        all.settle().await;
        let before = all.reads();
        assert!(source.clone().read(offset as u64, 2 * MIB).await.unwrap() == bytes[offset..offset + 2 * MIB]);
        assert_eq!(all.reads(), before, "it is kept");
    }
    // One for the head, then four blocks at a time.
    assert!(all.reads() <= 15, "{}", all.reads());
    assert!(all.fetcher.0.rooms.is_all_free());
}

#[tokio::test]
async fn what_is_ahead_stays_at_hand_until_it_is_read_or_somebody_waits() {
    let all = Fixture::new(Reads::Ranges);
    let bytes = pattern(60 * MIB);
    let source = all.open("f", &bytes);
    // What was asked for with the beginning is in the cache by then.
    assert!(source.read(0, 4 * MIB).await.unwrap() == bytes[..4 * MIB]);
    for offset in (4 * MIB..40 * MIB).step_by(2 * MIB) {
        assert!(source.read(offset as u64, 2 * MIB).await.unwrap() == bytes[offset..offset + 2 * MIB]);
        all.settle().await;
        let held = all.fetcher.0.rooms.held();
        assert!(
            (1..=12).contains(&held),
            "{held} blocks of 16, of which who waits has four"
        );
    }
    let from_the_cache = all.fetcher.cache().usage().hits;
    assert!(
        from_the_cache <= 18,
        "{from_the_cache} of 36: half came from the answers"
    );
    let gate = Gate::new();
    all.fault(Fault::Stall(gate.clone()));
    let other = all.open("g", b"g");
    let waits = tokio::spawn(async move { other.read(0, 1).await });
    gate.reached(1).await;
    all.settle().await;
    assert_eq!(all.fetcher.0.rooms.held(), 0, "the one who waits may need it");
    gate.open();
    waits.await.unwrap().unwrap();
    let before = all.reads();
    assert!(source.read(40 * BLOCK, 2 * MIB).await.unwrap() == bytes[40 * MIB..42 * MIB]);
    assert_eq!(all.reads(), before, "it is in the cache");
    drop(source);
    all.settle().await;
    assert!(all.fetcher.0.rooms.is_all_free());
}

#[tokio::test]
async fn whoever_comes_later_gets_what_is_here_while_the_rest_stands_still() {
    let all = Fixture::new(Reads::Ranges);
    let bytes = pattern(4 * MIB);
    let source = all.open("f", &bytes);
    let gate = Gate::new();
    all.fault(Fault::StallAfter {
        bytes: 3 * BLOCK + 10,
        gate: gate.clone(),
    });
    assert_eq!(source.read(0, 10).await.unwrap(), bytes[..10]);
    gate.reached(1).await;
    all.settle().await;
    assert_eq!(source.read(BLOCK - 5, MIB).await.unwrap(), bytes[MIB - 5..2 * MIB - 5]);
    assert_eq!(source.read(2 * BLOCK, MIB).await.unwrap(), bytes[2 * MIB..3 * MIB]);
    let last = source.read(3 * BLOCK, 10);
    assert!(tokio::time::timeout(Duration::ZERO, last).await.is_err());
    gate.open();
    assert_eq!(source.read(3 * BLOCK, 10).await.unwrap(), bytes[3 * MIB..3 * MIB + 10]);
    assert_eq!(all.reads(), 1);
}

#[tokio::test]
async fn what_was_asked_for_with_the_beginning_comes_though_the_reader_has_that() {
    let all = Fixture::new(Reads::Ranges);
    let bytes = pattern(4 * BLOCK as usize);
    let source = all.open("f", &bytes);
    let gate = Gate::new();
    all.fault(Fault::StallAfter {
        bytes: BLOCK,
        gate: gate.clone(),
    });
    assert_eq!(source.read(0, 10).await.unwrap(), bytes[..10]);
    gate.open();
    assert_eq!(
        source.read(2 * BLOCK, 10).await.unwrap(),
        bytes[2 * BLOCK as usize..][..10]
    );
    assert_eq!(all.reads(), 1);
}

#[tokio::test]
async fn whoever_jumps_lets_go_of_what_was_ahead() {
    let all = Fixture::new(Reads::Ranges);
    let bytes = pattern(60 * MIB);
    let source = all.open("f", &bytes);
    source.read(0, 4 * MIB).await.unwrap();
    let gate = Gate::new();
    all.service
        .inject(Operation::Read, Times::Always, Fault::Stall(gate.clone()));
    let reader = tokio::spawn({
        let source = Arc::new(source);
        let same = Arc::clone(&source);
        async move {
            let _ = tokio::time::timeout(Duration::ZERO, source.read(4 * BLOCK, MIB)).await;
            same
        }
    });
    let source = reader.await.unwrap();
    gate.reached(2).await;
    let _ = tokio::time::timeout(Duration::ZERO, source.read(40 * BLOCK, 10)).await;
    all.settle().await;
    assert!(all.fetcher.0.rooms.is_all_free());
    assert_eq!(Arc::strong_count(&source.object), 1, "no task is left");
}

#[tokio::test]
async fn a_file_that_was_fetched_ahead_is_there() {
    for reads in [Reads::Ranges, Reads::WholeOnly, Reads::WholeInOrder] {
        let all = Fixture::new(reads);
        let bytes = pattern(2 * MIB);
        let early = all.open("f", &bytes);
        early.fetch_ahead().await;
        let late = all.fetcher.open(early.object().clone());
        assert!(late.read(0, 2 * MIB).await.unwrap() == bytes, "{reads:?}");
        assert_eq!(all.reads(), 1, "{reads:?}");
    }
}

#[tokio::test]
async fn one_waiter_that_goes_leaves_the_others_waiting() {
    let all = Fixture::new(Reads::Ranges);
    let bytes = pattern(1000);
    let gate = Gate::new();
    all.fault(Fault::Stall(gate.clone()));
    let source = all.open("f", &bytes);
    let start = || {
        let source = source.clone();
        tokio::spawn(async move { source.read(0, 1000).await })
    };
    let (goes, stays) = (start(), start());
    gate.reached(1).await;
    all.settle().await;
    goes.abort();
    assert!(goes.await.unwrap_err().is_cancelled());
    all.settle().await;
    gate.open();
    assert_eq!(stays.await.unwrap().unwrap(), bytes);
    assert_eq!(all.reads(), 1);
}

#[tokio::test]
async fn a_download_that_nobody_waits_for_ends_and_the_next_reader_starts_anew() {
    for reads in [Reads::Ranges, Reads::WholeOnly, Reads::WholeInOrder] {
        let all = Fixture::new(reads);
        let bytes = pattern(1000);
        let gate = Gate::new();
        all.fault(Fault::Stall(gate.clone()));
        let source = all.open("f", &bytes);
        let reader = tokio::spawn({
            let source = source.clone();
            async move { source.read(0, 1000).await }
        });
        gate.reached(1).await;
        reader.abort();
        assert!(reader.await.unwrap_err().is_cancelled());
        all.settle().await;
        assert_eq!(Arc::strong_count(&source.object), 1, "{reads:?}: the task is gone");
        assert!(all.fetcher.0.rooms.is_all_free());
        // The gate is still shut.
        assert_eq!(source.read(0, 1000).await.unwrap(), bytes);
        assert_eq!(all.reads(), 2);
    }
}

#[tokio::test]
async fn waiting_counts_as_progress_while_bytes_move_and_only_then() {
    for reads in [Reads::Ranges, Reads::WholeOnly, Reads::WholeInOrder] {
        let all = Fixture::new(reads);
        let gate = Gate::new();
        all.fault(Fault::Stall(gate.clone()));
        let source = all.open("f", &pattern(MIB));
        let watched = |source: &Source| {
            let (progress, source) = (Progress::default(), source.clone());
            let scope = progress.clone();
            let task = tokio::spawn(async move { scope.scope(source.read(0, MIB)).await });
            (progress, task)
        };
        let (leader, leads) = watched(&source);
        gate.reached(1).await;
        let (joiner, joins) = watched(&source);
        all.settle().await;
        assert_eq!((leader.value(), joiner.value()), (0, 0), "{reads:?}");
        gate.open();
        leads.await.unwrap().unwrap();
        joins.await.unwrap().unwrap();
        assert!(leader.value() > 0 && joiner.value() > 0, "{reads:?}");
    }
}

#[tokio::test]
async fn a_replaced_version_is_changed_and_never_mixed() {
    for reads in [Reads::Ranges, Reads::WholeOnly, Reads::WholeInOrder] {
        let all = Fixture::new(reads);
        let old = vec![1; 8 * MIB];
        let source = all.open("f", &old);
        if reads == Reads::Ranges {
            assert!(source.read(0, MIB).await.unwrap() == old[..MIB]);
        }
        let new = all.put("f", &vec![2; 8 * MIB]);
        assert_eq!(kind(source.read(6 * BLOCK, 10).await), Some(ErrorKind::Changed));
        assert_eq!(kind(source.read(6 * BLOCK - 5, 10).await), Some(ErrorKind::Changed));
        if reads == Reads::Ranges {
            assert_eq!(
                source.read(10, 10).await.unwrap(),
                [1; 10][..],
                "what is cached stays readable"
            );
        }
        let fresh = all.fetcher.open(new.object());
        assert_eq!(fresh.read(BLOCK - 5, 10).await.unwrap(), [2; 10][..]);
        all.service.inner().remove("f").unwrap();
        assert_eq!(kind(source.read(6 * BLOCK, 10).await), Some(ErrorKind::NotFound));
    }
}

#[tokio::test]
async fn a_whole_object_is_served_by_nobody_before_it_is_verified() {
    let all = Fixture::new(Reads::WholeOnly);
    let bytes = pattern(2 * MIB);
    let gate = Gate::new();
    // All bytes are here; the provider hasn't said yet that they are right.
    all.fault(Fault::StallAfter {
        bytes: bytes.len() as u64,
        gate: gate.clone(),
    });
    let source = all.open("f", &bytes);
    let reader = tokio::spawn({
        let source = source.clone();
        async move { source.read(0, 100).await }
    });
    gate.reached(1).await;
    all.settle().await;
    assert!(!reader.is_finished());
    assert_eq!(all.fetcher.cache().usage().bytes, 0);
    gate.open();
    assert_eq!(reader.await.unwrap().unwrap(), bytes[..100]);
}

#[tokio::test]
async fn a_whole_object_is_served_as_it_arrives_where_the_provider_says_so() {
    let all = Fixture::new(Reads::WholeInOrder);
    let bytes = pattern(12 * MIB + 5);
    let gate = Gate::new();
    all.fault(Fault::StallAfter {
        bytes: 9 * MIB as u64,
        gate: gate.clone(),
    });
    let source = all.open("f", &bytes);
    assert!(source.read(1000, MIB).await.unwrap() == bytes[1000..1000 + MIB]);
    gate.reached(1).await;
    // It goes on coming for as long as it is open, whoever reads.
    let other = all.fetcher.open(source.object().clone());
    assert!(other.read(3 * MIB as u64, MIB).await.unwrap() == bytes[3 * MIB..4 * MIB]);
    drop(other);
    let end = tokio::spawn({
        let source = source.clone();
        async move { source.read(12 * MIB as u64, MIB).await }
    });
    all.settle().await;
    assert!(!end.is_finished());
    gate.open();
    assert_eq!(end.await.unwrap().unwrap(), bytes[12 * MIB..]);
    assert!(source.read(0, 13 * MIB).await.unwrap() == bytes);
    assert_eq!(all.reads(), 1);
}

#[tokio::test]
async fn who_goes_with_the_last_bytes_of_a_whole_leaves_it_in_the_cache() {
    let all = Fixture::new(Reads::WholeInOrder);
    let bytes = pattern(12 * MIB);
    let gate = Gate::new();
    all.fault(Fault::StallAfter {
        bytes: 12 * MIB as u64,
        gate: gate.clone(),
    });
    let source = all.open("f", &bytes);
    let object = source.object().clone();
    let reader = tokio::spawn(async move { source.read(11 * MIB as u64, MIB).await });
    gate.reached(1).await;
    all.settle().await;
    assert!(!reader.is_finished(), "nobody knows yet that it is whole");
    gate.open();
    assert!(reader.await.unwrap().unwrap() == bytes[11 * MIB..]);
    all.until_all_room_is_free().await;
    assert!(all.fetcher.open(object).read(0, 12 * MIB).await.unwrap() == bytes);
    assert_eq!(all.reads(), 1);
}

#[tokio::test]
async fn what_came_of_a_whole_is_served_while_the_rest_is_asked_for_again() {
    let all = Fixture::new(Reads::WholeInOrder);
    let bytes = pattern(12 * MIB);
    all.fault(Fault::Break {
        after: 9 * MIB as u64,
        kind: ErrorKind::Unreachable,
    });
    let source = all.open("f", &bytes);
    for block in 0..12 {
        let read = source.read((block * MIB) as u64, MIB).await.unwrap();
        assert!(read == bytes[block * MIB..(block + 1) * MIB], "block {block}");
    }
    assert_eq!(all.reads(), 2);
}

#[tokio::test]
async fn a_whole_that_nobody_has_open_any_more_comes_no_farther() {
    let all = Fixture::new(Reads::WholeInOrder);
    let bytes = pattern(12 * MIB);
    let gate = Gate::new();
    all.fault(Fault::StallAfter {
        bytes: 9 * MIB as u64,
        gate: gate.clone(),
    });
    let source = all.open("f", &bytes);
    assert_eq!(source.read(0, 10).await.unwrap(), bytes[..10]);
    gate.reached(1).await;
    let object = Arc::downgrade(&source.object);
    drop(source);
    all.settle().await;
    assert_eq!(object.strong_count(), 0);
    assert!(all.fetcher.0.rooms.is_all_free());
}

/// Wrong bytes are what a provider that verifies ends its stream with.
fn wrong(after: u64) -> Fault {
    Fault::Break {
        after,
        kind: ErrorKind::BadData,
    }
}

#[tokio::test]
async fn wrong_bytes_are_asked_for_once_more() {
    for reads in [Reads::Ranges, Reads::WholeOnly, Reads::WholeInOrder] {
        let all = Fixture::new(reads);
        let bytes = pattern(2 * MIB);
        let source = all.open("f", &bytes);
        all.fault(wrong(2 * BLOCK));
        assert!(source.read(0, 2 * MIB).await.unwrap() == bytes, "{reads:?}");
        assert_eq!(all.reads(), 2, "{reads:?}");

        let other = all.open("g", &bytes);
        all.fault(wrong(BLOCK / 2));
        all.fault(wrong(BLOCK / 2));
        assert_eq!(kind(other.read(0, 2 * MIB).await), Some(ErrorKind::BadData));
        assert_eq!(all.reads(), 4, "{reads:?}");
        assert!(other.read(0, 2 * MIB).await.unwrap() == bytes, "{reads:?}");
    }
}

#[tokio::test]
async fn an_answer_of_the_wrong_length_is_wrong() {
    for reads in [Reads::Ranges, Reads::WholeOnly, Reads::WholeInOrder] {
        let all = Fixture::new(reads);
        let source = all.open("f", &pattern(1000));
        all.fault(Fault::NoEffect);
        all.fault(Fault::NoEffect);
        let error = source.read(0, 10).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadData);
        assert!(error.message().contains("fewer bytes"), "{error}");
    }
}

#[tokio::test]
async fn an_answer_that_broke_off_is_taken_up_where_it_ended() {
    let broken = || Fault::Break {
        after: BLOCK + 10,
        kind: ErrorKind::Unreachable,
    };
    for (reads, breaks, served) in [
        (Reads::Ranges, 2, true),
        (Reads::WholeOnly, 2, true),
        (Reads::WholeOnly, 3, false),
    ] {
        let all = Fixture::new(reads);
        let bytes = pattern(4 * MIB);
        let source = all.open("f", &bytes);
        (0..breaks).for_each(|_| all.fault(broken()));
        let read = source.read(0, 4 * MIB).await;
        assert_eq!(read.is_ok_and(|read| read == bytes), served, "{reads:?}");
        assert_eq!(all.reads(), 3, "{reads:?}");
    }
    // A refusal is not asked for again here.
    let all = Fixture::new(Reads::Ranges);
    let source = all.open("f", &pattern(10));
    all.fault(Fault::Fail(ErrorKind::Unreachable));
    assert_eq!(kind(source.read(0, 1).await), Some(ErrorKind::Unreachable));
    assert_eq!(all.reads(), 1);
}

#[tokio::test]
async fn all_who_wait_get_the_failure() {
    let all = Fixture::new(Reads::Ranges);
    let gate = Gate::new();
    all.fault(Fault::Stall(gate.clone()));
    let source = all.open("f", &pattern(10));
    all.put("f", b"new");
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let source = source.clone();
            tokio::spawn(async move { kind(source.read(0, 1).await) })
        })
        .collect();
    gate.reached(1).await;
    all.settle().await;
    gate.open();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), Some(ErrorKind::Changed));
    }
    assert_eq!(all.reads(), 1);
}

#[tokio::test]
async fn an_object_larger_than_the_cache_is_brought_once_while_it_is_open() {
    let all = Fixture::with(Reads::WholeOnly, Arc::new(MemoryCache::new(BLOCK)));
    let bytes = pattern(3 * MIB);
    let source = all.open("f", &bytes);
    for _ in 0..2 {
        for offset in (0..3 * MIB).step_by(MIB) {
            assert!(source.read(offset as u64, MIB).await.unwrap() == bytes[offset..offset + MIB]);
        }
    }
    assert_eq!(all.reads(), 1);
    let object = source.object().clone();
    drop(source);
    all.settle().await;
    assert!(all.fetcher.0.open.lock().is_empty());
    all.fetcher.open(object).read(0, 1).await.unwrap();
    assert_eq!(all.reads(), 2);
}

#[tokio::test]
async fn a_whole_object_has_its_limit_and_needs_a_place() {
    let all = Fixture::new(Reads::WholeOnly);
    let large = all.open("large", &vec![0; 16 * MIB + 1]);
    assert_eq!(kind(large.read(0, 1).await), Some(ErrorKind::TooLarge));
    assert_eq!(all.reads(), 0);
    // In the place of the folder is something else.
    std::fs::write(all.spills.path().join("made when needed"), "").unwrap();
    let error = all.open("small", b"x").read(0, 1).await.unwrap_err();
    assert!(error.message().contains("cannot be held locally"), "{error}");
}

#[tokio::test]
async fn a_full_disk_is_said_to_be_full() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let written = spill::write(&Arc::new(full), 0, Bytes::from_static(b"x")).await;
    assert_eq!(kind(written), Some(ErrorKind::NoSpace));
}

#[tokio::test]
async fn nothing_is_asked_for_nothing() {
    for reads in [Reads::Ranges, Reads::WholeOnly, Reads::WholeInOrder] {
        let all = Fixture::new(reads);
        let source = all.open("f", b"");
        assert!(source.read(0, 100).await.unwrap().is_empty());
        let file = Arc::new(tempfile::tempfile().unwrap());
        source.prime(&file).await;
        assert_eq!(all.reads(), 0);
    }
}

#[tokio::test]
async fn what_was_just_uploaded_is_read_from_the_cache() {
    let bytes = pattern(2 * MIB + 5);
    for reads in [Reads::Ranges, Reads::WholeOnly, Reads::WholeInOrder] {
        let all = Fixture::new(reads);
        let source = all.open("f", &bytes);
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.write_all_at(&bytes[1..], 0).unwrap();
        source.prime(&file).await;
        assert_eq!(all.fetcher.cache().usage().bytes, 0, "the length is another one");
        file.write_all_at(&bytes, 0).unwrap();
        source.prime(&file).await;
        assert!(source.read(0, 3 * MIB).await.unwrap() == bytes);
        assert_eq!(all.reads(), 0);
        all.fetcher.forget(source.object()).await;
        assert!(source.read(0, 3 * MIB).await.unwrap() == bytes);
        assert_eq!(all.reads(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_all_over_a_changing_set_get_right_bytes_from_a_cache_on_disk() {
    const CAP: u64 = 5 * BLOCK;
    for reads in [Reads::Ranges, Reads::WholeOnly, Reads::WholeInOrder] {
        let folder = tempfile::tempdir().unwrap();
        let cache = DiskCache::open(folder.path(), CAP).unwrap();
        let all = Fixture::with(reads, Arc::new(cache));
        let contents: Vec<_> = (0..4).map(|i| pattern((i + 1) * MIB + i * 1000)).collect();
        let objects: Vec<_> = contents
            .iter()
            .enumerate()
            .map(|(i, bytes)| all.put(&format!("f{i}"), bytes).object())
            .collect();
        let (contents, objects) = (Arc::new(contents), Arc::new(objects));
        let tasks = (0..16usize).map(|task| {
            let (fetcher, contents, objects) = (all.fetcher.clone(), contents.clone(), objects.clone());
            tokio::spawn(async move {
                for step in 0..20usize {
                    let which = (task + step) % 4;
                    let bytes = &contents[which];
                    let offset = (task * 7919 + step * 104_729 * 13) % bytes.len();
                    let source = fetcher.open(objects[which].clone());
                    let len = 300_000.min(bytes.len() - offset);
                    if step % 5 == 4 {
                        // Somebody who has no patience.
                        let _ = tokio::time::timeout(Duration::ZERO, source.read(offset as u64, 300_000)).await;
                        continue;
                    }
                    let read = source.read(offset as u64, 300_000).await.unwrap();
                    assert!(read == bytes[offset..offset + len]);
                    assert!(fetcher.cache().usage().bytes <= CAP);
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    }
}
