//! CloudSync's API for keys: the account's keys listed, made and revoked.
//!
//! Which permission that takes isn't documented; a refusal says that this key may not. A list has no ends of keys
//! (assumed; they are read where there are some), so the end that a key was made with is not told later.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use jiff::Timestamp;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;

use super::client::Client;
use super::rights::{Access, FILES_READ, FILES_WRITE, WORKSPACES_READ, WORKSPACES_WRITE};
use super::wire::{ApiKey, Envelope, time};
use crate::api::Api;
use crate::model::{Error, ErrorKind, Result};
use crate::provider::keys::{
    CurrentKey, GrantForm, KeyCapabilities, KeyGrants, KeyInfo, KeyManager, KeyOrigin, KeyRequest, KeyStanding, NewKey,
    find,
};

/// All that a key can be for (documentation, "Key Permissions").
const PERMISSIONS: &[&str] = &[
    FILES_READ,
    FILES_WRITE,
    WORKSPACES_READ,
    WORKSPACES_WRITE,
    "users:read",
    "users:write",
];

impl From<ApiKey> for KeyInfo {
    fn from(key: ApiKey) -> Self {
        let at = |text: Option<String>| text.as_deref().and_then(time);
        let expires = at(key.expires_at);
        Self {
            id: key.id,
            name: key.name,
            created: at(key.created_at),
            expires,
            idle_limit: None,
            last_used: at(key.last_used),
            grants: Some(KeyGrants::Permissions(key.permissions)),
            addresses: Vec::new(),
            standing: match expires {
                Some(end) if end <= SystemTime::now() => KeyStanding::Expired,
                _ => KeyStanding::Usable,
            },
            origin: KeyOrigin::Api,
        }
    }
}

/// The only one of these keys that begins so; several cannot be told apart.
pub(super) fn only_with_prefix(keys: Vec<ApiKey>, prefix: &str) -> Option<ApiKey> {
    let mut matching = keys.into_iter().filter(|key| key.prefix.as_deref() == Some(prefix));
    matching.next().filter(|_| matching.next().is_none())
}

/// The answer to the making of a key, the only one that holds it.
#[derive(Deserialize)]
struct Created {
    key: String,
    #[serde(flatten)]
    facts: ApiKey,
}

/// The account's keys, seen by one of them.
pub struct ApiKeys {
    client: Client,
}

impl ApiKeys {
    /// `api`'s base is that of the provider, and its dialect the provider's.
    pub fn new(api: Arc<Api>) -> Self {
        Self {
            client: Client::new(api, Access::new(None)),
        }
    }
}

#[async_trait]
impl KeyManager for ApiKeys {
    fn capabilities(&self) -> KeyCapabilities {
        KeyCapabilities {
            grants: GrantForm::Permissions(PERMISSIONS),
            expiry: true,
            idle_limit: false,
            addresses: false,
        }
    }

    async fn list(&self) -> Result<Vec<KeyInfo>> {
        let keys = self.client.api_keys().await?;
        Ok(keys.into_iter().map(KeyInfo::from).collect())
    }

    async fn show(&self, id_or_name: &str) -> Result<KeyInfo> {
        find(self.list().await?, id_or_name)
    }

    async fn current(&self) -> Result<CurrentKey> {
        match self.client.api_keys().await {
            Ok(keys) => {
                let prefix = self.client.api().credential_prefix();
                let own = prefix.and_then(|prefix| only_with_prefix(keys, &prefix));
                Ok(own.map_or(CurrentKey::Untold, |key| CurrentKey::Told(key.into())))
            }
            // It was accepted, and may not look at keys.
            Err(error) if error.kind() == ErrorKind::Denied => Ok(CurrentKey::Untold),
            Err(error) => Err(error),
        }
    }

    async fn create(&self, request: &KeyRequest) -> Result<NewKey> {
        let KeyGrants::Permissions(permissions) = &request.grants else {
            let message = "a key is given permissions such as files:read";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        };
        let mut body = json!({ "name": request.name, "permissions": permissions });
        if let Some(expires) = request.expires {
            let at = Timestamp::try_from(expires)
                .map_err(|_| Error::new(ErrorKind::InvalidInput, "the key's end is beyond all calendars"))?;
            body["expiresAt"] = at.to_string().into();
        }
        let response = self.client.create_key(&body).await?;
        let created: Envelope<Created> = response.json("make the key").await?;
        let Created { key, facts } = created.data;
        let secret = SecretString::from(key);
        let told = KeyInfo::from(facts);
        let unfit = if told.grants.as_ref() != Some(&request.grants) {
            "make the key: the provider gave it other permissions than were asked for"
        } else if told.expires.is_some() && request.expires.is_none() {
            "make the key: the provider gave it an end that wasn't asked for"
        } else {
            let info = KeyInfo {
                expires: told.expires.or(request.expires),
                ..told
            };
            return Ok(NewKey { info, secret });
        };
        let unfit = Error::bad_data(unfit);
        Err(match self.client.revoke_key(&told.id).await {
            Ok(()) => unfit.context("the new key was revoked again"),
            Err(error) => unfit.context(format!("the new key could not be revoked again ({error})")),
        })
    }

    async fn revoke(&self, id: &str) -> Result<()> {
        self.client.revoke_key(id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(prefixes: &[&str]) -> Vec<ApiKey> {
        let all = prefixes.iter().enumerate().map(|(number, prefix)| {
            json!({"id": format!("key_{number}"), "name": "n", "prefix": prefix, "permissions": ["files:read"],
                "lastUsed": null, "createdAt": "2025-12-01T00:00:00Z"})
        });
        serde_json::from_value(all.collect::<Vec<_>>().into()).unwrap()
    }

    #[test]
    fn a_key_is_known_by_a_prefix_that_no_other_has() {
        let found = |prefixes: &[&str]| only_with_prefix(keys(prefixes), "sk_live_abc1").map(|key| key.id);
        assert_eq!(found(&["sk_live_zzz9", "sk_live_abc1"]).as_deref(), Some("key_1"));
        assert_eq!(found(&["sk_live_abc1", "sk_live_abc1"]), None);
        assert_eq!(found(&["sk_live_zzz9"]), None);
    }

    #[test]
    fn the_documented_key_is_read() {
        let [key] = <[ApiKey; 1]>::try_from(keys(&["sk_live_abc1"])).ok().unwrap();
        let info = KeyInfo::from(key);
        assert_eq!(
            info.grants.map(|grants| grants.to_string()).as_deref(),
            Some("files:read")
        );
        assert!(info.created.is_some() && info.last_used.is_none() && info.expires.is_none());
        let created: Envelope<Created> = serde_json::from_value(json!({"data": {
            "id": "key_new456", "name": "CI", "key": "sk_live_xyz789", "permissions": ["files:read"],
            "createdAt": "2026-01-06T16:45:00Z"}}))
        .unwrap();
        assert_eq!(created.data.facts.id, "key_new456");
    }
}
