//! Where a grant is kept for all processes of the host, and the lock that makes them take turns.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use secrecy::SecretString;
use tokio::time::Instant;
use tracing::warn;

use super::{Grant, Granted};
use crate::auth::store::Stamp;
use crate::auth::{GivenSecrets, StoredSecret};
use crate::model::{Error, ErrorKind, Result};

/// The first and the longest pause between two looks at a lock that somebody holds: an exchange takes some ten
/// milliseconds at least.
const LOCK_PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// A place for one document that all processes share.
#[async_trait]
pub trait Shelf: Send + Sync + 'static {
    /// # Errors
    /// As the store says.
    async fn read(&self, given: &GivenSecrets) -> Result<Option<SecretString>>;

    /// Replaces what was there; after a crash the old or the new is there.
    ///
    /// # Errors
    /// As the store says.
    async fn write(&self, document: &SecretString, given: &GivenSecrets) -> Result<()>;

    /// # Errors
    /// As the store says.
    async fn remove(&self) -> Result<bool>;

    /// Another one as soon as what is there may have changed. It costs next to nothing.
    fn stamp(&self) -> Stamp;
}

#[async_trait]
impl Shelf for StoredSecret {
    async fn read(&self, given: &GivenSecrets) -> Result<Option<SecretString>> {
        match self.get(given).await {
            Ok(document) => Ok(Some(document)),
            Err(error) if error.kind() == ErrorKind::NeedsLogin => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn write(&self, document: &SecretString, given: &GivenSecrets) -> Result<()> {
        self.put(document, given).await
    }

    async fn remove(&self) -> Result<bool> {
        StoredSecret::remove(self).await
    }

    fn stamp(&self) -> Stamp {
        StoredSecret::stamp(self)
    }
}

/// Keeps one grant for the whole host.
#[derive(Clone)]
pub struct Keeper {
    shelf: Arc<dyn Shelf>,
    lock: PathBuf,
}

/// What is kept.
#[derive(Clone, Debug)]
pub enum Kept {
    Grant(Grant),
    Nothing,
    /// Something that cannot be used. It was said so, and the next grant takes its place.
    Damaged,
}

impl Kept {
    pub fn grant(self) -> Option<Grant> {
        match self {
            Self::Grant(grant) => Some(grant),
            Self::Nothing | Self::Damaged => None,
        }
    }
}

/// As long as this lives, no other process renews. The kernel takes it away from a process that is killed.
#[derive(Debug)]
pub struct HostLock {
    _file: File,
}

impl Keeper {
    /// `lock` is a file that all processes with this store use and nobody removes.
    pub fn new(shelf: impl Shelf, lock: PathBuf) -> Self {
        Self {
            shelf: Arc::new(shelf),
            lock,
        }
    }

    /// The grant as it is kept now.
    ///
    /// # Errors
    /// As the store says, but for what is damaged.
    pub async fn read(&self, given: &GivenSecrets) -> Result<Kept> {
        let read = match self.shelf.read(given).await {
            Ok(Some(document)) => Grant::from_document(&document).map(Kept::Grant),
            Ok(None) => Ok(Kept::Nothing),
            Err(error) => Err(error),
        };
        match read {
            Err(error) if error.kind() == ErrorKind::BadData => {
                warn!(%error, "what is stored cannot be used");
                Ok(Kept::Damaged)
            }
            other => other,
        }
    }

    /// Replaces the grant. Whoever calls it has the lock.
    ///
    /// # Errors
    /// As the store says.
    pub async fn write(&self, grant: &Grant, given: &GivenSecrets) -> Result<()> {
        self.shelf.write(&grant.to_document()?, given).await
    }

    /// Keeps what a person just granted, for this and all running processes.
    ///
    /// `asked` is when the token was asked for, `basis` names what with (`Exchange::basis`).
    ///
    /// # Errors
    /// `TimedOut` when another process has the lock for longer than `patience`, and as the store says.
    pub async fn install(
        &self,
        granted: &Granted,
        basis: &str,
        asked: SystemTime,
        given: &GivenSecrets,
        patience: Duration,
    ) -> Result<()> {
        let _turn = self.lock(patience).await?;
        let before = self.read(given).await?.grant();
        let serial = before.map_or(0, |before| before.serial);
        let grant = Grant::new(granted, basis, asked, None);
        let grant = Grant {
            serial: grant.serial.max(serial.saturating_add(1)),
            ..grant
        };
        self.write(&grant, given).await
    }

    /// Forgets the grant and gives it, so that it can be given back to the service too.
    ///
    /// # Errors
    /// As `install`.
    pub async fn take(&self, given: &GivenSecrets, patience: Duration) -> Result<Option<Grant>> {
        let _turn = self.lock(patience).await?;
        // What cannot be read can be forgotten all the same.
        let kept = self.read(given).await.unwrap_or_else(|error| {
            warn!(%error, "the stored grant cannot be given back");
            Kept::Damaged
        });
        self.shelf.remove().await?;
        Ok(kept.grant())
    }

    /// Waits for the turn.
    ///
    /// # Errors
    /// `TimedOut` after `patience`, and as the local disk says.
    pub async fn lock(&self, patience: Duration) -> Result<HostLock> {
        let file = open(&self.lock).map_err(|error| Error::from(error).context(self.lock.display()))?;
        let end = Instant::now() + patience;
        let mut pause = LOCK_PAUSES.0;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(HostLock { _file: file }),
                Err(TryLockError::Error(error)) => return Err(Error::from(error).context(self.lock.display())),
                Err(TryLockError::WouldBlock) if Instant::now() >= end => {
                    return Err(Error::new(
                        ErrorKind::TimedOut,
                        format!(
                            "another keymount process has been renewing the token for too long (it holds {})",
                            self.lock.display()
                        ),
                    ));
                }
                Err(TryLockError::WouldBlock) => {}
            }
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(LOCK_PAUSES.1);
        }
    }

    pub(super) fn stamp(&self) -> Stamp {
        self.shelf.stamp()
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}
