//! Listing directories.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures_util::poll;
use tracing::warn;

use super::handle::{DirectoryHandle, Handle, HandleId};
use super::inode::{Answer, Node, Placement};
use super::listing::Listing;
use super::reference::Reference;
use super::{FileSystem, Found, Ino};
use crate::model::{Action, Entry, Error, ErrorKind, FileType, Kind, Name, Result};
use crate::state::ChildAttributes;

/// One line of `readdir`.
#[derive(Clone, Debug)]
pub struct DirEntry {
    pub ino: Ino,
    /// `.` and `..` too, which are no `Name`s.
    pub name: String,
    pub kind: Kind,
    pub file_type: FileType,
    origin: Origin,
}

/// Who says that an entry is there.
#[derive(Clone, Debug)]
enum Origin {
    /// `.` and `..`
    Dots,
    /// What the provider said, and when.
    Provider(Box<(Entry, Answer)>),
    /// It is kept on this host only.
    Local,
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

    /// What this host keeps of all that is in a directory, to be shown with its entries. Where it isn't known, each one is
    /// asked for.
    pub fn kept_inside(&self, directory: Ino) -> Option<ChildAttributes> {
        let _paths = self.paths.read_recursive();
        let path = self.table.path(directory)?;
        self.state.attributes_in(&self.namespace(), &path).ok()
    }

    /// The attributes of a listed entry, for `readdirplus`, with a reference unless it is `.` or `..`.
    ///
    /// # Errors
    /// `Changed` when the directory is gone.
    pub fn listed_attributes(
        &self,
        directory: Ino,
        listed: &DirEntry,
        kept: Option<&ChildAttributes>,
    ) -> Result<(Found, Option<Reference>)> {
        let reference = match &listed.origin {
            Origin::Dots => return Ok((self.known_attributes(listed.ino)?, None)),
            Origin::Provider(answer) => {
                let (entry, answer) = &**answer;
                let reference = self.table.attach(directory, entry.clone(), Some(listed.ino), *answer)?;
                if let Some(kept) = kept {
                    self.take_kept(reference.ino(), kept, &listed.name)?;
                }
                reference
            }
            Origin::Local => self.local_child(directory, &Name::new(&*listed.name)?)?,
        };
        Ok((self.known_attributes(reference.ino())?, Some(reference)))
    }

    /// The kernel gave references back.
    pub fn forget(&self, ino: Ino, lookups: u64) {
        self.table.forget(ino, lookups);
    }

