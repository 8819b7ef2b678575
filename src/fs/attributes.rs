//! What `stat` shows, made of the provider's entry, what was changed here, and what `chmod` and `utimens` set.

use std::time::{Duration, SystemTime};

use tracing::warn;

use super::handle::HandleId;
use super::table::Reference;
use super::{FileSystem, Ino};
use crate::model::{Action, Error, ErrorKind, Kind, Result, Rights, Version};
use crate::provider::{ChmodEffect, LabelSupport, VISIBILITY};
use crate::state::{LocalAttributes, LocalTimes};

/// The attributes of a node, in the kernel's terms but in our own type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    pub ino: Ino,
    pub kind: Kind,
    /// In bytes.
    pub size: u64,
    /// Permission bits with the sticky bit.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub modified: SystemTime,
    pub accessed: SystemTime,
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

/// The mode to show: what a person set, as far as the grants cover it, or what the grants say.
fn shown_mode(rights: Rights, kind: Kind, umask: u32, chosen: Option<u32>) -> u32 {
    let Some(chosen) = chosen else {
        return rights.mode(kind, umask);
    };
    let granted = rights.mode(kind, 0);
    let execute = if kind == Kind::File && rights.read { 0o111 } else { 0 };
    (granted & 0o1000) | (chosen & 0o777 & (granted | execute))
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
    /// `NotPermitted` for another owner, `Denied` and `ReadOnly` without the right to write.
    pub async fn set_attributes(&self, ino: Ino, change: AttributeChange) -> Result<Found> {
        let entry = self.fresh_entry(ino).await?;
        let foreign = |asked: Option<u32>, own: u32| asked.is_some_and(|id| id != own && id != u32::MAX);
        if foreign(change.uid, self.settings.uid) || foreign(change.gid, self.settings.gid) {
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
        if change.mode.is_some() || change.accessed.is_some() || change.modified.is_some() {
            let mut local = self.local_attributes(ino)?;
            local.mode = change.mode.map(|mode| mode & 0o777).or(local.mode);
            if change.accessed.is_some() || change.modified.is_some() {
                let shown = self.known_attributes(ino)?.attributes;
                local.times = Some(LocalTimes {
                    modified: change.modified.unwrap_or(shown.modified),
                    accessed: change.accessed.unwrap_or(shown.accessed),
                    version: self.table.with(ino, |node| node.entry.version.clone())?,
                });
            }
            self.keep_local_attributes(ino, local)?;
        }
        self.known_attributes(ino)
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
        let local = self.local_attributes(ino)?;
        let publishes = LabelSupport::Visibility(ChmodEffect::Publishes);
        let shows_visibility = self.provider.capabilities().labels == publishes;
        let attributes = self.table.with(ino, |node| {
            let (size, modified) = match &node.content {
                Some(content) if node.is_ours() => (content.staged.len(), content.staged.modified()),
                _ => (node.entry.size, node.entry.modified),
            };
            let times = local
                .times
                .as_ref()
                .filter(|times| node.is_ours() || times.version == node.entry.version);
            let kind = node.entry.kind;
            let mode = shown_mode(self.rights(&node.entry), kind, self.settings.umask, local.mode);
            let visibility = node.entry.labels.get(VISIBILITY).map(String::as_str);
            Attributes {
                ino,
                kind,
                size,
                mode: with_visibility(mode, kind, visibility.filter(|_| shows_visibility)),
                uid: self.settings.uid,
                gid: self.settings.gid,
                modified: times.map_or(modified, |times| times.modified),
                accessed: times.map_or(modified, |times| times.accessed),
            }
        })?;
        Ok(Found {
            attributes,
            ttl: self.ttl(ino),
        })
    }

    /// Stores what was set, in the table and in the state database.
    pub(super) fn keep_local_attributes(&self, ino: Ino, local: LocalAttributes) -> Result<()> {
        if let Some(path) = self.table.path(ino) {
            self.state.set_attributes(&self.namespace(), &path, &local)?;
        }
        self.table.with(ino, |node| node.local = Some(local))
    }

    /// The times that were set belong to the content of then; a directory's is what it holds.
    pub(super) fn content_changed(&self, ino: Ino) {
        self.change_times(ino, |_| None);
    }

    /// What was changed here is a version of the provider's now: times that were set before are that version's.
    pub(super) fn times_follow(&self, ino: Ino, version: &Version) {
        self.change_times(ino, |times| {
            Some(LocalTimes {
                version: version.clone(),
                ..times
            })
        });
    }

    /// Changes times if any were set. A failure costs them and nothing else: the operation itself was carried out.
    fn change_times(&self, ino: Ino, change: impl FnOnce(LocalTimes) -> Option<LocalTimes>) {
        let changed = self.local_attributes(ino).and_then(|local| match local.times.clone() {
            Some(times) => {
                let times = change(times);
                self.keep_local_attributes(ino, LocalAttributes { times, ..local })
            }
            None => Ok(()),
        });
        if let Err(error) = changed {
            warn!(ino = ino.0, %error, "the times that were set are not kept");
        }
    }

    fn local_attributes(&self, ino: Ino) -> Result<LocalAttributes> {
        if let Some(local) = self.table.with(ino, |node| node.local.clone())? {
            return Ok(local);
        }
        let local = match self.table.path(ino) {
            Some(path) => self.state.attributes(&self.namespace(), &path)?,
            None => LocalAttributes::default(),
        };
        self.table.with(ino, |node| node.local.get_or_insert(local).clone())
    }

    /// The mode that a new file or directory was asked to have, kept only where it isn't what would be shown anyway. A
    /// failure costs the mode and nothing else.
    pub(super) fn keep_requested_mode(&self, ino: Ino, mode: u32, umask: u32) {
        let wanted = mode & 0o777 & !umask;
        let kept = self.known_attributes(ino).and_then(|found| {
            let shown = found.attributes;
            let rights = self.table.with(ino, |node| self.rights(&node.entry))?;
            let would_show = shown_mode(rights, shown.kind, self.settings.umask, Some(wanted));
            if would_show & 0o777 == shown.mode & 0o777 {
                return Ok(());
            }
            let local = LocalAttributes {
                mode: Some(wanted),
                ..self.local_attributes(ino)?
            };
            self.keep_local_attributes(ino, local)
        });
        if let Err(error) = kept {
            warn!(ino = ino.0, %error, "the mode that was asked for is not kept");
        }
    }
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
    }
}
