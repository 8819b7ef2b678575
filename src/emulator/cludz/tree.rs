//! A drive's content and who may do what with it.
//!
//! Responsible for the tree of folders and files, for times and checksums, and for rights: an owner token, shared
//! tokens with grants per folder that the nearest ancestor passes on (storage/permissions), and public folders
//! (storage/authentication). Not responsible for HTTP or for the order of checks.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

/// What a shared token may do in a folder and beneath it (storage/permissions: "Read", "Write", "Delete" levels).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// Nothing, whatever the folders above grant.
    Nothing,
    /// Read only.
    Read,
    /// Read and write, no delete.
    Write,
    /// Read and delete, no write.
    Delete,
    /// Read, write and delete.
    WriteDelete,
}

/// What an operation needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    Read,
    Write,
    Delete,
}

impl Grant {
    fn allows(self, right: Right) -> bool {
        match right {
            Right::Read => self != Self::Nothing,
            Right::Write => matches!(self, Self::Write | Self::WriteDelete),
            Right::Delete => matches!(self, Self::Delete | Self::WriteDelete),
        }
    }
}

/// Who may read a folder without a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Nobody.
    Private,
    /// Anyone.
    Public,
}

/// Whether the drive's owner has paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscription {
    /// Everything works.
    Active,
    /// Uploading, creating and renaming is refused.
    Expired,
}

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    Anonymous,
    Owner,
    Shared(String),
}

/// What the store knows of a file or folder besides its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// File or folder, and what only one of them has.
    pub kind: InfoKind,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub modified: Timestamp,
}

/// File or folder, and what only one of them has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InfoKind {
    /// A file.
    File {
        /// Its length in bytes.
        size: u64,
        /// SHA-256 of its content in lower-case hexadecimal.
        sha256: String,
        /// Its MIME type.
        mime: String,
    },
    /// A folder.
    Folder {
        /// What a listing of its parent says about sharing.
        status: Option<SharingStatus>,
    },
}

/// `sharingStatus` of a folder that isn't private.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharingStatus {
    /// Anyone may read it.
    Public,
    /// Some tokens have explicit access.
    Shared,
}

/// Why the store can't do what its owner's side asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Nothing is at the path.
    #[error("nothing is at this path")]
    Missing,
    /// A file is where a folder is needed, or the reverse.
    #[error("something of the other kind is at this path")]
    InTheWay,
    /// No shared token has this name.
    #[error("no shared token has this name")]
    UnknownToken,
}

#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) content: Content,
    pub(super) mime: String,
    created: Timestamp,
    modified: Timestamp,
}

/// Bytes and their checksum.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pub(super) bytes: Bytes,
    pub(super) sha256: String,
}

