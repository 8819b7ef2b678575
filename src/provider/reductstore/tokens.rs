//! ReductStore's token API: what a token's document says, and making, listing and removing tokens.
//!
//! Today's form (measured on ReductStore 1.21.5) and that of the first servers (ReductStore documentation of version 1.0,
//! "Token API"): there a list has names and times only, the grants are called `permission`, a new token is described
//! without the key `permissions`, has no end, and nobody tells which token a request was made with.
//!
//! The server's own `rotate` isn't used: it ends the old value before anybody has the new one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use jiff::Timestamp;
use reqwest::Method;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};

use super::rights::Grants;
use super::server::Server;
use crate::api::Api;
use crate::model::{Error, ErrorKind, Result};
use crate::net::Request;
use crate::provider::keys::{
    CurrentKey, GrantForm, KeyCapabilities, KeyGrants, KeyInfo, KeyManager, KeyOrigin, KeyRequest, KeyStanding, NewKey,
};

/// The name that `/me` gives when authentication is off (measured on ReductStore 1.21.5).
const NO_AUTHENTICATION: &str = "AUTHENTICATION-DISABLED";

/// A token as `/me`, `/tokens` and `/tokens/{name}` describe it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Token {
    #[serde(default)]
    name: String,
    created_at: Option<String>,
    #[serde(alias = "permission")]
    pub(super) permissions: Option<Grants>,
    expires_at: Option<String>,
    /// Seconds without use after which it ends.
    ttl: Option<u64>,
    last_access: Option<String>,
    ip_allowlist: Option<Vec<String>>,
    is_provisioned: Option<bool>,
    is_expired: Option<bool>,
}

impl Token {
    /// What this token is, unless it only stands for a server that asks for none.
    pub(super) fn key(&self) -> Option<KeyInfo> {
        (!self.name.is_empty() && self.name != NO_AUTHENTICATION).then(|| self.clone().into())
    }
}

impl From<Token> for KeyInfo {
    fn from(token: Token) -> Self {
        let at = |text: Option<String>| text.as_deref().and_then(time);
        Self {
            id: token.name.clone(),
            name: token.name,
            created: at(token.created_at),
            expires: at(token.expires_at),
            idle_limit: token.ttl.map(Duration::from_secs),
            last_used: at(token.last_access),
            grants: token.permissions.map(KeyGrants::from),
            addresses: token.ip_allowlist.unwrap_or_default(),
            standing: match token.is_expired {
                Some(true) => KeyStanding::Expired,
                _ => KeyStanding::Usable,
            },
            origin: match token.is_provisioned {
                Some(true) => KeyOrigin::Settings,
                _ => KeyOrigin::Api,
            },
        }
    }
}

impl From<Grants> for KeyGrants {
    fn from(grants: Grants) -> Self {
        if grants.full_access {
            Self::Everything
        } else {
            Self::buckets(grants.read, grants.write)
        }
    }
}

