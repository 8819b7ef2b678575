//! The reference provider: a store in memory that does what the contract of `Provider` says, and nothing else.
//!
//! It plays the service too: it keeps the tree, refuses what rights forbid and lets a test edit behind the mount's back.
//! It isn't offered in a configuration.

mod feed;
mod options;
mod tree;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;

use super::keys::KeyInfo;
use super::{
    AttributeSupport, ByteStream, Capabilities, Change, ChangeFeed, Content, Extras, LabelChanges, LabelSupport, Place,
    Provider, Reads, Target,
};
use crate::model::{
    Action, Entry, Error, ErrorKind, Kind, Name, ObjectId, ObjectKey, PosixAttributes, Result, Rights, ToldAttributes,
    Usage, Version,
};

use self::feed::Announcements;
pub use self::options::{Addressing, Metadata, Options};
use self::tree::{Body, NodeId, ROOT, Tree, changed, exists, is_a_directory, not_a_directory, not_empty, parts, split};

/// Bytes per item of a read's stream: small, so that readers see several.
const CHUNK: usize = 64 * 1024;

/// A handle on the store; clones share it.
#[derive(Clone)]
pub struct Memory {
    options: Arc<Options>,
    identity: Arc<str>,
    tree: Arc<Mutex<Tree>>,
    /// What was edited behind the mount's back, as far as somebody listens.
    announcements: Announcements,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(Options::default())
    }
}

impl Memory {
    /// An empty store that no other equals.
    pub fn new(options: Options) -> Self {
        Self {
            options: Arc::new(options),
            identity: format!("memory:{}", uuid::Uuid::new_v4()).into(),
            tree: Arc::new(Mutex::new(Tree::new())),
            announcements: Announcements::new(),
        }
    }

    /// Stores a file as another client would, making the folders on the way. The path's parts are divided by `/`.
    ///
    /// # Errors
    /// `InvalidName`; `NotADirectory` and `IsADirectory` where the path meets the other kind.
    pub fn put(&self, path: &str, bytes: impl Into<Bytes>) -> Result<Entry> {
        let mut tree = self.tree.lock();
        let (folders, name) = split(path)?;
        let parent = tree.make_folders(&folders)?;
        self.announce(&tree, parent);
        let node = match tree.children(parent)?.get(&name) {
            Some(&node) => {
                tree.set_content(node, bytes.into())?;
                node
            }
            None => tree.add(parent, name, Body::File(bytes.into()))?,
        };
        self.entry(&tree, node)
    }

    /// Makes a folder and those on the way; one that is there stays as it is.
    ///
    /// # Errors
    /// As `put`.
    pub fn make_directory(&self, path: &str) -> Result<Entry> {
        let mut tree = self.tree.lock();
        let node = tree.make_folders(&parts(path)?)?;
        self.announce(&tree, tree.parent(node)?);
        self.entry(&tree, node)
    }

