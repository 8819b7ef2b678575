//! Sending a changed file to the provider, and what follows from its answer.
//!
//! When that is done is decided in `outgoing`.

use super::inode::{LocalContent, Placement};
use super::{FileSystem, Ino};
use crate::model::{Entry, Error, ObjectId, Result};
use crate::outbox::{self, Sending, Staged};
use crate::provider::Target;
use crate::state::Phase;

impl FileSystem {
    /// Sends what was changed, unless nothing was.
    pub(super) async fn send(&self, ino: Ino) -> Result<()> {
        let _turn = self.turn(ino).await?;
        self.send_staged(ino).await
    }

    /// As `send`, unless somebody is writing what nobody has closed yet: that may be half of what is meant.
    pub(super) async fn send_what_is_closed(&self, ino: Ino) -> Result<()> {
        let _turn = self.turn(ino).await?;
        self.send_staged_if_closed(ino).await
    }

    /// As `send_what_is_closed`, for callers that have the node's turn.
    pub(super) async fn send_staged_if_closed(&self, ino: Ino) -> Result<()> {
        let closed = |content: &LocalContent| content.staged.phase() == Phase::Closed;
        if self.table.with(ino, |node| node.content.as_ref().is_some_and(closed))? {
            self.send_staged(ino).await
        } else {
            Ok(())
        }
    }

    /// As `send`, for callers that have the node's turn.
    pub(super) async fn send_staged(&self, ino: Ino) -> Result<()> {
        let sent = self.send_to_provider(ino).await;
        sent.inspect_err(|error| self.note_clash(ino, error))
    }

    async fn send_to_provider(&self, ino: Ino) -> Result<()> {
        let (content, removed) = self
            .table
            .with(ino, |node| (node.content.clone(), node.placement == Placement::Removed))?;
        let Some(content) = content.filter(|content| !removed && content.staged.is_dirty()) else {
            return Ok(());
        };
        // The node stays in the table until its times are kept.
        let _held = self.table.hold(ino)?;
        self.stands_still(ino).await;
        // The key of what is replaced, and of the directory, may have changed by a rename above.
        self.entry(ino).await?;
        self.complete(ino, &content.staged).await?;
        self.closed_is_journaled().await;
        let replaces = self
            .table
            .with(ino, |node| node.content.as_ref().and_then(|c| c.replaces.clone()))?;
        let Some((parent, name)) = self.place(ino)? else {
            return Ok(());
        };
        let keys = self.keys_now(parent);
        let parent_key = self.entry(parent).await?.key;
        let target = match replaces {
            Some(entry) => Target::Replace {
                parent: parent_key,
                entry,
            },
            None => Target::New {
                parent: parent_key,
                name,
            },
        };
        let mut beside = None;
        let look = || {
            beside = self.wanted_attributes(ino)?;
            Ok(beside.clone())
        };
        let Some((entry, sending)) =
            outbox::upload(&*self.provider, &content.staged, target, look, self.enter_again(ino)).await?
        else {
            return Ok(());
        };
        if entry.size != sending.content().len() {
            return Err(self.stored_wrong(ino, entry, sending.content().len()));
        }
        let object = entry.object();
        self.stored(ino, entry, &content.staged, &sending)?;
        self.doubt_key(ino, keys);
        if let Some(sent) = &beside {
            self.attributes_follow(ino, sent);
        }
        self.settle_sent(object, &content.staged).await;
        Ok(())
    }

    /// After `stored`, while writers still wait: what they change must not be taken for what was sent, so the journal has
    /// struck that first; and the cache has its bytes before the staged copy is changed or goes.
    pub(super) async fn settle_sent(&self, sent: ObjectId, staged: &Staged) {
        self.journal.caught_up().await;
        self.fetcher.open(sent).prime(&staged.file()).await;
    }

    /// The provider has something else than what was sent. It is this mount's doing: the next attempt replaces it.
    fn stored_wrong(&self, ino: Ino, entry: Entry, sent: u64) -> Error {
        let why = format!(
            "the provider stored {} bytes of {:?} and not the {sent} that were sent",
            entry.size,
            entry.name.as_str()
        );
        let _ = self.table.with(ino, |node| node.confirm_content(entry));
        Error::bad_data(why)
    }

    /// The provider has what is being sent, as this entry. At once: nothing may come between that and what is known of it.
    pub(super) fn stored(&self, ino: Ino, entry: Entry, staged: &Staged, sending: &Sending<'_>) -> Result<()> {
        let size = entry.size;
        let replaced = self.with_new_version(ino, &entry.version.clone(), |node| {
            let replaced = node.content.as_ref().map_or(0, LocalContent::replaced_bytes);
            // Not before: what the provider has meanwhile would be somebody else's.
            sending.done();
            node.kernel_version = Some(entry.version.clone());
            node.last_error = None;
            node.clash = None;
            node.confirm_content(entry);
            replaced
        })?;
        self.provider_grew(size as i64 - replaced as i64);
        self.strike(staged);
        fail_point!("upload.struck");
        Ok(())
    }
}
