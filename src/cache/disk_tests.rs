use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::super::folder::PAGE;
use super::super::health::TRY_EVERY;
use super::super::testing::{Model, Op, content, one, ops, run};
use super::*;

/// A version of one short block: its bytes and its map.
const SMALL: u64 = 2 * PAGE;

struct Fixture {
    folder: TempDir,
    cap: u64,
    piecewise_above: u64,
    disk: Option<Disk>,
}

impl Fixture {
    fn new(cap: u64) -> Self {
        Self::with(cap, PIECEWISE_ABOVE)
    }

    fn with(cap: u64, piecewise_above: u64) -> Self {
        let mut fixture = Self {
            folder: tempfile::tempdir().unwrap(),
            cap,
            piecewise_above,
            disk: None,
        };
        fixture.reopen();
        fixture
    }

    fn reopen(&mut self) {
        self.disk = None;
        let disk = Disk::open(self.folder.path(), self.cap, self.piecewise_above).unwrap();
        disk.take_over();
        self.disk = Some(disk);
    }

    fn disk(&self) -> &Disk {
        self.disk.as_ref().unwrap()
    }

    fn path(&self, name: String) -> PathBuf {
        self.folder.path().join("blocks").join(name)
    }

    fn data(&self, number: u8) -> PathBuf {
        self.path(format!("{}.data", content(number).hex()))
    }

    fn map(&self, number: u8) -> PathBuf {
        self.path(format!("{}.map", content(number).hex()))
    }

    fn get(&self, number: u8, block: u64) -> Option<Vec<u8>> {
        one(self.disk().get(&content(number), block..block + 1)).map(Vec::from)
    }

    fn put(&self, number: u8, block: u64, bytes: &[u8]) {
        self.disk().put(&content(number), &run(block, bytes.to_vec()));
    }

    /// What the file system says that the cache takes.
    fn on_disk(&self) -> u64 {
        let files = fs::read_dir(self.folder.path().join("blocks")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum()
    }
}

#[test]
fn survives_a_restart() {
    let mut cache = Fixture::new(1 << 30);
    cache.put(1, 0, &[7; 5000]);
    cache.put(1, 3, b"the end");
    cache.reopen();
    assert_eq!(cache.disk().usage().bytes, cache.on_disk());
    assert_eq!(cache.get(1, 0), Some(vec![7; 5000]));
    assert_eq!(cache.get(1, 3).as_deref(), Some(&b"the end"[..]));
    assert_eq!((cache.get(1, 1), cache.get(2, 0)), (None, None));
    let usage = cache.disk().usage();
    assert_eq!((usage.hits, usage.misses), (2, 2));
    for path in [cache.data(1), cache.map(1)] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o600);
    }
}

#[test]
fn the_bytes_lie_in_the_file_as_in_the_object() {
    let cache = Fixture::new(1 << 30);
    let (first, last) = (vec![1; BLOCK as usize], vec![2; 100]);
    cache.put(1, 1, &last);
    cache.put(1, 0, &first);
    assert_eq!(fs::read(cache.data(1)).unwrap(), [first, last].concat());
}

#[test]
fn what_was_torn_or_changed_on_disk_is_a_miss() {
    let overwrite = |path: PathBuf, bytes: &[u8], offset: u64| {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(bytes, offset).unwrap();
    };
    type Damage<'a> = &'a dyn Fn(&Fixture);
    let damages: [(&str, Damage); 7] = [
        ("a bit of the bytes", &|c| overwrite(c.data(1), &[6], 4000)),
        ("bytes cut off", &|c| {
            File::options()
                .write(true)
                .open(c.data(1))
                .unwrap()
                .set_len(100)
                .unwrap()
        }),
        ("no bytes", &|c| fs::remove_file(c.data(1)).unwrap()),
        ("no map", &|c| fs::remove_file(c.map(1)).unwrap()),
        ("a map of garbage", &|c| fs::write(c.map(1), [0xa5; 200]).unwrap()),
        ("an empty map", &|c| fs::write(c.map(1), []).unwrap()),
        ("a wrong length in the map", &|c| overwrite(c.map(1), &[1], 64)),
    ];
    for (what, damage) in damages {
        for restart in [false, true] {
            let mut cache = Fixture::new(1 << 30);
            cache.put(1, 0, &[7; 5000]);
            if restart {
                cache.disk = None;
            }
            damage(&cache);
            if restart {
                cache.reopen();
            } else if what.contains("map") {
                // The map is in memory; the bytes are what they were.
                continue;
            }
            assert_eq!(cache.get(1, 0), None, "{what}, restart: {restart}");
            cache.put(1, 0, &[7; 5000]);
            assert_eq!(cache.get(1, 0), Some(vec![7; 5000]), "{what}, restart: {restart}");
            assert!(cache.on_disk() <= cache.disk().usage().bytes, "{what}");
        }
    }
}