    /// Removes a file or a folder with all it holds.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn remove(&self, path: &str) -> Result<()> {
        let mut tree = self.tree.lock();
        let node = tree.walk(path)?;
        if node == ROOT {
            return Err(Error::new(ErrorKind::NotPermitted, "the root cannot be removed"));
        }
        self.announce(&tree, tree.parent(node)?);
        tree.remove(node)
    }

    /// Gives an entry another path, whose folder must exist and whose name must be free.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`.
    pub fn rename(&self, from: &str, to: &str) -> Result<Entry> {
        let mut tree = self.tree.lock();
        let node = tree.walk(from)?;
        let (folders, name) = split(to)?;
        let parent = tree.walk_parts(&folders)?;
        if tree.children(parent)?.contains_key(&name) {
            return Err(exists(&name));
        }
        self.announce(&tree, tree.parent(node)?);
        self.announce(&tree, parent);
        tree.relocate(node, parent, name)?;
        self.entry(&tree, node)
    }

    /// Sets the rights of a folder and of all below that has none of its own. The root's path is empty.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub fn set_rights(&self, path: &str, new: Rights) -> Result<()> {
        let mut tree = self.tree.lock();
        let node = tree.walk(path)?;
        match &mut tree.node_mut(node)?.body {
            Body::Directory { rights, .. } => *rights = Some(new),
            Body::File(_) => return Err(not_a_directory(path)),
        }
        Ok(())
    }

    /// The bytes that may be stored from now on; what is stored already stays.
    pub fn set_quota(&self, bytes: Option<u64>) {
        self.tree.lock().quota = bytes;
    }

    /// A file's content, or `None` when there is no such file.
    pub fn content(&self, path: &str) -> Option<Bytes> {
        let tree = self.tree.lock();
        match &tree.node(tree.walk(path).ok()?).ok()?.body {
            Body::File(bytes) => Some(bytes.clone()),
            Body::Directory { .. } => None,
        }
    }

    /// The entry at a path, whatever the rights say.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn entry_at(&self, path: &str) -> Result<Entry> {
        let tree = self.tree.lock();
        self.entry(&tree, tree.walk(path)?)
    }

    /// Every path with its content, `None` for folders; without the root.
    pub fn snapshot(&self) -> BTreeMap<String, Option<Bytes>> {
        let tree = self.tree.lock();
        let described = tree.nodes.iter().filter(|&(&id, _)| id != ROOT).map(|(&id, node)| {
            let content = match &node.body {
                Body::File(bytes) => Some(bytes.clone()),
                Body::Directory { .. } => None,
            };
            (tree.path(id), content)
        });
        described.collect()
    }

    fn key(&self, tree: &Tree, id: NodeId) -> ObjectKey {
        match self.options.addressing {
            Addressing::Paths => ObjectKey::new(tree.path(id)),
            Addressing::Ids => ObjectKey::new(id.0.to_string()),
        }
    }

    fn resolve(&self, tree: &Tree, key: &ObjectKey) -> Result<NodeId> {
        match self.options.addressing {
            Addressing::Paths => tree.walk(key.as_str()),
            Addressing::Ids => key
                .as_str()
                .parse()
                .map(NodeId)
                .ok()
                .filter(|id| tree.nodes.contains_key(id))
                .ok_or_else(|| Error::not_found(format_args!("object {key}"))),
        }
    }

    fn entry(&self, tree: &Tree, id: NodeId) -> Result<Entry> {
        let node = tree.node(id)?;
        let (kind, size) = match &node.body {
            Body::File(bytes) => (Kind::File, bytes.len() as u64),
            Body::Directory { .. } => (Kind::Directory, 0),
        };
        Ok(Entry {
            key: self.key(tree, id),
            name: node.name.clone(),
            kind,
            size,
            modified: node.modified,
            version: Version::new(format!("v{}", node.version)),
            rights: tree.rights(id),
            labels: node.labels.clone(),
            posix: node.posix.clone(),
        })
    }

    fn directory(&self, tree: &Tree, key: &ObjectKey) -> Result<NodeId> {
        let id = self.resolve(tree, key)?;
        tree.children(id)?;
        Ok(id)
    }

    fn fits(&self, name: &Name) -> Result<()> {
        let text = name.as_str();
        if let Some(most) = self.options.capabilities.max_name_chars
            && text.chars().count() > most
        {
            let message = format!("{text:?} is longer than {most} characters");
            return Err(Error::new(ErrorKind::NameTooLong, message));
        }
        if text.contains(self.options.forbidden) {
            let message = format!("{text:?} has a character that the store cannot hold");
            return Err(Error::new(ErrorKind::InvalidName, message));
        }
        Ok(())
    }

    fn check_size(&self, tree: &Tree, len: u64, freed: u64) -> Result<()> {
        if let Some(most) = self.options.capabilities.max_file_size
            && len > most
        {
            let message = format!("{len} bytes are more than the {most} that a file can have");
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        if let Some(quota) = tree.quota
            && tree.used() - freed + len > quota
        {
            return Err(Error::new(ErrorKind::Quota, "the store is full"));
        }
        Ok(())
    }

    fn check_visible(&self, tree: &Tree, id: NodeId) -> Result<()> {
        match self.options.metadata {
            Metadata::Open => Ok(()),
            Metadata::NeedsRead => tree.check(id, Action::Read),
        }
    }

    fn upload_new(&self, parent: &ObjectKey, name: &Name, bytes: Bytes, posix: ToldAttributes) -> Result<Entry> {
        let mut tree = self.tree.lock();
        let parent = self.directory(&tree, parent)?;
        self.fits(name)?;
        tree.check(parent, Action::Write)?;
        self.check_size(&tree, bytes.len() as u64, 0)?;
        if tree.children(parent)?.contains_key(name) {
            return Err(exists(name));
        }
        let id = tree.add(parent, name.clone(), Body::File(bytes))?;
        tree.node_mut(id)?.posix = posix;
        self.entry(&tree, id)
    }

    fn upload_over(
        &self,
        old: &Entry,
        bytes: Bytes,
        posix: impl FnOnce(&ToldAttributes) -> ToldAttributes,
    ) -> Result<Entry> {
        let mut tree = self.tree.lock();
        let id = self.resolve(&tree, &old.key).map_err(|_| changed(&old.name))?;
        let now = self.entry(&tree, id)?;
        if now.version != old.version || now.kind != Kind::File {
            return Err(changed(&old.name));
        }
        tree.check(id, Action::Write)?;
        self.check_size(&tree, bytes.len() as u64, now.size)?;
        tree.set_content(id, bytes)?;
        let node = tree.node_mut(id)?;
        node.posix = posix(&node.posix);
        self.entry(&tree, id)
    }
}

