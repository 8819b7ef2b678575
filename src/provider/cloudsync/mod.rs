//! CloudSync: an account's workspaces as directories, files by id.
//!
//! Written from the provider's documentation; no service is known to run, so what that leaves open is marked as assumed
//! where it matters, and `docs/providers/cloudsync.md` lists it. In short:
//!
//! * An `ObjectKey` is a workspace and an id, so it holds when a file is renamed or moved.
//! * A file's `Version` is its SHA-256. Folders have no version that says anything, and no time but that of their making.
//! * Rights are what the credential's scopes or permissions and the account's role in the workspace both grant; what
//!   isn't told is tried, and corrected by refusals.
//! * A workspace's directory has its short name. Making a directory beside them makes a workspace; none is ever removed.
//! * A file's former versions are asked for by the name of an attribute only: that is a request per file. Labels and
//!   links to share are left alone.

mod api_keys;
mod client;
mod extras;
mod key;
mod names;
mod places;
mod read;
mod rights;
mod store;
mod wire;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use parking_lot::Mutex;
use tracing::debug;

pub use self::api_keys::ApiKeys;
use self::api_keys::only_with_prefix;
use self::client::Client;
use self::key::Key;
use self::rights::{Access, Grants};
use self::store::{Move, Upload};
use self::wire::Workspace;
use super::keys::KeyInfo;
use super::unbroken::unbroken;
use super::{
    AttributeSupport, ByteStream, Capabilities, ChangeFeed, Content, Extras, LabelChanges, LabelSupport, NamedBy,
    Place, Provider, Reads, Target,
};
use crate::api::Api;
use crate::auth::Generation;
use crate::model::{
    Entry, Error, ErrorKind, Kind, Name, ObjectId, ObjectKey, PosixAttributes, Result, Rights, Usage, Version,
};
use crate::net::Dialect;

/// The free plan has 100 requests a minute: a walk that goes on fast would use them up before anybody needs the answers.
const FEW_AHEAD: usize = 2;

/// The version of the directories above all folders.
const DIRECTORY_VERSION: &str = "folder";

/// Which part of an account is mounted.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The id or the short name of the workspace that is the root; without one all workspaces are below the root.
    pub workspace: Option<String>,
    /// The folder in the workspace that is mounted; without a workspace its first name is that of one.
    pub path: Vec<Name>,
    /// What holds instead of what the service tells. Refusals still lower it until the next probe.
    pub rights_override: Option<Rights>,
}

/// An account at CloudSync.
pub struct CloudSync {
    client: Arc<Client>,
    settings: Settings,
    capabilities: Capabilities,
    identity: String,
    /// The key of the last `probe`, and which of the remote's credentials it was.
    key: Mutex<Option<(Generation, KeyInfo)>>,
}

impl CloudSync {
    /// `api`'s base is the API's root, `https://api.cloudsync.io/v1`, and its dialect the one of `dialect`.
    pub fn new(api: Arc<Api>, settings: Settings) -> Self {
        // A sandbox may have other files under the same ids.
        let environment = api.credential_environment().unwrap_or("production");
        let identity = format!("cloudsync {} {environment}", api.base());
        Self {
            client: Arc::new(Client::new(api, Access::new(settings.rights_override))),
            settings,
            capabilities: Capabilities {
                bytes: NamedBy::Object,
                reads: Reads::WholeOnly,
                labels: LabelSupport::None,
                attributes: AttributeSupport::None,
                max_file_size: None,
                max_name_chars: None,
                rename_directories: true,
                move_files: true,
                lists_ahead: FEW_AHEAD,
            },
            identity,
            key: Mutex::new(None),
        }
    }

    /// How to read the service's refusals.
    pub fn dialect() -> Arc<dyn Dialect> {
        Arc::new(wire::CloudSyncDialect)
    }

