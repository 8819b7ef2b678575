//! The contract for services whose keys can be listed, made and revoked through an API, and its vocabulary.
//!
//! A key manager turns these calls into requests. The order of a rotation, confirmations and where a new secret is
//! kept are the caller's affair.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use secrecy::SecretString;

use crate::model::{Error, ErrorKind, Result};

/// What a service lets a key be limited by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyCapabilities {
    pub grants: GrantForm,
    /// Whether a key can end at a time.
    pub expiry: bool,
    /// Whether a key can end when it isn't used.
    pub idle_limit: bool,
    /// Whether a key can be for some network addresses only.
    pub addresses: bool,
}

/// In which form a service says what a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantForm {
    /// Every key may do what its owner may.
    Everything,
    /// Buckets to read and to write, or everything.
    Buckets,
    /// Some of these words.
    Permissions(&'static [&'static str]),
}

/// What a key may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyGrants {
    /// Everything, keys included.
    Everything,
    /// Only these buckets, by name or by pattern.
    Buckets {
        read: BTreeSet<String>,
        write: BTreeSet<String>,
    },
    /// What these words of the service say.
    Permissions(BTreeSet<String>),
}

/// Whether the service accepts a key now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStanding {
    Usable,
    Expired,
}

/// Who can take a key away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOrigin {
    /// Made through the API, and revoked there.
    Api,
    /// Part of the service's own settings: the API can't revoke it.
    Settings,
}

/// A key without its secret. `None` is what the service doesn't tell or the key doesn't have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// What the service knows it by, and no secret: its name, where no two keys can have the same.
    pub id: String,
    pub name: String,
    pub created: Option<SystemTime>,
    pub expires: Option<SystemTime>,
    /// It ends when it wasn't used for so long.
    pub idle_limit: Option<Duration>,
    pub last_used: Option<SystemTime>,
    pub grants: Option<KeyGrants>,
    /// The addresses and networks it may be used from; all when empty.
    pub addresses: Vec<String>,
    pub standing: KeyStanding,
    pub origin: KeyOrigin,
}

/// A key to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRequest {
    pub name: String,
    pub grants: KeyGrants,
    pub expires: Option<SystemTime>,
    pub idle_limit: Option<Duration>,
    pub addresses: Vec<String>,
}

/// A key that was just made: the only time that its secret is told.
#[derive(Clone, Debug)]
pub struct NewKey {
    pub info: KeyInfo,
    pub secret: SecretString,
}

/// The key that the questions are asked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CurrentKey {
    Told(KeyInfo),
    /// The service accepts it and doesn't tell which one it is.
    Untold,
}

/// A service's API for keys, called with one credential.
///
/// Every method may fail with `NeedsLogin`, `Unreachable`, `TimedOut`, `RateLimited` and `BadData`; all but `current`
/// with `Denied` when the credential may not manage keys.
#[async_trait]
pub trait KeyManager: Send + Sync + 'static {
    fn capabilities(&self) -> KeyCapabilities;

    async fn list(&self) -> Result<Vec<KeyInfo>>;

    /// The key with this id, or with this name.
    ///
    /// # Errors
    /// `NotFound`; `AlreadyExists` when several keys have the name.
    async fn show(&self, id_or_name: &str) -> Result<KeyInfo>;

    /// Which key this manager itself is called with; any key may ask.
    ///
    /// # Errors
    /// `Unsupported` when the service asks for no key at all.
    async fn current(&self) -> Result<CurrentKey>;

    /// Makes a key and sees to it that it may do what was asked for and nothing else. With `Unreachable`, `TimedOut`
    /// or `BadData` there may be a key of this name whose secret nobody knows.
    ///
    /// # Errors
    /// `AlreadyExists`; `InvalidInput` for a name or a limit that the service doesn't take.
    async fn create(&self, request: &KeyRequest) -> Result<NewKey>;

    /// # Errors
    /// `NotFound`; `NotPermitted` for a key of the service's settings.
    async fn revoke(&self, id: &str) -> Result<()>;
}

impl KeyGrants {
    pub fn buckets(read: impl IntoIterator<Item = String>, write: impl IntoIterator<Item = String>) -> Self {
        Self::Buckets {
            read: read.into_iter().collect(),
            write: write.into_iter().collect(),
        }
    }
}