/// RFC 3339; a time without a zone, which the first servers may send, is UTC.
fn time(text: &str) -> Option<SystemTime> {
    let stamp = text.parse::<Timestamp>().ok().or_else(|| {
        let local: jiff::civil::DateTime = text.parse().ok()?;
        Some(local.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    });
    stamp.map(SystemTime::from)
}

#[derive(Deserialize)]
struct TokenList {
    tokens: Vec<Token>,
}

/// The only answer that holds a token's value.
#[derive(Deserialize)]
struct Created {
    value: String,
}

/// The server's tokens, seen by one of them.
pub struct Tokens {
    server: Server,
}

impl Tokens {
    /// `api` has the server's root as its base, with the base path if the server has one.
    pub fn new(api: Arc<Api>) -> Self {
        Self {
            server: Server::new(api),
        }
    }

    /// Makes a token and looks at it; one that isn't as asked for is removed.
    async fn make(&self, request: &KeyRequest, body: &Value) -> Result<NewKey> {
        const PURPOSE: &str = "make the token";
        let url = self.server.token_url(&request.name)?;
        let post = Request::new(Method::POST, url, PURPOSE).json(body);
        let created: Created = self.server.api().call(&post).await?.json(PURPOSE).await?;
        let secret = SecretString::from(created.value);
        let unfit = match self.show(&request.name).await {
            Ok(info) if info.grants.as_ref() == Some(&request.grants) => return Ok(NewKey { info, secret }),
            Ok(_) => Error::bad_data("make the token: the server gave it other rights than were asked for"),
            Err(error) => error,
        };
        Err(match self.revoke(&request.name).await {
            Ok(()) => unfit.context("the new token was removed again"),
            Err(error) => unfit.context(format!("the new token could not be removed again ({error})")),
        })
    }
}

/// What today's servers are sent.
fn current_form(request: &KeyRequest, grants: &Value) -> Value {
    let mut body = json!({ "permissions": grants });
    if let Some(expires) = request.expires {
        body["expires_at"] = Timestamp::try_from(expires).map_or(Value::Null, |at| at.to_string().into());
    }
    if let Some(limit) = request.idle_limit {
        body["ttl"] = limit.as_secs().into();
    }
    if !request.addresses.is_empty() {
        body["ip_allowlist"] = request.addresses.clone().into();
    }
    body
}

/// What the first servers are sent: the grants and nothing else.
///
/// # Errors
/// `InvalidInput` for grants in another form than the servers have.
fn flat_form(grants: &KeyGrants) -> Result<Value> {
    match grants {
        KeyGrants::Everything => Ok(json!({"full_access": true, "read": [], "write": []})),
        KeyGrants::Buckets { read, write } => Ok(json!({"full_access": false, "read": read, "write": write})),
        KeyGrants::Permissions(_) => Err(Error::new(
            ErrorKind::InvalidInput,
            "a token is given buckets to read and to write",
        )),
    }
}

#[async_trait]
impl KeyManager for Tokens {
    fn capabilities(&self) -> KeyCapabilities {
        KeyCapabilities {
            grants: GrantForm::Buckets,
            expiry: true,
            idle_limit: true,
            addresses: true,
        }
    }

    async fn list(&self) -> Result<Vec<KeyInfo>> {
        const PURPOSE: &str = "list the tokens";
        let request = Request::get(self.server.tokens_url(), PURPOSE);
        let list: TokenList = self.server.api().call(&request).await?.json(PURPOSE).await?;
        let mut keys = Vec::with_capacity(list.tokens.len());
        for token in list.tokens {
            if token.permissions.is_some() {
                keys.push(token.into());
                continue;
            }
            match self.show(&token.name).await {
                Ok(key) => keys.push(key),
                // A name that no address can hold is still a key.
                Err(error) if error.kind() == ErrorKind::InvalidInput => keys.push(token.into()),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(keys)
    }

    async fn show(&self, name: &str) -> Result<KeyInfo> {
        const PURPOSE: &str = "look at the token";
        let request = Request::get(self.server.token_url(name)?, PURPOSE);
        let token: Token = self.server.api().call(&request).await?.json(PURPOSE).await?;
        Ok(token.into())
    }

    async fn current(&self) -> Result<CurrentKey> {
        match self.server.me().await? {
            None => Ok(CurrentKey::Untold),
            Some(token) if token.name == NO_AUTHENTICATION => Err(Error::unsupported(
                "the server asks for no token: its authentication is disabled",
            )),
            Some(token) => Ok(token.key().map_or(CurrentKey::Untold, CurrentKey::Told)),
        }
    }

    async fn create(&self, request: &KeyRequest) -> Result<NewKey> {
        // A value begins with its token's name, and the server reads no other header (measured on ReductStore 1.21.5).
        if !request.name.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
            let why = "a token's name has ASCII characters only, else the server doesn't know the token again";
            return Err(Error::new(ErrorKind::InvalidInput, why));
        }
        let grants = flat_form(&request.grants)?;
        let first = match self.make(request, &current_form(request, &grants)).await {
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::BadData) => error,
            outcome => return outcome,
        };
        if request.expires.is_some() || request.idle_limit.is_some() || !request.addresses.is_empty() {
            // A key without the limit that was asked for is worse than none.
            return Err(first);
        }
        match (self.make(request, &grants).await, first.kind()) {
            (Err(error), _) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::BadData) => Err(first),
            // The name may be taken by the first attempt itself.
            (Err(error), ErrorKind::BadData) if error.kind() == ErrorKind::AlreadyExists => Err(first),
            (outcome, _) => outcome,
        }
    }

    async fn revoke(&self, id: &str) -> Result<()> {
        let url = self.server.token_url(id)?;
        let request = Request::new(Method::DELETE, url, "remove the token");
        self.server.api().call(&request).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(json: Value) -> Token {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn todays_document_is_read() {
        let key: KeyInfo = token(json!({
            "name": "laptop", "value": "", "created_at": "2026-01-01T00:00:00.5Z",
            "permissions": {"full_access": false, "read": ["b", "a"], "write": []},
            "is_provisioned": true, "expires_at": "2026-01-31T00:00:00.5Z", "ttl": 3600, "last_access": null,
            "ip_allowlist": ["10.0.0.0/8"], "is_expired": true,
        }))
        .into();
        assert_eq!(key.life(), Some(Duration::from_secs(30 * 24 * 3600)));
        assert_eq!(key.idle_limit, Some(Duration::from_secs(3600)));
        assert_eq!(
            key.grants.map(|grants| grants.to_string()).as_deref(),
            Some("read a, b")
        );
        assert_eq!(key.addresses, ["10.0.0.0/8"]);
        assert_eq!((key.standing, key.origin), (KeyStanding::Expired, KeyOrigin::Settings));
        assert_eq!(key.last_used, None);
    }

    #[test]
    fn the_first_servers_document_is_read() {
        let listed: KeyInfo = token(json!({"name": "t", "created_at": "2022-10-01T10:00:00"})).into();
        assert!(listed.created.is_some() && listed.grants.is_none() && listed.expires.is_none());
        let shown: KeyInfo = token(json!({
            "name": "t", "created_at": "2022-10-01T10:00:00Z",
            "permission": {"full_access": true, "read": [], "write": []},
        }))
        .into();
        assert_eq!(shown.grants, Some(KeyGrants::Everything));
        assert_eq!(listed.created, shown.created);
    }

    #[test]
    fn a_server_that_asks_for_no_token_has_no_key_in_use() {
        assert_eq!(token(json!({"name": NO_AUTHENTICATION})).key(), None);
        assert_eq!(token(json!({"permissions": {}})).key(), None);
        assert!(token(json!({"name": "t"})).key().is_some());
    }

    #[test]
    fn limits_are_sent_in_todays_form_only() {
        let mut request = KeyRequest {
            name: "n".into(),
            grants: KeyGrants::buckets(["b".to_owned()], []),
            expires: None,
            idle_limit: None,
            addresses: Vec::new(),
        };
        let flat = json!({"full_access": false, "read": ["b"], "write": []});
        assert_eq!(flat_form(&request.grants).unwrap(), flat);
        assert_eq!(current_form(&request, &flat), json!({"permissions": flat}));
        request.expires = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(86_400));
        request.idle_limit = Some(Duration::from_secs(60));
        request.addresses = vec!["::1".into()];
        assert_eq!(
            current_form(&request, &flat),
            json!({"permissions": flat, "expires_at": "1970-01-02T00:00:00Z", "ttl": 60, "ip_allowlist": ["::1"]})
        );
    }
}
