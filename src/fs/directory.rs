//! Listing directories.

use std::sync::Arc;

use super::handle::{DirectoryHandle, Handle, HandleId};
use super::inode::{Answer, Node, Placement, Presence};
use super::listing::Listing;
use super::table::Reference;
use super::{FileSystem, Found, Ino};
use crate::model::{Action, Entry, Error, ErrorKind, Kind, Name, Result};

/// One line of `readdir`.
#[derive(Clone, Debug)]
pub struct DirEntry {
    pub ino: Ino,
    /// `.` and `..` too, which are no `Name`s.
    pub name: String,
    pub kind: Kind,
    /// What the provider said, and when; `None` for `.` and `..`.
    entry: Option<(Entry, Answer)>,
}

impl FileSystem {
    /// # Errors
    /// `Denied` without the right to read, `NotADirectory`.
    pub async fn open_directory(&self, ino: Ino) -> Result<HandleId> {
        let entry = self.entry(ino).await?;
        if !entry.is_directory() {
            return Err(Error::new(
                ErrorKind::NotADirectory,
                format!("{} is a file", entry.name),
            ));
        }
        self.require(&entry, Action::Read)?;
        self.table.opened(ino, false)?;
        Ok(self.handles.add(Handle::Directory(DirectoryHandle {
            ino,
            snapshot: Default::default(),
        })))
    }

    /// All entries from `.` on; the same ones for every offset but 0, which looks again.
    ///
    /// # Errors
    /// As `Provider::list`.
    pub async fn read_directory(&self, handle: HandleId, offset: u64) -> Result<Arc<Vec<DirEntry>>> {
        let handle = self.handles.get(handle)?;
        let directory = handle.directory()?;
        if offset > 0
            && let Some(snapshot) = directory.snapshot.lock().clone()
        {
            return Ok(snapshot);
        }
        let snapshot = Arc::new(self.snapshot(directory.ino).await?);
        *directory.snapshot.lock() = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    pub fn close_directory(&self, handle: HandleId) {
        if let Some(handle) = self.handles.take(handle)
            && let Ok(directory) = handle.directory()
        {
            self.table.closed(directory.ino, false);
        }
    }

    /// The attributes of a listed entry, for `readdirplus`, with a reference unless it is `.` or `..`.
    ///
    /// # Errors
    /// `Changed` when the directory is gone.
    pub fn listed_attributes(&self, directory: Ino, listed: &DirEntry) -> Result<(Found, Option<Reference>)> {
        let Some((entry, answer)) = &listed.entry else {
            return Ok((self.known_attributes(listed.ino)?, None));
        };
        let reference = self.table.attach(directory, entry.clone(), Some(listed.ino), *answer)?;
        Ok((self.known_attributes(reference.ino())?, Some(reference)))
    }

    /// The kernel gave references back.
    pub fn forget(&self, ino: Ino, lookups: u64) {
        self.table.forget(ino, lookups);
    }

    async fn snapshot(&self, ino: Ino) -> Result<Vec<DirEntry>> {
        self.directory_is_listed(ino);
        let listing = self.listing(ino).await?;
        let parent = self.table.with(ino, |node| match node.placement {
            Placement::Child { parent, .. } => parent,
            Placement::Root | Placement::Removed => ino,
        })?;
        let dot = |ino, name: &str| DirEntry {
            ino,
            name: name.to_owned(),
            kind: Kind::Directory,
            entry: None,
        };
        let mut entries = vec![dot(ino, "."), dot(parent, "..")];
        let unsent = self.table.unsent_children(ino).into_iter();
        let unsent = unsent.filter(|(_, entry)| !listing.children.contains_key(&entry.name));
        let listed = listing.children.values().cloned();
        entries.extend(listed.chain(unsent).map(|(ino, entry)| DirEntry {
            ino,
            name: entry.name.to_string(),
            kind: entry.kind,
            entry: Some((entry, listing.answer)),
        }));
        Ok(entries)
    }

    /// What the provider lists, not older than the TTL.
    pub(super) async fn listing(&self, ino: Ino) -> Result<Arc<Listing>> {
        let entry = self.entry(ino).await?;
        self.require(&entry, Action::Read)?;
        let shown = |node: &mut Node| {
            let listing = node.listing.clone()?;
            (listing.is_within(self.settings.attr_ttl) || self.provider_is_away()).then_some(listing)
        };
        if let Some(listing) = self.table.with(ino, shown)? {
            return Ok(listing);
        }
        let turn = self.table.with(ino, |node| Arc::clone(&node.listing_turn))?;
        let _turn = turn.take().await;
        if let Some(listing) = self.table.with(ino, shown)? {
            return Ok(listing);
        }
        let known = self.table.with(ino, |node| node.listing.clone())?;
        let question = self.table.question(ino)?;
        let entries = match self.provider.list(&self.entry(ino).await?.key).await {
            Ok(entries) => entries,
            Err(error) => {
                return match known {
                    Some(listing) if self.means_away(&error) => Ok(listing),
                    _ => Err(self.lost(ino, error, &question)),
                };
            }
        };
        let answer = question.answered();
        let listing = Arc::new(self.table.reconcile(ino, entries, answer));
        self.table.with(ino, |node| {
            // A change made here while the provider was listing may be missing from its answer.
            if node.changes == answer.changes {
                node.listing = Some(Arc::clone(&listing));
            }
        })?;
        Ok(listing)
    }

    /// A listing that may be relied on, if there is one.
    pub(super) fn fresh_listing(&self, ino: Ino) -> Option<Arc<Listing>> {
        let listing = self.table.with(ino, |node| node.listing.clone()).ok().flatten()?;
        listing.is_within(self.settings.attr_ttl).then_some(listing)
    }

    /// Whether a directory was listed, however long ago, and had no such name then.
    pub(super) fn was_absent(&self, ino: Ino, name: &Name) -> bool {
        let listed = self.table.with(ino, |node| node.listing.clone());
        listed.is_ok_and(|listing| listing.is_some_and(|listing| !listing.children.contains_key(name)))
    }

    /// Enters a node as the provider has it now into its parent's listing.
    pub(super) fn list_node(&self, ino: Ino) {
        let known = self.table.with(ino, |node| match (&node.placement, node.presence) {
            (Placement::Child { parent, .. }, Presence::AtProvider) => Some((*parent, node.entry.clone())),
            _ => None,
        });
        if let Ok(Some((parent, entry))) = known {
            let _ = self.table.with(parent, |directory| {
                directory.change(&entry.name.clone(), Some((ino, entry)));
            });
        }
    }
}
