//! Open files and directories.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::beliefs::Shown;
use super::directory::DirEntry;
use super::files::Access;
use super::inode::{Ino, Lineage};
use crate::fetch::Source;
use crate::model::{Error, ErrorKind, ObjectId, Result};

/// What the kernel passes back to say which open file it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HandleId(pub u64);

pub enum Handle {
    File(FileHandle),
    Directory(DirectoryHandle),
}

pub struct FileHandle {
    pub ino: Ino,
    pub access: Access,
    /// What opening it has shown; `None` for who only writes.
    pub shown: Option<Shown>,
    /// The version that reads come from; follows local changes, not remote ones.
    pub reading: Mutex<Reading>,
}

#[derive(Clone)]
pub struct Reading {
    pub object: ObjectId,
    /// Of what was read; whatever else has it may be read or written next.
    pub lineage: Lineage,
    pub source: Arc<Source>,
    /// Whether bytes of it were read by this handle: then they are not written into another version.
    pub used: bool,
}

pub struct DirectoryHandle {
    pub ino: Ino,
    /// What `readdir` answers from, so that offsets mean the same entries throughout.
    pub snapshot: Mutex<Option<Arc<Vec<DirEntry>>>>,
}

#[derive(Default)]
pub struct Handles {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    open: HashMap<HandleId, Arc<Handle>>,
    next: u64,
}

impl Handles {
    pub fn add(&self, handle: Handle) -> HandleId {
        let mut inner = self.inner.lock();
        inner.next += 1;
        let id = HandleId(inner.next);
        inner.open.insert(id, Arc::new(handle));
        id
    }

    /// # Errors
    /// `BadHandle` for what isn't open.
    pub fn get(&self, id: HandleId) -> Result<Arc<Handle>> {
        self.inner
            .lock()
            .open
            .get(&id)
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::BadHandle, "the file isn't open"))
    }

    pub fn take(&self, id: HandleId) -> Option<Arc<Handle>> {
        self.inner.lock().open.remove(&id)
    }
}

impl Handle {
    /// # Errors
    /// `BadHandle` for a directory.
    pub fn file(&self) -> Result<&FileHandle> {
        match self {
            Self::File(file) => Ok(file),
            Self::Directory(_) => Err(Error::new(ErrorKind::BadHandle, "that is an open directory")),
        }
    }

    /// # Errors
    /// `BadHandle` for a file.
    pub fn directory(&self) -> Result<&DirectoryHandle> {
        match self {
            Self::Directory(directory) => Ok(directory),
            Self::File(_) => Err(Error::new(ErrorKind::BadHandle, "that is an open file")),
        }
    }
}
