//! Secrets in the desktop's keyring, by the Secret Service interface (GNOME Keyring, KWallet, KeePassXC).
//!
//! It opens no window but when a secret is put there: a daemon has nobody to ask.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use secret_service::{EncryptionType, Item, SecretService};

use super::SecretStore;
use crate::model::{Error, ErrorKind, Result};

/// How long the keyring may take to answer; it is on this machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a person may take to unlock it.
const UNLOCKING: Duration = Duration::from_secs(120);

/// The keyring of the session that this process belongs to.
pub struct Keyring;

/// What it is found by, besides the application.
type Attributes<'a> = HashMap<&'a str, &'a str>;

fn attributes<'a>(remote: &'a str, field: &'a str) -> Attributes<'a> {
    HashMap::from([("application", "keymount"), ("remote", remote), ("field", field)])
}

#[async_trait]
impl SecretStore for Keyring {
    async fn put(&self, remote: &str, field: &str, secret: &SecretString) -> Result<()> {
        within(UNLOCKING, async {
            let service = connect().await?;
            let collection = service.get_default_collection().await?;
            if collection.is_locked().await? {
                collection.unlock().await?;
            }
            let label = format!("keymount: {field} of {remote}");
            let bytes = secret.expose_secret().as_bytes();
            collection
                .create_item(&label, attributes(remote, field), bytes, true, "text/plain")
                .await
                .map(drop)
        })
        .await
    }

    async fn get(&self, remote: &str, field: &str) -> Result<Option<SecretString>> {
        let secret = within(PATIENCE, async {
            let service = connect().await?;
            match open_items(&service, attributes(remote, field)).await?.first() {
                Some(item) => item.get_secret().await.map(Zeroizing::new).map(Some),
                None => Ok(None),
            }
        })
        .await?;
        match secret {
            None => Ok(None),
            Some(bytes) => match std::str::from_utf8(&bytes) {
                Ok(text) if !text.is_empty() => Ok(Some(text.into())),
                _ => Err(Error::bad_data("what the OS keyring holds is not text")),
            },
        }
    }

    async fn remove(&self, remote: &str, field: &str) -> Result<bool> {
        within(PATIENCE, async {
            let service = connect().await?;
            let items = open_items(&service, attributes(remote, field)).await?;
            for item in &items {
                item.delete().await?;
            }
            Ok(!items.is_empty())
        })
        .await
    }
}

/// Encrypted on the bus too, where others of the same user may listen.
async fn connect() -> Result<SecretService<'static>, secret_service::Error> {
    SecretService::connect(EncryptionType::Dh).await
}

/// The items with these attributes.
async fn open_items<'a>(
    service: &'a SecretService<'_>,
    attributes: Attributes<'_>,
) -> Result<Vec<Item<'a>>, secret_service::Error> {
    let found = service.search_items(attributes).await?;
    if found.unlocked.is_empty() && !found.locked.is_empty() {
        return Err(secret_service::Error::Locked);
    }
    Ok(found.unlocked)
}

async fn within<T>(
    patience: Duration,
    work: impl Future<Output = std::result::Result<T, secret_service::Error>>,
) -> Result<T> {
    match tokio::time::timeout(patience, work).await {
        Ok(outcome) => outcome.map_err(in_words),
        Err(_) => Err(Error::new(ErrorKind::TimedOut, "the OS keyring does not answer")),
    }
}

/// Of another kind than "nothing is stored": the secret may be there.
fn in_words(error: secret_service::Error) -> Error {
    use secret_service::Error as Said;
    let unusable = |why: &str| Error::new(ErrorKind::Unreachable, format!("{why}, or use {{ stored = true }}"));
    match error {
        Said::Locked => Error::denied("the OS keyring is locked; unlock it and try again"),
        Said::Prompt | Said::PromptDisconnected => Error::denied("the OS keyring was not unlocked"),
        Said::NoResult => unusable("the OS keyring has no default collection; make one"),
        Said::Unavailable => unusable("there is no OS keyring in this session; start one"),
        other => unusable(&format!(
            "the OS keyring cannot be used ({other}); run this in a desktop session"
        )),
    }
}
