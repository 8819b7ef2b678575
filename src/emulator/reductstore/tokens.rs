//! Access tokens and what they allow.
//!
//! Responsible for the token API's objects and for the rights full, read and write per bucket. Not responsible for
//! which right an endpoint needs.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::TokenApi;
use super::failure::Failure;
use axum::http::StatusCode;

/// The name of the token that the server is started with (measured).
pub const ROOT_TOKEN: &str = "init-token";

/// What a token may do. Bucket names may end with `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Permissions {
    /// Everything.
    pub full_access: bool,
    /// Buckets it may read.
    pub read: Vec<String>,
    /// Buckets it may write, which doesn't include reading.
    pub write: Vec<String>,
}

impl Permissions {
    /// Everything.
    pub fn full() -> Self {
        Self {
            full_access: true,
            ..Self::default()
        }
    }

    /// These buckets to read and to write.
    pub fn buckets(read: &[&str], write: &[&str]) -> Self {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self {
            full_access: false,
            read: owned(read),
            write: owned(write),
        }
    }
}

/// What an endpoint asks for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Right<'a> {
    /// A valid token of any kind.
    Any,
    Full,
    Read(&'a str),
    Write(&'a str),
}

/// The caller as far as rights go.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) name: String,
    permissions: Permissions,
}

impl Identity {
    pub(super) fn require(&self, right: Right<'_>) -> Result<(), Failure> {
        let Permissions {
            full_access,
            read,
            write,
        } = &self.permissions;
        let (list, kind, bucket) = match right {
            _ if *full_access => return Ok(()),
            Right::Any => return Ok(()),
            Right::Full => {
                return Err(Failure::forbidden(format!(
                    "Token '{}' doesn't have full access",
                    self.name
                )));
            }
            Right::Read(bucket) => (read, "read", bucket),
            Right::Write(bucket) => (write, "write", bucket),
        };
        if list.iter().any(|pattern| matches(pattern, bucket)) {
            return Ok(());
        }
        let name = &self.name;
        Err(Failure::forbidden(format!(
            "Token '{name}' doesn't have {kind} access to bucket '{bucket}'"
        )))
    }
}

/// A trailing `*` stands for any rest, but never for the name of a system bucket.
fn matches(pattern: &str, bucket: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => !bucket.starts_with('$') && bucket.starts_with(prefix),
        None => pattern == bucket,
    }
}

#[derive(Debug, Clone)]
struct Token {
    value: String,
    created_at: Timestamp,
    permissions: Permissions,
    origin: Origin,
    expires_at: Option<Timestamp>,
    /// Seconds of inactivity.
    ttl: Option<u64>,
    last_access: Option<Timestamp>,
    ip_allowlist: Vec<String>,
}

/// Where a token or a bucket comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The server's settings; the API can't remove it.
    Provisioned,
    Api,
}

impl Token {
    fn new(name: &str, permissions: Permissions) -> Self {
        Self {
            value: format!("{name}-{}", Uuid::new_v4().simple()),
            created_at: Timestamp::now(),
            permissions,
            origin: Origin::Api,
            expires_at: None,
            ttl: None,
            last_access: None,
            ip_allowlist: Vec::new(),
        }
    }

    fn is_expired(&self, now: Timestamp) -> bool {
        let idle = self.ttl.and_then(|seconds| {
            let since = self.last_access.unwrap_or(self.created_at);
            since
                .checked_add(SignedDuration::from_secs(i64::try_from(seconds).ok()?))
                .ok()
        });
        [self.expires_at, idle].into_iter().flatten().any(|end| end <= now)
    }

    fn to_json(&self, name: &str) -> Value {
        json!({
            "name": name,
            "value": "",
            "created_at": self.created_at.to_string(),
            "permissions": self.permissions,
            "is_provisioned": self.origin == Origin::Provisioned,
            "expires_at": self.expires_at.map(|time| time.to_string()),
            "ttl": self.ttl,
            "last_access": self.last_access.map(|time| time.to_string()),
            "ip_allowlist": self.ip_allowlist,
            "is_expired": self.is_expired(Timestamp::now()),
        })
    }
}

/// What the first servers listed of a token.
fn first_listed(name: &str, token: &Token) -> Value {
    json!({"name": name, "created_at": token.created_at.to_string()})
}

