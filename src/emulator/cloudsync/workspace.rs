//! A workspace as tests and the demo see it: past the HTTP surface.
//!
//! Responsible for looking inside and for changes "by another client". Not responsible for rights.

use bytes::Bytes;
use jiff::Timestamp;

use super::CloudSyncStore;
use super::access::Role;
use super::assumptions::Parents;
use super::state::{Member, State, StoredWorkspace};
use super::tree::{Hindrance, Kind, NewContent, parse_path};

/// A handle on a workspace; every method acts at once, as the owner and past the HTTP surface.
///
/// Paths are absolute within the workspace (`/documents/report.pdf`). A workspace that is gone has nothing in it.
#[derive(Debug, Clone)]
pub struct Workspace {
    pub(super) store: CloudSyncStore,
    pub(super) id: String,
}

/// Why something couldn't be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no such workspace, user, file or folder.
    #[error("there is no such thing")]
    Missing,
    /// Something else has this place.
    #[error("something else is there")]
    Taken,
    /// The service knows no such path, or a folder would go into itself.
    #[error("the path is not possible")]
    Impossible,
}

/// What the service knows of a file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// `file_…` or `folder_…`.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
    /// What files have besides.
    pub file: Option<FileInfo>,
}

/// What the service knows of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// Bytes.
    pub size: u64,
    /// `sha256:…`
    pub hash: String,
    /// The current version's number, from 1.
    pub version: u64,
    /// When that version was made.
    pub modified: Timestamp,
    /// Who made it, by e-mail address.
    pub modified_by: String,
    /// Its MIME type.
    pub mime: String,
}

impl Workspace {
    /// Its id, `ws_…`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its slug; empty once the workspace is gone.
    pub fn slug(&self) -> String {
        self.look(|workspace| workspace.slug.clone()).unwrap_or_default()
    }

    /// Whether it still exists.
    pub fn is_there(&self) -> bool {
        self.look(|_| ()).is_some()
    }

    /// Makes somebody a member, or gives a member another role.
    ///
    /// # Errors
    /// If there is no such user.
    pub fn set_role(&self, email: &str, role: Role) -> Result<(), StoreError> {
        let now = self.store.clock().now();
        let mut state = self.store.lock();
        let user = state.user_by_email(email).ok_or(StoreError::Missing)?.id.clone();
        let workspace = state.workspace_mut(&self.id).ok_or(StoreError::Missing)?;
        let member = workspace.members.entry(user).or_insert(Member { role, joined: now });
        member.role = role;
        Ok(())
    }

    /// Takes somebody's part away; whether there was one.
    pub fn remove_member(&self, email: &str) -> bool {
        let mut state = self.store.lock();
        let Some(user) = state.user_by_email(email).map(|user| user.id.clone()) else {
            return false;
        };
        state
            .workspace_mut(&self.id)
            .is_some_and(|workspace| workspace.members.remove(&user).is_some())
    }

    /// Writes a file, or a new version of the one that is there; missing folders on the way are made. Tells its id.
    ///
    /// # Errors
    /// If a file is in the way of a folder, or a folder in the way of the file.
    pub fn put(&self, path: &str, content: impl Into<Bytes>) -> Result<String, StoreError> {
        let path = parsed(path)?;
        let at = self.store.clock().now();
        let mut state = self.store.lock();
        let by = owner_email(&state, &self.id);
        let workspace = state.workspace_mut(&self.id).ok_or(StoreError::Missing)?;
        let new = NewContent {
            content: content.into(),
            mime: None,
            by,
            at,
            keep: workspace.settings.kept_versions(),
        };
        Ok(workspace.tree.write(&path, new, Parents::Made)?)
    }

    /// Makes a folder and those on the way to it; tells its id.
    ///
    /// # Errors
    /// If something is there already.
    pub fn mkdir(&self, path: &str) -> Result<String, StoreError> {
        let path = parsed(path)?;
        let now = self.store.clock().now();
        let mut state = self.store.lock();
        let workspace = state.workspace_mut(&self.id).ok_or(StoreError::Missing)?;
        Ok(workspace.tree.make_folder(&path, Parents::Made, now)?)
    }

