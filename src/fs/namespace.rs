//! Names: looking up, making directories, removing, renaming.

use std::ffi::OsStr;

use super::inode::{Placement, Presence};
use super::{FileSystem, Found, Ino, inode};
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
    /// The child of a directory; the kernel holds a reference afterwards.
    ///
    /// # Errors
    /// `NotFound`, and as `Provider::lookup`.
    pub async fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Found> {
        let ino = self.find(parent, &Name::from_os(name)?).await?;
        let found = self.known_attributes(ino)?;
        self.table.remember(ino);
        Ok(found)
    }

    /// # Errors
    /// `AlreadyExists`, `Denied`, `ReadOnly`, and as `Provider::create_directory`.
    pub async fn make_directory(&self, parent: Ino, name: &OsStr, mode: u32, umask: u32) -> Result<Found> {
        let (name, parent_entry) = self.may_create(parent, name, Kind::Directory).await?;
        let entry = self.provider.create_directory(&parent_entry.key, &name).await?;
        let ino = self.table.attach(parent, entry, None)?;
        self.list_node(ino);
        self.keep_requested_mode(ino, mode, umask)?;
        let found = self.known_attributes(ino)?;
        self.table.remember(ino);
        Ok(found)
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
                self.table.with(to.0, inode::Node::expire)?;
                if let Some(child) = self.table.child(to.0, &to.1) {
                    self.table.with(child, inode::Node::expire)?;
                }
                self.rename_once(&from, &to, mode).await
            }
            outcome => outcome,
        }
    }

    async fn rename_once(&self, from: &(Ino, Name), to: &(Ino, Name), mode: RenameMode) -> Result<()> {
        let (old_name, new_name) = (&from.1, &to.1);
        let ino = self.find(from.0, old_name).await?;
        let target_directory = self.entry(to.0).await?;
        let entry = self.entry(ino).await?;
        self.require(&entry, Action::Write)?;
        self.require(&target_directory, Action::Write)?;
        self.provider.check_name(&target_directory.key, entry.kind, new_name)?;
        let over = match self.find(to.0, new_name).await {
            Ok(over) if over == ino => return Ok(()),
            Ok(over) => Some(over),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(over) = over {
            if mode == RenameMode::KeepExisting {
                return Err(Error::new(ErrorKind::AlreadyExists, format!("{new_name} exists")));
            }
            self.may_replace(&entry, &self.entry(over).await?)?;
        }

        let changes = self.table.with(ino, |node| node.changes.clone())?;
        let _one_at_a_time = changes.lock().await;
        if self.table.with(ino, |node| node.presence)? == Presence::Unsent {
            self.rename_unsent(ino, to.0, new_name, over)?;
        } else {
            self.send_staged(ino).await?;
            let replaced = match over {
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
            let renamed = self
                .provider
                .rename(&entry, &source, &target, replaced.as_ref())
                .await?;
            self.moved(ino, to.0, new_name)?;
            self.table.with(ino, |node| {
                if let Some(content) = &mut node.content {
                    content.replaces = Some(renamed.clone());
                }
                node.confirm(renamed);
            })?;
        }
        self.listing_changed(from.0, Some(old_name), None);
        self.listing_changed(to.0, Some(new_name), None);
        self.list_node(ino);
        Ok(())
    }

    /// The number of a child as known or as the provider says, without a reference for the kernel.
    pub(super) async fn find(&self, parent: Ino, name: &Name) -> Result<Ino> {
        let known = self.table.child(parent, name);
        if let Some(ino) = known {
            let fresh = self.table.with(ino, |node| {
                node.is_ours() || node.freshness.is_within(self.settings.attr_ttl)
            });
            if fresh.unwrap_or(false) || self.provider_is_away() {
                return Ok(ino);
            }
        }
        if let Some(listing) = self.fresh_listing(parent) {
            return match listing.children.get(name) {
                Some((number, entry)) => self.table.attach(parent, entry.clone(), Some(*number)),
                None => {
                    self.push_out(parent, name);
                    Err(Error::not_found(name))
                }
            };
        }
        let directory = self.entry(parent).await?;
        if !directory.is_directory() {
            return Err(Error::new(
                ErrorKind::NotADirectory,
                format!("{} is a file", directory.name),
            ));
        }
        match self.provider.lookup(&directory.key, name).await {
            Ok(entry) => self.table.attach(parent, entry, None),
            Err(error) => {
                if let Some(ino) = known
                    && self.means_away(&error)
                {
                    return Ok(ino);
                }
                if error.kind() == ErrorKind::NotFound {
                    self.push_out(parent, name);
                }
                Err(error)
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

    fn push_out(&self, parent: Ino, name: &Name) {
        if let Some(gone) = self.table.child(parent, name)
            && !self.table.with(gone, |node| node.is_ours()).unwrap_or(true)
        {
            self.table.remove(gone);
        }
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
        let ino = self.find(parent, &name).await?;
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
        let changes = self.table.with(ino, |node| node.changes.clone())?;
        let _one_at_a_time = changes.lock().await;
        let (presence, entry) = self.table.with(ino, |node| (node.presence, node.entry.clone()))?;
        if presence == Presence::AtProvider {
            let outcome = match kind {
                Kind::File => self.provider.remove_file(&entry).await,
                Kind::Directory if !self.table.unsent_children(ino).is_empty() => {
                    Err(Error::new(ErrorKind::NotEmpty, format!("{name} is not empty")))
                }
                Kind::Directory => self.provider.remove_directory(&entry).await,
            };
            outcome.map_err(|error| self.lost(ino, error))?;
        }
        if let Some(path) = self.table.path(ino) {
            self.state.remove(&self.namespace, &path)?;
        }
        self.table.remove(ino);
        self.listing_changed(parent, Some(&name), None);
        Ok(())
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
        self.moved(ino, parent, name)?;
        self.table.with(ino, |node| {
            if let Some(replaced) = &replaced {
                node.entry = replaced.clone();
                node.presence = Presence::AtProvider;
            }
            if let Some(content) = &mut node.content {
                content.replaces = replaced;
            }
        })
    }

    fn moved(&self, ino: Ino, parent: Ino, name: &Name) -> Result<()> {
        let old_path = self.table.path(ino);
        self.table.relocate(ino, parent, name)?;
        if let (Some(old), Some(new)) = (old_path, self.table.path(ino)) {
            self.state.rename(&self.namespace, &old, &new)?;
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