/// The body that creates a token: the current form, or the flat one of the first versions.
#[derive(Deserialize)]
#[serde(untagged)]
enum Request {
    Current(CurrentRequest),
    Flat(Permissions),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CurrentRequest {
    permissions: Permissions,
    expires_at: Option<String>,
    ttl: Option<u64>,
    #[serde(default)]
    ip_allowlist: Vec<String>,
}

/// Whether tokens matter.
#[derive(Debug, Clone)]
pub(super) enum Tokens {
    Disabled,
    Enabled(Repository),
}

/// Tokens by name.
#[derive(Debug, Clone)]
pub(super) struct Repository(BTreeMap<String, Token>);

impl Tokens {
    pub(super) fn with_root(value: String) -> Self {
        let root = Token {
            value,
            origin: Origin::Provisioned,
            ..Token::new(ROOT_TOKEN, Permissions::full())
        };
        Self::Enabled(Repository(BTreeMap::from([(ROOT_TOKEN.to_owned(), root)])))
    }

    /// Who sent this `Authorization` header.
    pub(super) fn identify(&mut self, authorization: Option<&str>) -> Result<Identity, Failure> {
        let Self::Enabled(tokens) = self else {
            return Ok(Identity {
                name: "AUTHENTICATION-DISABLED".to_owned(),
                permissions: Permissions::full(),
            });
        };
        let value = authorization
            .and_then(|header| header.strip_prefix("Bearer "))
            .ok_or_else(|| Failure::unauthorized("No bearer token in request header"))?;
        let (name, token) = tokens
            .0
            .iter_mut()
            .find(|(_, token)| token.value == value)
            .ok_or_else(|| Failure::unauthorized("Invalid token"))?;
        let now = Timestamp::now();
        if token.is_expired(now) {
            return Err(Failure::unauthorized("Token has expired"));
        }
        token.last_access = Some(now);
        Ok(Identity {
            name: name.clone(),
            permissions: token.permissions.clone(),
        })
    }

