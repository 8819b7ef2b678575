//! Codes, grants and tokens.
//!
//! Responsible for what each of them is bound to, how long it lives, and what a second use does (RFC 6749, RFC 7636,
//! RFC 9700). Not responsible for HTTP, nor for the codes of devices: see [`super::device`].

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::client::OauthClient;
use super::device::Device;
use super::error::OauthError;
use super::{Consent, Exchanges, GrantId, GrantKind, TokenState, Tokens};
use crate::emulator::cloudsync::Assumptions;
use crate::emulator::cloudsync::access::{Caller, Environment, Scope, fresh_id, fresh_secret};
use crate::emulator::cloudsync::assumptions::{CODE_LIFETIME, Pkce, Refreshing};
use crate::emulator::cloudsync::clock::later;
use crate::emulator::cloudsync::state::Recognised;

/// The authorization server's memory. It holds secrets, so it has no `Debug`.
#[derive(Clone, Default)]
pub(in crate::emulator::cloudsync) struct Ledger {
    pub(super) clients: Vec<OauthClient>,
    pub(super) consent: Consent,
    /// Requests that a person is deciding about, by the id on the page.
    pub(super) asked: BTreeMap<String, AuthorizationRequest>,
    codes: Vec<Code>,
    /// A grant's id is its place here.
    grants: Vec<Grant>,
    /// An access token's serial number is its place here.
    access: Vec<AccessToken>,
    refresh: Vec<RefreshToken>,
    pub(super) devices: Vec<Device>,
    exchanges: BTreeMap<GrantKind, Exchanges>,
}

/// What a client asks a person for ("Authorization Flow").
#[derive(Clone)]
pub(super) struct AuthorizationRequest {
    pub(super) client: String,
    pub(super) redirect: String,
    pub(super) scopes: BTreeSet<Scope>,
    pub(super) state: Option<String>,
    /// PKCE's S256 challenge.
    pub(super) challenge: Option<String>,
}

#[derive(Clone)]
struct Code {
    secret: String,
    request: AuthorizationRequest,
    user: String,
    expires: Timestamp,
    use_: CodeUse,
    /// PKCE's verifier, once it was sent.
    verifier: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CodeUse {
    Fresh,
    Spoilt,
    Exchanged(GrantId),
}

#[derive(Clone)]
struct Grant {
    user: String,
    client: String,
    scopes: BTreeSet<Scope>,
    revoked: bool,
}

#[derive(Clone)]
struct AccessToken {
    secret: String,
    grant: GrantId,
    /// The grant's when it was issued.
    scopes: BTreeSet<Scope>,
    issued: Timestamp,
    expires: Timestamp,
    revoked: bool,
    uses: u64,
}

#[derive(Clone)]
struct RefreshToken {
    secret: String,
    grant: GrantId,
    /// Another one was given in its place.
    replaced: bool,
}

/// What an exchange gave.
pub(super) struct Given {
    pub(super) tokens: Tokens,
    pub(super) scopes: BTreeSet<Scope>,
}

/// An access token for [`super::IssuedToken`]; the user is an id here.
pub(super) struct AccessRow {
    pub(super) grant: GrantId,
    pub(super) user: String,
    pub(super) client: String,
    pub(super) issued: Timestamp,
    pub(super) expires: Timestamp,
    pub(super) uses: u64,
    pub(super) state: TokenState,
}

impl Ledger {
    pub(super) fn client(&self, id: &str) -> Option<&OauthClient> {
        self.clients.iter().find(|client| client.id() == id)
    }

    /// Whose access token this is, if it is one and still good.
    pub(in crate::emulator::cloudsync) fn recognise(&mut self, secret: &str, now: Timestamp) -> Recognised {
        let Some(serial) = self.access.iter().position(|token| token.secret == secret) else {
            return Recognised::Unknown;
        };
        if self.state_of(&self.access[serial], now) != TokenState::Valid {
            return Recognised::Dead;
        }
        let token = &mut self.access[serial];
        token.uses += 1;
        let scopes = token.scopes.clone();
        match self.grants.get(token.grant.0) {
            Some(grant) => Recognised::Caller(Caller {
                name: format!("access token {serial}"),
                user: grant.user.clone(),
                scopes,
                environment: Environment::Production,
            }),
            None => Recognised::Dead,
        }
    }

    fn state_of(&self, token: &AccessToken, now: Timestamp) -> TokenState {
        let grant_is_over = self.grants.get(token.grant.0).is_none_or(|grant| grant.revoked);
        if token.revoked || grant_is_over {
            TokenState::Revoked
        } else if token.expires <= now {
            TokenState::Expired
        } else {
            TokenState::Valid
        }
    }

