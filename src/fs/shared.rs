//! Attributes that the provider keeps beside a file's content: which of those that are told and those that were set here
//! count, what the provider is to have, and changes of them alone.
//!
//! What was set here counts until the provider has it. With a change of content it is sent along; alone it is sent in the
//! background where the provider can take it so, and stays here where it can't.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::debug;

use super::attributes::{Keep, not_kept};
use super::inode::{Node, Placement, Presence};
use super::outgoing::passes;
use super::{FileSystem, Ino};
use crate::model::{Error, ErrorKind, Kind, PosixAttributes, PosixTimes, Progress, Result, ToldAttributes};
use crate::outbox::Attempt;
use crate::provider::AttributeSupport;
use crate::state::{LocalAttributes, LocalXattr, Standing};

/// How long a change of attributes waits for further ones: tools set owner, mode, times and the rest one after the other.
const FURTHER: Duration = Duration::from_millis(200);

/// The mode that counts, if any was set.
pub(super) fn chosen_mode(node: &Node) -> Option<u32> {
    let told = node.entry.posix.told().and_then(|told| told.mode);
    let here = node.local.as_ref().and_then(|local| local.mode);
    match standing(node) {
        Standing::Ours => here.or(told),
        Standing::Shared => told.or(here),
    }
}

/// The times that count instead of those of the content, if any were set.
pub(super) fn chosen_times(node: &Node) -> Option<PosixTimes> {
    let kind = node.entry.kind;
    // What happened in a directory is known here until somebody else is seen to have changed it.
    let is_known = node.is_ours() || node.is_removed() || kind == Kind::Directory;
    let here = node.local.as_ref().and_then(|local| local.times.as_ref());
    let here = here.filter(|times| is_known || times.version == node.entry.version);
    let here = here.map(|times| PosixTimes {
        modified: times.modified,
        accessed: times.accessed,
    });
    let told = node.entry.posix.told().and_then(|told| told.times);
    // What is told is of the content at the provider.
    let told = told.filter(|_| !node.is_ours());
    match standing(node) {
        Standing::Ours => here.or(told),
        Standing::Shared => told.or(here),
    }
}

fn standing(node: &Node) -> Standing {
    node.local
        .as_ref()
        .map_or_else(Standing::default, |local| local.standing)
}

impl FileSystem {
    /// What the provider is to have beside a file's content; `None` where it has no place for it.
    pub(super) fn wanted_attributes(&self, ino: Ino) -> Result<Option<PosixAttributes>> {
        if self.provider.capabilities().attributes == AttributeSupport::None {
            return Ok(None);
        }
        self.local_attributes(ino)?;
        let changes = self.xattrs_here(ino)?;
        self.table.with(ino, |node| {
            if node.entry.is_directory() || node.presence == Presence::Local {
                return None;
            }
            let written = node.modified_here().map(|modified| PosixTimes {
                modified,
                accessed: modified,
            });
            Some(PosixAttributes {
                mode: chosen_mode(node),
                times: chosen_times(node).or(written),
                xattrs: told_xattrs_with(node, changes),
            })
        })
    }

    /// The `user.*` attributes that aren't labels, without that prefix.
    pub(super) fn xattrs_beside(&self, ino: Ino) -> Result<BTreeMap<String, Vec<u8>>> {
        let changes = self.xattrs_here(ino)?;
        self.table.with(ino, |node| told_xattrs_with(node, changes))
    }

    /// What was done here with attributes and isn't at the provider.
    fn xattrs_here(&self, ino: Ino) -> Result<BTreeMap<String, LocalXattr>> {
        let _paths = self.paths.read_recursive();
        match self.table.path(ino) {
            Some(path) => self.state.xattrs(&self.namespace(), &path),
            None => Ok(BTreeMap::new()),
        }
    }

    /// Asks for what a listing didn't tell. Without an answer it isn't known.
    pub(super) async fn ask_attributes(&self, ino: Ino) -> Result<()> {
        let entry = self.table.with(ino, |node| node.entry.clone())?;
        if entry.posix != ToldAttributes::Untold || self.provider_is_away() {
            return Ok(());
        }
        let question = self.table.question(ino)?;
        match self.provider.stat(&entry).await {
            Ok(now) if now.kind == entry.kind => self.table.with(ino, |node| node.update(&now, question.answered())),
            Ok(_) => Ok(()),
            Err(error) => {
                debug!(ino = ino.0, %error, "the attributes of a file are not told");
                Ok(())
            }
        }
    }

    /// Attributes of a file were set here: if its content isn't on the way anyway, they are sent by themselves.
    pub(super) fn attributes_were_set(&self, ino: Ino) {
        if self.provider.capabilities().attributes != AttributeSupport::Stored {
            return;
        }
        let alone = self.table.with(ino, |node| {
            let alone = node.presence == Presence::AtProvider
                && node.entry.kind == Kind::File
                && node.placement != Placement::Removed
                && !node.is_dirty();
            node.attributes_wait |= alone;
            alone
        });
        if alone.unwrap_or(false) {
            self.queue.add(ino.0, FURTHER);
        }
    }

