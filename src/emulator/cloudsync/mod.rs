//! A strict stand-in for CloudSync: its API and its authorization server, two servers on one store.
//!
//! Responsible for `https://api.cloudsync.io/v1` (API Overview, Files, Workspaces, Users) and for
//! `https://auth.cloudsync.io/oauth` (Authentication) as the provider documents them. What the documentation leaves
//! open is an assumption and stands in [`Assumptions`]; what it doesn't allow is refused.
//!
//! It isn't responsible for notifications, user search, changing one's profile, share links, webhooks and the sync
//! socket, nor for settings that restrict addresses or ask for a second factor. Content lives in memory.

mod access;
mod api;
mod assumptions;
mod clock;
mod failure;
mod oauth;
mod plan;
mod state;
mod tree;
mod workspace;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};

use super::{ANY_PORT, Running, Service, launch};
use access::StoredKey;
pub use access::{ApiKey, Environment, Role, Scope, UnknownScope};
pub use assumptions::{
    Assumptions, Deletion, DeviceFlow, ExpiresIn, FolderCreation, KeyManagement, Parents, Pkce, Ranges, Refreshing,
    RetryAfter, Revocation, Sandbox, Statuses, Times,
};
pub use clock::Clock;
pub use oauth::{Consent, DeviceRequest, Exchanges, GrantId, GrantKind, IssuedToken, OauthClient, TokenState, Tokens};
pub use plan::{Limits, Plan};
use state::{State, StoredWorkspace, User};
pub use workspace::{FileInfo, Info, StoreError, Workspace};

/// Users, keys, workspaces and grants; clones are handles on the same.
///
/// The methods act at once and past the HTTP surface, as the dashboard would.
#[derive(Debug, Clone)]
pub struct CloudSyncStore {
    shared: Arc<Shared>,
}

struct Shared {
    assumptions: Assumptions,
    clock: Clock,
    state: Mutex<State>,
    trusted: Mutex<Option<Trusted>>,
}

type Trusted = Arc<dyn Fn(&str) -> Option<ForeignGrant> + Send + Sync>;

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("assumptions", &self.assumptions)
            .finish_non_exhaustive()
    }
}

/// What another authorization server says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignGrant {
    /// Whose it is.
    pub email: String,
    /// What it is good for.
    pub scopes: Vec<Scope>,
}

impl Default for CloudSyncStore {
    fn default() -> Self {
        Self::new(Assumptions::default())
    }
}