impl Content {
    pub(super) fn new(bytes: Bytes) -> Self {
        let sha256 = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self { bytes, sha256 }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Folder {
    children: BTreeMap<String, Node>,
    /// Explicit access by token name.
    grants: BTreeMap<String, Grant>,
    sharing: Sharing,
    created: Timestamp,
    modified: Timestamp,
}

impl Folder {
    fn new(now: Timestamp) -> Self {
        Self {
            children: BTreeMap::new(),
            grants: BTreeMap::new(),
            sharing: Sharing::Private,
            created: now,
            modified: now,
        }
    }

    pub(super) fn children(&self) -> impl Iterator<Item = (&str, Info)> {
        self.children.iter().map(|(name, node)| (name.as_str(), node.info()))
    }

    fn holds(&self, sha256: &str) -> bool {
        self.children.values().any(|node| match node {
            Node::File(file) => file.content.sha256 == sha256,
            Node::Folder(folder) => folder.holds(sha256),
        })
    }

    fn info(&self) -> Info {
        let status = match self.sharing {
            Sharing::Public => Some(SharingStatus::Public),
            Sharing::Private => self
                .grants
                .values()
                .any(|g| g.allows(Right::Read))
                .then_some(SharingStatus::Shared),
        };
        Info {
            kind: InfoKind::Folder { status },
            created: self.created,
            modified: self.modified,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    File(File),
    Folder(Folder),
}

impl Node {
    pub(super) fn info(&self) -> Info {
        match self {
            Self::Folder(folder) => folder.info(),
            Self::File(file) => Info {
                kind: InfoKind::File {
                    size: file.content.bytes.len() as u64,
                    sha256: file.content.sha256.clone(),
                    mime: file.mime.clone(),
                },
                created: file.created,
                modified: file.modified,
            },
        }
    }
}

/// Something found at a path; the root has no node of its own.
pub(super) enum Found<'a> {
    File(&'a File),
    Folder(&'a Folder),
}

impl Found<'_> {
    pub(super) fn info(&self) -> Info {
        match self {
            Self::File(file) => Node::File((*file).clone()).info(),
            Self::Folder(folder) => folder.info(),
        }
    }
}

/// One drive.
#[derive(Debug, Clone)]
pub(super) struct State {
    owner_token: String,
    /// Secrets by name.
    tokens: BTreeMap<String, String>,
    subscription: Subscription,
    root: Folder,
    /// The time of the latest change.
    clock: Timestamp,
}

impl State {
    pub(super) fn new(owner_token: String) -> Self {
        let now = whole_milliseconds(Timestamp::now());
        Self {
            owner_token,
            tokens: BTreeMap::new(),
            subscription: Subscription::Active,
            root: Folder::new(now),
            clock: now,
        }
    }

    pub(super) fn owner_token(&self) -> &str {
        &self.owner_token
    }

    pub(super) fn replace_owner_token(&mut self, secret: String) {
        self.owner_token = secret;
    }

    pub(super) fn share(&mut self, name: String, secret: String) {
        self.tokens.insert(name, secret);
    }

    pub(super) fn revoke(&mut self, name: &str) -> bool {
        self.tokens.remove(name).is_some()
    }

    pub(super) fn subscription(&self) -> Subscription {
        self.subscription
    }

    pub(super) fn set_subscription(&mut self, subscription: Subscription) {
        self.subscription = subscription;
    }

    pub(super) fn latest_change(&self) -> Timestamp {
        self.clock
    }

    pub(super) fn set_grant(&mut self, name: &str, path: &[String], grant: Option<Grant>) -> Result<(), StoreError> {
        if !self.tokens.contains_key(name) {
            return Err(StoreError::UnknownToken);
        }
        let folder = self.folder_mut(path)?;
        match grant {
            Some(grant) => folder.grants.insert(name.to_owned(), grant),
            None => folder.grants.remove(name),
        };
        Ok(())
    }

    pub(super) fn set_sharing(&mut self, path: &[String], sharing: Sharing) -> Result<(), StoreError> {
        self.folder_mut(path)?.sharing = sharing;
        Ok(())
    }

    /// The caller that a token stands for; nothing if no token of the drive has this secret.
    pub(super) fn caller(&self, secret: Option<&str>) -> Option<Caller> {
        let Some(secret) = secret else {
            return Some(Caller::Anonymous);
        };
        if secret == self.owner_token {
            return Some(Caller::Owner);
        }
        let (name, _) = self.tokens.iter().find(|(_, known)| *known == secret)?;
        Some(Caller::Shared(name.clone()))
    }

    /// Whether the caller may do this at the path, judged by the nearest folder that exists.
    pub(super) fn allows(&self, caller: &Caller, path: &[String], right: Right) -> bool {
        let way = self.folders_towards(path);
        let public = right == Right::Read && way.iter().any(|folder| folder.sharing == Sharing::Public);
        match caller {
            Caller::Owner => true,
            Caller::Anonymous => public,
            Caller::Shared(name) => {
                let nearest = way.iter().rev().find_map(|folder| folder.grants.get(name));
                public || nearest.is_some_and(|grant| grant.allows(right))
            }
        }
    }

    /// Every folder on the way to the path, root first.
    fn folders_towards(&self, path: &[String]) -> Vec<&Folder> {
        let mut way = vec![&self.root];
        let mut here = &self.root;
        for name in path {
            let Some(Node::Folder(folder)) = here.children.get(name) else {
                break;
            };
            way.push(folder);
            here = folder;
        }
        way
    }

    pub(super) fn find(&self, path: &[String]) -> Option<Found<'_>> {
        let Some((name, parents)) = path.split_last() else {
            return Some(Found::Folder(&self.root));
        };
        let parent = self.folder(parents)?;
        Some(match parent.children.get(name)? {
            Node::File(file) => Found::File(file),
            Node::Folder(folder) => Found::Folder(folder),
        })
    }

    pub(super) fn folder(&self, path: &[String]) -> Option<&Folder> {
        let way = self.folders_towards(path);
        if way.len() == path.len() + 1 {
            way.last().copied()
        } else {
            None
        }
    }

    fn folder_mut(&mut self, path: &[String]) -> Result<&mut Folder, StoreError> {
        let mut here = &mut self.root;
        for name in path {
            here = match here.children.get_mut(name).ok_or(StoreError::Missing)? {
                Node::Folder(folder) => folder,
                Node::File(_) => return Err(StoreError::InTheWay),
            };
        }
        Ok(here)
    }

    pub(super) fn holds_content(&self, sha256: &str) -> bool {
        self.root.holds(sha256)
    }

    /// Writes a file into a folder that exists, in place of a file of that name.
    pub(super) fn write_file(
        &mut self,
        folder: &[String],
        name: &str,
        content: Content,
        mime: String,
    ) -> Result<(), StoreError> {
        let now = self.tick();
        let folder = self.folder_mut(folder)?;
        let created = match folder.children.get(name) {
            None => now,
            Some(Node::File(former)) => former.created,
            Some(Node::Folder(_)) => return Err(StoreError::InTheWay),
        };
        folder.modified = now;
        folder.children.insert(
            name.to_owned(),
            Node::File(File {
                content,
                mime,
                created,
                modified: now,
            }),
        );
        Ok(())
    }

    /// Makes a folder in a folder that exists.
    pub(super) fn make_folder(&mut self, parent: &[String], name: &str) -> Result<(), StoreError> {
        let now = self.tick();
        let parent = self.folder_mut(parent)?;
        if parent.children.contains_key(name) {
            return Err(StoreError::InTheWay);
        }
        parent.modified = now;
        parent.children.insert(name.to_owned(), Node::Folder(Folder::new(now)));
        Ok(())
    }

    pub(super) fn make_folders(&mut self, path: &[String]) -> Result<(), StoreError> {
        for depth in 0..path.len() {
            match self.find(&path[..=depth]) {
                Some(Found::Folder(_)) => {}
                Some(Found::File(_)) => return Err(StoreError::InTheWay),
                None => self.make_folder(&path[..depth], &path[depth])?,
            }
        }
        Ok(())
    }

    pub(super) fn put(&mut self, path: &[String], content: Bytes) -> Result<(), StoreError> {
        let (name, parents) = path.split_last().ok_or(StoreError::InTheWay)?;
        self.make_folders(parents)?;
        self.write_file(parents, name, Content::new(content), mime_of(name))
    }

    pub(super) fn read(&self, path: &[String]) -> Option<Bytes> {
        match self.find(path)? {
            Found::File(file) => Some(file.content.bytes.clone()),
            Found::Folder(_) => None,
        }
    }

    pub(super) fn info(&self, path: &[String]) -> Option<Info> {
        self.find(path).map(|found| found.info())
    }

    pub(super) fn names(&self, path: &[String]) -> Option<Vec<String>> {
        Some(self.folder(path)?.children.keys().cloned().collect())
    }

    pub(super) fn remove(&mut self, path: &[String]) -> bool {
        let now = self.tick();
        let Some((name, parents)) = path.split_last() else {
            return false;
        };
        let Ok(parent) = self.folder_mut(parents) else {
            return false;
        };
        let removed = parent.children.remove(name).is_some();
        if removed {
            parent.modified = now;
        }
        removed
    }

    pub(super) fn rename(&mut self, from: &[String], to: &[String]) -> Result<(), StoreError> {
        let (from_name, from_parents) = from.split_last().ok_or(StoreError::Missing)?;
        let (to_name, to_parents) = to.split_last().ok_or(StoreError::InTheWay)?;
        if to.starts_with(from) {
            return Err(StoreError::InTheWay);
        }
        let now = self.tick();
        self.folder_mut(to_parents)?;
        let source = self.folder_mut(from_parents)?;
        let mut node = source.children.remove(from_name).ok_or(StoreError::Missing)?;
        source.modified = now;
        match &mut node {
            Node::File(file) => file.modified = now,
            Node::Folder(folder) => folder.modified = now,
        }
        let destination = self.folder_mut(to_parents)?;
        destination.modified = now;
        destination.children.insert(to_name.clone(), node);
        Ok(())
    }

    /// The time of a new change: now, but later than the latest by a millisecond at least.
    fn tick(&mut self) -> Timestamp {
        let later = self
            .clock
            .checked_add(SignedDuration::from_millis(1))
            .unwrap_or(self.clock);
        self.clock = whole_milliseconds(Timestamp::now()).max(later);
        self.clock
    }
}

fn whole_milliseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}

/// The names of a path written with slashes.
pub(super) fn segments(path: &str) -> Vec<String> {
    path.split('/')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

pub(super) fn mime_of(name: &str) -> String {
    mime_guess::from_path(name).first_or_octet_stream().to_string()
}
