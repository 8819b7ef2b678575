//! Storra Cloud: one account's files by path.
//!
//! Written from the provider's public documentation. What that leaves open is marked as assumed where it matters. In
//! short:
//!
//! * An `ObjectKey` is the path from the account's root, without slashes at its ends; the root is empty.
//! * A file's `Version` is the time of its last change, its size and its id. Folders have no version that says anything.
//! * Requests are few: a hundred listings an hour, fifty uploads. All questions about names and attributes share one
//!   listing of everything (`snapshot`), and every request is counted on this side (`rates`).
//! * A key is its account's owner: it may do everything. Uploads are always private; the only label is who may see an
//!   entry.

mod client;
mod extras;
mod keys;
mod names;
mod rates;
mod read;
mod snapshot;
mod store;
mod tree;
mod turns;
mod upload;
mod wire;

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use futures_util::StreamExt;
use parking_lot::Mutex;

use self::client::Client;
use self::names::{is_below, join, split};
use self::snapshot::Snapshot;
use self::store::Store;
use self::tree::Tree;
use self::wire::{Item, Visibility};
use super::keys::KeyInfo;
use super::unbroken::unbroken;
use super::{
    AttributeSupport, ByteStream, Capabilities, ChangeFeed, ChmodEffect, Content, Extras, LabelChanges, LabelSupport,
    NamedBy, Place, Provider, Reads, Target, VISIBILITY,
};
use crate::api::Api;
use crate::model::{Entry, Error, ErrorKind, Kind, Name, ObjectId, ObjectKey, PosixAttributes, Result, Rights, Usage};
use crate::net::Dialect;

pub use self::keys::{DashboardKeys, KeyItself};
pub use self::snapshot::Freshness;

/// In bytes. "1 GB" is documented; that it is decimal is assumed, for the smaller of both is safe.
const MAX_FILE_SIZE: u64 = 1_000_000_000;

/// Which part of the account is mounted, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder to mount; empty for the whole account.
    pub path: Vec<Name>,
    /// In place of all rights, which a key has.
    pub rights_override: Option<Rights>,
    pub chmod: ChmodEffect,
    pub freshness: Freshness,
}

/// An account at Storra Cloud.
pub struct Storra {
    client: Arc<Client>,
    snapshot: Arc<Snapshot>,
    store: Arc<Store>,
    root: String,
    root_name: Name,
    rights: Rights,
    capabilities: Capabilities,
    /// What the last probe found.
    account: Mutex<Option<Account>>,
}

/// Whose files these are.
#[derive(Clone, Debug)]
struct Account {
    id: String,
    modified: Option<SystemTime>,
}

impl Storra {
    /// The header that holds a key (Storra documentation, authentication).
    pub const KEY_HEADER: &str = "x-api-key";

    /// `api`'s base is the service's root, `https://cloud.storra.host/`, and its dialect the one of `dialect`.
    pub fn new(api: Arc<Api>, settings: Settings) -> Self {
        let root = settings
            .path
            .iter()
            .fold(String::new(), |path, name| join(&path, name.as_str()));
        let client = Arc::new(Client::new(api));
        let snapshot = Arc::new(Snapshot::new(Arc::clone(&client), &root, settings.freshness));
        Self {
            store: Arc::new(Store::new(Arc::clone(&client), Arc::clone(&snapshot))),
            client,
            snapshot,
            root_name: settings.path.last().cloned().unwrap_or_else(account_name),
            root,
            rights: settings.rights_override.unwrap_or(Rights::ALL),
            capabilities: Capabilities {
                bytes: NamedBy::Object,
                reads: Reads::WholeInOrder,
                labels: LabelSupport::Visibility(settings.chmod),
                attributes: AttributeSupport::None,
                max_file_size: Some(MAX_FILE_SIZE),
                max_name_chars: None,
                rename_directories: true,
                move_files: true,
                lists_ahead: 0,
            },
            account: Mutex::default(),
        }
    }

    /// How Storra words its refusals.
    pub fn dialect() -> Arc<dyn Dialect> {
        Arc::new(wire::StorraDialect)
    }

    fn root_entry(&self) -> Entry {
        let modified = self.account.lock().as_ref().and_then(|account| account.modified);
        Entry {
            modified: modified.unwrap_or(SystemTime::UNIX_EPOCH),
            ..Item::folder().entry(&self.root, &self.root_name, self.rights)
        }
    }

