//! What the service knows: users, keys, workspaces, grants.
//!
//! Responsible for finding things and for who has a part in them. Not responsible for HTTP.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::access::{Caller, Environment, Role, Scope, StoredKey, fresh_id};
use super::assumptions::{KEPT_VERSIONS, LONGEST_SLUG, Sandbox};
use super::failure::Failure;
use super::oauth::ledger::Ledger;
use super::plan::{Plan, Rates};
use super::tree::Tree;

/// Everything, behind one lock. It holds secrets, so it has no `Debug`.
#[derive(Clone, Default)]
pub(super) struct State {
    pub(super) users: Vec<User>,
    pub(super) keys: Vec<StoredKey>,
    pub(super) workspaces: Vec<StoredWorkspace>,
    pub(super) rates: Rates,
    pub(super) oauth: Ledger,
}

#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) id: String,
    pub(super) email: String,
    pub(super) name: String,
    pub(super) plan: Plan,
    pub(super) created: Timestamp,
}

#[derive(Debug, Clone)]
pub(super) struct StoredWorkspace {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) slug: String,
    pub(super) description: Option<String>,
    pub(super) environment: Environment,
    pub(super) created: Timestamp,
    pub(super) settings: Settings,
    /// By user id.
    pub(super) members: BTreeMap<String, Member>,
    pub(super) tree: Tree,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub(super) role: Role,
    pub(super) joined: Timestamp,
}

