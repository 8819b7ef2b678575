//! The API server, `/v1/…`.
//!
//! Responsible for addresses, credentials and rates, in the order that [`super::Assumptions`] describes, and for the
//! headers on every answer. The endpoints: [`account`], [`workspaces`], [`files`] and [`upload`].

mod account;
mod call;
mod files;
mod upload;
mod workspaces;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use self::call::Call;
use super::access::{Caller, Role, Scope};
use super::assumptions::{Deletion, RetryAfter, Times};
use super::failure::{Failure, json_response};
use super::plan::{Budget, Plan};
use super::state::{Recognised, State, StoredWorkspace};
use super::{Assumptions, CloudSyncStore};
use crate::emulator::AuthenticatedAs;

/// Everything that is known of a request once it is let in.
struct Visit<'a> {
    state: &'a mut State,
    caller: Caller,
    call: Call,
    assumptions: Assumptions,
    now: Timestamp,
}

type Outcome = Result<Response, Failure>;

/// The documented addresses, without `/v1`.
enum Route {
    Me,
    Keys,
    Key(String),
    Workspaces,
    Workspace(String),
    Members(String),
    Member(String, String),
    Files,
    File(String),
    Content(String),
    Versions(String),
    Restore(String),
}

impl Route {
    fn parse(path: &str) -> Option<Self> {
        let decoded: Option<Vec<String>> = path
            .strip_prefix("/v1/")?
            .split('/')
            .map(|segment| Some(percent_decode_str(segment).decode_utf8().ok()?.into_owned()))
            .collect();
        let decoded = decoded?;
        let segments: Vec<&str> = decoded.iter().map(String::as_str).collect();
        let own = |text: &str| text.to_owned();
        Some(match segments[..] {
            ["me"] => Self::Me,
            ["me", "api-keys"] => Self::Keys,
            ["me", "api-keys", id] => Self::Key(own(id)),
            ["workspaces"] => Self::Workspaces,
            ["workspaces", id] => Self::Workspace(own(id)),
            ["workspaces", id, "members"] => Self::Members(own(id)),
            ["workspaces", id, "members", user] => Self::Member(own(id), own(user)),
            ["files"] => Self::Files,
            ["files", id] => Self::File(own(id)),
            ["files", id, "content"] => Self::Content(own(id)),
            ["files", id, "versions"] => Self::Versions(own(id)),
            ["files", id, "restore"] => Self::Restore(own(id)),
            _ => return None,
        })
    }
}

pub(super) async fn answer(store: &CloudSyncStore, request: Request) -> Response {
    let assumptions = store.assumptions();
    // Read first, so that a refusal never cuts a client short that is still sending.
    let call = Call::read(request).await;
    let now = store.clock().now();
    let caller = recognise(store, &call.headers, now);

    let mut state = store.lock();
    let (user, plan) = match &caller {
        Ok(caller) => (
            Some(caller.user.as_str()),
            state.user(&caller.user).map_or(Plan::Free, |user| user.plan),
        ),
        Err(_) => (None, Plan::Free),
    };
    let budget = state.rates.take(user, plan.limits().requests, now);
    let name = caller.as_ref().ok().map(|caller| caller.name.clone());
    let outcome = caller.and_then(|caller| {
        if budget.exceeded {
            return Err(Failure::too_often());
        }
        let route = Route::parse(&call.path).ok_or_else(Failure::wrong_method)?;
        let visit = Visit {
            state: &mut state,
            caller,
            call,
            assumptions,
            now,
        };
        visit.go(route)
    });
    let mut response = outcome.unwrap_or_else(|failure| failure.into_response(assumptions.statuses));
    declare_budget(&mut response, budget, assumptions.retry_after, now);
    if let Some(name) = name {
        response.extensions_mut().insert(AuthenticatedAs(name));
    }
    response
}

/// Whose credential the request carries ("Using API Keys", "Use Access Token").
fn recognise(store: &CloudSyncStore, headers: &HeaderMap, now: Timestamp) -> Result<Caller, Failure> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Err(Failure::no_credential()),
        (Some(value), None) => value.to_str().map_err(|_| Failure::bad_credential())?,
        (Some(_), Some(_)) => return Err(Failure::invalid("Several Authorization headers")),
    };
    let secret = match value.split_once(' ') {
        Some((scheme, secret)) if scheme.eq_ignore_ascii_case("bearer") => secret,
        _ => return Err(Failure::no_credential()),
    };
    let recognised = store.lock().recognise(secret, now);
    match recognised {
        Recognised::Caller(caller) => return Ok(caller),
        Recognised::Dead => return Err(Failure::bad_credential()),
        Recognised::Unknown => {}
    }
    // Asked without the lock: the other server's answer may take its time.
    let trusted = store.shared.trusted.lock().clone();
    let foreign = trusted
        .and_then(|recognise| recognise(secret))
        .ok_or_else(Failure::bad_credential)?;
    let caller = store.lock().foreign_caller(&foreign.email, &foreign.scopes);
    caller.ok_or_else(Failure::bad_credential)
}

