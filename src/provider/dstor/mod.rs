//! dStor: contents by their IPFS hash, and a tree of names that keymount keeps itself.
//!
//! Written from public material: the documentation of developer tokens, the README of the API, the source of the
//! serving nodes, and clients in public repositories. The service's own description of its API could not be read.
//! What these leave open is marked as assumed where it matters. In short:
//!
//! * A content is found by its hash and never changes. Nothing known lists, renames or removes anything, so names,
//!   sizes and times are in an [`Index`] on this machine, and changes of the tree are changes of the index. Several
//!   machines can have one tree ([`Sharing`]).
//! * An `ObjectKey` is an entry's number in the index: it survives renames. A file's `Version` is the address of its
//!   content, a directory's says nothing.
//! * Writing over a file stores a new content; the old one stays at dStor.
//! * A token is the whole account: everything is allowed, but nothing in a hashed folder can be changed.

mod begun;
mod client;
mod exchange;
mod import;
mod index;
pub mod index_file;
mod listed;
mod read;
mod sharing;
mod templates;
mod token;
mod upload;
mod wire;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tracing::warn;

use self::begun::Begun;
use self::client::Client;
pub use self::exchange::TempTokens;
pub use self::import::MAX_LIST as LONGEST_INDEX;
pub use self::index::Index;
pub use self::sharing::{Sharing, SharingSettings, Signature};
pub use self::templates::{Endpoint, Endpoints, Purpose};
pub use self::upload::Polling;
use super::keys::KeyInfo;
use super::registry::OnUnlink;
use super::unbroken::unbroken;
use super::{
    AttributeSupport, ByteStream, Capabilities, ChangeFeed, Content, Extras, LabelChanges, LabelSupport, NamedBy,
    Place, Provider, Reads, Target,
};
use crate::api::Api;
use crate::model::{
    Action, ContentAddress, Entry, Error, ErrorKind, IndexId, Indexed, IndexedContent, IndexedFile, Kind, Name,
    ObjectId, ObjectKey, PosixAttributes, Result, Rights, Usage, Version,
};
use crate::net::Dialect;

/// How long a look at a content may take whose outcome is only good to know.
const LOOK: Duration = Duration::from_secs(5);
/// The version of every directory: nothing changes with what is in one.
const DIRECTORY_VERSION: &str = "directory";

/// Which tree of which account is mounted.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Names the tree among those of this service.
    pub tree: String,
    /// The directory to mount; empty for the whole tree.
    pub path: Vec<Name>,
    /// What holds instead of what the service lets do.
    pub rights_override: Option<Rights>,
    pub on_unlink: OnUnlink,
    pub endpoints: Endpoints,
    /// A list of contents to take into the tree.
    pub import: Option<PathBuf>,
    pub polling: Polling,
}

/// An account of dStor with its tree.
pub struct Dstor {
    client: Arc<Client>,
    index: Arc<dyn Index>,
    /// Others who change the same tree.
    sharing: Option<Arc<Sharing>>,
    settings: Settings,
    begun: Arc<Begun>,
    /// Set once an upload was refused for lack of rights, until the next probe.
    refuses_uploads: AtomicBool,
    /// Made at the first probe.
    capabilities: OnceLock<Capabilities>,
}

impl Dstor {
    /// `api`'s base is the service's root, `https://api.dstor.cloud/`, and its dialect the one of `dialect`.
    pub fn new(api: Arc<Api>, index: Arc<dyn Index>, settings: Settings) -> Self {
        Self {
            client: Arc::new(Client::new(api)),
            index,
            sharing: None,
            settings,
            begun: Arc::default(),
            refuses_uploads: AtomicBool::new(false),
            capabilities: OnceLock::new(),
        }
    }

    /// The same with a tree that others change too: `sharing` is of the same index.
    pub fn shared(self, sharing: Arc<Sharing>) -> Self {
        Self {
            sharing: Some(sharing),
            ..self
        }
    }

    /// How dStor words its refusals.
    pub fn dialect() -> Arc<dyn Dialect> {
        Arc::new(wire::DstorDialect)
    }

    fn rights(&self) -> Rights {
        let all = self.settings.rights_override.unwrap_or(Rights::ALL);
        let kept = match self.settings.on_unlink {
            OnUnlink::Forget => all,
            OnUnlink::Deny => all.without(Action::Delete),
        };
        if self.refuses_uploads.load(Ordering::Relaxed) && self.settings.rights_override.is_none() {
            kept.and(Rights::READ)
        } else {
            kept
        }
    }

