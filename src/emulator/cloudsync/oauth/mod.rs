//! The authorization server ("OAuth 2.0" in Authentication).
//!
//! Responsible for its addresses and for what tests see and do of it: clients, grants, tokens, counts. The endpoints:
//! [`authorize`] is for a person's browser, [`token`] for programs, [`device`] for both. Only JSON bodies are documented
//! for programs, so forms are refused.

mod authorize;
mod client;
mod device;
mod error;
pub(super) mod ledger;
mod metadata;
mod page;
mod token;

use std::fmt;

use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use jiff::Timestamp;
use serde::de::DeserializeOwned;

pub use self::client::OauthClient;
pub use self::device::DeviceRequest;
use self::error::OauthError;
use super::access::Scope;
use super::assumptions::{DeviceFlow, Revocation, Statuses};
use super::{CloudSyncStore, StoreError};

/// Bodies are one short object or form; this is plenty.
const BODY_LIMIT: usize = 64 * 1024;

/// What happens when a client sends a person to the authorization server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Consent {
    /// A page asks the person.
    #[default]
    Asks,
    /// This person (by e-mail address) allows everything at once.
    Allows(String),
    /// This person allows these scopes at once, as far as they were asked for.
    AllowsOnly(String, Vec<Scope>),
    /// The person refuses at once.
    Refuses,
}

/// A grant's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantId(pub(super) usize);

/// The tokens that an exchange gave, or that a test was given directly.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens {
    grant: GrantId,
    access: String,
    refresh: Option<String>,
}

impl Tokens {
    /// The grant they are of.
    pub fn grant(&self) -> GrantId {
        self.grant
    }

    /// The access token, `at_live_…`.
    pub fn access(&self) -> &str {
        &self.access
    }

    /// The refresh token, `rt_live_…`; only with `offline_access`.
    pub fn refresh(&self) -> Option<&str> {
        self.refresh.as_deref()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("grant", &self.grant)
            .finish_non_exhaustive()
    }
}

/// How an exchange is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GrantKind {
    /// `authorization_code`.
    AuthorizationCode,
    /// `refresh_token`.
    RefreshToken,
    /// `urn:ietf:params:oauth:grant-type:device_code`.
    DeviceCode,
}

/// How often an exchange was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exchanges {
    /// Answered with tokens.
    pub granted: u64,
    /// Answered with an error.
    pub refused: u64,
}

/// An access token without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedToken {
    /// Its number among all access tokens of the store, from 0; also in the log of requests.
    pub serial: usize,
    /// The grant it is of.
    pub grant: GrantId,
    /// The client's id.
    pub client: String,
    /// The user's e-mail address.
    pub email: String,
    /// When it was issued.
    pub issued: Timestamp,
    /// When its time is over.
    pub expires: Timestamp,
    /// How many requests the API accepted it for.
    pub uses: u64,
    /// What it is worth now.
    pub state: TokenState,
}

/// What an access token is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenState {
    /// The API accepts it.
    Valid,
    /// Its time is over.
    Expired,
    /// It, or its grant, was ended.
    Revoked,
}

impl CloudSyncStore {
    /// Registers a client, in place of one with the same id.
    pub fn add_client(&self, client: OauthClient) {
        let clients = &mut self.lock().oauth.clients;
        clients.retain(|other| other.id() != client.id());
        clients.push(client);
    }

    /// Forgets a client; whether there was one with this id. Its access tokens go on until their time is over.
    pub fn remove_client(&self, id: &str) -> bool {
        let clients = &mut self.lock().oauth.clients;
        let before = clients.len();
        clients.retain(|client| client.id() != id);
        clients.len() < before
    }

    /// Says what happens from now on when a client sends a person to the authorization server.
    pub fn set_consent(&self, consent: Consent) {
        self.lock().oauth.consent = consent;
    }

    /// Grants access past the protocol.
    ///
    /// # Errors
    /// If there is no such user or client.
    pub fn grant(&self, email: &str, client: &str, scopes: &[Scope]) -> Result<Tokens, StoreError> {
        let now = self.clock().now();
        let lifetime = self.assumptions().access_lifetime;
        let mut state = self.lock();
        let user = state.user_by_email(email).ok_or(StoreError::Missing)?.id.clone();
        state.oauth.client(client).ok_or(StoreError::Missing)?;
        let scopes = scopes.iter().copied().filter(|scope| scope.is_for_oauth()).collect();
        Ok(state.oauth.grant(&user, client, scopes, lifetime, now).tokens)
    }

    /// Ends a grant with all its tokens; whether it was alive.
    pub fn revoke_grant(&self, grant: GrantId) -> bool {
        self.lock().oauth.revoke(grant)
    }

    /// Leaves a grant these of its scopes, as a person may do in the account's settings; whether it was alive. Access
    /// tokens that are out keep theirs, and a refresh gives the rest (RFC 6749, 6).
    pub fn narrow_grant(&self, grant: GrantId, only: &[Scope]) -> bool {
        self.lock().oauth.narrow(grant, only)
    }

