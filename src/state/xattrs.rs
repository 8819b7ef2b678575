//! Extended attributes of entries as far as their provider doesn't have them. They move and go with `attributes`.

use std::collections::BTreeMap;

use rusqlite::params;

use super::{StateDb, failed};
use crate::model::Result;

/// What was done here with an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalXattr {
    Set(Vec<u8>),
    /// The provider has it, and it is to go.
    Removed,
}

impl LocalXattr {
    pub fn value(&self) -> Option<&[u8]> {
        match self {
            Self::Set(value) => Some(value),
            Self::Removed => None,
        }
    }
}

impl StateDb {
    /// # Errors
    /// The disk's.
    pub fn xattrs(&self, namespace: &str, path: &str) -> Result<BTreeMap<String, LocalXattr>> {
        let connection = self.connection.lock();
        let found = connection
            .prepare_cached("SELECT name, value, removed FROM xattrs WHERE namespace = ?1 AND path = ?2")
            .and_then(|mut select| {
                let rows = select.query_map(params![namespace, path], |row| {
                    let change = match row.get(2)? {
                        true => LocalXattr::Removed,
                        false => LocalXattr::Set(row.get(1)?),
                    };
                    Ok((row.get(0)?, change))
                })?;
                rows.collect::<rusqlite::Result<BTreeMap<_, _>>>()
            });
        found.map_err(failed("read attributes"))
    }

    /// Without a change nothing is kept of it.
    ///
    /// # Errors
    /// The disk's.
    pub fn set_xattr(&self, namespace: &str, path: &str, name: &str, change: Option<&LocalXattr>) -> Result<()> {
        let connection = self.connection.lock();
        let changed = match change {
            Some(change) => connection.execute(
                "INSERT OR REPLACE INTO xattrs (namespace, path, name, value, removed) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    namespace,
                    path,
                    name,
                    change.value().unwrap_or_default(),
                    *change == LocalXattr::Removed
                ],
            ),
            None => connection.execute(
                "DELETE FROM xattrs WHERE namespace = ?1 AND path = ?2 AND name = ?3",
                params![namespace, path, name],
            ),
        };
        changed.map(drop).map_err(failed("keep an attribute"))
    }
}