impl CloudSyncStore {
    /// A store without users.
    pub fn new(assumptions: Assumptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                assumptions,
                clock: Clock::default(),
                state: Mutex::default(),
                trusted: Mutex::default(),
            }),
        }
    }

    /// What this store assumes.
    pub fn assumptions(&self) -> Assumptions {
        self.shared.assumptions
    }

    /// The clock of both servers.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Serves the API on a free port of loopback; the base address of a remote is its `/v1`.
    ///
    /// # Errors
    /// If the port can't be opened.
    pub async fn serve_api(&self) -> std::io::Result<Running> {
        self.start_api_on(ANY_PORT).await
    }

    /// Serves the API on this address, for example the one a stopped server had.
    ///
    /// # Errors
    /// If the address can't be opened.
    pub async fn start_api_on(&self, address: SocketAddr) -> std::io::Result<Running> {
        launch(Api(self.clone()), address).await
    }

    /// Serves the authorization server on a free port of loopback.
    ///
    /// # Errors
    /// If the port can't be opened.
    pub async fn serve_auth(&self) -> std::io::Result<Running> {
        self.start_auth_on(ANY_PORT).await
    }

    /// Serves the authorization server on this address, for example the one a stopped server had.
    ///
    /// # Errors
    /// If the address can't be opened.
    pub async fn start_auth_on(&self, address: SocketAddr) -> std::io::Result<Running> {
        launch(Auth(self.clone()), address).await
    }

    /// Opens an account, or gives the one with this e-mail address another plan.
    pub fn add_user(&self, email: &str, plan: Plan) {
        let now = self.clock().now();
        let mut state = self.lock();
        match state
            .users
            .iter_mut()
            .find(|user| user.email.eq_ignore_ascii_case(email))
        {
            Some(user) => user.plan = plan,
            None => {
                let name = email.split_once('@').map_or(email, |(name, _)| name);
                state.users.push(User::new(email, name, plan, now));
            }
        }
    }

    /// Makes an empty workspace with a slug made from its name.
    ///
    /// # Errors
    /// If there is no such user.
    pub fn add_workspace(&self, owner: &str, name: &str) -> Result<Workspace, StoreError> {
        self.add_workspace_in(Environment::Production, owner, name)
    }

    /// The same in this environment, which matters with [`Sandbox::Separate`].
    ///
    /// # Errors
    /// If there is no such user.
    pub fn add_workspace_in(&self, place: Environment, owner: &str, name: &str) -> Result<Workspace, StoreError> {
        let now = self.clock().now();
        let mut state = self.lock();
        let owner = state.user_by_email(owner).ok_or(StoreError::Missing)?.id.clone();
        let slug = state.free_slug(name);
        let workspace = StoredWorkspace::new(&owner, name, slug, place, now);
        let id = workspace.id.clone();
        state.workspaces.push(workspace);
        Ok(self.handle(id))
    }

    /// The workspace with this id or slug.
    pub fn workspace(&self, id_or_slug: &str) -> Option<Workspace> {
        let id = self.lock().workspace(id_or_slug)?.id.clone();
        Some(self.handle(id))
    }

    /// Every workspace, in order of creation.
    pub fn workspaces(&self) -> Vec<Workspace> {
        let ids: Vec<String> = self.lock().workspaces.iter().map(|it| it.id.clone()).collect();
        ids.into_iter().map(|id| self.handle(id)).collect()
    }

    /// Makes a production key.
    ///
    /// # Errors
    /// If there is no such user.
    pub fn create_key(&self, email: &str, name: &str, permissions: &[Scope]) -> Result<ApiKey, StoreError> {
        self.create_key_for(Environment::Production, email, name, permissions)
    }

    /// Makes a key for this environment. Permissions that only OAuth has are left out.
    ///
    /// # Errors
    /// If there is no such user.
    pub fn create_key_for(
        &self,
        place: Environment,
        email: &str,
        name: &str,
        permissions: &[Scope],
    ) -> Result<ApiKey, StoreError> {
        let now = self.clock().now();
        let mut state = self.lock();
        let user = state.user_by_email(email).ok_or(StoreError::Missing)?.id.clone();
        let permissions = for_keys(permissions);
        let key = StoredKey::new(&user, name, permissions, place, now);
        let shown = key.shown_once();
        state.keys.push(key);
        Ok(shown)
    }

    /// Forgets a key; whether there was one with this id.
    pub fn revoke_key(&self, id: &str) -> bool {
        let mut state = self.lock();
        let before = state.keys.len();
        state.keys.retain(|key| key.id != id);
        state.keys.len() < before
    }

    /// Sets the end of a key's time; whether there is one with this id.
    pub fn set_key_expiry(&self, id: &str, expires: Option<Timestamp>) -> bool {
        let mut state = self.lock();
        let key = state.keys.iter_mut().find(|key| key.id == id);
        key.is_some_and(|key| {
            key.expires = expires;
            true
        })
    }

    /// Gives a key other permissions (those that only OAuth has are left out); whether there is one with this id.
    pub fn set_key_permissions(&self, id: &str, permissions: &[Scope]) -> bool {
        let mut state = self.lock();
        let key = state.keys.iter_mut().find(|key| key.id == id);
        key.is_some_and(|key| {
            key.permissions = for_keys(permissions);
            true
        })
    }

    /// Ids and names of somebody's keys, in order of creation.
    pub fn keys(&self, email: &str) -> Vec<(String, String)> {
        let state = self.lock();
        let Some(user) = state.user_by_email(email) else {
            return Vec::new();
        };
        let mine = state.keys.iter().filter(|key| key.user == user.id);
        mine.map(|key| (key.id.clone(), key.name.clone())).collect()
    }

    /// Lets the API accept tokens of another authorization server: `recognise` is asked about every bearer token that
    /// is neither a key nor a token of this store.
    pub fn trust(&self, recognise: impl Fn(&str) -> Option<ForeignGrant> + Send + Sync + 'static) {
        *self.shared.trusted.lock() = Some(Arc::new(recognise));
    }

    fn handle(&self, id: String) -> Workspace {
        Workspace {
            store: self.clone(),
            id,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock()
    }

    /// The same with a copy of all content, for answers that must change nothing.
    fn fork(&self) -> Self {
        let trusted = self.shared.trusted.lock().clone();
        Self {
            shared: Arc::new(Shared {
                assumptions: self.shared.assumptions,
                clock: self.shared.clock.clone(),
                state: Mutex::new(self.lock().clone()),
                trusted: Mutex::new(trusted),
            }),
        }
    }
}

fn for_keys(permissions: &[Scope]) -> BTreeSet<Scope> {
    permissions
        .iter()
        .copied()
        .filter(|scope| scope.is_for_keys())
        .collect()
}

#[derive(Debug, Clone)]
struct Api(CloudSyncStore);

impl Service for Api {
    async fn answer(self, request: Request) -> Response {
        api::answer(&self.0, request).await
    }

    fn fork(&self) -> Self {
        Self(self.0.fork())
    }
}

#[derive(Debug, Clone)]
struct Auth(CloudSyncStore);

impl Service for Auth {
    async fn answer(self, request: Request) -> Response {
        oauth::answer(&self.0, request).await
    }

    fn fork(&self) -> Self {
        Self(self.0.fork())
    }
}

#[cfg(test)]
mod tests;