    /// Ends every grant that somebody gave; how many were alive.
    pub fn revoke_grants_of(&self, email: &str) -> usize {
        let mut state = self.lock();
        match state.user_by_email(email).map(|user| user.id.clone()) {
            Some(user) => state.oauth.revoke_all_of(&user),
            None => 0,
        }
    }

    /// Lets the time of every access token be over now. Refresh tokens stay.
    pub fn expire_access_tokens(&self) {
        let now = self.clock().now();
        self.lock().oauth.expire_access(now);
    }

    /// How often this kind of exchange was asked for. Requests that couldn't be read don't count.
    pub fn exchanges(&self, kind: GrantKind) -> Exchanges {
        self.lock().oauth.exchanges(kind)
    }

    /// All that must leave no trace at a client: every code, token and device code given out so far, and the states and
    /// verifiers of the logins.
    pub fn secrets(&self) -> Vec<String> {
        self.lock().oauth.secrets()
    }

    /// Every access token, in order of issue.
    pub fn access_tokens(&self) -> Vec<IssuedToken> {
        let now = self.clock().now();
        let state = self.lock();
        let rows = state.oauth.access_rows(now).into_iter().enumerate();
        rows.map(|(serial, row)| IssuedToken {
            serial,
            grant: row.grant,
            client: row.client,
            email: state.email(&row.user),
            issued: row.issued,
            expires: row.expires,
            uses: row.uses,
            state: row.state,
        })
        .collect()
    }
}

/// A request with its body read, so that a refusal never cuts a client short that is still sending.
struct Call {
    parts: Parts,
    body: Bytes,
}

pub(super) async fn answer(store: &CloudSyncStore, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_LIMIT).await else {
        return OauthError::invalid_request("The body is too long or was cut short").into_response();
    };
    let call = Call { parts, body };
    let assumptions = store.assumptions();
    let has_device = assumptions.device != DeviceFlow::Absent;
    let method = call.parts.method.clone();
    match (call.parts.uri.path(), method) {
        ("/oauth/authorize", Method::GET) => authorize::ask(store, &call),
        ("/oauth/authorize", Method::POST) => authorize::decide(store, &call),
        ("/oauth/token", Method::POST) => token::exchange(store, &call),
        ("/oauth/revoke", Method::POST) if assumptions.revocation == Revocation::Offered => token::revoke(store, &call),
        ("/oauth/device/code", Method::POST) if has_device => device::begin(store, &call),
        (metadata::PATH, Method::GET) if metadata::is_there(&assumptions) => metadata::tell(&call, &assumptions),
        ("/oauth/device", Method::GET) if has_device => device::ask(&call),
        ("/oauth/device", Method::POST) if has_device => device::decide(store, &call),
        (path, _) => {
            let known = ["/oauth/authorize", "/oauth/token"].contains(&path);
            let status = match assumptions.statuses {
                Statuses::Standard if known => StatusCode::METHOD_NOT_ALLOWED,
                _ => StatusCode::NOT_FOUND,
            };
            OauthError::invalid_request("There is no such endpoint")
                .with_status(status)
                .into_response()
        }
    }
}

impl Call {
    fn media_type(&self) -> Option<String> {
        let value = self.parts.headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let media_type = value.split_once(';').map_or(value, |(media_type, _)| media_type);
        Some(media_type.trim().to_ascii_lowercase())
    }

    /// The body of a program's request. Messages never repeat any of it.
    fn json<T: DeserializeOwned>(&self, statuses: Statuses) -> Result<T, OauthError> {
        if self.media_type().as_deref() != Some("application/json") {
            let status = match statuses {
                Statuses::Listed => StatusCode::BAD_REQUEST,
                Statuses::Standard => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            };
            return Err(OauthError::invalid_request("Content-Type must be application/json").with_status(status));
        }
        if self.parts.uri.query().is_some() || self.parts.headers.contains_key(header::AUTHORIZATION) {
            return Err(OauthError::invalid_request("Everything belongs into the JSON body"));
        }
        serde_json::from_slice(&self.body)
            .map_err(|_| OauthError::invalid_request("The body is not the JSON object that belongs there"))
    }

    /// The fields of a page's form; nothing if it isn't one, or a field comes twice.
    fn form(&self) -> Option<Vec<(String, String)>> {
        if self.media_type().as_deref() != Some("application/x-www-form-urlencoded") {
            return None;
        }
        unique_pairs(&self.body)
    }

    /// The query's parameters; nothing if one comes twice (RFC 6749, 3.1).
    fn query(&self) -> Option<Vec<(String, String)>> {
        unique_pairs(self.parts.uri.query().unwrap_or_default().as_bytes())
    }
}

fn unique_pairs(encoded: &[u8]) -> Option<Vec<(String, String)>> {
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(encoded).into_owned().collect();
    let names: std::collections::BTreeSet<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
    (names.len() == pairs.len()).then_some(pairs)
}

/// A field that isn't empty; an empty one counts as missing (RFC 6749, 3.1).
fn field<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs
        .iter()
        .find(|(key, value)| key == name && !value.is_empty())
        .map(|(_, value)| value.as_str())
}
