//! Extended attributes of entries whose provider has no place for them. They move and go with `attributes`.

use rusqlite::{OptionalExtension, params};

use super::{StateDb, failed};
use crate::model::Result;

impl StateDb {
    /// # Errors
    /// The disk's.
    pub fn xattr(&self, namespace: &str, path: &str, name: &str) -> Result<Option<Vec<u8>>> {
        let connection = self.connection.lock();
        let found = connection
            .prepare_cached("SELECT value FROM xattrs WHERE namespace = ?1 AND path = ?2 AND name = ?3")
            .and_then(|mut select| {
                select
                    .query_row(params![namespace, path, name], |row| row.get(0))
                    .optional()
            });
        found.map_err(failed("read an attribute"))
    }

    /// The names, in their order.
    ///
    /// # Errors
    /// The disk's.
    pub fn xattrs(&self, namespace: &str, path: &str) -> Result<Vec<String>> {
        let connection = self.connection.lock();
        let found = connection
            .prepare_cached("SELECT name FROM xattrs WHERE namespace = ?1 AND path = ?2 ORDER BY name")
            .and_then(|mut select| {
                let rows = select.query_map(params![namespace, path], |row| row.get(0))?;
                rows.collect::<rusqlite::Result<Vec<_>>>()
            });
        found.map_err(failed("list attributes"))
    }

    /// Without a value it is removed.
    ///
    /// # Errors
    /// The disk's.
    pub fn set_xattr(&self, namespace: &str, path: &str, name: &str, value: Option<&[u8]>) -> Result<()> {
        let connection = self.connection.lock();
        let changed = match value {
            Some(value) => connection.execute(
                "INSERT OR REPLACE INTO xattrs (namespace, path, name, value) VALUES (?1, ?2, ?3, ?4)",
                params![namespace, path, name, value],
            ),
            None => connection.execute(
                "DELETE FROM xattrs WHERE namespace = ?1 AND path = ?2 AND name = ?3",
                params![namespace, path, name],
            ),
        };
        changed.map(drop).map_err(failed("keep an attribute"))
    }
}
