//! What is in a cache on disk is brought ahead of who reads on, as what is far away.

use tokio::time::timeout;

use super::*;

const BLOCKS: usize = 64;
const PIECE: usize = MIB / 2;

/// An object of which all is on disk, and nothing in memory.
async fn on_disk(all: &Fixture) -> (Vec<u8>, ObjectId) {
    let bytes = pattern(BLOCKS * MIB);
    let object = all.put("f", &bytes).object();
    let cache = all.fetcher.cache();
    let run = crate::cache::Run {
        first: 0,
        bytes: bytes.clone().into(),
    };
    cache.put(&all.fetcher.content(&object), vec![run]).await;
    assert_eq!(cache.usage().misses, 0);
    (bytes, object)
}

fn fixture(folder: &TempDir, memory: u64) -> Fixture {
    let mut all = Fixture::with(
        Reads::Ranges,
        Arc::new(DiskCache::open(folder.path(), 1 << 30).unwrap()),
    );
    all.use_memory(memory);
    all
}

#[tokio::test]
async fn every_block_is_taken_from_disk_once_though_it_is_read_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    let all = fixture(&folder, 256 * BLOCK);
    let (bytes, object) = on_disk(&all).await;
    let source = all.fetcher.open(object);
    for (offset, piece) in (0..).step_by(PIECE).zip(bytes.chunks(PIECE)) {
        assert!(source.read(offset, PIECE).await.unwrap() == piece, "at {offset}");
    }
    assert_eq!(all.reads(), 0);
    // Until two reads followed each other nobody was thought to read on.
    let hits = all.fetcher.cache().usage().hits;
    assert!(
        hits <= BLOCKS as u64 + 2,
        "{hits} of {BLOCKS} blocks were taken from disk"
    );
    drop(source);
    all.until_all_room_is_free().await;
}

#[tokio::test]
async fn what_turns_out_to_be_torn_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let all = fixture(&folder, 64 * BLOCK);
    let (bytes, object) = on_disk(&all).await;
    let name = format!("blocks/{}.data", all.fetcher.content(&object).hex());
    let data = File::options().write(true).open(folder.path().join(name)).unwrap();
    for block in [7, 30] {
        data.write_all_at(b"torn", block * BLOCK).unwrap();
    }
    let source = all.fetcher.open(object);
    for (offset, piece) in (0..).step_by(PIECE).zip(bytes.chunks(PIECE)) {
        assert!(source.read(offset, PIECE).await.unwrap() == piece, "at {offset}");
    }
    assert!((1..=4).contains(&all.reads()), "{} requests", all.reads());
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_room_to_read_from_disk() {
    let folder = tempfile::tempdir().unwrap();
    let all = fixture(&folder, 64 * BLOCK);
    let (bytes, object) = on_disk(&all).await;
    let all_room = all.fetcher.0.rooms.take(64, &room::Purpose::Wanted).await;
    assert!(all_room.is_ok());
    let source = all.fetcher.open(object);
    for (offset, piece) in (0..).step_by(PIECE).zip(bytes.chunks(PIECE)) {
        let read = timeout(Duration::from_secs(1), source.read(offset, PIECE)).await;
        assert!(read.expect("it is on disk").unwrap() == piece, "at {offset}");
    }
    assert_eq!(all.reads(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_stopped_reading_makes_room_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let all = fixture(&folder, 8 * BLOCK);
    let (_, object) = on_disk(&all).await;
    let stopped = all.fetcher.open(object);
    for offset in [0, PIECE, 2 * PIECE] {
        stopped.read(offset as u64, PIECE).await.unwrap();
    }
    let far = pattern(8 * MIB);
    let source = all.open("far", &far);
    let read = timeout(Duration::from_secs(1), source.read(0, far.len())).await;
    assert!(read.expect("less than what is at hand rests at most").unwrap() == far);
}
