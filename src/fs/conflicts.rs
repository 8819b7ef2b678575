//! When somebody else changed the same file, or has the name: who steps aside, and what is the same after all.

use bytes::BytesMut;
use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tracing::{debug, warn};

use super::inode::{LocalContent, Node, Presence};
use super::{FileSystem, Ino, RenameMode};
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
        let resolved = self.resolve_in_turn(ino, (parent, name), clash).await?;
        self.table.with(ino, |node| node.clash = None)?;
        Ok(resolved)
    }

    async fn resolve_in_turn(&self, ino: Ino, (parent, name): (Ino, Name), clash: Error) -> Result<Resolved> {
        let Some(content) = self.table.with(ino, |node| node.content.clone())? else {
            return Ok(Resolved::Theirs);
        };
        if clash.kind() == ErrorKind::Changed && content.replaces.is_none() {
            // It has its own name already. Without what it is a change of it stays; else it got the name while this waited.
            return if content.staged.is_whole() {
                Ok(Resolved::Ours)
            } else {
                Err(clash)
            };
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
                    let object = theirs.object();
                    self.stored(ino, theirs, &content.staged, &sending)?;
                    self.settle_sent(object, &content.staged).await;
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
        content.staged.remember_unanswered().await?;
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
            Ok(there) if there.kind == Kind::File => {
                Ok(!self.holds(&there, staged).await? && !self.was_sent(&there, staged).await?)
            }
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives the local version another name, under which it is a new file.
    async fn step_aside(&self, ino: Ino, parent: Ino, name: &Name, clash: Error) -> Result<()> {
        let aside = self.conflict_name(parent, name, &clash).await?;
        self.relocated(ino, parent, &aside)?;
        self.is_beside(ino, (parent, name), &[(parent, &aside)]);
        fail_point!("conflict.renamed");
        warn!(file = %name, kept_as = %aside, "somebody else changed this file too; both versions are kept");
        self.make_new(ino)?;
        self.enter_again(ino).await;
        fail_point!("conflict.entered");
        Ok(())
    }

    /// Gives a file the name of a conflict, beside the one that it was to replace.
    ///
    /// # Errors
    /// `clash` when there is no such name, and as `rename`.
    pub(super) async fn rename_aside(&self, from: &(Ino, Name), to: &(Ino, Name), clash: Error) -> Result<()> {
        let aside = self.conflict_name(to.0, &to.1, &clash).await?;
        warn!(file = %to.1, kept_as = %aside, "somebody else changed this file too; both versions are kept");
        let source = self.find(from.0, &from.1).await?;
        let target = (to.0, aside);
        self.rename_once(from, &target, RenameMode::KeepExisting).await?;
        let others = [(target.0, &target.1), (from.0, &from.1)];
        self.is_beside(source.ino(), (to.0, &to.1), &others);
        Ok(())
    }

    /// Remembers that the provider refused what is here, so that nobody is shown it as if it were the newest.
    pub(super) fn note_clash(&self, ino: Ino, error: &Error) {
        if is_clash(error) {
            let _ = self.table.with(ino, |node| node.clash = Some(error.clone()));
        }
    }

    /// Before a file is opened: resolves a conflict that is known of.
    ///
    /// # Errors
    /// `Changed` when the file that was meant has another name since. Without an answer it stays as it is.
    pub(super) async fn settle_clash(&self, ino: Ino) -> Result<()> {
        let Some(clash) = self.table.with(ino, |node| node.clash.clone())? else {
            return Ok(());
        };
        if self.provider_is_away() {
            return Ok(());
        }
        let place = self.place(ino)?;
        if let Err(error) = self.resolve(ino, clash).await {
            debug!(ino = ino.0, %error, "a conflict is not resolved yet");
            self.means_away(&error);
        }
        if self.place(ino)? == place {
            return Ok(());
        }
        let message = "somebody else was faster, and the version of this host has another name now";
        Err(Error::new(ErrorKind::Changed, message))
    }

    /// As `send`; if somebody else was faster, the name stands for that version when this returns.
    ///
    /// # Errors
    /// As `Provider::upload`; the content stays staged.
    pub(super) async fn send_or_step_aside(&self, ino: Ino) -> Result<()> {
        let place = self.place(ino)?;
        let mut sent = self.send(ino).await;
        if sent.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            // A directory above may have got another name meanwhile.
            sent = self.send(ino).await;
        }
        let refused = match sent {
            Err(error) if is_clash(&error) => error,
            outcome => return outcome,
        };
        if let Err(error) = self.resolve(ino, refused.clone()).await {
            debug!(ino = ino.0, %error, "a conflict is not resolved yet");
            return Err(refused);
        }
        if self.place(ino)? != place {
            return Err(refused);
        }
        // It is what an attempt has stored whose answer was lost; or the name is free again.
        self.send(ino).await
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
        self.was_sent(theirs, &content.staged).await
    }

    /// Whether the provider's file is what an earlier attempt stored whose answer was lost.
    async fn was_sent(&self, theirs: &Entry, staged: &Staged) -> Result<bool> {
        staged.remember_unanswered().await?;
        if !staged.may_have_stored(theirs.size) {
            return Ok(false);
        }
        let mut stream = self.provider.read(&theirs.object(), 0..theirs.size).await?;
        let mut hasher = Sha256::new();
        while let Some(chunk) = stream.next().await {
            hasher.update(&chunk?);
        }
        Ok(staged.has_sent(&hex(&hasher.finalize())))
    }

    /// Whether the provider's file has the very bytes that are staged.
    pub(super) async fn holds(&self, theirs: &Entry, staged: &Staged) -> Result<bool> {
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

/// Whether somebody else has the name or has changed the file.
fn is_clash(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Changed | ErrorKind::AlreadyExists)
}

/// Whether it is the same version at another place.
fn is_renamed(known: &Entry, found: &Entry) -> bool {
    found.kind == known.kind && found.version == known.version && found.size == known.size && found.key != known.key
}
