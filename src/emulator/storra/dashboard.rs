//! The dashboard's API for keys (authentication, "Dashboard API").
//!
//! Responsible for its own rules: session cookies and nothing else, and errors in the form `{"error": …}`.

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::StorraStore;
use super::accounts::{AccountState, KeyInfo, Plan};
use super::answers::{iso, json_response};
use super::assumptions::{LABEL_LIMIT, NO_SESSION};
use super::request::media_type;
use crate::emulator::{AuthenticatedAs, segment};

/// What stands before the routes.
pub(super) const BASE: &str = "/api/v1/dashboard/";
/// A label is short; this is plenty.
const BODY_LIMIT: usize = 64 * 1024;

type Refused = (StatusCode, &'static str);

const NOT_FOUND: Refused = (StatusCode::NOT_FOUND, "Not found");
const BAD_BODY: Refused = (StatusCode::BAD_REQUEST, "Invalid request body");

enum Route {
    Create,
    List,
    Revoke { prefix: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    label: String,
}

/// Answers a request to `/api/v1/dashboard/{rest}`.
pub(super) async fn answer(store: &StorraStore, rest: &str, request: Request) -> Response {
    let route = find(request.method(), rest);
    let has_query = request.uri().query().is_some();
    let headers = request.headers().clone();
    let body = to_bytes(request.into_body(), BODY_LIMIT).await;

    let mut world = store.world.lock();
    let now = world.clock.tick();
    let mut known = None;
    let outcome = route.and_then(|route| {
        let id = session(&headers).and_then(|cookies| world.owner_of_session(&cookies));
        let account = id.and_then(|id| world.account(id)).ok_or(NO_SESSION)?;
        known = Some(format!("session of {}", account.email));
        if has_query {
            return Err((StatusCode::BAD_REQUEST, "Unknown query parameter"));
        }
        let body = body.map_err(|_| BAD_BODY)?;
        if !matches!(route, Route::Create) && !body.is_empty() {
            return Err(BAD_BODY);
        }
        match route {
            Route::Create => create(account, &headers, &body, now),
            Route::List => Ok(account.keys.iter().map(|key| described(&key.info)).collect()),
            Route::Revoke { prefix } if account.revoke_key(&prefix) => Ok(json!({"revoked": true})),
            Route::Revoke { .. } => Err((StatusCode::NOT_FOUND, "API key not found")),
        }
    });
    let mut response = match outcome {
        Ok(body) => json_response(StatusCode::OK, &body),
        Err((status, message)) => json_response(status, &json!({"error": message})),
    };
    if let Some(name) = known {
        response.extensions_mut().insert(AuthenticatedAs(name));
    }
    response
}

fn find(method: &Method, rest: &str) -> Result<Route, Refused> {
    let segments: Vec<&str> = rest.split('/').collect();
    match (segments.as_slice(), method) {
        (["users", "me", "api-keys"], &Method::POST) => Ok(Route::Create),
        (["users", "me", "api-keys"], &Method::GET) => Ok(Route::List),
        (["users", "me", "api-keys", prefix], &Method::DELETE) => {
            let prefix = segment::decode(prefix).map_err(|_| NOT_FOUND)?;
            Ok(Route::Revoke { prefix })
        }
        (["users", "me", "api-keys"] | ["users", "me", "api-keys", _], _) => {
            Err((StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"))
        }
        _ => Err(NOT_FOUND),
    }
}

/// The cookies of a request; none if it has an `Authorization` header, which isn't accepted here.
fn session(headers: &HeaderMap) -> Option<String> {
    if headers.contains_key(header::AUTHORIZATION) {
        return None;
    }
    let cookies = headers.get_all(header::COOKIE).iter();
    let cookies: Vec<&str> = cookies.map(|value| value.to_str().ok()).collect::<Option<_>>()?;
    Some(cookies.join("; "))
}

fn create(
    account: &mut AccountState,
    headers: &HeaderMap,
    body: &[u8],
    now: jiff::Timestamp,
) -> Result<Value, Refused> {
    if account.plan != Plan::Pro {
        return Err((
            StatusCode::FORBIDDEN,
            "API access requires Cloud Pro plan. Upgrade to use the API.",
        ));
    }
    if media_type(headers).as_deref() != Some("application/json") {
        return Err((StatusCode::BAD_REQUEST, "Content-Type must be application/json"));
    }
    let wanted: NewKey = serde_json::from_slice(body).map_err(|_| BAD_BODY)?;
    let label = wanted.label.trim();
    if label.is_empty() || label.chars().count() > LABEL_LIMIT {
        return Err((StatusCode::BAD_REQUEST, "Label must have 1 to 100 characters"));
    }
    let (secret, info) = account.create_key(label.to_owned(), now);
    let mut answer = described(&info);
    answer["key"] = json!(secret);
    Ok(answer)
}

fn described(key: &KeyInfo) -> Value {
    json!({
        "id": key.id,
        "prefix": key.prefix,
        "label": key.label,
        "created_at": iso(key.created),
        "last_used": key.last_used.map(iso),
    })
}
