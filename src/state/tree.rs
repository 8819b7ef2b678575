//! The tree of a service that knows contents and no paths.
//!
//! Nothing else knows it: every change is on the disk before it is told (`synchronous = FULL`, unlike attributes).

use std::sync::Arc;
use std::time::SystemTime;

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::{StateDb, failed, from_epoch, since_epoch, whole};
use crate::model::{
    ContentAddress, Error, ErrorKind, IndexId, Indexed, IndexedContent, IndexedFile, Name, Result, TreeChange, TreePath,
};

/// The parent of every root.
pub(super) const NOBODY: IndexId = IndexId(0);

pub(super) const COLUMNS: &str = "id, parent, name, kind, address, size, sha256, modified_s, modified_ns,
    (SELECT above.kind = 'folder' FROM tree AS above WHERE above.id = tree.parent)";

/// Whether others change the same tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    /// What was known of others is forgotten.
    No,
    /// Every change is noted for them.
    Yes,
}

/// One namespace's tree.
pub struct PathIndex {
    pub(super) db: Arc<StateDb>,
    pub(super) root: IndexId,
    pub(super) shared: Shared,
}

impl PathIndex {
    /// Opens the namespace's tree; a new one has an empty root.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(db: Arc<StateDb>, namespace: &str, shared: Shared) -> Result<Self> {
        let root = db.change(|transaction| {
            let (seconds, nanos) = since_epoch(SystemTime::now());
            transaction
                .execute(
                    "INSERT OR IGNORE INTO tree (parent, name, kind, modified_s, modified_ns)
                     VALUES (0, ?1, 'directory', ?2, ?3)",
                    params![namespace, seconds, nanos],
                )
                .and_then(|_| {
                    transaction.query_row(
                        "SELECT id FROM tree WHERE parent = 0 AND name = ?1",
                        params![namespace],
                        |row| row.get(0).map(IndexId),
                    )
                })
                .map_err(failed("open the tree"))
        })?;
        let index = Self { db, root, shared };
        if shared == Shared::No {
            index.forget_others()?;
        }
        Ok(index)
    }

    pub fn root(&self) -> IndexId {
        self.root
    }

    /// # Errors
    /// `NotFound`, and the disk's.
    pub fn entry(&self, id: IndexId) -> Result<Indexed> {
        entry(&self.db.connection.lock(), id)
    }

    /// # Errors
    /// `NotFound`, also for the parent, and the disk's.
    pub fn child(&self, parent: IndexId, name: &Name) -> Result<Indexed> {
        child(&self.db.connection.lock(), parent, name)?
            .ok_or_else(|| Error::not_found(format_args!("{:?}", name.as_str())))
    }

    /// All entries of a directory.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, and the disk's.
    pub fn children(&self, directory: IndexId) -> Result<Vec<Indexed>> {
        let connection = self.db.connection.lock();
        open_directory(&connection, directory)?;
        let found = connection
            .prepare_cached(&format!("SELECT {COLUMNS} FROM tree WHERE parent = ?1"))
            .and_then(|mut select| {
                let rows = select.query_map(params![directory.0], read_row)?;
                rows.collect::<rusqlite::Result<Vec<_>>>()
            });
        found.map_err(failed("list"))
    }

    /// The names from the root to an entry.
    ///
    /// # Errors
    /// `NotFound`, and the disk's.
    pub fn path(&self, id: IndexId) -> Result<Vec<Name>> {
        names(&self.db.connection.lock(), id)
    }

    /// How many entries of all trees have this content.
    ///
    /// # Errors
    /// The disk's.
    pub fn uses(&self, address: &ContentAddress) -> Result<u64> {
        let connection = self.db.connection.lock();
        let count = connection.query_row(
            "SELECT count(*) FROM tree WHERE address = ?1",
            params![address.as_str()],
            |row| row.get::<_, i64>(0).map(i64::cast_unsigned),
        );
        count.map_err(failed("count"))
    }

    /// Whether any tree has this content or had it once.
    ///
    /// # Errors
    /// The disk's.
    pub fn knows(&self, address: &ContentAddress) -> Result<bool> {
        let connection = self.db.connection.lock();
        let sql = "SELECT EXISTS (SELECT 1 FROM tree WHERE address = ?1)
                       OR EXISTS (SELECT 1 FROM tree_forgotten WHERE address = ?1)";
        let found = connection.query_row(sql, params![address.as_str()], |row| row.get(0));
        found.map_err(failed("look"))
    }

    /// # Errors
    /// `NotFound` and `NotADirectory` for the parent, `AlreadyExists`, and the disk's.
    pub fn insert(
        &self,
        parent: IndexId,
        name: &Name,
        content: &IndexedContent,
        modified: SystemTime,
    ) -> Result<Indexed> {
        self.db.change(|transaction| {
            open_directory(transaction, parent)?;
            let (seconds, nanos) = since_epoch(modified);
            let (kind, address, size, sha256) = columns(content);
            let made = transaction.execute(
                "INSERT INTO tree (parent, name, kind, address, size, sha256, modified_s, modified_ns)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![parent.0, name.as_str(), kind, address, size, sha256, seconds, nanos],
            );
            match made {
                Ok(_) => {}
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                    return Err(exists(name));
                }
                Err(error) => return Err(failed("make an entry")(error)),
            }
            let id = IndexId(transaction.last_insert_rowid());
            touch(transaction, parent)?;
            self.note(transaction, || {
                Ok(TreeChange::Add {
                    path: tree_path(transaction, id)?,
                    content: content.clone(),
                    modified,
                })
            })?;
            entry(transaction, id)
        })
    }

    /// Gives a file another content, if it still has the expected one.
    ///
    /// # Errors
    /// `Changed`, and the disk's.
    pub fn replace(
        &self,
        id: IndexId,
        expected: &ContentAddress,
        file: &IndexedFile,
        modified: SystemTime,
    ) -> Result<Indexed> {
        self.db.change(|transaction| {
            let (seconds, nanos) = since_epoch(modified);
            let changed = transaction
                .execute(
                    "UPDATE tree SET address = ?3, size = ?4, sha256 = ?5, modified_s = ?6, modified_ns = ?7
                     WHERE id = ?1 AND kind = 'file' AND address = ?2",
                    params![
                        id.0,
                        expected.as_str(),
                        file.address.as_str(),
                        file.size.cast_signed(),
                        file.sha256,
                        seconds,
                        nanos
                    ],
                )
                .map_err(failed("replace"))?;
            if changed == 0 {
                return Err(Error::new(
                    ErrorKind::Changed,
                    "the file was changed or removed by somebody else",
                ));
            }
            self.note(transaction, || {
                Ok(TreeChange::Replace {
                    path: tree_path(transaction, id)?,
                    was: expected.clone(),
                    file: file.clone(),
                    modified,
                })
            })?;
            entry(transaction, id)
        })
    }

    /// Removes an entry; a directory must be empty, but for an immutable one, which goes as a whole.
    ///
    /// # Errors
    /// `NotFound`, `NotEmpty`, and the disk's.
    pub fn remove(&self, id: IndexId) -> Result<()> {
        self.db.change(|transaction| {
            let above = parent(transaction, id)?;
            self.note(transaction, || {
                Ok(TreeChange::Remove {
                    path: tree_path(transaction, id)?,
                    was: entry(transaction, id)?.content,
                })
            })?;
            remove(transaction, id)?;
            touch(transaction, above)
        })
    }

    /// The digest of the list that was imported last.
    ///
    /// # Errors
    /// The disk's.
    pub fn imported(&self) -> Result<Option<String>> {
        let connection = self.db.connection.lock();
        let found = connection.query_row(
            "SELECT digest FROM tree_imports WHERE root = ?1",
            params![self.root.0],
            |row| row.get(0),
        );
        found.optional().map_err(failed("look"))
    }

    /// # Errors
    /// The disk's.
    pub fn note_import(&self, digest: &str) -> Result<()> {
        self.db.change(|transaction| {
            transaction
                .execute(
                    "INSERT OR REPLACE INTO tree_imports (root, digest) VALUES (?1, ?2)",
                    params![self.root.0, digest],
                )
                .map(drop)
                .map_err(failed("note"))
        })
    }

    /// Gives an entry another place. What has the name there must be `over` and is removed.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `IsADirectory`, `AlreadyExists`, `NotEmpty`, `InvalidInput` for a directory below
    /// itself, and the disk's.
    pub fn relocate(&self, id: IndexId, to: IndexId, name: &Name, over: Option<&Indexed>) -> Result<Indexed> {
        self.db.change(|transaction| {
            let moved = entry(transaction, id)?;
            open_directory(transaction, to)?;
            let mut at = to;
            while at != NOBODY {
                if at == id {
                    let message = "a directory cannot move into itself";
                    return Err(Error::new(ErrorKind::InvalidInput, message));
                }
                at = parent(transaction, at)?;
            }
            match child(transaction, to, name)? {
                Some(there) if there.id != id => {
                    let expected = over.is_some_and(|over| over.id == there.id && over.content == there.content);
                    if !expected {
                        return Err(exists(name));
                    }
                    match (moved.is_directory(), there.is_directory()) {
                        (false, true) => {
                            let message = format!("{:?} is a directory", name.as_str());
                            return Err(Error::new(ErrorKind::IsADirectory, message));
                        }
                        (true, false) => return Err(not_a_directory(name.as_str())),
                        (true, true) if has_children(transaction, there.id)? => return Err(not_empty()),
                        _ => remove(transaction, there.id)?,
                    }
                }
                _ => {}
            }
            let from = parent(transaction, id)?;
            let old = tree_path(transaction, id)?;
            transaction
                .execute(
                    "UPDATE tree SET parent = ?2, name = ?3 WHERE id = ?1",
                    params![id.0, to.0, name.as_str()],
                )
                .map_err(failed("rename"))?;
            touch(transaction, from)?;
            touch(transaction, to)?;
            self.note(transaction, || {
                Ok(TreeChange::Move {
                    from: old,
                    to: tree_path(transaction, id)?,
                    what: moved.content,
                    modified: moved.modified,
                    over: over.map(|over| over.content.clone()),
                })
            })?;
            entry(transaction, id)
        })
    }

    /// Keeps a change for those who share the tree.
    fn note(&self, transaction: &Transaction<'_>, change: impl FnOnce() -> Result<TreeChange>) -> Result<()> {
        match self.shared {
            Shared::No => Ok(()),
            Shared::Yes => whole::note(transaction, self.root, &change()?),
        }
    }
}

