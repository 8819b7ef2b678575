//! An account's items: files and folders, what is done to them, and the trash.
//!
//! Responsible for paths, ids, times, sizes and visibility, as [`super::Assumptions`] has them where the documentation
//! is silent. Not responsible for HTTP, or for who asks.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::assumptions::{Assumptions, FolderDelete, MissingParents, MoveOnto, Overwrite, SharedPath, Visibility};
use super::grants::Grant;
use super::path::ItemPath;

/// How long the trash keeps things (file-operations: 30 days).
const TRASH_DAYS: i64 = 30;

/// Whether deleting is final (file-operations: the trash is on by default).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrashUse {
    /// What is deleted can be restored for 30 days.
    On,
    /// What is deleted is gone.
    Off,
}

/// Why something can't be done to an account's items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Nothing is at the path, or nothing of the kind that is needed.
    #[error("nothing of this kind is at this path")]
    Missing,
    /// The new path's folder is missing.
    #[error("the folder of the new path is missing")]
    MissingParent,
    /// Something is at the new path.
    #[error("something is at this path already")]
    Taken,
    /// The folder has something in it.
    #[error("the folder has something in it")]
    NotEmpty,
    /// A folder would come to lie in itself.
    #[error("a folder cannot be put into itself")]
    IntoItself,
    /// The root stays as it is, or the path isn't one.
    #[error("this path cannot be used here")]
    Unusable,
    /// No room is left.
    #[error("the account's storage is full")]
    Full,
}

/// A file or folder.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) id: Uuid,
    pub(super) path: ItemPath,
    pub(super) kind: ItemKind,
    pub(super) visibility: Visibility,
    pub(super) grants: Vec<Grant>,
    pub(super) created: Timestamp,
    pub(super) updated: Timestamp,
}

#[derive(Debug, Clone)]
pub(super) enum ItemKind {
    File(Content),
    Folder,
}

/// Bytes and what is said about them.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pub(super) bytes: Bytes,
    pub(super) mime: String,
    /// With its quotation marks.
    pub(super) etag: String,
}

impl Content {
    pub(super) fn new(bytes: Bytes, mime: String) -> Self {
        let digest = Sha256::digest(&bytes);
        let tag: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Self {
            bytes,
            mime,
            etag: format!("\"{tag}\""),
        }
    }
}

impl Item {
    /// `file_` or `folder_` and the first 8 digits of the UUID (file-listing).
    pub(super) fn short_id(&self) -> String {
        match self.kind {
            ItemKind::File(_) => short_id("file", self.id),
            ItemKind::Folder => short_id("folder", self.id),
        }
    }

    pub(super) fn is_folder(&self) -> bool {
        matches!(self.kind, ItemKind::Folder)
    }

    pub(super) fn content(&self) -> Option<&Content> {
        match &self.kind {
            ItemKind::File(content) => Some(content),
            ItemKind::Folder => None,
        }
    }

    /// Its own length; 0 for a folder.
    pub(super) fn size(&self) -> u64 {
        self.content().map_or(0, |content| content.bytes.len() as u64)
    }

    /// What the API says: grants make a private item a shared one (file-sharing).
    pub(super) fn shown_visibility(&self) -> Visibility {
        match self.visibility {
            Visibility::Private if !self.grants.is_empty() => Visibility::Shared,
            visibility => visibility,
        }
    }

    fn copied(&self, path: ItemPath, now: Timestamp) -> Self {
        Self {
            id: Uuid::new_v4(),
            path,
            grants: Vec::new(),
            created: now,
            updated: now,
            ..self.clone()
        }
    }
}

/// The provider's short form of a UUID.
pub(super) fn short_id(kind: &str, id: Uuid) -> String {
    let digits = id.simple().to_string();
    format!("{kind}_{}", &digits[..8])
}

/// Something deleted with all that was in it, the deleted item first.
#[derive(Debug, Clone)]
pub(super) struct Trashed {
    items: Vec<Item>,
    pub(super) deleted: Timestamp,
    pub(super) expires: Timestamp,
}

