//! A file system over any provider, and the calls that tests repeat.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use keymount::cache::MemoryCache;
use keymount::fetch::{FetchSettings, Fetcher};
use keymount::fs::{Access, CloseMeans, FileSystem, FsSettings, Ino};
use keymount::model::{Entry, ErrorKind, Name, ObjectKey};
use keymount::outbox::Spool;
use keymount::provider::Provider;
use keymount::state::StateDb;

use crate::kernel::open_emptied;

/// What a provider is mounted as, without a mount.
pub struct Mounted {
    pub fs: Arc<FileSystem>,
    state: Arc<StateDb>,
    provider: Arc<dyn Provider>,
    root: Entry,
    _folder: tempfile::TempDir,
}

impl Mounted {
    /// What was seen counts for `attr_ttl`.
    pub async fn new(provider: Arc<dyn Provider>, attr_ttl: Duration) -> Self {
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
            attr_ttl,
            close: CloseMeans::Journaled,
            remote: "remote".to_owned(),
        };
        let spool = Spool::open(&folder.path().join("staging")).unwrap();
        let state = Arc::new(StateDb::open(&folder.path().join("state.db")).unwrap());
        let fs = Arc::new(FileSystem::new(
            Arc::clone(&provider),
            fetcher,
            spool,
            Arc::clone(&state),
            root.clone(),
            settings,
        ));
        Self {
            fs,
            state,
            provider,
            root,
            _folder: folder,
        }
    }

    /// Makes or replaces a file in the root.
    pub async fn write(&self, name: &str, text: &'static str) {
        self.write_in(Ino::ROOT, name, Bytes::from_static(text.as_bytes()))
            .await;
    }

    pub async fn write_in(&self, directory: Ino, name: &str, bytes: Bytes) {
        let name = OsStr::new(name);
        let handle = match self.fs.lookup(directory, name).await {
            Ok(found) => {
                let ino = found.keep().attributes.ino;
                open_emptied(&self.fs, ino, Access::Write).await.unwrap().handle
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound);
                let made = self.fs.create(directory, name, Access::Write, 0o644, 0).await;
                made.unwrap().1.handle
            }
        };
        self.fs.write(handle, Some(0), bytes).await.unwrap();
        self.fs.flush(handle).await.unwrap();
        self.fs.close(handle);
    }

    /// What the provider has in the root, whatever it is called.
    pub async fn contents(&self) -> Vec<String> {
        let contents = self.read_all(&self.root.key).await.into_values();
        contents.map(|bytes| String::from_utf8(bytes).unwrap()).collect()
    }

    /// The files in a directory of the root, by name.
    pub async fn contents_of(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let directory = self.provider.lookup(&self.root.key, &Name::new(name).unwrap()).await;
        self.read_all(&directory.unwrap().key).await
    }

    async fn read_all(&self, directory: &ObjectKey) -> BTreeMap<String, Vec<u8>> {
        let mut contents = BTreeMap::new();
        for entry in self.provider.list(directory).await.unwrap() {
            let bytes = self.provider.read(&entry.object(), 0..entry.size).await.unwrap();
            let bytes = bytes.try_collect::<Vec<_>>().await.unwrap().concat();
            contents.insert(entry.name.to_string(), bytes);
        }
        contents
    }

    /// Files that the journal knows of.
    pub fn journaled(&self) -> usize {
        self.fs.journal().flush();
        self.state.journaled(None).unwrap().len()
    }
}