#[test]
fn a_block_in_the_place_of_another_is_a_miss() {
    let cache = Fixture::new(1 << 30);
    cache.put(1, 0, &[1; 50]);
    cache.put(2, 0, &[2; 50]);
    fs::copy(cache.data(2), cache.data(1)).unwrap();
    assert_eq!(cache.get(1, 0), None);
}

#[test]
fn versions_go_in_the_order_of_their_last_use_also_after_a_restart() {
    let mut cache = Fixture::new(3 * SMALL);
    for number in 1..=3 {
        cache.put(number, 0, b"x");
        let age = std::time::Duration::from_secs(1000 - u64::from(number));
        let map = OpenOptions::new().write(true).open(cache.map(number)).unwrap();
        map.set_modified(SystemTime::now() - age).unwrap();
    }
    cache.reopen();
    assert!(cache.get(1, 0).is_some());
    cache.reopen();
    cache.put(4, 0, b"x");
    let there: Vec<u8> = (1..=4).filter(|&number| cache.get(number, 0).is_some()).collect();
    assert_eq!(there, [1, 3, 4]);
}

#[test]
fn a_smaller_cap_takes_effect_at_once() {
    let mut cache = Fixture::new(10 * SMALL);
    for number in 0..10 {
        cache.put(number, 0, b"x");
    }
    assert_eq!(cache.disk().usage().bytes, 10 * SMALL);
    cache.cap = 3 * SMALL;
    cache.reopen();
    assert_eq!(cache.disk().usage().bytes, 3 * SMALL);
    assert!(cache.on_disk() <= 3 * SMALL);
}

#[test]
fn a_large_version_loses_its_oldest_blocks_and_keeps_the_rest() {
    let mut cache = Fixture::with(PAGE + 4 * BLOCK, BLOCK);
    let block = |number: u8| vec![number; BLOCK as usize];
    for number in 0..4 {
        cache.put(1, u64::from(number), &block(number));
    }
    assert!(cache.get(1, 0).is_some());
    cache.put(1, 4, &block(4));
    let there = |cache: &Fixture| -> Vec<u64> { (0..5).filter(|&block| cache.get(1, block).is_some()).collect() };
    assert_eq!(there(&cache), [0, 2, 3, 4]);
    assert_eq!(cache.disk().usage().bytes, cache.cap);
    assert!(cache.on_disk() <= cache.cap);
    // Holes stay holes after a restart, and room that was freed is room.
    cache.reopen();
    assert_eq!(there(&cache), [0, 2, 3, 4]);
    cache.put(2, 0, b"x");
    assert!(cache.get(2, 0).is_some() && cache.on_disk() <= cache.cap);
    assert_eq!(there(&cache).len(), 3);
}

#[test]
fn what_is_being_read_or_written_stays_on_disk() {
    let cache = Fixture::new(SMALL);
    let reserve = || cache.disk().reserve(&content(1), &run(0, "x"));
    assert!(matches!(reserve(), Room::Reserved(new) if new == [0]));
    cache.put(2, 0, b"x");
    assert_eq!(cache.get(2, 0), None, "there was no room beside what is being written");
    assert!(
        matches!(reserve(), Room::Reserved(new) if new.is_empty()),
        "it is on its way"
    );
    cache.disk().forget(&content(1));
    assert_eq!(cache.disk().usage().bytes, SMALL, "it goes when it is written");
    cache.disk().unpin(&mut cache.disk().index.lock(), &content(1));
    assert_eq!(cache.disk().usage().bytes, 0);
}

