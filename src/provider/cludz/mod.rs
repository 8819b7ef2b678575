//! Cludz Storage: files by path, one drive per remote.
//!
//! Written from the provider's public documentation and its SDK. What these leave open is marked as assumed where it
//! matters. In short:
//!
//! * An `ObjectKey` is the path inside the drive, without slashes at its ends; the drive's root is empty.
//! * A file's `Version` is its SHA-256, so it survives renames. Folders have no version that says anything.
//! * Times are those of the provider and cannot be set. `?detail=true` may lack them; then the folder's listing is
//!   asked, and what has no time there either is from 1970.
//! * Rights are assumed to be all (with a token) or to read (without), and corrected by probes and refusals.
//! * Nothing can be moved between folders; labels and usage don't exist.

mod client;
mod extras;
mod names;
mod passing;
mod read;
mod store;
mod wire;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use self::client::{Asking, Client, join};
use self::store::{Swap, Upload};
use super::keys::KeyInfo;
use super::unbroken::unbroken;
use super::{
    AttributeSupport, ByteStream, Capabilities, ChangeFeed, Content, Extras, LISTS_AHEAD, LabelChanges, LabelSupport,
    NamedBy, Place, Provider, Reads, Target,
};
use crate::api::Api;
use crate::auth::CredentialState;
use crate::model::{
    Action, Entry, Error, ErrorKind, Kind, Name, ObjectId, ObjectKey, PosixAttributes, Result, Rights, Usage,
};
use crate::net::Dialect;

/// In bytes. "100 MB" is documented; that it is decimal is assumed, for the smaller of both is safe.
const MAX_FILE_SIZE: u64 = 100_000_000;

/// Which part of which drive is mounted.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The drive's id, the `{uuid}` of its addresses.
    pub storage: Uuid,
    /// The folder to mount; empty for the whole drive.
    pub path: Vec<Name>,
    /// What holds instead of what probes would find. Refusals still lower it until the next probe.
    pub rights_override: Option<Rights>,
}

/// A drive at Cludz.
pub struct Cludz {
    client: Arc<Client>,
    root: String,
    root_name: Name,
    capabilities: Capabilities,
}

impl Cludz {
    /// The header that holds a storage token (Cludz documentation, authentication).
    pub const TOKEN_HEADER: &str = "token";
    /// The query parameter that holds one, for those who cannot send headers: it ends up in logs.
    pub const TOKEN_QUERY: &str = "token";

    /// `api`'s base is the service's root, `https://storage.cludz.net/`, and its dialect the one of `dialect`.
    pub fn new(api: Arc<Api>, settings: Settings) -> Self {
        let anonymous = api.credential_state() == CredentialState::Anonymous;
        let assumed = settings
            .rights_override
            .unwrap_or(if anonymous { Rights::READ } else { Rights::ALL });
        let asking = if anonymous || settings.rights_override.is_some() {
            Asking::Never
        } else {
            Asking::Probe
        };
        let root = settings
            .path
            .iter()
            .fold(String::new(), |path, name| join(&path, name.as_str()));
        Self {
            client: Arc::new(Client::new(api, settings.storage, assumed, asking)),
            root_name: settings.path.last().cloned().unwrap_or_else(drive_name),
            root,
            capabilities: Capabilities {
                bytes: NamedBy::ContentIf { prefix: wire::SHA256 },
                reads: Reads::Ranges,
                labels: LabelSupport::None,
                attributes: AttributeSupport::None,
                max_file_size: Some(MAX_FILE_SIZE),
                max_name_chars: Some(names::MAX_CHARS),
                rename_directories: true,
                move_files: false,
                lists_ahead: LISTS_AHEAD,
            },
        }
    }

    /// How Cludz words its refusals.
    pub fn dialect() -> Arc<dyn Dialect> {
        Arc::new(wire::CludzDialect)
    }
}

