//! Which version a reader gets and a writer builds on, when somebody else changes the file meanwhile.

use bytes::Bytes;
use keymount::fs::{Access, AttributeChange, HandleReads, Ino};
use keymount::model::ErrorKind;

use crate::kernel::open_emptied;
use crate::support::Fixture;

/// The kernel has one set of pages for all handles of a file: what an older handle read would show in newer ones.
#[tokio::test]
async fn an_older_handle_is_stale_once_a_newer_version_was_opened() {
    let it = Fixture::new();
    it.store.put("a", "version one").unwrap();
    let ino = it.ino("a").await;
    let old = it.fs.open(ino, Access::Read).await.unwrap();
    assert_eq!(it.fs.read(old.handle, 0, 20).await.unwrap(), "version one");
    it.store.put("a", "version two").unwrap();
    assert_eq!(
        it.fs.read(old.handle, 0, 20).await.unwrap(),
        "version one",
        "its bytes are cached, and nobody saw the new ones"
    );
    let new = it.fs.open(ino, Access::Read).await.unwrap();
    assert!(matches!(new.reads, HandleReads::Anew));
    assert_eq!(it.fs.read(new.handle, 0, 20).await.unwrap(), "version two");
    let stale = it.fs.read(old.handle, 0, 20).await.unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::Changed);
    let again = it.fs.open(ino, Access::Read).await.unwrap();
    assert!(
        matches!(again.reads, HandleReads::KeepPages),
        "only the new version's pages are there"
    );
}

/// A reader stops at the length that `stat` shows: another version's would cut the old one off.
#[tokio::test]
async fn an_older_handle_is_stale_once_another_length_was_shown() {
    let it = Fixture::new();
    it.store.put("a", "version one").unwrap();
    let ino = it.ino("a").await;
    let old = it.fs.open(ino, Access::Read).await.unwrap();
    assert_eq!(it.fs.read(old.handle, 0, 20).await.unwrap(), "version one");
    it.store.put("a", "short").unwrap();
    assert_eq!(it.fs.attributes(ino).await.unwrap().attributes.size, 5);
    assert_eq!(
        it.fs.read(old.handle, 0, 20).await.unwrap_err().kind(),
        ErrorKind::Changed
    );
}

/// A writer's copy counts only as long as it holds something that the provider lacks.
#[tokio::test]
async fn a_new_reader_sees_the_remote_change_beside_an_open_writer() {
    let it = Fixture::new();
    it.store.put("a", "one").unwrap();
    let ino = it.ino("a").await;
    let writer = it.fs.open(ino, Access::Write).await.unwrap();
    it.fs
        .write(writer.handle, None, Bytes::from_static(b" two"))
        .await
        .unwrap();
    it.fs.fsync(writer.handle).await.unwrap();
    it.store.put("a", "theirs").unwrap();
    assert_eq!(it.read("a").await, b"theirs");
    it.fs
        .write(writer.handle, None, Bytes::from_static(b" and mine"))
        .await
        .unwrap();
    it.fs.flush(writer.handle).await.unwrap();
    assert_eq!(it.store.content("a").unwrap(), "theirs and mine");
    it.close(writer.handle).await;
}

#[tokio::test]
async fn what_was_read_of_one_version_is_not_written_into_another() {
    let it = Fixture::new();
    it.store.put("a", "count=1").unwrap();
    let ino = it.ino("a").await;
    let opened = it.fs.open(ino, Access::ReadWrite).await.unwrap();
    assert_eq!(it.fs.read(opened.handle, 0, 20).await.unwrap(), "count=1");
    it.store.put("a", "count=5").unwrap();
    let refused = it.fs.write(opened.handle, Some(6), Bytes::from_static(b"2")).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Changed);
    it.fs.flush(opened.handle).await.unwrap();
    it.close(opened.handle).await;
    assert_eq!(it.store.content("a").unwrap(), "count=5");
}