#[test]
fn neighbours_are_written_and_read_at_once() {
    let mut cache = Fixture::new(1 << 30);
    let bytes: Vec<u8> = (0..70u8).flat_map(|number| vec![number; BLOCK as usize]).collect();
    cache.put(1, 5, &[5; BLOCK as usize]);
    cache.put(1, 0, &bytes);
    cache.put(1, 70, b"the end");
    cache.reopen();
    assert_eq!(cache.disk().usage().bytes, cache.on_disk());
    let all = run(0, [&bytes, &b"the end"[..]].concat());
    assert!(cache.disk().get(&content(1), 0..72) == [all.clone()]);
    assert_eq!(cache.disk().missing(&content(1), 68..73), [71, 72]);
    assert_eq!(cache.disk().missing(&content(2), 0..2), [0, 1]);
    // One torn block is no reason to lose its neighbours.
    let file = OpenOptions::new().write(true).open(cache.data(1)).unwrap();
    file.write_all_at(b"!", 3 * BLOCK + 17).unwrap();
    let place = |block: u64| (block * BLOCK) as usize;
    let (before, after) = (all.bytes.slice(..place(3)), all.bytes.slice(place(4)..));
    assert!(cache.disk().get(&content(1), 0..71) == [run(0, before), run(4, after)]);
    assert_eq!(cache.disk().missing(&content(1), 0..71), [3]);
}

#[test]
fn what_is_not_counted_yet_is_found_and_nothing_new_is_kept() {
    let mut cache = Fixture::new(10 * SMALL);
    for number in 0..4 {
        cache.put(number, 0, b"x");
    }
    cache.disk = None;
    let disk = Disk::open(cache.folder.path(), 2 * SMALL, PIECEWISE_ABOVE).unwrap();
    assert_eq!(one(disk.get(&content(0), 0..1)).as_deref(), Some(&b"x"[..]));
    disk.put(&content(9), &run(0, "x"));
    assert_eq!(disk.get(&content(9), 0..1), []);
    disk.forget(&content(3));
    disk.take_over();
    assert_eq!(disk.usage().bytes, 2 * SMALL);
    assert!(one(disk.get(&content(0), 0..1)).is_some(), "it was used last");
    assert_eq!(disk.get(&content(3), 0..1), []);
}

#[test]
fn a_full_disk_means_misses_and_is_noticed_when_it_is_over() {
    let cache = Fixture::new(1 << 30);
    symlink("/dev/full", cache.data(1)).unwrap();
    cache.put(1, 0, &[7; 5000]);
    assert_eq!(cache.get(1, 0), None);
    assert!(!cache.data(1).exists() && cache.disk().usage().bytes == 0);
    assert!(cache.disk().health.failing.load(Ordering::Relaxed));
    let tries = (1..).find(|_| {
        cache.put(1, 0, &[7; 5000]);
        cache.get(1, 0).is_some()
    });
    assert_eq!(tries, Some(TRY_EVERY));
    assert!(!cache.disk().health.failing.load(Ordering::Relaxed));
}

#[test]
fn a_folder_that_vanishes_means_misses() {
    let cache = Fixture::new(1 << 30);
    cache.put(1, 0, b"x");
    fs::remove_dir_all(cache.folder.path().join("blocks")).unwrap();
    assert_eq!(cache.get(1, 0), None);
    cache.put(2, 0, b"x");
    assert_eq!(cache.get(2, 0), None);
    assert_eq!(cache.disk().usage().bytes, 0);
}

#[test]
fn two_daemons_on_one_folder_do_not_meet() {
    let mut cache = Fixture::new(1 << 30);
    let other = Disk::open(cache.folder.path(), 1 << 30, PIECEWISE_ABOVE).unwrap();
    cache.put(1, 0, b"first");
    other.take_over();
    other.put(&content(1), &run(0, "first"));
    other.clear(&HashSet::new());
    assert!(cache.get(1, 0).is_some());
    drop(other);
    cache.reopen();
    assert!(cache.get(1, 0).is_some());
}