#[async_trait]
impl Provider for Memory {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn identity(&self) -> String {
        self.identity.to_string()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.options.capabilities
    }

    fn current_key(&self) -> Option<KeyInfo> {
        None
    }

    fn changes(&self) -> Option<Box<dyn ChangeFeed>> {
        Some(Box::new(self.announcements.listen()))
    }

    fn extras(&self) -> Option<&dyn Extras> {
        None
    }

    fn check_name(&self, _: &ObjectKey, _: Kind, name: &Name) -> Result<()> {
        self.fits(name)
    }

    async fn probe(&self) -> Result<Entry> {
        self.entry(&self.tree.lock(), ROOT)
    }

    async fn lookup(&self, parent: &ObjectKey, name: &Name) -> Result<Entry> {
        let tree = self.tree.lock();
        let parent = self.directory(&tree, parent)?;
        self.check_visible(&tree, parent)?;
        match tree.children(parent)?.get(name) {
            Some(&id) => self.entry(&tree, id),
            None => Err(Error::not_found(format_args!("{:?}", name.as_str()))),
        }
    }

    async fn stat(&self, entry: &Entry) -> Result<Entry> {
        let tree = self.tree.lock();
        let id = self.resolve(&tree, &entry.key)?;
        self.check_visible(&tree, id)?;
        let now = self.entry(&tree, id)?;
        if now.kind != entry.kind {
            return Err(Error::not_found(format_args!("{:?}", entry.name.as_str())));
        }
        Ok(now)
    }

    async fn list(&self, directory: &ObjectKey) -> Result<Vec<Entry>> {
        let tree = self.tree.lock();
        let id = self.directory(&tree, directory)?;
        tree.check(id, Action::Read)?;
        tree.children(id)?.values().map(|&id| self.entry(&tree, id)).collect()
    }

    async fn read(&self, object: &ObjectId, range: Range<u64>) -> Result<ByteStream> {
        let bytes = {
            let tree = self.tree.lock();
            let id = self.resolve(&tree, &object.key)?;
            tree.check(id, Action::Read)?;
            let now = self.entry(&tree, id)?;
            match &tree.node(id)?.body {
                Body::Directory { .. } => return Err(Error::new(ErrorKind::IsADirectory, "a folder has no bytes")),
                Body::File(_) if now.version != object.version => return Err(changed(&now.name)),
                Body::File(bytes) => bytes.clone(),
            }
        };
        let size = bytes.len() as u64;
        let possible = match self.options.capabilities.reads {
            Reads::Ranges => range.start <= range.end && range.end <= size,
            Reads::WholeOnly | Reads::WholeInOrder => range == (0..size),
        };
        if !possible {
            let message = format!("{range:?} cannot be asked for of {size} bytes");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let mut rest = bytes.slice(range.start as usize..range.end as usize);
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            chunks.push(Ok(rest.split_to(rest.len().min(CHUNK))));
        }
        Ok(stream::iter(chunks).boxed())
    }

