//! Accounts: who they are and what they keep where.
//!
//! Responsible for API keys, passwords, the tokens they are exchanged for, and each account's index of files. Not
//! responsible for content, nor for how a request carries a credential.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::assumptions::{self, MissingDirectory, Revocation, SameName};
use super::jwt::{Claims, SigningKey, Unverified};

/// Which of an account's credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Means {
    /// The e-mail address and the password.
    Login,
    /// The API key of this name.
    Key(String),
}

impl fmt::Display for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Login => f.write_str("login"),
            Self::Key(name) => f.write_str(name),
        }
    }
}

/// One file or hashed folder of an account, as the provider's console shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// From the root on, with its name; a hashed folder's ends with a slash.
    pub path: String,
    /// The content's.
    pub hash: String,
    /// Bytes; of a folder, of all files in it.
    pub size: u64,
    /// When it was stored, by the server's clock.
    pub created: Timestamp,
    /// What `x-dstor-comment` said.
    pub comment: Option<String>,
}

impl StoredFile {
    /// The last name of the path.
    pub fn name(&self) -> &str {
        let path = self.path.strip_suffix('/').unwrap_or(&self.path);
        path.rsplit_once('/').map_or(path, |(_, name)| name)
    }

    /// The path with another last name.
    pub(super) fn renamed(&self, name: &str) -> String {
        let (path, end) = match self.path.strip_suffix('/') {
            Some(path) => (path, "/"),
            None => (self.path.as_str(), ""),
        };
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{directory}/{name}{end}")
    }
}

/// Why a token isn't accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadToken {
    /// No token of this server.
    Unknown,
    /// It was one.
    Expired,
}

/// Who holds a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) account: Uuid,
    /// What it was exchanged for.
    pub(super) means: Means,
}

#[derive(Debug, Clone)]
pub(super) struct Accounts {
    issuer: &'static str,
    all: Vec<Owner>,
}

#[derive(Debug, Clone)]
pub(super) struct Owner {
    id: Uuid,
    email: String,
    credentials: Vec<Credential>,
    directories: BTreeSet<String>,
    pub(super) files: Vec<StoredFile>,
}

/// Something that can be exchanged for tokens. Each signs with a secret of its own, which is how a token is traced back
/// to it: its claims don't name it.
#[derive(Clone)]
struct Credential {
    means: Means,
    secret: SecretString,
    standing: Standing,
    signing: SigningKey,
    /// What signed the tokens that were ended before their time.
    ended: Vec<SigningKey>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("means", &self.means)
            .field("standing", &self.standing)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Good,
    Revoked,
}

impl Credential {
    fn new(means: Means, secret: SecretString) -> Self {
        Self {
            means,
            secret,
            standing: Standing::Good,
            signing: SigningKey::random(),
            ended: Vec::new(),
        }
    }

    fn is(&self, secret: &str) -> bool {
        self.standing == Standing::Good && self.secret.expose_secret() == secret
    }
}

/// Seconds since 1970 between which a token is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) from: i64,
    pub(super) until: i64,
}

