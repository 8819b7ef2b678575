//! What the credential may do: its scopes or permissions, the account's role in each workspace, and what was refused.
//!
//! An effective right is what both sides grant. Nothing here asks the service.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use crate::model::{Action, Rights};

/// The words of scopes and permissions (documentation, "Key Permissions" and "Scopes"). Deleting is named by none;
/// that it is a part of `files:write` is assumed.
pub(super) const FILES_READ: &str = "files:read";
pub(super) const FILES_WRITE: &str = "files:write";
pub(super) const WORKSPACES_READ: &str = "workspaces:read";
pub(super) const WORKSPACES_WRITE: &str = "workspaces:write";

/// What the credential itself is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Grants {
    /// Everything is tried, and refusals say the rest.
    #[default]
    Untold,
    Told(BTreeSet<String>),
}

impl Grants {
    fn allow(&self, word: &str) -> bool {
        match self {
            Self::Untold => true,
            Self::Told(words) => words.contains(word),
        }
    }
}

/// An account's part in a workspace (documentation, "Roles").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Viewer,
    /// Views, edits and deletes; admins and owners do so too.
    Editor,
}

impl Role {
    /// A role that isn't documented is tried, and refusals say the rest.
    fn of(word: &str) -> Self {
        match word {
            "viewer" => Self::Viewer,
            _ => Self::Editor,
        }
    }
}

#[derive(Default)]
struct Known {
    grants: Grants,
    roles: BTreeMap<String, Role>,
    /// What was refused since the last probe, by workspace.
    refused: BTreeMap<String, BTreeSet<Refused>>,
    /// Whether the list of workspaces was refused, and the making of one.
    account_refused: BTreeSet<Refused>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Refused {
    Read,
    Write,
    Delete,
}

impl From<Action> for Refused {
    fn from(action: Action) -> Self {
        match action {
            Action::Read => Self::Read,
            Action::Write => Self::Write,
            Action::Delete => Self::Delete,
        }
    }
}

fn without(rights: Rights, refused: &BTreeSet<Refused>) -> Rights {
    refused.iter().fold(rights, |rights, refused| {
        rights.without(match refused {
            Refused::Read => Action::Read,
            Refused::Write => Action::Write,
            Refused::Delete => Action::Delete,
        })
    })
}

/// The knowledge of rights as of the last probe, lowered by refusals.
pub(super) struct Access {
    /// What holds instead of scopes and roles.
    given: Option<Rights>,
    known: Mutex<Known>,
}

impl Access {
    pub(super) fn new(given: Option<Rights>) -> Self {
        Self {
            given,
            known: Mutex::default(),
        }
    }

    /// Begins anew with these grants.
    pub(super) fn learn(&self, grants: Grants) {
        *self.known.lock() = Known {
            grants,
            ..Known::default()
        };
    }

    /// `None` where the service doesn't tell it.
    pub(super) fn learn_role(&self, workspace: &str, role: Option<&str>) {
        if let Some(role) = role {
            self.known.lock().roles.insert(workspace.to_owned(), Role::of(role));
        }
    }

    /// The rights on a workspace and on all in it.
    pub(super) fn on_workspace(&self, workspace: &str) -> Rights {
        let known = self.known.lock();
        let granted = self.given.unwrap_or_else(|| {
            let write = known.grants.allow(FILES_WRITE);
            let by_credential = Rights {
                read: known.grants.allow(FILES_READ),
                write,
                delete: write,
            };
            match known.roles.get(workspace) {
                Some(Role::Viewer) => by_credential.and(Rights::READ),
                Some(Role::Editor) | None => by_credential,
            }
        });
        match known.refused.get(workspace) {
            Some(refused) => without(granted, refused),
            None => granted,
        }
    }

    /// The rights on the directory of all workspaces.
    pub(super) fn on_account(&self) -> Rights {
        let known = self.known.lock();
        let granted = self.given.unwrap_or_else(|| {
            let write = known.grants.allow(WORKSPACES_WRITE);
            Rights {
                read: known.grants.allow(WORKSPACES_READ),
                write,
                delete: write,
            }
        });
        without(granted, &known.account_refused)
    }

    /// Whether the credential is known not to list workspaces.
    pub(super) fn lists_no_workspaces(&self) -> bool {
        let known = self.known.lock();
        !known.grants.allow(WORKSPACES_READ) || known.account_refused.contains(&Refused::Read)
    }

    pub(super) fn refused(&self, workspace: &str, action: Action) {
        let mut known = self.known.lock();
        known
            .refused
            .entry(workspace.to_owned())
            .or_default()
            .insert(action.into());
    }

    pub(super) fn account_refused(&self, action: Action) {
        self.known.lock().account_refused.insert(action.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(words: &[&str]) -> Grants {
        Grants::Told(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn both_sides_must_grant() {
        let access = Access::new(None);
        for (words, role, expected) in [
            (&[FILES_READ, FILES_WRITE][..], "owner", "rwd"),
            (&[FILES_READ, FILES_WRITE], "admin", "rwd"),
            (&[FILES_READ, FILES_WRITE], "editor", "rwd"),
            (&[FILES_READ, FILES_WRITE], "viewer", "r"),
            (&[FILES_READ], "owner", "r"),
            (&[FILES_WRITE], "owner", "wd"),
            (&[FILES_WRITE], "viewer", ""),
            (&[], "owner", ""),
        ] {
            access.learn(told(words));
            access.learn_role("ws", Some(role));
            assert_eq!(access.on_workspace("ws"), expected.parse().unwrap(), "{words:?} {role}");
        }
        access.learn(Grants::Untold);
        assert_eq!(access.on_workspace("ws"), Rights::ALL);
        access.learn_role("ws", Some("viewer"));
        assert_eq!(access.on_workspace("ws"), Rights::READ);
        assert_eq!(access.on_workspace("other"), Rights::ALL);
    }

    #[test]
    fn the_account_goes_by_the_permissions_for_workspaces() {
        let access = Access::new(None);
        access.learn(told(&[WORKSPACES_READ]));
        assert_eq!(access.on_account(), Rights::READ);
        assert!(!access.lists_no_workspaces());
        access.learn(told(&[WORKSPACES_READ, WORKSPACES_WRITE]));
        assert_eq!(access.on_account(), Rights::ALL);
        access.learn(told(&[FILES_READ]));
        assert_eq!(access.on_account(), Rights::NONE);
        assert!(access.lists_no_workspaces());
    }

    #[test]
    fn refusals_hold_until_the_next_probe() {
        let access = Access::new(None);
        access.refused("ws", Action::Write);
        access.refused("ws", Action::Delete);
        assert_eq!(access.on_workspace("ws"), Rights::READ);
        assert_eq!(access.on_workspace("other"), Rights::ALL);
        access.account_refused(Action::Read);
        assert!(access.lists_no_workspaces());
        access.learn(Grants::Untold);
        assert_eq!(access.on_workspace("ws"), Rights::ALL);
        assert!(!access.lists_no_workspaces());
        let given = Access::new(Some(Rights::READ));
        assert_eq!(given.on_workspace("ws"), Rights::READ);
        given.refused("ws", Action::Read);
        assert_eq!(given.on_workspace("ws"), Rights::NONE);
    }
}
