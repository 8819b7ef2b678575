//! What `stat` shows, made of the provider's entry, what was changed here, and what `chmod`, `chown` and `utimens` set.

use std::time::{Duration, SystemTime};

use tracing::warn;

use super::handle::HandleId;
use super::inode::{Node, Placement};
use super::reference::Reference;
use super::shared::{chosen_mode, chosen_times};
use super::{FileSystem, Ino};
use crate::model::{Action, Error, ErrorKind, FileType, Kind, Result, Rights, Special, Version};
use crate::provider::{ChmodEffect, LabelSupport, VISIBILITY};
use crate::state::{ChildAttributes, LocalAttributes, LocalTimes, Standing};

/// The attributes of a node, in the kernel's terms but in our own type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    pub ino: Ino,
    pub kind: Kind,
    pub file_type: FileType,
    /// In bytes.
    pub size: u64,
    /// Permission bits with set-user-ID, set-group-ID and the sticky bit.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub modified: SystemTime,
    pub accessed: SystemTime,
    /// When anything of it changed here, `ctime`.
    pub changed: SystemTime,
    /// Names that it has; 1 for a directory of which nobody knows how many directories it holds.
    pub links: u32,
    /// A device file's number.
    pub device: u32,
}

/// Whom new entries belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// The user who mounted, whoever makes them.
    Mounter,
    /// Whoever makes them, and whom `chown` gives them to; kept on this host.
    Kept,
}

/// Who asks for something to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
}

/// Attributes and how long the kernel may rely on them.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    pub attributes: Attributes,
    pub ttl: Duration,
}

/// A child of a directory with a reference to it: given to the kernel by `keep`, or given back by itself.
#[derive(Debug)]
pub struct Child {
    pub found: Found,
    pub(super) reference: Reference,
}

impl Child {
    /// The kernel has it from now on.
    pub fn keep(self) -> Found {
        self.reference.keep();
        self.found
    }
}

impl std::ops::Deref for Child {
    type Target = Found;

    fn deref(&self) -> &Found {
        &self.found
    }
}

/// What `setattr` asks for; `None` leaves as it is.
#[derive(Clone, Debug, Default)]
pub struct AttributeChange {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// In bytes.
    pub size: Option<u64>,
    /// The handle by which the size is set, whose `flush` sends it; without one it is sent at once.
    pub handle: Option<HandleId>,
    pub accessed: Option<SystemTime>,
    pub modified: Option<SystemTime>,
}

/// When the state database has what is kept of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// When the call returns: somebody asked for it.
    Now,
    /// With the next commit of the journal, or a second later: it follows from another change.
    Soon,
}

impl Keep {
    /// A new file outlives this process when it is closed, a directory at once; what is kept of them, with them.
    fn of_new(kind: Kind) -> Self {
        match kind {
            Kind::File => Self::Soon,
            Kind::Directory => Self::Now,
        }
    }
}

/// Set-user-ID, set-group-ID and the sticky bit, and what everybody may do.
const MODE_BITS: u32 = 0o7777;
const SET_GROUP_ID: u32 = 0o2000;

/// The mode to show: what a person set, as far as the grants cover it, or what the grants say.
fn shown_mode(rights: Rights, kind: Kind, umask: u32, chosen: Option<u32>) -> u32 {
    let Some(chosen) = chosen else {
        return rights.mode(kind, umask);
    };
    let granted = rights.mode(kind, 0);
    let execute = if kind == Kind::File && rights.read { 0o111 } else { 0 };
    (granted & 0o1000) | (chosen & (0o7000 | granted | execute))
}

/// Where `chmod` publishes, modes show what is published, whoever did it.
fn with_visibility(mode: u32, kind: Kind, visibility: Option<&str>) -> u32 {
    let readable = match kind {
        _ if mode & 0o400 == 0 => 0,
        Kind::File => 0o044,
        Kind::Directory => 0o055,
    };
    match visibility {
        Some("public") => mode | readable,
        Some(_) => mode & !0o004,
        None => mode,
    }
}

