//! Attributes that the provider keeps: what another host sees, how many requests that costs, and whose word counts.

use std::time::{Duration, SystemTime};

use keymount::fs::{Access, AttributeChange, Attributes, Ino, SetMode};
use keymount::model::ErrorKind;
use keymount::provider::faulty::{Fault, Gate, Operation, Times};
use keymount::provider::memory::{Memory, Options};
use keymount::provider::{AttributeSupport, Capabilities, LabelSupport, Provider};
use keymount::state::{LocalAttributes, LocalXattr, StateDb};

use crate::support::{Fixture, os};

fn store(attributes: AttributeSupport) -> Memory {
    Memory::new(Options {
        capabilities: Capabilities {
            attributes,
            labels: LabelSupport::None,
            ..Options::default().capabilities
        },
        ..Options::default()
    })
}

/// Another host, which knows only what the store tells.
fn host(store: &Memory) -> Fixture {
    Fixture::in_background_over(store.clone())
}

/// Long ago, with nanoseconds.
fn old(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000 + seconds, 123_456_789)
}

fn mode(mode: u32) -> AttributeChange {
    AttributeChange {
        mode: Some(mode),
        ..AttributeChange::default()
    }
}

fn modified(time: SystemTime) -> AttributeChange {
    AttributeChange {
        modified: Some(time),
        accessed: Some(time),
        ..AttributeChange::default()
    }
}

async fn stat(it: &Fixture, name: &str) -> Attributes {
    let ino = it.ino(name).await;
    it.fs.attributes(ino).await.unwrap().attributes
}

