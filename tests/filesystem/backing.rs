//! Files that the kernel reads by itself, and the end of that.

use bytes::Bytes;
use keymount::fs::{Access, HandleReads, Ino, Opened};
use keymount::model::{ErrorKind, Result, Rights};

use crate::support::Fixture;

async fn open(it: &Fixture, ino: Ino, access: Access) -> Result<Opened> {
    it.fs.open(ino, access).await
}

fn by_the_kernel(opened: &Opened) -> bool {
    matches!(opened.reads, HandleReads::Itself(_))
}

/// A file in a read-only mount that was read once, and its number.
async fn read_once(it: &Fixture) -> Ino {
    it.store.put("a", vec![7; 200_000]).unwrap();
    let ino = it.ino("a").await;
    let opened = open(it, ino, Access::Read).await.unwrap();
    assert!(!by_the_kernel(&opened), "nothing of it is here yet");
    while it.fs.read(opened.handle, 0, 200_000).await.unwrap().len() < 200_000 {}
    let second = open(it, ino, Access::Read).await.unwrap();
    assert!(!by_the_kernel(&second), "the kernel allows no mixture");
    it.close(second.handle).await;
    it.close(opened.handle).await;
    ino
}

/// Blocks reach the disk behind the reader.
async fn complete(it: &Fixture, ino: Ino) -> Opened {
    loop {
        let opened = open(it, ino, Access::Read).await.unwrap();
        if by_the_kernel(&opened) {
            return opened;
        }
        it.close(opened.handle).await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_complete_file_is_and_another_version_is_not() {
    let it = Fixture::read_only().read_by_the_kernel().await;
    let ino = read_once(&it).await;
    let (first, second) = (complete(&it, ino).await, complete(&it, ino).await);
    let (HandleReads::Itself(one), HandleReads::Itself(other)) = (&first.reads, &second.reads) else {
        unreachable!("both are");
    };
    assert_eq!(one.registered(|_| Some(1)), Some(&1));
    assert_eq!(other.registered(|_| Some(2)), Some(&1), "one file for one inode");
    it.store.put("a", "another").unwrap();
    let refused = open(&it, ino, Access::Read).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Changed, "the kernel looks the name up again");
    let new = it.ino("a").await;
    assert_ne!(new, ino);
    let opened = open(&it, new, Access::Read).await.unwrap();
    assert!(!by_the_kernel(&opened));
    assert_eq!(it.fs.read(opened.handle, 0, 100).await.unwrap(), "another");
    for handle in [first.handle, second.handle, opened.handle] {
        it.close(handle).await;
    }
}

#[tokio::test]
async fn what_may_be_written_is_not_and_a_refusal_holds() {
    let it = Fixture::new().read_by_the_kernel().await;
    it.store.put("a", "may be written").unwrap();
    for _ in 0..20 {
        assert_eq!(it.read("a").await, b"may be written");
        let opened = open(&it, it.ino("a").await, Access::Read).await.unwrap();
        assert!(!by_the_kernel(&opened));
        it.close(opened.handle).await;
    }

    let it = Fixture::read_only().read_by_the_kernel().await;
    let ino = read_once(&it).await;
    let opened = complete(&it, ino).await;
    let HandleReads::Itself(backing) = &opened.reads else {
        unreachable!("it is");
    };
    assert_eq!(backing.registered::<u32>(|_| None), None);
    it.fs.kernel_reads_no_files(ino);
    let other = open(&it, ino, Access::Read).await.unwrap();
    assert!(!by_the_kernel(&other), "as the first one is read by now");
    assert_eq!(it.fs.read(opened.handle, 0, 3).await.unwrap(), [7, 7, 7][..]);
    it.close(opened.handle).await;
    it.close(other.handle).await;
    let later = open(&it, ino, Access::Read).await.unwrap();
    assert!(!by_the_kernel(&later));
}

/// The key may write by now, and the reader is still there.
#[tokio::test]
async fn a_writer_gets_an_inode_of_its_own() {
    let it = Fixture::new().read_by_the_kernel().await;
    it.store.set_rights("", Rights::READ).unwrap();
    it.fs.refresh().await.unwrap();
    let ino = read_once(&it).await;
    let reader = complete(&it, ino).await;
    it.store.set_rights("", Rights::ALL).unwrap();
    it.fs.refresh().await.unwrap();
    let refused = open(&it, ino, Access::ReadWrite).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Changed);
    let writer = open(&it, it.ino("a").await, Access::ReadWrite).await.unwrap();
    it.fs
        .write(writer.handle, Some(0), Bytes::from_static(b"mine"))
        .await
        .unwrap();
    it.fs.fsync(writer.handle).await.unwrap();
    assert!(it.store.content("a").unwrap().starts_with(b"mine"));
    it.close(reader.handle).await;
    it.close(writer.handle).await;
}