#[async_trait]
impl Provider for Cludz {
    fn kind(&self) -> &'static str {
        "cludz"
    }

    fn identity(&self) -> String {
        self.client.identity()
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
        Some(self)
    }

    fn check_name(&self, _: &ObjectKey, _: Kind, name: &Name) -> Result<()> {
        names::check(name)
    }

    async fn probe(&self) -> Result<Entry> {
        let client = &self.client;
        client.rights.forget_all();
        let listed = client.list(&self.root).await;
        let items = client
            .noting(&self.root, Action::Read, listed)
            .map_err(|error| match error.kind() {
                ErrorKind::Denied => {
                    error.context("the token may not read this folder; mount one that it may, as cludz://<uuid>/<path>")
                }
                _ => error,
            })?;
        // A file: a folder may have rights of its own.
        match items.iter().find(|item| !item.is_directory) {
            Some(file) => client.ask(&self.root, &file.name).await,
            None => client.ask(&self.root, &names::probe()).await,
        }
        match client.describe(&self.root).await {
            Ok(described) => Ok(client.entry(&self.root, &self.root_name, &described)),
            // That details exist for a drive's root isn't documented; that it is a folder was just seen.
            Err(_) if self.root.is_empty() => {
                let described = wire::Described::folder();
                Ok(client.entry(&self.root, &self.root_name, &described))
            }
            Err(error) => Err(error),
        }
    }

    async fn lookup(&self, parent: &ObjectKey, name: &Name) -> Result<Entry> {
        let path = join(parent.as_str(), name.as_str());
        self.client
            .entry_of(&path, name)
            .await
            .map_err(|error| match error.kind() {
                // A name that cannot be is one that isn't there.
                ErrorKind::InvalidInput | ErrorKind::InvalidName => {
                    Error::not_found(format_args!("{:?}", name.as_str()))
                }
                _ => error,
            })
    }

    async fn stat(&self, entry: &Entry) -> Result<Entry> {
        let path = entry.key.as_str();
        let now = match self.client.entry_of(path, &entry.name).await {
            Err(error) if path.is_empty() && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
                self.client.list(path).await?;
                self.client.entry(path, &entry.name, &wire::Described::folder())
            }
            other => other?,
        };
        if now.kind != entry.kind {
            return Err(Error::not_found(format_args!("{:?}", entry.name.as_str())));
        }
        Ok(now)
    }

    async fn list(&self, directory: &ObjectKey) -> Result<Vec<Entry>> {
        self.client.entries_of(directory.as_str()).await
    }

    async fn read(&self, object: &ObjectId, range: Range<u64>) -> Result<ByteStream> {
        read::read(Arc::clone(&self.client), object.clone(), range).await
    }

    async fn create_directory(&self, parent: &ObjectKey, name: &Name) -> Result<Entry> {
        names::check(name)?;
        let folder = parent.as_str();
        store::create_folder(&self.client, folder, name).await?;
        let path = join(folder, name.as_str());
        match self.client.entry_of(&path, name).await {
            Ok(entry) if entry.is_directory() => Ok(entry),
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Err(Error::bad_data(format!(
                "the provider said that it made the folder {:?}, but there is none",
                name.as_str()
            ))),
        }
    }

    async fn upload(&self, target: &Target, content: &Content) -> Result<Entry> {
        if content.len() > MAX_FILE_SIZE {
            let message = format!(
                "{:?} has {} bytes; Cludz takes at most {MAX_FILE_SIZE}",
                target.name().as_str(),
                content.len()
            );
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        if let Target::New { name, .. } = target {
            names::check(name)?;
        }
        let sha256 = content.sha256().await?;
        let (client, target, content) = (Arc::clone(&self.client), target.clone(), content.clone());
        unbroken(async move {
            let upload = Upload {
                content: &content,
                sha256: &sha256,
            };
            let folder = target.parent().as_str();
            let described = match &target {
                Target::New { name, .. } => store::create(&client, folder, name, upload).await?,
                Target::Replace { entry, .. } => store::replace(&client, folder, entry, upload).await?,
            };
            let path = join(folder, target.name().as_str());
            Ok(client.entry(&path, target.name(), &described))
        })
        .await
    }

    /// Looks first: a deletion takes whatever has the path, a folder with all that is in it.
    async fn remove_file(&self, entry: &Entry) -> Result<()> {
        let path = entry.key.as_str();
        let described = self.client.detail(path).await?;
        if described.is_directory() {
            let message = format!("{:?} is a folder", entry.name.as_str());
            return Err(Error::new(ErrorKind::IsADirectory, message));
        }
        self.client.delete(path, &described).await
    }

    /// Looks first, for a deletion takes all that is in a folder. What somebody else puts there between the two
    /// requests is lost: Cludz has no deletion of empty folders only.
    async fn remove_directory(&self, entry: &Entry) -> Result<()> {
        let path = entry.key.as_str();
        if !self.client.list(path).await?.is_empty() {
            return Err(store::not_empty(&entry.name));
        }
        self.client.delete(path, &wire::Described::folder()).await?;
        self.client.rights.forget(path);
        Ok(())
    }

    async fn rename(&self, entry: &Entry, from: &Place, to: &Place, replaced: Option<&Entry>) -> Result<Entry> {
        if from.parent != to.parent {
            let message = "Cludz moves nothing to another folder";
            return Err(Error::new(ErrorKind::CrossDevice, message));
        }
        if from.name == to.name {
            return self.stat(entry).await;
        }
        let client = Arc::clone(&self.client);
        let (entry, to, replaced) = (entry.clone(), to.clone(), replaced.cloned());
        unbroken(async move {
            let folder = to.parent.as_str();
            let _folders = match entry.kind {
                Kind::Directory => (Some(client.folders.write().await), None),
                Kind::File => (None, Some(client.folders.read().await)),
            };
            let described = store::rename(&client, folder, &entry, &to.name, replaced.as_ref())
                .await
                .map_err(|(Swap::Restored(error) | Swap::InBetween(error))| error)?;
            let path = join(folder, to.name.as_str());
            client.rights.forget(entry.key.as_str());
            client.rights.forget(&path);
            client.passing.follow(entry.key.as_str(), &path);
            Ok(client.entry(&path, &to.name, &described))
        })
        .await
    }

    async fn set_labels(&self, _: &Entry, _: &LabelChanges) -> Result<Entry> {
        Err(Error::unsupported("Cludz keeps no labels with files"))
    }

    async fn set_attributes(&self, _: &Entry, _: &PosixAttributes) -> Result<Entry> {
        Err(Error::unsupported("Cludz keeps no attributes of files"))
    }

    async fn usage(&self) -> Result<Usage> {
        Err(Error::unsupported("Cludz doesn't tell how much is stored"))
    }
}

fn drive_name() -> Name {
    match Name::new("cludz") {
        Ok(name) => name,
        Err(error) => unreachable!("{error}"),
    }
}
