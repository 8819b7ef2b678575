//! The journal of files that the provider doesn't have as they are here: one row for each, until it has.
//!
//! A row survives the daemon: what it names is sent by the next one. It says where content is and what it is for; the
//! content itself is in the staging folder.

use rusqlite::{Row, params};

use super::{StateDb, failed};
use crate::model::Result;

/// How far a person's change of a file got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Somebody is writing: its content may be half of what is meant.
    Writing,
    /// Closed, so it is to be sent.
    Closed,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRow {
    /// The folder below the staging folder, which one daemon has.
    pub spool: String,
    /// The file in it.
    pub file: String,
    /// Which mount's tree `path` is in.
    pub namespace: String,
    /// The remote as it is typed, for people.
    pub remote: String,
    /// Below the mount point.
    pub path: String,
    pub phase: Phase,
    /// What it is a change of, in the writer's own notation; `None` for a new file.
    pub base: Option<String>,
    /// Why it isn't sent, when a person must act.
    pub error: Option<String>,
}

impl StateDb {
    /// Enters a file, or replaces what is known of it.
    ///
    /// # Errors
    /// The disk's.
    pub fn journal(&self, row: &JournalRow) -> Result<()> {
        let connection = self.connection.lock();
        let kept = connection
            .prepare_cached(
                "INSERT OR REPLACE INTO journal (spool, file, namespace, remote, path, closed, base, error)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )
            .and_then(|mut insert| {
                insert.execute(params![
                    row.spool,
                    row.file,
                    row.namespace,
                    row.remote,
                    row.path,
                    row.phase == Phase::Closed,
                    row.base,
                    row.error,
                ])
            });
        kept.map(drop).map_err(failed("journal a change"))
    }

    /// The provider has it, or nobody wants it any more.
    ///
    /// # Errors
    /// The disk's.
    pub fn journal_done(&self, spool: &str, file: &str) -> Result<()> {
        let connection = self.connection.lock();
        let gone = connection
            .prepare_cached("DELETE FROM journal WHERE spool = ?1 AND file = ?2")
            .and_then(|mut delete| delete.execute(params![spool, file]));
        gone.map(drop).map_err(failed("journal the end of a change"))
    }

    /// Every file of a mount's tree, or of all, in the order of their paths.
    ///
    /// # Errors
    /// The disk's.
    pub fn journaled(&self, namespace: Option<&str>) -> Result<Vec<JournalRow>> {
        let connection = self.connection.lock();
        let rows = connection
            .prepare_cached(
                "SELECT spool, file, namespace, remote, path, closed, base, error FROM journal
                 WHERE ?1 IS NULL OR namespace = ?1 ORDER BY namespace, path",
            )
            .and_then(|mut select| select.query_map(params![namespace], read_row)?.collect());
        rows.map_err(failed("read the journal"))
    }

    /// A directory or file of these spools got another path, and so did everything below it.
    ///
    /// # Errors
    /// The disk's.
    pub fn journal_rename(&self, spools: &[&str], from: &str, to: &str) -> Result<()> {
        let mut connection = self.connection.lock();
        let moved = connection.transaction().and_then(|transaction| {
            for spool in spools {
                // What begins with `path/` lies between that and `path0`: `0` follows `/` in ASCII.
                transaction
                    .prepare_cached(
                        "UPDATE journal SET path = ?3 || substr(path, length(?2) + 1)
                         WHERE spool = ?1 AND (path = ?2 OR (path > ?2 || '/' AND path < ?2 || '0'))",
                    )?
                    .execute(params![spool, from, to])?;
            }
            transaction.commit()
        });
        moved.map_err(failed("journal a rename"))
    }
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<JournalRow> {
    Ok(JournalRow {
        spool: row.get(0)?,
        file: row.get(1)?,
        namespace: row.get(2)?,
        remote: row.get(3)?,
        path: row.get(4)?,
        phase: if row.get(5)? { Phase::Closed } else { Phase::Writing },
        base: row.get(6)?,
        error: row.get(7)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(spool: &str, file: &str, path: &str) -> JournalRow {
        JournalRow {
            spool: spool.into(),
            file: file.into(),
            namespace: "n".into(),
            remote: "drive".into(),
            path: path.into(),
            phase: Phase::Writing,
            base: None,
            error: None,
        }
    }

    #[test]
    fn rows_outlive_the_daemon_until_they_are_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let mut closed = row("s", "1", "a/b");
        StateDb::open(&path).unwrap().journal(&closed).unwrap();
        closed.phase = Phase::Closed;
        closed.base = Some("{}".into());
        let db = StateDb::open(&path).unwrap();
        db.journal(&closed).unwrap();
        assert_eq!(db.journaled(Some("n")).unwrap(), [closed]);
        assert_eq!(db.journaled(Some("other")).unwrap(), []);
        db.journal_done("s", "1").unwrap();
        assert_eq!(db.journaled(None).unwrap(), []);
    }

    #[test]
    fn a_renamed_directory_takes_along_what_is_below_it_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let db = StateDb::open(&folder.path().join("state.db")).unwrap();
        for (file, path) in [("1", "d"), ("2", "d/x"), ("3", "d-e"), ("4", "dd/x")] {
            db.journal(&row("mine", file, path)).unwrap();
        }
        db.journal(&row("theirs", "5", "d/y")).unwrap();
        db.journal_rename(&["mine"], "d", "new").unwrap();
        let mut paths: Vec<String> = db.journaled(None).unwrap().into_iter().map(|row| row.path).collect();
        paths.sort();
        assert_eq!(paths, ["d-e", "d/y", "dd/x", "new", "new/x"]);
    }
}