    /// A file's content.
    pub fn read(&self, path: &str) -> Option<Bytes> {
        let path = parse_path(path)?;
        self.look(|workspace| {
            let node = workspace.tree.node(workspace.tree.find(&path)?)?;
            match &node.kind {
                Kind::File(file) => Some(file.current.content.clone()),
                Kind::Folder(_) => None,
            }
        })?
    }

    /// Whether a file or folder has this path.
    pub fn exists(&self, path: &str) -> bool {
        self.info(path).is_some()
    }

    /// What the service knows of a file or folder besides its content.
    pub fn info(&self, path: &str) -> Option<Info> {
        let path = parse_path(path)?;
        self.look(|workspace| {
            let id = workspace.tree.find(&path)?;
            let node = workspace.tree.node(id)?;
            let file = match &node.kind {
                Kind::Folder(_) => None,
                Kind::File(file) => Some(FileInfo {
                    size: file.current.content.len() as u64,
                    hash: file.current.hash.clone(),
                    version: file.current.number,
                    modified: file.current.modified,
                    modified_by: file.current.modified_by.clone(),
                    mime: file.mime.clone(),
                }),
            };
            Some(Info {
                id: id.to_owned(),
                created: node.created,
                file,
            })
        })?
    }

    /// The names in a folder, sorted.
    pub fn list(&self, folder: &str) -> Option<Vec<String>> {
        let path = parse_path(folder)?;
        self.look(|workspace| {
            let tree = &workspace.tree;
            let children = tree.children(tree.find(&path)?, None)?;
            Some(
                children
                    .filter_map(|id| tree.node(id))
                    .map(|node| node.name.clone())
                    .collect(),
            )
        })?
    }

    /// Removes a file, or a folder with all that is in it; whether there was one.
    pub fn remove(&self, path: &str) -> bool {
        let Some(path) = parse_path(path) else {
            return false;
        };
        let mut state = self.store.lock();
        let Some(workspace) = state.workspace_mut(&self.id) else {
            return false;
        };
        let id = workspace.tree.find(&path).map(str::to_owned);
        id.is_some_and(|id| workspace.tree.remove(&id))
    }

    /// Moves a file or folder to a path that is free; missing folders on the way are made.
    ///
    /// # Errors
    /// If there is nothing to move, or something at the new path.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let (from, to) = (parsed(from)?, parsed(to)?);
        let now = self.store.clock().now();
        let mut state = self.store.lock();
        let workspace = state.workspace_mut(&self.id).ok_or(StoreError::Missing)?;
        let id = workspace.tree.find(&from).ok_or(StoreError::Missing)?.to_owned();
        Ok(workspace.tree.relocate(&id, &to, Parents::Made, now)?)
    }

    /// Removes the whole workspace; whether it was still there.
    pub fn delete(&self) -> bool {
        let mut state = self.store.lock();
        let before = state.workspaces.len();
        state.workspaces.retain(|workspace| workspace.id != self.id);
        state.workspaces.len() < before
    }

    fn look<T>(&self, at: impl FnOnce(&StoredWorkspace) -> T) -> Option<T> {
        self.store.lock().workspace(&self.id).map(at)
    }
}

impl From<Hindrance> for StoreError {
    fn from(hindrance: Hindrance) -> Self {
        match hindrance {
            Hindrance::Missing | Hindrance::NoParent => Self::Missing,
            Hindrance::Taken => Self::Taken,
            Hindrance::IntoItself => Self::Impossible,
        }
    }
}

fn parsed(path: &str) -> Result<Vec<String>, StoreError> {
    parse_path(path).ok_or(StoreError::Impossible)
}

fn owner_email(state: &State, workspace: &str) -> String {
    let owner = state.workspace(workspace).and_then(StoredWorkspace::owner);
    owner.map(|owner| state.email(owner)).unwrap_or_default()
}
