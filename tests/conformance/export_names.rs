//! Lets the cases use ordinary file names where the provider has none but ReductStore's export names.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use keymount::model::{Entry, ErrorKind, Kind, Name, ObjectId, ObjectKey, PosixAttributes, Result, Usage};
use keymount::provider::keys::KeyInfo;
use keymount::provider::{
    ByteStream, Capabilities, ChangeFeed, Content, Extras, LabelChanges, Place, Provider, Target,
};
use parking_lot::Mutex;

/// The time of the first name; each further one is a microsecond later.
const FIRST: u64 = 1_700_000_000_000_000;

/// A provider of export names, with a time of its own for every text that a case uses as a file's name.
pub struct ExportNames {
    inner: Arc<dyn Provider>,
    texts: Mutex<Vec<String>>,
}

impl ExportNames {
    pub fn over(inner: Arc<dyn Provider>) -> Self {
        Self {
            inner,
            texts: Mutex::default(),
        }
    }

    pub fn time_of(&self, text: &str) -> u64 {
        let mut texts = self.texts.lock();
        let index = texts.iter().position(|known| known == text).unwrap_or_else(|| {
            texts.push(text.to_owned());
            texts.len() - 1
        });
        FIRST + index as u64
    }

    pub fn text_at(&self, at: u64) -> String {
        let index = usize::try_from(at - FIRST).unwrap();
        self.texts.lock()[index].clone()
    }

    fn spelled(&self, name: &Name) -> Name {
        Name::new(format!("{}.bin", self.time_of(name.as_str()))).unwrap()
    }

    /// The entry as the provider knows it.
    fn inward(&self, entry: &Entry) -> Entry {
        match entry.kind {
            Kind::Directory => entry.clone(),
            Kind::File => Entry {
                name: self.spelled(&entry.name),
                ..entry.clone()
            },
        }
    }

    /// The entry as a case knows it.
    fn outward(&self, entry: Entry) -> Entry {
        let time = entry.name.as_str().strip_suffix(".bin").map(str::parse);
        match (entry.kind, time) {
            (Kind::File, Some(Ok(at))) => Entry {
                name: Name::new(self.text_at(at)).unwrap(),
                ..entry
            },
            _ => entry,
        }
    }
}

#[async_trait]
impl Provider for ExportNames {
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
        self.inner.changes()
    }

    fn extras(&self) -> Option<&dyn Extras> {
        self.inner.extras()
    }

    fn check_name(&self, parent: &ObjectKey, kind: Kind, name: &Name) -> Result<()> {
        match kind {
            Kind::File => self.inner.check_name(parent, kind, &self.spelled(name)),
            Kind::Directory => self.inner.check_name(parent, kind, name),
        }
    }

    async fn probe(&self) -> Result<Entry> {
        self.inner.probe().await
    }

    async fn lookup(&self, parent: &ObjectKey, name: &Name) -> Result<Entry> {
        match self.inner.lookup(parent, &self.spelled(name)).await {
            Err(error) if error.kind() == ErrorKind::NotFound => self.inner.lookup(parent, name).await,
            found => found.map(|entry| self.outward(entry)),
        }
    }

    async fn stat(&self, entry: &Entry) -> Result<Entry> {
        let now = self.inner.stat(&self.inward(entry)).await?;
        Ok(self.outward(now))
    }

    async fn list(&self, directory: &ObjectKey) -> Result<Vec<Entry>> {
        let entries = self.inner.list(directory).await?;
        Ok(entries.into_iter().map(|entry| self.outward(entry)).collect())
    }

    async fn read(&self, object: &ObjectId, range: Range<u64>) -> Result<ByteStream> {
        self.inner.read(object, range).await
    }

    async fn create_directory(&self, parent: &ObjectKey, name: &Name) -> Result<Entry> {
        self.inner.create_directory(parent, name).await
    }

    async fn upload(&self, target: &Target, content: &Content) -> Result<Entry> {
        let target = match target {
            Target::New { parent, name } => Target::New {
                parent: parent.clone(),
                name: self.spelled(name),
            },
            Target::Replace { parent, entry } => Target::Replace {
                parent: parent.clone(),
                entry: self.inward(entry),
            },
        };
        let stored = self.inner.upload(&target, content).await?;
        Ok(self.outward(stored))
    }

    async fn remove_file(&self, entry: &Entry) -> Result<()> {
        self.inner.remove_file(&self.inward(entry)).await
    }

    async fn remove_directory(&self, entry: &Entry) -> Result<()> {
        self.inner.remove_directory(entry).await
    }

    async fn rename(&self, entry: &Entry, from: &Place, to: &Place, replaced: Option<&Entry>) -> Result<Entry> {
        if entry.is_directory() {
            return self.inner.rename(entry, from, to, replaced).await;
        }
        let place = |place: &Place| Place {
            name: self.spelled(&place.name),
            parent: place.parent.clone(),
        };
        let replaced = replaced.map(|entry| self.inward(entry));
        let renamed = self
            .inner
            .rename(&self.inward(entry), &place(from), &place(to), replaced.as_ref())
            .await?;
        Ok(self.outward(renamed))
    }

    async fn set_labels(&self, entry: &Entry, changes: &LabelChanges) -> Result<Entry> {
        let changed = self.inner.set_labels(&self.inward(entry), changes).await?;
        Ok(self.outward(changed))
    }

    async fn set_attributes(&self, entry: &Entry, attributes: &PosixAttributes) -> Result<Entry> {
        let changed = self.inner.set_attributes(&self.inward(entry), attributes).await?;
        Ok(self.outward(changed))
    }

    async fn usage(&self) -> Result<Usage> {
        self.inner.usage().await
    }
}
