//! Files on their way to the provider: what the journal knows of them, when they are sent, and what happens when
//! somebody else was faster.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::BytesMut;
use futures_util::StreamExt;
use tracing::{info, warn};

use super::inode::{LocalContent, Node, Placement, Presence};
use super::{FileSystem, Ino};
use crate::model::{Entry, Error, ErrorKind, Kind, Name, ObjectKey, Progress, Result, Version};
use crate::outbox::{Attempt, Sender, Staged, base, conflict, save_copy};
use crate::state::{JournalRow, Phase};

/// What `close` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseMeans {
    /// The change is in the journal: it survives the end of this process, and is sent in the background.
    Journaled,
    /// The provider has it.
    Sent,
}

/// How long a file that was flushed, and that somebody still has open for writing, waits for its end: `echo x > f`
/// flushes once before it writes.
const STILL_OPEN: Duration = Duration::from_secs(1);
/// How many names for a conflict are tried on one day.
const MAX_CONFLICTS: u32 = 100;

/// What a daemon that ended left, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resumed {
    /// Files that are shown as they were here, and sent now.
    pub files: usize,
    /// Files that nobody had closed, or whose directory is gone: copies of them were saved.
    pub saved: usize,
}

impl FileSystem {
    /// Sends in the background from now on, for as long as this file system lives.
    pub fn start_sending(self: &Arc<Self>) {
        let (queue, sender) = (Arc::clone(&self.queue), Arc::downgrade(self));
        tokio::spawn(queue.run(sender));
    }

    /// No further file is sent in the background.
    pub fn stop_sending(&self) {
        self.queue.close();
    }

    /// Sees to it that the next mount finds all that is pending.
    ///
    /// # Errors
    /// The disk's; then copies are needed.
    pub fn keep_pending(&self) -> Result<()> {
        let mut outcome = Ok(());
        for ino in self.table.dirty() {
            let why = self.table.with(ino, |node| node.last_error.clone()).ok().flatten();
            let why = why.map(|why| Error::new(ErrorKind::Unreachable, why.to_string()));
            outcome = outcome.and(self.enter(ino, Phase::Closed, why.as_ref()));
        }
        outcome
    }

    /// Everything that waits is tried now.
    pub fn retry_pending(&self) {
        for ino in self.table.dirty() {
            self.queue.add(ino.0, Duration::ZERO);
        }
        self.queue.hurry();
    }

    /// A file was written to: it outlives the process from now on, though nothing was promised yet.
    pub(super) fn written(&self, ino: Ino, staged: &Staged) {
        if !staged.backing().is_kept()
            && let Err(error) = self.enter(ino, Phase::Writing, None)
        {
            // `close` will insist.
            warn!(ino = ino.0, %error, "a change is not in the journal yet");
        }
    }

    /// What `close` promises.
    pub(super) async fn settle_change(&self, ino: Ino) -> Result<()> {
        let dirty = self.table.with(ino, |node| node.is_dirty())?;
        if !dirty {
            return Ok(());
        }
        match self.settings.close {
            CloseMeans::Sent => {
                let sent = self.send(ino).await;
                if let Err(error) = &sent {
                    self.enter(ino, Phase::Closed, Some(error))?;
                    self.queue.add(ino.0, STILL_OPEN);
                }
                sent
            }
            CloseMeans::Journaled => match self.enter(ino, Phase::Closed, None) {
                Ok(()) => {
                    let open = self.table.with(ino, |node| node.writers > 0)?;
                    self.queue.add(ino.0, if open { STILL_OPEN } else { Duration::ZERO });
                    Ok(())
                }
                // Without a journal only the provider can keep it.
                Err(error) => {
                    warn!(ino = ino.0, %error, "a change is not in the journal; it is sent at once");
                    self.send(ino).await
                }
            },
        }
    }

    /// Writes down where a changed file is and what it is a change of.
    pub(super) fn enter(&self, ino: Ino, phase: Phase, error: Option<&Error>) -> Result<()> {
        let Some(path) = self.table.path(ino) else {
            return Ok(());
        };
        let Some(content) = self.table.with(ino, |node| node.content.clone())? else {
            return Ok(());
        };
        let backing = content.staged.backing();
        let row = JournalRow {
            spool: backing.spool.clone(),
            file: backing.name.clone(),
            namespace: self.namespace(),
            remote: self.settings.remote.clone(),
            path,
            phase,
            base: content.replaces.as_ref().map(base::write).transpose()?,
            error: error.map(|error| error.message().to_owned()),
        };
        self.state.journal(&row)?;
        backing.keep();
        Ok(())
    }