#[test]
fn what_is_kept_survives_an_emptying_and_a_folder_in_use_is_left_alone() {
    let mut cache = Fixture::new(1 << 30);
    cache.put(1, 0, b"open");
    cache.put(2, 0, b"closed");
    cache.disk().clear(&HashSet::from([content(1)]));
    assert_eq!(cache.get(1, 0), Some(b"open".to_vec()));
    assert_eq!(cache.get(2, 0), None);
    let folder = cache.folder.path().to_owned();
    let survey = crate::cache::survey(&folder).unwrap();
    assert_eq!((survey.versions, survey.bytes > 0), (1, true));
    assert_eq!(DiskCache::empty(&folder).unwrap(), None, "a daemon has it");
    assert!(cache.get(1, 0).is_some());
    cache.disk = None;
    assert!(DiskCache::empty(&folder).unwrap().is_some_and(|bytes| bytes > 0));
    assert_eq!(crate::cache::survey(&folder).unwrap(), crate::cache::Survey::default());
    assert_eq!(crate::cache::survey(&folder.join("none")).unwrap().versions, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_stay_below_the_cap_and_get_right_bytes() {
    const CAP: u64 = 40 * SMALL;
    let fixture = Fixture::with(CAP, 3 * SMALL);
    let Fixture { folder, disk, .. } = fixture;
    let cache = DiskCache(Arc::new(disk.unwrap()));
    let tasks = (0..16u8).map(|task| {
        let cache = cache.clone();
        tokio::spawn(async move {
            for step in 0..100u64 {
                let (number, block) = ((task + step as u8) % 12, step % 5);
                let expected = vec![number ^ block as u8; 3000 + number as usize];
                cache.put(&content(number), vec![run(block, expected.clone())]).await;
                if let Some(found) = one(cache.get(&content(number), block..block + 1).await) {
                    assert_eq!(found, expected);
                }
                if step % 37 == 0 {
                    cache.forget(&content(number)).await;
                }
                assert!(cache.usage().bytes <= CAP);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert!(cache.usage().hits > 0);
    // Whoever would have had to wait for the lock leaves that to another thread.
    let pinned = || cache.0.index.lock().versions.iter().any(|(_, kept)| kept.pins > 0);
    let let_go = async {
        while pinned() {
            tokio::task::yield_now().await;
        }
    };
    let bound = std::time::Duration::from_secs(30);
    tokio::time::timeout(bound, let_go).await.expect("every pin goes");
    {
        let index = cache.0.index.lock();
        let sum: u64 = index.versions.iter().map(|(_, kept)| kept.bytes).sum();
        assert_eq!(cache.usage().bytes, sum);
    }
    cache.clear(&HashSet::new()).await;
    assert_eq!(cache.usage().bytes, 0);
    drop(folder);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn gives_what_was_put_and_stays_below_its_cap(
        cap in 0u64..20 * PAGE,
        piecewise_above in prop_oneof![Just(2 * PAGE), Just(u64::MAX)],
        ops in ops(),
    ) {
        let mut cache = Fixture::with(cap, piecewise_above);
        let mut model = Model::default();
        for op in ops {
            match op {
                Op::Put { content: number, block, bytes } => {
                    let bytes = model.put(number, block, bytes);
                    cache.put(number, block, &bytes);
                    let fits = pages(bytes.len() as u64) + PAGE <= cap;
                    prop_assert_eq!(cache.get(number, block), fits.then_some(Vec::from(bytes)));
                }
                Op::Get { content: number, block } => {
                    let found = one(cache.disk().get(&content(number), block..block + 1));
                    prop_assert!(model.allows(number, block, found.as_ref()));
                }
                Op::Forget { content: number } => {
                    model.forget(number);
                    cache.disk().forget(&content(number));
                }
                Op::Clear => {
                    model.clear();
                    cache.disk().clear(&HashSet::new());
                    prop_assert_eq!(cache.on_disk(), 0);
                }
                Op::Reopen => {
                    cache.reopen();
                }
            }
            let bytes = cache.disk().usage().bytes;
            prop_assert!(bytes <= cap);
            prop_assert!(cache.on_disk() <= bytes, "{} on disk, {} accounted for", cache.on_disk(), bytes);
        }
    }
}