impl StateDb {
    /// Runs a change that is on the disk when this returns, or not at all.
    pub(super) fn change<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut connection = self.connection.lock();
        let synchronous = |connection: &Connection, level: &str| {
            connection
                .pragma_update(None, "synchronous", level)
                .map_err(failed("set up"))
        };
        synchronous(&connection, "FULL")?;
        let outcome = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed("begin"))
            .and_then(|transaction| {
                let done = work(&transaction)?;
                transaction.commit().map_err(failed("commit"))?;
                Ok(done)
            });
        synchronous(&connection, "NORMAL")?;
        outcome
    }
}

fn entry(connection: &Connection, id: IndexId) -> Result<Indexed> {
    let found = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM tree WHERE id = ?1"))
        .and_then(|mut select| select.query_row(params![id.0], read_row).optional());
    found
        .map_err(failed("look"))?
        .ok_or_else(|| Error::not_found("the entry"))
}

fn child(connection: &Connection, parent: IndexId, name: &Name) -> Result<Option<Indexed>> {
    let found = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM tree WHERE parent = ?1 AND name = ?2"))
        .and_then(|mut select| select.query_row(params![parent.0, name.as_str()], read_row).optional());
    found.map_err(failed("look up"))
}

fn parent(connection: &Connection, id: IndexId) -> Result<IndexId> {
    let found = connection
        .prepare_cached("SELECT parent FROM tree WHERE id = ?1")
        .and_then(|mut select| select.query_row(params![id.0], |row| row.get(0)).optional());
    found
        .map_err(failed("look"))?
        .map(IndexId)
        .ok_or_else(|| Error::not_found("the entry"))
}

