//! Amazon S3 and what speaks like it: a bucket, or what is below a prefix of one, through `opendal`.
//!
//! * An `ObjectKey` is the object's key for a file, and the prefix with its slash for a directory.
//! * A file's `Version` is its entity tag.
//! * A change is conditional (`If-Match`, `If-None-Match`) where the service minds that, which is tried; elsewhere mounts
//!   keep each other apart by locks, which are small objects beside what is changed.
//! * A file is renamed by a copy inside the service; directories aren't (`CrossDevice`), for that is a copy of everything.
//! * Rights aren't told: all are assumed (without a key to read), and refusals correct that until the next probe.
//! * Labels aren't kept: changing an object's metadata is a copy of the object. What POSIX has of a file goes as metadata
//!   with its content, and is told when one object is looked at; listings don't have it.
//!
//! opendal signs requests, cuts uploads into parts and reads S3's XML. Sending, retries, deadlines and the meaning of
//! statuses are keymount's own, below it.

mod apart;
mod chain;
mod change;
mod errors;
mod ghosts;
mod keys;
mod lock;
mod looks;
mod metadata;
mod names;
mod proof;
mod register;
mod rooms;
mod settle;
mod store;
mod wire;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;

pub use self::keys::AccessKeys;
pub use self::lock::Lease;

use self::change::Changes;
use self::register::S3Register;
use self::store::Store;
use super::keys::KeyInfo;
use super::register::Register;
use super::unbroken::unbroken;
use super::{
    AttributeSupport, ByteStream, Capabilities, ChangeFeed, Content, Extras, LISTS_AHEAD, LabelChanges, LabelSupport,
    NamedBy, Place, Provider, Reads, Target,
};
use crate::api::Api;
use crate::model::{Entry, Error, ErrorKind, Kind, Name, ObjectId, ObjectKey, PosixAttributes, Result, Rights, Usage};
use crate::net::Dialect;

/// In bytes: 5 TiB, Amazon's limit until it was raised and still that of most services like it.
const MAX_FILE_SIZE: u64 = 5 << 40;

/// Which part of which bucket is mounted.
#[derive(Clone, Debug)]
pub struct Settings {
    pub bucket: String,
    pub region: String,
    /// The prefix to mount; empty for the whole bucket.
    pub path: Vec<Name>,
    /// What is assumed instead of all rights. Refusals still lower it until the next probe.
    pub rights_override: Option<Rights>,
    /// How long locks are good for where they are needed.
    pub lease: Lease,
}

/// A bucket.
pub struct S3 {
    changes: Arc<Changes>,
    /// Empty, or with a slash at its end.
    root: String,
    root_name: Name,
    capabilities: Capabilities,
}

impl S3 {
    /// `api`'s base is the endpoint without the bucket, and its dialect the one of `dialect`. Without keys nothing is
    /// signed.
    ///
    /// # Errors
    /// `InvalidName` when the bucket's name cannot be a directory's.
    pub fn new(api: Arc<Api>, keys: Option<Arc<AccessKeys>>, settings: Settings) -> Result<Self> {
        let assumed = settings.rights_override.unwrap_or(match keys {
            Some(_) => Rights::ALL,
            None => Rights::READ,
        });
        let store = Store::new(api, &settings.bucket, &settings.region, keys, assumed);
        let root: String = settings.path.iter().map(|name| format!("{name}/")).collect();
        Ok(Self {
            changes: Arc::new(Changes::new(store, root.clone(), settings.lease)),
            root_name: match settings.path.last() {
                Some(name) => name.clone(),
                None => Name::new(settings.bucket)?,
            },
            root,
            capabilities: Capabilities {
                bytes: NamedBy::Object,
                reads: Reads::Ranges,
                labels: LabelSupport::None,
                attributes: AttributeSupport::WithContent,
                max_file_size: Some(MAX_FILE_SIZE),
                max_name_chars: None,
                rename_directories: false,
                move_files: true,
                lists_ahead: LISTS_AHEAD,
            },
        })
    }

    /// The object of this path below what is mounted, as one that machines write in turn.
    pub fn register(&self, path: &[Name]) -> Arc<dyn Register> {
        let path: Vec<&str> = path.iter().map(Name::as_str).collect();
        let key = format!("{}{}", self.root, path.join("/"));
        Arc::new(S3Register::new(Arc::clone(&self.changes), key))
    }

    /// How S3 services word their refusals.
    pub fn dialect() -> Arc<dyn Dialect> {
        Arc::new(errors::S3Dialect)
    }

    fn store(&self) -> &Store {
        &self.changes.store
    }
}