    /// The journal forgets a file: the provider has it, or it was removed.
    pub(super) fn strike(&self, staged: &Staged) {
        let backing = staged.backing();
        if !backing.is_kept() {
            return;
        }
        match self.state.journal_done(&backing.spool, &backing.name) {
            Ok(()) => backing.release(),
            // The next daemon finds that the provider has it.
            Err(error) => warn!(%error, "the journal still has a file that is done"),
        }
    }

    /// A node that is dirty got another path or another base.
    pub(super) fn enter_again(&self, ino: Ino) {
        let kept = self.table.with(ino, |node| {
            node.content
                .as_ref()
                .is_some_and(|content| content.staged.backing().is_kept() && content.staged.is_dirty())
        });
        if kept.unwrap_or(false)
            && let Err(error) = self.enter(ino, Phase::Closed, None)
        {
            warn!(ino = ino.0, %error, "the journal has an older state of a file");
        }
    }

    pub(super) fn renamed_in_journal(&self, from: &str, to: &str) {
        let spools = self.spool.names();
        let spools: Vec<&str> = spools.iter().map(String::as_str).collect();
        if let Err(error) = self.state.journal_rename(&spools, from, to) {
            warn!(from, to, %error, "the journal has older paths");
        }
    }

    /// Sends a changed file now, under another name if somebody else was faster.
    ///
    /// # Errors
    /// As `Provider::upload`; the content stays staged.
    pub(super) async fn deliver(&self, ino: Ino) -> Result<()> {
        let outcome = match self.send(ino).await {
            Err(error) if matches!(error.kind(), ErrorKind::Changed | ErrorKind::AlreadyExists) => {
                self.resolve(ino, error).await
            }
            outcome => outcome,
        };
        match outcome {
            // Somebody else has sent or removed it while this waited.
            Err(_) if !self.is_wanted(ino) => Ok(()),
            outcome => outcome,
        }
    }

    /// Whether the provider is to have what is here and isn't there.
    fn is_wanted(&self, ino: Ino) -> bool {
        let wanted = |node: &mut Node| node.is_dirty() && node.placement != Placement::Removed;
        self.table.with(ino, wanted).unwrap_or(false)
    }

