//! Files that the kernel reads from the local disk by itself, because all of them is there.
//!
//! The kernel fixes the rules: while one handle of an inode is read so, every other one has to be, from the same file. So
//! it is done only for what can't be written through this mount, and whoever opens another version meanwhile, or may write
//! by now, is told to look the name up again and finds another inode.

use std::any::Any;
use std::fs::File;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use super::FileSystem;
use super::files::Access;
use super::inode::{Ino, Node};
use crate::cache::WholeFile;
use crate::model::{Action, Entry, Error, ErrorKind, Result, Version};

/// Where the kernel reads an open file from.
#[derive(Clone, Debug)]
pub enum HandleReads {
    /// From this daemon; the pages that it holds are of another version.
    Anew,
    /// From this daemon; the pages that it holds are this version's.
    KeepPages,
    /// From a local file, by itself.
    Itself(Arc<Backing>),
}

/// The local file that some handles of one inode are read from.
pub struct Backing {
    version: Version,
    whole: WholeFile,
    /// What the kernel calls it; `None` when it refused.
    registered: OnceLock<Option<Box<dyn Any + Send + Sync>>>,
}

impl Backing {
    /// What the kernel calls the file. The first caller introduces it; a refusal holds for all.
    pub fn registered<T: Any + Send + Sync>(&self, introduce: impl FnOnce(&File) -> Option<T>) -> Option<&T> {
        let introduced = self.registered.get_or_init(|| {
            let name = introduce(self.whole.file())?;
            Some(Box::new(name))
        });
        introduced.as_ref()?.downcast_ref()
    }
}

impl std::fmt::Debug for Backing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Backing").field(&self.whole).finish()
    }
}

impl FileSystem {
    /// The kernel can read local files by itself. Called before the first file is opened.
    pub fn kernel_reads_files(&self) {
        self.kernel_reads.store(true, Ordering::Relaxed);
    }

    /// Whether it can, and did not refuse yet.
    pub fn does_kernel_read_files(&self) -> bool {
        self.kernel_reads.load(Ordering::Relaxed)
    }

    /// The kernel refused to: it may not be allowed here. Handles that were to be read so are read as others are.
    pub fn kernel_reads_no_files(&self, ino: Ino) {
        self.kernel_reads.store(false, Ordering::Relaxed);
        let refused = self.table.with(ino, |node| node.backing.take());
        drop(refused);
    }

    /// To be asked before a file is changed.
    ///
    /// # Errors
    /// `Changed` when the kernel reads it by itself: the name has another inode afterwards.
    pub(super) fn leave_backed(&self, ino: Ino) -> Result<()> {
        match self.table.with(ino, |node| node.backing.is_some())? {
            true => Err(self.superseded(ino)),
            false => Ok(()),
        }
    }

    /// What a reader could be served from without this daemon.
    pub(super) async fn whole_file(&self, entry: &Entry, access: Access) -> Option<Backing> {
        let may_be = self.does_kernel_read_files()
            && !access.writes()
            && entry.size > 0
            && self.require(entry, Action::Write).is_err();
        if !may_be {
            return None;
        }
        let whole = self.fetcher.open(entry.object()).whole_file().await?;
        Some(Backing {
            version: entry.version.clone(),
            whole,
            registered: OnceLock::new(),
        })
    }

    /// Counts a handle as open. Gives what the kernel is to read it from, if it does so by itself.
    ///
    /// # Errors
    /// `Changed` when other handles are read from what isn't this content: the name has another inode afterwards.
    pub(super) fn enter(&self, ino: Ino, access: Access, whole: Option<Backing>) -> Result<Option<Arc<Backing>>> {
        let entered = self.table.with(ino, |node| {
            let backing = match &node.backing {
                Some(there) if serves(there, node, access) => Some(Arc::clone(there)),
                Some(_) => return None,
                None if node.opens > 0 => None,
                None => whole.filter(|whole| serves(whole, node, access)).map(Arc::new),
            };
            node.backing.clone_from(&backing);
            node.opened(access.writes());
            Some(backing)
        })?;
        entered.ok_or_else(|| self.superseded(ino))
    }

    fn superseded(&self, ino: Ino) -> Error {
        self.table.supersede(ino);
        Error::new(
            ErrorKind::Changed,
            "somebody reads the file as it was; opened again, it is as it is now",
        )
    }
}

fn serves(backing: &Backing, node: &Node, access: Access) -> bool {
    !access.writes() && !node.is_ours() && node.content.is_none() && backing.version == node.entry.version
}
