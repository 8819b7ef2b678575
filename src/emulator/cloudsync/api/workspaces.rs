//! Workspaces and their members ("Workspaces API").
//!
//! Responsible for `/v1/workspaces` and what is beneath it. Files have their own endpoints: see [`super::files`].

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Outcome, Visit, data, written};
use crate::emulator::cloudsync::access::{Role, Scope};
use crate::emulator::cloudsync::failure::Failure;
use crate::emulator::cloudsync::state::{Member, Settings, State, StoredWorkspace, is_slug};

/// "Create Workspace".
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewWorkspace {
    name: String,
    slug: Option<String>,
    description: Option<String>,
    #[serde(default)]
    settings: Settings,
}

/// "Update Workspace".
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    name: Option<String>,
    description: Option<String>,
    #[serde(default)]
    settings: Settings,
}

/// "Invite Member".
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Invitation {
    email: String,
    role: Role,
    #[serde(rename = "message")]
    _message: Option<String>,
}

/// "Update Member Role".
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRole {
    role: Role,
}

impl Visit<'_> {
    /// "List Workspaces".
    pub(super) fn list_workspaces(self) -> Outcome {
        self.require(Scope::WorkspacesRead)?;
        self.call.query(&[])?;
        let mut listed = Vec::new();
        for workspace in &self.state.workspaces {
            let Some(role) = workspace.role_for(&self.caller, self.assumptions.sandbox) else {
                continue;
            };
            let (files, size) = workspace.tree.usage();
            let mut entry = summary(workspace, role, self.time(workspace.created));
            entry["stats"] = json!({"files": files, "size": size, "members": workspace.members.len()});
            listed.push(entry);
        }
        Ok(data(StatusCode::OK, json!(listed)))
    }

    /// "Get Workspace"; no answer is shown, so it is that of "Create Workspace".
    pub(super) fn get_workspace(mut self, id: &str) -> Outcome {
        self.require(Scope::WorkspacesRead)?;
        self.call.query(&[])?;
        self.described(id, Role::Viewer, StatusCode::OK)
    }

    /// "Create Workspace".
    pub(super) fn create_workspace(mut self) -> Outcome {
        self.require(Scope::WorkspacesWrite)?;
        let new: NewWorkspace = self.call.json()?;
        if new.name.trim().is_empty() {
            return Err(Failure::invalid("The workspace needs a name"));
        }
        let slug = match new.slug {
            None => self.state.free_slug(&new.name),
            Some(slug) if !is_slug(&slug) => return Err(Failure::invalid("Not a slug")),
            Some(slug) if self.state.workspace(&slug).is_some() => return Err(Failure::exists("slug", &slug)),
            Some(slug) => slug,
        };
        let user = &self.caller.user;
        let limit = self.state.user(user).and_then(|user| user.plan.limits().workspaces);
        if limit.is_some_and(|limit| self.state.owned(user).1 >= limit) {
            return Err(Failure::quota("workspaces"));
        }
        let mut workspace = StoredWorkspace::new(user, &new.name, slug, self.caller.environment, self.now);
        workspace.description = new.description;
        workspace.settings = new.settings;
        let id = workspace.id.clone();
        self.state.workspaces.push(workspace);
        self.described(&id, Role::Viewer, StatusCode::CREATED)
    }

    /// "Update Workspace". The slug stays.
    pub(super) fn update_workspace(mut self, id: &str) -> Outcome {
        self.require(Scope::WorkspacesWrite)?;
        self.workspace(id, Role::Admin)?;
        let update: Update = self.call.json()?;
        if update.name.as_ref().is_some_and(|name| name.trim().is_empty()) {
            return Err(Failure::invalid("The workspace needs a name"));
        }
        let (workspace, _) = self.workspace(id, Role::Admin)?;
        if let Some(name) = update.name {
            workspace.name = name;
        }
        if let Some(description) = update.description {
            workspace.description = Some(description);
        }
        workspace.settings.update(update.settings);
        self.described(id, Role::Admin, StatusCode::OK)
    }

    /// "Delete Workspace": with all its contents, for ever.
    pub(super) fn delete_workspace(mut self, id: &str) -> Outcome {
        self.require(Scope::WorkspacesWrite)?;
        let id = self.workspace(id, Role::Owner)?.0.id.clone();
        self.call.query(&[])?;
        self.state.workspaces.retain(|workspace| workspace.id != id);
        Ok(self.deleted(&id))
    }

    /// "List Members".
    pub(super) fn list_members(mut self, id: &str) -> Outcome {
        self.require(Scope::UsersRead)?;
        self.call.query(&[])?;
        let members = self.workspace(id, Role::Viewer)?.0.members.clone();
        let members: Vec<Value> = members
            .iter()
            .map(|(user, member)| self.described_member(user, *member))
            .collect();
        Ok(data(StatusCode::OK, json!(members)))
    }

    /// "Invite Member".
    pub(super) fn invite(mut self, id: &str) -> Outcome {
        self.require(Scope::UsersWrite)?;
        self.workspace(id, Role::Admin)?;
        let Invitation { email, role, .. } = self.call.json()?;
        check_is_given(role)?;
        let user = self.state.user_by_email(&email).map(|user| user.id.clone());
        let user = user.ok_or_else(|| Failure::not_found("User"))?;
        let joined = self.now;
        let (workspace, _) = self.workspace(id, Role::Admin)?;
        if workspace.members.contains_key(&user) {
            return Err(Failure::exists("email", &email));
        }
        let member = Member { role, joined };
        workspace.members.insert(user.clone(), member);
        Ok(data(StatusCode::CREATED, self.described_member(&user, member)))
    }

    /// "Update Member Role".
    pub(super) fn change_role(mut self, id: &str, user: &str) -> Outcome {
        self.require(Scope::UsersWrite)?;
        self.workspace(id, Role::Admin)?;
        let NewRole { role } = self.call.json()?;
        check_is_given(role)?;
        let (workspace, _) = self.workspace(id, Role::Admin)?;
        let member = changeable(workspace, user)?;
        member.role = role;
        let member = *member;
        Ok(data(StatusCode::OK, self.described_member(user, member)))
    }

    /// "Remove Member".
    pub(super) fn remove_member(mut self, id: &str, user: &str) -> Outcome {
        self.require(Scope::UsersWrite)?;
        self.call.query(&[])?;
        let (workspace, _) = self.workspace(id, Role::Admin)?;
        changeable(workspace, user)?;
        workspace.members.remove(user);
        Ok(self.deleted(user))
    }

    fn described(&mut self, id: &str, needed: Role, status: StatusCode) -> Outcome {
        let times = self.assumptions.times;
        let (workspace, role) = self.workspace(id, needed)?;
        let mut description = summary(workspace, role, written(workspace.created, times));
        description["settings"] = json!(workspace.settings);
        Ok(data(status, description))
    }

    fn described_member(&self, user: &str, member: Member) -> Value {
        let State { users, .. } = &*self.state;
        let user = users.iter().find(|known| known.id == user);
        json!({
            "id": user.map(|user| &user.id),
            "email": user.map(|user| &user.email),
            "name": user.map(|user| &user.name),
            "role": member.role,
            "joinedAt": self.time(member.joined),
        })
    }
}

fn summary(workspace: &StoredWorkspace, role: Role, created: String) -> Value {
    json!({
        "id": workspace.id,
        "name": workspace.name,
        "slug": workspace.slug,
        "description": workspace.description,
        "role": role,
        "createdAt": created,
    })
}

/// "Role: `viewer`, `editor`, `admin`".
fn check_is_given(role: Role) -> Result<(), Failure> {
    if role == Role::Owner {
        return Err(Failure::invalid("role must be viewer, editor or admin"));
    }
    Ok(())
}

fn changeable<'a>(workspace: &'a mut StoredWorkspace, user: &str) -> Result<&'a mut Member, Failure> {
    let member = workspace.members.get_mut(user);
    match member.ok_or_else(|| Failure::not_found("Member"))? {
        Member { role: Role::Owner, .. } => Err(Failure::denied("The owner stays the owner")),
        member => Ok(member),
    }
}