    async fn create_directory(&self, parent: &ObjectKey, name: &Name) -> Result<Entry> {
        let mut tree = self.tree.lock();
        let parent = self.directory(&tree, parent)?;
        self.fits(name)?;
        tree.check(parent, Action::Write)?;
        if tree.children(parent)?.contains_key(name) {
            return Err(exists(name));
        }
        let id = tree.add(parent, name.clone(), Body::folder())?;
        self.entry(&tree, id)
    }

    async fn upload(&self, target: &Target, content: &Content) -> Result<Entry> {
        let mut bytes = Vec::new();
        let mut chunks = content.stream();
        while let Some(chunk) = chunks.next().await {
            bytes.extend_from_slice(&chunk?);
        }
        let keeps = self.options.capabilities.attributes != AttributeSupport::None;
        let posix = |there: &ToldAttributes| match keeps {
            true => target.attributes(content, there).into(),
            false => ToldAttributes::None,
        };
        match target {
            Target::New { parent, name } => self.upload_new(parent, name, bytes.into(), posix(&ToldAttributes::None)),
            Target::Replace { entry, .. } => self.upload_over(entry, bytes.into(), posix),
        }
    }

    async fn remove_file(&self, entry: &Entry) -> Result<()> {
        let mut tree = self.tree.lock();
        let id = self.resolve(&tree, &entry.key)?;
        tree.check(id, Action::Delete)?;
        match tree.node(id)?.body {
            Body::File(_) => tree.remove(id),
            Body::Directory { .. } => Err(is_a_directory(&entry.name)),
        }
    }

    async fn remove_directory(&self, entry: &Entry) -> Result<()> {
        let mut tree = self.tree.lock();
        let id = self.directory(&tree, &entry.key)?;
        tree.check(id, Action::Delete)?;
        if !tree.children(id)?.is_empty() {
            return Err(not_empty(&entry.name));
        }
        tree.remove(id)
    }

