//! `/oauth/token` and `/oauth/revoke`: JSON in, JSON out.
//!
//! Responsible for reading exchanges and for the order of checks: shape, client, grant. Not responsible for what a
//! grant is worth: see [`super::ledger`].

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::{OauthError, uncached};
use super::ledger::Given;
use super::{Call, GrantKind, device};
use crate::emulator::AuthenticatedAs;
use crate::emulator::cloudsync::CloudSyncStore;
use crate::emulator::cloudsync::access::Scope;
use crate::emulator::cloudsync::assumptions::{DeviceFlow, ExpiresIn};
use crate::emulator::cloudsync::failure::json_response;

/// RFC 8628, 3.4.
const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// "Exchange Code for Token", "Refreshing Tokens", and RFC 8628's.
#[derive(Deserialize)]
#[serde(tag = "grant_type", deny_unknown_fields)]
enum Exchange {
    #[serde(rename = "authorization_code")]
    AuthorizationCode {
        client_id: String,
        client_secret: Option<String>,
        code: String,
        redirect_uri: String,
        code_verifier: Option<String>,
    },
    #[serde(rename = "refresh_token")]
    RefreshToken {
        client_id: String,
        client_secret: Option<String>,
        refresh_token: String,
    },
    #[serde(rename = "urn:ietf:params:oauth:grant-type:device_code")]
    DeviceCode {
        client_id: String,
        client_secret: Option<String>,
        device_code: String,
    },
}

/// RFC 7009, 2.1.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ending {
    client_id: String,
    client_secret: Option<String>,
    token: String,
    /// Only a hint: the prefix of a token says more.
    #[serde(rename = "token_type_hint")]
    _hint: Option<String>,
}

impl Exchange {
    fn kind(&self) -> GrantKind {
        match self {
            Self::AuthorizationCode { .. } => GrantKind::AuthorizationCode,
            Self::RefreshToken { .. } => GrantKind::RefreshToken,
            Self::DeviceCode { .. } => GrantKind::DeviceCode,
        }
    }

    fn client(&self) -> (&str, Option<&str>) {
        match self {
            Self::AuthorizationCode {
                client_id,
                client_secret,
                ..
            }
            | Self::RefreshToken {
                client_id,
                client_secret,
                ..
            }
            | Self::DeviceCode {
                client_id,
                client_secret,
                ..
            } => (client_id, client_secret.as_deref()),
        }
    }
}

pub(super) fn exchange(store: &CloudSyncStore, call: &Call) -> Response {
    let exchange = match read(store, call) {
        Ok(exchange) => exchange,
        Err(error) => return error.into_response(),
    };
    let given = perform(store, &exchange);
    store.lock().oauth.count(exchange.kind(), given.is_ok());
    let mut response = match given {
        Ok(given) => token_answer(store, &given),
        Err(error) if error == OauthError::invalid_client() => return error.into_response(),
        Err(error) => error.into_response(),
    };
    let name = format!("client {}", exchange.client().0);
    response.extensions_mut().insert(AuthenticatedAs(name));
    response
}

fn read(store: &CloudSyncStore, call: &Call) -> Result<Exchange, OauthError> {
    let assumptions = store.assumptions();
    let body: Value = call.json(assumptions.statuses)?;
    let kind = body.get("grant_type").and_then(Value::as_str);
    match kind.ok_or(OauthError::invalid_request("grant_type is missing"))? {
        "authorization_code" | "refresh_token" => {}
        DEVICE_CODE if assumptions.device != DeviceFlow::Absent => {}
        _ => {
            return Err(OauthError::new(
                "unsupported_grant_type",
                "This grant type is not offered",
            ));
        }
    }
    // Read anew and not from the value, which has forgotten about repeated fields.
    call.json(assumptions.statuses)
}

fn perform(store: &CloudSyncStore, exchange: &Exchange) -> Result<Given, OauthError> {
    let now = store.clock().now();
    let assumptions = store.assumptions();
    let mut state = store.lock();
    let ledger = &mut state.oauth;
    let (client, secret) = exchange.client();
    ledger
        .client(client)
        .ok_or(OauthError::invalid_client())?
        .check_secret(secret)?;
    match exchange {
        Exchange::AuthorizationCode {
            code,
            redirect_uri,
            code_verifier,
            ..
        } => ledger.redeem_code(client, code, redirect_uri, code_verifier.as_deref(), &assumptions, now),
        Exchange::RefreshToken { refresh_token, .. } => ledger.refresh(client, refresh_token, &assumptions, now),
        Exchange::DeviceCode { device_code, .. } => device::redeem(ledger, client, device_code, &assumptions, now),
    }
}

fn token_answer(store: &CloudSyncStore, given: &Given) -> Response {
    let assumptions = store.assumptions();
    let scopes: Vec<&str> = given.scopes.iter().map(|scope: &Scope| scope.as_str()).collect();
    let mut body = json!({
        "access_token": given.tokens.access(),
        "token_type": "Bearer",
        "scope": scopes.join(" "),
    });
    if let Some(refresh) = given.tokens.refresh() {
        body["refresh_token"] = json!(refresh);
    }
    if assumptions.expires_in == ExpiresIn::Told {
        body["expires_in"] = json!(assumptions.access_lifetime.as_secs());
    }
    uncached(json_response(StatusCode::OK, &body))
}

pub(super) fn revoke(store: &CloudSyncStore, call: &Call) -> Response {
    let end = || {
        let ending: Ending = call.json(store.assumptions().statuses)?;
        let ledger = &mut store.lock().oauth;
        ledger
            .client(&ending.client_id)
            .ok_or(OauthError::invalid_client())?
            .check_secret(ending.client_secret.as_deref())?;
        ledger.revoke_token(&ending.client_id, &ending.token)
    };
    match end() {
        // RFC 7009, 2.2: the body is ignored.
        Ok(()) => uncached(Response::default()),
        Err(error) => error.into_response(),
    }
}
