//! The journal of files that the provider doesn't have as they are here: one row for each, until it has.
//!
//! A row survives the daemon: what it names is sent by the next one. It says where content is and what it is for; the
//! content itself is in the staging folder.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};

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

/// What would be left of the content if the machine stopped now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Durability {
    /// All: the disk has it.
    Flushed,
    /// Perhaps not all. As long as the machine runs it is there: this says since which start of the machine.
    SinceBoot(String),
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
    /// Where it is if a rename that was begun was done; empty for what that has pushed out.
    pub perhaps: Option<String>,
    pub phase: Phase,
    pub durability: Durability,
    /// What it is a change of, in the writer's own notation; `None` for a new file.
    pub base: Option<String>,
    /// Why it isn't sent, when a person must act.
    pub error: Option<String>,
    /// Why it is neither shown nor sent by the daemon that found it: it could not be taken over yet.
    pub postponed: Option<String>,
    /// What was sent of it without an answer: if the provider has one of these, that is nobody else's version.
    pub unanswered: Vec<SentContent>,
}

/// A content that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentContent {
    /// In bytes.
    pub len: u64,
    /// In lower-case hexadecimal.
    pub sha256: String,
}

/// One change of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalStep {
    /// Enters a file, or replaces what is known of it.
    Enter(JournalRow),
    /// The provider has it, or nobody wants it any more.
    Strike { spool: String, file: String },
    /// Says why a file isn't taken over yet, or that nothing is in the way any more.
    Postpone {
        spool: String,
        file: String,
        why: Option<String>,
    },
    /// As `Move`, but nobody knows yet whether it will happen, or whether it has.
    Intend {
        spools: Vec<String>,
        from: String,
        to: String,
    },
    /// A directory or file of these spools got another path, and so did everything below it.
    Move {
        spools: Vec<String>,
        from: String,
        to: String,
    },
}

const COLUMNS: &str = "spool, file, namespace, remote, path, perhaps, closed, boot, base, error, postponed, unanswered";

impl StateDb {
    /// Changes the journal: all steps or none, in their order. Afterwards the change outlives this process.
    ///
    /// # Errors
    /// The disk's.
    pub fn journal(&self, steps: &[JournalStep]) -> Result<()> {
        let mut connection = self.connection.lock();
        let done = self.commit_with(&mut connection, |transaction| {
            steps.iter().try_for_each(|step| take(transaction, step))
        });
        done.map_err(failed("journal a change"))
    }

    /// The disk has the content of these files, each named by spool and file. Afterwards it has the journal too: the
    /// one change that waits for the disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn journal_flushed(&self, files: &[(String, String)]) -> Result<()> {
        let mut connection = self.connection.lock();
        let done = in_full(&mut connection, |connection| {
            self.commit_with(connection, |transaction| {
                for (spool, file) in files {
                    transaction
                        .prepare_cached("UPDATE journal SET boot = NULL WHERE spool = ?1 AND file = ?2")?
                        .execute(params![spool, file])?;
                }
                Ok(())
            })
        });
        done.map_err(failed("journal what the disk has"))
    }

    /// Every change made so far outlives a power cut when this returns, what waits for a commit too: the journal, names
    /// that only this host has, and attributes.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&self) -> Result<()> {
        let mut connection = self.connection.lock();
        let done = in_full(&mut connection, |connection| {
            self.commit_with(connection, |transaction| {
                // Whoever commits nothing waits for no disk, and what was committed before reaches it with this. The page
                // is written though the number stays the same (https://www.sqlite.org/pragma.html#pragma_user_version).
                let version: u32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
                transaction.pragma_update(None, "user_version", version)
            })
        });
        done.map_err(failed("bring changes to the disk"))
    }

    /// Every file of a mount's tree, or of all, in the order of their paths.
    ///
    /// # Errors
    /// The disk's.
    pub fn journaled(&self, namespace: Option<&str>) -> Result<Vec<JournalRow>> {
        let connection = self.connection.lock();
        let rows = connection
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM journal WHERE ?1 IS NULL OR namespace = ?1 ORDER BY namespace, path"
            ))
            .and_then(|mut select| select.query_map(params![namespace], read_row)?.collect());
        rows.map_err(failed("read the journal"))
    }

    /// What is known of one file now; `None` when it was struck.
    ///
    /// # Errors
    /// The disk's.
    pub fn journaled_file(&self, spool: &str, file: &str) -> Result<Option<JournalRow>> {
        let connection = self.connection.lock();
        let row = connection
            .prepare_cached(&format!("SELECT {COLUMNS} FROM journal WHERE spool = ?1 AND file = ?2"))
            .and_then(|mut select| select.query_row(params![spool, file], read_row).optional());
        row.map_err(failed("read the journal"))
    }

    /// What these spools hold for a path and for everything below it.
    ///
    /// # Errors
    /// The disk's.
    pub fn journaled_below(&self, spools: &[String], path: &str) -> Result<Vec<JournalRow>> {
        let connection = self.connection.lock();
        let read = || -> rusqlite::Result<Vec<JournalRow>> {
            let mut rows = Vec::new();
            let mut select =
                connection.prepare_cached(&format!("SELECT {COLUMNS} FROM journal WHERE spool = ?1 AND {BELOW}"))?;
            for spool in spools {
                for row in select.query_map(params![spool, path], read_row)? {
                    rows.push(row?);
                }
            }
            Ok(rows)
        };
        read().map_err(failed("read the journal"))
    }
}

/// What begins with `path/` lies between that and `path0`: `0` follows `/` in ASCII.
const BELOW: &str = "(path = ?2 OR (path > ?2 || '/' AND path < ?2 || '0'))";

