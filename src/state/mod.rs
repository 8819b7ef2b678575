//! What must outlive the daemon: a small database of attributes and of paths that the provider cannot hold, and of files
//! that it doesn't have yet.
//!
//! SQLite in write-ahead mode. Calls take well under a millisecond and run on the caller's thread under one lock, which
//! is never held across an await. It knows paths below a mount point, no inodes and no provider.

mod journal;
mod schema;
mod tree;
mod whole;

pub use journal::{JournalRow, Phase};
pub use tree::{PathIndex, Shared};

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row, params};
use tracing::warn;

use crate::model::{Error, ErrorKind, Result, Version};

/// How long a call waits for another daemon's transaction.
const BUSY: Duration = Duration::from_secs(5);

/// What a person set on an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalAttributes {
    /// Permission bits of `chmod`.
    pub mode: Option<u32>,
    pub times: Option<LocalTimes>,
}

/// The times of `utimens`. They count only for the version that they were set on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalTimes {
    pub modified: SystemTime,
    pub accessed: SystemTime,
    pub version: Version,
}

/// The database of one user, shared by all mounts and daemons.
pub struct StateDb {
    connection: Mutex<Connection>,
}

fn failed(what: &str) -> impl FnOnce(rusqlite::Error) -> Error {
    let what = what.to_owned();
    move |error| {
        let kind = match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => ErrorKind::NoSpace,
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => ErrorKind::Busy,
            _ => ErrorKind::Internal,
        };
        Error::new(kind, format!("state database: cannot {what} ({error})")).with_source(error)
    }
}

impl StateDb {
    /// Opens or makes the database. A corrupt one is set aside beside it, and a new one begins.
    ///
    /// # Errors
    /// `Unsupported` when a newer keymount made it, `NoSpace` and others when the disk fails.
    pub fn open(path: &Path) -> Result<Self> {
        match Self::try_open(path) {
            Err(error) if error.kind() == ErrorKind::BadData => {
                let aside = set_aside(path)?;
                warn!(path = %path.display(), aside = %aside.display(), "the state database was damaged and is set aside; modes and times that were set are shown as the provider has them");
                Self::try_open(path)
            }
            outcome => outcome,
        }
    }

    /// A database that ends with this value, for those who keep nothing.
    ///
    /// # Errors
    /// As SQLite fails.
    pub fn in_memory() -> Result<Self> {
        let mut connection = Connection::open_in_memory().map_err(failed("open"))?;
        match schema::prepare(&mut connection, BUSY) {
            Ok(()) => Ok(Self {
                connection: Mutex::new(connection),
            }),
            Err(_) => Err(Error::internal("the state database cannot be made in memory")),
        }
    }

    fn try_open(path: &Path) -> Result<Self> {
        // Made before SQLite does, so that it is never readable by others.
        std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        let mut connection = Connection::open(path).map_err(failed("open"))?;
        match schema::prepare(&mut connection, BUSY) {
            Ok(()) => Ok(Self {
                connection: Mutex::new(connection),
            }),
            Err(schema::Refused::Newer(version)) => {
                let message = format!(
                    "{} was made by a newer keymount (schema {version}); install that one or move the file away",
                    path.display()
                );
                Err(Error::new(ErrorKind::Unsupported, message))
            }
            Err(schema::Refused::Damaged) => {
                Err(Error::bad_data(format!("{} is not a sound database", path.display())))
            }
            Err(schema::Refused::Failed(error)) => Err(failed("open")(error)),
        }
    }

    /// What was set on the entry at this path; nothing set is the default.
    ///
    /// # Errors
    /// The disk's.
    pub fn attributes(&self, namespace: &str, path: &str) -> Result<LocalAttributes> {
        let connection = self.connection.lock();
        let found = connection
            .prepare_cached(
                "SELECT mode, modified_s, modified_ns, accessed_s, accessed_ns, version FROM attributes
                 WHERE namespace = ?1 AND path = ?2",
            )
            .and_then(|mut select| select.query_row(params![namespace, path], read_row).optional());
        Ok(found.map_err(failed("read attributes"))?.unwrap_or_default())
    }