/// `close` must not say that all is well when there is no file any more that could have the text.
#[tokio::test]
async fn a_change_of_a_file_that_somebody_removed_is_not_dropped() {
    let it = Fixture::new();
    it.store.put("a", "one").unwrap();
    let ino = it.ino("a").await;
    let opened = it.fs.open(ino, Access::ReadWrite).await.unwrap();
    it.fs
        .write(opened.handle, None, Bytes::from_static(b" two"))
        .await
        .unwrap();
    it.fs.fsync(opened.handle).await.unwrap();
    it.store.remove("a").unwrap();
    it.names(Ino::ROOT).await;
    let written = it.fs.write(opened.handle, None, Bytes::from_static(b" three")).await;
    let flushed = it.fs.flush(opened.handle).await;
    assert!(
        written.is_err() || flushed.is_err() || it.store.content("a").is_some(),
        "it was taken and thrown away"
    );
    it.close(opened.handle).await;
    if written.is_ok() {
        assert!(it.store.content("a").is_some() || it.fs.pending().len() == 1);
    }
}

/// `truncate` by name has nobody who closes the file afterwards.
#[tokio::test]
async fn truncating_by_name_is_sent_although_somebody_reads_the_file() {
    let it = Fixture::new();
    it.store.put("a", "0123456789").unwrap();
    let ino = it.ino("a").await;
    let reader = it.fs.open(ino, Access::Read).await.unwrap();
    let change = AttributeChange {
        size: Some(4),
        ..Default::default()
    };
    it.fs.set_attributes(ino, change).await.unwrap();
    assert_eq!(it.store.content("a").unwrap(), "0123");
    it.close(reader.handle).await;
    assert!(it.fs.pending().is_empty());
}

/// `open` with O_RDONLY and O_TRUNC empties the file: nothing may be left unsent because the handle cannot write.
#[tokio::test]
async fn a_file_that_was_emptied_by_a_reading_handle_is_sent() {
    let it = Fixture::new();
    it.store.put("a", "text").unwrap();
    let ino = it.ino("a").await;
    let opened = open_emptied(&it.fs, ino, Access::Read).await.unwrap();
    it.fs.flush(opened.handle).await.unwrap();
    assert_eq!(it.store.content("a").unwrap(), "");
    it.close(opened.handle).await;
}

#[tokio::test]
async fn a_file_that_was_read_costs_nothing_to_read_again_while_what_is_known_counts() {
    let it = Fixture::with_ttl(std::time::Duration::from_secs(60));
    it.store.put("file", "content").unwrap();
    assert_eq!(it.read("file").await, b"content");
    it.provider.reset_counts();
    for _ in 0..3 {
        let ino = it.ino("file").await;
        let opened = it.fs.open(ino, Access::Read).await.unwrap();
        assert!(
            matches!(opened.reads, HandleReads::KeepPages),
            "the kernel's pages are still this version's"
        );
        assert_eq!(it.fs.read(opened.handle, 0, 100).await.unwrap(), "content");
        it.fs.attributes(ino).await.unwrap();
        it.close(opened.handle).await;
    }
    assert_eq!(it.provider.all_calls(), 0);
}

/// Emptying what somebody read of an older version is refused, and leaves the newer one to its readers.
#[tokio::test]
async fn a_refused_truncation_empties_nothing() {
    let it = Fixture::new();
    it.store.put("a", "version one").unwrap();
    let ino = it.ino("a").await;
    let old = it.fs.open(ino, Access::ReadWrite).await.unwrap().handle;
    assert_eq!(it.fs.read(old, 0, 20).await.unwrap(), "version one");
    it.store.put("a", "version two").unwrap();
    let new = it.fs.open(ino, Access::ReadWrite).await.unwrap().handle;
    let emptied = AttributeChange {
        size: Some(0),
        handle: Some(old),
        ..Default::default()
    };
    let refused = it.fs.set_attributes(ino, emptied).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Changed);
    assert_eq!(it.fs.read(new, 0, 20).await.unwrap(), "version two");
    it.fs.write(new, Some(8), Bytes::from_static(b"2!!")).await.unwrap();
    it.fs.flush(new).await.unwrap();
    for handle in [old, new] {
        it.close(handle).await;
    }
    assert_eq!(it.store.content("a").unwrap(), "version 2!!");
}