fn take(transaction: &Transaction<'_>, step: &JournalStep) -> rusqlite::Result<()> {
    match step {
        JournalStep::Enter(row) => {
            let boot = match &row.durability {
                Durability::Flushed => None,
                Durability::SinceBoot(boot) => Some(boot),
            };
            transaction
                // While a rename is on its way, only its end says where the file is.
                .prepare_cached(&format!(
                    "INSERT INTO journal ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
                     ON CONFLICT (spool, file) DO UPDATE SET namespace = excluded.namespace, remote = excluded.remote,
                     perhaps = coalesce(excluded.perhaps, CASE WHEN path = excluded.path THEN perhaps END),
                     path = excluded.path, closed = excluded.closed, boot = excluded.boot, base = excluded.base,
                     error = excluded.error, postponed = excluded.postponed,
                     unanswered = excluded.unanswered"
                ))?
                .execute(params![
                    row.spool,
                    row.file,
                    row.namespace,
                    row.remote,
                    row.path,
                    row.perhaps,
                    row.phase == Phase::Closed,
                    boot,
                    row.base,
                    row.error,
                    row.postponed,
                    written(&row.unanswered),
                ])?;
        }
        JournalStep::Strike { spool, file } => {
            transaction
                .prepare_cached("DELETE FROM journal WHERE spool = ?1 AND file = ?2")?
                .execute(params![spool, file])?;
        }
        JournalStep::Postpone { spool, file, why } => {
            transaction
                .prepare_cached("UPDATE journal SET postponed = ?3 WHERE spool = ?1 AND file = ?2")?
                .execute(params![spool, file, why])?;
        }
        JournalStep::Intend { spools, from, to } => {
            for spool in spools {
                transaction
                    .prepare_cached(&format!(
                        "UPDATE journal SET perhaps = ?3 || substr(path, length(?2) + 1) WHERE spool = ?1 AND {BELOW}"
                    ))?
                    .execute(params![spool, from, to])?;
            }
        }
        JournalStep::Move { spools, from, to } => {
            for spool in spools {
                transaction
                    .prepare_cached(&format!(
                        "UPDATE journal SET path = ?3 || substr(path, length(?2) + 1), perhaps = NULL
                         WHERE spool = ?1 AND {BELOW}"
                    ))?
                    .execute(params![spool, from, to])?;
            }
        }
    }
    Ok(())
}

/// Runs work whose commits wait for the disk.
fn in_full<T>(
    connection: &mut Connection,
    work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.pragma_update(None, "synchronous", "FULL")?;
    let done = work(connection);
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    done
}

fn written(contents: &[SentContent]) -> Option<String> {
    serde_json::to_string(contents).ok().filter(|_| !contents.is_empty())
}

/// What is damaged is only not recognised.
fn read_contents(text: &str) -> Vec<SentContent> {
    serde_json::from_str(text).unwrap_or_default()
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<JournalRow> {
    Ok(JournalRow {
        spool: row.get(0)?,
        file: row.get(1)?,
        namespace: row.get(2)?,
        remote: row.get(3)?,
        path: row.get(4)?,
        perhaps: row.get(5)?,
        phase: if row.get(6)? { Phase::Closed } else { Phase::Writing },
        durability: match row.get(7)? {
            Some(boot) => Durability::SinceBoot(boot),
            None => Durability::Flushed,
        },
        base: row.get(8)?,
        error: row.get(9)?,
        postponed: row.get(10)?,
        unanswered: row
            .get::<_, Option<String>>(11)?
            .as_deref()
            .map(read_contents)
            .unwrap_or_default(),
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
            perhaps: None,
            phase: Phase::Writing,
            durability: Durability::SinceBoot("b".into()),
            base: None,
            error: None,
            postponed: None,
            unanswered: vec![SentContent {
                len: 3,
                sha256: "ab".into(),
            }],
        }
    }

    #[test]
    fn rows_outlive_the_daemon_until_they_are_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let mut closed = row("s", "1", "a/b");
        StateDb::open(&path)
            .unwrap()
            .journal(&[JournalStep::Enter(closed.clone())])
            .unwrap();
        closed.phase = Phase::Closed;
        closed.base = Some("{}".into());
        let db = StateDb::open(&path).unwrap();
        db.journal(&[JournalStep::Enter(closed.clone())]).unwrap();
        assert_eq!(db.journaled(Some("n")).unwrap(), [closed.clone()]);
        db.journal_flushed(&[("s".into(), "1".into())]).unwrap();
        closed.durability = Durability::Flushed;
        assert_eq!(db.journaled(Some("n")).unwrap(), [closed]);
        assert_eq!(db.journaled(Some("other")).unwrap(), []);
        let strike = JournalStep::Strike {
            spool: "s".into(),
            file: "1".into(),
        };
        db.journal(&[strike]).unwrap();
        assert_eq!(db.journaled(None).unwrap(), []);
    }

    #[test]
    fn a_renamed_directory_takes_along_what_is_below_it_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let db = StateDb::open(&folder.path().join("state.db")).unwrap();
        for (file, path) in [("1", "d"), ("2", "d/x"), ("3", "d-e"), ("4", "dd/x")] {
            db.journal(&[JournalStep::Enter(row("mine", file, path))]).unwrap();
        }
        db.journal(&[
            JournalStep::Enter(row("theirs", "5", "d/y")),
            JournalStep::Move {
                spools: vec!["mine".into()],
                from: "d".into(),
                to: "new".into(),
            },
        ])
        .unwrap();
        assert_eq!(db.journaled_below(&["mine".into()], "new").unwrap().len(), 2);
        let mut paths: Vec<String> = db.journaled(None).unwrap().into_iter().map(|row| row.path).collect();
        paths.sort();
        assert_eq!(paths, ["d-e", "d/y", "dd/x", "new", "new/x"]);
    }
}
