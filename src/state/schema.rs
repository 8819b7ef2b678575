//! The tables of the state database and their versions.

use std::cmp::Ordering;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

/// One step from each schema version to the next; `user_version` counts those that were done.
const MIGRATIONS: [&str; 10] = [
    "CREATE TABLE attributes (
    namespace TEXT NOT NULL,
    path TEXT NOT NULL,
    mode INTEGER,
    modified_s INTEGER,
    modified_ns INTEGER,
    accessed_s INTEGER,
    accessed_ns INTEGER,
    version TEXT,
    PRIMARY KEY (namespace, path)
) WITHOUT ROWID",
    "CREATE TABLE journal (
    spool TEXT NOT NULL,
    file TEXT NOT NULL,
    namespace TEXT NOT NULL,
    remote TEXT NOT NULL,
    path TEXT NOT NULL,
    closed INTEGER NOT NULL,
    base TEXT,
    error TEXT,
    PRIMARY KEY (spool, file)
) WITHOUT ROWID",
    // A root has the parent 0, which no row has, and its namespace for a name. Ids are never given twice.
    "CREATE TABLE tree (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    parent INTEGER NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('directory', 'folder', 'file')),
    address TEXT,
    size INTEGER,
    sha256 TEXT,
    modified_s INTEGER NOT NULL,
    modified_ns INTEGER NOT NULL,
    UNIQUE (parent, name)
);
CREATE INDEX tree_address ON tree (address) WHERE address IS NOT NULL;
CREATE TABLE tree_imports (root INTEGER PRIMARY KEY, digest TEXT NOT NULL)",
    // Changes of a shared tree that the others don't have yet, what is known of the others, and contents that had a name.
    "CREATE TABLE tree_changes (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    root INTEGER NOT NULL,
    mark TEXT NOT NULL,
    change TEXT NOT NULL
);
CREATE INDEX tree_changes_root ON tree_changes (root);
CREATE TABLE tree_books (root INTEGER PRIMARY KEY, book TEXT NOT NULL);
CREATE TABLE tree_forgotten (address TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TRIGGER tree_removed AFTER DELETE ON tree WHEN old.address IS NOT NULL BEGIN
    INSERT OR IGNORE INTO tree_forgotten VALUES (old.address);
END;
CREATE TRIGGER tree_replaced AFTER UPDATE OF address ON tree WHEN old.address IS NOT new.address BEGIN
    INSERT OR IGNORE INTO tree_forgotten SELECT old.address WHERE old.address IS NOT NULL;
END",
    "ALTER TABLE journal ADD COLUMN boot TEXT;
ALTER TABLE journal ADD COLUMN perhaps TEXT",
    // A row with `special` is a node of its own: no provider has it. Rows of one namespace with equal `ino` are its names.
    "ALTER TABLE attributes ADD COLUMN ino INTEGER;
ALTER TABLE attributes ADD COLUMN uid INTEGER;
ALTER TABLE attributes ADD COLUMN gid INTEGER;
ALTER TABLE attributes ADD COLUMN changed_s INTEGER;
ALTER TABLE attributes ADD COLUMN changed_ns INTEGER;
ALTER TABLE attributes ADD COLUMN special TEXT
    CHECK (special IN ('symlink', 'fifo', 'socket', 'block', 'character'));
ALTER TABLE attributes ADD COLUMN target BLOB;
ALTER TABLE attributes ADD COLUMN device INTEGER;
CREATE INDEX special_names ON attributes (namespace, path) WHERE special IS NOT NULL;
CREATE INDEX special_nodes ON attributes (namespace, ino) WHERE special IS NOT NULL;
CREATE TABLE xattrs (
    namespace TEXT NOT NULL,
    path TEXT NOT NULL,
    name TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (namespace, path, name)
) WITHOUT ROWID",
    // `number` grows with every row that is written: the smallest is the oldest.
    "CREATE TABLE listings (
    namespace TEXT NOT NULL,
    directory TEXT NOT NULL,
    entries BLOB NOT NULL,
    bytes INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (namespace, directory)
);
CREATE INDEX listings_age ON listings (number, bytes)",
    // What the provider may have, too: 1 stands for what was set here and isn't there.
    "ALTER TABLE attributes ADD COLUMN standing INTEGER NOT NULL DEFAULT 0;
ALTER TABLE xattrs ADD COLUMN removed INTEGER NOT NULL DEFAULT 0",
    // Why a daemon that found a row could not take it over yet.
    "ALTER TABLE journal ADD COLUMN postponed TEXT",
    // A JSON list of what was sent of a file without an answer.
    "ALTER TABLE journal ADD COLUMN unanswered TEXT",
];

/// In pages of 4 KiB: whoever commits waits for the disk only when `StateDb::tidy` didn't come in time.
const MOST_WAITING: u32 = 8000;

pub enum Refused {
    /// Its schema version.
    Newer(u32),
    Damaged,
    Failed(rusqlite::Error),
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged,
            _ => Self::Failed(error),
        }
    }
}

/// Sets the connection up and brings the tables to the newest version.
pub fn prepare(connection: &mut Connection, busy: Duration) -> Result<(), Refused> {
    connection.busy_timeout(busy)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "wal_autocheckpoint", MOST_WAITING)?;
    let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(Refused::Damaged);
    }
    let version: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match (version as usize).cmp(&MIGRATIONS.len()) {
        Ordering::Less => {}
        // Whoever only reads doesn't wait for a writer's disk.
        Ordering::Equal => return Ok(()),
        Ordering::Greater => return Err(Refused::Newer(version)),
    }
    // Immediate: two daemons that start together migrate once.
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let version: u32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version as usize > MIGRATIONS.len() {
        return Err(Refused::Newer(version));
    }
    for (number, migration) in MIGRATIONS.iter().enumerate().skip(version as usize) {
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", number as u32 + 1)?;
    }
    transaction.commit()?;
    Ok(())
}
