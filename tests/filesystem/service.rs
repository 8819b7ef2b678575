//! The same over a real connection: a file system on a Cludz stand-in that fails at each request in turn.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keymount::cache::MemoryCache;
use keymount::emulator::cludz::{Assumptions, CludzStore, Drive};
use keymount::emulator::{Fault, Running};
use keymount::fetch::{FetchSettings, Fetcher};
use keymount::fs::{Access, CloseMeans, FileSystem, FsSettings, HandleId, Ino, RenameMode};
use keymount::model::ErrorKind;
use keymount::outbox::Spool;
use keymount::provider::Provider;
use keymount::state::StateDb;

use crate::client::{Token, client};
use crate::kernel::open_emptied;
use crate::steps::at_step;
use crate::support::os;

/// More requests than the uploads here make, retries included.
const STEPS: usize = 14;

struct Mounted {
    fs: Arc<FileSystem>,
    drive: Drive,
    server: Running,
    _folder: tempfile::TempDir,
}

impl Mounted {
    async fn new() -> Self {
        let store = CludzStore::new(Assumptions::default());
        let drive = store.add_drive();
        let server = store.serve().await.unwrap();
        drive.put("/old", "first").unwrap();
        let token = Token::Header(drive.owner_token());
        let provider: Arc<dyn Provider> = Arc::new(client(server.url(), drive.id(), token).await);
        let root = provider.probe().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let fetching = FetchSettings {
            spill_directory: folder.path().to_owned(),
            spill_limit: 1 << 30,
            memory: 1 << 20,
        };
        let cache = Arc::new(MemoryCache::new(1 << 20));
        let fetcher = Arc::new(Fetcher::new(Arc::clone(&provider), cache, fetching));
        let settings = FsSettings {
            read_only: false,
            uid: 0,
            gid: 0,
            umask: 0o022,
            attr_ttl: Duration::ZERO,
            close: CloseMeans::Journaled,
            remote: "drive".to_owned(),
        };
        let spool = Spool::open(&folder.path().join("staging")).unwrap();
        let state = Arc::new(StateDb::open(&folder.path().join("state.db")).unwrap());
        Self {
            fs: Arc::new(FileSystem::new(provider, fetcher, spool, state, root, settings)),
            drive,
            server,
            _folder: folder,
        }
    }

    async fn open(&self, name: &str) -> HandleId {
        let found = self.fs.lookup(Ino::ROOT, os(name)).await.unwrap().keep();
        self.fs.open(found.attributes.ino, Access::Read).await.unwrap().handle
    }

    async fn write(&self, name: &str, bytes: &'static [u8]) {
        let handle = match self.fs.lookup(Ino::ROOT, os(name)).await {
            Ok(found) => {
                let ino = found.keep().attributes.ino;
                open_emptied(&self.fs, ino, Access::Write).await.unwrap().handle
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound);
                let made = self.fs.create(Ino::ROOT, os(name), Access::Write, 0o644, 0).await;
                made.unwrap().1.handle
            }
        };
        self.fs.write(handle, Some(0), Bytes::from_static(bytes)).await.unwrap();
        self.fs.flush(handle).await.unwrap();
        self.fs.close(handle);
    }
}

/// Its version is the checksum of its content, by whichever name that is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_and_renamed_is_read_without_the_provider() {
    let it = Mounted::new().await;
    it.write("a", b"text").await;
    it.fs.drain().await.unwrap();
    let (from, to) = ((Ino::ROOT, os("a")), (Ino::ROOT, os("b")));
    it.fs.rename(from, to, RenameMode::Replace).await.unwrap();
    let renamed = it.open("b").await;
    it.server.stop().await;
    assert_eq!(it.fs.read(renamed, 0, 10).await.unwrap(), b"text"[..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_the_same_bytes_open_by_a_name_that_is_gone_keeps_nobody_from_reading() {
    let it = Mounted::new().await;
    for path in ["/a", "/b"] {
        it.drive.put(path, "the same").unwrap();
    }
    let (_gone, there) = (it.open("a").await, it.open("b").await);
    assert!(it.drive.remove("/a"));
    assert_eq!(it.fs.read(there, 0, 10).await.unwrap(), b"the same"[..]);
    it.server.stop().await;
}

/// What somebody reads in a drive, without what the provider calls temporary.
fn files(drive: &Drive) -> Vec<(String, Vec<u8>)> {
    let names = drive.list("/").unwrap().into_iter();
    names
        .filter(|name| !name.starts_with(".keymount-"))
        .map(|name| {
            let content = drive.read(&format!("/{name}")).unwrap().to_vec();
            (name, content)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_at_every_request_of_an_upload_loses_and_doubles_nothing() {
    let faults = [
        Fault::DropConnection,
        Fault::DropAfterEffect,
        Fault::status(500),
        Fault::status_after_effect(500),
        Fault::status(503),
        Fault::status(401),
        Fault::status(403),
        Fault::status(413),
        Fault::status(507),
        Fault::LieAboutSuccess,
        Fault::Garbage,
    ];
    for fault in faults {
        for (step, dies) in (0..STEPS)
            .map(|step| (step, false))
            .chain([(0, true), (2, true), (5, true)])
        {
            let it = Mounted::new().await;
            it.write("old", b"second").await;
            it.write("new", b"text").await;
            it.server.faults().inject(at_step(step, dies, fault.clone()));
            // What comes of it is told by what is pending.
            let _ = it.fs.drain().await;
            let what = format!("{fault:?} at step {step}, dies: {dies}");
            let shown = |fs: Arc<FileSystem>| async move {
                let mut pending: Vec<String> = fs.pending().into_iter().map(|file| file.path).collect();
                pending.sort();
                pending
            };
            let left = shown(Arc::clone(&it.fs)).await;
            for (name, content) in [("old", &b"second"[..]), ("new", b"text")] {
                let stored = it.drive.read(&format!("/{name}"));
                let there = stored.is_some_and(|stored| stored == content);
                assert!(there || left.iter().any(|path| path == name), "{what}: {name} is lost");
            }
            it.server.faults().clear();
            let _ = it.fs.refresh().await;
            for _ in 0..5 {
                if it.fs.pending().is_empty() {
                    break;
                }
                let _ = it.fs.drain().await;
            }
            assert!(it.fs.pending().is_empty(), "{what}: {:?}", it.fs.pending());
            let expected =
                [("new", &b"text"[..]), ("old", b"second")].map(|(name, text)| (name.to_owned(), text.to_vec()));
            assert_eq!(files(&it.drive), expected, "{what}");
            it.server.stop().await;
        }
    }
}