async fn xattr(it: &Fixture, name: &str, attribute: &str) -> Option<Vec<u8>> {
    match it.fs.get_xattr(it.ino(name).await, os(attribute)).await {
        Ok(value) => Some(value),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NoAttribute);
            None
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_set_before_the_upload_goes_with_it() {
    let store = store(AttributeSupport::Stored);
    let one = host(&store);
    let (child, opened) = one.begin(Ino::ROOT, "f", 0o755, b"text").await;
    let ino = child.keep().attributes.ino;
    one.fs.set_attributes(ino, modified(old(0))).await.unwrap();
    one.fs
        .set_xattr(ino, os("user.x"), b"\xff\0", SetMode::Any)
        .await
        .unwrap();
    one.fs.flush(opened.handle).await.unwrap();
    one.close(opened.handle).await;
    one.sent().await;
    assert_eq!(
        (
            one.provider.calls(Operation::Upload),
            one.provider.calls(Operation::SetAttributes)
        ),
        (1, 0)
    );
    for it in [&one, &host(&store), &one.remount()] {
        let shown = stat(it, "f").await;
        assert_eq!((shown.mode, shown.modified, shown.accessed), (0o755, old(0), old(0)));
        assert_eq!(xattr(it, "f", "user.x").await.unwrap(), b"\xff\0");
        let ino = it.ino("f").await;
        assert!(it.fs.list_xattrs(ino).await.unwrap().contains(&"user.x".to_owned()));
    }
    let two = host(&store);
    two.names(Ino::ROOT).await;
    let lookups = two.provider.calls(Operation::Lookup) + two.provider.calls(Operation::Stat);
    assert_eq!(lookups, 0, "a listing tells all of it");
}

#[tokio::test(start_paused = true)]
async fn what_is_written_plainly_has_its_time_with_nanoseconds_everywhere() {
    let store = store(AttributeSupport::WithContent);
    let one = host(&store);
    one.write("f", b"text").await;
    one.sent().await;
    let here = stat(&one, "f").await;
    let there = stat(&host(&store), "f").await;
    assert_eq!((there.mode, there.modified), (here.mode, here.modified));
    assert_ne!(there.modified, store.entry_at("f").unwrap().modified);
}

#[tokio::test(start_paused = true)]
async fn changes_of_attributes_alone_are_sent_together_and_without_the_content() {
    let store = store(AttributeSupport::Stored);
    let one = host(&store);
    one.write("f", b"text").await;
    one.sent().await;
    let ino = one.ino("f").await;
    one.fs.set_attributes(ino, mode(0o700)).await.unwrap();
    one.fs.set_attributes(ino, modified(old(0))).await.unwrap();
    one.fs
        .set_xattr(ino, os("user.x"), b"1", SetMode::Create)
        .await
        .unwrap();
    one.fs
        .set_xattr(ino, os("user.y"), b"2", SetMode::Create)
        .await
        .unwrap();
    one.fs.remove_xattr(ino, os("user.y")).await.unwrap();
    assert_eq!(one.fs.waiting(), 1);
    one.sent().await;
    assert_eq!(
        (
            one.provider.calls(Operation::Upload),
            one.provider.calls(Operation::SetAttributes)
        ),
        (1, 1)
    );
    let two = host(&store);
    let shown = stat(&two, "f").await;
    assert_eq!((shown.mode, shown.modified), (0o700, old(0)));
    assert_eq!(
        (xattr(&two, "f", "user.x").await, xattr(&two, "f", "user.y").await),
        (Some(b"1".to_vec()), None)
    );
    // What the other one sets and removes then is seen by the first.
    let ino = two.ino("f").await;
    two.fs.set_attributes(ino, mode(0o640)).await.unwrap();
    two.fs.set_attributes(ino, modified(old(9))).await.unwrap();
    two.fs.remove_xattr(ino, os("user.x")).await.unwrap();
    assert_eq!(xattr(&two, "f", "user.x").await, None, "at once");
    two.sent().await;
    for it in [&one, &one.remount(), &two.remount()] {
        let shown = stat(it, "f").await;
        assert_eq!((shown.mode, shown.modified), (0o640, old(9)));
        assert_eq!(xattr(it, "f", "user.x").await, None);
    }
    assert_eq!(store.content("f").unwrap(), "text");
}

#[tokio::test(start_paused = true)]
async fn what_is_set_while_the_content_is_on_its_way_follows_it() {
    let store = store(AttributeSupport::Stored);
    let one = host(&store);
    let gate = Gate::new();
    one.provider
        .inject(Operation::Upload, Times::Next(1), Fault::StallAnswer(gate.clone()));
    one.write("f", b"text").await;
    gate.reached(1).await;
    let ino = one.ino("f").await;
    one.fs.set_attributes(ino, mode(0o700)).await.unwrap();
    one.fs.set_attributes(ino, modified(old(0))).await.unwrap();
    gate.open();
    one.sent().await;
    let shown = stat(&host(&store), "f").await;
    assert_eq!((shown.mode, shown.modified), (0o700, old(0)));
    assert_eq!(one.provider.calls(Operation::SetAttributes), 1);
}

#[tokio::test(start_paused = true)]
async fn where_only_uploads_carry_them_they_wait_for_the_next_one() {
    let store = store(AttributeSupport::WithContent);
    let one = host(&store);
    one.write("f", b"text").await;
    one.sent().await;
    let ino = one.ino("f").await;
    one.fs.set_attributes(ino, mode(0o700)).await.unwrap();
    assert_eq!(one.fs.waiting(), 0);
    for it in [&one, &one.remount()] {
        assert_eq!(stat(it, "f").await.mode, 0o700);
    }
    assert_eq!(stat(&host(&store), "f").await.mode, 0o644);
    one.write("f", b"more").await;
    one.sent().await;
    assert_eq!(stat(&host(&store), "f").await.mode, 0o700);
    assert_eq!(one.provider.calls(Operation::SetAttributes), 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_provider_refuses_stays_here_and_what_it_missed_is_sent_again() {
    let store = store(AttributeSupport::Stored);
    let one = host(&store);
    one.write("f", b"text").await;
    one.write("g", b"text").await;
    one.sent().await;
    one.provider.inject(
        Operation::SetAttributes,
        Times::Next(1),
        Fault::Fail(ErrorKind::Unsupported),
    );
    let refused = one.ino("f").await;
    one.fs.set_attributes(refused, mode(0o700)).await.unwrap();
    one.sent().await;
    one.provider.inject(
        Operation::SetAttributes,
        Times::Next(2),
        Fault::Fail(ErrorKind::Unreachable),
    );
    let missed = one.ino("g").await;
    one.fs.set_attributes(missed, mode(0o700)).await.unwrap();
    one.sent().await;
    for it in [&one, &one.remount()] {
        assert_eq!((stat(it, "f").await.mode, stat(it, "g").await.mode), (0o700, 0o700));
    }
    let two = host(&store);
    assert_eq!((stat(&two, "f").await.mode, stat(&two, "g").await.mode), (0o644, 0o700));
}

#[tokio::test(start_paused = true)]
async fn an_upload_whose_attributes_got_lost_shows_them_here_all_the_same() {
    let store = store(AttributeSupport::None);
    let one = host(&store);
    let (child, opened) = one
        .fs
        .create(Ino::ROOT, os("f"), Access::Write, 0o755, 0o022)
        .await
        .unwrap();
    let ino = child.keep().attributes.ino;
    one.fs.set_attributes(ino, modified(old(0))).await.unwrap();
    one.fs.flush(opened.handle).await.unwrap();
    one.close(opened.handle).await;
    one.sent().await;
    let shown = stat(&one.remount(), "f").await;
    assert_eq!((shown.mode, shown.modified), (0o755, old(0)));
}

/// An exec bit may show, a write bit never beyond what the key may do.
#[tokio::test(start_paused = true)]
async fn the_rights_mask_what_is_told() {
    let store = store(AttributeSupport::Stored);
    let one = host(&store);
    one.write("f", b"text").await;
    one.sent().await;
    let ino = one.ino("f").await;
    one.fs.set_attributes(ino, mode(0o6775)).await.unwrap();
    one.sent().await;
    for (rights, shown) in [
        ("rwd", 0o6775),
        ("r", 0o6555),
        ("w", 0o6220),
        ("rd", 0o6555),
        ("d", 0o6000),
    ] {
        store.set_rights("", rights.parse().unwrap()).unwrap();
        assert_eq!(stat(&host(&store), "f").await.mode, shown, "{rights}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_another_host_replaces_has_the_attributes_of_the_other() {
    let store = store(AttributeSupport::Stored);
    let (one, two) = (host(&store), host(&store));
    one.write("f", b"text").await;
    one.sent().await;
    let ino = one.ino("f").await;
    one.fs.set_attributes(ino, mode(0o755)).await.unwrap();
    one.fs.set_attributes(ino, modified(old(0))).await.unwrap();
    one.sent().await;
    two.write("f", b"theirs").await;
    two.sent().await;
    let theirs = stat(&two, "f").await;
    assert_eq!(theirs.mode, 0o755, "a mode outlives the content");
    assert!(theirs.modified > old(9), "a time doesn't");
    let shown = stat(&one, "f").await;
    assert_eq!((shown.mode, shown.modified), (0o755, theirs.modified));
}

#[tokio::test]
async fn what_is_kept_of_files_that_others_removed_is_forgotten() {
    let it = Fixture::with_ttl(Duration::ZERO);
    for name in ["stays", "goes", "d/stays", "d/goes"] {
        it.store.put(name, "x").unwrap();
    }
    let long_ago = LocalAttributes {
        mode: Some(0o700),
        changed: Some(old(0)),
        ..LocalAttributes::default()
    };
    let lately = LocalAttributes {
        changed: Some(SystemTime::now()),
        ..long_ago.clone()
    };
    let state = StateDb::open(&it.state_database()).unwrap();
    let root = it.store.entry_at("").unwrap();
    let namespace = format!("{}#{}", it.store.identity(), root.key);
    let kept = |path: &str| {
        let attributes = state.attributes(&namespace, path).unwrap() != LocalAttributes::default();
        let xattrs = !state.xattrs(&namespace, path).unwrap().is_empty();
        assert_eq!(attributes, xattrs, "{path}");
        attributes
    };
    for path in ["stays", "goes", "d/stays", "d/goes", "gone/below", "lately"] {
        let attributes = if path == "lately" { &lately } else { &long_ago };
        state.set_attributes(&namespace, path, attributes).unwrap();
        state
            .set_xattr(&namespace, path, "x", Some(&LocalXattr::Set(vec![1])))
            .unwrap();
    }
    assert_eq!(stat(&it, "stays").await.mode, 0o700, "the rows are this mount's");
    it.store.remove("goes").unwrap();
    it.store.remove("d/goes").unwrap();
    it.names(Ino::ROOT).await;
    assert_eq!(
        ["stays", "goes", "d/stays", "d/goes", "gone/below", "lately"].map(kept),
        [true, false, true, true, false, true]
    );
    it.names(it.ino("d").await).await;
    assert_eq!(["d/stays", "d/goes"].map(kept), [true, false]);
}
