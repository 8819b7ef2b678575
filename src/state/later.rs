//! Attributes that follow from other changes, such as the times of a directory in which a file was made: they wait for the
//! next commit instead of making one of their own. Whoever reads them sees them at once.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::attributes::insert;
use super::{LocalAttributes, StateDb, failed};
use crate::model::Result;

/// As many wait at most: one commit of them takes a few milliseconds.
const MOST: usize = 256;

/// By namespace and path.
#[derive(Default)]
pub(super) struct Later(Mutex<HashMap<(String, String), LocalAttributes>>);

impl Later {
    /// What waits for this path. The caller holds the connection: what is being committed is seen there.
    pub(super) fn get(&self, namespace: &str, path: &str) -> Option<LocalAttributes> {
        let waiting = self.0.lock();
        if waiting.is_empty() {
            return None;
        }
        waiting.get(&(namespace.to_owned(), path.to_owned())).cloned()
    }

    /// The same for all names that follow such a beginning and have nothing below them.
    pub(super) fn inside(&self, namespace: &str, prefix: &str) -> Vec<(String, LocalAttributes)> {
        let waiting = self.0.lock();
        let inside = waiting.iter().filter_map(|((of, path), attributes)| {
            let name = path.strip_prefix(prefix).filter(|_| of == namespace)?;
            let is_child = !name.is_empty() && !name.contains('/');
            is_child.then(|| (name.to_owned(), attributes.clone()))
        });
        inside.collect()
    }
}

impl StateDb {
    /// One transaction: first what waits, then `work`.
    pub(super) fn commit_with<T>(
        &self,
        connection: &mut Connection,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let taken = std::mem::take(&mut *self.later.0.lock());
        // Immediate: who reads first and is overtaken by another process may not write any more, and waits for nobody.
        let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let outcome = begun.and_then(|transaction| {
            for ((namespace, path), attributes) in &taken {
                insert(&transaction, namespace, path, attributes)?;
            }
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        });
        if outcome.is_err() {
            let mut waiting = self.later.0.lock();
            for (place, attributes) in taken {
                waiting.entry(place).or_insert(attributes);
            }
        }
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.commits.fetch_add(1, Ordering::Relaxed);
        outcome
    }

    /// As `set_attributes`, as part of the next commit of whatever else: what is lost if this process is killed before is
    /// lost together with the change that it belongs to.
    ///
    /// # Errors
    /// The disk's, when much waits already.
    pub fn set_attributes_later(&self, namespace: &str, path: &str, attributes: &LocalAttributes) -> Result<()> {
        let waiting = {
            let mut waiting = self.later.0.lock();
            waiting.insert((namespace.to_owned(), path.to_owned()), attributes.clone());
            waiting.len()
        };
        self.changes.fetch_add(1, Ordering::SeqCst);
        if waiting < MOST { Ok(()) } else { self.keep_attributes() }
    }

    /// Commits what waits for a commit.
    ///
    /// # Errors
    /// The disk's; then it goes on waiting.
    pub fn keep_attributes(&self) -> Result<()> {
        let mut connection = self.connection.lock();
        if self.later.0.lock().is_empty() {
            return Ok(());
        }
        let kept = self.commit_with(&mut connection, |_| Ok(()));
        kept.map_err(failed("keep attributes"))
    }
}

impl Drop for StateDb {
    fn drop(&mut self) {
        // Nobody is left who could be told.
        let _ = self.keep_attributes();
    }
}
