//! Files: opening, reading, changing, sending.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tracing::warn;

use super::handle::{FileHandle, Handle, HandleId, Reading};
use super::inode::{LocalContent, Placement, Presence};
use super::{FileSystem, Found, Ino};
use crate::model::{Action, Entry, Error, ErrorKind, Kind, ObjectKey, Result, Version};
use crate::outbox::{self, Staged};
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
        if truncate {
            self.truncate(ino, 0).await?;
        }
        let keep_pages = self.table.with(ino, |node| {
            let keep = node.is_ours() || node.kernel_version.as_ref() == Some(&node.entry.version);
            node.kernel_version = Some(node.entry.version.clone());
            keep && !truncate
        })?;
        self.table.opened(ino)?;
        let file = FileHandle {
            ino,
            access,
            reading: Default::default(),
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
    ) -> Result<(Found, Opened)> {
        let (name, directory) = self.may_create(parent, name, Kind::File).await?;
        let staged = Arc::new(Staged::new_file(self.staging.new_file()?));
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
        let ino = self.table.attach_unsent(parent, entry, staged)?;
        self.table.opened(ino)?;
        self.keep_requested_mode(ino, mode, umask)?;
        let found = self.known_attributes(ino)?;
        let file = FileHandle {
            ino,
            access,
            reading: Default::default(),
        };
        let opened = Opened {
            handle: self.handles.add(Handle::File(file)),
            keep_pages: false,
        };
        self.table.remember(ino);
        Ok((found, opened))
    }

    /// An empty file made and sent at once (`mknod`).
    ///
    /// # Errors
    /// As `create` and `Provider::upload`.
    pub async fn make_file(&self, parent: Ino, name: &OsStr, mode: u32, umask: u32) -> Result<Found> {
        let (found, opened) = self.create(parent, name, Access::Write, mode, umask).await?;
        let ino = found.attributes.ino;
        let sent = self.flush(opened.handle).await;
        if sent.is_err() {
            self.table.remove(ino);
            self.forget(ino, 1);
        }
        self.close(opened.handle).await;
        sent?;
        self.known_attributes(ino)
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
        let reading = self.reading(file)?;
        match reading.source.read(offset, len).await {
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
        let staged = self.stage(file.ino).await?;
        staged
            .write(offset, bytes, self.provider.capabilities().max_file_size)
            .await?;
        self.content_changed(file.ino)
    }

    /// What `close` waits for: the file is at the provider afterwards.
    ///
    /// # Errors
    /// As `Provider::upload`; the content stays staged.
    pub async fn flush(&self, handle: HandleId) -> Result<()> {
        let handle = self.handles.get(handle)?;
        let file = handle.file()?;
        if file.access.writes() {
            self.send(file.ino).await
        } else {
            Ok(())
        }
    }

    /// # Errors
    /// As `Provider::upload`; the content stays staged.
    pub async fn fsync(&self, handle: HandleId) -> Result<()> {
        let handle = self.handles.get(handle)?;
        self.send(handle.file()?.ino).await
    }

    /// The last descriptor of a handle is gone.
    pub async fn close(&self, handle: HandleId) {
        let Some(handle) = self.handles.take(handle) else {
            return;
        };
        let Ok(file) = handle.file() else { return };
        if file.access.writes()
            && let Err(error) = self.send(file.ino).await
        {
            let path = self.table.path(file.ino).unwrap_or_default();
            warn!(path, %error, "a changed file is not at the provider yet");
            self.note(file.ino, &error);
        }
        if self.table.closed(file.ino) == 0 {
            let _ = self.table.with(file.ino, |node| {
                // Clean content is in the cache; the provider's is the truth again.
                if !node.is_ours() {
                    node.content = None;
                }
            });
            self.table.settle(file.ino);
        }
    }

    /// `truncate` of a file, open or not.
    pub(super) async fn resize(&self, ino: Ino, size: u64) -> Result<()> {
        self.truncate(ino, size).await?;
        if self.table.with(ino, |node| node.opens())? == 0 {
            self.send(ino).await?;
            self.table.with(ino, |node| node.content = None)?;
        }
        Ok(())
    }

    async fn truncate(&self, ino: Ino, size: u64) -> Result<()> {
        let limit = self.provider.capabilities().max_file_size;
        let staged = if size == 0 {
            self.stage_empty(ino).await?
        } else {
            self.stage(ino).await?
        };
        staged.truncate(size, limit).await?;
        self.content_changed(ino)
    }

    /// The staged copy of a file, made from the provider's content when there is none yet.
    async fn stage(&self, ino: Ino) -> Result<Arc<Staged>> {
        if let Some(content) = self.table.with(ino, |node| node.content.clone())? {
            return Ok(content.staged);
        }
        let changes = self.table.with(ino, |node| node.changes.clone())?;
        let _one_at_a_time = changes.lock().await;
        if let Some(content) = self.table.with(ino, |node| node.content.clone())? {
            return Ok(content.staged);
        }
        let entry = self.fresh_entry(ino).await?;
        let file = self.staging.new_file()?;
        if entry.size > 0 {
            self.require(&entry, Action::Read)?;
            self.fetcher.open(entry.object()).copy_to(&file).await?;
        }
        let staged = Arc::new(Staged::copy(file, entry.size, entry.modified));
        self.adopt(ino, staged, entry)
    }

    /// As `stage`, without the old content.
    async fn stage_empty(&self, ino: Ino) -> Result<Arc<Staged>> {
        let changes = self.table.with(ino, |node| node.changes.clone())?;
        let _one_at_a_time = changes.lock().await;
        if let Some(content) = self.table.with(ino, |node| node.content.clone())? {
            return Ok(content.staged);
        }
        let entry = self.fresh_entry(ino).await?;
        let staged = Arc::new(Staged::copy(self.staging.new_file()?, 0, entry.modified));
        self.adopt(ino, staged, entry)
    }

    fn adopt(&self, ino: Ino, staged: Arc<Staged>, entry: Entry) -> Result<Arc<Staged>> {
        let content = LocalContent {
            staged: Arc::clone(&staged),
            replaces: Some(entry),
        };
        self.table.with(ino, |node| node.content = Some(content))?;
        Ok(staged)
    }

    /// Sends what was changed, unless nothing was.
    pub(super) async fn send(&self, ino: Ino) -> Result<()> {
        let changes = self.table.with(ino, |node| node.changes.clone())?;
        let _one_at_a_time = changes.lock().await;
        self.send_staged(ino).await
    }

    /// As `send`, for callers that hold the node's `changes`.
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
        // Before writers go on: the cache must hold what was sent.
        self.fetcher.open(entry.object()).prime(&content.staged.file()).await;
        sending.done();
        self.content_sent(ino, &entry.version)?;
        self.table.with(ino, |node| {
            node.kernel_version = Some(entry.version.clone());
            node.local_contents += 1;
            node.last_error = None;
            if let Some(content) = &mut node.content {
                content.replaces = Some(entry.clone());
            }
            node.presence = Presence::AtProvider;
            node.confirm(entry);
        })?;
        self.list_node(ino);
        Ok(())
    }

    /// Where a handle reads from: the version it opened, or the one that this mount wrote since.
    fn reading(&self, file: &FileHandle) -> Result<Reading> {
        let (object, local_contents) = self
            .table
            .with(file.ino, |node| (node.entry.object(), node.local_contents))?;
        let mut reading = file.reading.lock();
        if let Some(current) = &*reading {
            let moved = current.object.version == object.version && current.object.key != object.key;
            if current.local_contents == local_contents && !moved {
                return Ok(current.clone());
            }
        }
        let source = Arc::new(self.fetcher.open(object.clone()));
        Ok(reading
            .insert(Reading {
                object,
                local_contents,
                source,
            })
            .clone())
    }
}