    fn entry(&self, indexed: &Indexed) -> Entry {
        let (size, version, immutable) = match &indexed.content {
            IndexedContent::Directory => (0, Version::new(DIRECTORY_VERSION), false),
            IndexedContent::Folder(_) => (0, Version::new(DIRECTORY_VERSION), true),
            IndexedContent::File(file) => (file.size, Version::new(file.address.as_str()), indexed.sealed),
        };
        let rights = self.rights();
        Entry {
            key: key(indexed.id),
            name: indexed.name.clone().unwrap_or_else(root_name),
            kind: indexed.kind(),
            size,
            modified: indexed.modified,
            version,
            rights: if immutable { rights.and(Rights::READ) } else { rights },
            labels: BTreeMap::new(),
            posix: Default::default(),
        }
    }

    /// The entry in the index that has this key, if it has the same kind still.
    fn found(&self, entry: &Entry) -> Result<Indexed> {
        let found = self.index.entry(id(&entry.key)?)?;
        if found.kind() == entry.kind {
            Ok(found)
        } else {
            Err(Error::not_found(format_args!("{:?}", entry.name.as_str())))
        }
    }

    /// The content that an object was opened with, if any file has it still.
    fn content_of(&self, object: &ObjectId) -> Result<IndexedFile> {
        let found = self.index.entry(id(&object.key)?);
        let file = match &found {
            Ok(found) => found.file(),
            Err(_) => None,
        };
        if let Some(file) = file
            && file.address.as_str() == object.version.as_str()
            && file.size == object.size
        {
            return Ok(file.clone());
        }
        if let Some(address) = ContentAddress::new(object.version.as_str())
            && self.index.uses(&address)? > 0
        {
            return Ok(IndexedFile {
                address,
                size: object.size,
                sha256: None,
            });
        }
        match found?.is_directory() {
            true => Err(Error::new(ErrorKind::IsADirectory, "a directory has no bytes")),
            false => {
                let message = "the file was replaced since it was opened";
                Err(Error::new(ErrorKind::Changed, message))
            }
        }
    }

    /// A directory that entries can be made in.
    fn open_directory(&self, directory: &ObjectKey) -> Result<Indexed> {
        let found = self.index.entry(id(directory)?)?;
        match &found.content {
            IndexedContent::Directory => Ok(found),
            IndexedContent::Folder(_) => Err(immutable()),
            IndexedContent::File(_) => Err(Error::new(ErrorKind::NotADirectory, "a file holds no entries")),
        }
    }

    /// The mounted directory.
    fn root(&self) -> Result<Indexed> {
        let root = self.index.entry(self.index.root())?;
        self.settings
            .path
            .iter()
            .try_fold(root, |at, name| {
                if at.is_directory() {
                    self.index.child(at.id, name)
                } else {
                    Err(Error::new(ErrorKind::NotADirectory, "a file holds no entries"))
                }
            })
            .and_then(|found| {
                if found.is_directory() {
                    return Ok(found);
                }
                let message = "the path leads to a file, and a directory can be mounted";
                Err(Error::new(ErrorKind::NotADirectory, message))
            })
    }

    /// Finds out whether parts can be read, by a look at some file; without one it is assumed, and if it is wrong,
    /// reading a part downloads what is before it as well.
    async fn reads(&self, root: &Indexed) -> Reads {
        let files = self.index.children(root.id).unwrap_or_default();
        match files.iter().find_map(|entry| entry.file().filter(|file| file.size > 1)) {
            Some(file) => match tokio::time::timeout(LOOK, read::reads(&self.client, file)).await {
                Ok(Ok(reads)) => reads,
                _ => Reads::Ranges,
            },
            None => Reads::Ranges,
        }
    }

    /// Takes over what others did to the tree.
    async fn freshen(&self) {
        if let Some(sharing) = &self.sharing {
            sharing.freshen().await;
        }
    }

    /// Says that the tree was changed here.
    fn changed(&self) {
        if let Some(sharing) = &self.sharing {
            sharing.changed();
        }
    }

    /// Looks at the shared index. One that cannot be reached now is waited for in the background.
    async fn open_shared(&self) -> Result<()> {
        let Some(sharing) = &self.sharing else { return Ok(()) };
        let Err(error) = sharing.open().await else {
            return Ok(());
        };
        let named = error.clone().context("the shared index");
        match error.kind() {
            ErrorKind::Unsupported | ErrorKind::NotFound | ErrorKind::InvalidInput => Err(named),
            // It is another credential than the one that `login` is about.
            ErrorKind::NeedsLogin => Err(Error::denied(named)),
            _ => {
                sharing.changed();
                Ok(())
            }
        }
    }