impl FileSystem {
    /// `stat` of a node.
    ///
    /// # Errors
    /// `NotFound` when the provider lost it, and as `Provider::stat`.
    pub async fn attributes(&self, ino: Ino) -> Result<Found> {
        self.fresh_entry(ino).await?;
        self.known_attributes(ino)
    }

    /// `chmod`, `chown`, `utimens` and `truncate`.
    ///
    /// # Errors
    /// `NotPermitted` for another owner where none are kept, `Denied` and `ReadOnly` without the right to write.
    pub async fn set_attributes(&self, ino: Ino, change: AttributeChange) -> Result<Found> {
        let entry = match change.handle {
            // It was asked for when that was opened.
            Some(_) => self.entry(ino).await?,
            None => self.fresh_entry(ino).await?,
        };
        let foreign = |asked: Option<u32>, own: u32| asked.is_some_and(|id| id != own && id != u32::MAX);
        if self.owners == Owners::Mounter
            && (foreign(change.uid, self.settings.uid) || foreign(change.gid, self.settings.gid))
        {
            let message = "the provider keeps no owners: everything belongs to the user who mounted";
            return Err(Error::new(ErrorKind::NotPermitted, message));
        }
        self.require(&entry, Action::Write)?;
        if let Some(size) = change.size {
            self.resize(ino, size, change.handle).await?;
        }
        if let Some(mode) = change.mode {
            self.follow_mode(ino, mode).await?;
        }
        let sets_shared = change.mode.is_some() || change.accessed.is_some() || change.modified.is_some();
        if sets_shared {
            // What is set now takes the place of all that is there.
            self.ask_attributes(ino).await?;
        }
        self.keep_change(ino, &change)?;
        if sets_shared {
            self.attributes_were_set(ino);
        }
        self.known_attributes(ino)
    }

    fn keep_change(&self, ino: Ino, change: &AttributeChange) -> Result<()> {
        let _one = self.keeping.lock();
        let mut local = self.local_attributes(ino)?;
        let sets_times = change.accessed.is_some() || change.modified.is_some();
        if change.mode.is_some() || sets_times {
            // What counted by the provider's word is this host's now, too.
            let (mode, times, version) = self.table.with(ino, |node| {
                let version = node.entry.version.clone();
                (chosen_mode(node), chosen_times(node), version)
            })?;
            local.mode = mode;
            local.times = times.map(|times| LocalTimes {
                modified: times.modified,
                accessed: times.accessed,
                version,
            });
            local.standing = Standing::Ours;
        }
        local.mode = change.mode.map(|mode| mode & MODE_BITS).or(local.mode);
        if self.owners == Owners::Kept {
            local.uid = change.uid.filter(|id| *id != u32::MAX).or(local.uid);
            local.gid = change.gid.filter(|id| *id != u32::MAX).or(local.gid);
        }
        if sets_times {
            let shown = self.known_attributes(ino)?.attributes;
            local.times = Some(LocalTimes {
                modified: change.modified.unwrap_or(shown.modified),
                accessed: change.accessed.unwrap_or(shown.accessed),
                version: self.table.with(ino, |node| node.entry.version.clone())?,
            });
        }
        // A new length is a change of the content, which has its own time.
        if sets_times || change.size.is_none() || change.mode.is_some() {
            local.changed = Some(SystemTime::now());
            self.keep_local_attributes(ino, local, Keep::Now)?;
        }
        Ok(())
    }

    /// A child as the kernel gets it.
    pub(super) fn as_child(&self, reference: Reference) -> Result<Child> {
        Ok(Child {
            found: self.known_attributes(reference.ino())?,
            reference,
        })
    }