/// The names from the root to an entry.
fn names(connection: &Connection, id: IndexId) -> Result<Vec<Name>> {
    let mut names = Vec::new();
    let mut at = id;
    while at != NOBODY {
        // A root has none.
        names.extend(entry(connection, at)?.name);
        at = parent(connection, at)?;
    }
    names.reverse();
    Ok(names)
}

fn tree_path(connection: &Connection, id: IndexId) -> Result<TreePath> {
    TreePath::new(names(connection, id)?).ok_or_else(|| Error::internal("the tree's root has no name"))
}

fn open_directory(connection: &Connection, id: IndexId) -> Result<()> {
    let found = entry(connection, id)?;
    if found.is_directory() {
        return Ok(());
    }
    Err(not_a_directory(found.name.as_ref().map_or("", Name::as_str)))
}

fn has_children(connection: &Connection, id: IndexId) -> Result<bool> {
    connection
        .query_row(
            "SELECT EXISTS (SELECT 1 FROM tree WHERE parent = ?1)",
            params![id.0],
            |row| row.get(0),
        )
        .map_err(failed("look into a directory"))
}

fn remove(transaction: &Transaction<'_>, id: IndexId) -> Result<()> {
    let removed = entry(transaction, id)?;
    if matches!(removed.content, IndexedContent::Directory) && has_children(transaction, id)? {
        return Err(not_empty());
    }
    transaction
        .execute(
            "WITH RECURSIVE below (id) AS (
                 VALUES (?1) UNION ALL SELECT tree.id FROM tree JOIN below ON tree.parent = below.id
             ) DELETE FROM tree WHERE id IN below",
            params![id.0],
        )
        .map(drop)
        .map_err(failed("remove"))
}