    /// Lets the portal show a file's new name. The tree's counts, so what the endpoint refuses is only noted.
    async fn tell_new_name(&self, moved: &Indexed, before: &[Name], stays: bool) {
        let (Some(rename), Some(file)) = (&self.settings.endpoints.rename, moved.file()) else {
            return;
        };
        let tell = async {
            // Files with equal contents cannot be told apart by their hash.
            if self.index.uses(&file.address)? > 1 || !(stays || rename.can_move()) {
                return Ok(());
            }
            let now = self.index.path(moved.id)?;
            self.client.rename(rename, &file.address, before, &now).await
        };
        if let Err(error) = tell.await {
            warn!(%error, "dStor's portal goes on showing the old name");
        }
    }

    /// Remembers that the account may not upload.
    fn noting<T>(&self, result: Result<T>) -> Result<T> {
        if matches!(&result, Err(error) if error.kind() == ErrorKind::Denied) {
            self.refuses_uploads.store(true, Ordering::Relaxed);
        }
        result
    }
}

#[async_trait]
impl Provider for Dstor {
    fn kind(&self) -> &'static str {
        "dstor"
    }

    fn identity(&self) -> String {
        format!("dstor:{}tree/{}", self.client.base(), self.settings.tree)
    }

    fn capabilities(&self) -> &Capabilities {
        self.capabilities.get_or_init(|| capabilities(Reads::Ranges))
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

    /// The names are ours alone.
    fn check_name(&self, _: &ObjectKey, _: Kind, _: &Name) -> Result<()> {
        Ok(())
    }

    /// Announces an upload that never follows: the only documented request that needs a token and changes nothing.
    async fn probe(&self) -> Result<Entry> {
        self.refuses_uploads.store(false, Ordering::Relaxed);
        match self.noting(self.client.announce("/").await) {
            Err(error) if error.kind() != ErrorKind::Denied => return Err(error),
            // Reading takes no rights.
            _ => {}
        }
        self.open_shared().await?;
        if let Some(file) = &self.settings.import {
            import::import(&self.client, &*self.index, file).await?;
            self.changed();
        }
        if let Some(list) = &self.settings.endpoints.list {
            listed::take_listed(&self.client, &*self.index, list).await?;
            self.changed();
        }
        let root = self.root()?;
        if self.capabilities.get().is_none() {
            let reads = self.reads(&root).await;
            self.capabilities.get_or_init(|| capabilities(reads));
        }
        Ok(self.entry(&root))
    }

    async fn lookup(&self, parent: &ObjectKey, name: &Name) -> Result<Entry> {
        self.freshen().await;
        let found = self.index.child(id(parent)?, name)?;
        Ok(self.entry(&found))
    }

    async fn stat(&self, entry: &Entry) -> Result<Entry> {
        self.freshen().await;
        Ok(self.entry(&self.found(entry)?))
    }

    async fn list(&self, directory: &ObjectKey) -> Result<Vec<Entry>> {
        self.freshen().await;
        let children = self.index.children(id(directory)?)?;
        Ok(children.iter().map(|child| self.entry(child)).collect())
    }

    async fn read(&self, object: &ObjectId, range: Range<u64>) -> Result<ByteStream> {
        let file = self.content_of(object)?;
        read::read(&self.client, object, &file, range).await
    }

    async fn create_directory(&self, parent: &ObjectKey, name: &Name) -> Result<Entry> {
        self.freshen().await;
        let parent = self.open_directory(parent)?;
        let made = self
            .index
            .insert(parent.id, name, &IndexedContent::Directory, SystemTime::now())?;
        self.changed();
        Ok(self.entry(&made))
    }

    async fn upload(&self, target: &Target, content: &Content) -> Result<Entry> {
        self.freshen().await;
        let parent = self.open_directory(target.parent())?;
        let place = match target {
            Target::New { name, .. } => match self.index.child(parent.id, name) {
                Ok(_) => return Err(exists(name)),
                Err(error) if error.kind() == ErrorKind::NotFound => Slot::New,
                Err(error) => return Err(error),
            },
            Target::Replace { entry, .. } => {
                let address = self
                    .found(entry)
                    .ok()
                    .and_then(|found| found.file().map(|file| file.address.clone()))
                    .filter(|address| address.as_str() == entry.version.as_str());
                match address {
                    Some(address) => Slot::Replace(id(&entry.key)?, address),
                    None => return Err(changed(&entry.name)),
                }
            }
        };
        let directory = self.index.path(parent.id)?;
        let (client, index, polling) = (Arc::clone(&self.client), Arc::clone(&self.index), self.settings.polling);
        let (name, content, sharing) = (target.name().clone(), content.clone(), self.sharing.clone());
        let begun = Arc::clone(&self.begun);
        let stored = unbroken(async move {
            let file = upload::store(&client, polling, &begun, &directory, &name, &content).await?;
            let now = SystemTime::now();
            let kept = match place {
                Slot::New => index.insert(parent.id, &name, &IndexedContent::File(file), now),
                Slot::Replace(id, expected) => index.replace(id, &expected, &file, now),
            }?;
            if let Some(sharing) = sharing {
                sharing.changed();
            }
            Ok(kept)
        })
        .await;
        Ok(self.entry(&self.noting(stored)?))
    }

    async fn remove_file(&self, entry: &Entry) -> Result<()> {
        let found = self.found(entry)?;
        if found.sealed {
            return Err(immutable());
        }
        if let (Some(delete), Some(file)) = (&self.settings.endpoints.delete, found.file())
            // Files with equal contents have one content at dStor.
            && self.index.uses(&file.address)? == 1
        {
            let path = self.index.path(found.id)?;
            self.client.delete(delete, &file.address, &path).await?;
        }
        self.index.remove(found.id)?;
        self.changed();
        Ok(())
    }

    async fn remove_directory(&self, entry: &Entry) -> Result<()> {
        let found = self.found(entry)?;
        if found.sealed {
            return Err(immutable());
        }
        self.index.remove(found.id)?;
        self.changed();
        Ok(())
    }

    async fn rename(&self, entry: &Entry, from: &Place, to: &Place, replaced: Option<&Entry>) -> Result<Entry> {
        self.freshen().await;
        let found = self.index.child(id(&from.parent)?, &from.name)?;
        if key(found.id) != entry.key {
            return Err(Error::not_found(format_args!("{:?}", entry.name.as_str())));
        }
        if found.sealed {
            return Err(immutable());
        }
        let target = self.open_directory(&to.parent)?;
        let over = match replaced {
            Some(replaced) => self
                .found(replaced)
                .ok()
                .filter(|now| now.is_directory() || self.entry(now).version == replaced.version),
            None => None,
        };
        let before = self.index.path(found.id)?;
        let moved = self.index.relocate(found.id, target.id, &to.name, over.as_ref())?;
        self.changed();
        self.tell_new_name(&moved, &before, from.parent == to.parent).await;
        Ok(self.entry(&moved))
    }

    async fn set_labels(&self, _: &Entry, _: &LabelChanges) -> Result<Entry> {
        Err(Error::unsupported("dStor keeps no labels with files"))
    }

    async fn set_attributes(&self, _: &Entry, _: &PosixAttributes) -> Result<Entry> {
        Err(Error::unsupported("dStor keeps no attributes of files"))
    }

    async fn usage(&self) -> Result<Usage> {
        Err(Error::unsupported("dStor doesn't tell how much is stored"))
    }
}