    /// What is known without asking anybody.
    pub(super) fn known_attributes(&self, ino: Ino) -> Result<Found> {
        // What the provider says is shown without what was set, rather than not at all.
        let local = self.local_attributes(ino).unwrap_or_else(|error| {
            warn!(ino = ino.0, %error, "the attributes of a file are not known");
            LocalAttributes::default()
        });
        let names = match &local.special {
            Some(_) => Some(self.state.special_names(&self.namespace(), ino.0)?),
            None => None,
        };
        let publishes = LabelSupport::Visibility(ChmodEffect::Publishes);
        let shows_visibility = self.provider.capabilities().labels == publishes;
        let attributes = self.table.with(ino, |node| {
            // Whatever was kept since belongs to what the node is now.
            let local = node.local.as_ref().unwrap_or(&local);
            let kind = node.entry.kind;
            let is_removed = node.placement == Placement::Removed;
            let (size, modified) = match (&local.special, &node.content) {
                (Some(special), _) => (special.size(), node.entry.modified),
                (None, Some(content)) if node.is_ours() => (content.staged.len(), content.staged.modified()),
                _ => (node.entry.size, node.entry.modified),
            };
            let times = chosen_times(node);
            let changed = match (local.changed, times) {
                (None, None) => modified,
                (None, Some(times)) => times.modified,
                (Some(changed), Some(_)) if !node.is_dirty() => changed,
                (Some(changed), _) => changed.max(modified),
            };
            let mode = match &local.special {
                Some(Special::Symlink(_)) => 0o777,
                Some(_) => local.mode.unwrap_or(0o600),
                None => {
                    let mode = shown_mode(self.rights(&node.entry), kind, self.settings.umask, chosen_mode(node));
                    let visibility = node.entry.labels.get(VISIBILITY).map(String::as_str);
                    with_visibility(mode, kind, visibility.filter(|_| shows_visibility))
                }
            };
            Attributes {
                ino,
                kind,
                file_type: match (&local.special, kind) {
                    (Some(special), _) => special.file_type(),
                    (None, Kind::Directory) => FileType::Directory,
                    (None, Kind::File) => FileType::File,
                },
                size,
                mode,
                uid: local.uid.unwrap_or(self.settings.uid),
                gid: local.gid.unwrap_or(self.settings.gid),
                modified: times.map_or(modified, |times| times.modified),
                accessed: times.map_or(modified, |times| times.accessed),
                changed,
                links: match (names, kind, node.subdirectories) {
                    (Some(names), ..) => names,
                    _ if is_removed => 0,
                    (None, Kind::Directory, Some(directories)) => 2 + directories,
                    _ => 1,
                },
                device: local.special.as_ref().map_or(0, Special::device),
            }
        })?;
        Ok(Found {
            attributes,
            ttl: self.ttl(ino),
        })
    }

    /// Stores what is known here, in the table and in the state database.
    pub(super) fn keep_local_attributes(&self, ino: Ino, local: LocalAttributes, keep: Keep) -> Result<()> {
        let local = LocalAttributes {
            ino: match self.place(ino)? {
                Some((parent, name)) if local.special.is_none() => {
                    (Ino::derived(parent, &name) != ino).then_some(ino.0)
                }
                _ => local.ino,
            },
            ..local
        };
        if local.special.is_some() {
            self.state.set_special(&self.namespace(), ino.0, &local)?;
        } else if let Some(path) = self.table.path(ino) {
            match keep {
                Keep::Now => self.state.set_attributes(&self.namespace(), &path, &local)?,
                Keep::Soon => {
                    self.state.set_attributes_later(&self.namespace(), &path, &local)?;
                    self.journal.write_soon();
                }
            }
        }
        self.table.with(ino, |node| node.local = Some(local))
    }

    /// The times that were set belong to the content of then.
    pub(super) fn content_changed(&self, ino: Ino) {
        let mut is_sent = false;
        self.note_locally(ino, |local| {
            let sent = |node: &mut Node| {
                let content = node.content.as_ref().filter(|content| !content.staged.is_dirty())?;
                Some((content.staged.modified(), node.entry.version.clone()))
            };
            // Whoever waited to send it may have been faster, and took the former times along.
            if let Some((modified, version)) = self.table.with(ino, sent).ok().flatten() {
                is_sent = true;
                return Some(LocalAttributes {
                    times: Some(LocalTimes::written(modified, version)),
                    standing: Standing::Ours,
                    ..local
                });
            }
            local
                .times
                .is_some()
                .then_some(LocalAttributes { times: None, ..local })
        });
        if is_sent {
            self.attributes_were_set(ino);
        }
    }

