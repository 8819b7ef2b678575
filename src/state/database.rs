//! The file, its schema and its repair.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use crate::model::{Error, ErrorKind, Result};

/// How long a statement waits for another daemon's. Each is done in milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Each brings the schema from the version that is its place in the list (`user_version`) to the next. Never change
/// one that was released: add one.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE attributes (
        namespace TEXT NOT NULL,
        -- Path of the directory and name in it; both are empty for the root.
        parent TEXT NOT NULL,
        name TEXT NOT NULL,
        mode INTEGER,
        modified_seconds INTEGER,
        modified_nanos INTEGER,
        accessed_seconds INTEGER,
        accessed_nanos INTEGER,
        PRIMARY KEY (namespace, parent, name)
    ) STRICT, WITHOUT ROWID;
"];

pub(super) fn open(path: &Path) -> Result<Connection> {
    match try_open(path) {
        Err(Trouble::Damaged(error)) => {
            let aside = set_aside(path)?;
            tracing::warn!(
                "the state database {} is damaged ({error}) and was set aside as {}; local modes and times are lost",
                path.display(),
                aside.display()
            );
            try_open(path).map_err(|trouble| trouble.into_error(path))
        }
        other => other.map_err(|trouble| trouble.into_error(path)),
    }
}

/// What a failed statement means to a person.
pub(super) fn failure(error: rusqlite::Error) -> Error {
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => ErrorKind::NoSpace,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ErrorKind::Busy,
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::CannotOpen) => ErrorKind::Denied,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, format!("the state database: {error}")).with_source(error)
}

enum Trouble {
    /// This is no database, or not a sound one.
    Damaged(rusqlite::Error),
    /// Written by a keymount that knows more.
    Newer(i64),
    Statement(rusqlite::Error),
    File(io::Error),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error),
            _ => Self::Statement(error),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

impl Trouble {
    fn into_error(self, path: &Path) -> Error {
        match self {
            Self::Damaged(error) | Self::Statement(error) => failure(error),
            Self::File(error) => Error::from(error),
            Self::Newer(version) => Error::new(
                ErrorKind::Unsupported,
                format!(
                    "it was written by a newer keymount (schema {version}, this one knows {}): update keymount, or move \
                     the file away",
                    MIGRATIONS.len()
                ),
            ),
        }
        .context(format_args!("cannot open {}", path.display()))
    }
}

fn try_open(path: &Path) -> Result<Connection, Trouble> {
    prepare_file(path)?;
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(PATIENCE)?;
    check(&connection)?;
    // WAL is a property of the file; the answer is the mode, which a file system without shared memory refuses.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    migrate(&mut connection)?;
    Ok(connection)
}

/// SQLite gives its other files the permissions of this one.
fn prepare_file(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(())
}

fn check(connection: &Connection) -> Result<(), Trouble> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" {
        return Ok(());
    }
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    Err(Trouble::Damaged(rusqlite::Error::SqliteFailure(code, Some(verdict))))
}

fn migrate(connection: &mut Connection) -> Result<(), Trouble> {
    // At once for writing: another daemon may be at the same.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = usize::try_from(version)
        .ok()
        .and_then(|version| MIGRATIONS.get(version..));
    let Some(missing) = known else {
        return Err(Trouble::Newer(version));
    };
    if missing.is_empty() {
        return Ok(());
    }
    for migration in missing {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    transaction.commit()?;
    Ok(())
}

/// Renames the database and what belongs to it, and gives its new path.
fn set_aside(path: &Path) -> Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let with = |path: &Path, suffix: &str| {
        let mut name = OsString::from(path);
        name.push(suffix);
        PathBuf::from(name)
    };
    let free = |seconds: &u64| !with(path, &format!(".corrupt-{seconds}")).exists();
    let seconds = (now.as_secs()..).find(free).unwrap_or_default();
    let aside = with(path, &format!(".corrupt-{seconds}"));
    for suffix in ["-wal", "-shm"] {
        match fs::rename(with(path, suffix), with(&aside, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    fs::rename(path, &aside)?;
    Ok(aside)
}