    /// Somebody else has that name or changed that file. Gives `Ok` when there is nothing to resolve any more but to
    /// send again.
    ///
    /// # Errors
    /// The first error when there is no other name, and the provider's.
    async fn resolve(&self, ino: Ino, clash: Error) -> Result<()> {
        let _turn = self.turn(ino).await?;
        let Some((parent, name)) = self.place(ino)? else {
            return Ok(());
        };
        let Some(content) = self.table.with(ino, |node| node.content.clone())? else {
            return Ok(());
        };
        let parent_key = self.entry(parent).await?.key;
        match self.provider.lookup(&parent_key, &name).await {
            // It was removed there and changed here: the change is a new file.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.make_new(ino)?;
                self.enter_again(ino);
                Ok(())
            }
            Err(error) => Err(error),
            Ok(theirs) => {
                // Nobody writes between the look and what follows from it.
                let Some(sending) = content.staged.begin_upload().await else {
                    return Ok(());
                };
                if theirs.kind == Kind::File && self.holds(&theirs, &content.staged).await? {
                    // It is what an attempt whose answer was lost has stored.
                    return self.stored(ino, theirs, &content.staged, &sending);
                }
                drop(sending);
                self.step_aside(ino, parent, &name, clash).await
            }
        }
    }

    /// Gives the local version another name, under which it is a new file.
    async fn step_aside(&self, ino: Ino, parent: Ino, name: &Name, clash: Error) -> Result<()> {
        let directory = self.entry(parent).await?;
        let host = conflict::host();
        let date = jiff::Timestamp::now().to_string();
        let date = date.get(..10).unwrap_or(&date);
        for number in 1..=MAX_CONFLICTS {
            let check = |name: &Name| self.provider.check_name(&directory.key, Kind::File, name);
            let aside = conflict::name(name, &host, date, number, check).map_err(|_| clash.clone())?;
            match self.find(parent, &aside).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
                Ok(_) => continue,
            }
            self.moved(ino, parent, &aside)?;
            self.make_new(ino)?;
            self.enter_again(ino);
            self.doubt(&[parent]);
            warn!(file = %name, kept_as = %aside, "somebody else changed this file too; both versions are kept");
            self.forget_names(vec![(parent, name.as_str().into()), (parent, aside.as_str().into())]);
            return Ok(());
        }
        Err(clash)
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

    /// Whether the provider's file has the very bytes that are staged.
    async fn holds(&self, theirs: &Entry, staged: &Staged) -> Result<bool> {
        if theirs.size != staged.len() {
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

    /// Takes over what daemons of this remote left when they ended: closed files are shown and sent, others are saved
    /// below `unsent`.
    ///
    /// # Errors
    /// The state's and the local disk's; what cannot be taken over now stays for the next mount.
    pub async fn resume(&self, unsent: &Path) -> Result<Resumed> {
        let mut resumed = Resumed::default();
        for row in self.state.journaled(Some(&self.namespace()))? {
            match self.spool.adopt(&row.spool) {
                Ok(true) => {}
                // Its daemon lives.
                Ok(false) => continue,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    warn!(path = row.path, "a staged file is gone with its folder");
                    self.state.journal_done(&row.spool, &row.file)?;
                    continue;
                }
                Err(error) => {
                    warn!(path = row.path, %error, "a staged file is not taken over");
                    continue;
                }
            }
            match self.take_over(&row).await {
                Ok(()) => resumed.files += 1,
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidInput
                    ) =>
                {
                    if let Err(why) = self.save_row(&row, unsent) {
                        warn!(path = row.path, %why, "a staged file is neither sent nor saved");
                        continue;
                    }
                    warn!(path = row.path, folder = %unsent.display(), %error, "a staged file was saved");
                    resumed.saved += 1;
                }
                Err(error) => warn!(path = row.path, %error, "a staged file waits for the next mount"),
            }
        }
        if resumed != Resumed::default() {
            info!(files = resumed.files, saved = resumed.saved, "took over what was left");
        }
        Ok(resumed)
    }

    /// # Errors
    /// `InvalidInput` for a file that nobody closed, `NotFound` when its directory is gone, and the provider's.
    async fn take_over(&self, row: &JournalRow) -> Result<()> {
        if row.phase == Phase::Writing {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "it was being written when keymount ended",
            ));
        }
        let staged = Arc::new(Staged::left_behind(self.spool.reopen(&row.spool, &row.file)?)?);
        let mut names = row.path.split('/').map(Name::new).collect::<Result<Vec<_>>>()?;
        let Some(name) = names.pop() else {
            return Err(Error::not_found("its name"));
        };
        let mut directory = Ino::ROOT;
        // Kept until the file hangs below them.
        let mut ancestors = Vec::new();
        for name in &names {
            let reference = self.find(directory, name).await?;
            directory = reference.ino();
            ancestors.push(reference);
        }
        let above = self.entry(directory).await?;
        let reference = match row.base.as_deref().map(base::read).transpose()? {
            None => {
                let entry = Entry {
                    key: ObjectKey::new(""),
                    name,
                    kind: Kind::File,
                    size: 0,
                    modified: SystemTime::now(),
                    version: Version::new(""),
                    rights: above.rights,
                    labels: Default::default(),
                };
                self.table.attach_unsent(directory, entry, staged)?
            }
            Some(mut replaced) => {
                replaced.name = name;
                let now = self.table.question(directory)?.answered();
                let reference = self.table.attach(directory, replaced.clone(), None, now)?;
                let content = LocalContent {
                    staged,
                    replaces: Some(replaced),
                };
                self.table.with(reference.ino(), |node| node.content = Some(content))?;
                reference
            }
        };
        // What was set on it is in the state database.
        self.table.with(reference.ino(), |node| node.local = None)?;
        self.queue.add(reference.ino().0, Duration::ZERO);
        Ok(())
    }

    fn save_row(&self, row: &JournalRow, unsent: &Path) -> Result<()> {
        let backing = self.spool.reopen(&row.spool, &row.file)?;
        let len = backing.file().metadata()?.len();
        save_copy(backing.file(), len, &unsent.join(&row.path))?;
        self.state.journal_done(&row.spool, &row.file)?;
        backing.release();
        Ok(())
    }
}

#[async_trait]
impl Sender for FileSystem {
    async fn attempt(&self, number: u64) -> Attempt {
        let ino = Ino(number);
        if !self.is_wanted(ino) {
            return Attempt::Done;
        }
        // With a counter of its own: those who wait for this file see whether it gets on.
        let outcome = match Progress::default().scope(self.deliver(ino)).await {
            Ok(()) => {
                let dirty = self.table.with(ino, |node| node.is_dirty()).unwrap_or(false);
                self.table.settle(ino);
                return if dirty { Attempt::Again } else { Attempt::Done };
            }
            Err(error) => error,
        };
        self.note(ino, &outcome);
        if let Err(error) = self.enter(ino, Phase::Closed, Some(&outcome)) {
            warn!(ino = ino.0, %error, "the journal does not know why a file waits");
        }
        let path = self.table.path(ino).unwrap_or_default();
        warn!(path, error = %outcome, "a changed file is not at the provider yet");
        if passes(outcome.kind()) {
            Attempt::Later
        } else {
            Attempt::Rejected
        }
    }
}

/// Whether trying again soon may help without a person's doing.
fn passes(kind: ErrorKind) -> bool {
    kind.is_passing()
        || matches!(
            kind,
            ErrorKind::Internal | ErrorKind::NeedsLogin | ErrorKind::Changed | ErrorKind::AlreadyExists
        )
}