    /// Keeps what was set; the default forgets.
    ///
    /// # Errors
    /// The disk's.
    pub fn set_attributes(&self, namespace: &str, path: &str, attributes: &LocalAttributes) -> Result<()> {
        if *attributes == LocalAttributes::default() {
            let connection = self.connection.lock();
            let gone = connection.execute(
                "DELETE FROM attributes WHERE namespace = ?1 AND path = ?2",
                params![namespace, path],
            );
            return gone.map(drop).map_err(failed("forget attributes"));
        }
        let times = attributes.times.as_ref();
        let modified = times.map(|times| since_epoch(times.modified));
        let accessed = times.map(|times| since_epoch(times.accessed));
        let connection = self.connection.lock();
        let kept = connection
            .prepare_cached(
                "INSERT OR REPLACE INTO attributes
                 (namespace, path, mode, modified_s, modified_ns, accessed_s, accessed_ns, version)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )
            .and_then(|mut insert| {
                insert.execute(params![
                    namespace,
                    path,
                    attributes.mode,
                    modified.map(|(seconds, _)| seconds),
                    modified.map(|(_, nanos)| nanos),
                    accessed.map(|(seconds, _)| seconds),
                    accessed.map(|(_, nanos)| nanos),
                    times.map(|times| times.version.as_str()),
                ])
            });
        kept.map(drop).map_err(failed("keep attributes"))
    }

    /// Moves what was set on an entry, and on everything below it, to another path; what was set there is forgotten.
    ///
    /// # Errors
    /// The disk's.
    pub fn rename(&self, namespace: &str, from: &str, to: &str) -> Result<()> {
        let mut connection = self.connection.lock();
        let transaction = connection.transaction().map_err(failed("rename"))?;
        let moved = remove_below(&transaction, namespace, to).and_then(|()| {
            transaction.execute(
                "UPDATE attributes SET path = ?3 || substr(path, length(?2) + 1)
                 WHERE namespace = ?1 AND (path = ?2 OR (path > ?2 || '/' AND path < ?2 || '0'))",
                params![namespace, from, to],
            )
        });
        moved.and_then(|_| transaction.commit()).map_err(failed("rename"))
    }

    /// Forgets what was set on an entry and on everything below it.
    ///
    /// # Errors
    /// The disk's.
    pub fn remove(&self, namespace: &str, path: &str) -> Result<()> {
        remove_below(&self.connection.lock(), namespace, path).map_err(failed("forget"))
    }
}

fn remove_below(connection: &Connection, namespace: &str, path: &str) -> rusqlite::Result<()> {
    // What begins with `path/` lies between that and `path0`: `0` follows `/` in ASCII.
    let below = "DELETE FROM attributes
                 WHERE namespace = ?1 AND (path = ?2 OR (path > ?2 || '/' AND path < ?2 || '0'))";
    connection
        .prepare_cached(below)?
        .execute(params![namespace, path])
        .map(drop)
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<LocalAttributes> {
    let time = |seconds: usize| -> rusqlite::Result<Option<SystemTime>> {
        let (seconds, nanos): (Option<i64>, Option<u32>) = (row.get(seconds)?, row.get(seconds + 1)?);
        Ok(seconds.zip(nanos).map(|(seconds, nanos)| from_epoch(seconds, nanos)))
    };
    let version: Option<String> = row.get(5)?;
    let times = match (time(1)?, time(3)?, version) {
        (Some(modified), Some(accessed), Some(version)) => Some(LocalTimes {
            modified,
            accessed,
            version: Version::new(version),
        }),
        _ => None,
    };
    Ok(LocalAttributes {
        mode: row.get(0)?,
        times,
    })
}

/// Seconds, negative before 1970, and nanoseconds after them.
fn since_epoch(time: SystemTime) -> (i64, u32) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (after.as_secs() as i64, after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            match before.subsec_nanos() {
                0 => (-(before.as_secs() as i64), 0),
                nanos => (-(before.as_secs() as i64) - 1, 1_000_000_000 - nanos),
            }
        }
    }
}

fn from_epoch(seconds: i64, nanos: u32) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    base.and_then(|base| base.checked_add(Duration::from_nanos(nanos.into())))
        .unwrap_or(UNIX_EPOCH)
}

fn set_aside(path: &Path) -> Result<PathBuf> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = with(&format!(".corrupt-{now}"));
    std::fs::rename(path, &aside)?;
    for suffix in ["-wal", "-shm"] {
        // They belong to the database that was moved, and may hold its last changes; often there are none.
        let mut beside = aside.as_os_str().to_owned();
        beside.push(suffix);
        let _ = std::fs::rename(with(suffix), beside);
    }
    Ok(aside)
}

#[cfg(test)]
mod tests;