impl Accounts {
    pub(super) fn new(issuer: &'static str) -> Self {
        Self {
            issuer,
            all: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, email: String, password: SecretString) -> Uuid {
        let id = Uuid::new_v4();
        self.all.push(Owner {
            id,
            email,
            credentials: vec![Credential::new(Means::Login, password)],
            directories: BTreeSet::from([assumptions::FIRST_DIRECTORY.to_owned()]),
            files: Vec::new(),
        });
        id
    }

    pub(super) fn owner(&mut self, id: Uuid) -> Option<&mut Owner> {
        self.all.iter_mut().find(|owner| owner.id == id)
    }

    /// A token for an API key.
    pub(super) fn exchange_key(&self, key: &str, life: Life) -> Option<(String, Holder)> {
        let fits = |credential: &&Credential| credential.means != Means::Login && credential.is(key);
        self.all.iter().find_map(|owner| {
            let credential = owner.credentials.iter().find(fits)?;
            Some(self.issue(owner, credential, life))
        })
    }

    /// A token for an e-mail address and a password.
    pub(super) fn exchange_login(&self, email: &str, password: &str, life: Life) -> Option<(String, Holder)> {
        let owner = self.all.iter().find(|owner| owner.email == email)?;
        let fits = |credential: &&Credential| credential.means == Means::Login && credential.is(password);
        let credential = owner.credentials.iter().find(fits)?;
        Some(self.issue(owner, credential, life))
    }

    fn issue(&self, owner: &Owner, credential: &Credential, life: Life) -> (String, Holder) {
        let claims = Claims::new(owner.id, self.issuer, life.from, life.until);
        let holder = Holder {
            account: owner.id,
            means: credential.means.clone(),
        };
        (credential.signing.token(&claims), holder)
    }

    /// Whose token this is, if it is good at `now`, in unix seconds.
    pub(super) fn holder(&self, token: &str, now: i64, revocation: Revocation) -> Result<Holder, BadToken> {
        let token = Unverified::read(token).ok_or(BadToken::Unknown)?;
        let owner = self
            .all
            .iter()
            .find(|owner| owner.id == token.claims.sub)
            .ok_or(BadToken::Unknown)?;
        let signed = |key: &SigningKey| token.is_signed_with(key);
        let credential = owner
            .credentials
            .iter()
            .find(|credential| signed(&credential.signing) || credential.ended.iter().any(signed))
            .ok_or(BadToken::Unknown)?;
        let is_ended = !signed(&credential.signing) || now >= token.claims.exp;
        match (credential.standing, revocation) {
            (Standing::Revoked, Revocation::EndsTokens) => Err(BadToken::Unknown),
            _ if is_ended => Err(BadToken::Expired),
            _ => Ok(Holder {
                account: owner.id,
                means: credential.means.clone(),
            }),
        }
    }
}

impl Owner {
    /// Sets a credential; one there was before is revoked.
    pub(super) fn set(&mut self, means: Means, secret: SecretString) {
        self.revoke(&means);
        self.credentials.push(Credential::new(means, secret));
    }

    /// Revokes a credential; whether there was one that was good.
    pub(super) fn revoke(&mut self, means: &Means) -> bool {
        let is_meant =
            |credential: &&mut Credential| credential.means == *means && credential.standing == Standing::Good;
        match self.credentials.iter_mut().find(is_meant) {
            Some(credential) => {
                credential.standing = Standing::Revoked;
                true
            }
            None => false,
        }
    }

    /// Ends every token issued so far, as if its time were over.
    pub(super) fn end_tokens(&mut self) {
        for credential in &mut self.credentials {
            let former = std::mem::replace(&mut credential.signing, SigningKey::random());
            credential.ended.push(former);
        }
    }

    /// Makes sure of a directory (names joined by `/`; the root is empty); whether it is there now.
    pub(super) fn enter(&mut self, directory: &str, missing: MissingDirectory) -> bool {
        if directory.is_empty() || self.directories.contains(directory) {
            return true;
        }
        if missing == MissingDirectory::Create {
            let ends = directory.match_indices('/').map(|(at, _)| at);
            let ends = ends.chain([directory.len()]);
            self.directories.extend(ends.map(|end| directory[..end].to_owned()));
        }
        missing == MissingDirectory::Create
    }

    pub(super) fn directories(&self) -> Vec<String> {
        self.directories.iter().cloned().collect()
    }

    /// Puts a file into the index.
    pub(super) fn keep(&mut self, file: StoredFile, same_name: SameName) {
        if same_name == SameName::Replace {
            let path = file.path.trim_end_matches('/').to_owned();
            self.files.retain(|kept| kept.path.trim_end_matches('/') != path);
        }
        self.files.push(file);
    }
}
