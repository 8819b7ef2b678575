//! What is kept of entries that are gone: somebody else removed or renamed them.

use std::time::SystemTime;

use rusqlite::{OptionalExtension, params};

use super::attributes::{BELOW, Inside};
use super::{StateDb, failed, since_epoch};
use crate::model::Result;

/// Some of the names in a directory that something is kept of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptNames {
    pub names: Vec<String>,
    /// Where to go on; `None` when these were the last ones.
    pub next: Option<String>,
}

impl StateDb {
    /// Names in a directory of which, or of something below which, something is kept that was last changed before a
    /// moment. At most `most` are looked at, from where the last look ended. Nodes that only this host has are no such
    /// names: nobody else can have removed them.
    ///
    /// # Errors
    /// The disk's.
    pub fn kept_names(
        &self,
        namespace: &str,
        directory: &str,
        before: SystemTime,
        from: Option<&str>,
        most: usize,
    ) -> Result<KeptNames> {
        let inside = Inside::of(directory);
        let (before, _) = since_epoch(before);
        let mut from = from.unwrap_or(&inside.prefix).to_owned();
        let mut kept = KeptNames::default();
        let connection = self.connection.lock();
        let looked = (|| {
            let mut select = connection.prepare_cached(
                "SELECT path, coalesce(changed_s < ?4, 1) FROM attributes
                 WHERE namespace = ?1 AND path >= ?2 AND path < ?3 AND special IS NULL ORDER BY path LIMIT 1",
            )?;
            for _ in 0..most {
                let row = select.query_row(params![namespace, from, inside.end, before], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?))
                });
                let Some((path, is_old)) = row.optional()? else {
                    return Ok(None);
                };
                let rest = path.get(inside.prefix.len()..).unwrap_or_default();
                let name = rest.split('/').next().unwrap_or_default().to_owned();
                // One row of what is below it says enough.
                let is_below = name.len() < rest.len();
                from = if is_below {
                    inside.past(&name)
                } else {
                    // The text that follows.
                    format!("{path}\0")
                };
                if is_old && !name.is_empty() && kept.names.last() != Some(&name) {
                    kept.names.push(name);
                }
            }
            Ok(Some(from))
        })();
        kept.next = looked.map_err(failed("look for what is kept"))?;
        Ok(kept)
    }

    /// Forgets what is kept of an entry that is gone, and of everything that was below it; what only this host has stays.
    ///
    /// # Errors
    /// The disk's.
    pub fn forget_gone(&self, namespace: &str, path: &str) -> Result<()> {
        let mut connection = self.connection.lock();
        let statements = [
            format!(
                "DELETE FROM xattrs WHERE {BELOW} AND NOT EXISTS (SELECT 1 FROM attributes AS there
                 WHERE there.namespace = ?1 AND there.path = xattrs.path AND there.special IS NOT NULL)"
            ),
            format!("DELETE FROM attributes WHERE {BELOW} AND special IS NULL"),
        ];
        let gone = self.commit_with(&mut connection, |transaction| {
            statements.iter().try_for_each(|statement| {
                transaction
                    .prepare_cached(statement)?
                    .execute(params![namespace, path])
                    .map(drop)
            })
        });
        gone.map_err(failed("forget"))
    }
}
