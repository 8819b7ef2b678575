//! Reading parts and wholes, and what is no longer there.

use futures_util::future::join_all;
use keymount::model::ErrorKind;

use super::Outcome::{self, NotApplicable, Passed};
use super::helpers::{Bench, kind, once_replaced, pattern};

pub async fn ranges_at_every_edge(bench: &Bench) -> Outcome {
    if !bench.reads_ranges() {
        return NotApplicable("only whole objects can be read");
    }
    let bytes = pattern(100_003, 2);
    let size = bytes.len() as u64;
    let entry = bench.put(&bench.root, "file", &bytes).await;
    for range in [
        0..0,
        0..1,
        1..2,
        0..size,
        0..size - 1,
        1..size,
        size - 1..size,
        size..size,
        4096..8192,
        4095..8193,
        65_536..size,
        50_000..50_001,
    ] {
        let part = bench
            .try_read(&entry, range.clone())
            .await
            .unwrap_or_else(|error| panic!("{range:?}: {error:?}"));
        let expected = &bytes[range.start as usize..range.end as usize];
        assert!(part == expected, "{range:?} gave other bytes, {} of them", part.len());
    }
    Passed
}

pub async fn concurrent_reads_of_one_file(bench: &Bench) -> Outcome {
    let bytes = pattern(300_000, 5);
    let entry = bench.put(&bench.root, "file", &bytes).await;
    let size = entry.size;
    let ranges = (0..8u64).map(|i| {
        if bench.reads_ranges() {
            i * 30_000..size
        } else {
            0..size
        }
    });
    let reads = join_all(ranges.map(async |range| {
        let part = bench.try_read(&entry, range.clone()).await.unwrap();
        assert!(part == bytes[range.start as usize..], "{range:?}");
    }));
    reads.await;
    Passed
}

pub async fn read_of_a_replaced_version(bench: &Bench) -> Outcome {
    let old = bench.put(&bench.root, "file", b"one").await;
    let new = bench.replace(&bench.root, &old, b"two").await;
    let expected = once_replaced(&old, &new);
    let refused = bench.try_read(&old, 0..3).await;
    assert_eq!(kind(&refused), Some(expected));
    if bench.reads_ranges() {
        let refused = bench.try_read(&old, 1..2).await;
        assert_eq!(kind(&refused), Some(expected));
    }
    assert_eq!(bench.read(&new).await, b"two");
    Passed
}

pub async fn read_of_a_removed_file(bench: &Bench) -> Outcome {
    let gone = bench.put(&bench.root, "file", b"one").await;
    bench.provider.remove_file(&gone).await.unwrap();
    assert_eq!(kind(&bench.try_read(&gone, 0..3).await), Some(ErrorKind::NotFound));
    Passed
}

pub async fn usage_or_unsupported(bench: &Bench) -> Outcome {
    bench.put(&bench.root, "file", &pattern(10_000, 1)).await;
    match bench.provider.usage().await {
        Ok(usage) => {
            assert!(usage.total.is_none_or(|total| total >= usage.used), "{usage:?}");
            Passed
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            NotApplicable("the provider doesn't tell")
        }
    }
}