    /// `GET /me`.
    pub(super) fn describe(&self, identity: &Identity) -> Result<Value, Failure> {
        match self {
            Self::Disabled => Ok(Token::new("", Permissions::full()).to_json(&identity.name)),
            Self::Enabled(_) => self.show(&identity.name),
        }
    }

    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Self::Disabled => Vec::new(),
            Self::Enabled(tokens) => tokens.0.keys().cloned().collect(),
        }
    }

    pub(super) fn list(&self, api: TokenApi) -> Value {
        let describe = |(name, token): (&String, &Token)| match api {
            TokenApi::Current => token.to_json(name),
            TokenApi::First => first_listed(name, token),
        };
        let tokens: Vec<Value> = match self {
            Self::Disabled => Vec::new(),
            Self::Enabled(tokens) => tokens.0.iter().map(describe).collect(),
        };
        json!({"tokens": tokens})
    }

    pub(super) fn show(&self, name: &str) -> Result<Value, Failure> {
        let Self::Enabled(tokens) = self else {
            return Err(disabled());
        };
        tokens
            .0
            .get(name)
            .map(|token| token.to_json(name))
            .ok_or_else(|| unknown(name))
    }

    /// `GET /tokens/{name}` of the first servers.
    pub(super) fn show_first(&self, name: &str) -> Result<Value, Failure> {
        let Self::Enabled(tokens) = self else {
            return Err(disabled());
        };
        let token = tokens.0.get(name).ok_or_else(|| unknown(name))?;
        let mut shown = first_listed(name, token);
        shown["permission"] = json!(token.permissions);
        Ok(shown)
    }

    /// A token as a request's body describes it; checked before the caller's rights are (measured).
    pub(super) fn parse(name: &str, body: &[u8], api: TokenApi) -> Result<NewToken, Failure> {
        let invalid = || Failure::unprocessable("Invalid body");
        let token = match serde_json::from_slice(body).map_err(|_| invalid())? {
            Request::Current(_) if api == TokenApi::First => return Err(invalid()),
            Request::Flat(permissions) => Token::new(name, permissions),
            Request::Current(request) => {
                let expires_at: Option<Timestamp> = request
                    .expires_at
                    .map(|text| text.parse())
                    .transpose()
                    .map_err(|_| invalid())?;
                if expires_at.is_some_and(|time| time <= Timestamp::now()) {
                    return Err(Failure::unprocessable("Token expiration date must not be in the past"));
                }
                if request.ttl == Some(0) {
                    // Measured.
                    return Err(Failure::unprocessable("Token TTL must be greater than zero"));
                }
                let (ttl, ip_allowlist) = (request.ttl, request.ip_allowlist);
                Token {
                    expires_at,
                    ttl,
                    ip_allowlist,
                    ..Token::new(name, request.permissions)
                }
            }
        };
        Ok(NewToken(token))
    }

    pub(super) fn create(&mut self, name: &str, NewToken(token): NewToken) -> Result<Value, Failure> {
        let Self::Enabled(tokens) = self else {
            return Err(disabled());
        };
        if tokens.0.contains_key(name) {
            return Err(Failure::conflict(format!("Token '{name}' already exists")));
        }
        let shown = shown_once(&token);
        tokens.0.insert(name.to_owned(), token);
        Ok(shown)
    }

    pub(super) fn rotate(&mut self, name: &str) -> Result<Value, Failure> {
        let token = self.changeable(name, "rotate")?;
        token.value = format!("{name}-{}", Uuid::new_v4().simple());
        token.created_at = Timestamp::now();
        Ok(shown_once(token))
    }

    pub(super) fn remove(&mut self, name: &str) -> Result<(), Failure> {
        self.changeable(name, "remove")?;
        if let Self::Enabled(tokens) = self {
            tokens.0.remove(name);
        }
        Ok(())
    }

    /// Replaces a token's permissions past the API; whether there is such a token.
    pub(super) fn set_permissions(&mut self, name: &str, permissions: Permissions) -> bool {
        let token = self.get_mut(name);
        token.map(|token| token.permissions = permissions).is_some()
    }

    /// Lets a token's time be over; whether there is such a token.
    pub(super) fn expire(&mut self, name: &str) -> bool {
        let token = self.get_mut(name);
        token.map(|token| token.expires_at = Some(token.created_at)).is_some()
    }

    /// A renamed bucket keeps its name in all tokens up to date.
    pub(super) fn rename_bucket(&mut self, from: &str, to: &str) {
        let Self::Enabled(tokens) = self else { return };
        for token in tokens.0.values_mut() {
            let Permissions { read, write, .. } = &mut token.permissions;
            for name in read.iter_mut().chain(write).filter(|name| *name == from) {
                to.clone_into(name);
            }
        }
    }

    /// A removed bucket is dropped from all tokens.
    pub(super) fn forget_bucket(&mut self, bucket: &str) {
        let Self::Enabled(tokens) = self else { return };
        for token in tokens.0.values_mut() {
            token.permissions.read.retain(|name| name != bucket);
            token.permissions.write.retain(|name| name != bucket);
        }
    }

    fn get_mut(&mut self, name: &str) -> Option<&mut Token> {
        match self {
            Self::Disabled => None,
            Self::Enabled(tokens) => tokens.0.get_mut(name),
        }
    }

    fn changeable(&mut self, name: &str, action: &str) -> Result<&mut Token, Failure> {
        let Self::Enabled(tokens) = self else {
            return Err(disabled());
        };
        let token = tokens.0.get_mut(name).ok_or_else(|| unknown(name))?;
        match token.origin {
            Origin::Provisioned => Err(Failure::conflict(format!("Can't {action} provisioned token '{name}'"))),
            Origin::Api => Ok(token),
        }
    }
}

/// A token that isn't in the repository yet.
pub(super) struct NewToken(Token);

impl NewToken {
    pub(super) fn new(name: &str, permissions: Permissions) -> Self {
        Self(Token::new(name, permissions))
    }

    pub(super) fn value(&self) -> String {
        self.0.value.clone()
    }
}

fn shown_once(token: &Token) -> Value {
    json!({"value": token.value, "created_at": token.created_at.to_string()})
}

fn unknown(name: &str) -> Failure {
    Failure::not_found(format!("Token '{name}' doesn't exist"))
}

fn disabled() -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, "Authentication is disabled")
}