/// The key with this id, or with this name, for services that only list their keys.
///
/// # Errors
/// `NotFound`; `AlreadyExists` when several keys have the name.
pub fn find(keys: Vec<KeyInfo>, id_or_name: &str) -> Result<KeyInfo> {
    if let Some(key) = keys.iter().find(|key| key.id == id_or_name) {
        return Ok(key.clone());
    }
    let mut named = keys.into_iter().filter(|key| key.name == id_or_name);
    match (named.next(), named.next()) {
        (None, _) => Err(Error::not_found(format_args!("the key {id_or_name:?}"))),
        (Some(key), None) => Ok(key),
        (Some(one), Some(other)) => Err(Error::new(
            ErrorKind::AlreadyExists,
            format!(
                "several keys are called {id_or_name:?}; say which by its id, {:?} or {:?}",
                one.id, other.id
            ),
        )),
    }
}

impl fmt::Display for KeyGrants {
    /// `full access`, `read photos, logs-*; write photos`, `files:read, files:write`, `nothing`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (read, write) = match self {
            Self::Everything => return f.write_str("full access"),
            Self::Permissions(words) if words.is_empty() => return f.write_str("nothing"),
            Self::Permissions(words) => {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                return f.write_str(&words.join(", "));
            }
            Self::Buckets { read, write } => (read, write),
        };
        let parts: Vec<String> = [("read", read), ("write", write)]
            .into_iter()
            .filter(|(_, buckets)| !buckets.is_empty())
            .map(|(word, buckets)| {
                let names: Vec<&str> = buckets.iter().map(String::as_str).collect();
                format!("{word} {}", names.join(", "))
            })
            .collect();
        if parts.is_empty() {
            f.write_str("nothing")
        } else {
            f.write_str(&parts.join("; "))
        }
    }
}

impl KeyInfo {
    /// How long it lives from its making to its end, for a key that has both.
    pub fn life(&self) -> Option<Duration> {
        self.expires?.duration_since(self.created?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_said_in_words() {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let words = |read: &[&str], write: &[&str]| KeyGrants::buckets(owned(read), owned(write)).to_string();
        assert_eq!(KeyGrants::Everything.to_string(), "full access");
        assert_eq!(
            words(&["photos", "logs-*"], &["photos"]),
            "read logs-*, photos; write photos"
        );
        assert_eq!(words(&[], &["inbox"]), "write inbox");
        assert_eq!(words(&[], &[]), "nothing");
        let permissions = |words: &[&str]| KeyGrants::Permissions(owned(words).into_iter().collect()).to_string();
        assert_eq!(permissions(&["files:write", "files:read"]), "files:read, files:write");
        assert_eq!(permissions(&[]), "nothing");
    }

    fn key(id: &str, name: &str) -> KeyInfo {
        KeyInfo {
            id: id.into(),
            name: name.into(),
            created: None,
            expires: None,
            idle_limit: None,
            last_used: None,
            grants: None,
            addresses: Vec::new(),
            standing: KeyStanding::Usable,
            origin: KeyOrigin::Api,
        }
    }

    #[test]
    fn a_key_is_found_by_its_id_or_by_a_name_of_its_own() {
        let keys = vec![key("1", "laptop"), key("2", "phone"), key("3", "phone"), key("4", "1")];
        let found = |text: &str| find(keys.clone(), text).map(|key| key.id);
        assert_eq!(found("2").unwrap(), "2");
        assert_eq!(found("laptop").unwrap(), "1");
        assert_eq!(found("1").unwrap(), "1", "an id wins over a name");
        assert_eq!(found("tablet").unwrap_err().kind(), ErrorKind::NotFound);
        let several = found("phone").unwrap_err();
        assert_eq!(several.kind(), ErrorKind::AlreadyExists);
        assert!(several.message().contains("\"2\" or \"3\""), "{several}");
    }

    #[test]
    fn a_new_key_does_not_print_its_secret() {
        let key = NewKey {
            info: key("n", "n"),
            secret: "canary-1".into(),
        };
        assert!(!format!("{key:?}").contains("canary"));
    }
}
