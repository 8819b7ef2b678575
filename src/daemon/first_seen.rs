//! Remembers when a key was seen for the first time, for keys that nobody else can date: those of the environment, of a
//! command, of the keyring.
//!
//! The file has no key and nothing that a key could be found out from: of each remote two bytes of a hash under a random
//! salt, just enough to see that it is another key than before.

use std::collections::BTreeMap;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::auth::Authenticator;
use crate::model::{Error, Result};

#[derive(Debug, Default, Serialize, Deserialize)]
struct Remembered {
    salt: [u8; 16],
    /// By the remote's name.
    keys: BTreeMap<String, Seen>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    mark: u16,
    /// Seconds since 1970.
    since: u64,
}

/// Since when a remote's key is known here; from now on if it wasn't. `None` for a credential without a key.
///
/// # Errors
/// The local disk's.
pub fn first_seen(
    file: &Path,
    remote: &str,
    credential: &dyn Authenticator,
    now: SystemTime,
) -> Result<Option<SystemTime>> {
    let named = |error: std::io::Error| Error::from(error).context(file.display());
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut open = options.open(file).map_err(named)?;
    // Others hold it for a moment only; the next refresh looks again.
    open.try_lock().map_err(|error| named(error.into()))?;
    let mut text = String::new();
    open.read_to_string(&mut text).map_err(named)?;
    // One that was torn is begun anew: keys are then a little younger than they are.
    let mut remembered = serde_json::from_str(&text).unwrap_or_else(|_| Remembered {
        salt: uuid::Uuid::new_v4().into_bytes(),
        keys: BTreeMap::new(),
    });
    let Some(mark) = credential.mark(&remembered.salt) else {
        return Ok(None);
    };
    let at = |seen: Seen| UNIX_EPOCH + Duration::from_secs(seen.since);
    match remembered.keys.get(remote) {
        Some(seen) if seen.mark == mark => return Ok(Some(at(*seen))),
        _ => {}
    }
    let since = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seen = Seen { mark, since };
    remembered.keys.insert(remote.to_owned(), seen);
    let text = serde_json::to_string(&remembered).map_err(|_| Error::internal("what was seen cannot be written"))?;
    open.set_len(0)
        .and_then(|()| open.rewind())
        .and_then(|()| open.write_all(text.as_bytes()))
        .map_err(named)?;
    Ok(Some(at(seen)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Anonymous, GivenSecrets, SecretSource, StaticToken, TokenKind, TokenPlacement};

    async fn token(value: &str) -> StaticToken {
        let mut given = GivenSecrets::default();
        given.insert("T", value.into());
        let source = SecretSource::Env("T".into());
        StaticToken::open(source, TokenPlacement::Bearer, TokenKind::TOKEN, given)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_key_is_as_old_as_it_was_seen_and_another_one_is_new() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seen");
        let day = |number: u64| UNIX_EPOCH + Duration::from_secs(number * 86_400);
        let (first, second) = (token("canary-first").await, token("canary-second").await);
        let seen = |credential: &dyn Authenticator, remote, at| first_seen(&file, remote, credential, at).unwrap();
        assert_eq!(seen(&first, "a", day(1)), Some(day(1)));
        assert_eq!(seen(&first, "a", day(9)), Some(day(1)));
        assert_eq!(seen(&first, "b", day(9)), Some(day(9)), "of another remote");
        assert_eq!(seen(&Anonymous, "a", day(9)), None);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(!text.contains("canary"), "{text}");
        // Two bytes may be equal by chance, once in 65536: then the key seems older than it is.
        let salted = serde_json::from_str::<Remembered>(&text).unwrap().salt;
        if first.mark(&salted) != second.mark(&salted) {
            assert_eq!(seen(&second, "a", day(20)), Some(day(20)));
        }
        std::fs::write(&file, "torn").unwrap();
        assert_eq!(seen(&first, "a", day(30)), Some(day(30)));
    }
}