    /// Something was made in, removed from or renamed in a directory.
    pub(super) fn names_changed(&self, directory: Ino) {
        self.kept_is_outdated(directory);
        let Ok(version) = self.table.with(directory, |node| node.entry.version.clone()) else {
            return;
        };
        let now = SystemTime::now();
        self.note_locally(directory, |local| {
            let times = LocalTimes {
                modified: now,
                accessed: local.times.as_ref().map_or(now, |times| times.accessed),
                version,
            };
            Some(LocalAttributes {
                times: Some(times),
                changed: Some(now),
                ..local
            })
        });
    }

    /// Something of a node changed that is not its content: its name, or how many it has.
    pub(super) fn touched(&self, ino: Ino) {
        self.note_locally(ino, |local| {
            Some(LocalAttributes {
                changed: Some(SystemTime::now()),
                ..local
            })
        });
    }

    /// Somebody else made or removed something in a directory: its times are the provider's.
    pub(super) fn names_changed_elsewhere(&self, directory: Ino) {
        self.content_changed(directory);
    }

    /// What is here is a version of the provider's now, made of another, which `change` puts into the node: from the same
    /// moment on it is listed, and the times that it had here are that version's.
    ///
    /// # Errors
    /// `Changed` (ESTALE) for a number that is not in the table.
    pub(super) fn with_new_version<T>(
        &self,
        ino: Ino,
        made_of: &Version,
        change: impl FnOnce(&mut Node) -> T,
    ) -> Result<T> {
        let _held = self.table.hold(ino)?;
        let _one = self.keeping.lock();
        // Before, as nobody waits for the disk while the table is locked.
        let known = self.local_attributes(ino).map(drop);
        let (outcome, followed) = self.with_listed(ino, |node| {
            let changed_here = node.modified_here();
            let outcome = change(node);
            (outcome, node.times_follow(made_of, changed_here))
        })?;
        let kept = match followed {
            Some(local) => known.and_then(|()| self.keep_local_attributes(ino, local, Keep::Soon)),
            None => known,
        };
        kept.unwrap_or_else(|error| not_kept(ino, &error));
        Ok(outcome)
    }

    /// Changes what is kept here. A failure costs that and nothing else: the operation itself was carried out.
    fn note_locally(&self, ino: Ino, change: impl FnOnce(LocalAttributes) -> Option<LocalAttributes>) {
        let _one = self.keeping.lock();
        let changed = self.local_attributes(ino).and_then(|local| match change(local) {
            Some(local) => self.keep_local_attributes(ino, local, Keep::Soon),
            None => Ok(()),
        });
        changed.unwrap_or_else(|error| not_kept(ino, &error));
    }

    pub(super) fn local_attributes(&self, ino: Ino) -> Result<LocalAttributes> {
        if let Some(local) = self.table.with(ino, |node| node.local.clone())? {
            return Ok(local);
        }
        let _paths = self.paths.read_recursive();
        let local = match self.table.path(ino) {
            Some(path) => self.state.attributes(&self.namespace(), &path)?,
            None => LocalAttributes::default(),
        };
        // Whatever stood under that name, this node is the provider's.
        let local = LocalAttributes { special: None, ..local };
        self.table.with(ino, |node| node.local.get_or_insert(local).clone())
    }

    /// What was read of a whole directory is known of one entry, unless something was kept since.
    pub(super) fn take_kept(&self, ino: Ino, kept: &ChildAttributes, name: &str) -> Result<()> {
        self.table.with(ino, |node| {
            if node.local.is_none() && self.state.are_current(kept) {
                node.local = Some(LocalAttributes {
                    special: None,
                    ..kept.of(name)
                });
            }
        })
    }

