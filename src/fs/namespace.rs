//! Names: looking up, making directories, removing, renaming.

use std::ffi::OsStr;

use tokio::sync::OwnedMutexGuard;
use tracing::warn;

use super::inode::{Node, Placement, Presence};
use super::listing::Listing;
use super::table::Reference;
use super::{Child, FileSystem, Ino};
use crate::model::{Action, Entry, Error, ErrorKind, Kind, Name, Result};
use crate::provider::Place;

/// What `renameat2` was asked to mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    Replace,
    /// `RENAME_NOREPLACE`.
    KeepExisting,
}

impl FileSystem {
    /// The child of a directory.
    ///
    /// # Errors
    /// `NotFound`, and as `Provider::lookup`.
    pub async fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Child> {
        let reference = self.find(parent, &Name::from_os(name)?).await?;
        self.as_child(reference)
    }

    /// # Errors
    /// `AlreadyExists`, `Denied`, `ReadOnly`, and as `Provider::create_directory`.
    pub async fn make_directory(&self, parent: Ino, name: &OsStr, mode: u32, umask: u32) -> Result<Child> {
        let (name, parent_entry) = self.may_create(parent, name, Kind::Directory).await?;
        let made = self.provider.create_directory(&parent_entry.key, &name).await;
        let entry = made.inspect_err(|_| self.doubt(&[parent]))?;
        let now = self.table.question(parent)?.answered();
        let reference = self.table.attach(parent, entry, None, now)?;
        self.list_node(reference.ino());
        self.content_changed(parent);
        self.keep_requested_mode(reference.ino(), mode, umask);
        self.as_child(reference)
    }

    /// # Errors
    /// `IsADirectory`, `Denied`, `ReadOnly`, and as `Provider::remove_file`.
    pub async fn unlink(&self, parent: Ino, name: &OsStr) -> Result<()> {
        self.remove(parent, name, Kind::File).await
    }

    /// # Errors
    /// `NotADirectory`, `NotEmpty`, `Denied`, `ReadOnly`, and as `Provider::remove_directory`.
    pub async fn remove_directory(&self, parent: Ino, name: &OsStr) -> Result<()> {
        self.remove(parent, name, Kind::Directory).await
    }

