//! Files: opening, reading, changing.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;
use tracing::warn;

use super::backing::HandleReads;
use super::handle::{FileHandle, Handle, HandleId, Reading};
use super::inode::{Lineage, LocalContent, Node, Presence, entry_of_this_host};
use super::{Child, FileSystem, Ino};
use crate::fetch::Source;
use crate::model::{Action, Error, ErrorKind, Kind, Name, Result};
use crate::outbox::Staged;
use crate::state::Phase;

/// What an open file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    ReadWrite,
}

impl Access {
    pub fn writes(self) -> bool {
        self != Self::Read
    }

    fn reads(self) -> bool {
        self != Self::Write
    }
}

/// An open file.
#[derive(Clone, Debug)]
pub struct Opened {
    pub handle: HandleId,
    pub reads: HandleReads,
}

impl FileSystem {
    /// # Errors
    /// `Denied` and `ReadOnly` when the access isn't granted, `IsADirectory`, `Changed` when it is gone, and as
    /// `Provider::stat`.
    pub async fn open(&self, ino: Ino, access: Access) -> Result<Opened> {
        // The kernel knew its name: told that this is outdated, it asks what the name stands for now.
        self.settle_clash(ino).await?;
        let entry = self.fresh_entry(ino).await.map_err(replaced_if_gone)?;
        if entry.is_directory() {
            return Err(Error::new(
                ErrorKind::IsADirectory,
                format!("{} is a directory", entry.name),
            ));
        }
        if self.table.with(ino, |node| node.presence)? == Presence::Local {
            // The kernel opens fifos and devices itself, and follows links.
            let message = format!("{} is no file", entry.name);
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        if access.reads() {
            self.require(&entry, Action::Read)?;
        }
        if access.writes() {
            self.require(&entry, Action::Write)?;
        }
        let whole = self.whole_file(&entry, access).await;
        let (reading, backing) = (self.current_version(ino)?, self.enter(ino, access, whole)?);
        let reads = match backing {
            Some(backing) => {
                self.file_is_read(ino);
                HandleReads::Itself(backing)
            }
            None => self.table.with(ino, |node| {
                let keep = node.is_ours() || node.kernel_version.as_ref() == Some(&node.entry.version);
                node.kernel_version = Some(node.entry.version.clone());
                if keep {
                    HandleReads::KeepPages
                } else {
                    HandleReads::Anew
                }
            })?,
        };
        Ok(self.new_handle(ino, access, reading, reads))
    }

    /// A handle that is counted already.
    fn new_handle(&self, ino: Ino, access: Access, reading: Reading, reads: HandleReads) -> Opened {
        let shown = access.reads().then(|| self.table.is_read(ino, reading.lineage));
        let file = FileHandle {
            ino,
            access,
            shown: shown.flatten(),
            reading: Mutex::new(reading),
        };
        Opened {
            handle: self.handles.add(Handle::File(file)),
            reads,
        }
    }

    /// A new file, opened for access; it reaches the provider at `flush`.
    ///
    /// # Errors
    /// `Denied`, `ReadOnly`, names that the provider cannot hold, and the local disk's.
    pub async fn create(
        &self,
        parent: Ino,
        name: &OsStr,
        access: Access,
        mode: u32,
        umask: u32,
    ) -> Result<(Child, Opened)> {
        let (name, directory) = self.may_create(parent, name, Kind::File).await?;
        let making = self.making(parent, &name);
        let staged = Arc::new(Staged::new_file(self.spool.new_file()?));
        let entry = entry_of_this_host(name, directory.rights, SystemTime::now());
        let reference = self.table.attach_unsent(parent, entry, None, Arc::clone(&staged))?;
        self.written(reference.ino(), &staged);
        let reading = self.current_version(reference.ino())?;
        self.table.opened(reference.ino(), access.writes())?;
        let opened = self.new_handle(reference.ino(), access, reading, HandleReads::Anew);
        self.note_new(reference.ino(), mode, umask);
        self.names_changed(parent);
        let child = self.as_child(reference)?;
        making.succeeded();
        Ok((child, opened))
    }

    /// An empty file made and sent at once (`mknod`).
    ///
    /// # Errors
    /// As `create` and `Provider::upload`.
    pub async fn make_file(&self, parent: Ino, name: &OsStr, mode: u32, umask: u32) -> Result<Child> {
        let making = self.making(parent, &Name::from_os(name)?);
        let (child, opened) = self.create(parent, name, Access::Write, mode, umask).await?;
        let sent = self.flush(opened.handle).await;
        if sent.is_err() {
            let staged = self.staged_of(Some(child.attributes.ino));
            self.table.remove(child.attributes.ino);
            self.forget_removed(staged).await;
        }
        self.close(opened.handle);
        sent?;
        let child = self.as_child(child.reference)?;
        making.succeeded();
        Ok(child)
    }

    /// Up to `len` bytes from `offset`, fewer only at the end of the file.
    ///
    /// # Errors
    /// `Changed` when the version that was opened is gone, and as `Provider::read`.
    pub async fn read(&self, handle: HandleId, offset: u64, len: usize) -> Result<Bytes> {
        let handle = self.handles.get(handle)?;
        let file = handle.file()?;
        if let Some(content) = self.table.with(file.ino, |node| node.content.clone())? {
            return self.read_changed(file.ino, &content, offset, len).await;
        }
        let source = self.source(file)?;
        match source.read(offset, len).await {
            Err(error) if matches!(error.kind(), ErrorKind::Changed | ErrorKind::NotFound) => {
                self.table.with(file.ino, |node| {
                    node.kernel_version = None;
                    node.expire();
                })?;
                self.forget_pages(file.ino);
                Err(Error::new(ErrorKind::Changed, error.message().to_owned()))
            }
            outcome => outcome,
        }
    }

    /// Writes at `offset`, or at the end of the file without one.
    ///
    /// # Errors
    /// `TooLarge`, `Quota`, `NoSpace`, and as reading the unchanged rest of the file fails.
    pub async fn write(&self, handle: HandleId, offset: Option<u64>, bytes: Bytes) -> Result<()> {
        let handle = self.handles.get(handle)?;
        let file = handle.file()?;
        let limit = self.provider.capabilities().max_file_size;
        self.change_content(file, |staged| {
            let bytes = bytes.clone();
            async move {
                let end = offset.unwrap_or(staged.len()).saturating_add(bytes.len() as u64);
                self.require_room(file.ino, end).await?;
                staged.write(offset, bytes, limit).await.map(|_| true)
            }
        })
        .await?;
        self.content_changed(file.ino);
        Ok(())
    }

    /// Whether a staged copy is the file's content. While it held no change it may have been let go of, and what was
    /// written into it meanwhile is nowhere; with a change in it, it stays.
    pub(super) fn is_content(&self, ino: Ino, staged: &Arc<Staged>) -> Result<bool> {
        self.table.with(ino, |node| {
            node.content
                .as_ref()
                .is_some_and(|content| Arc::ptr_eq(&content.staged, staged))
        })
    }

    /// What `close` waits for: the change outlives this process afterwards, or is at the provider, as `FsSettings::close`
    /// says.
    ///
    /// # Errors
    /// As `Provider::upload` where that is waited for; the content stays staged.
    pub async fn flush(&self, handle: HandleId) -> Result<()> {
        let handle = self.handles.get(handle)?;
        let file = handle.file()?;
        if !file.access.writes() {
            return Ok(());
        }
        if let Some(content) = self.table.with(file.ino, |node| node.content.clone())? {
            content.staged.sync_part().await?;
        }
        self.settle_change(file.ino).await
    }

    /// The provider has the file afterwards.
    ///
    /// # Errors
    /// As `Provider::upload`; the content stays staged and in the journal, and is sent in the background if that can go well.
    pub async fn fsync(&self, handle: HandleId) -> Result<()> {
        let handle = self.handles.get(handle)?;
        let ino = handle.file()?.ino;
        self.send_and_keep_trying(ino).await
    }

    /// The last descriptor of a handle is gone. Gives the file if it holds a change that nobody sends any more: what a
    /// mapping wrote after `flush`, or what `flush` failed to send.
    pub fn close(&self, handle: HandleId) -> Option<Ino> {
        let handle = self.handles.take(handle)?;
        let file = handle.file().ok()?;
        let writes = file.access.writes();
        self.table.closed(file.ino, writes);
        (writes && (self.is_wanted(file.ino) || self.is_left(file.ino))).then_some(file.ino)
    }

    /// Sends what `close` found, and lets go of what nobody needs afterwards.
    ///
    /// # Errors
    /// As `Provider::upload`; the content stays staged.
    pub async fn send_closed(&self, ino: Ino) -> Result<()> {
        let sent = match self.settle_change(ino).await {
            // It was removed meanwhile: programs unlink what they have just closed.
            Err(_) if self.table.with(ino, |_| ()).is_err() => return Ok(()),
            outcome => outcome,
        };
        if let Err(error) = &sent {
            let path = self.table.path(ino).unwrap_or_default();
            warn!(path, %error, "a changed file is not at the provider yet");
        }
        self.table.settle(ino);
        sent
    }

    /// `truncate` of a file: by a handle that writes it is sent when that is flushed, else at once.
    pub(super) async fn resize(&self, ino: Ino, size: u64, handle: Option<HandleId>) -> Result<()> {
        let handle = handle.map(|handle| self.handles.get(handle)).transpose()?;
        let file = handle.as_deref().map(Handle::file).transpose()?;
        // O_TRUNC comes as an `open` and this: the handle has shown nobody anything.
        let emptied = file.filter(|file| size == 0 && !file.reading.lock().used);
        if let Some(shown) = emptied.and_then(|file| file.shown) {
            self.table.was_not_read(ino, shown);
        }
        let by = file.filter(|file| file.access.writes());
        self.truncate(ino, size, by).await?;
        if let Some(file) = emptied {
            *file.reading.lock() = self.current_version(ino)?;
        }
        if by.is_none() {
            self.settle_change(ino).await?;
            self.table.settle(ino);
        }
        Ok(())
    }

    pub(super) async fn truncate(&self, ino: Ino, size: u64, by: Option<&FileHandle>) -> Result<()> {
        self.leave_backed(ino)?;
        let limit = self.provider.capabilities().max_file_size;
        let base = if size == 0 { Base::Nothing } else { Base::Content };
        loop {
            let staged = self.stage(ino, base, by.and_then(bound_to)).await?;
            by.map_or(Ok(()), |file| self.may_build_on(file))?;
            self.remember_unanswered(ino, &staged).await?;
            let staged = match base {
                Base::Nothing => {
                    self.table.with(ino, Node::begins_anew)?;
                    self.set_aside_closed(ino, staged).await?
                }
                Base::Content => staged,
            };
            self.require_room(ino, size).await?;
            staged.truncate(size, limit).await?;
            if self.is_content(ino, &staged)? {
                self.written(ino, &staged);
                break;
            }
        }
        self.content_changed(ino);
        Ok(())
    }

    pub(super) async fn stage_content(&self, ino: Ino) -> Result<Arc<Staged>> {
        self.stage(ino, Base::Content, None).await
    }

    /// The staged copy of a file, made anew when there is none yet; unless it would be a change of something else than what
    /// it is bound to be one of.
    async fn stage(&self, ino: Ino, base: Base, bound: Option<Lineage>) -> Result<Arc<Staged>> {
        if let Some(content) = self.table.with(ino, |node| node.content.clone())? {
            return Ok(content.staged);
        }
        let _turn = self.turn(ino).await?;
        self.stage_in_turn(ino, base, bound).await
    }

    /// As `stage`, for callers that have the node's turn.
    async fn stage_in_turn(&self, ino: Ino, base: Base, bound: Option<Lineage>) -> Result<Arc<Staged>> {
        if let Some(content) = self.table.with(ino, |node| node.content.clone())? {
            return Ok(content.staged);
        }
        loop {
            let entry = self.fresh_entry(ino).await.map_err(replaced_if_gone)?;
            let (entry, staged) = match base {
                Base::Content if entry.size > 0 => {
                    self.require(&entry, Action::Read)?;
                    self.begin_change(ino, entry).await?
                }
                _ => {
                    let staged = Staged::copy(self.spool.new_file()?, 0, entry.modified);
                    (entry, staged)
                }
            };
            let staged = Arc::new(staged);
            let is_current = self.table.with(ino, |node| {
                if bound.is_some_and(|bound| bound != node.lineage) {
                    // Other handles would read it, too.
                    return Err(replaced());
                }
                // Else it was replaced while its content was fetched.
                let is_current = node.entry.version == entry.version;
                if is_current {
                    node.content = Some(LocalContent {
                        staged: Arc::clone(&staged),
                        lineage: node.lineage,
                        replaces: Some(entry),
                    });
                }
                Ok(is_current)
            })??;
            if is_current {
                return Ok(staged);
            }
        }
    }

    /// Content that was closed and not sent isn't emptied: what is written instead counts when it is closed, too.
    async fn set_aside_closed(&self, ino: Ino, staged: Arc<Staged>) -> Result<Arc<Staged>> {
        if staged.phase() != Phase::Closed {
            return Ok(staged);
        }
        let _turn = self.turn(ino).await?;
        if staged.phase() != Phase::Closed || !self.is_content(ino, &staged)? {
            return Ok(staged);
        }
        staged.remember_unanswered().await?;
        let fresh = Arc::new(Staged::superseding(self.spool.new_file()?, staged));
        self.table.with(ino, |node| {
            if let Some(content) = &mut node.content {
                content.staged = Arc::clone(&fresh);
            }
        })?;
        fail_point!("staged.replaced");
        Ok(fresh)
    }

    /// Before a file loses its name by this mount's doing: whoever has it open goes on with a copy. The caller has the
    /// node's turn.
    ///
    /// # Errors
    /// As reading the file fails, unless it is gone already or may not be read.
    pub(super) async fn keep_open_content(&self, ino: Ino) -> Result<()> {
        // Afterwards nothing says by what name it is kept. What isn't known isn't shown then.
        let _ = self.local_attributes(ino);
        let is_needed = self.table.with(ino, |node| {
            node.opens > 0 && node.presence == Presence::AtProvider && !node.entry.is_directory()
        })?;
        if !is_needed {
            self.keep_readable(ino).await;
            return Ok(());
        }
        match self.stage_in_turn(ino, Base::Content, None).await {
            Err(error)
                if !matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::Changed | ErrorKind::Denied
                ) =>
            {
                Err(error)
            }
            _ => {
                self.keep_readable(ino).await;
                Ok(())
            }
        }
    }