    /// Finds out what the credential itself is for.
    async fn ask_grants(&self) -> Result<()> {
        let api = self.client.api();
        *self.key.lock() = None;
        if let Some(scopes) = api.credential_scopes() {
            let words = scopes.iter().map(str::to_owned).collect();
            self.client.access.learn(Grants::Told(words));
            return Ok(());
        }
        self.client.access.learn(Grants::Untold);
        if api.credential_prefix().is_none() {
            return Ok(());
        }
        let keys = match self.client.api_keys().await {
            Ok(keys) => keys,
            // A key that may not look at keys, or a service without them.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Denied | ErrorKind::NotFound | ErrorKind::InvalidInput | ErrorKind::BadData
                ) =>
            {
                debug!(%error, "the provider doesn't tell the key's permissions");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        // Asked again: a refusal may have brought another key meanwhile.
        let own = api
            .credential_prefix()
            .and_then(|prefix| only_with_prefix(keys, &prefix));
        match own {
            Some(own) => {
                self.client.access.learn(Grants::Told(own.permissions.clone()));
                *self.key.lock() = api.accepted_generation().zip(Some(own.into()));
            }
            None => {
                debug!("the key in use is not among those that the provider lists, or not the only one that begins so")
            }
        }
        Ok(())
    }

    /// The workspaces, unless the credential may not list them.
    async fn ask_workspaces(&self) -> Result<Option<Vec<Workspace>>> {
        if self.client.access.lists_no_workspaces() {
            return Ok(None);
        }
        match self.client.workspaces().await {
            Ok(workspaces) => Ok(Some(workspaces)),
            Err(error) if error.kind() == ErrorKind::Denied => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The workspace that is configured or begins the path, with the rest of the path; `None` for all of them.
    async fn root_workspace(&self, listed: Option<&[Workspace]>) -> Result<Option<(Entry, &[Name])>> {
        let (wanted, path) = match (&self.settings.workspace, self.settings.path.split_first()) {
            (Some(workspace), _) => (workspace.as_str(), self.settings.path.as_slice()),
            (None, Some((first, rest))) => (first.as_str(), rest),
            (None, None) => return Ok(None),
        };
        let Some(listed) = listed else {
            self.client.try_listing(wanted).await.or_else(|error| {
                // A key that only writes lists nothing; whether the workspace is there shows then.
                let writes = self.client.access.on_workspace(wanted).write;
                if error.kind() == ErrorKind::Denied && writes {
                    Ok(())
                } else {
                    Err(error)
                }
            })?;
            return Ok(Some((self.unlisted_workspace(wanted), path)));
        };
        let found = listed
            .iter()
            .find(|workspace| workspace.id == wanted || workspace.slug.as_deref() == Some(wanted));
        match found {
            Some(workspace) => Ok(Some((self.workspace_entry(workspace)?, path))),
            None => Err(Error::new(
                ErrorKind::NotFound,
                format!("there is no workspace {wanted:?}, or this account has no part in it"),
            )),
        }
    }

    fn directory(&self, key: &Key, name: Name, modified: SystemTime, rights: Rights) -> Entry {
        Entry {
            key: key.to_object_key(),
            name,
            kind: Kind::Directory,
            size: 0,
            modified,
            version: Version::new(DIRECTORY_VERSION),
            rights,
            labels: BTreeMap::new(),
            posix: Default::default(),
        }
    }

    fn workspace_entry(&self, workspace: &Workspace) -> Result<Entry> {
        let name = Name::new(workspace.directory_name())?;
        let rights = self.client.access.on_workspace(&workspace.id);
        let key = Key::Workspace(workspace.id.clone());
        Ok(self.directory(&key, name, workspace.created(), rights))
    }

    /// A workspace of which nothing but its configured name is known.
    fn unlisted_workspace(&self, workspace: &str) -> Entry {
        let rights = self.client.access.on_workspace(workspace);
        let name = Name::new(workspace).unwrap_or_else(|_| account_name());
        let key = Key::Workspace(workspace.to_owned());
        self.directory(&key, name, SystemTime::UNIX_EPOCH, rights)
    }

    fn account(&self) -> Entry {
        let rights = self.client.access.on_account();
        self.directory(&Key::Account, account_name(), SystemTime::UNIX_EPOCH, rights)
    }

    async fn workspace_now(&self, workspace: &str, known: &Entry) -> Result<Entry> {
        if !self.client.access.lists_no_workspaces() {
            match self.client.workspace(workspace).await {
                Ok(workspace) => return self.workspace_entry(&workspace),
                Err(error) if error.kind() == ErrorKind::Denied => {}
                Err(error) => return Err(error),
            }
        }
        if self.client.access.on_workspace(workspace).read {
            self.client.try_listing(workspace).await?;
        }
        Ok(Entry {
            rights: self.client.access.on_workspace(workspace),
            ..known.clone()
        })
    }

    async fn find_workspace(&self, name: &Name) -> Result<Entry> {
        let workspaces = self.client.workspaces().await?;
        let found = workspaces
            .iter()
            .find(|workspace| workspace.directory_name() == name.as_str());
        match found {
            Some(workspace) => self.workspace_entry(workspace),
            None => Err(Error::not_found(format_args!("the workspace {:?}", name.as_str()))),
        }
    }

    async fn make_workspace(&self, name: &Name) -> Result<Entry> {
        names::check_slug(name)?;
        let made = self.client.create_workspace(name.as_str()).await?;
        if made.directory_name() == name.as_str() {
            return self.workspace_entry(&made);
        }
        Err(Error::bad_data(format!(
            "make the workspace: asked for {:?}, the provider made it {:?}",
            name.as_str(),
            made.directory_name()
        )))
    }
}

#[async_trait]
impl Provider for CloudSync {
    fn kind(&self) -> &'static str {
        "cloudsync"
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn current_key(&self) -> Option<KeyInfo> {
        let in_use = self.client.api().accepted_generation()?;
        let key = self.key.lock();
        key.as_ref()
            .filter(|(generation, _)| *generation == in_use)
            .map(|(_, key)| key.clone())
    }

    fn changes(&self) -> Option<Box<dyn ChangeFeed>> {
        None
    }

    fn extras(&self) -> Option<&dyn Extras> {
        Some(self)
    }

    fn check_name(&self, parent: &ObjectKey, kind: Kind, name: &Name) -> Result<()> {
        match (Key::parse(parent)?, kind) {
            (Key::Account, Kind::File) => Err(no_files_here()),
            (Key::Account, Kind::Directory) => names::check_slug(name),
            (Key::Workspace(_) | Key::Item { .. }, _) => names::check(name),
        }
    }

    async fn probe(&self) -> Result<Entry> {
        self.ask_grants().await?;
        let listed = self.ask_workspaces().await?;
        let Some((mut root, path)) = self.root_workspace(listed.as_deref()).await? else {
            if listed.is_none() {
                return Err(Error::denied(
                    "the credential may not list workspaces; mount one that it may use, as cloudsync://WORKSPACE",
                ));
            }
            return Ok(self.account());
        };
        for name in path {
            root = self.lookup(&root.key, name).await?;
            if !root.is_directory() {
                let message = format!("{:?} is a file", name.as_str());
                return Err(Error::new(ErrorKind::NotADirectory, message));
            }
        }
        Ok(root)
    }

    async fn lookup(&self, parent: &ObjectKey, name: &Name) -> Result<Entry> {
        let key = Key::parse(parent)?;
        let Some(workspace) = key.workspace() else {
            return self.find_workspace(name).await;
        };
        let rights = self.client.access.on_workspace(workspace);
        if rights.write && !rights.read {
            // So that files can be made where nobody may look.
            return Err(Error::not_found(format_args!("{:?}", name.as_str())));
        }
        let item = self.client.child(&key, name.as_str()).await?;
        self.client.entry(workspace, &item)
    }

    async fn stat(&self, entry: &Entry) -> Result<Entry> {
        let now = match Key::parse(&entry.key)? {
            Key::Account => {
                self.client.workspaces().await?;
                self.account()
            }
            Key::Workspace(workspace) => self.workspace_now(&workspace, entry).await?,
            Key::Item { workspace, id } => {
                let item = self.client.item(&workspace, &id).await?;
                self.client.entry(&workspace, &item)?
            }
        };
        if now.kind != entry.kind {
            return Err(Error::not_found(format_args!("{:?}", entry.name.as_str())));
        }
        Ok(now)
    }

    async fn list(&self, directory: &ObjectKey) -> Result<Vec<Entry>> {
        let key = Key::parse(directory)?;
        let Some(workspace) = key.workspace() else {
            let workspaces = self.client.workspaces().await?;
            let entries = workspaces
                .iter()
                .filter_map(|workspace| self.workspace_entry(workspace).ok());
            let by_name: BTreeMap<Name, Entry> = entries.map(|entry| (entry.name.clone(), entry)).collect();
            return Ok(by_name.into_values().collect());
        };
        let items = self.client.children(&key).await?;
        Ok(self.client.entries(workspace, &items))
    }

    async fn read(&self, object: &ObjectId, _range: Range<u64>) -> Result<ByteStream> {
        read::read(Arc::clone(&self.client), object.clone()).await
    }

    async fn create_directory(&self, parent: &ObjectKey, name: &Name) -> Result<Entry> {
        self.check_name(parent, Kind::Directory, name)?;
        let key = Key::parse(parent)?;
        if key == Key::Account {
            return self.make_workspace(name).await;
        }
        let (client, name) = (Arc::clone(&self.client), name.clone());
        unbroken(async move {
            let folder = client.folder(&key).await?;
            let made = store::create_folder(&client, &folder, &name).await?;
            client.entry(&folder.workspace, &made)
        })
        .await
    }

    async fn upload(&self, target: &Target, content: &Content) -> Result<Entry> {
        self.check_name(target.parent(), Kind::File, target.name())
            .or_else(|error| match target {
                Target::New { .. } => Err(error),
                // A name that is there already is one that can be.
                Target::Replace { .. } => Ok(()),
            })?;
        let sha256 = content.sha256().await?;
        let (client, target, content) = (Arc::clone(&self.client), target.clone(), content.clone());
        unbroken(async move {
            let upload = Upload {
                content: &content,
                sha256: &sha256,
            };
            match &target {
                Target::New { parent, name } => {
                    let folder = client.folder(&Key::parse(parent)?).await?;
                    let stored = store::create(&client, &folder, name, upload).await?;
                    client.entry(&folder.workspace, &stored)
                }
                Target::Replace { parent, entry } => {
                    let (workspace, id) = item_of(entry)?;
                    let stored =
                        store::replace(&client, &Key::parse(parent)?, entry, (&workspace, &id), upload).await?;
                    client.entry(&workspace, &stored)
                }
            }
        })
        .await
    }

    async fn remove_file(&self, entry: &Entry) -> Result<()> {
        let (workspace, id) = item_of(entry)?;
        self.client.delete(&workspace, &id, Kind::File).await
    }

    async fn remove_directory(&self, entry: &Entry) -> Result<()> {
        let (workspace, id) = item_of(entry)?;
        let key = Key::parse(&entry.key)?;
        store::remove_folder(&self.client, &key, &workspace, &id, &entry.name).await
    }

    async fn rename(&self, entry: &Entry, _: &Place, to: &Place, replaced: Option<&Entry>) -> Result<Entry> {
        let target = Key::parse(&to.parent)?;
        let (workspace, id) = item_of(entry)?;
        if target.workspace() != Some(workspace.as_str()) {
            let message = "CloudSync moves nothing to another workspace";
            return Err(Error::new(ErrorKind::CrossDevice, message));
        }
        self.check_name(&to.parent, entry.kind, &to.name)?;
        let client = Arc::clone(&self.client);
        let (entry, name, replaced) = (entry.clone(), to.name.clone(), replaced.cloned());
        unbroken(async move {
            let folder = client.folder(&target).await?;
            let what = Move {
                id: &id,
                entry: &entry,
                folder: &folder,
                name: &name,
            };
            let moved = store::rename(&client, what, replaced.as_ref()).await?;
            client.entry(&workspace, &moved)
        })
        .await
    }

    async fn set_labels(&self, _: &Entry, _: &LabelChanges) -> Result<Entry> {
        Err(Error::unsupported("CloudSync keeps no labels with files"))
    }

    async fn set_attributes(&self, _: &Entry, _: &PosixAttributes) -> Result<Entry> {
        Err(Error::unsupported("CloudSync keeps no attributes of files"))
    }

    async fn usage(&self) -> Result<Usage> {
        let untold = || Error::unsupported("CloudSync doesn't tell how much is stored");
        let me = self.client.me().await.map_err(|error| match error.kind() {
            ErrorKind::Denied => untold(),
            _ => error,
        })?;
        let usage = me.usage.ok_or_else(untold)?;
        Ok(Usage {
            used: usage.storage,
            // -1 is "unlimited".
            total: usage.storage_limit.and_then(|limit| u64::try_from(limit).ok()),
        })
    }
}

/// Workspace and id of a file or folder that is to be changed.
///
/// # Errors
/// `NotPermitted` for a workspace: all that is in it would be gone or elsewhere.
fn item_of(entry: &Entry) -> Result<(String, String)> {
    match Key::parse(&entry.key)? {
        Key::Item { workspace, id } => Ok((workspace, id)),
        Key::Workspace(_) | Key::Account => Err(Error::new(
            ErrorKind::NotPermitted,
            format!(
                "{:?} is a workspace, which keymount neither removes nor renames; do that in CloudSync",
                entry.name.as_str()
            ),
        )),
    }
}

fn no_files_here() -> Error {
    Error::unsupported("beside workspaces there can be no files")
}

fn account_name() -> Name {
    match Name::new("cloudsync") {
        Ok(name) => name,
        Err(error) => unreachable!("{error}"),
    }
}
