//! Files: opening, reading, changing, sending.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;
use tracing::warn;

use super::handle::{FileHandle, Handle, HandleId, Reading};
use super::inode::{LocalContent, Placement};
use super::{Child, CloseMeans, FileSystem, Ino};
use crate::fetch::Source;
use crate::model::{Action, Entry, Error, ErrorKind, Kind, ObjectKey, Result, Version};
use crate::outbox::{self, Sending, Staged};
use crate::provider::Target;

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
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    pub handle: HandleId,
    /// Whether the pages that the kernel holds are still this version's.
    pub keep_pages: bool,
}

impl FileSystem {
    /// # Errors
    /// `Denied` and `ReadOnly` when the access isn't granted, `IsADirectory`, and as `Provider::stat`.
    pub async fn open(&self, ino: Ino, access: Access, truncate: bool) -> Result<Opened> {
        let entry = self.fresh_entry(ino).await?;
        if entry.is_directory() {
            return Err(Error::new(
                ErrorKind::IsADirectory,
                format!("{} is a directory", entry.name),
            ));
        }
        if access.reads() {
            self.require(&entry, Action::Read)?;
        }
        if access.writes() || truncate {
            self.require(&entry, Action::Write)?;
        }
        let access = match access {
            // What it emptied is to be sent when it is closed.
            Access::Read if truncate => Access::ReadWrite,
            access => access,
        };
        if truncate {
            self.truncate(ino, 0, None).await?;
        }
        let keep_pages = self.table.with(ino, |node| {
            let keep = node.is_ours() || node.kernel_version.as_ref() == Some(&node.entry.version);
            node.kernel_version = Some(node.entry.version.clone());
            keep && !truncate
        })?;
        self.open_handle(ino, access, keep_pages)
    }

    fn open_handle(&self, ino: Ino, access: Access, keep_pages: bool) -> Result<Opened> {
        let reading = self.current_version(ino)?;
        self.table.opened(ino, access.writes())?;
        let file = FileHandle {
            ino,
            access,
            reading: Mutex::new(reading),
        };
        Ok(Opened {
            handle: self.handles.add(Handle::File(file)),
            keep_pages,
        })
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
        let staged = Arc::new(Staged::new_file(self.spool.new_file()?));
        let entry = Entry {
            key: ObjectKey::new(""),
            name,
            kind: Kind::File,
            size: 0,
            modified: SystemTime::now(),
            version: Version::new(""),
            rights: directory.rights,
            labels: Default::default(),
        };
        let reference = self.table.attach_unsent(parent, entry, Arc::clone(&staged))?;
        self.written(reference.ino(), &staged);
        let opened = self.open_handle(reference.ino(), access, false)?;
        self.keep_requested_mode(reference.ino(), mode, umask);
        self.content_changed(parent);
        Ok((self.as_child(reference)?, opened))
    }

    /// An empty file made and sent at once (`mknod`).
    ///
    /// # Errors
    /// As `create` and `Provider::upload`.
    pub async fn make_file(&self, parent: Ino, name: &OsStr, mode: u32, umask: u32) -> Result<Child> {
        let (child, opened) = self.create(parent, name, Access::Write, mode, umask).await?;
        let sent = self.flush(opened.handle).await;
        if sent.is_err() {
            self.table.remove(child.attributes.ino);
        }
        self.close(opened.handle);
        sent?;
        self.as_child(child.reference)
    }

