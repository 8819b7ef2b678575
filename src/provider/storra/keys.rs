//! Storra's API for keys: the dashboard's, which knows a person by the session of a browser and takes no key.
//!
//! Keys have no rights of their own, no end and no id that one is used by: what tells them apart, and revokes them, is
//! their first 11 characters. A session's cookie is kept where `[keys_auth]` says.

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::{Method, Url};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;

use super::client::Client;
use super::wire::time;
use crate::api::Api;
use crate::model::{Error, ErrorKind, Result};
use crate::net::Request;
use crate::provider::keys::{
    CurrentKey, GrantForm, KeyCapabilities, KeyGrants, KeyInfo, KeyManager, KeyOrigin, KeyRequest, KeyStanding, NewKey,
    find,
};

/// Below the service's root (Storra documentation, "Dashboard API").
const BASE: [&str; 6] = ["api", "v1", "dashboard", "users", "me", "api-keys"];

const CAPABILITIES: KeyCapabilities = KeyCapabilities {
    grants: GrantForm::Everything,
    expiry: false,
    idle_limit: false,
    addresses: false,
};

/// A key in a list.
#[derive(Deserialize)]
struct Listed {
    prefix: String,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    last_used: Option<String>,
}

/// The answer to the making of a key, the only one that holds it.
#[derive(Deserialize)]
struct Created {
    key: String,
    #[serde(flatten)]
    facts: Listed,
}

impl From<Listed> for KeyInfo {
    fn from(key: Listed) -> Self {
        let at = |text: Option<String>| text.as_deref().and_then(time);
        Self {
            name: key.label.unwrap_or_else(|| key.prefix.clone()),
            created: at(key.created_at),
            last_used: at(key.last_used),
            ..in_use(key.prefix)
        }
    }
}

/// The key with this prefix, of which nothing else is known.
pub(super) fn in_use(prefix: String) -> KeyInfo {
    KeyInfo {
        name: prefix.clone(),
        id: prefix,
        created: None,
        expires: None,
        idle_limit: None,
        last_used: None,
        // Storra's keys have no rights of their own.
        grants: Some(KeyGrants::Everything),
        addresses: Vec::new(),
        standing: KeyStanding::Usable,
        origin: KeyOrigin::Api,
    }
}

/// The account's keys, seen by a session of the dashboard.
pub struct DashboardKeys {
    api: Arc<Api>,
}

impl DashboardKeys {
    /// `api`'s base is that of the provider, its dialect the provider's, and its credential the session's cookie.
    pub fn new(api: Arc<Api>) -> Self {
        Self { api }
    }

    fn url(&self, prefix: Option<&str>) -> Url {
        self.api.url(BASE.into_iter().chain(prefix))
    }

    fn explained(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::NeedsLogin => {
                let root = self.api.base().as_str().trim_end_matches('/');
                let sentence = format!(
                    "the session of Storra's dashboard has ended, or the cookie isn't one: log in at {root}/dashboard/login \
                     and keep the browser's new cookie with: keymount login REMOTE --keys"
                );
                Error::new(ErrorKind::NeedsLogin, sentence).with_source(error)
            }
            // Another session would be refused as well.
            ErrorKind::Denied => {
                let sentence = format!(
                    "{}; keys are for Cloud Pro accounts: upgrade at /dashboard/settings",
                    error
                );
                Error::new(ErrorKind::NotPermitted, sentence)
            }
            _ => error,
        }
    }
}

#[async_trait]
impl KeyManager for DashboardKeys {
    fn capabilities(&self) -> KeyCapabilities {
        CAPABILITIES
    }

    async fn list(&self) -> Result<Vec<KeyInfo>> {
        let purpose = "list the keys";
        let request = Request::get(self.url(None), purpose);
        let response = self.api.call(&request).await.map_err(|error| self.explained(error))?;
        let keys: Vec<Listed> = response.json(purpose).await?;
        Ok(keys.into_iter().map(KeyInfo::from).collect())
    }

    async fn show(&self, id_or_name: &str) -> Result<KeyInfo> {
        find(self.list().await?, id_or_name)
    }

    /// A session is no key.
    async fn current(&self) -> Result<CurrentKey> {
        self.list().await.map(|_| CurrentKey::Untold)
    }

    async fn create(&self, request: &KeyRequest) -> Result<NewKey> {
        if request.grants != KeyGrants::Everything {
            let message = "a key of Storra may do everything that its account may";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let purpose = "make the key";
        let post = Request::new(Method::POST, self.url(None), purpose).json(&json!({ "label": request.name }));
        let response = self.api.call(&post).await.map_err(|error| self.explained(error))?;
        let Created { key, facts } = response.json(purpose).await?;
        Ok(NewKey {
            info: facts.into(),
            secret: SecretString::from(key),
        })
    }

    async fn revoke(&self, id: &str) -> Result<()> {
        #[derive(Deserialize)]
        struct Revoked {
            revoked: bool,
        }
        let purpose = "revoke the key";
        let request = Request::new(Method::DELETE, self.url(Some(id)), purpose);
        let response = self.api.call(&request).await.map_err(|error| self.explained(error))?;
        let answer: Revoked = response.json(purpose).await?;
        match answer.revoked {
            true => Ok(()),
            false => Err(Error::bad_data(format!("{purpose}: the provider didn't"))),
        }
    }
}

/// A key asked about itself, with the client API: it knows whether it is accepted, and nothing of other keys.
pub struct KeyItself {
    client: Client,
}

impl KeyItself {
    /// `api`'s base is that of the provider, its dialect the provider's, and its credential the key.
    pub fn new(api: Arc<Api>) -> Self {
        Self {
            client: Client::new(api),
        }
    }

    fn no_session() -> Error {
        Error::unsupported("Storra's keys are managed with a session of its dashboard, not with a key")
    }
}

#[async_trait]
impl KeyManager for KeyItself {
    fn capabilities(&self) -> KeyCapabilities {
        CAPABILITIES
    }

    async fn list(&self) -> Result<Vec<KeyInfo>> {
        Err(Self::no_session())
    }

    async fn show(&self, _: &str) -> Result<KeyInfo> {
        Err(Self::no_session())
    }

    async fn current(&self) -> Result<CurrentKey> {
        self.client.profile().await?;
        let prefix = self.client.api().credential_prefix();
        Ok(prefix.map_or(CurrentKey::Untold, |prefix| CurrentKey::Told(in_use(prefix))))
    }

    async fn create(&self, _: &KeyRequest) -> Result<NewKey> {
        Err(Self::no_session())
    }

    async fn revoke(&self, _: &str) -> Result<()> {
        Err(Self::no_session())
    }
}