/// "Rate Limiting".
fn declare_budget(response: &mut Response, budget: Budget, retry_after: RetryAfter, now: Timestamp) {
    let rest = budget.resets.as_millisecond() - now.as_millisecond();
    // Whole seconds, and not before the window is over.
    let resets = budget.resets.as_millisecond().div_euclid(1000) + i64::from(budget.resets.as_millisecond() % 1000 > 0);
    let headers = response.headers_mut();
    let numbers = [
        ("x-ratelimit-limit", i64::from(budget.limit)),
        ("x-ratelimit-remaining", i64::from(budget.remaining)),
        ("x-ratelimit-reset", resets),
    ];
    for (name, number) in numbers {
        headers.insert(HeaderName::from_static(name), HeaderValue::from(number));
    }
    if budget.exceeded && retry_after == RetryAfter::Sent {
        headers.insert(header::RETRY_AFTER, HeaderValue::from((rest + 999) / 1000));
    }
}

impl Visit<'_> {
    fn go(self, route: Route) -> Outcome {
        let method = self.call.method.clone();
        let wants_body = matches!(method, Method::POST | Method::PATCH);
        if !wants_body && !self.call.is_empty() {
            return Err(Failure::invalid("This request takes no body"));
        }
        match (method, route) {
            (Method::GET, Route::Me) => self.profile(),
            (Method::GET, Route::Keys) => self.list_keys(),
            (Method::POST, Route::Keys) => self.create_key(),
            (Method::DELETE, Route::Key(id)) => self.delete_key(&id),
            (Method::GET, Route::Workspaces) => self.list_workspaces(),
            (Method::POST, Route::Workspaces) => self.create_workspace(),
            (Method::GET, Route::Workspace(id)) => self.get_workspace(&id),
            (Method::PATCH, Route::Workspace(id)) => self.update_workspace(&id),
            (Method::DELETE, Route::Workspace(id)) => self.delete_workspace(&id),
            (Method::GET, Route::Members(id)) => self.list_members(&id),
            (Method::POST, Route::Members(id)) => self.invite(&id),
            (Method::PATCH, Route::Member(id, user)) => self.change_role(&id, &user),
            (Method::DELETE, Route::Member(id, user)) => self.remove_member(&id, &user),
            (Method::GET, Route::Files) => self.list_files(),
            (Method::POST, Route::Files) => self.upload(),
            (Method::GET, Route::File(id)) => self.stat(&id),
            (Method::PATCH, Route::File(id)) => self.relocate(&id),
            (Method::DELETE, Route::File(id)) => self.delete_file(&id),
            (Method::GET, Route::Content(id)) => self.download(&id),
            (Method::GET, Route::Versions(id)) => self.versions(&id),
            (Method::POST, Route::Restore(id)) => self.restore(&id),
            _ => Err(Failure::wrong_method()),
        }
    }

    /// The workspace with this id or slug and the caller's role in it, which must be at least this one.
    fn workspace(&mut self, id_or_slug: &str, needed: Role) -> Result<(&mut StoredWorkspace, Role), Failure> {
        let sandbox = self.assumptions.sandbox;
        let found = self.state.workspace_mut(id_or_slug).and_then(|workspace| {
            let role = workspace.role_for(&self.caller, sandbox)?;
            Some((workspace, role))
        });
        let (workspace, role) = found.ok_or_else(|| Failure::not_found("Workspace"))?;
        if role < needed {
            return Err(Failure::lacks_role(needed));
        }
        Ok((workspace, role))
    }

    /// The workspace that holds the file or folder with this id.
    fn workspace_of(&mut self, id: &str, needed: Role) -> Result<&mut StoredWorkspace, Failure> {
        let holder = self
            .state
            .workspaces
            .iter()
            .find(|workspace| workspace.tree.node(id).is_some())
            .map(|workspace| workspace.id.clone());
        let missing = || Failure::not_found("File");
        let holder = holder.ok_or_else(missing)?;
        let sandbox = self.assumptions.sandbox;
        let workspace = self.state.workspace(&holder).ok_or_else(missing)?;
        workspace.role_for(&self.caller, sandbox).ok_or_else(missing)?;
        self.workspace(&holder, needed).map(|(workspace, _)| workspace)
    }

    fn require(&self, scope: Scope) -> Result<(), Failure> {
        self.caller.require(scope)
    }

    fn time(&self, time: Timestamp) -> String {
        written(time, self.assumptions.times)
    }

    fn deleted(&self, id: &str) -> Response {
        match self.assumptions.deletion {
            Deletion::Data => data(StatusCode::OK, json!({"id": id})),
            Deletion::NoContent => {
                let mut response = Response::default();
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
        }
    }
}

/// ISO-8601.
fn written(time: Timestamp, times: Times) -> String {
    match times {
        Times::Milliseconds => format!("{time:.3}"),
        Times::Seconds => format!("{time:.0}"),
    }
}

/// "Response Format".
fn data(status: StatusCode, value: Value) -> Response {
    json_response(status, &json!({"data": value}))
}
