//! Files on their way to the provider: what the journal knows of them, and when they are sent.
//!
//! A row of the journal says what is true: `Writing` until somebody closed the file, `Closed` from then on until the
//! provider has it. Only closed files are sent in the background.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tracing::warn;

use super::conflicts::Resolved;
use super::inode::{LocalContent, Node, Placement, Presence};
use super::left_over::LEFT_OVER;
use super::{FileSystem, Ino};
use crate::model::{Error, ErrorKind, Progress, Result};
use crate::outbox::{Attempt, Begun, Journal, Queue, Sender, Staged, Step, base, boot};
use crate::state::{Durability, JournalRow, Phase};

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

/// Has a file sent in the background when it is dropped.
struct Later<'a> {
    queue: &'a Queue,
    ino: Ino,
}

impl Drop for Later<'_> {
    fn drop(&mut self) {
        self.queue.add(self.ino.0, STILL_OPEN);
    }
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

    /// Sees to it that the next mount finds all that is pending. Waits for the disk's answer.
    ///
    /// # Errors
    /// The disk's; then copies are needed.
    pub fn keep_pending(&self) -> Result<()> {
        self.journal.finish();
        let lost = self.table.dirty().into_iter().any(|ino| {
            let kept = |node: &mut Node| {
                node.content
                    .as_ref()
                    .is_none_or(|content| content.staged.backing().is_kept())
            };
            !self.table.with(ino, kept).unwrap_or(true)
        });
        if lost {
            return Err(Error::internal("the journal doesn't name everything that waits"));
        }
        self.journal.flush();
        Ok(())
    }

    /// Everything that waits is tried now.
    pub fn retry_pending(&self) {
        for ino in self
            .table
            .dirty()
            .into_iter()
            .chain(self.table.with_waiting_attributes())
        {
            self.queue.add(ino.0, Duration::ZERO);
        }
        if self.left_over() > 0 {
            self.queue.add(LEFT_OVER, Duration::ZERO);
        }
        self.queue.hurry();
    }

    /// How many files are to be sent, or what was set beside them, with those of former daemons that are still to be taken
    /// over; those that somebody is writing are not yet.
    pub fn waiting(&self) -> usize {
        let wanted = self.table.dirty().into_iter().filter(|ino| self.is_wanted(*ino));
        wanted.count() + self.table.with_waiting_attributes().len() + self.left_over()
    }

    /// What `fsync` of a directory promises: names outlive a power cut. Those that the provider has were there when the
    /// call that made them returned; those of files that aren't sent, of links and of fifos are on this host's disk when this
    /// returns, with the content that was closed under them.
    ///
    /// # Errors
    /// The disk's.
    pub async fn sync_names(&self) -> Result<()> {
        if self.settings.read_only {
            return Ok(());
        }
        // Nobody who has handed in less than all of a change is overtaken.
        drop(self.journaling.lock());
        self.journal.sync().await
    }

    /// The one writer of this mount's journal.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// What is staged now, in bytes.
    pub fn staged_bytes(&self) -> u64 {
        self.spool.used()
    }

    /// A file was written to: it outlives the process from now on, though nothing was promised yet.
    pub(super) fn written(&self, ino: Ino, staged: &Staged) {
        if staged.backing().is_kept() {
            return;
        }
        let _order = self.journaling.lock();
        match self.entering(ino, None) {
            Ok(step) => self.journal.post_soon(step.into_iter().collect()),
            // `close` will insist.
            Err(error) => warn!(ino = ino.0, %error, "a change is not in the journal yet"),
        }
    }

    /// The journal forgets a file: the provider has it.
    pub(super) fn strike(&self, staged: &Staged) {
        let _order = self.journaling.lock();
        self.journal.post(Self::striking(staged));
    }

    /// What is closed by now is in the journal, or could not be entered, when this returns: sent before, it would be taken
    /// for somebody else's if this process ended in between.
    pub(super) async fn closed_is_journaled(&self) {
        drop(self.journaling.lock());
        self.journal.caught_up().await;
    }

    /// The journal forgets a file that was removed, when this returns.
    ///
    /// # Errors
    /// The disk's.
    async fn strike_removed(&self, staged: &Staged) -> Result<()> {
        let begun = {
            let _order = self.journaling.lock();
            self.journal.begin(Self::striking(staged))
        };
        begun.made().await
    }

    /// As `strike_removed`, for what was done and cannot be taken back.
    pub(super) async fn forget_removed(&self, staged: Option<Arc<Staged>>) {
        if let Some(staged) = staged
            && let Err(error) = self.strike_removed(&staged).await
        {
            warn!(%error, "the journal has an older state of a file");
        }
    }

    /// What the journal is to say of a file that got another place, handed in with what goes at the same moment.
    fn begin_entering(&self, ino: Ino, replaced: Option<Arc<Staged>>, moved: Option<Step>) -> Result<Begun> {
        let _order = self.journaling.lock();
        let mut steps = replaced.map_or_else(Vec::new, |staged| Self::striking(&staged));
        steps.extend(moved);
        steps.extend(self.entering(ino, None)?);
        Ok(self.journal.begin(steps))
    }

    /// What `close` promises.
    pub(super) async fn settle_change(&self, ino: Ino) -> Result<()> {
        let dirty = self.table.with(ino, |node| node.is_dirty())?;
        if !dirty {
            return Ok(());
        }
        match self.settings.close {
            CloseMeans::Sent => {
                let sent = self.send_or_step_aside(ino).await;
                if let Err(error) = &sent {
                    self.enter_closed(ino, Some(error)).await?;
                    self.queue.add(ino.0, STILL_OPEN);
                }
                sent
            }
            CloseMeans::Journaled => match self.enter_closed(ino, None).await {
                Ok(()) => {
                    let open = self.table.with(ino, |node| node.writers > 0)?;
                    self.queue.add(ino.0, if open { STILL_OPEN } else { Duration::ZERO });
                    Ok(())
                }
                // Without a journal only the provider can keep it.
                Err(error) => {
                    warn!(ino = ino.0, %error, "a change is not in the journal; it is sent at once");
                    let sent = self.send(ino).await;
                    if sent.is_err() {
                        self.queue.add(ino.0, STILL_OPEN);
                    }
                    sent
                }
            },
        }
    }

    /// What `fsync` promises. Whoever gives up waiting, or is told of an error, leaves it in the journal as closed, and to
    /// the background.
    pub(super) async fn send_and_keep_trying(&self, ino: Ino) -> Result<()> {
        if !self.table.with(ino, |node| node.is_dirty())? {
            return Ok(());
        }
        if let Err(error) = self.enter_closed(ino, None).await {
            warn!(ino = ino.0, %error, "a change is not in the journal; it is sent at once");
        }
        let later = Later {
            queue: &self.queue,
            ino,
        };
        let sent = self.send_or_step_aside(ino).await;
        match &sent {
            Ok(()) => std::mem::forget(later),
            Err(error) => {
                if let Err(error) = self.enter_closed(ino, Some(error)).await {
                    warn!(ino = ino.0, %error, "the journal does not know why a file waits");
                }
            }
        }
        sent
    }

    /// The journal has what is here as closed when this returns.
    async fn enter_closed(&self, ino: Ino, error: Option<&Error>) -> Result<()> {
        let Some(content) = self.table.with(ino, |node| node.content.clone())? else {
            return Ok(());
        };
        let staged = content.staged;
        if staged.is_journaled() && error.is_none() {
            return Ok(());
        }
        fail_point!("close.begun");
        let mut closed = None;
        let changes = loop {
            let (path, changes, begun) = {
                let _order = self.journaling.lock();
                // From here on it may be sent, and whoever sends it waits for what is handed in here.
                let changes = *closed.get_or_insert_with(|| staged.close());
                let path = self.table.path(ino);
                let mut steps: Vec<Step> = self.entering(ino, error)?.into_iter().collect();
                // What it takes the place of goes in the same moment.
                let superseded = staged.take_superseded();
                steps.extend(superseded.iter().map(|old| Step::Strike(Arc::clone(old.backing()))));
                (path, changes, self.journal.begin(steps))
            };
            begun.made().await?;
            let Some(path) = path else { return Ok(()) };
            // A directory above may have been renamed between the look at the path and the commit.
            match self.table.path(ino) {
                Some(now) if now != path => {}
                Some(_) => break changes,
                // It was removed meanwhile: what was entered is nobody's.
                None => return self.strike_removed(&staged).await,
            }
        };
        staged.journaled(changes);
        Ok(())
    }

    /// What the journal is to say of a changed file; `None` for what isn't to be sent, or was. The caller has the order.
    fn entering(&self, ino: Ino, error: Option<&Error>) -> Result<Option<Step>> {
        let Some(path) = self.table.path(ino) else {
            return Ok(None);
        };
        let Some(content) = self.table.with(ino, |node| node.content.clone())? else {
            return Ok(None);
        };
        if !content.staged.is_dirty() {
            return Ok(None);
        }
        let (file, changes) = (Arc::clone(content.staged.backing()), content.staged.changes());
        let row = Box::new(JournalRow {
            spool: file.spool.clone(),
            file: file.name.clone(),
            namespace: self.namespace(),
            remote: self.settings.remote.clone(),
            path,
            perhaps: None,
            phase: content.staged.phase(),
            durability: if file.is_flushed(changes) {
                Durability::Flushed
            } else {
                Durability::SinceBoot(boot().to_owned())
            },
            base: content.replaces.as_ref().map(base::write).transpose()?,
            error: error.map(|error| error.message().to_owned()),
            postponed: None,
            unanswered: content.staged.unanswered(),
        });
        Ok(Some(Step::Enter { file, row, changes }))
    }

    /// What makes the journal forget a file: the provider has it, or it was removed. The caller has the order.
    fn striking(staged: &Staged) -> Vec<Step> {
        let superseded = staged.take_superseded();
        let files = superseded.iter().map(|old| old.backing()).chain([staged.backing()]);
        files
            .filter(|file| file.is_kept())
            .map(|file| Step::Strike(Arc::clone(file)))
            .collect()
    }

    /// A file got another name, and what had that goes: in the journal, in one moment.
    ///
    /// # Errors
    /// As what it is a change of cannot be written down.
    pub(super) async fn enter_moved(&self, ino: Ino, over: Option<Arc<Staged>>, moved: Option<Step>) -> Result<()> {
        if let Err(error) = self.begin_entering(ino, over, moved)?.made().await {
            warn!(%error, "the journal has an older state of a file");
        }
        Ok(())
    }

    /// Two files got each other's names: in the journal, in one moment.
    pub(super) async fn enter_exchanged(&self, files: [Ino; 2]) {
        let begun = {
            let _order = self.journaling.lock();
            let steps = files.iter().map(|ino| self.entering(*ino, None));
            let steps: Result<Vec<Option<Step>>> = steps.collect();
            steps.map(|steps| self.journal.begin(steps.into_iter().flatten().collect()))
        };
        let made = match begun {
            Ok(begun) => begun.made().await,
            Err(error) => Err(error),
        };
        if let Err(error) = made {
            warn!(%error, "the journal has an older state of two files");
        }
    }

    /// A node that is dirty got another path or another base.
    pub(super) async fn enter_again(&self, ino: Ino) {
        let kept = |node: &mut Node| {
            node.content
                .as_ref()
                .is_some_and(|content| content.staged.backing().is_kept() && content.staged.is_dirty())
        };
        if !self.table.with(ino, kept).unwrap_or(false) {
            return;
        }
        let made = match self.begin_entering(ino, None, None) {
            Ok(begun) => begun.made().await,
            Err(error) => Err(error),
        };
        if let Err(error) = made {
            warn!(ino = ino.0, %error, "the journal has an older state of a file");
        }
    }

    /// Before a changed file is changed further: what was sent of it without an answer is in the journal, so that the next
    /// daemon doesn't take it for somebody else's.
    ///
    /// # Errors
    /// The disk's.
    pub(super) async fn remember_unanswered(&self, ino: Ino, staged: &Staged) -> Result<()> {
        if staged.remember_unanswered().await? {
            self.enter_again(ino).await;
        }
        Ok(())
    }

    /// Journals what was done and cannot be taken back.
    pub(super) async fn commit_or_warn(&self, steps: Vec<Step>) {
        if let Err(error) = self.journal.commit(steps).await {
            warn!(%error, "the journal has an older state of a file");
        }
    }

    /// Sends a changed file now, under another name if somebody else was faster.
    ///
    /// # Errors
    /// As `Provider::upload`; the content stays staged.
    pub(super) async fn deliver(&self, ino: Ino) -> Result<()> {
        let mut outcome = self.send_what_is_closed(ino).await;
        if let Err(error) = &outcome {
            outcome = match error.kind() {
                ErrorKind::Changed | ErrorKind::AlreadyExists => match self.resolve(ino, error.clone()).await {
                    Ok(Resolved::Ours) => self.send_what_is_closed(ino).await,
                    Ok(Resolved::Theirs) => Ok(()),
                    Err(error) => Err(error),
                },
                // A directory above may have got another name meanwhile.
                ErrorKind::NotFound => self.send_what_is_closed(ino).await,
                _ => outcome,
            };
        }
        match outcome {
            // Somebody else has sent or removed it while this waited.
            Err(_) if !self.is_wanted(ino) => Ok(()),
            outcome => outcome,
        }
    }

    fn is_unsent(&self, ino: Ino) -> bool {
        let unsent = self.table.with(ino, |node| node.presence == Presence::Unsent);
        unsent.unwrap_or(false)
    }

    /// Whether it was changed, and nobody is left who could close it.
    pub(super) fn is_left(&self, ino: Ino) -> bool {
        let left = |node: &mut Node| node.is_dirty() && node.writers == 0 && node.placement != Placement::Removed;
        self.table.with(ino, left).unwrap_or(false)
    }

    /// Whether the provider is to have what is here and isn't there. While somebody writes it for the first time, it isn't.
    pub(super) fn is_wanted(&self, ino: Ino) -> bool {
        let closed = |content: &LocalContent| content.staged.phase() == Phase::Closed;
        let wanted = |node: &mut Node| {
            node.is_dirty() && node.placement != Placement::Removed && node.content.as_ref().is_some_and(closed)
        };
        self.table.with(ino, wanted).unwrap_or(false)
    }
}

