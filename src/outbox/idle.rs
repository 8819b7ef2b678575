//! Staged files that nobody needs any more and that the next ones are made of: to make and to remove a file costs a local
//! disk several times what it costs to write to one.
//!
//! An idle file has the name that it will be used under. The name that it had never comes back: a row of the journal
//! that a power cut brings back finds nothing, and never something else.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;

use super::label;

/// So many are kept, each with a descriptor: many times what is uploaded at the same moment.
const MOST: usize = 64;
/// Larger ones are removed: to cut them takes as long, in bytes.
const LARGEST: u64 = 1 << 20;

/// Those of one folder, for as long as it is in use.
pub(super) struct Idle(Arc<IdleFiles>);

#[derive(Debug)]
pub(super) struct IdleFiles {
    folder: PathBuf,
    next: AtomicU64,
    /// Names and files; `None` when the folder is given up.
    files: Mutex<Option<Vec<(String, File)>>>,
}

impl Idle {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self(Arc::new(IdleFiles {
            folder,
            next: AtomicU64::new(1),
            files: Mutex::new(Some(Vec::new())),
        }))
    }

    pub(super) fn files(&self) -> &Arc<IdleFiles> {
        &self.0
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        for (name, _) in self.0.files.lock().take().into_iter().flatten() {
            // What cannot be removed now is swept later.
            let _ = std::fs::remove_file(self.0.folder.join(name));
        }
    }
}

impl IdleFiles {
    /// A name that no file of this folder had.
    pub(super) fn next_name(&self) -> String {
        self.next.fetch_add(1, Ordering::Relaxed).to_string()
    }

    /// An empty file with its name.
    pub(super) fn take(&self) -> Option<(String, File)> {
        let (name, file) = self.files.lock().as_mut()?.pop()?;
        // A file that nobody writes to is as old as its making.
        let _ = file.set_modified(SystemTime::now());
        Some((name, file))
    }

    /// Takes a file that no journal names and nobody else has open; `false` when it is to be removed.
    pub(super) fn give(&self, path: &Path, file: File) -> bool {
        let has_room = |files: &Option<Vec<_>>| files.as_ref().is_some_and(|files| files.len() < MOST);
        if !has_room(&self.files.lock()) || file.metadata().map_or(true, |data| data.len() > LARGEST) {
            return false;
        }
        let name = self.next_name();
        let renamed = self.folder.join(&name);
        // In this order: emptied under its old name, it would be taken for what the journal may still name after a power
        // cut.
        if label::remove(&file).is_err() || std::fs::rename(path, &renamed).is_err() {
            return false;
        }
        fail_point!("spool.idle");
        if file.set_len(0).is_ok()
            && let Some(files) = self.files.lock().as_mut()
        {
            files.push((name, file));
        } else {
            let _ = std::fs::remove_file(renamed);
        }
        true
    }
}