/// Which place in the tree an upload takes.
enum Slot {
    New,
    /// Of this entry, as long as it has this content.
    Replace(IndexId, ContentAddress),
}

fn capabilities(reads: Reads) -> Capabilities {
    Capabilities {
        reads,
        bytes: NamedBy::Content,
        labels: LabelSupport::None,
        attributes: AttributeSupport::None,
        // No limit is documented.
        max_file_size: None,
        max_name_chars: None,
        rename_directories: true,
        move_files: true,
        lists_ahead: 0,
    }
}

fn key(id: IndexId) -> ObjectKey {
    ObjectKey::new(id.0.to_string())
}

fn id(key: &ObjectKey) -> Result<IndexId> {
    let id = key.as_str().parse().map(IndexId);
    id.map_err(|_| Error::not_found(format_args!("object {key}")))
}

fn root_name() -> Name {
    match Name::new("dstor") {
        Ok(name) => name,
        Err(error) => unreachable!("{error}"),
    }
}

fn exists(name: &Name) -> Error {
    let message = format!("{:?} exists already", name.as_str());
    Error::new(ErrorKind::AlreadyExists, message)
}

fn changed(name: &Name) -> Error {
    let message = format!("{:?} was changed or removed by somebody else", name.as_str());
    Error::new(ErrorKind::Changed, message)
}

fn immutable() -> Error {
    let message = "what is in a hashed folder cannot be changed; copy the folder and change the copy";
    Error::new(ErrorKind::NotPermitted, message)
}
