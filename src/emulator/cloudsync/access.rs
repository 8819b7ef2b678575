//! Who may do what: scopes, roles, API keys.
//!
//! Responsible for the words of the documentation ("Key Permissions", "Scopes", "Workspace Members") and for what a
//! recognised caller carries. Not responsible for access tokens: see [`super::oauth`].

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::failure::Failure;

/// A permission of a key, or a scope of an access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scope {
    /// Read file contents.
    #[serde(rename = "files:read")]
    FilesRead,
    /// Create and modify files.
    #[serde(rename = "files:write")]
    FilesWrite,
    /// List and view workspaces.
    #[serde(rename = "workspaces:read")]
    WorkspacesRead,
    /// Create and manage workspaces.
    #[serde(rename = "workspaces:write")]
    WorkspacesWrite,
    /// View workspace members; keys only.
    #[serde(rename = "users:read")]
    UsersRead,
    /// Manage workspace members; keys only.
    #[serde(rename = "users:write")]
    UsersWrite,
    /// Get refresh tokens; OAuth only.
    #[serde(rename = "offline_access")]
    OfflineAccess,
}

impl Scope {
    /// Every scope there is, in the documentation's order.
    pub const ALL: [Self; 7] = [
        Self::FilesRead,
        Self::FilesWrite,
        Self::WorkspacesRead,
        Self::WorkspacesWrite,
        Self::UsersRead,
        Self::UsersWrite,
        Self::OfflineAccess,
    ];

    /// What an API key can have.
    pub fn of_keys() -> Vec<Self> {
        Self::ALL.into_iter().filter(|scope| scope.is_for_keys()).collect()
    }

    /// What an access token can have.
    pub fn of_oauth() -> Vec<Self> {
        Self::ALL.into_iter().filter(|scope| scope.is_for_oauth()).collect()
    }

    pub(super) fn is_for_keys(self) -> bool {
        self != Self::OfflineAccess
    }

    pub(super) fn is_for_oauth(self) -> bool {
        !matches!(self, Self::UsersRead | Self::UsersWrite)
    }

    /// As it is written on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FilesRead => "files:read",
            Self::FilesWrite => "files:write",
            Self::WorkspacesRead => "workspaces:read",
            Self::WorkspacesWrite => "workspaces:write",
            Self::UsersRead => "users:read",
            Self::UsersWrite => "users:write",
            Self::OfflineAccess => "offline_access",
        }
    }

    /// What the page where a person decides says of it ("Scopes").
    pub(super) fn about(self) -> &'static str {
        match self {
            Self::FilesRead => "Read file contents",
            Self::FilesWrite => "Create and modify files",
            Self::WorkspacesRead => "List and view workspaces",
            Self::WorkspacesWrite => "Create and manage workspaces",
            Self::UsersRead => "View workspace members",
            Self::UsersWrite => "Manage workspace members",
            Self::OfflineAccess => "Keep this access until you take it back",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Not one of the documented scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownScope;

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.as_str() == text)
            .ok_or(UnknownScope)
    }
}

/// What somebody is in a workspace; each role may do what the former ones may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Views.
    Viewer,
    /// Edits and deletes.
    Editor,
    /// Manages members too.
    Admin,
    /// Everything.
    Owner,
}

impl Role {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }
}

/// Where a key is for ("Key Types").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// `sk_live_`.
    Production,
    /// `sk_test_`.
    Sandbox,
}

impl Environment {
    fn prefix(self) -> &'static str {
        match self {
            Self::Production => "sk_live_",
            Self::Sandbox => "sk_test_",
        }
    }
}

/// A key that was made: the only time its secret is shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub(super) id: String,
    pub(super) secret: String,
}

impl ApiKey {
    /// Its id, `key_…`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What goes into `Authorization: Bearer …`.
    pub fn secret(&self) -> &str {
        &self.secret
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A key as the service keeps it.
#[derive(Clone)]
pub(super) struct StoredKey {
    pub(super) id: String,
    pub(super) user: String,
    pub(super) name: String,
    pub(super) secret: String,
    pub(super) permissions: BTreeSet<Scope>,
    pub(super) environment: Environment,
    pub(super) created: Timestamp,
    pub(super) last_used: Option<Timestamp>,
    pub(super) expires: Option<Timestamp>,
}

impl StoredKey {
    pub(super) fn new(
        user: &str,
        name: &str,
        permissions: BTreeSet<Scope>,
        place: Environment,
        now: Timestamp,
    ) -> Self {
        Self {
            id: fresh_id("key"),
            user: user.to_owned(),
            name: name.to_owned(),
            secret: fresh_secret(place.prefix()),
            permissions,
            environment: place,
            created: now,
            last_used: None,
            expires: None,
        }
    }

    /// The part of the secret that lists show: 12 characters ("List API Keys").
    pub(super) fn prefix(&self) -> &str {
        self.secret.get(..12).unwrap_or_default()
    }

    pub(super) fn shown_once(&self) -> ApiKey {
        ApiKey {
            id: self.id.clone(),
            secret: self.secret.clone(),
        }
    }
}

impl fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredKey")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Somebody whose credential was recognised.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The credential's own name, for the log of requests.
    pub(super) name: String,
    /// The user's id.
    pub(super) user: String,
    pub(super) scopes: BTreeSet<Scope>,
    pub(super) environment: Environment,
}

impl Caller {
    pub(super) fn require(&self, scope: Scope) -> Result<(), Failure> {
        if self.scopes.contains(&scope) {
            Ok(())
        } else {
            Err(Failure::lacks_scope(scope))
        }
    }
}

/// An id like `file_0123456789abcdef`.
pub(super) fn fresh_id(kind: &str) -> String {
    let random = Uuid::new_v4().simple().to_string();
    format!("{kind}_{}", random.get(..16).unwrap_or(&random))
}

/// A secret with its documented prefix and 122 random bits.
pub(super) fn fresh_secret(prefix: &str) -> String {
    format!("{prefix}{}", Uuid::new_v4().simple())
}