    /// Up to `len` bytes from `offset`, fewer only at the end of the file.
    ///
    /// # Errors
    /// `Changed` when the version that was opened is gone, and as `Provider::read`.
    pub async fn read(&self, handle: HandleId, offset: u64, len: usize) -> Result<Bytes> {
        let handle = self.handles.get(handle)?;
        let file = handle.file()?;
        if let Some(content) = self.table.with(file.ino, |node| node.content.clone())? {
            return content.staged.read(offset, len).await;
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
    /// `TooLarge`, `NoSpace`, and as reading the unchanged rest of the file fails.
    pub async fn write(&self, handle: HandleId, offset: Option<u64>, bytes: Bytes) -> Result<()> {
        let handle = self.handles.get(handle)?;
        let file = handle.file()?;
        if !file.access.writes() {
            return Err(Error::new(ErrorKind::BadHandle, "the file isn't open for writing"));
        }
        let limit = self.provider.capabilities().max_file_size;
        loop {
            let staged = self.stage(file.ino, Base::Content).await?;
            self.may_build_on(file)?;
            staged.write(offset, bytes.clone(), limit).await?;
            if self.is_content(file.ino, &staged)? {
                self.written(file.ino, &staged);
                break;
            }
        }
        self.content_changed(file.ino);
        Ok(())
    }

    /// Whether a staged copy is the file's content. While it held no change it may have been let go of, and what was
    /// written into it meanwhile is nowhere; with a change in it, it stays.
    fn is_content(&self, ino: Ino, staged: &Arc<Staged>) -> Result<bool> {
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
        if file.access.writes() {
            self.settle_change(file.ino).await
        } else {
            Ok(())
        }
    }

    /// The provider has the file afterwards.
    ///
    /// # Errors
    /// As `Provider::upload`; the content stays staged, and is sent in the background if that can go well.
    pub async fn fsync(&self, handle: HandleId) -> Result<()> {
        let handle = self.handles.get(handle)?;
        let ino = handle.file()?.ino;
        let sent = self.send(ino).await;
        if sent.is_err() && self.settings.close == CloseMeans::Journaled {
            self.settle_change(ino).await?;
        }
        sent
    }

    /// The last descriptor of a handle is gone. Gives the file if it holds a change that nobody sends any more: what a
    /// mapping wrote after `flush`, or what `flush` failed to send.
    pub fn close(&self, handle: HandleId) -> Option<Ino> {
        let handle = self.handles.take(handle)?;
        let file = handle.file().ok()?;
        let writes = file.access.writes();
        self.table.closed(file.ino, writes);
        let dirty = self.table.with(file.ino, |node| node.is_dirty()).unwrap_or(false);
        (writes && dirty).then_some(file.ino)
    }

    /// Sends what `close` found, and lets go of what nobody needs afterwards.
    ///
    /// # Errors
    /// As `Provider::upload`; the content stays staged.
    pub async fn send_closed(&self, ino: Ino) -> Result<()> {
        let sent = self.settle_change(ino).await;
        if let Err(error) = &sent {
            let path = self.table.path(ino).unwrap_or_default();
            warn!(path, %error, "a changed file is not at the provider yet");
        }
        self.table.settle(ino);
        sent
    }

    /// `truncate` of a file: by a handle it is sent when that is flushed, else at once.
    pub(super) async fn resize(&self, ino: Ino, size: u64, handle: Option<HandleId>) -> Result<()> {
        let by = handle.map(|handle| self.handles.get(handle)).transpose()?;
        let by = by.as_deref().map(Handle::file).transpose()?;
        self.truncate(ino, size, by).await?;
        if by.is_none() {
            self.settle_change(ino).await?;
            self.table.settle(ino);
        }
        Ok(())
    }

    async fn truncate(&self, ino: Ino, size: u64, by: Option<&FileHandle>) -> Result<()> {
        let limit = self.provider.capabilities().max_file_size;
        let base = if size == 0 { Base::Nothing } else { Base::Content };
        loop {
            let staged = self.stage(ino, base).await?;
            by.map_or(Ok(()), |file| self.may_build_on(file))?;
            staged.truncate(size, limit).await?;
            if self.is_content(ino, &staged)? {
                self.written(ino, &staged);
                break;
            }
        }
        self.content_changed(ino);
        Ok(())
    }

    /// The staged copy of a file, made anew when there is none yet.
    async fn stage(&self, ino: Ino, base: Base) -> Result<Arc<Staged>> {
        if let Some(content) = self.table.with(ino, |node| node.content.clone())? {
            return Ok(content.staged);
        }
        let _turn = self.turn(ino).await?;
        if let Some(content) = self.table.with(ino, |node| node.content.clone())? {
            return Ok(content.staged);
        }
        let entry = self.fresh_entry(ino).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::new(ErrorKind::Changed, error.message()),
            _ => error,
        })?;
        let backing = self.spool.new_file()?;
        let size = match base {
            Base::Content => entry.size,
            Base::Nothing => 0,
        };
        if size > 0 {
            self.require(&entry, Action::Read)?;
            self.fetcher.open(entry.object()).copy_to(backing.file()).await?;
        }
        let staged = Arc::new(Staged::copy(backing, size, entry.modified));
        let content = LocalContent {
            staged: Arc::clone(&staged),
            replaces: Some(entry),
        };
        self.table.with(ino, |node| node.content = Some(content))?;
        Ok(staged)
    }

