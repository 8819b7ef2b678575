//! Listing directories.

use std::sync::Arc;

use tokio::time::Instant;

use super::handle::{DirectoryHandle, Handle, HandleId};
use super::inode::{Placement, Presence};
use super::listing::Listing;
use super::{FileSystem, Found, Ino};
use crate::model::{Action, Entry, Error, ErrorKind, Kind, Name, Result};

/// One line of `readdir`.
#[derive(Clone, Debug)]
pub struct DirEntry {
    pub ino: Ino,
    /// `.` and `..` too, which are no `Name`s.
    pub name: String,
    pub kind: Kind,
    /// What the provider said; `None` for `.` and `..`.
    entry: Option<Entry>,
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
        self.table.opened(ino)?;
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
            self.table.closed(directory.ino);
        }
    }

    /// The attributes of a listed entry, for `readdirplus`. The kernel does not hold it before `remember`.
    pub fn listed_attributes(&self, directory: Ino, listed: &DirEntry) -> Result<Found> {
        let ino = match &listed.entry {
            Some(entry) => self.table.attach(directory, entry.clone(), Some(listed.ino))?,
            None => listed.ino,
        };
        self.known_attributes(ino)
    }

    /// The kernel got a reference to this node.
    pub fn remember(&self, ino: Ino) {
        self.table.remember(ino);
    }

    /// The kernel did not take what `listed_attributes` prepared.
    pub fn settle(&self, ino: Ino) {
        self.table.settle(ino);
    }

    /// The kernel gave references back.
    pub fn forget(&self, ino: Ino, lookups: u64) {
        self.table.forget(ino, lookups);
    }

    async fn snapshot(&self, ino: Ino) -> Result<Vec<DirEntry>> {
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
            entry: Some(entry),
        }));
        Ok(entries)
    }

    /// What the provider lists, not older than the TTL.
    pub(super) async fn listing(&self, ino: Ino) -> Result<Arc<Listing>> {
        let entry = self.entry(ino).await?;
        self.require(&entry, Action::Read)?;
        let (known, revision) = self.table.with(ino, |node| (node.listing.clone(), node.revision))?;
        if let Some(listing) = &known
            && (listing.is_within(self.settings.attr_ttl) || self.provider_is_away())
        {
            return Ok(Arc::clone(listing));
        }
        let started = Instant::now();
        let entries = match self.provider.list(&entry.key).await {
            Ok(entries) => entries,
            Err(error) => {
                return match known {
                    Some(listing) if self.means_away(&error) => Ok(listing),
                    _ => Err(self.lost(ino, error)),
                };
            }
        };
        let listing = Arc::new(self.table.reconcile(ino, entries, started));
        self.table.with(ino, |node| {
            // A change made here while the provider was listing may be missing from its answer.
            if node.revision == revision {
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

    /// Brings a directory's listing up to a change made here.
    pub(super) fn listing_changed(&self, directory: Ino, removed: Option<&Name>, added: Option<(Ino, Entry)>) {
        let _ = self.table.with(directory, |node| {
            node.revision += 1;
            if let Some(listing) = node.listing.as_mut().map(Arc::make_mut) {
                if let Some(name) = removed {
                    listing.children.remove(name);
                }
                if let Some((ino, entry)) = added {
                    listing.children.insert(entry.name.clone(), (ino, entry));
                }
            }
        });
    }

    /// Enters a node as the provider has it now into its parent's listing.
    pub(super) fn list_node(&self, ino: Ino) {
        let known = self.table.with(ino, |node| match (&node.placement, node.presence) {
            (Placement::Child { parent, .. }, Presence::AtProvider) => Some((*parent, node.entry.clone())),
            _ => None,
        });
        if let Ok(Some((parent, entry))) = known {
            self.listing_changed(parent, None, Some((ino, entry)));
        }
    }
}
