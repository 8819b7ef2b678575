//! Parts of large files are changed: nothing is fetched before it is needed, nothing is taken for zeros, and what was
//! closed survives whatever is killed or replaced.

use bytes::Bytes;
use keymount::fs::{Access, Allocation, AttributeChange, HandleId, Ino, Length, RenameMode, Seek};
use keymount::model::ErrorKind;
use keymount::provider::faulty::{Fault, Gate, Operation, Times};
use keymount::provider::memory::{Memory, Options};
use keymount::provider::{Capabilities, Reads};
use proptest::prelude::*;

use crate::kernel::open_emptied;
use crate::support::{Fixture, os};

/// More than is fetched at once for being small.
const MIB: u64 = 1 << 20;
const LARGE: usize = (2 * MIB + MIB / 2) as usize;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7 % 251) as u8 + 1).collect()
}

/// A large file `a` and a mount that sends in the background.
fn with_large_file() -> Fixture {
    let it = Fixture::in_background();
    it.store.put("a", pattern(LARGE)).unwrap();
    it
}

async fn open(it: &Fixture, name: &str) -> HandleId {
    let ino = it.ino(name).await;
    it.fs.open(ino, Access::ReadWrite).await.unwrap().handle
}

async fn write(it: &Fixture, handle: HandleId, offset: usize, bytes: &'static [u8]) {
    let bytes = Bytes::from_static(bytes);
    it.fs.write(handle, Some(offset as u64), bytes).await.unwrap();
}

async fn close(it: &Fixture, handle: HandleId) {
    it.fs.flush(handle).await.unwrap();
    it.close(handle).await;
}

async fn all(it: &Fixture, name: &str) -> Vec<u8> {
    let ino = it.ino(name).await;
    let opened = it.fs.open(ino, Access::Read).await.unwrap();
    let bytes = it.fs.read(opened.handle, 0, 1 << 26).await.unwrap();
    it.close(opened.handle).await;
    bytes.to_vec()
}

#[track_caller]
fn same(found: &[u8], expected: &[u8]) {
    assert_eq!(found.len(), expected.len());
    let differs = found.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(differs, None, "the first byte that differs");
}

#[tokio::test(start_paused = true)]
async fn a_change_in_the_middle_asks_for_nothing_until_it_is_sent() {
    let it = with_large_file();
    let gate = Gate::new();
    let handle = open(&it, "a").await;
    write(&it, handle, 1_000_000, b"mine").await;
    assert_eq!(it.provider.calls(Operation::Read), 0);
    assert_eq!(it.fs.read(handle, 1_000_000, 4).await.unwrap(), "mine");
    assert_eq!(it.provider.calls(Operation::Read), 0, "what was written is here");
    it.provider
        .inject(Operation::Upload, Times::Next(1), Fault::Stall(gate.clone()));
    close(&it, handle).await;
    let mut expected = pattern(LARGE);
    expected[1_000_000..1_000_004].copy_from_slice(b"mine");
    same(&all(&it, "a").await, &expected);
    gate.open();
    it.sent().await;
    same(&it.store.content("a").unwrap(), &expected);
    same(&all(&it, "a").await, &expected);
}

#[tokio::test(start_paused = true)]
async fn an_emptied_file_is_never_fetched() {
    let it = with_large_file();
    let ino = it.ino("a").await;
    let first = it.fs.open(ino, Access::ReadWrite).await.unwrap().handle;
    write(&it, first, 5, b"kept by nobody").await;
    let second = open_emptied(&it.fs, ino, Access::Write).await.unwrap().handle;
    assert_eq!(it.fs.attributes(ino).await.unwrap().attributes.size, 0);
    assert_eq!(it.fs.read(first, 0, 100).await.unwrap(), "");
    write(&it, second, 2, b"new").await;
    assert_eq!(it.fs.read(first, 0, 100).await.unwrap(), "\0\0new");
    it.fs.write(first, None, Bytes::from_static(b"+")).await.unwrap();
    close(&it, second).await;
    close(&it, first).await;
    it.sent().await;
    assert_eq!(it.store.content("a").unwrap(), "\0\0new+");
    assert_eq!(it.provider.calls(Operation::Read), 0);
}