    /// Sends what was changed, unless nothing was.
    pub(super) async fn send(&self, ino: Ino) -> Result<()> {
        let _turn = self.turn(ino).await?;
        self.send_staged(ino).await
    }

    /// As `send`, for callers that have the node's turn.
    pub(super) async fn send_staged(&self, ino: Ino) -> Result<()> {
        let (content, removed) = self
            .table
            .with(ino, |node| (node.content.clone(), node.placement == Placement::Removed))?;
        let Some(content) = content.filter(|content| !removed && content.staged.is_dirty()) else {
            return Ok(());
        };
        // The key of what is replaced, and of the directory, may have changed by a rename above.
        self.entry(ino).await?;
        let replaces = self
            .table
            .with(ino, |node| node.content.as_ref().and_then(|c| c.replaces.clone()))?;
        let Some((parent, name)) = self.place(ino)? else {
            return Ok(());
        };
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
        let Some((entry, sending)) = outbox::upload(&*self.provider, &content.staged, target).await? else {
            return Ok(());
        };
        let object = entry.object();
        self.stored(ino, entry, &content.staged, &sending)?;
        // Before writers go on: the cache must hold what was sent.
        self.fetcher.open(object).prime(&content.staged.file()).await;
        Ok(())
    }

    /// The provider has what is being sent, as this entry. At once: nothing may come between that and what is known of it.
    pub(super) fn stored(&self, ino: Ino, entry: Entry, staged: &Staged, sending: &Sending<'_>) -> Result<()> {
        sending.done();
        let version = entry.version.clone();
        self.table.with(ino, |node| {
            node.kernel_version = Some(version.clone());
            node.sent = Some(version.clone());
            node.last_error = None;
            if let Some(content) = &mut node.content {
                content.replaces = Some(entry.clone());
            }
            node.confirm(entry);
        })?;
        self.strike(staged);
        self.times_follow(ino, &version);
        self.list_node(ino);
        Ok(())
    }

    /// Whether what is written by a handle would go where its reads came from.
    fn may_build_on(&self, file: &FileHandle) -> Result<()> {
        let (base, sent) = self.table.with(file.ino, |node| {
            let replaces = node.content.as_ref().and_then(|content| content.replaces.as_ref());
            (replaces.map(|entry| entry.version.clone()), node.sent.clone())
        })?;
        let reading = file.reading.lock();
        if reading.used && base.is_some() && base != sent && base.as_ref() != Some(&reading.object.version) {
            return Err(replaced());
        }
        Ok(())
    }

    fn current_version(&self, ino: Ino) -> Result<Reading> {
        let object = self.table.with(ino, |node| node.entry.object())?;
        Ok(Reading {
            source: Arc::new(self.fetcher.open(object.clone())),
            object,
            used: false,
        })
    }

    /// Where a handle reads from: the version it opened, or the one that this mount wrote since.
    ///
    /// # Errors
    /// `Changed` when somebody else replaced it and the kernel was told: its pages and its idea of the length are one
    /// for all handles, and must not mix two versions.
    fn source(&self, file: &FileHandle) -> Result<Arc<Source>> {
        let (object, sent, in_kernel) = self.table.with(file.ino, |node| {
            (node.entry.object(), node.sent.clone(), node.kernel_version.clone())
        })?;
        let mut reading = file.reading.lock();
        let opened = &reading.object;
        if *opened != object {
            if opened.version == object.version || sent.as_ref() == Some(&object.version) {
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

/// What a staged copy begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    Content,
    Nothing,
}

fn replaced() -> Error {
    Error::new(
        ErrorKind::Changed,
        "somebody else replaced the file since it was opened",
    )
}