    /// Keeps what is known of a new file or directory: its number, and the mode that it was asked to have where that
    /// isn't what would be shown anyway. A failure costs that and nothing else.
    pub(super) fn note_new(&self, ino: Ino, mode: u32, umask: u32) {
        let wanted = mode & MODE_BITS & !umask;
        let now = SystemTime::now();
        let _one = self.keeping.lock();
        let kept = self.known_attributes(ino).and_then(|found| {
            let shown = found.attributes;
            let (rights, version) = self
                .table
                .with(ino, |node| (self.rights(&node.entry), node.entry.version.clone()))?;
            let would_show = shown_mode(rights, shown.kind, self.settings.umask, Some(wanted));
            let times = LocalTimes::written(now, version);
            let local = LocalAttributes {
                mode: (would_show != shown.mode).then_some(wanted),
                times: (shown.kind == Kind::Directory).then_some(times),
                changed: Some(now),
                ..LocalAttributes::default()
            };
            self.keep_local_attributes(ino, local, Keep::of_new(shown.kind))
        });
        if let Err(error) = kept {
            warn!(ino = ino.0, %error, "the mode that was asked for is not kept");
        }
    }

    /// Gives what was just made to who asked for it, where owners are kept; what is made in a directory with the
    /// set-group-ID bit belongs to the directory's group.
    ///
    /// # Errors
    /// The disk's.
    pub fn give_to(&self, child: Child, parent: Ino, caller: Caller) -> Result<Child> {
        let ino = child.attributes.ino;
        self.give(child, parent, caller).inspect_err(|_| {
            // It is there all the same.
            if let Ok(Some((parent, name))) = self.place(ino) {
                self.forget_names(vec![(parent, name.as_str().into())]);
            }
        })
    }

    fn give(&self, child: Child, parent: Ino, caller: Caller) -> Result<Child> {
        if self.owners == Owners::Mounter {
            return Ok(child);
        }
        let directory = self.known_attributes(parent)?.attributes;
        let shown = child.found.attributes;
        let one = self.keeping.lock();
        let mut local = self.local_attributes(shown.ino)?;
        local.uid = Some(caller.uid).filter(|uid| *uid != self.settings.uid);
        let gid = if directory.mode & SET_GROUP_ID == 0 {
            caller.gid
        } else {
            if shown.kind == Kind::Directory {
                local.mode = Some(shown.mode | SET_GROUP_ID);
            }
            directory.gid
        };
        local.gid = Some(gid).filter(|gid| *gid != self.settings.gid);
        self.keep_local_attributes(shown.ino, local, Keep::of_new(shown.kind))?;
        drop(one);
        self.as_child(child.reference)
    }
}

/// What failed was not asked for: it costs that and nothing else.
pub(super) fn not_kept(ino: Ino, error: &Error) {
    warn!(ino = ino.0, %error, "the attributes of a file are not kept");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_public_shows_as_readable_by_all() {
        for (mode, kind, visibility, shown) in [
            (0o600, Kind::File, Some("public"), 0o644),
            (0o700, Kind::Directory, Some("public"), 0o755),
            (0o644, Kind::File, Some("private"), 0o640),
            (0o644, Kind::File, Some("shared"), 0o640),
            (0o200, Kind::File, Some("public"), 0o200),
            (0o644, Kind::File, None, 0o644),
        ] {
            assert_eq!(
                with_visibility(mode, kind, visibility),
                shown,
                "{mode:o} {visibility:?}"
            );
        }
    }

    #[test]
    fn a_chosen_mode_never_shows_more_than_the_grants() {
        let read_write: Rights = "rwd".parse().unwrap();
        assert_eq!(shown_mode(read_write, Kind::File, 0o022, Some(0o755)), 0o755);
        assert_eq!(shown_mode(Rights::READ, Kind::File, 0o022, Some(0o755)), 0o555);
        assert_eq!(shown_mode("w".parse().unwrap(), Kind::File, 0o022, Some(0o777)), 0o222);
        assert_eq!(shown_mode(Rights::NONE, Kind::File, 0o022, Some(0o777)), 0);
        assert_eq!(
            shown_mode("rw".parse().unwrap(), Kind::Directory, 0o022, Some(0o700)),
            0o1700
        );
        assert_eq!(shown_mode(Rights::READ, Kind::File, 0o022, Some(0o6755)), 0o6555);
    }
}