#[tokio::test(start_paused = true)]
async fn truncation_keeps_what_is_before_it_and_zeros_come_after_it() {
    let it = with_large_file();
    let ino = it.ino("a").await;
    let resize = |size: usize| {
        let change = AttributeChange {
            size: Some(size as u64),
            ..Default::default()
        };
        it.fs.set_attributes(ino, change)
    };
    let middle = LARGE - 1000;
    assert_eq!(resize(middle).await.unwrap().attributes.size, middle as u64);
    assert_eq!(resize(LARGE + 7).await.unwrap().attributes.size, LARGE as u64 + 7);
    let mut expected = pattern(LARGE);
    expected[middle..].fill(0);
    expected.resize(LARGE + 7, 0);
    same(&all(&it, "a").await, &expected);
    it.sent().await;
    same(&it.store.content("a").unwrap(), &expected);
}

/// The provider is away when the daemon is killed, and still when the next one begins.
#[tokio::test(start_paused = true)]
async fn what_was_closed_survives_a_kill_while_the_provider_is_away() {
    let it = with_large_file();
    for operation in [Operation::Read, Operation::Upload] {
        it.provider
            .inject(operation, Times::Always, Fault::Fail(ErrorKind::Unreachable));
    }
    let handle = open(&it, "a").await;
    write(&it, handle, 10, b"first").await;
    write(&it, handle, LARGE - 2, b"longer").await;
    close(&it, handle).await;
    let mut expected = pattern(LARGE + 4);
    expected[10..15].copy_from_slice(b"first");
    expected[LARGE - 2..].copy_from_slice(b"longer");

    let away = |it: &Fixture| {
        it.provider
            .inject(Operation::Read, Times::Always, Fault::Fail(ErrorKind::TimedOut));
    };
    let (it, resumed) = it.killed().mounted_while(away).await;
    assert_eq!(resumed.files, 1);
    let handle = open(&it, "a").await;
    assert_eq!(it.fs.read(handle, 10, 5).await.unwrap(), "first");
    let missing = it.fs.read(handle, 0, 30).await;
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::TimedOut, "never zeros");
    it.close(handle).await;
    it.provider.heal();
    it.fs.retry_pending();
    same(&all(&it, "a").await, &expected);
    it.sent().await;
    same(&it.store.content("a").unwrap(), &expected);
    assert_eq!(it.names(Ino::ROOT).await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_closed_is_saved_with_its_rest() {
    let it = with_large_file();
    let handle = open(&it, "a").await;
    write(&it, handle, 100, b"half").await;
    write(&it, handle, 2_000_000, b"of it").await;
    let (it, resumed) = it.killed().mounted_again().await;
    assert_eq!((resumed.files, resumed.saved), (0, 1));
    let mut expected = pattern(LARGE);
    expected[100..104].copy_from_slice(b"half");
    expected[2_000_000..2_000_005].copy_from_slice(b"of it");
    let saved = it.state_database().with_file_name("unsent").join("a");
    same(&std::fs::read(saved).unwrap(), &expected);
    same(&it.store.content("a").unwrap(), &pattern(LARGE));
}

#[tokio::test(start_paused = true)]
async fn without_its_base_a_part_is_kept_and_said_and_never_sent() {
    for removed in [false, true] {
        let it = with_large_file();
        let handle = open(&it, "a").await;
        write(&it, handle, 100, b"mine").await;
        if removed {
            it.store.remove("a").unwrap();
        } else {
            it.store.put("a", "theirs").unwrap();
        }
        close(&it, handle).await;
        while it.fs.pending().first().is_none_or(|file| file.error.is_none()) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let pending = it.fs.pending();
        let why = pending[0].error.as_deref().unwrap();
        assert!(why.contains("cannot be read any more"), "{why}");
        let names = it.names(Ino::ROOT).await;
        let mine = &pending[0].path;
        if removed {
            assert_eq!(names, ["a"]);
        } else {
            assert_eq!(names.len(), 2, "{names:?}");
            assert!(mine.contains("(conflict from"), "{mine}");
            assert_eq!(all(&it, "a").await, b"theirs");
        }
        assert_eq!(it.provider.calls(Operation::Upload), 0);
        let handle = open(&it, mine).await;
        assert_eq!(it.fs.read(handle, 100, 4).await.unwrap(), "mine");
        assert_eq!(
            it.fs.read(handle, 0, 200).await.unwrap_err().kind(),
            ErrorKind::Changed,
            "never zeros"
        );
        // With all of it written anew, nothing is missing any more.
        it.fs.write(handle, Some(0), Bytes::from(vec![7; LARGE])).await.unwrap();
        close(&it, handle).await;
        it.fs.retry_pending();
        it.sent().await;
        same(&it.store.content(mine).unwrap(), &vec![7; LARGE]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_whose_base_is_in_the_cache_becomes_whole_beside_the_other_version() {
    let it = with_large_file();
    let handle = open(&it, "a").await;
    assert_eq!(it.fs.read(handle, 0, LARGE).await.unwrap().len(), LARGE);
    write(&it, handle, 100, b"mine").await;
    it.store.put("a", "theirs").unwrap();
    close(&it, handle).await;
    it.sent().await;
    let names = it.names(Ino::ROOT).await;
    let mine = names.iter().find(|name| name.contains("(conflict from")).unwrap();
    let mut expected = pattern(LARGE);
    expected[100..104].copy_from_slice(b"mine");
    same(&it.store.content(mine).unwrap(), &expected);
    assert_eq!(it.store.content("a").unwrap(), "theirs");
}

#[tokio::test(start_paused = true)]
async fn the_base_is_found_where_a_renamed_directory_took_it() {
    let it = Fixture::in_background();
    it.store.put("old/a", pattern(LARGE)).unwrap();
    let folder = it.ino("old").await;
    let ino = it.child(folder, "a").await;
    let handle = it.fs.open(ino, Access::Write).await.unwrap().handle;
    it.provider
        .inject(Operation::Upload, Times::Always, Fault::Fail(ErrorKind::Unreachable));
    it.provider
        .inject(Operation::Read, Times::Next(1), Fault::Fail(ErrorKind::Unreachable));
    write(&it, handle, 100, b"mine").await;
    close(&it, handle).await;
    it.fs
        .rename((Ino::ROOT, os("old")), (Ino::ROOT, os("new")), RenameMode::Replace)
        .await
        .unwrap();
    let (it, resumed) = it.killed().mounted_again().await;
    assert_eq!(resumed.files, 1);
    it.sent().await;
    let mut expected = pattern(LARGE);
    expected[100..104].copy_from_slice(b"mine");
    same(&it.store.content("new/a").unwrap(), &expected);
    assert_eq!(it.names(Ino::ROOT).await, ["new"]);
}

#[tokio::test(start_paused = true)]
async fn providers_that_give_only_the_whole_are_asked_once() {
    let store = Memory::new(Options {
        capabilities: Capabilities {
            reads: Reads::WholeOnly,
            ..Options::default().capabilities
        },
        ..Default::default()
    });
    let it = Fixture::in_background_over(store);
    it.store.put("a", pattern(LARGE)).unwrap();
    let handle = open(&it, "a").await;
    write(&it, handle, 100, b"mine").await;
    assert_eq!(it.provider.calls(Operation::Read), 0);
    let mut expected = pattern(LARGE);
    expected[100..104].copy_from_slice(b"mine");
    for at in [0, 1_500_000, 90] {
        same(
            &it.fs.read(handle, at as u64, 50).await.unwrap(),
            &expected[at..at + 50],
        );
    }
    close(&it, handle).await;
    it.sent().await;
    same(&it.store.content("a").unwrap(), &expected);
    assert_eq!(it.provider.calls(Operation::Read), 1);
}

#[tokio::test(start_paused = true)]
async fn a_small_file_that_nobody_can_give_now_is_changed_all_the_same() {
    let it = Fixture::in_background();
    it.store.put("a", "0123456789").unwrap();
    let handle = open(&it, "a").await;
    it.provider
        .inject(Operation::Read, Times::Always, Fault::Fail(ErrorKind::Unreachable));
    write(&it, handle, 3, b"xy").await;
    assert_eq!(it.fs.read(handle, 3, 2).await.unwrap(), "xy");
    assert!(it.fs.read(handle, 0, 10).await.is_err());
    close(&it, handle).await;
    it.provider.heal();
    it.fs.retry_pending();
    it.sent().await;
    assert_eq!(it.store.content("a").unwrap(), "012xy56789");
}

#[tokio::test(start_paused = true)]
async fn holes_and_room_and_copies() {
    let it = with_large_file();
    let ino = it.ino("a").await;
    let handle = it.fs.open(ino, Access::ReadWrite).await.unwrap().handle;
    let end = LARGE as u64;
    assert_eq!(it.fs.seek(handle, 9, Seek::Data).await.unwrap(), Some(9));
    assert_eq!(it.fs.seek(handle, 9, Seek::Hole).await.unwrap(), Some(end));
    assert_eq!(it.fs.seek(handle, end, Seek::Hole).await.unwrap(), None);
    it.fs
        .allocate(handle, 0..end, Allocation::Room, Length::Grows)
        .await
        .unwrap();
    assert!(it.fs.pending().is_empty(), "room is no change");
    it.fs
        .allocate(handle, MIB..2 * MIB, Allocation::Zeros, Length::Stays)
        .await
        .unwrap();
    it.fs
        .allocate(handle, end..end + 10, Allocation::Room, Length::Grows)
        .await
        .unwrap();
    assert_eq!(it.fs.attributes(ino).await.unwrap().attributes.size, end + 10);
    assert_eq!(it.fs.seek(handle, 9, Seek::Hole).await.unwrap(), Some(MIB));
    assert_eq!(it.fs.seek(handle, MIB, Seek::Data).await.unwrap(), Some(2 * MIB));
    let copied = it.fs.copy_range((handle, 5), (handle, MIB + 5), 1000).await.unwrap();
    assert_eq!(copied, 1000);
    assert_eq!(
        it.fs.copy_range((handle, end + 10), (handle, 0), 1000).await.unwrap(),
        0
    );
    let reader = it.fs.open(ino, Access::Read).await.unwrap().handle;
    for refused in [
        it.fs.allocate(reader, 0..1, Allocation::Zeros, Length::Stays).await,
        it.fs.copy_range((handle, 0), (reader, 0), 1).await.map(drop),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::BadHandle);
    }
    close(&it, handle).await;
    it.close(reader).await;
    it.sent().await;
    let mut expected = pattern(LARGE);
    expected[MIB as usize..2 * MIB as usize].fill(0);
    expected.copy_within(5..1005, MIB as usize + 5);
    expected.resize(LARGE + 10, 0);
    same(&it.store.content("a").unwrap(), &expected);
}

#[tokio::test(start_paused = true)]
async fn an_open_file_is_whole_when_it_loses_its_name() {
    for replaced in [false, true] {
        let it = with_large_file();
        it.store.put("b", "other").unwrap();
        let handle = open(&it, "a").await;
        write(&it, handle, 100, b"mine").await;
        if replaced {
            it.fs
                .rename((Ino::ROOT, os("b")), (Ino::ROOT, os("a")), RenameMode::Replace)
                .await
                .unwrap();
        } else {
            it.fs.unlink(Ino::ROOT, os("a")).await.unwrap();
        }
        let mut expected = pattern(LARGE);
        expected[100..104].copy_from_slice(b"mine");
        same(&it.fs.read(handle, 0, LARGE).await.unwrap(), &expected);
        close(&it, handle).await;
        assert!(it.fs.pending().is_empty());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize),
    Append(usize),
    Truncate(usize),
    Clear(usize, usize),
    Copy(usize, usize, usize),
    Read(usize, usize),
    Close,
    Kill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (at, len) = (0..LARGE + 100_000, 1usize..300_000);
    let step = prop_oneof![
        4 => (at.clone(), len.clone()).prop_map(|(at, len)| Step::Write(at, len)),
        1 => len.clone().prop_map(Step::Append),
        2 => at.clone().prop_map(Step::Truncate),
        1 => (at.clone(), len.clone()).prop_map(|(at, len)| Step::Clear(at, len)),
        1 => (at.clone(), at.clone(), len.clone()).prop_map(|(from, to, len)| Step::Copy(from, to, len)),
        3 => (at, len).prop_map(|(at, len)| Step::Read(at, len)),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
    ];
    proptest::collection::vec(step, 1..25)
}

/// Whatever is done to a part, in whatever order, with the daemon killed in between: every byte is the written one, the
/// base's, or a zero where a hole belongs.
async fn holds_against_a_model(steps: Vec<Step>) {
    let mut it = with_large_file();
    // Until the end nothing is sent, so that parts stay parts.
    let away = Fault::Fail(ErrorKind::Unreachable);
    it.provider.inject(Operation::Upload, Times::Always, away.clone());
    let mut model = pattern(LARGE);
    let mut handle = open(&it, "a").await;
    for (number, step) in steps.into_iter().enumerate() {
        let byte = number as u8 | 0x80;
        let put = |model: &mut Vec<u8>, at: usize, bytes: &[u8]| {
            model.resize(model.len().max(at + bytes.len()), 0);
            model[at..at + bytes.len()].copy_from_slice(bytes);
        };
        match step {
            Step::Write(at, len) => {
                let bytes = vec![byte; len];
                put(&mut model, at, &bytes);
                it.fs.write(handle, Some(at as u64), bytes.into()).await.unwrap();
            }
            Step::Append(len) => {
                model.extend(vec![byte; len]);
                it.fs.write(handle, None, vec![byte; len].into()).await.unwrap();
            }
            Step::Truncate(len) => {
                model.resize(len, 0);
                let change = AttributeChange {
                    size: Some(len as u64),
                    handle: Some(handle),
                    ..Default::default()
                };
                it.fs.set_attributes(it.ino("a").await, change).await.unwrap();
            }
            Step::Clear(at, len) => {
                let inside = at.min(model.len())..(at + len).min(model.len());
                model[inside].fill(0);
                let range = at as u64..(at + len) as u64;
                it.fs
                    .allocate(handle, range, Allocation::Zeros, Length::Stays)
                    .await
                    .unwrap();
            }
            Step::Copy(from, to, len) => {
                let bytes = model[from.min(model.len())..(from + len).min(model.len())].to_vec();
                let copied = it
                    .fs
                    .copy_range((handle, from as u64), (handle, to as u64), len as u64)
                    .await;
                assert_eq!(copied.unwrap() as usize, bytes.len());
                if !bytes.is_empty() {
                    put(&mut model, to, &bytes);
                }
            }
            Step::Read(at, len) => {
                let found = it.fs.read(handle, at as u64, len).await.unwrap();
                same(&found, &model[at.min(model.len())..(at + len).min(model.len())]);
            }
            Step::Close => {
                close(&it, handle).await;
                handle = open(&it, "a").await;
            }
            Step::Kill => {
                close(&it, handle).await;
                it = it.killed().mounted_again().await.0;
                it.provider.inject(Operation::Upload, Times::Always, away.clone());
                handle = open(&it, "a").await;
            }
        }
        let size = it.fs.attributes(it.ino("a").await).await.unwrap().attributes.size;
        assert_eq!(size, model.len() as u64);
    }
    close(&it, handle).await;
    same(&all(&it, "a").await, &model);
    it.provider.heal();
    it.fs.retry_pending();
    it.sent().await;
    same(&it.store.content("a").unwrap(), &model);
    assert_eq!(it.names(Ino::ROOT).await, ["a"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("KEYMOUNT_TEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(24)
    ))]
    #[test]
    fn parts_behave_as_whole_files_do(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(holds_against_a_model(steps));
    }
}
