//! What must outlive the daemon and no provider holds: a small database of local attributes.
//!
//! One SQLite file for all remotes of a user, shared by all daemons. Every call is one short statement or transaction
//! on a thread that may block; the one connection is guarded by a lock that no await holds. A power failure may take
//! back the last moments (`synchronous = NORMAL`), never the whole.

mod attributes;
mod database;

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use rusqlite::Connection;

use crate::model::{Error, Result};

/// What a person set on an entry where the provider cannot hold it. `None`: never set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalAttributes {
    /// Permission bits, `0o7777` at most.
    pub mode: Option<u32>,
    pub modified: Option<SystemTime>,
    pub accessed: Option<SystemTime>,
}

/// What is to become of one attribute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Change<T> {
    #[default]
    Keep,
    Clear,
    Set(T),
}

/// What is to become of an entry's attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttributeChanges {
    pub mode: Change<u32>,
    pub modified: Change<SystemTime>,
    pub accessed: Change<SystemTime>,
}

/// A handle on the database; clones share the connection.
///
/// An entry is named by a namespace, the provider's identity, and a path: the names from the remote's root on, divided
/// by `/`, without one at either end. The root's path is empty.
#[derive(Clone)]
pub struct StateDb(Arc<Mutex<Connection>>);

impl StateDb {
    /// Opens the database or makes it, with its folder; nobody else may read either. One that is damaged is set aside
    /// with a warning, as `<name>.corrupt-<unix time>`, and a new one made. Blocks the thread.
    ///
    /// # Errors
    /// `Unsupported` when a newer keymount wrote it; troubles of the disk.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self(Arc::new(Mutex::new(database::open(path)?))))
    }

    /// What is set on an entry; nothing if nothing ever was.
    ///
    /// # Errors
    /// Troubles of the disk, as with all that follow.
    pub async fn attributes(&self, namespace: &str, path: &str) -> Result<LocalAttributes> {
        let (namespace, path) = (namespace.to_owned(), path.to_owned());
        self.run(move |connection| attributes::get(connection, &namespace, &path))
            .await
    }

    /// The attributes of all entries of a directory that have any, by name.
    ///
    /// # Errors
    /// As `attributes`.
    pub async fn children(&self, namespace: &str, directory: &str) -> Result<Vec<(String, LocalAttributes)>> {
        let (namespace, directory) = (namespace.to_owned(), directory.to_owned());
        self.run(move |connection| attributes::children(connection, &namespace, &directory))
            .await
    }

    /// Changes some of an entry's attributes and gives what is set now.
    ///
    /// # Errors
    /// As `attributes`.
    pub async fn set_attributes(
        &self,
        namespace: &str,
        path: &str,
        changes: AttributeChanges,
    ) -> Result<LocalAttributes> {
        let (namespace, path) = (namespace.to_owned(), path.to_owned());
        self.run(move |connection| attributes::change(connection, &namespace, &path, changes))
            .await
    }

    /// Gives an entry and all below it another path; what was set at that path and below is forgotten.
    ///
    /// # Errors
    /// As `attributes`.
    pub async fn rename(&self, namespace: &str, from: &str, to: &str) -> Result<()> {
        let (namespace, from, to) = (namespace.to_owned(), from.to_owned(), to.to_owned());
        self.run(move |connection| attributes::rename(connection, &namespace, &from, &to))
            .await
    }

    /// Forgets what is set on an entry and on all below it.
    ///
    /// # Errors
    /// As `attributes`.
    pub async fn remove(&self, namespace: &str, path: &str) -> Result<()> {
        let (namespace, path) = (namespace.to_owned(), path.to_owned());
        self.run(move |connection| attributes::remove(connection, &namespace, &path))
            .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let connection = Arc::clone(&self.0);
        let result = tokio::task::spawn_blocking(move || work(&mut connection.lock())).await;
        match result {
            Ok(result) => result.map_err(database::failure),
            Err(_) => Err(Error::internal("work on the state database was interrupted")),
        }
    }
}

#[cfg(test)]
mod tests;