#[async_trait]
impl Provider for S3 {
    fn kind(&self) -> &'static str {
        "s3"
    }

    fn identity(&self) -> String {
        self.store().identity()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn current_key(&self) -> Option<KeyInfo> {
        None
    }

    fn changes(&self) -> Option<Box<dyn ChangeFeed>> {
        None
    }

    fn extras(&self) -> Option<&dyn Extras> {
        None
    }

    fn check_name(&self, parent: &ObjectKey, _: Kind, name: &Name) -> Result<()> {
        names::check_name(parent.as_str(), name.as_str()).map(drop)
    }

    /// A prefix without keys is an empty directory: that is how one begins.
    async fn probe(&self) -> Result<Entry> {
        self.store().rights.forget_all();
        let is_there = self.store().any_below(&self.root).await?;
        if !is_there
            && let Some(file) = self.root.strip_suffix('/')
            && self.store().object(file).await.is_ok()
        {
            let message = format!("{:?} is a file", self.root_name.as_str());
            return Err(Error::new(ErrorKind::NotADirectory, message));
        }
        Ok(self.store().directory(&self.root, &self.root_name))
    }

    async fn lookup(&self, parent: &ObjectKey, name: &Name) -> Result<Entry> {
        // A name that cannot be is one that isn't there.
        if names::check_name(parent.as_str(), name.as_str()).is_err() {
            return Err(Error::not_found(format_args!("{:?}", name.as_str())));
        }
        self.changes.lookup(parent.as_str(), name).await
    }

    async fn stat(&self, entry: &Entry) -> Result<Entry> {
        let key = entry.key.as_str();
        match entry.kind {
            Kind::File => Ok(self.store().file(key, &entry.name, &self.store().object(key).await?)),
            Kind::Directory if key == self.root || self.store().any_below(key).await? => {
                Ok(self.store().directory(key, &entry.name))
            }
            Kind::Directory => Err(Error::not_found(format_args!("{:?}", entry.name.as_str()))),
        }
    }

    async fn list(&self, directory: &ObjectKey) -> Result<Vec<Entry>> {
        let folder = directory.as_str();
        if !folder.is_empty() && !folder.ends_with('/') {
            let message = format!("{folder:?} is not a directory");
            return Err(Error::new(ErrorKind::NotADirectory, message));
        }
        let children = match self.store().children(folder).await {
            Err(error) if error.kind() == ErrorKind::NotFound && folder == self.root => Vec::new(),
            other => other?,
        };
        let entry = |(name, object): &(Name, _)| match object {
            Some(object) => self.store().file(&format!("{folder}{name}"), name, object),
            None => self.store().directory(&format!("{folder}{name}/"), name),
        };
        Ok(children.iter().map(entry).collect())
    }

    async fn read(&self, object: &ObjectId, range: Range<u64>) -> Result<ByteStream> {
        self.store().read(object, range).await
    }

    async fn create_directory(&self, parent: &ObjectKey, name: &Name) -> Result<Entry> {
        let (changes, parent, name) = (Arc::clone(&self.changes), parent.clone(), name.clone());
        unbroken(async move { changes.make_directory(parent.as_str(), &name).await }).await
    }

    async fn upload(&self, target: &Target, content: &Content) -> Result<Entry> {
        if content.len() > MAX_FILE_SIZE {
            let message = format!("{:?} is larger than an object can be", target.name().as_str());
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        let (changes, target, content) = (Arc::clone(&self.changes), target.clone(), content.clone());
        unbroken(async move { changes.upload(&target, &content).await }).await
    }

    async fn remove_file(&self, entry: &Entry) -> Result<()> {
        let (changes, entry) = (Arc::clone(&self.changes), entry.clone());
        unbroken(async move { changes.remove_file(&entry).await }).await
    }

    async fn remove_directory(&self, entry: &Entry) -> Result<()> {
        self.changes.remove_directory(entry).await
    }

    async fn rename(&self, entry: &Entry, from: &Place, to: &Place, replaced: Option<&Entry>) -> Result<Entry> {
        if from.parent == to.parent && from.name == to.name {
            return self.stat(entry).await;
        }
        if entry.is_directory() {
            let message = "S3 renames no directories";
            return Err(Error::new(ErrorKind::CrossDevice, message));
        }
        let changes = Arc::clone(&self.changes);
        let (entry, to, replaced) = (entry.clone(), to.clone(), replaced.cloned());
        unbroken(async move {
            changes
                .rename(&entry, to.parent.as_str(), &to.name, replaced.as_ref())
                .await
        })
        .await
    }

    async fn set_labels(&self, _: &Entry, _: &LabelChanges) -> Result<Entry> {
        Err(Error::unsupported("keymount keeps no labels at S3 services"))
    }

    async fn set_attributes(&self, _: &Entry, _: &PosixAttributes) -> Result<Entry> {
        Err(Error::unsupported(
            "S3 changes the metadata of no object: it goes with the content",
        ))
    }

    async fn usage(&self) -> Result<Usage> {
        Err(Error::unsupported("S3 doesn't tell how much is stored"))
    }
}