    async fn rename(&self, entry: &Entry, from: &Place, to: &Place, replaced: Option<&Entry>) -> Result<Entry> {
        let capabilities = &self.options.capabilities;
        let mut tree = self.tree.lock();
        let source = self.directory(&tree, &from.parent)?;
        let id = *tree
            .children(source)?
            .get(&from.name)
            .ok_or_else(|| Error::not_found(format_args!("{:?}", from.name.as_str())))?;
        if self.key(&tree, id) != entry.key {
            return Err(Error::not_found(format_args!("{:?}", entry.name.as_str())));
        }
        let target = self.directory(&tree, &to.parent)?;
        self.fits(&to.name)?;
        let crosses = source != target && !capabilities.move_files;
        if crosses || (entry.is_directory() && !capabilities.rename_directories) {
            return Err(Error::new(ErrorKind::CrossDevice, "the store cannot move it there"));
        }
        if tree.is_within(target, id) {
            let message = "a folder cannot move into itself";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        tree.check(source, Action::Write)?;
        tree.check(target, Action::Write)?;
        let taken = tree.children(target)?.get(&to.name).copied();
        if let Some(taken) = taken.filter(|&taken| taken != id) {
            let there = self.entry(&tree, taken)?;
            // The same file with other content is something else: its last version would be lost unseen.
            let expected = replaced.is_some_and(|replaced| {
                there.key == replaced.key
                    && there.kind == replaced.kind
                    && (there.is_directory() || there.version == replaced.version)
            });
            if !expected {
                return Err(exists(&to.name));
            }
            match (entry.kind, there.kind) {
                (Kind::File, Kind::Directory) => return Err(is_a_directory(&to.name)),
                (Kind::Directory, Kind::File) => return Err(not_a_directory(to.name.as_str())),
                (Kind::Directory, Kind::Directory) if !tree.children(taken)?.is_empty() => {
                    return Err(not_empty(&to.name));
                }
                _ => {}
            }
            tree.check(taken, Action::Delete)?;
            tree.remove(taken)?;
        }
        tree.relocate(id, target, to.name.clone())?;
        self.entry(&tree, id)
    }

    async fn set_labels(&self, entry: &Entry, changes: &LabelChanges) -> Result<Entry> {
        if self.options.capabilities.labels == LabelSupport::None {
            return Err(Error::unsupported("the store keeps no labels"));
        }
        let mut tree = self.tree.lock();
        let id = self.resolve(&tree, &entry.key)?;
        tree.check(id, Action::Write)?;
        let labels = &mut tree.node_mut(id)?.labels;
        for (name, value) in changes {
            match value {
                Some(value) => labels.insert(name.clone(), value.clone()),
                None => labels.remove(name),
            };
        }
        self.entry(&tree, id)
    }

    async fn set_attributes(&self, entry: &Entry, attributes: &PosixAttributes) -> Result<Entry> {
        if self.options.capabilities.attributes != AttributeSupport::Stored {
            return Err(Error::unsupported("the store keeps no attributes beside uploads"));
        }
        let mut tree = self.tree.lock();
        let id = self.resolve(&tree, &entry.key)?;
        tree.check(id, Action::Write)?;
        if let Body::Directory { .. } = tree.node(id)?.body {
            return Err(Error::unsupported("the store keeps attributes with files only"));
        }
        tree.node_mut(id)?.posix = attributes.fitting().into();
        self.entry(&tree, id)
    }

    async fn usage(&self) -> Result<Usage> {
        let tree = self.tree.lock();
        Ok(Usage {
            used: tree.used(),
            total: tree.quota,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[tokio::test]
    async fn an_edit_behind_the_back_gives_a_new_version_under_the_same_path() {
        let store = Memory::default();
        let old = store.put("a/b", "one").unwrap();
        store.put("a/b", "two!").unwrap();
        let new = store.stat(&old).await.unwrap();
        assert_eq!((&new.key, new.size), (&old.key, 4));
        assert_ne!(new.version, old.version);
        let read = store.read(&old.object(), 0..3).await.err().unwrap();
        assert_eq!(read.kind(), ErrorKind::Changed);
    }

    #[tokio::test]
    async fn ids_survive_renames_and_are_never_used_again() {
        let store = Memory::new(Options {
            addressing: Addressing::Ids,
            ..Options::default()
        });
        let old = store.put("a/b", "one").unwrap();
        store.rename("a", "z").unwrap();
        assert_eq!(store.stat(&old).await.unwrap(), old);
        store.remove("z/b").unwrap();
        store.put("z/b", "one").unwrap();
        assert_eq!(store.stat(&old).await.unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn rights_are_inherited_and_enforced() {
        let store = Memory::default();
        let file = store.put("a/b/c", "x").unwrap();
        store.set_rights("a", "r".parse().unwrap()).unwrap();
        assert_eq!(store.stat(&file).await.unwrap().rights.to_string(), "r--");
        assert_eq!(store.remove_file(&file).await.unwrap_err().kind(), ErrorKind::Denied);
        let parent = store.entry_at("a/b").unwrap().key;
        let refused = store.create_directory(&parent, &name("d")).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Denied);
        store.set_rights("a/b", "wd".parse().unwrap()).unwrap();
        assert_eq!(store.list(&parent).await.unwrap_err().kind(), ErrorKind::Denied);
        store.remove_file(&file).await.unwrap();
    }

    #[tokio::test]
    async fn the_quota_counts_what_a_replacement_frees() {
        let store = Memory::default();
        let entry = store.put("a", "12345678").unwrap();
        store.set_quota(Some(10));
        let parent = store.probe().await.unwrap().key;
        let over = Target::Replace {
            parent: parent.clone(),
            entry,
        };
        store
            .upload(&over, &Content::from_bytes(b"1234567890").unwrap())
            .await
            .unwrap();
        let new = Target::New {
            parent,
            name: name("b"),
        };
        let refused = store.upload(&new, &Content::from_bytes(b"1").unwrap()).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Quota);
    }
}