impl Trashed {
    /// What was deleted.
    pub(super) fn top(&self) -> Option<&Item> {
        self.items.first()
    }

    /// Bytes of all of it.
    pub(super) fn size(&self) -> u64 {
        self.items.iter().map(Item::size).sum()
    }
}

/// All items of one account, in the order they were made.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    assumptions: Assumptions,
    items: Vec<Item>,
    trash: Vec<Trashed>,
}

impl Tree {
    pub(super) fn new(assumptions: Assumptions) -> Self {
        Self {
            assumptions,
            items: Vec::new(),
            trash: Vec::new(),
        }
    }

    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    pub(super) fn items_mut(&mut self) -> &mut [Item] {
        &mut self.items
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| !item.is_folder())
    }

    /// The item that a path means.
    pub(super) fn at(&self, path: &ItemPath) -> Option<&Item> {
        Some(&self.items[self.position(path)?])
    }

    pub(super) fn at_mut(&mut self, path: &ItemPath) -> Option<&mut Item> {
        let position = self.position(path)?;
        Some(&mut self.items[position])
    }

    fn position(&self, path: &ItemPath) -> Option<usize> {
        match self.assumptions.shared_path {
            SharedPath::Oldest => self.items.iter().position(|item| item.path == *path),
            SharedPath::Newest => self.items.iter().rposition(|item| item.path == *path),
        }
    }

    pub(super) fn is_folder(&self, path: &ItemPath) -> bool {
        path.is_root() || self.at(path).is_some_and(Item::is_folder)
    }

    /// What is directly in a folder.
    pub(super) fn children(&self, folder: &ItemPath) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(move |item| item.path.parent() == *folder)
    }

    /// What is anywhere in a folder, without itself.
    pub(super) fn below(&self, folder: &ItemPath) -> impl Iterator<Item = &Item> {
        self.items
            .iter()
            .filter(move |item| item.path != *folder && item.path.is_at_or_below(folder))
    }

    /// Bytes of all files, the trash's too.
    pub(super) fn used(&self) -> u64 {
        let kept: u64 = self.items.iter().map(Item::size).sum();
        kept + self.trash.iter().map(Trashed::size).sum::<u64>()
    }

    fn room_for(&self, more: u64) -> Result<(), StoreError> {
        if self.used().saturating_add(more) > self.assumptions.quota {
            return Err(StoreError::Full);
        }
        Ok(())
    }

    fn push(&mut self, path: ItemPath, kind: ItemKind, visibility: Visibility, now: Timestamp) -> Item {
        let item = Item {
            id: Uuid::new_v4(),
            path,
            kind,
            visibility,
            grants: Vec::new(),
            created: now,
            updated: now,
        };
        self.items.push(item.clone());
        item
    }

    /// Makes one folder; the documentation has 409 for one that is there.
    pub(super) fn create_folder(&mut self, path: &ItemPath, now: Timestamp) -> Result<Item, StoreError> {
        if path.is_root() || self.at(path).is_some() {
            return Err(StoreError::Taken);
        }
        self.prepare_parent(path, now)?;
        Ok(self.push(path.clone(), ItemKind::Folder, self.assumptions.new_folder, now))
    }

    /// Makes a folder and those on the way to it; one that is there already is fine.
    pub(super) fn make_folders(&mut self, path: &ItemPath, now: Timestamp) -> Result<(), StoreError> {
        for folder in path.way() {
            match self.at(&folder) {
                Some(item) if item.is_folder() => {}
                Some(_) => return Err(StoreError::Taken),
                None => {
                    self.push(folder, ItemKind::Folder, self.assumptions.new_folder, now);
                }
            }
        }
        Ok(())
    }

    /// Sees to it that the folder of a new path is there.
    fn prepare_parent(&mut self, path: &ItemPath, now: Timestamp) -> Result<(), StoreError> {
        let parent = path.parent();
        match self.assumptions.missing_parents {
            MissingParents::Created => self.make_folders(&parent, now),
            MissingParents::Refused if self.is_folder(&parent) => Ok(()),
            MissingParents::Refused => Err(StoreError::MissingParent),
        }
    }

    pub(super) fn upload(
        &mut self,
        path: &ItemPath,
        content: Content,
        visibility: Visibility,
        now: Timestamp,
    ) -> Result<Item, StoreError> {
        let former = self.at(path);
        if former.is_some_and(Item::is_folder) || (former.is_some() && self.assumptions.overwrite == Overwrite::Refuse)
        {
            return Err(StoreError::Taken);
        }
        let size = content.bytes.len() as u64;
        if self.assumptions.overwrite == Overwrite::Replace && former.is_some() {
            self.room_for(size.saturating_sub(former.map_or(0, Item::size)))?;
            return self.replace(path, content, visibility, now);
        }
        self.room_for(size)?;
        self.make_folders(&path.parent(), now)?;
        Ok(self.push(path.clone(), ItemKind::File(content), visibility, now))
    }

    fn replace(
        &mut self,
        path: &ItemPath,
        content: Content,
        visibility: Visibility,
        now: Timestamp,
    ) -> Result<Item, StoreError> {
        let item = self.at_mut(path).ok_or(StoreError::Missing)?;
        item.kind = ItemKind::File(content);
        item.visibility = visibility;
        item.updated = now;
        Ok(item.clone())
    }

    /// Writes a file whatever is assumed about uploads: one that is there gets new content and stays as visible.
    pub(super) fn put(&mut self, path: &ItemPath, content: Content, now: Timestamp) -> Result<(), StoreError> {
        match self.at(path) {
            _ if path.is_root() => Err(StoreError::Unusable),
            Some(item) if item.is_folder() => Err(StoreError::Taken),
            Some(item) => {
                let visibility = item.visibility;
                self.replace(path, content, visibility, now).map(drop)
            }
            None => {
                self.make_folders(&path.parent(), now)?;
                self.push(path.clone(), ItemKind::File(content), Visibility::Private, now);
                Ok(())
            }
        }
    }

    pub(super) fn relocate(&mut self, from: &ItemPath, to: &ItemPath, now: Timestamp) -> Result<Item, StoreError> {
        let source = self.at(from).ok_or(StoreError::Missing)?;
        let (id, is_folder) = (source.id, source.is_folder());
        if to.is_root() || from == to {
            return Err(StoreError::Taken);
        }
        if is_folder && to.is_at_or_below(from) {
            return Err(StoreError::IntoItself);
        }
        if let Some(target) = self.at(to) {
            let same_kind = target.is_folder() == is_folder;
            match self.assumptions.move_onto {
                MoveOnto::Replace if same_kind && !from.is_at_or_below(to) => {
                    self.take(to);
                }
                MoveOnto::Duplicate if same_kind && !is_folder => {}
                _ => return Err(StoreError::Taken),
            }
        }
        self.prepare_parent(to, now)?;
        let mut moved = None;
        for item in &mut self.items {
            if item.id == id {
                item.path = to.clone();
                item.updated = now;
                moved = Some(item.clone());
            } else if is_folder && item.path.is_at_or_below(from) {
                item.path = item.path.moved(from, to);
            }
        }
        moved.ok_or(StoreError::Missing)
    }

    /// Copies an item beside itself under a free name.
    pub(super) fn duplicate(&mut self, path: &ItemPath, now: Timestamp) -> Result<Vec<Item>, StoreError> {
        let source = self.at(path).ok_or(StoreError::Missing)?.clone();
        let (stem, extension) = match path.name().rfind('.') {
            Some(dot) if dot > 0 && !source.is_folder() => path.name().split_at(dot),
            _ => (path.name(), ""),
        };
        let mut count = 1;
        let copy = loop {
            let mark = if count == 1 {
                " (copy)".to_owned()
            } else {
                format!(" (copy {count})")
            };
            let copy = path.with_name(format!("{stem}{mark}{extension}"));
            if self.at(&copy).is_none() {
                break copy;
            }
            count += 1;
        };
        self.copy(&source, &copy, now)
    }

    pub(super) fn copy_folder(
        &mut self,
        from: &ItemPath,
        to: &ItemPath,
        now: Timestamp,
    ) -> Result<Vec<Item>, StoreError> {
        let source = self.at(from).filter(|item| item.is_folder());
        let source = source.ok_or(StoreError::Missing)?.clone();
        if to.is_at_or_below(from) {
            return Err(StoreError::IntoItself);
        }
        if to.is_root() || self.at(to).is_some() {
            return Err(StoreError::Taken);
        }
        self.room_for(self.below(from).map(Item::size).sum())?;
        self.prepare_parent(to, now)?;
        self.copy(&source, to, now)
    }

    fn copy(&mut self, source: &Item, to: &ItemPath, now: Timestamp) -> Result<Vec<Item>, StoreError> {
        let mut copies = vec![source.copied(to.clone(), now)];
        if source.is_folder() {
            let below = self.below(&source.path);
            copies.extend(below.map(|item| item.copied(item.path.moved(&source.path, to), now)));
        }
        self.room_for(copies.iter().map(Item::size).sum())?;
        self.items.extend(copies.iter().cloned());
        Ok(copies)
    }

    pub(super) fn delete(&mut self, path: &ItemPath, trash: TrashUse, now: Timestamp) -> Result<(), StoreError> {
        let is_folder = self.at(path).ok_or(StoreError::Missing)?.is_folder();
        if is_folder
            && self.assumptions.folder_delete == FolderDelete::RefuseNonEmpty
            && self.children(path).next().is_some()
        {
            return Err(StoreError::NotEmpty);
        }
        let items = self.take(path);
        if trash == TrashUse::On {
            let kept = SignedDuration::from_hours(24 * TRASH_DAYS);
            self.trash.push(Trashed {
                items,
                deleted: now,
                expires: now.checked_add(kept).unwrap_or(Timestamp::MAX),
            });
        }
        Ok(())
    }

    /// Takes the item that a path means, with all that is in it, the item first.
    fn take(&mut self, path: &ItemPath) -> Vec<Item> {
        let Some(position) = self.position(path) else {
            return Vec::new();
        };
        let mut taken = vec![self.items.remove(position)];
        if taken[0].is_folder() {
            taken.extend(self.items.extract_if(.., |item| item.path.is_at_or_below(path)));
        }
        taken
    }

    /// Removes an item with all that is in it, past the trash; whether there was one.
    pub(super) fn remove(&mut self, path: &ItemPath) -> bool {
        !self.take(path).is_empty()
    }

    /// What can be restored, the latest deletion first.
    pub(super) fn trash(&mut self, now: Timestamp) -> Vec<&Trashed> {
        self.expire(now);
        self.trash.iter().rev().collect()
    }

    /// Lets go of what has been in the trash for its time.
    pub(super) fn expire(&mut self, now: Timestamp) {
        self.trash.retain(|trashed| trashed.expires > now);
    }

    pub(super) fn empty_trash(&mut self) -> usize {
        std::mem::take(&mut self.trash).len()
    }

    /// Puts back what was deleted under these short ids; all of it, or nothing.
    pub(super) fn restore(&mut self, ids: &[String], now: Timestamp) -> Result<Vec<Item>, StoreError> {
        let mut after = self.clone();
        let mut restored = Vec::new();
        for id in ids {
            let known = |trashed: &Trashed| trashed.top().is_some_and(|item| item.short_id() == *id);
            let position = after.trash.iter().position(known).ok_or(StoreError::Missing)?;
            let items = after.trash.remove(position).items;
            let top = items.first().ok_or(StoreError::Missing)?.clone();
            if after.at(&top.path).is_some() {
                return Err(StoreError::Taken);
            }
            after.make_folders(&top.path.parent(), now)?;
            after.items.extend(items);
            restored.push(top);
        }
        *self = after;
        Ok(restored)
    }
}

/// The MIME type that goes with a name.
pub(super) fn mime_of(name: &str) -> String {
    mime_guess::from_path(name).first_or_octet_stream().to_string()
}
