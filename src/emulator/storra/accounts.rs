//! Accounts, their API keys and their dashboard sessions (authentication).
//!
//! Responsible for who a credential stands for and for what its account is. Credentials are kept as SHA-256, as the
//! documentation says of keys, so none can be printed. Not responsible for HTTP.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::assumptions::{Assumptions, SESSION_COOKIES};
use super::clock::Clock;
use super::rates::{Bucket, Limits, Windows};
use super::tree::{TrashUse, Tree};

/// Characters of a key that identify it (authentication: "the first 11 characters").
const PREFIX_LENGTH: usize = 11;

/// What an account pays for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// No access by API.
    Free,
    /// Cloud Pro.
    Pro,
}

/// What the owner wants uploads to be (user-management); a note for other clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadPreference {
    /// `always_private`.
    AlwaysPrivate,
    /// `always_public`.
    AlwaysPublic,
    /// `ask_every_time`.
    AskEveryTime,
}

/// What can be known of an API key once it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its UUID.
    pub id: Uuid,
    /// Its first 11 characters.
    pub prefix: String,
    /// The name its owner gave it.
    pub label: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last good for a request of the client API.
    pub last_used: Option<Timestamp>,
}

#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) info: KeyInfo,
    digest: [u8; 32],
    pub(super) windows: Windows,
}

#[derive(Debug, Clone)]
pub(super) struct AccountState {
    pub(super) id: Uuid,
    pub(super) email: String,
    pub(super) plan: Plan,
    pub(super) preference: UploadPreference,
    pub(super) trash_use: TrashUse,
    pub(super) created: Timestamp,
    pub(super) updated: Timestamp,
    pub(super) keys: Vec<Key>,
    sessions: Vec<[u8; 32]>,
    /// Requests counted since the account was made, whatever window they were in.
    pub(super) totals: BTreeMap<Bucket, u64>,
    pub(super) tree: Tree,
}

impl AccountState {
    fn new(email: String, assumptions: Assumptions, now: Timestamp) -> Self {
        Self {
            id: Uuid::new_v4(),
            email,
            plan: Plan::Pro,
            preference: UploadPreference::AskEveryTime,
            trash_use: TrashUse::On,
            created: now,
            updated: now,
            keys: Vec::new(),
            sessions: Vec::new(),
            totals: BTreeMap::new(),
            tree: Tree::new(assumptions),
        }
    }

    /// The part of the address before the `@`.
    pub(super) fn username(&self) -> &str {
        self.email.split('@').next().unwrap_or_default()
    }

    /// Makes a key and gives what is shown only once, with what is known of it.
    pub(super) fn create_key(&mut self, label: String, now: Timestamp) -> (String, KeyInfo) {
        let secret = loop {
            let secret = format!("sk_{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
            if self.keys.iter().all(|key| key.info.prefix != prefix_of(&secret)) {
                break secret;
            }
        };
        let info = self.add_key(label, &secret, now);
        (secret, info)
    }

    /// Adds a key with this secret, in place of one with the same prefix.
    pub(super) fn add_key(&mut self, label: String, secret: &str, now: Timestamp) -> KeyInfo {
        self.revoke_key(prefix_of(secret));
        let info = KeyInfo {
            id: Uuid::new_v4(),
            prefix: prefix_of(secret).to_owned(),
            label,
            created: now,
            last_used: None,
        };
        self.keys.push(Key {
            info: info.clone(),
            digest: digest(secret),
            windows: Windows::default(),
        });
        info
    }

    /// Makes the key of this prefix unknown; whether there was one.
    pub(super) fn revoke_key(&mut self, prefix: &str) -> bool {
        let before = self.keys.len();
        self.keys.retain(|key| key.info.prefix != prefix);
        self.keys.len() < before
    }

    /// Opens a dashboard session and gives its cookies, in the form of a `Cookie` header's value.
    pub(super) fn open_session(&mut self) -> String {
        let [id, signature] = [Uuid::new_v4(), Uuid::new_v4()].map(|part| part.simple().to_string());
        self.sessions.push(session_digest(&id, &signature));
        let [first, second] = SESSION_COOKIES;
        format!("{first}={id}; {second}={signature}")
    }

    /// Ends the session with these cookies; whether there was one.
    pub(super) fn end_session(&mut self, cookies: &str) -> bool {
        let Some(ended) = session_of(cookies) else {
            return false;
        };
        let before = self.sessions.len();
        self.sessions.retain(|session| *session != ended);
        self.sessions.len() < before
    }
}

/// Everything behind one server.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) assumptions: Assumptions,
    pub(super) clock: Clock,
    pub(super) limits: Limits,
    accounts: BTreeMap<Uuid, AccountState>,
}

impl World {
    pub(super) fn new(assumptions: Assumptions) -> Self {
        Self {
            assumptions,
            clock: Clock::new(),
            limits: Limits::default(),
            accounts: BTreeMap::new(),
        }
    }

    pub(super) fn add_account(&mut self, email: String) -> Uuid {
        let account = AccountState::new(email, self.assumptions, self.clock.tick());
        let id = account.id;
        self.accounts.insert(id, account);
        id
    }

    pub(super) fn account(&mut self, id: Uuid) -> Option<&mut AccountState> {
        self.accounts.get_mut(&id)
    }

    pub(super) fn accounts(&self) -> impl Iterator<Item = &AccountState> {
        self.accounts.values()
    }

    /// Whose key this is, and its prefix.
    pub(super) fn owner_of_key(&self, secret: &str) -> Option<(Uuid, String)> {
        let wanted = digest(secret);
        self.accounts.values().find_map(|account| {
            let key = account.keys.iter().find(|key| key.digest == wanted)?;
            Some((account.id, key.info.prefix.clone()))
        })
    }

    /// Whose session these cookies are.
    pub(super) fn owner_of_session(&self, cookies: &str) -> Option<Uuid> {
        let wanted = session_of(cookies)?;
        let mut accounts = self.accounts.values();
        accounts
            .find(|account| account.sessions.contains(&wanted))
            .map(|account| account.id)
    }
}

/// What identifies a key, given the key or that.
pub(super) fn prefix_of(key: &str) -> &str {
    key.get(..PREFIX_LENGTH).unwrap_or(key)
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

fn session_digest(id: &str, signature: &str) -> [u8; 32] {
    digest(&format!("{id}.{signature}"))
}

/// The session that a `Cookie` header's value stands for, whatever other cookies are there.
fn session_of(cookies: &str) -> Option<[u8; 32]> {
    let [id, signature] = SESSION_COOKIES.map(|name| {
        let mut pairs = cookies.split(';').filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    });
    Some(session_digest(id?, signature?))
}
