//! One's own profile and API keys ("Users API").
//!
//! Responsible for `/v1/me` and `/v1/me/api-keys`.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Outcome, Visit, data};
use crate::emulator::cloudsync::access::{Scope, StoredKey};
use crate::emulator::cloudsync::assumptions::KeyManagement;
use crate::emulator::cloudsync::failure::Failure;

/// "Create API Key".
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct NewKey {
    name: String,
    permissions: BTreeSet<Scope>,
    expires_at: Option<String>,
}

impl Visit<'_> {
    /// "Get Current User". `-1` means unlimited.
    pub(super) fn profile(self) -> Outcome {
        self.call.query(&[])?;
        let user = self.state.user(&self.caller.user);
        let user = user.ok_or_else(|| Failure::not_found("User"))?;
        let (storage, workspaces) = self.state.owned(&user.id);
        let limits = user.plan.limits();
        let or_unlimited = |limit: Option<u64>| limit.map_or_else(|| json!(-1), |limit| json!(limit));
        let profile = json!({
            "id": user.id,
            "email": user.email,
            "name": user.name,
            "avatar": null,
            "plan": user.plan.name(),
            "createdAt": self.time(user.created),
            "settings": {},
            "usage": {
                "storage": storage,
                "storageLimit": or_unlimited(limits.storage),
                "workspaces": workspaces,
                "workspacesLimit": or_unlimited(limits.workspaces),
            },
        });
        Ok(data(StatusCode::OK, profile))
    }

    /// "List API Keys".
    pub(super) fn list_keys(self) -> Outcome {
        self.call.query(&[])?;
        if self.assumptions.key_management == KeyManagement::Forbidden {
            return Err(Failure::denied("API keys are managed in the dashboard"));
        }
        let mine = self.state.keys.iter().filter(|key| key.user == self.caller.user);
        let keys: Vec<Value> = mine
            .map(|key| {
                json!({
                    "id": key.id,
                    "name": key.name,
                    "prefix": key.prefix(),
                    "permissions": key.permissions,
                    "lastUsed": key.last_used.map(|time| self.time(time)),
                    "createdAt": self.time(key.created),
                })
            })
            .collect();
        Ok(data(StatusCode::OK, json!(keys)))
    }

    /// "Create API Key"; the new key is for the same environment as the caller.
    pub(super) fn create_key(self) -> Outcome {
        self.check_may_manage_keys()?;
        let new: NewKey = self.call.json()?;
        if new.name.trim().is_empty() {
            return Err(Failure::invalid("The key needs a name"));
        }
        if new.permissions.is_empty() || !new.permissions.iter().all(|scope| scope.is_for_keys()) {
            return Err(Failure::invalid("The key needs permissions that keys can have"));
        }
        for scope in &new.permissions {
            self.require(*scope)?;
        }
        let expires: Option<Timestamp> = match new.expires_at.map(|end| end.parse()) {
            None => None,
            Some(Ok(end)) if end > self.now => Some(end),
            Some(_) => return Err(Failure::invalid("expiresAt is not a time to come")),
        };
        let place = self.caller.environment;
        let mut key = StoredKey::new(&self.caller.user, &new.name, new.permissions, place, self.now);
        key.expires = expires;
        let answer = json!({
            "id": key.id,
            "name": key.name,
            "key": key.secret,
            "permissions": key.permissions,
            "createdAt": self.time(key.created),
        });
        self.state.keys.push(key);
        Ok(data(StatusCode::CREATED, answer))
    }

    /// "Revoke API Key".
    pub(super) fn delete_key(self, id: &str) -> Outcome {
        self.check_may_manage_keys()?;
        self.call.query(&[])?;
        let before = self.state.keys.len();
        let user = &self.caller.user;
        self.state.keys.retain(|key| key.id != id || key.user != *user);
        if self.state.keys.len() == before {
            return Err(Failure::not_found("API key"));
        }
        Ok(self.deleted(id))
    }

    fn check_may_manage_keys(&self) -> Result<(), Failure> {
        match self.assumptions.key_management {
            KeyManagement::AnyCredential => Ok(()),
            KeyManagement::ListOnly | KeyManagement::Forbidden => {
                Err(Failure::denied("API keys are managed in the dashboard"))
            }
        }
    }
}