    fn entry(&self, path: &str, item: &Item) -> Result<Entry> {
        let name = Name::new(split(path).1)?;
        Ok(item.entry(path, &name, self.rights))
    }

    /// Makes sure that the mounted folder is one.
    async fn find_root(&self) -> Result<Option<SystemTime>> {
        let error = match self.client.folder(&self.root).await {
            Ok(item) if item.is_folder() => return Ok(item.modified()),
            Ok(_) => return Err(not_a_folder(&self.root)),
            Err(error) => error,
        };
        if error.kind() != ErrorKind::NotFound {
            return Err(error);
        }
        // What it answers for a file isn't documented.
        let above = self.client.list(split(&self.root).0, client::Depth::Children).await;
        match above {
            Ok(listing)
                if listing
                    .items
                    .iter()
                    .any(|(path, item)| *path == self.root && !item.is_folder()) =>
            {
                Err(not_a_folder(&self.root))
            }
            _ => Err(Error::not_found(format_args!("{:?}", self.root))),
        }
    }
}

#[async_trait]
impl Provider for Storra {
    fn kind(&self) -> &'static str {
        "storra"
    }

    /// With the account's id, which the probe finds out: the path of a file says nothing of whose it is.
    fn identity(&self) -> String {
        let base = self.client.api().base();
        match self.account.lock().as_ref() {
            Some(account) => format!("storra:{base}account/{}", account.id),
            None => format!("storra:{base}"),
        }
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// By its first characters, which is all that Storra tells keys apart by.
    fn current_key(&self) -> Option<KeyInfo> {
        self.client.api().credential_prefix().map(keys::in_use)
    }

    fn changes(&self) -> Option<Box<dyn ChangeFeed>> {
        None
    }

    fn extras(&self) -> Option<&dyn Extras> {
        Some(self)
    }

    fn check_name(&self, _: &ObjectKey, _: Kind, name: &Name) -> Result<()> {
        names::check(name)
    }

    /// Also has everything listed anew when it is asked for next.
    async fn probe(&self) -> Result<Entry> {
        let profile = self.client.profile().await?;
        let id = profile.account();
        let modified = if self.root.is_empty() {
            profile.modified()
        } else {
            self.find_root().await?
        };
        {
            let mut account = self.account.lock();
            if account.as_ref().is_some_and(|known| known.id != id) {
                let message = "the key is good, but for another Storra account than the one that is mounted; give the \
                               mount a key of its own account, or unmount and mount it again";
                return Err(Error::denied(message));
            }
            *account = Some(Account { id, modified });
        }
        self.snapshot.expire();
        Ok(self.root_entry())
    }

    async fn lookup(&self, parent: &ObjectKey, name: &Name) -> Result<Entry> {
        let path = join(parent.as_str(), name.as_str());
        let item = self.snapshot.look(|tree| tree.get(&path).cloned()).await?;
        match item {
            Some(item) => self.entry(&path, &item),
            None => Err(Error::not_found(format_args!("{:?}", name.as_str()))),
        }
    }

    async fn stat(&self, entry: &Entry) -> Result<Entry> {
        let path = entry.key.as_str();
        if path == self.root {
            return Ok(self.root_entry());
        }
        let item = self.snapshot.look(|tree| tree.get(path).cloned()).await?;
        match item.filter(|item| item.kind == entry.kind) {
            Some(item) => self.entry(path, &item),
            None => Err(Error::not_found(format_args!("{:?}", entry.name.as_str()))),
        }
    }

    async fn list(&self, directory: &ObjectKey) -> Result<Vec<Entry>> {
        let path = directory.as_str();
        let look = |tree: &Tree| match tree.children(path) {
            Some(children) => Ok(children.clone()),
            None if tree.get(path).is_some() => Err(not_a_folder(path)),
            None => Err(Error::not_found(format_args!("{path:?}"))),
        };
        let children = self.snapshot.look(look).await??;
        let entries = children.iter().filter_map(|(name, item)| {
            // What cannot be a name here cannot be shown.
            self.entry(&join(path, name), item).ok()
        });
        Ok(entries.collect())
    }

    async fn read(&self, object: &ObjectId, range: Range<u64>) -> Result<ByteStream> {
        if object.size == 0 && range.is_empty() {
            return Ok(futures_util::stream::empty().boxed());
        }
        read::read(&self.client, &self.snapshot, object, range).await
    }

    async fn create_directory(&self, parent: &ObjectKey, name: &Name) -> Result<Entry> {
        names::check(name)?;
        let path = join(parent.as_str(), name.as_str());
        let store = Arc::clone(&self.store);
        let made = {
            let path = path.clone();
            unbroken(async move { store.create_folder(&path).await }).await?
        };
        self.entry(&path, &made)
    }

    async fn upload(&self, target: &Target, content: &Content) -> Result<Entry> {
        if content.len() > MAX_FILE_SIZE {
            let message = format!(
                "{:?} has {} bytes; Storra takes at most {MAX_FILE_SIZE}",
                target.name().as_str(),
                content.len()
            );
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        let path = match target {
            Target::New { parent, name } => {
                names::check(name)?;
                join(parent.as_str(), name.as_str())
            }
            Target::Replace { entry, .. } => entry.key.as_str().to_owned(),
        };
        let (store, target, content) = (Arc::clone(&self.store), target.clone(), content.clone());
        let stored = {
            let path = path.clone();
            unbroken(async move {
                match &target {
                    Target::New { .. } => store.create(&path, &content).await,
                    Target::Replace { entry, .. } => store.replace(entry, &content).await,
                }
            })
            .await?
        };
        self.entry(&path, &stored)
    }

    async fn remove_file(&self, entry: &Entry) -> Result<()> {
        let (store, path) = (Arc::clone(&self.store), entry.key.as_str().to_owned());
        unbroken(async move { store.remove_file(&path).await }).await
    }

    async fn remove_directory(&self, entry: &Entry) -> Result<()> {
        let (store, path) = (Arc::clone(&self.store), entry.key.as_str().to_owned());
        unbroken(async move { store.remove_folder(&path).await }).await
    }

    async fn rename(&self, entry: &Entry, _: &Place, to: &Place, replaced: Option<&Entry>) -> Result<Entry> {
        names::check(&to.name)?;
        let path = join(to.parent.as_str(), to.name.as_str());
        if path == entry.key.as_str() {
            return self.stat(entry).await;
        }
        if is_below(&path, entry.key.as_str()) {
            let message = format!("{:?} cannot be moved into itself", entry.name.as_str());
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let (store, entry, replaced) = (Arc::clone(&self.store), entry.clone(), replaced.cloned());
        let moved = {
            let path = path.clone();
            unbroken(async move { store.rename(&entry, &path, replaced.as_ref()).await }).await?
        };
        self.entry(&path, &moved)
    }

    async fn set_labels(&self, entry: &Entry, changes: &LabelChanges) -> Result<Entry> {
        let invalid = |message: String| Err(Error::new(ErrorKind::InvalidInput, message));
        let mut wanted = None;
        for (label, value) in changes {
            if label != VISIBILITY {
                return Err(Error::unsupported(format!("Storra keeps no labels such as {label}")));
            }
            wanted = match value.as_deref().map(str::trim) {
                Some("private") => Some(Visibility::Private),
                Some("public") => Some(Visibility::Public),
                _ => {
                    return invalid("who may see it is private or public; grants are made in the dashboard".to_owned());
                }
            };
        }
        let path = entry.key.as_str().to_owned();
        let Some(visibility) = wanted else {
            return self.stat(entry).await;
        };
        if path == self.root {
            return invalid("the mounted folder itself can be published in the dashboard only".to_owned());
        }
        let store = Arc::clone(&self.store);
        let now = {
            let path = path.clone();
            unbroken(async move { store.set_visibility(&path, visibility).await }).await?
        };
        self.entry(&path, &now)
    }

    async fn set_attributes(&self, _: &Entry, _: &PosixAttributes) -> Result<Entry> {
        Err(Error::unsupported("Storra keeps no attributes of files"))
    }

    /// Rounded: Storra tells sizes for people.
    async fn usage(&self) -> Result<Usage> {
        let profile = self.client.profile().await?;
        profile
            .usage()
            .ok_or_else(|| Error::unsupported("Storra doesn't tell how much is stored"))
    }
}

fn not_a_folder(path: &str) -> Error {
    Error::new(ErrorKind::NotADirectory, format!("{path:?} is not a folder"))
}

fn account_name() -> Name {
    match Name::new("storra") {
        Ok(name) => name,
        Err(error) => unreachable!("{error}"),
    }
}