    /// Whether what is written by a handle would go where its reads came from.
    pub(super) fn may_build_on(&self, file: &FileHandle) -> Result<()> {
        let lineage = self.table.with(file.ino, |node| node.current_lineage())?;
        match bound_to(file) {
            Some(bound) if bound != lineage => Err(replaced()),
            _ => Ok(()),
        }
    }

    fn current_version(&self, ino: Ino) -> Result<Reading> {
        let (object, lineage) = self
            .table
            .with(ino, |node| (node.entry.object(), node.current_lineage()))?;
        Ok(Reading {
            source: Arc::new(self.fetcher.open(object.clone())),
            object,
            lineage,
            used: false,
        })
    }

    /// Where a handle reads from: the version it opened, or the one that this mount wrote since.
    ///
    /// # Errors
    /// `Changed` when somebody else replaced it and the kernel was told: its pages and its idea of the length are one
    /// for all handles, and must not mix two versions.
    fn source(&self, file: &FileHandle) -> Result<Arc<Source>> {
        let (object, lineage, in_kernel) = self.table.with(file.ino, |node| {
            (node.entry.object(), node.lineage, node.kernel_version.clone())
        })?;
        let mut reading = file.reading.lock();
        let opened = &reading.object;
        if *opened != object {
            if opened.version == object.version || reading.lineage == lineage {
                *reading = self.current_version(file.ino)?;
            } else if in_kernel.as_ref() != Some(&opened.version) || opened.size != object.size {
                return Err(replaced());
            }
        }
        let first = !std::mem::replace(&mut reading.used, true);
        let source = Arc::clone(&reading.source);
        drop(reading);
        if first {
            self.file_is_read(file.ino);
        }
        Ok(source)
    }
}

/// What everything that is written by a handle is a change of, if it can't be of whatever is there.
fn bound_to(file: &FileHandle) -> Option<Lineage> {
    let reading = file.reading.lock();
    // Who may read and write may have been told of an end by the kernel, which asks nobody beyond the length it knows.
    (reading.used || file.access == Access::ReadWrite).then_some(reading.lineage)
}

/// What a staged copy begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    Content,
    Nothing,
}

pub(super) fn replaced_if_gone(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::new(ErrorKind::Changed, error.message()),
        _ => error,
    }
}

fn replaced() -> Error {
    Error::new(
        ErrorKind::Changed,
        "somebody else replaced the file since it was opened",
    )
}