    /// Whether attributes of a file are to be sent by themselves.
    pub(super) fn attributes_wait(&self, ino: Ino) -> bool {
        self.table
            .with(ino, |node| node.has_attributes_to_send())
            .unwrap_or(false)
    }

    /// One attempt in the background.
    pub(super) async fn attempt_attributes(&self, ino: Ino) -> Attempt {
        let outcome = Progress::default().scope(self.send_attributes(ino)).await;
        self.table.settle(ino);
        match outcome {
            Ok(()) if self.attributes_wait(ino) => Attempt::Again,
            Ok(()) => Attempt::Done,
            Err(error) => match error.kind() {
                ErrorKind::RateLimited {
                    retry_after: Some(asked),
                } => Attempt::After(asked),
                _ if self.attributes_wait(ino) => Attempt::Later,
                _ => Attempt::Done,
            },
        }
    }

    /// Sends what was set beside a file's content. What the provider refuses stays on this host.
    ///
    /// # Errors
    /// As `Provider::set_attributes`.
    pub(super) async fn send_attributes(&self, ino: Ino) -> Result<()> {
        let _turn = self.turn(ino).await?;
        if !self.attributes_wait(ino) {
            return Ok(());
        }
        let keys = self.keys_beside(ino)?;
        let entry = self.entry(ino).await?;
        // Before they are looked at: what is set from here on is sent anew.
        self.table.with(ino, |node| node.attributes_wait = false)?;
        let Some(wanted) = self.wanted_attributes(ino)? else {
            return Ok(());
        };
        if entry.posix == wanted.fitting().into() {
            self.attributes_follow(ino, &wanted);
            return Ok(());
        }
        let lineage = self.table.with(ino, |node| node.lineage)?;
        match self.provider.set_attributes(&entry, &wanted).await {
            Ok(changed) => {
                self.with_new_version(ino, &entry.version, |node| node.confirm_same_content(changed, lineage))?;
                self.doubt_key(ino, keys);
                self.attributes_follow(ino, &wanted);
                Ok(())
            }
            Err(error) => {
                self.may_be_changed(ino, entry.size, &error);
                Err(self.attributes_stay(ino, error))
            }
        }
    }

    fn attributes_stay(&self, ino: Ino, error: Error) -> Error {
        match error.kind() {
            // Somebody else has replaced or removed it.
            ErrorKind::Changed | ErrorKind::NotFound => self.doubt(&[ino]),
            kind if passes(kind) => {
                let _ = self.table.with(ino, |node| node.attributes_wait = true);
            }
            _ => debug!(ino = ino.0, %error, "the attributes of a file stay on this host"),
        }
        error
    }

    /// The provider was given these attributes. What it says that it has needn't be kept here; what was set meanwhile is
    /// still to be sent.
    pub(super) fn attributes_follow(&self, ino: Ino, sent: &PosixAttributes) {
        if let Err(error) = self.follow_attributes(ino, sent) {
            not_kept(ino, &error);
        }
    }

    fn follow_attributes(&self, ino: Ino, sent: &PosixAttributes) -> Result<()> {
        let one = self.keeping.lock();
        if self.wanted_attributes(ino)?.as_ref() != Some(sent) {
            drop(one);
            self.attributes_were_set(ino);
            return Ok(());
        }
        let kept = sent.fitting();
        let is_told = self.table.with(ino, |node| node.entry.posix == kept.clone().into())?;
        if !is_told {
            return Ok(());
        }
        let local = self.local_attributes(ino)?;
        if local.standing == Standing::Ours {
            let standing = Standing::Shared;
            self.keep_local_attributes(ino, LocalAttributes { standing, ..local }, Keep::Soon)?;
        }
        let Some(path) = self.table.path(ino) else {
            return Ok(());
        };
        for (name, change) in self.xattrs_here(ino)? {
            if change.value() == kept.xattrs.get(&name).map(Vec::as_slice) {
                self.state.set_xattr(&self.namespace(), &path, &name, None)?;
            }
        }
        Ok(())
    }
}

fn told_xattrs_with(node: &Node, changes: BTreeMap<String, LocalXattr>) -> BTreeMap<String, Vec<u8>> {
    let told = node.entry.posix.told();
    let mut xattrs = told.map(|told| told.xattrs.clone()).unwrap_or_default();
    for (name, change) in changes {
        match change {
            LocalXattr::Set(value) => xattrs.insert(name, value),
            LocalXattr::Removed => xattrs.remove(&name),
        };
    }
    xattrs
}
