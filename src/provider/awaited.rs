//! A provider whose root isn't known yet because nobody is logged in: until the first `probe` that succeeds every call
//! says so, and nothing reaches the service with a key that it didn't give.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;

use super::keys::KeyInfo;
use super::{ByteStream, Capabilities, ChangeFeed, Content, Extras, LabelChanges, Place, Provider, Target};
use crate::model::{Entry, Error, Kind, Name, ObjectId, ObjectKey, PosixAttributes, Result, Rights, Usage, Version};

pub struct Awaited {
    inner: Arc<dyn Provider>,
    known: AtomicBool,
    why: Error,
}

impl Awaited {
    /// `why` is what `probe` said.
    pub fn new(inner: Arc<dyn Provider>, why: Error) -> Self {
        Self {
            inner,
            known: AtomicBool::new(false),
            why,
        }
    }

    /// What is shown of the root so long: a directory that may do nothing.
    ///
    /// # Errors
    /// `InvalidName`: never.
    pub fn root() -> Result<Entry> {
        Ok(Entry {
            key: ObjectKey::new(""),
            name: Name::new("root")?,
            kind: Kind::Directory,
            size: 0,
            modified: SystemTime::UNIX_EPOCH,
            version: Version::new(""),
            rights: Rights::NONE,
            labels: BTreeMap::new(),
            posix: Default::default(),
        })
    }

    fn inner(&self) -> Result<&dyn Provider> {
        if self.known.load(Ordering::Acquire) {
            Ok(&*self.inner)
        } else {
            Err(self.why.clone())
        }
    }
}

#[async_trait]
impl Provider for Awaited {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn identity(&self) -> String {
        self.inner.identity()
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn current_key(&self) -> Option<KeyInfo> {
        self.inner.current_key()
    }

    fn changes(&self) -> Option<Box<dyn ChangeFeed>> {
        self.inner().ok()?.changes()
    }

    fn extras(&self) -> Option<&dyn Extras> {
        self.inner().ok()?.extras()
    }

    fn check_name(&self, parent: &ObjectKey, kind: Kind, name: &Name) -> Result<()> {
        self.inner()?.check_name(parent, kind, name)
    }

    async fn probe(&self) -> Result<Entry> {
        let root = self.inner.probe().await?;
        self.known.store(true, Ordering::Release);
        Ok(root)
    }

    async fn lookup(&self, parent: &ObjectKey, name: &Name) -> Result<Entry> {
        self.inner()?.lookup(parent, name).await
    }

    async fn stat(&self, entry: &Entry) -> Result<Entry> {
        self.inner()?.stat(entry).await
    }

    async fn list(&self, directory: &ObjectKey) -> Result<Vec<Entry>> {
        self.inner()?.list(directory).await
    }

    async fn read(&self, object: &ObjectId, range: Range<u64>) -> Result<ByteStream> {
        self.inner()?.read(object, range).await
    }

    async fn create_directory(&self, parent: &ObjectKey, name: &Name) -> Result<Entry> {
        self.inner()?.create_directory(parent, name).await
    }

    async fn upload(&self, target: &Target, content: &Content) -> Result<Entry> {
        self.inner()?.upload(target, content).await
    }

    async fn remove_file(&self, entry: &Entry) -> Result<()> {
        self.inner()?.remove_file(entry).await
    }

    async fn remove_directory(&self, entry: &Entry) -> Result<()> {
        self.inner()?.remove_directory(entry).await
    }

    async fn rename(&self, entry: &Entry, from: &Place, to: &Place, replaced: Option<&Entry>) -> Result<Entry> {
        self.inner()?.rename(entry, from, to, replaced).await
    }

    async fn set_labels(&self, entry: &Entry, changes: &LabelChanges) -> Result<Entry> {
        self.inner()?.set_labels(entry, changes).await
    }

    async fn set_attributes(&self, entry: &Entry, attributes: &PosixAttributes) -> Result<Entry> {
        self.inner()?.set_attributes(entry, attributes).await
    }

    async fn usage(&self) -> Result<Usage> {
        self.inner()?.usage().await
    }
}