/// A directory's time is that of the last change in it.
pub(super) fn touch(transaction: &Transaction<'_>, directory: IndexId) -> Result<()> {
    let (seconds, nanos) = since_epoch(SystemTime::now());
    transaction
        .execute(
            "UPDATE tree SET modified_s = ?2, modified_ns = ?3 WHERE id = ?1",
            params![directory.0, seconds, nanos],
        )
        .map(drop)
        .map_err(failed("change"))
}

pub(super) type Columns<'a> = (&'static str, Option<&'a str>, Option<i64>, Option<&'a str>);

pub(super) fn columns(content: &IndexedContent) -> Columns<'_> {
    match content {
        IndexedContent::Directory => ("directory", None, None, None),
        IndexedContent::Folder(address) => ("folder", Some(address.as_str()), None, None),
        IndexedContent::File(file) => (
            "file",
            Some(file.address.as_str()),
            Some(file.size.cast_signed()),
            file.sha256.as_deref(),
        ),
    }
}

pub(super) fn read_row(row: &Row<'_>) -> rusqlite::Result<Indexed> {
    let malformed = |column: usize, what: &str| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, what.into())
    };
    let address = || -> rusqlite::Result<ContentAddress> {
        let text: String = row.get(4)?;
        ContentAddress::new(&text).ok_or_else(|| malformed(4, "no address of a content"))
    };
    let kind: String = row.get(3)?;
    let content = match kind.as_str() {
        "directory" => IndexedContent::Directory,
        "folder" => IndexedContent::Folder(address()?),
        _ => IndexedContent::File(IndexedFile {
            address: address()?,
            size: row.get::<_, i64>(5)?.cast_unsigned(),
            sha256: row.get(6)?,
        }),
    };
    let name = match IndexId(row.get(1)?) {
        NOBODY => None,
        _ => Some(Name::new(row.get::<_, String>(2)?).map_err(|_| malformed(2, "no file name"))?),
    };
    Ok(Indexed {
        id: IndexId(row.get(0)?),
        name,
        content,
        modified: from_epoch(row.get(7)?, row.get(8)?),
        sealed: row.get::<_, Option<bool>>(9)?.unwrap_or(false),
    })
}

fn exists(name: &Name) -> Error {
    let message = format!("{:?} exists already", name.as_str());
    Error::new(ErrorKind::AlreadyExists, message)
}

fn not_empty() -> Error {
    Error::new(ErrorKind::NotEmpty, "the directory is not empty")
}

fn not_a_directory(name: &str) -> Error {
    Error::new(ErrorKind::NotADirectory, format!("{name:?} is not a directory"))
}
