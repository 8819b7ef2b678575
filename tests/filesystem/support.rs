//! A file system over the reference provider, and the calls that tests repeat.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keymount::cache::{BlockCache, DiskCache, MemoryCache};
use keymount::fetch::{FetchSettings, Fetcher};
use keymount::fs::{Access, Child, CloseMeans, FileSystem, FsSettings, HandleId, Ino, Opened, Owners, Resumed};
use keymount::model::ErrorKind;
use keymount::outbox::{Spool, recover};
use keymount::provider::Provider;
use keymount::provider::faulty::Faulty;
use keymount::provider::memory::{Addressing, Memory, Options};
use keymount::state::StateDb;

use crate::kernel::open_emptied;

pub struct Fixture {
    pub fs: Arc<FileSystem>,
    pub store: Memory,
    pub provider: Arc<Faulty<Memory>>,
    settings: FsSettings,
    folder: Arc<tempfile::TempDir>,
}

/// In bytes.
const MEMORY: u64 = 16 << 20;

pub fn os(name: &str) -> &OsStr {
    OsStr::new(name)
}

impl Fixture {
    /// Everything is asked for every time.
    pub fn new() -> Self {
        Self::with_ttl(Duration::ZERO)
    }

    pub fn with_ttl(attr_ttl: Duration) -> Self {
        Self::with(FsSettings {
            read_only: false,
            uid: 1000,
            gid: 1000,
            umask: 0o022,
            attr_ttl,
            close: CloseMeans::Sent,
            remote: "memory".to_owned(),
        })
    }

    /// Closing means that the change is in the journal; sending goes on in the background.
    pub fn in_background() -> Self {
        Self::in_background_over(Memory::default())
    }

    pub fn in_background_over(store: Memory) -> Self {
        let settings = FsSettings {
            read_only: false,
            uid: 1000,
            gid: 1000,
            umask: 0o022,
            attr_ttl: Duration::ZERO,
            close: CloseMeans::Journaled,
            remote: "memory".to_owned(),
        };
        let it = Self::over(store, settings, Arc::new(tempfile::tempdir().unwrap()));
        it.fs.start_sending();
        it
    }

    /// As `in_background`, and what was seen counts for so long.
    pub fn with_ttl_in_background(attr_ttl: Duration) -> Self {
        let settings = Self::in_background().settings.clone();
        let it = Self::with(FsSettings { attr_ttl, ..settings });
        it.fs.start_sending();
        it
    }

    /// As `in_background`, with at most so many bytes staged.
    pub fn with_room_for(bytes: u64) -> Self {
        let it = Self::in_background();
        let (store, settings) = (it.store.clone(), it.settings.clone());
        let it = Self::limited(store, settings, Arc::new(tempfile::tempdir().unwrap()), Some(bytes));
        it.fs.start_sending();
        it
    }

    /// The daemon is killed: nothing is put in order. What is left is its folder as it is now, and the provider.
    pub fn killed(self) -> Wreck {
        self.fs.journal().finish();
        let folder = tempfile::tempdir().unwrap();
        copy_all(self.folder.path(), folder.path());
        Wreck {
            store: self.store.clone(),
            settings: self.settings.clone(),
            folder: Arc::new(folder),
        }
    }

