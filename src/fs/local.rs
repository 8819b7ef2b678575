//! Symbolic links, fifos, sockets and device files: no provider has a place for them, so they live in the state database
//! of this host, beside the provider's entries. What has a name here hides what gets that name at the provider.
//!
//! Only these can have several names: a provider's file has one.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::time::SystemTime;

use tracing::warn;

use super::attributes::Keep;
use super::inode::{Presence, entry_of_this_host};
use super::reference::Reference;
use super::{Child, FileSystem, Ino};
use crate::model::{Action, Entry, Error, ErrorKind, FileType, Kind, Name, Result, Special, Version};
use crate::state::{LocalAttributes, LocalTimes};

/// The longest target of a symbolic link, in bytes (`PATH_MAX` with its end).
const LONGEST_TARGET: usize = 4095;

impl FileSystem {
    /// A symbolic link, a fifo, a socket or a device file.
    ///
    /// # Errors
    /// `AlreadyExists`, `Denied`, `ReadOnly`, `NameTooLong` for a target, and the disk's.
    pub async fn make_special(&self, parent: Ino, name: &OsStr, special: Special, mode: u32) -> Result<Child> {
        if special.size() > LONGEST_TARGET as u64 {
            let message = format!("a symbolic link holds {LONGEST_TARGET} bytes at most");
            return Err(Error::new(ErrorKind::NameTooLong, message));
        }
        let (name, directory) = self.may_create(parent, name, Kind::File).await?;
        let making = self.making(parent, &name);
        self.must_be_free(parent, &name).await?;
        let now = SystemTime::now();
        let local = LocalAttributes {
            ino: Some(Ino::unused().0),
            mode: Some(mode & 0o7777),
            times: Some(LocalTimes::written(now, Version::new(""))),
            changed: Some(now),
            special: Some(special),
            ..LocalAttributes::default()
        };
        let reference = self.attach_named(parent, &directory, name, local)?;
        self.names_changed(parent);
        let child = self.as_child(reference)?;
        making.succeeded();
        Ok(child)
    }

    /// Another name for a node that only this host has.
    ///
    /// # Errors
    /// `NotPermitted` for files and directories of the provider, `AlreadyExists`, and as `make_special`.
    pub async fn link(&self, ino: Ino, parent: Ino, name: &OsStr) -> Result<Child> {
        let local = self.local_attributes(ino)?;
        if local.special.is_none() {
            let message = "the provider keeps no hard links: a file has one name there";
            return Err(Error::new(ErrorKind::NotPermitted, message));
        }
        let (name, directory) = self.may_create(parent, name, Kind::File).await?;
        let making = self.making(parent, &name);
        self.must_be_free(parent, &name).await?;
        let local = LocalAttributes {
            ino: Some(ino.0),
            changed: Some(SystemTime::now()),
            ..local
        };
        let reference = self.attach_named(parent, &directory, name, local.clone())?;
        // The other names have the new time too.
        self.keep_local_attributes(ino, local, Keep::Now)?;
        self.names_changed(parent);
        let child = self.as_child(reference)?;
        making.succeeded();
        Ok(child)
    }

    /// # Errors
    /// `InvalidInput` for what is no symbolic link.
    pub fn read_link(&self, ino: Ino) -> Result<Vec<u8>> {
        match self.local_attributes(ino)?.special {
            Some(Special::Symlink(target)) => Ok(target.to_vec()),
            _ => Err(Error::new(ErrorKind::InvalidInput, "that is no symbolic link")),
        }
    }

    /// What is kept here for a name, whoever has it. While the state database fails, what the provider has can be used
    /// all the same.
    pub(super) fn kept(&self, parent: Ino, name: &Name) -> LocalAttributes {
        let _paths = self.paths.read_recursive();
        let path = self.path_below(parent, name);
        path.map_or_else(LocalAttributes::default, |path| self.kept_at(&self.namespace(), &path))
    }

    /// The path of a name in a directory; `None` when the directory was removed.
    pub(super) fn path_below(&self, directory: Ino, name: &Name) -> Option<String> {
        Some(below(&self.table.path(directory)?, name))
    }

    fn kept_at(&self, namespace: &str, path: &str) -> LocalAttributes {
        self.state.attributes(namespace, path).unwrap_or_else(|error| {
            warn!(path, %error, "what is kept of a file on this host is not known");
            LocalAttributes::default()
        })
    }

    /// The numbers that listed names have which don't follow from them.
    pub(super) fn kept_numbers(&self, directory: Ino, listed: &[Entry]) -> HashMap<Name, Ino> {
        let _paths = self.paths.read_recursive();
        let Some(path) = self.table.path(directory) else {
            return HashMap::new();
        };
        let kept = match self.state.attributes_in(&self.namespace(), &path) {
            Ok(kept) => kept,
            Err(error) => {
                warn!(path, %error, "what is kept of files on this host is not known");
                return HashMap::new();
            }
        };
        let number = |entry: &Entry| Some((entry.name.clone(), Ino(kept.of(entry.name.as_str()).ino?)));
        listed.iter().filter_map(number).collect()
    }