    async fn snapshot(&self, ino: Ino) -> Result<Vec<DirEntry>> {
        let mut listing = pin!(self.listing(ino));
        // Asked for before what may be wanted after it: the connection that is free is for who waits.
        let known = poll!(listing.as_mut());
        self.directory_is_listed(ino);
        let listing = match known {
            Poll::Ready(listing) => listing?,
            Poll::Pending => listing.await?,
        };
        self.directory_was_listed(ino, &listing);
        let parent = self.table.with(ino, |node| match node.placement {
            Placement::Child { parent, .. } => parent,
            Placement::Root | Placement::Removed => ino,
        })?;
        let dot = |ino, name: &str| DirEntry {
            ino,
            name: name.to_owned(),
            kind: Kind::Directory,
            file_type: FileType::Directory,
            origin: Origin::Dots,
        };
        let mut entries = vec![dot(ino, "."), dot(parent, "..")];
        let shown = self.table.shown(ino, &listing).into_iter();
        let local = self.local_children(ino).unwrap_or_else(|error| {
            warn!(ino = ino.0, %error, "what only this host has is not listed");
            Vec::new()
        });
        let hidden: HashSet<&Name> = local.iter().map(|(name, ..)| name).collect();
        let visible = shown.filter(|(_, entry)| !hidden.contains(&entry.name));
        entries.extend(visible.map(|(ino, entry)| DirEntry {
            ino,
            name: entry.name.to_string(),
            kind: entry.kind,
            file_type: match entry.kind {
                Kind::File => FileType::File,
                Kind::Directory => FileType::Directory,
            },
            origin: Origin::Provider(Box::new((entry, listing.answer))),
        }));
        entries.extend(local.iter().map(|(name, ino, file_type)| DirEntry {
            ino: *ino,
            name: name.to_string(),
            kind: Kind::File,
            file_type: *file_type,
            origin: Origin::Local,
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
        if let Some(remembered) = self.remembered(ino) {
            return Ok(self.shown_meanwhile(ino, remembered).await);
        }
        let turn = self.table.with(ino, |node| Arc::clone(&node.listing_turn))?;
        let _turn = turn.take().await;
        if let Some(listing) = self.table.with(ino, shown)? {
            return Ok(listing);
        }
        let known = self.table.with(ino, |node| node.listing.clone())?;
        match (self.ask(ino).await, known) {
            (Err(error), Some(known)) if self.means_away(&error) => Ok(known),
            (outcome, _) => outcome,
        }
    }

    /// Has the provider list a directory. To be called by whose turn it is.
    pub(super) async fn ask(&self, ino: Ino) -> Result<Arc<Listing>> {
        // From here on what this mount changes is remembered, and what it changed before is in what is known.
        let question = self.table.question(ino)?;
        let known = self.table.with(ino, |node| node.listing.clone())?;
        let key = self.entry(ino).await?.key;
        let entries = match self.provider.list(&key).await {
            Ok(entries) => entries,
            Err(error) if self.was_moved(ino, &key, &error).await => return Box::pin(self.ask(ino)).await,
            Err(error) => return Err(self.lost(ino, error, &question)),
        };
        let answer = question.answered();
        let kept = self.kept_numbers(ino, &entries);
        let mut listing = self.table.reconcile(ino, entries, &kept, answer);
        // Taken first: a file that is sent in between is then in both, not in neither.
        let unsent = self.table.unsent_children(ino);
        let (listing, is_untouched, ours) = self.table.with(ino, |node| {
            let is_untouched = node.changes == answer.changes;
            let ours = node.changed_since(answer);
            let is_whole = node.add_changes(&mut listing);
            let listing = Arc::new(listing);
            node.subdirectories = Some(listing.subdirectories());
            if is_whole {
                let mut kept = Arc::clone(&listing);
                if !node.may_rely_on(answer) {
                    Arc::make_mut(&mut kept).expire();
                }
                node.listing = Some(kept);
            }
            (listing, is_untouched, ours)
        })?;
        if let (Some(known), Some(mut ours)) = (&known, ours) {
            ours.extend(unsent.into_iter().map(|(_, entry)| entry.name));
            if differs(known, &listing, &ours) {
                self.names_changed_elsewhere(ino);
            }
        }
        if is_untouched && !listing.is_expired() {
            self.keep_listing(ino, key, &listing, known.as_deref());
            self.forget_orphans(ino, &listing);
        }
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
        let _ = self.with_listed(ino, |_| ());
    }

    /// As `list_node`, at the same moment with a change after which the provider has the node.
    ///
    /// # Errors
    /// `Changed` (ESTALE) for a number that is not in the table.
    pub(super) fn with_listed<T>(&self, ino: Ino, change: impl FnOnce(&mut Node) -> T) -> Result<T> {
        let outcome = self.table.with_listed(ino, change)?;
        if let Ok(Some((parent, _))) = self.place(ino) {
            self.kept_is_outdated(parent);
        }
        Ok(outcome)
    }
}

/// Whether somebody else made or removed something: `ours` are the names that this mount changed.
fn differs(known: &Listing, listed: &Listing, ours: &HashSet<Name>) -> bool {
    fn others<'a>(listing: &'a Listing, ours: &'a HashSet<Name>) -> impl Iterator<Item = &'a Name> {
        listing.children.keys().filter(|name| !ours.contains(*name))
    }
    !others(known, ours).eq(others(listed, ours))
}
