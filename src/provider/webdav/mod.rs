//! WebDAV servers (RFC 4918): files by path, below one folder of one server.
//!
//! * An `ObjectKey` is the path below the endpoint, without slashes at its ends.
//! * A file's `Version` is its strong entity tag. Where a server has only weak ones or none, the size and the time of the
//!   last change stand in, which don't tell two changes in one second apart.
//! * A file is changed under a lock where the server has locks (class 2), and under a condition (`If-Match`,
//!   `If-None-Match`, `Overwrite`) everywhere. Its name and version are looked at before. A server that mixes up its locks
//!   (Apache) is asked to change one at a time.
//! * Rights aren't told: all are assumed, and refusals correct that until the next probe.
//! * Labels don't exist. What POSIX has of a file is a property of it, where the server keeps properties of others.
//!
//! It speaks for itself and not through `opendal`, whose WebDAV has no conditional changes, holds a whole upload in
//! memory, always overwrites when it moves, and doesn't move directories.

mod beside;
mod change;
mod client;
mod lock;
mod read;
mod register;
mod settle;
mod wire;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;

use self::client::{Client, Properties, join};
use self::register::WebdavRegister;
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

/// Which part of which server is mounted, and as whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whose files they are, where servers show each user others under one address.
    pub user: Option<String>,
    /// The folder to mount, below the endpoint; empty for the endpoint itself.
    pub path: Vec<Name>,
    /// What is assumed instead of all rights. Refusals still lower it until the next probe.
    pub rights_override: Option<Rights>,
}

/// A folder of a WebDAV server.
pub struct Webdav {
    client: Arc<Client>,
    identity: String,
    root: String,
    root_name: Name,
    capabilities: Capabilities,
}

impl Webdav {
    /// `api`'s base is the endpoint, and its dialect the one of `dialect`.
    ///
    /// # Errors
    /// `InvalidName` never in practice: the root needs a name of its own.
    pub fn new(api: Arc<Api>, settings: Settings) -> Result<Self> {
        let client = Client::new(api, settings.rights_override.unwrap_or(Rights::ALL));
        let user = settings.user.map(|user| format!("{user}@")).unwrap_or_default();
        Ok(Self {
            identity: format!("webdav {user}{}", client.identity()),
            client: Arc::new(client),
            root_name: match settings.path.last() {
                Some(name) => name.clone(),
                None => Name::new("webdav")?,
            },
            root: settings
                .path
                .iter()
                .fold(String::new(), |path, name| join(&path, name.as_str())),
            capabilities: Capabilities {
                bytes: NamedBy::Object,
                reads: Reads::Ranges,
                labels: LabelSupport::None,
                attributes: AttributeSupport::Stored,
                max_file_size: None,
                max_name_chars: None,
                rename_directories: true,
                move_files: true,
                lists_ahead: LISTS_AHEAD,
            },
        })
    }

    /// The file of this path below what is mounted, as one that machines write in turn.
    pub fn register(&self, path: &[Name]) -> Arc<dyn Register> {
        let path = path
            .iter()
            .fold(self.root.clone(), |above, name| join(&above, name.as_str()));
        Arc::new(WebdavRegister::new(Arc::clone(&self.client), path))
    }

    /// How WebDAV servers word their refusals.
    pub fn dialect() -> Arc<dyn Dialect> {
        Arc::new(wire::WebdavDialect)
    }
}

#[async_trait]
impl Provider for Webdav {
    fn kind(&self) -> &'static str {
        "webdav"
    }

    fn identity(&self) -> String {
        self.identity.clone()
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

    /// Servers have rules of their own, which they don't tell.
    fn check_name(&self, _: &ObjectKey, _: Kind, _: &Name) -> Result<()> {
        Ok(())
    }

    async fn probe(&self) -> Result<Entry> {
        self.client.rights.forget_all();
        *self.client.properties.lock() = Properties::Untried;
        let described = self
            .client
            .describe(&self.root)
            .await
            .map_err(|error| match error.kind() {
                ErrorKind::InvalidInput | ErrorKind::Unsupported => error.context(format_args!(
                    "{} is not the address of a WebDAV folder",
                    self.client.address()
                )),
                _ => error,
            })?;
        if !described.is_directory() {
            let message = format!("{:?} is a file", self.root_name.as_str());
            return Err(Error::new(ErrorKind::NotADirectory, message));
        }
        Ok(self.client.entry(&self.root, &self.root_name, &described))
    }

    async fn lookup(&self, parent: &ObjectKey, name: &Name) -> Result<Entry> {
        let path = join(parent.as_str(), name.as_str());
        let described = self.client.describe(&path).await?;
        Ok(self.client.entry(&path, name, &described))
    }

    async fn stat(&self, entry: &Entry) -> Result<Entry> {
        let path = entry.key.as_str();
        let now = self.client.describe(path).await?;
        if now.kind != entry.kind {
            return Err(Error::not_found(format_args!("{:?}", entry.name.as_str())));
        }
        Ok(self.client.entry(path, &entry.name, &now))
    }

    async fn list(&self, directory: &ObjectKey) -> Result<Vec<Entry>> {
        let folder = directory.as_str();
        let children = self.client.children(folder).await?;
        let entry = |(name, described): &(Name, _)| self.client.entry(&join(folder, name.as_str()), name, described);
        Ok(children.iter().map(entry).collect())
    }

    async fn read(&self, object: &ObjectId, range: Range<u64>) -> Result<ByteStream> {
        read::read(Arc::clone(&self.client), object.clone(), range).await
    }

    async fn create_directory(&self, parent: &ObjectKey, name: &Name) -> Result<Entry> {
        change::make_directory(&self.client, parent.as_str(), name).await
    }

    async fn upload(&self, target: &Target, content: &Content) -> Result<Entry> {
        let (client, target, content) = (Arc::clone(&self.client), target.clone(), content.clone());
        unbroken(async move { change::upload(&client, &target, &content).await }).await
    }

    async fn remove_file(&self, entry: &Entry) -> Result<()> {
        let (client, entry) = (Arc::clone(&self.client), entry.clone());
        unbroken(async move { change::remove_file(&client, &entry).await }).await
    }

    async fn remove_directory(&self, entry: &Entry) -> Result<()> {
        change::remove_directory(&self.client, entry).await
    }

    async fn rename(&self, entry: &Entry, from: &Place, to: &Place, replaced: Option<&Entry>) -> Result<Entry> {
        if from.parent == to.parent && from.name == to.name {
            return self.stat(entry).await;
        }
        let client = Arc::clone(&self.client);
        let (entry, to, replaced) = (entry.clone(), to.clone(), replaced.cloned());
        unbroken(async move { change::rename(&client, &entry, to.parent.as_str(), &to.name, replaced.as_ref()).await })
            .await
    }

    async fn set_labels(&self, _: &Entry, _: &LabelChanges) -> Result<Entry> {
        Err(Error::unsupported("keymount keeps no labels at WebDAV servers"))
    }

    async fn set_attributes(&self, entry: &Entry, attributes: &PosixAttributes) -> Result<Entry> {
        beside::change(&self.client, entry, attributes).await
    }

    async fn usage(&self) -> Result<Usage> {
        match self.client.quota(&self.root).await? {
            (Some(used), available) => Ok(Usage {
                used,
                total: available.map(|available| used.saturating_add(available)),
            }),
            (None, _) => Err(Error::unsupported("the server doesn't tell how much is stored")),
        }
    }
}