    /// # Errors
    /// `CrossDevice` when the provider cannot move it there, `AlreadyExists` when nothing may be replaced,
    /// `Denied` and `ReadOnly`, and as `Provider::rename`.
    pub async fn rename(&self, from: (Ino, &OsStr), to: (Ino, &OsStr), mode: RenameMode) -> Result<()> {
        let (from, to) = ((from.0, Name::from_os(from.1)?), (to.0, Name::from_os(to.1)?));
        match self.rename_once(&from, &to, mode).await {
            // What is to be replaced is not what it was thought to be: look again, once.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && mode == RenameMode::Replace => {
                let child = self.table.child(to.0, &to.1);
                self.doubt(&[to.0]);
                self.doubt(child.as_ref().map(|child| child.ino()).as_slice());
                self.rename_once(&from, &to, mode).await
            }
            outcome => outcome,
        }
    }

    /// What a rename pushes out was changed here and never sent: nobody wants it any more.
    fn strike_replaced(&self, over: Option<Ino>) {
        let content = over.and_then(|over| self.table.with(over, |node| node.content.clone()).ok()?);
        if let Some(content) = content {
            self.strike(&content.staged);
        }
    }

    async fn rename_once(&self, from: &(Ino, Name), to: &(Ino, Name), mode: RenameMode) -> Result<()> {
        let (old_name, new_name) = (&from.1, &to.1);
        let source = self.find(from.0, old_name).await?;
        let ino = source.ino();
        let target_directory = self.entry(to.0).await?;
        let entry = self.entry(ino).await?;
        self.require(&entry, Action::Write)?;
        self.require(&target_directory, Action::Write)?;
        self.provider.check_name(&target_directory.key, entry.kind, new_name)?;
        let over = match self.find(to.0, new_name).await {
            Ok(over) if over.ino() == ino => return Ok(()),
            Ok(over) => Some(over),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let over_ino = over.as_ref().map(Reference::ino);
        if let Some(over) = over_ino {
            if mode == RenameMode::KeepExisting {
                return Err(Error::new(ErrorKind::AlreadyExists, format!("{new_name} exists")));
            }
            self.may_replace(&entry, &self.entry(over).await?)?;
        }

        let _turns = self.turns(ino, over_ino).await?;
        // Whose turn it was before may have renamed or removed them.
        if self.place(ino)?.as_ref() != Some(from) {
            return Err(Error::not_found(old_name));
        }
        if self.table.child(to.0, new_name).as_ref().map(Reference::ino) != over_ino {
            return Err(Error::new(ErrorKind::AlreadyExists, format!("{new_name} was replaced")));
        }
        if self.table.with(ino, |node| node.presence)? == Presence::Unsent {
            self.rename_unsent(ino, to.0, new_name, over_ino)?;
        } else {
            self.send_staged(ino).await?;
            let replaced = match over_ino {
                Some(over) => {
                    let replaced = self.table.with(over, |node| (node.presence, node.entry.clone()))?;
                    (replaced.0 == Presence::AtProvider).then_some(replaced.1)
                }
                None => None,
            };
            let entry = self.entry(ino).await?;
            let source = Place {
                parent: self.entry(from.0).await?.key,
                name: old_name.clone(),
            };
            let target = Place {
                parent: self.entry(to.0).await?.key,
                name: new_name.clone(),
            };
            let renamed = self.provider.rename(&entry, &source, &target, replaced.as_ref()).await;
            let renamed = renamed.inspect_err(|_| {
                self.doubt(&[ino, from.0, to.0]);
                self.doubt(over_ino.as_slice());
            })?;
            self.strike_replaced(over_ino);
            self.moved(ino, to.0, new_name)?;
            let version = renamed.version.clone();
            self.table.with(ino, |node| node.confirm_same_content(renamed))?;
            self.times_follow(ino, &version);
        }
        self.list_node(ino);
        self.content_changed(from.0);
        self.content_changed(to.0);
        Ok(())
    }

    /// The turns of one or two nodes, in the order of their numbers, so that nobody waits in a circle.
    async fn turns(&self, ino: Ino, other: Option<Ino>) -> Result<Vec<OwnedMutexGuard<()>>> {
        let mut numbers = vec![ino];
        numbers.extend(other);
        numbers.sort_unstable();
        let mut turns = Vec::new();
        for number in numbers {
            turns.push(self.turn(number).await?);
        }
        Ok(turns)
    }

    /// The turn to change a node at the provider.
    pub(super) async fn turn(&self, ino: Ino) -> Result<OwnedMutexGuard<()>> {
        let turn = self.table.with(ino, |node| node.turn.clone())?;
        Ok(turn.take().await)
    }

    /// A child as known or as the provider says.
    pub(super) async fn find(&self, parent: Ino, name: &Name) -> Result<Reference> {
        let mut known = self.table.child(parent, name);
        let fresh = |node: &mut Node| node.is_ours() || node.freshness.is_within(self.settings.attr_ttl);
        if let Some(reference) = known.take_if(|known| {
            let fresh = self.table.with(known.ino(), fresh);
            fresh.unwrap_or(false) || self.provider_is_away()
        }) {
            return Ok(reference);
        }
        // From here on what this mount changes is remembered, so that an older listing or answer doesn't win over it.
        let question = self.table.question(parent)?;
        if let Some(listing) = self.fresh_listing(parent) {
            return self.listed(parent, name, &listing, known);
        }
        let directory = self.entry(parent).await?;
        if !directory.is_directory() {
            return Err(Error::new(
                ErrorKind::NotADirectory,
                format!("{} is a file", directory.name),
            ));
        }
        match self.provider.lookup(&directory.key, name).await {
            Ok(entry) => self.table.attach(parent, entry, None, question.answered()),
            Err(error) => {
                if let Some(known) = known {
                    if self.means_away(&error) {
                        return Ok(known);
                    }
                    self.lost(known.ino(), error.clone(), &question);
                    return Err(error);
                }
                // What was not there when it was last listed can be made: it is sent when somebody answers. One who answers
                // "not now" will say so soon enough.
                let later = matches!(error.kind(), ErrorKind::RateLimited { .. });
                if !later && self.means_away(&error) && self.was_absent(parent, name) {
                    return Err(Error::not_found(name));
                }
                Err(error)
            }
        }
    }

    /// What a listing says of a name.
    fn listed(&self, parent: Ino, name: &Name, listing: &Listing, known: Option<Reference>) -> Result<Reference> {
        match listing.children.get(name) {
            Some((number, entry)) => self.table.attach(parent, entry.clone(), Some(*number), listing.answer),
            None => {
                if let Some(known) = known {
                    self.table.gone(known.ino(), listing.answer);
                }
                Err(Error::not_found(name))
            }
        }
    }

    /// Checks that a child of this kind may be made; gives its name and the directory.
    pub(super) async fn may_create(&self, parent: Ino, name: &OsStr, kind: Kind) -> Result<(Name, Entry)> {
        let name = Name::from_os(name)?;
        let directory = self.entry(parent).await?;
        self.require(&directory, Action::Write)?;
        self.provider.check_name(&directory.key, kind, &name)?;
        Ok((name, directory))
    }

    fn may_replace(&self, entry: &Entry, replaced: &Entry) -> Result<()> {
        match (entry.kind, replaced.kind) {
            (Kind::File, Kind::Directory) => {
                return Err(Error::new(
                    ErrorKind::IsADirectory,
                    format!("{} is a directory", replaced.name),
                ));
            }
            (Kind::Directory, Kind::File) => {
                return Err(Error::new(
                    ErrorKind::NotADirectory,
                    format!("{} is a file", replaced.name),
                ));
            }
            _ => {}
        }
        self.require(replaced, Action::Delete)
    }

    async fn remove(&self, parent: Ino, name: &OsStr, kind: Kind) -> Result<()> {
        let name = Name::from_os(name)?;
        let reference = self.find(parent, &name).await?;
        let ino = reference.ino();
        let entry = self.entry(ino).await?;
        match (kind, entry.kind) {
            (Kind::File, Kind::Directory) => {
                return Err(Error::new(ErrorKind::IsADirectory, format!("{name} is a directory")));
            }
            (Kind::Directory, Kind::File) => {
                return Err(Error::new(ErrorKind::NotADirectory, format!("{name} is a file")));
            }
            _ => {}
        }
        self.require(&entry, Action::Delete)?;
        let _turn = self.turn(ino).await?;
        // Whose turn it was before may have renamed or removed it.
        if self.place(ino)? != Some((parent, name.clone())) {
            return Err(Error::not_found(&name));
        }
        let (presence, entry) = self.table.with(ino, |node| (node.presence, node.entry.clone()))?;
        let outcome = match kind {
            _ if presence == Presence::Unsent => Ok(()),
            Kind::File => self.provider.remove_file(&entry).await,
            Kind::Directory if !self.table.unsent_children(ino).is_empty() => {
                Err(Error::new(ErrorKind::NotEmpty, format!("{name} is not empty")))
            }
            Kind::Directory => self.provider.remove_directory(&entry).await,
        };
        if let Err(error) = &outcome
            && error.kind() != ErrorKind::NotFound
        {
            self.doubt(&[ino, parent]);
            return outcome;
        }
        if let Some(path) = self.table.path(ino)
            && let Err(error) = self.state.remove(&self.namespace(), &path)
        {
            warn!(path, %error, "the modes and times of what was removed are kept");
        }
        if let Ok(Some(content)) = self.table.with(ino, |node| node.content.clone()) {
            self.strike(&content.staged);
        }
        self.table.remove(ino);
        self.content_changed(parent);
        outcome
    }

    /// A file that the provider doesn't have takes its new name here; it will be sent as the new version of what it replaces.
    fn rename_unsent(&self, ino: Ino, parent: Ino, name: &Name, over: Option<Ino>) -> Result<()> {
        let replaced = match over {
            Some(over) => self.table.with(over, |node| match (node.presence, &node.content) {
                (Presence::Unsent, _) => None,
                (Presence::AtProvider, Some(content)) => content.replaces.clone(),
                (Presence::AtProvider, None) => Some(node.entry.clone()),
            })?,
            None => None,
        };
        self.strike_replaced(over);
        self.moved(ino, parent, name)?;
        let renamed = self.table.with(ino, |node| {
            if let Some(replaced) = &replaced {
                node.entry = replaced.clone();
                node.presence = Presence::AtProvider;
            }
            if let Some(content) = &mut node.content {
                content.replaces = replaced;
            }
        });
        self.enter_again(ino);
        renamed
    }

    pub(super) fn moved(&self, ino: Ino, parent: Ino, name: &Name) -> Result<()> {
        let old_path = self.table.path(ino);
        self.table.relocate(ino, parent, name)?;
        if let (Some(old), Some(new)) = (old_path, self.table.path(ino)) {
            if let Err(error) = self.state.rename(&self.namespace(), &old, &new) {
                warn!(old, new, %error, "the modes and times of what was renamed are not kept");
            }
            self.renamed_in_journal(&old, &new);
        }
        Ok(())
    }

    /// The directory that holds a node, and the name it has there.
    pub(super) fn place(&self, ino: Ino) -> Result<Option<(Ino, Name)>> {
        self.table.with(ino, |node| match &node.placement {
            Placement::Child { parent, name } => Some((*parent, name.clone())),
            Placement::Root | Placement::Removed => None,
        })
    }
}