    /// Writes down what a person agreed to; the code goes to the client.
    pub(super) fn issue_code(&mut self, request: AuthorizationRequest, user: &str, now: Timestamp) -> String {
        let secret = fresh_secret("code_");
        self.codes.push(Code {
            secret: secret.clone(),
            request,
            user: user.to_owned(),
            expires: later(now, CODE_LIFETIME),
            use_: CodeUse::Fresh,
            verifier: None,
        });
        secret
    }

    /// `grant_type=authorization_code`.
    pub(super) fn redeem_code(
        &mut self,
        client: &str,
        secret: &str,
        redirect: &str,
        verifier: Option<&str>,
        assumptions: &Assumptions,
        now: Timestamp,
    ) -> Result<Given, OauthError> {
        const WRONG: OauthError = OauthError::invalid_grant("The code is unknown, used or expired");
        let known = self
            .codes
            .iter_mut()
            .find(|code| code.secret == secret && code.request.client == client);
        let code = known.ok_or(WRONG)?;
        match code.use_ {
            CodeUse::Fresh => {}
            CodeUse::Spoilt => return Err(WRONG),
            CodeUse::Exchanged(grant) => {
                self.revoke(grant);
                return Err(WRONG);
            }
        }
        code.use_ = CodeUse::Spoilt;
        code.verifier = verifier.map(str::to_owned);
        if code.expires <= now {
            return Err(WRONG);
        }
        if code.request.redirect != redirect {
            return Err(OauthError::invalid_grant("redirect_uri is not the one of the request"));
        }
        if assumptions.pkce == Pkce::Verified && !proves(verifier, code.request.challenge.as_deref()) {
            return Err(OauthError::invalid_grant(
                "code_verifier does not fit the request's challenge",
            ));
        }
        let (user, scopes) = (code.user.clone(), code.request.scopes.clone());
        let given = self.grant(&user, client, scopes, assumptions.access_lifetime, now);
        if let Some(code) = self.codes.iter_mut().find(|code| code.secret == secret) {
            code.use_ = CodeUse::Exchanged(given.tokens.grant);
        }
        Ok(given)
    }

    /// A new grant with its first tokens.
    pub(super) fn grant(
        &mut self,
        user: &str,
        client: &str,
        scopes: BTreeSet<Scope>,
        lifetime: SignedDuration,
        now: Timestamp,
    ) -> Given {
        let grant = GrantId(self.grants.len());
        let refresh = scopes
            .contains(&Scope::OfflineAccess)
            .then(|| self.issue_refresh(grant));
        self.grants.push(Grant {
            user: user.to_owned(),
            client: client.to_owned(),
            scopes: scopes.clone(),
            revoked: false,
        });
        let access = self.issue_access(grant, scopes.clone(), lifetime, now);
        Given {
            tokens: Tokens { grant, access, refresh },
            scopes,
        }
    }

    /// `grant_type=refresh_token`.
    pub(super) fn refresh(
        &mut self,
        client: &str,
        secret: &str,
        assumptions: &Assumptions,
        now: Timestamp,
    ) -> Result<Given, OauthError> {
        const WRONG: OauthError = OauthError::invalid_grant("The refresh token is unknown, revoked or used");
        let token = self
            .refresh
            .iter()
            .position(|token| token.secret == secret)
            .ok_or(WRONG)?;
        let RefreshToken { grant, replaced, .. } = self.refresh[token];
        let whose = self.grants.get(grant.0).ok_or(WRONG)?;
        if whose.client != client || whose.revoked {
            return Err(WRONG);
        }
        let scopes = whose.scopes.clone();
        if replaced {
            self.revoke(grant);
            return Err(WRONG);
        }
        let refresh = match assumptions.refreshing {
            Refreshing::Keeps => None,
            Refreshing::Repeats => Some(secret.to_owned()),
            Refreshing::Rotates => {
                self.refresh[token].replaced = true;
                Some(self.issue_refresh(grant))
            }
        };
        let access = self.issue_access(grant, scopes.clone(), assumptions.access_lifetime, now);
        Ok(Given {
            tokens: Tokens { grant, access, refresh },
            scopes,
        })
    }

    fn issue_access(
        &mut self,
        grant: GrantId,
        scopes: BTreeSet<Scope>,
        lifetime: SignedDuration,
        now: Timestamp,
    ) -> String {
        let secret = fresh_secret("at_live_");
        self.access.push(AccessToken {
            secret: secret.clone(),
            grant,
            scopes,
            issued: now,
            expires: later(now, lifetime),
            revoked: false,
            uses: 0,
        });
        secret
    }