    /// Returns when the provider has everything, attributes too.
    pub async fn sent(&self) {
        while self.fs.waiting() > 0 || !self.fs.pending().is_empty() {
            // The clock is the test's, so this costs no time.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// As root mounts for others.
    pub fn with_kept_owners() -> Self {
        let mut it = Self::new();
        it.fs = Arc::new(it.build().with_owners(Owners::Kept));
        it
    }

    /// Listings are kept for the next mount, for a viewer of this name.
    pub fn keeping(mut self, viewer: &'static str) -> Self {
        let viewer = Box::new(move || Some(viewer.to_owned()));
        self.fs = Arc::new(self.build().with_kept_listings(viewer));
        self.fs.start_fetching_ahead();
        self
    }

    /// Over a store whose keys are ids.
    pub fn with_ids() -> Self {
        let store = Memory::new(Options {
            addressing: Addressing::Ids,
            ..Default::default()
        });
        let settings = FsSettings {
            read_only: false,
            uid: 1000,
            gid: 1000,
            umask: 0o022,
            attr_ttl: Duration::ZERO,
            close: CloseMeans::Sent,
            remote: "memory".to_owned(),
        };
        Self::over(store, settings, Arc::new(tempfile::tempdir().unwrap()))
    }

    pub fn read_only() -> Self {
        Self::read_only_with_ttl(Duration::ZERO)
    }

    pub fn read_only_with_ttl(attr_ttl: Duration) -> Self {
        Self::with(FsSettings {
            read_only: true,
            uid: 1000,
            gid: 1000,
            umask: 0o022,
            attr_ttl,
            close: CloseMeans::Sent,
            remote: "memory".to_owned(),
        })
    }

    /// Its blocks are kept on disk, and the kernel can read files by itself.
    pub async fn read_by_the_kernel(mut self) -> Self {
        let cache = DiskCache::open(&self.folder.path().join("cache"), 1 << 30).unwrap();
        // It keeps nothing before it has counted what is there, which this waits for.
        cache.clear(&HashSet::new()).await;
        self.fs = Arc::new(self.build_over(Arc::new(cache)));
        self.fs.kernel_reads_files();
        self
    }

    /// As `with_ttl`, over a store of a certain kind.
    pub fn with_ttl_over(store: Memory, attr_ttl: Duration) -> Self {
        let settings = Self::with_ttl(attr_ttl).settings.clone();
        Self::over(store, settings, Arc::new(tempfile::tempdir().unwrap()))
    }

    fn with(settings: FsSettings) -> Self {
        Self::over(Memory::default(), settings, Arc::new(tempfile::tempdir().unwrap()))
    }

    fn over(store: Memory, settings: FsSettings, folder: Arc<tempfile::TempDir>) -> Self {
        Self::limited(store, settings, folder, None)
    }

    fn limited(store: Memory, settings: FsSettings, folder: Arc<tempfile::TempDir>, room: Option<u64>) -> Self {
        let provider = Arc::new(Faulty::new(store.clone()));
        let cache = Arc::new(MemoryCache::new(MEMORY));
        let fs = Arc::new(build(&store, &provider, &settings, &folder, room, cache));
        Self {
            fs,
            store,
            provider,
            settings,
            folder,
        }
    }

    fn build(&self) -> FileSystem {
        self.build_over(Arc::new(MemoryCache::new(MEMORY)))
    }

    fn build_over(&self, cache: Arc<dyn BlockCache>) -> FileSystem {
        build(&self.store, &self.provider, &self.settings, &self.folder, None, cache)
    }

    /// Where staged files are.
    pub fn staging(&self) -> std::path::PathBuf {
        self.folder.path().join("staging")
    }

    /// The state database, for those who want to break it.
    pub fn state_database(&self) -> std::path::PathBuf {
        self.folder.path().join("state.db")
    }

    /// Another daemon later, with the same state on disk.
    pub fn remount(&self) -> Self {
        // As one does that ends in order.
        self.fs.journal().flush();
        Self::over(self.store.clone(), self.settings.clone(), Arc::clone(&self.folder))
    }

    pub async fn child(&self, parent: Ino, name: &str) -> Ino {
        self.fs.lookup(parent, os(name)).await.unwrap().keep().attributes.ino
    }

    pub async fn ino(&self, name: &str) -> Ino {
        self.child(Ino::ROOT, name).await
    }

    /// The end of an open file, as the kernel brings it about.
    pub async fn close(&self, handle: HandleId) {
        if let Some(ino) = self.fs.close(handle)
            && let Err(error) = self.fs.send_closed(ino).await
        {
            self.fs.note(ino, &error);
        }
    }

    /// A new file with these bytes, still open.
    pub async fn begin(&self, parent: Ino, name: &str, mode: u32, bytes: &'static [u8]) -> (Child, Opened) {
        let made = self.fs.create(parent, os(name), Access::Write, mode, 0).await;
        let (child, opened) = made.unwrap();
        self.fs
            .write(opened.handle, Some(0), Bytes::from_static(bytes))
            .await
            .unwrap();
        (child, opened)
    }

    /// Makes or replaces a file in the root.
    pub async fn write(&self, name: &str, bytes: &'static [u8]) {
        let handle = match self.fs.lookup(Ino::ROOT, os(name)).await {
            Ok(found) => {
                open_emptied(&self.fs, found.attributes.ino, Access::Write)
                    .await
                    .unwrap()
                    .handle
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.fs
                    .create(Ino::ROOT, os(name), Access::Write, 0o644, 0)
                    .await
                    .unwrap()
                    .1
                    .handle
            }
            Err(error) => panic!("{error}"),
        };
        if !bytes.is_empty() {
            self.fs.write(handle, Some(0), Bytes::from_static(bytes)).await.unwrap();
        }
        self.fs.flush(handle).await.unwrap();
        self.close(handle).await;
    }

    pub async fn read(&self, name: &str) -> Vec<u8> {
        let ino = self.ino(name).await;
        let opened = self.fs.open(ino, Access::Read).await.unwrap();
        let bytes = self.fs.read(opened.handle, 0, 1 << 20).await.unwrap();
        self.close(opened.handle).await;
        bytes.to_vec()
    }

    /// The names in a directory, sorted, without `.` and `..`.
    pub async fn names(&self, ino: Ino) -> Vec<String> {
        let handle = self.fs.open_directory(ino).await.unwrap();
        let entries = self.fs.read_directory(handle, 0).await.unwrap();
        self.fs.close_directory(handle);
        let mut names: Vec<String> = entries.iter().skip(2).map(|entry| entry.name.clone()).collect();
        names.sort();
        names
    }
}

fn build(
    store: &Memory,
    provider: &Arc<Faulty<Memory>>,
    settings: &FsSettings,
    folder: &tempfile::TempDir,
    room: Option<u64>,
    cache: Arc<dyn BlockCache>,
) -> FileSystem {
    let dynamic: Arc<dyn Provider> = Arc::clone(provider) as _;
    let fetching = FetchSettings {
        spill_directory: folder.path().to_owned(),
        spill_limit: 1 << 30,
        memory: 16 << 20,
    };
    let fetcher = Arc::new(Fetcher::new(Arc::clone(&dynamic), cache, fetching));
    let staging = Spool::open(&folder.path().join("staging")).unwrap();
    let staging = staging.limited_to(room).unwrap();
    let state = Arc::new(StateDb::open(&folder.path().join("state.db")).unwrap());
    let root = store.entry_at("").unwrap();
    FileSystem::new(dynamic, fetcher, staging, state, root, settings.clone())
}

/// Maps go first: the daemon that was there may still be filling a staged file, whose map tells of bytes that are in it.
fn copy_all(from: &std::path::Path, to: &std::path::Path) {
    let mut entries: Vec<_> = from.read_dir().unwrap().flatten().collect();
    entries.sort_by_key(|entry| entry.path().extension().is_none_or(|extension| extension != "map"));
    for entry in entries {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
            copy_label(&entry.path(), &target);
        }
    }
}

/// What a staged file says of itself goes with it, as in the folder that a killed daemon leaves.
fn copy_label(from: &std::path::Path, to: &std::path::Path) {
    let name = "user.keymount.staged";
    let mut label = vec![0; 64 << 10];
    if let Ok(length) = rustix::fs::getxattr(from, name, &mut label[..]) {
        rustix::fs::setxattr(to, name, &label[..length], rustix::fs::XattrFlags::empty()).unwrap();
    }
}

/// What a killed daemon leaves.
pub struct Wreck {
    store: Memory,
    settings: FsSettings,
    folder: Arc<tempfile::TempDir>,
}

impl Wreck {
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// The staged files, without the folders' locks.
    pub fn staged_files(&self) -> Vec<std::path::PathBuf> {
        let folders = self.path("staging").read_dir().unwrap().flatten();
        let files = folders.flat_map(|folder| folder.path().read_dir().unwrap().flatten());
        files
            .filter(|file| file.file_name() != ".lock")
            .map(|file| file.path())
            .collect()
    }

    /// The next daemon before it takes anything over.
    pub fn unmounted(self) -> Fixture {
        Fixture::over(self.store, self.settings, self.folder)
    }

    /// The next daemon; it takes over what it finds.
    pub async fn mounted_again(self) -> (Fixture, Resumed) {
        self.mounted_while(|_| {}).await
    }

    /// As `mounted_again`, with something about the provider that holds from the beginning.
    pub async fn mounted_while(self, holds: impl FnOnce(&Fixture)) -> (Fixture, Resumed) {
        {
            let state = StateDb::open(&self.path("state.db")).unwrap();
            recover(&self.path("staging"), &state, &self.path("lost")).unwrap();
        }
        let it = Fixture::over(self.store, self.settings, self.folder);
        holds(&it);
        let resumed = it.fs.resume(&it.folder.path().join("unsent")).await.unwrap();
        it.fs.start_sending();
        (it, resumed)
    }
}
