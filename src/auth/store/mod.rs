//! Secrets that keymount keeps for people: put there by `login`, forgotten by `logout`.
//!
//! It knows no configuration and no provider. Where a store is comes from the caller.

mod files;
mod keyring;
mod sealed;

use std::path::PathBuf;
use std::time::SystemTime;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{GivenSecrets, SecretSource};
use crate::model::{Error, ErrorKind, Result};
pub use files::FileStore;
pub use keyring::Keyring;

/// The longest secret that is kept, in bytes.
pub const MAX_SECRET: usize = 64 * 1024;

/// Keeps secrets by the remote that they are for and the field of its configuration.
#[async_trait]
pub trait SecretStore: Send + Sync {
    /// Replaces what was there; after a crash the old one or the new one is there.
    ///
    /// # Errors
    /// `Denied` when others could read it or the passphrase cannot be had, and as the local disk says.
    async fn put(&self, remote: &str, field: &str, secret: &SecretString) -> Result<()>;

    /// # Errors
    /// `Denied` when others could read it or the passphrase is wrong, `BadData` when it is damaged.
    async fn get(&self, remote: &str, field: &str) -> Result<Option<SecretString>>;

    /// Forgets it for good; says whether there was one.
    ///
    /// # Errors
    /// As the local disk says.
    async fn remove(&self, remote: &str, field: &str) -> Result<bool>;
}

/// Which store, and where it is. No secret is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreSpec {
    Files {
        folder: PathBuf,
        /// With one, files are encrypted, and plain ones are refused.
        passphrase: Option<Box<SecretSource>>,
    },
    /// The desktop's, for as long as its session lasts.
    Keyring,
}

impl StoreSpec {
    /// Reads nothing yet; `given` is for a passphrase in an environment variable.
    pub fn open(&self, given: &GivenSecrets) -> Box<dyn SecretStore> {
        match self {
            Self::Files { folder, passphrase } => {
                let passphrase = passphrase
                    .as_ref()
                    .map(|source| (source.as_ref().clone(), given.clone()));
                Box::new(FileStore::new(folder, passphrase))
            }
            Self::Keyring => Box::new(Keyring),
        }
    }
}

/// Tells whether a secret may have changed, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    Missing,
    File {
        inode: u64,
        /// When the file was last changed in any way, in nanoseconds.
        changed: i128,
    },
    /// Only reading tells.
    Unknown,
}

/// One secret in a store. No secret is in it, only its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSecret {
    /// The remote's name in the configuration.
    pub remote: String,
    /// Which of the remote's secrets: `token`.
    pub field: String,
    pub store: StoreSpec,
}

impl StoredSecret {
    /// # Errors
    /// `InvalidInput` for an empty or overlong secret, else as the store says.
    pub async fn put(&self, secret: &SecretString, given: &GivenSecrets) -> Result<()> {
        let length = secret.expose_secret().len();
        if length == 0 || length > MAX_SECRET {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "a secret that is kept has between 1 and 65536 bytes",
            ));
        }
        self.store.open(given).put(&self.remote, &self.field, secret).await
    }

    /// # Errors
    /// `NeedsLogin` when there is none, else as the store says.
    pub async fn get(&self, given: &GivenSecrets) -> Result<SecretString> {
        match self.store.open(given).get(&self.remote, &self.field).await? {
            Some(secret) => Ok(secret),
            None => Err(Error::new(
                ErrorKind::NeedsLogin,
                format!(
                    "no {} is stored for {1}; run: keymount login {1}",
                    self.field, self.remote
                ),
            )),
        }
    }

    /// Says whether there was one.
    ///
    /// # Errors
    /// As the store says.
    pub async fn remove(&self) -> Result<bool> {
        self.store
            .open(&GivenSecrets::default())
            .remove(&self.remote, &self.field)
            .await
    }

    /// The configuration's word for its store: `stored`.
    pub fn word(&self) -> &'static str {
        match self.store {
            StoreSpec::Files { .. } => "stored",
            StoreSpec::Keyring => "keyring",
        }
    }

    /// The environment variable with the store's passphrase, if it is in one.
    pub fn variable(&self) -> Option<&str> {
        match &self.store {
            StoreSpec::Files { passphrase, .. } => passphrase.as_ref()?.variable(),
            StoreSpec::Keyring => None,
        }
    }

    /// When it was put there, if the store is made of files.
    pub fn written(&self) -> Option<SystemTime> {
        match &self.store {
            StoreSpec::Files { folder, .. } => files::written(folder, &self.remote, &self.field),
            StoreSpec::Keyring => None,
        }
    }

    /// Another one as soon as the secret may have changed; one look at a file.
    pub fn stamp(&self) -> Stamp {
        match &self.store {
            StoreSpec::Files { folder, .. } => files::stamp(folder, &self.remote, &self.field),
            StoreSpec::Keyring => Stamp::Unknown,
        }
    }

    /// Where it is, in words.
    pub fn place(&self) -> String {
        match &self.store {
            StoreSpec::Files {
                folder,
                passphrase: None,
            } => format!("{}, closed to others", folder.display()),
            StoreSpec::Files {
                folder,
                passphrase: Some(_),
            } => format!("{}, encrypted", folder.display()),
            StoreSpec::Keyring => "the OS keyring".to_owned(),
        }
    }
}