    /// A node that only this host has, by what is kept of it.
    pub(super) fn attach_kept(&self, parent: Ino, name: Name, local: LocalAttributes) -> Result<Reference> {
        let directory = self.table.with(parent, |node| node.entry.clone())?;
        self.table.attach_local(parent, entry(&directory, name), local)
    }

    /// A name that a listing showed as one of this host.
    pub(super) fn local_child(&self, parent: Ino, name: &Name) -> Result<Reference> {
        let kept = self.kept(parent, name);
        if kept.special.is_none() {
            return Err(Error::not_found(name));
        }
        self.attach_kept(parent, name.clone(), kept)
    }

    /// The nodes in a directory that only this host has, with their numbers.
    pub(super) fn local_children(&self, directory: Ino) -> Result<Vec<(Name, Ino, FileType)>> {
        let _paths = self.paths.read_recursive();
        let Some(path) = self.table.path(directory) else {
            return Ok(Vec::new());
        };
        let children = self.state.specials(&self.namespace(), &path)?.into_iter();
        Ok(children
            .filter_map(|child| {
                let file_type = child.attributes.special.as_ref()?.file_type();
                Some((Name::new(child.name).ok()?, Ino(child.attributes.ino?), file_type))
            })
            .collect())
    }

    /// Takes a name from a node that only this host has.
    pub(super) fn remove_local(&self, ino: Ino, parent: Ino, name: &Name) -> Result<()> {
        {
            let _paths = self.paths.read_recursive();
            if let Some(directory) = self.table.path(parent) {
                self.state.remove(&self.namespace(), &below(&directory, name))?;
            }
        }
        self.table.remove_name(parent, name);
        self.touched(ino);
        self.names_changed(parent);
        Ok(())
    }

    /// Gives a node that only this host has another name; what had that is removed, at the provider too.
    pub(super) async fn rename_local(
        &self,
        ino: Ino,
        from: &(Ino, Name),
        to: &(Ino, Name),
        over: Option<Ino>,
    ) -> Result<()> {
        if let Some(over) = over {
            let (presence, replaced) = self.table.with(over, |node| (node.presence, node.entry.clone()))?;
            self.keep_open_content(over).await?;
            if presence == Presence::AtProvider {
                let removed = self.remove_there(over, &replaced).await;
                removed.inspect_err(|_| self.doubt(&[over, to.0]))?;
            }
        }
        let replaced = self.staged_of(over);
        let local = self.local_attributes(ino)?;
        let directory = self.table.with(to.0, |node| node.entry.clone())?;
        let namespace = self.namespace();
        if let (Some(old), Some(new)) = (self.table.path(from.0), self.table.path(to.0)) {
            self.state
                .rename(&namespace, &below(&old, &from.1), &below(&new, &to.1))?;
        }
        if let Some(over) = over {
            self.table.remove_name(to.0, &to.1);
            self.touched(over);
        }
        self.forget_removed(replaced).await;
        let entry = entry(&directory, to.1.clone());
        self.table.attach_local(to.0, entry, local)?;
        self.table.remove_name(from.0, &from.1);
        self.touched(ino);
        Ok(())
    }

    fn attach_named(&self, parent: Ino, directory: &Entry, name: Name, local: LocalAttributes) -> Result<Reference> {
        let _paths = self.paths.read_recursive();
        let path = self.table.path(parent).map(|path| below(&path, &name));
        let reference = self
            .table
            .attach_local(parent, entry(directory, name.clone()), local.clone())?;
        if let Some(path) = path
            && let Err(error) = self.state.set_attributes(&self.namespace(), &path, &local)
        {
            self.table.remove_name(parent, &name);
            return Err(error);
        }
        Ok(reference)
    }

    /// The kernel asked before, but somebody else may have been faster.
    async fn must_be_free(&self, parent: Ino, name: &Name) -> Result<()> {
        let directory = self.entry(parent).await?;
        self.require(&directory, Action::Write)?;
        match self.find(parent, name).await {
            Ok(_) => Err(Error::new(ErrorKind::AlreadyExists, format!("{name} exists"))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn below(directory: &str, name: &Name) -> String {
    if directory.is_empty() {
        name.to_string()
    } else {
        format!("{directory}/{name}")
    }
}

fn entry(directory: &Entry, name: Name) -> Entry {
    entry_of_this_host(name, directory.rights, SystemTime::UNIX_EPOCH)
}
