//! When somebody else changed the same file, or has the name: who steps aside, and what is the same after all.

use bytes::BytesMut;
use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tracing::warn;

use super::inode::{LocalContent, Node, Presence};
use super::{FileSystem, Ino};
use crate::model::{Entry, Error, ErrorKind, Kind, Name, ObjectKey, Result, Version};
use crate::outbox::{Staged, conflict};
use crate::provider::hex;

/// How many names for a conflict are tried on one day.
const MAX_CONFLICTS: u32 = 100;

/// What came of a clash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// There was none: it was this mount that gave a directory above another name. To be sent again.
    Ours,
    /// There is nothing to resolve any more. What is left to send is sent in its turn.
    Theirs,
}

impl FileSystem {
    /// Somebody else has that name or changed that file.
    ///
    /// # Errors
    /// The first error when there is no other name, and the provider's.
    pub(super) async fn resolve(&self, ino: Ino, clash: Error) -> Result<Resolved> {
        // What this mount renames is not somebody else's doing.
        let _names = self.renaming.read().await;
        let _turn = self.turn(ino).await?;
        let Some((parent, name)) = self.place(ino)? else {
            return Ok(Resolved::Theirs);
        };
        let Some(content) = self.table.with(ino, |node| node.content.clone())? else {
            return Ok(Resolved::Theirs);
        };
        if clash.kind() == ErrorKind::Changed && content.replaces.is_none() {
            // It has its own name already; what it is a change of can be read no more.
            return Err(clash);
        }
        let parent_key = self.entry(parent).await?.key;
        match self.provider.lookup(&parent_key, &name).await {
            // It was removed there and changed here: the change is a new file.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.make_new(ino)?;
                self.enter_again(ino).await;
                Ok(Resolved::Theirs)
            }
            Err(error) => Err(error),
            // A rename above it gave it another key, which the journal didn't know.
            Ok(same) if content.replaces.as_ref().is_some_and(|entry| is_renamed(entry, &same)) => {
                self.table.with(ino, |node| node.confirm_content(same))?;
                self.enter_again(ino).await;
                Ok(Resolved::Ours)
            }
            Ok(theirs) => {
                // Nobody writes between the look and what follows from it.
                let Some(sending) = content.staged.begin_upload().await else {
                    return Ok(Resolved::Theirs);
                };
                if theirs.kind == Kind::File && self.holds(&theirs, &content.staged).await? {
                    // It is what an attempt whose answer was lost has stored.
                    self.stored(ino, theirs, &content.staged, &sending)?;
                    self.journal.caught_up().await;
                    return Ok(Resolved::Theirs);
                }
                drop(sending);
                if theirs.kind == Kind::File && self.is_ours(&theirs, &content).await? {
                    self.table.with(ino, |node| node.confirm_content(theirs))?;
                    self.enter_again(ino).await;
                    return Ok(Resolved::Ours);
                }
                self.step_aside(ino, parent, &name, clash).await?;
                Ok(Resolved::Theirs)
            }
        }
    }

    /// Before a changed file gets another name or goes: where an attempt whose answer was lost has stored it, that is the
    /// version which is renamed or removed. Without an answer nothing was stored. The caller has the node's turn.
    pub(super) async fn recognise(&self, ino: Ino) -> Result<()> {
        let changed = |node: &mut Node| node.content.clone().filter(|_| node.is_dirty());
        let content = self.table.with(ino, changed)?;
        let (Some(content), Some((parent, name))) = (content, self.place(ino)?) else {
            return Ok(());
        };
        if !content.staged.may_be_stored() {
            return Ok(());
        }
        content.staged.remember_inherited().await?;
        let parent_key = self.entry(parent).await?.key;
        if let Ok(theirs) = self.provider.lookup(&parent_key, &name).await
            && theirs.kind == Kind::File
            && self.is_ours(&theirs, &content).await.unwrap_or(false)
        {
            self.table.with(ino, |node| node.confirm_content(theirs))?;
        }
        Ok(())
    }

    /// Whether something else has the name of what a daemon left that was about to give the name away.
    ///
    /// # Errors
    /// The provider's.
    pub(super) async fn was_replaced(
        &self,
        (parent, name): (Ino, &Name),
        replaces: Option<&Entry>,
        staged: &Staged,
    ) -> Result<bool> {
        let parent_key = self.entry(parent).await?.key;
        match self.provider.lookup(&parent_key, name).await {
            Ok(there) if replaces.is_some_and(|known| known.version == there.version) => Ok(false),
            Ok(there) if there.kind == Kind::File => Ok(!self.holds(&there, staged).await?),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives the local version another name, under which it is a new file.
    async fn step_aside(&self, ino: Ino, parent: Ino, name: &Name, clash: Error) -> Result<()> {
        let aside = self.conflict_name(parent, name, &clash).await?;
        self.relocated(ino, parent, &aside)?;
        self.make_new(ino)?;
        self.enter_again(ino).await;
        self.doubt(&[parent]);
        warn!(file = %name, kept_as = %aside, "somebody else changed this file too; both versions are kept");
        self.forget_names(vec![(parent, name.as_str().into()), (parent, aside.as_str().into())]);
        Ok(())
    }

    /// A free name that says whose version a file is.
    ///
    /// # Errors
    /// `clash` when there is none, and the provider's.
    pub(super) async fn conflict_name(&self, parent: Ino, name: &Name, clash: &Error) -> Result<Name> {
        let directory = self.entry(parent).await?;
        let (host, date) = (conflict::host(), conflict::date());
        for number in 1..=MAX_CONFLICTS {
            let check = |name: &Name| self.provider.check_name(&directory.key, Kind::File, name);
            let aside = conflict::name(name, &host, &date, number, check).map_err(|_| clash.clone())?;
            match self.find(parent, &aside).await {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(aside),
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
        Err(clash.clone())
    }

    /// From now on it is a file that the provider doesn't have.
    fn make_new(&self, ino: Ino) -> Result<()> {
        self.table.with(ino, |node| {
            node.presence = Presence::Unsent;
            node.entry.key = ObjectKey::new("");
            node.entry.version = Version::new("");
            node.sent = None;
            if let Some(content) = &mut node.content {
                content.replaces = None;
            }
        })
    }

    /// Whether the provider's file is what was to be replaced, or what an earlier attempt stored whose answer was lost.
    async fn is_ours(&self, theirs: &Entry, content: &LocalContent) -> Result<bool> {
        if content.replaces.as_ref().map(|replaced| &replaced.version) == Some(&theirs.version) {
            return Ok(true);
        }
        content.staged.remember_inherited().await?;
        if !content.staged.may_have_stored(theirs.size) {
            return Ok(false);
        }
        let mut stream = self.provider.read(&theirs.object(), 0..theirs.size).await?;
        let mut hasher = Sha256::new();
        while let Some(chunk) = stream.next().await {
            hasher.update(&chunk?);
        }
        Ok(content.staged.has_sent(&hex(&hasher.finalize())))
    }

    /// Whether the provider's file has the very bytes that are staged.
    async fn holds(&self, theirs: &Entry, staged: &Staged) -> Result<bool> {
        if theirs.size != staged.len() || !staged.is_whole() {
            return Ok(false);
        }
        let mut stream = self.provider.read(&theirs.object(), 0..theirs.size).await?;
        let mut offset = 0;
        let mut same = true;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            if same {
                let mine = BytesMut::from(&staged.read(offset, chunk.len()).await?[..]);
                same = mine == chunk;
            }
            offset += chunk.len() as u64;
        }
        Ok(same && offset == theirs.size)
    }
}

/// Whether it is the same version at another place.
fn is_renamed(known: &Entry, found: &Entry) -> bool {
    found.kind == known.kind && found.version == known.version && found.size == known.size && found.key != known.key
}