#[async_trait]
impl Sender for FileSystem {
    async fn attempt(&self, number: u64) -> Attempt {
        if number == LEFT_OVER {
            return Progress::default().scope(self.attempt_left_over()).await;
        }
        let ino = Ino(number);
        if !self.is_wanted(ino) {
            return if self.attributes_wait(ino) {
                self.attempt_attributes(ino).await
            } else {
                Attempt::Done
            };
        }
        // With a counter of its own: those who wait for this file see whether it gets on.
        let outcome = match Progress::default().scope(self.deliver(ino)).await {
            Ok(()) => {
                let left = self.is_wanted(ino) || self.attributes_wait(ino);
                self.table.settle(ino);
                return if left { Attempt::Again } else { Attempt::Done };
            }
            Err(error) => error,
        };
        self.note(ino, &outcome);
        {
            let _order = self.journaling.lock();
            match self.entering(ino, Some(&outcome)) {
                Ok(step) => self.journal.post(step.into_iter().collect()),
                Err(error) => warn!(ino = ino.0, %error, "the journal does not know why a file waits"),
            }
        }
        let path = self.table.path(ino).unwrap_or_default();
        warn!(path, error = %outcome, "a changed file is not at the provider yet");
        match outcome.kind() {
            ErrorKind::Changed if self.is_unsent(ino) => Attempt::Rejected,
            ErrorKind::RateLimited {
                retry_after: Some(asked),
            } => Attempt::After(asked),
            kind if passes(kind) => Attempt::Later,
            _ => Attempt::Rejected,
        }
    }
}

/// Whether trying again soon may help without a person's doing.
pub(super) fn passes(kind: ErrorKind) -> bool {
    kind.is_passing()
        || matches!(
            kind,
            ErrorKind::Internal | ErrorKind::NeedsLogin | ErrorKind::Changed | ErrorKind::AlreadyExists
        )
}
