//! What the cases share: short ways to store, read and compare, and the invariants of every entry.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt;
use keymount::model::{Entry, ErrorKind, Kind, Name, ObjectKey, Result, Rights};
use keymount::provider::{Content, Place, Provider, Reads, Target};

use super::{Fixture, RawStore};

/// A provider on an empty root, with short words for what cases do.
pub struct Bench {
    fixture: Box<dyn Fixture>,
    pub provider: Arc<dyn Provider>,
    pub root: ObjectKey,
}

pub fn name(text: &str) -> Name {
    Name::new(text).expect("a case uses a possible name")
}

pub fn kind<T>(result: &Result<T>) -> Option<ErrorKind> {
    result.as_ref().err().map(|error| error.kind())
}

/// How a read of an entry is refused after another one took its place: where that is another object, the old one is gone.
pub fn once_replaced(old: &Entry, new: &Entry) -> ErrorKind {
    if old.key == new.key {
        ErrorKind::Changed
    } else {
        ErrorKind::NotFound
    }
}

/// Bytes that differ at every place and between seeds.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    bytes
}

impl Bench {
    pub async fn open(fixture: impl Fixture + 'static) -> Arc<Self> {
        let provider = fixture.provider();
        let mut root = provider.probe().await.expect("the provider answers").key;
        if let Some(workplace) = fixture.workplace() {
            let made = provider.create_directory(&root, &name(workplace)).await;
            root = made.expect("the root holds directories").key;
        }
        Arc::new(Self {
            fixture: Box::new(fixture),
            provider,
            root,
        })
    }

    pub fn fixture(&self) -> &dyn Fixture {
        &*self.fixture
    }

    pub fn raw(&self) -> Option<&dyn RawStore> {
        self.fixture.raw()
    }

    /// Whether the fixture's rules allow a name.
    pub fn allows(&self, kind: Kind, text: &str) -> bool {
        self.fixture.refuses(kind, text).is_none()
    }

    pub async fn try_put(&self, parent: &ObjectKey, text: &str, bytes: &[u8]) -> Result<Entry> {
        let target = Target::New {
            parent: parent.clone(),
            name: name(text),
        };
        self.provider.upload(&target, &Content::from_bytes(bytes)?).await
    }

    /// Stores a new file and checks the entry it gets.
    pub async fn put(&self, parent: &ObjectKey, text: &str, bytes: &[u8]) -> Entry {
        let entry = self
            .try_put(parent, text, bytes)
            .await
            .unwrap_or_else(|error| panic!("upload of {text:?}: {error:?}"));
        check_file(&entry, text, bytes.len() as u64);
        entry
    }

    pub async fn try_replace(&self, parent: &ObjectKey, old: &Entry, bytes: &[u8]) -> Result<Entry> {
        let target = Target::Replace {
            parent: parent.clone(),
            entry: old.clone(),
        };
        self.provider.upload(&target, &Content::from_bytes(bytes)?).await
    }

    pub async fn replace(&self, parent: &ObjectKey, old: &Entry, bytes: &[u8]) -> Entry {
        let entry = self
            .try_replace(parent, old, bytes)
            .await
            .unwrap_or_else(|error| panic!("replace of {:?}: {error:?}", old.name));
        check_file(&entry, old.name.as_str(), bytes.len() as u64);
        entry
    }

    pub async fn make_directory(&self, parent: &ObjectKey, text: &str) -> Entry {
        let entry = self
            .provider
            .create_directory(parent, &name(text))
            .await
            .unwrap_or_else(|error| panic!("mkdir {text:?}: {error:?}"));
        check_directory(&entry, text);
        entry
    }

    pub async fn lookup(&self, parent: &ObjectKey, text: &str) -> Result<Entry> {
        self.provider.lookup(parent, &name(text)).await
    }

    pub async fn try_read(&self, entry: &Entry, range: Range<u64>) -> Result<Vec<u8>> {
        let chunks = self.provider.read(&entry.object(), range).await?;
        chunks
            .try_fold(Vec::new(), async |mut all, chunk| {
                all.extend_from_slice(&chunk);
                Ok(all)
            })
            .await
    }

    pub async fn read(&self, entry: &Entry) -> Vec<u8> {
        self.try_read(entry, 0..entry.size)
            .await
            .unwrap_or_else(|error| panic!("read of {:?}: {error:?}", entry.name))
    }

    /// The content under a name, looked up anew.
    pub async fn content(&self, parent: &ObjectKey, text: &str) -> Vec<u8> {
        let entry = self
            .lookup(parent, text)
            .await
            .unwrap_or_else(|error| panic!("lookup of {text:?}: {error:?}"));
        self.read(&entry).await
    }

    /// The names in a directory; each may be there once.
    pub async fn names(&self, directory: &ObjectKey) -> BTreeSet<String> {
        let entries = self
            .provider
            .list(directory)
            .await
            .expect("the directory can be listed");
        let names: BTreeSet<String> = entries.iter().map(|entry| entry.name.to_string()).collect();
        assert_eq!(names.len(), entries.len(), "a name is listed twice");
        names
    }

    pub fn place(&self, parent: &ObjectKey, text: &str) -> Place {
        Place {
            parent: parent.clone(),
            name: name(text),
        }
    }

    /// Renames inside one directory.
    pub async fn rename(&self, parent: &ObjectKey, entry: &Entry, to: &str, over: Option<&Entry>) -> Result<Entry> {
        let from = Place {
            parent: parent.clone(),
            name: entry.name.clone(),
        };
        self.provider.rename(entry, &from, &self.place(parent, to), over).await
    }

    pub fn reads_ranges(&self) -> bool {
        self.provider.capabilities().reads == Reads::Ranges
    }
}

pub fn check_file(entry: &Entry, text: &str, size: u64) {
    assert_eq!(entry.kind, Kind::File, "{text:?}");
    assert_eq!((entry.name.as_str(), entry.size), (text, size));
    assert!(!entry.version.as_str().is_empty(), "{text:?} has no version");
    check_common(entry);
}

pub fn check_directory(entry: &Entry, text: &str) {
    assert_eq!(entry.kind, Kind::Directory, "{text:?}");
    assert_eq!((entry.name.as_str(), entry.size), (text, 0));
    check_common(entry);
}

fn check_common(entry: &Entry) {
    assert_eq!(entry.rights, Rights::ALL, "{:?} in a writable root", entry.name);
    let tomorrow = SystemTime::now() + Duration::from_secs(86_400);
    assert!(entry.modified < tomorrow, "{:?} is from the future", entry.name);
}