    fn issue_refresh(&mut self, grant: GrantId) -> String {
        let secret = fresh_secret("rt_live_");
        self.refresh.push(RefreshToken {
            secret: secret.clone(),
            grant,
            replaced: false,
        });
        secret
    }

    /// Ends a grant with all its tokens; whether it was alive.
    pub(super) fn revoke(&mut self, grant: GrantId) -> bool {
        self.grants
            .get_mut(grant.0)
            .is_some_and(|grant| !std::mem::replace(&mut grant.revoked, true))
    }

    /// Takes all other scopes away from a grant's next tokens; whether it was alive.
    pub(super) fn narrow(&mut self, grant: GrantId, only: &[Scope]) -> bool {
        let grant = self.grants.get_mut(grant.0).filter(|grant| !grant.revoked);
        grant.is_some_and(|grant| {
            grant.scopes.retain(|scope| only.contains(scope));
            true
        })
    }

    /// Ends every grant of a user; how many were alive.
    pub(super) fn revoke_all_of(&mut self, user: &str) -> usize {
        let mine = self
            .grants
            .iter_mut()
            .filter(|grant| grant.user == user && !grant.revoked);
        mine.map(|grant| grant.revoked = true).count()
    }

    /// RFC 7009: ends an access token, or the grant of a refresh token. An unknown token is none of anybody's worry.
    pub(super) fn revoke_token(&mut self, client: &str, secret: &str) -> Result<(), OauthError> {
        let access = self.access.iter().position(|token| token.secret == secret);
        let refresh = self.refresh.iter().find(|token| token.secret == secret);
        let Some(grant) = access
            .map(|serial| self.access[serial].grant)
            .or(refresh.map(|token| token.grant))
        else {
            return Ok(());
        };
        if self.grants.get(grant.0).is_some_and(|grant| grant.client != client) {
            return Err(OauthError::unauthorized_client(
                "The token was issued to another client",
            ));
        }
        match access {
            Some(serial) => self.access[serial].revoked = true,
            None => {
                self.revoke(grant);
            }
        }
        Ok(())
    }

    /// Lets the time of every access token be over.
    pub(super) fn expire_access(&mut self, now: Timestamp) {
        for token in &mut self.access {
            token.expires = token.expires.min(now);
        }
    }

    pub(super) fn access_rows(&self, now: Timestamp) -> Vec<AccessRow> {
        let row = |token: &AccessToken| {
            let grant = self.grants.get(token.grant.0)?;
            Some(AccessRow {
                grant: token.grant,
                user: grant.user.clone(),
                client: grant.client.clone(),
                issued: token.issued,
                expires: token.expires,
                uses: token.uses,
                state: self.state_of(token, now),
            })
        };
        self.access.iter().filter_map(row).collect()
    }

    /// Every secret that was given out, and what clients proved themselves with.
    pub(super) fn secrets(&self) -> Vec<String> {
        let codes = self.codes.iter().flat_map(|code| {
            let state = code.request.state.clone();
            [Some(code.secret.clone()), code.verifier.clone(), state]
        });
        let access = self.access.iter().map(|token| Some(token.secret.clone()));
        let refresh = self.refresh.iter().map(|token| Some(token.secret.clone()));
        let devices = self.devices.iter().map(|device| Some(device.secret().to_owned()));
        codes.chain(access).chain(refresh).chain(devices).flatten().collect()
    }

    pub(super) fn count(&mut self, kind: GrantKind, granted: bool) {
        let counts = self.exchanges.entry(kind).or_default();
        if granted {
            counts.granted += 1;
        } else {
            counts.refused += 1;
        }
    }

    pub(super) fn exchanges(&self, kind: GrantKind) -> Exchanges {
        self.exchanges.get(&kind).copied().unwrap_or_default()
    }

    /// Keeps a request until a person has decided; tells the id for the page.
    pub(super) fn ask(&mut self, request: AuthorizationRequest) -> String {
        let id = fresh_id("request");
        self.asked.insert(id.clone(), request);
        id
    }
}

/// RFC 7636, 4.6, and RFC 9700, 2.1.1: a verifier without a challenge is refused like the reverse.
fn proves(verifier: Option<&str>, challenge: Option<&str>) -> bool {
    match (verifier, challenge) {
        (None, None) => true,
        (Some(verifier), Some(challenge)) => {
            let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
            (43..=128).contains(&verifier.len())
                && verifier.bytes().all(unreserved)
                && URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes())) == challenge
        }
        _ => false,
    }
}
