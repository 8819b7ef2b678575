//! What must outlive the daemon: a small database of attributes, of nodes and of paths that the provider cannot hold,
//! and of files that it doesn't have yet; and what directories held, which is only quicker than asking.
//!
//! SQLite in write-ahead mode. Calls take well under a millisecond and run on the caller's thread under one lock, which
//! is never held across an await. It knows paths below a mount point, no inodes and no provider.

mod attributes;
mod journal;
mod later;
mod listings;
mod orphans;
mod schema;
mod tree;
mod whole;
mod xattrs;

pub use attributes::{ChildAttributes, LocalAttributes, LocalTimes, SpecialChild, Standing};
pub use journal::{Durability, JournalRow, JournalStep, Phase, SentContent};
pub use listings::{KeptListing, MOST_BYTES};
pub use orphans::KeptNames;
pub use tree::{PathIndex, Shared};
pub use xattrs::LocalXattr;

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rusqlite::Connection;
use tracing::warn;

use crate::model::{Error, ErrorKind, Result};

/// How long a call waits for another daemon's transaction.
const BUSY: Duration = Duration::from_secs(5);
/// After so many commits there is something to tidy up: they wrote about 4 MiB, after which SQLite would do it by itself
/// and let the one who commits wait.
const MANY: u64 = 300;

/// The database of one user, shared by all mounts and daemons.
pub struct StateDb {
    connection: Mutex<Connection>,
    later: later::Later,
    origin: Origin,
    /// Where it is; `None` for one in memory.
    place: Option<PathBuf>,
    /// Commits since what they wrote was last brought into the database proper.
    commits: AtomicU64,
    /// Counts what may have changed attributes, so that who has read many of them notices.
    changes: AtomicU64,
}

/// Where the content of a database comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was there.
    Found,
    /// There was none, or none that could be read: what it should know is to be found out again.
    New,
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
                warn!(path = %path.display(), aside = %aside.display(), "the state database was damaged and is set aside; files that were not sent are found again in the staging folder, and modes and times that were set are shown as the provider has them");
                Self::try_open(path)
            }
            outcome => outcome,
        }
    }

    pub fn origin(&self) -> Origin {
        self.origin
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
                later: later::Later::default(),
                origin: Origin::New,
                place: None,
                commits: AtomicU64::new(0),
                changes: AtomicU64::new(0),
            }),
            Err(_) => Err(Error::internal("the state database cannot be made in memory")),
        }
    }

    /// Brings what was committed into the database proper when there is much of it. Waits for the disk, and nobody waits
    /// for that: it has a connection of its own.
    ///
    /// # Errors
    /// The disk's; then it is tried again later.
    pub fn tidy(&self) -> Result<()> {
        let Some(place) = &self.place else { return Ok(()) };
        if self.commits.load(Ordering::Relaxed) < MANY {
            return Ok(());
        }
        self.commits.store(0, Ordering::Relaxed);
        let tidied = Connection::open(place).and_then(|connection| {
            // One row comes back, which says how far it got.
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
        });
        tidied.map_err(failed("tidy up"))
    }

    fn try_open(path: &Path) -> Result<Self> {
        let origin = match std::fs::metadata(path) {
            Ok(metadata) if metadata.len() > 0 => Origin::Found,
            _ => Origin::New,
        };
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
                later: later::Later::default(),
                origin,
                place: Some(path.to_owned()),
                commits: AtomicU64::new(0),
                changes: AtomicU64::new(0),
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
