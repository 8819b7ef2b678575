//! Who holds on to nodes: operations, the kernel, and questions that are being answered.

use std::sync::Arc;

use tokio::time::Instant;

use super::Ino;
use super::inode::{Answer, Told};
use super::table::Table;

/// A node that stays in the table while this lives. The kernel's count is made of those that were kept for it.
pub struct Reference {
    table: Arc<Table>,
    ino: Ino,
}

impl Reference {
    /// For a reference that the table has counted.
    pub(super) fn counted(table: Arc<Table>, ino: Ino) -> Self {
        Self { table, ino }
    }

    pub fn ino(&self) -> Ino {
        self.ino
    }

    /// The kernel has it from now on and gives it back by `forget`.
    pub fn keep(self) {
        self.table.refer(self.ino);
    }
}

impl std::fmt::Debug for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reference({})", self.ino.0)
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        self.table.forget(self.ino, 1);
    }
}

/// The provider is being asked about a node or what is in it.
pub struct Question {
    node: Reference,
    asked: Instant,
    changes: u64,
}

impl Question {
    /// Asked now; the table has counted it.
    pub(super) fn new(node: Reference, changes: u64) -> Self {
        Self {
            node,
            asked: Instant::now(),
            changes,
        }
    }

    pub fn answered(&self) -> Answer {
        Answer {
            asked: self.asked,
            changes: self.changes,
            came: Instant::now(),
            told: Told::Now,
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        let _ = self.node.table.with(self.node.ino, |node| {
            node.questions -= 1;
            node.forget_changes();
        });
    }
}