/// "Settings Object": as far as they were set, which is what answers show of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Settings {
    #[serde(skip_serializing_if = "Option::is_none")]
    sync_mode: Option<SyncMode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_history: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_versions: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conflict_resolution: Option<ConflictResolution>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_allowlist: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    require_mfa: Option<bool>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SyncMode {
    Realtime,
    Scheduled,
    Manual,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ConflictResolution {
    Ask,
    AutoMerge,
    LatestWins,
}

impl Settings {
    pub(super) fn update(&mut self, with: Self) {
        fn put<T>(slot: &mut Option<T>, value: Option<T>) {
            if value.is_some() {
                *slot = value;
            }
        }
        put(&mut self.sync_mode, with.sync_mode);
        put(&mut self.version_history, with.version_history);
        put(&mut self.max_versions, with.max_versions);
        put(&mut self.conflict_resolution, with.conflict_resolution);
        put(&mut self.ip_allowlist, with.ip_allowlist);
        put(&mut self.require_mfa, with.require_mfa);
    }

    /// How many former versions of a file stay.
    pub(super) fn kept_versions(&self) -> u64 {
        match self.version_history {
            Some(false) => 0,
            // `maxVersions` counts the current one too.
            Some(true) | None => self.max_versions.map_or(KEPT_VERSIONS, |most| most.saturating_sub(1)),
        }
    }
}

impl User {
    pub(super) fn new(email: &str, name: &str, plan: Plan, now: Timestamp) -> Self {
        Self {
            id: fresh_id("user"),
            email: email.to_owned(),
            name: name.to_owned(),
            plan,
            created: now,
        }
    }
}

impl StoredWorkspace {
    pub(super) fn new(owner: &str, name: &str, slug: String, environment: Environment, now: Timestamp) -> Self {
        let member = Member {
            role: Role::Owner,
            joined: now,
        };
        Self {
            id: fresh_id("ws"),
            name: name.to_owned(),
            slug,
            description: None,
            environment,
            created: now,
            settings: Settings::default(),
            members: BTreeMap::from([(owner.to_owned(), member)]),
            tree: Tree::new(now),
        }
    }

    pub(super) fn is_called(&self, id_or_slug: &str) -> bool {
        self.id == id_or_slug || self.slug == id_or_slug
    }

    pub(super) fn owner(&self) -> Option<&str> {
        self.members
            .iter()
            .find(|(_, member)| member.role == Role::Owner)
            .map(|(user, _)| user.as_str())
    }

    pub(super) fn role_of(&self, user: &str) -> Option<Role> {
        self.members.get(user).map(|member| member.role)
    }

    /// The caller's role, if the caller has any part in this workspace.
    pub(super) fn role_for(&self, caller: &Caller, sandbox: Sandbox) -> Option<Role> {
        let visible = sandbox == Sandbox::Shared || self.environment == caller.environment;
        self.role_of(&caller.user).filter(|_| visible)
    }
}

/// What became of a credential.
#[derive(Debug)]
pub(super) enum Recognised {
    Caller(Caller),
    /// Known, and over.
    Dead,
    Unknown,
}

impl State {
    pub(super) fn user(&self, id: &str) -> Option<&User> {
        self.users.iter().find(|user| user.id == id)
    }

    /// By e-mail address, in any case.
    pub(super) fn user_by_email(&self, email: &str) -> Option<&User> {
        self.users.iter().find(|user| user.email.eq_ignore_ascii_case(email))
    }

    pub(super) fn email(&self, user: &str) -> String {
        self.user(user).map(|user| user.email.clone()).unwrap_or_default()
    }

    /// Finds out whose credential this is, and notes its use.
    pub(super) fn recognise(&mut self, secret: &str, now: Timestamp) -> Recognised {
        if let Some(key) = self.keys.iter_mut().find(|key| key.secret == secret) {
            if key.expires.is_some_and(|expires| expires <= now) {
                return Recognised::Dead;
            }
            key.last_used = Some(now);
            return Recognised::Caller(Caller {
                name: key.name.clone(),
                user: key.user.clone(),
                scopes: key.permissions.clone(),
                environment: key.environment,
            });
        }
        self.oauth.recognise(secret, now)
    }

    /// The caller that a token of another authorization server stands for.
    pub(super) fn foreign_caller(&self, email: &str, scopes: &[Scope]) -> Option<Caller> {
        let user = self.user_by_email(email)?;
        Some(Caller {
            name: format!("foreign token of {}", user.email),
            user: user.id.clone(),
            scopes: scopes.iter().copied().collect(),
            environment: Environment::Production,
        })
    }

    pub(super) fn workspace(&self, id_or_slug: &str) -> Option<&StoredWorkspace> {
        self.workspaces.iter().find(|workspace| workspace.is_called(id_or_slug))
    }

    pub(super) fn workspace_mut(&mut self, id_or_slug: &str) -> Option<&mut StoredWorkspace> {
        self.workspaces
            .iter_mut()
            .find(|workspace| workspace.is_called(id_or_slug))
    }

    /// Bytes stored in, and number of, the workspaces that somebody owns.
    pub(super) fn owned(&self, user: &str) -> (u64, u64) {
        let mine = self
            .workspaces
            .iter()
            .filter(|workspace| workspace.owner() == Some(user));
        mine.fold((0, 0), |(bytes, count), workspace| {
            (bytes + workspace.tree.usage().1, count + 1)
        })
    }

    /// Refuses when `grown` more bytes don't fit the plan of the workspace's owner.
    pub(super) fn check_room(&self, owner: Option<&str>, grown: u64) -> Result<(), Failure> {
        let Some(owner) = owner.and_then(|owner| self.user(owner)) else {
            return Ok(());
        };
        match owner.plan.limits().storage {
            Some(limit) if grown > 0 && self.owned(&owner.id).0.saturating_add(grown) > limit => {
                Err(Failure::quota("storage"))
            }
            _ => Ok(()),
        }
    }

    /// A slug made from a name, with a number behind it if it is taken.
    pub(super) fn free_slug(&self, name: &str) -> String {
        let words: Vec<String> = name
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_ascii_lowercase)
            .collect();
        let mut slug = words.join("-");
        slug.truncate(LONGEST_SLUG - 8);
        if slug.is_empty() {
            "workspace".clone_into(&mut slug);
        }
        let numbered = (2..).map(|number: u64| format!("{slug}-{number}"));
        std::iter::once(slug.clone())
            .chain(numbered)
            .find(|slug| self.workspace(slug).is_none())
            .unwrap_or(slug)
    }
}

pub(super) fn is_slug(slug: &str) -> bool {
    (1..=LONGEST_SLUG).contains(&slug.len())
        && slug
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}
