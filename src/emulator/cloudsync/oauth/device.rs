//! Device authorization (RFC 8628), for stores that offer it.
//!
//! Responsible for `/oauth/device/code`, the page `/oauth/device`, and for what a poll of the token endpoint gets. The
//! provider documents none of it: addresses and JSON bodies follow its other endpoints.

use std::collections::BTreeSet;

use axum::http::{StatusCode, header};
use axum::response::Response;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::error::{OauthError, uncached};
use super::ledger::{Given, Ledger};
use super::{Call, field, page};
use crate::emulator::cloudsync::access::{Scope, fresh_secret};
use crate::emulator::cloudsync::assumptions::DeviceFlow;
use crate::emulator::cloudsync::clock::later;
use crate::emulator::cloudsync::failure::json_response;
use crate::emulator::cloudsync::{Assumptions, CloudSyncStore};

/// RFC 8628, 3.5: what `slow_down` adds to the time between polls.
const SLOWER: SignedDuration = SignedDuration::from_secs(5);

/// The letters of user codes: no vowels, nothing that looks like another (RFC 8628, 6.1).
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// A device that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRequest {
    /// What the device shows.
    pub user_code: String,
    /// The client's id.
    pub client: String,
    /// What it asks for.
    pub scopes: Vec<Scope>,
}

#[derive(Clone)]
pub(in crate::emulator::cloudsync) struct Device {
    secret: String,
    user_code: String,
    client: String,
    scopes: BTreeSet<Scope>,
    expires: Timestamp,
    interval: SignedDuration,
    polled: Option<Timestamp>,
    answer: Answer,
}

#[derive(Clone, PartialEq, Eq)]
enum Answer {
    Waiting,
    Allowed { user: String },
    Denied,
    Exchanged,
}

impl Device {
    pub(super) fn secret(&self) -> &str {
        &self.secret
    }
}

/// RFC 8628, 3.1.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Beginning {
    client_id: String,
    client_secret: Option<String>,
    scope: String,
}

impl CloudSyncStore {
    /// The devices that nobody has decided about yet, in order of arrival.
    pub fn device_requests(&self) -> Vec<DeviceRequest> {
        let now = self.clock().now();
        let state = self.lock();
        let waiting = state
            .oauth
            .devices
            .iter()
            .filter(|device| device.answer == Answer::Waiting && device.expires > now);
        waiting
            .map(|device| DeviceRequest {
                user_code: device.user_code.clone(),
                client: device.client.clone(),
                scopes: device.scopes.iter().copied().collect(),
            })
            .collect()
    }

    /// Allows, as this person, what a device asks for; whether such a device waits and there is such a user.
    pub fn approve_device(&self, user_code: &str, email: &str) -> bool {
        let user = self.lock().user_by_email(email).map(|user| user.id.clone());
        user.is_some_and(|user| settle(self, user_code, Answer::Allowed { user }))
    }

    /// Refuses what a device asks for; whether such a device waits.
    pub fn deny_device(&self, user_code: &str) -> bool {
        settle(self, user_code, Answer::Denied)
    }
}

/// Writes a person's answer down; whether a device waits for it. Case and hyphens of the code don't matter.
fn settle(store: &CloudSyncStore, user_code: &str, answer: Answer) -> bool {
    let plain = |code: &str| -> String {
        let letters = code.chars().filter(char::is_ascii_alphanumeric);
        letters.map(|letter| letter.to_ascii_uppercase()).collect()
    };
    let now = store.clock().now();
    let mut state = store.lock();
    let device = state.oauth.devices.iter_mut().find(|device| {
        plain(&device.user_code) == plain(user_code) && device.answer == Answer::Waiting && device.expires > now
    });
    device.is_some_and(|device| {
        device.answer = answer;
        true
    })
}

/// `POST /oauth/device/code`.
pub(super) fn begin(store: &CloudSyncStore, call: &Call) -> Response {
    started(store, call).unwrap_or_else(OauthError::into_response)
}

fn started(store: &CloudSyncStore, call: &Call) -> Result<Response, OauthError> {
    let assumptions = store.assumptions();
    let DeviceFlow::Offered { interval, lifetime } = assumptions.device else {
        return Err(OauthError::invalid_request("There is no such endpoint").with_status(StatusCode::NOT_FOUND));
    };
    let beginning: Beginning = call.json(assumptions.statuses)?;
    let now = store.clock().now();
    let mut state = store.lock();
    let client = state
        .oauth
        .client(&beginning.client_id)
        .ok_or(OauthError::invalid_client())?;
    client.check_secret(beginning.client_secret.as_deref())?;
    let device = Device {
        secret: fresh_secret("device_"),
        user_code: fresh_user_code(),
        client: beginning.client_id.clone(),
        scopes: client.scopes(&beginning.scope)?,
        expires: later(now, lifetime),
        interval,
        polled: None,
        answer: Answer::Waiting,
    };
    let host = call.parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let page = format!("http://{}/oauth/device", host.unwrap_or("127.0.0.1"));
    let body = json!({
        "device_code": device.secret,
        "user_code": device.user_code,
        "verification_uri": page,
        "verification_uri_complete": format!("{page}?user_code={}", device.user_code),
        "expires_in": lifetime.as_secs(),
        "interval": interval.as_secs(),
    });
    state.oauth.devices.push(device);
    Ok(uncached(json_response(StatusCode::OK, &body)))
}

/// RFC 8628, 3.5: what a poll gets.
pub(super) fn redeem(
    ledger: &mut Ledger,
    client: &str,
    secret: &str,
    assumptions: &Assumptions,
    now: Timestamp,
) -> Result<Given, OauthError> {
    const WRONG: OauthError = OauthError::invalid_grant("The device code is unknown or used");
    let known = ledger
        .devices
        .iter_mut()
        .find(|device| device.secret == secret && device.client == client);
    let device = known.ok_or(WRONG)?;
    if device.expires <= now {
        return Err(OauthError::new("expired_token", "The device code's time is over"));
    }
    let too_early = device.polled.is_some_and(|polled| now < later(polled, device.interval));
    device.polled = Some(now);
    if too_early {
        device.interval = device.interval.saturating_add(SLOWER);
        return Err(OauthError::new("slow_down", "Ask less often"));
    }
    match device.answer.clone() {
        Answer::Waiting => Err(OauthError::new(
            "authorization_pending",
            "The person has not decided yet",
        )),
        Answer::Denied => Err(OauthError::new("access_denied", "The person refused")),
        Answer::Exchanged => Err(WRONG),
        Answer::Allowed { user } => {
            device.answer = Answer::Exchanged;
            let scopes = device.scopes.clone();
            Ok(ledger.grant(&user, client, scopes, assumptions.access_lifetime, now))
        }
    }
}

/// `GET /oauth/device`.
pub(super) fn ask(call: &Call) -> Response {
    let query = call.query().unwrap_or_default();
    page::device(field(&query, "user_code").unwrap_or_default(), None)
}

/// `POST /oauth/device` from the page.
pub(super) fn decide(store: &CloudSyncStore, call: &Call) -> Response {
    let form = call.form().unwrap_or_default();
    let user_code = field(&form, "user_code").unwrap_or_default();
    let settled = match field(&form, "decision") {
        Some("allow") => {
            let email = field(&form, "email").unwrap_or_default();
            store.approve_device(user_code, email.trim())
        }
        Some("deny") => store.deny_device(user_code),
        _ => false,
    };
    if settled {
        page::done("The device knows now")
    } else {
        let complaint = "No device waits with this code, or there is no account with this e-mail address.";
        page::device(user_code, Some(complaint))
    }
}

fn fresh_user_code() -> String {
    let random = Uuid::new_v4();
    let letters: String = random
        .as_bytes()
        .iter()
        .take(4)
        .chain(random.as_bytes().iter().rev().take(4))
        .filter_map(|byte| LETTERS.get(usize::from(*byte) % LETTERS.len()))
        .map(|letter| char::from(*letter))
        .collect();
    let (front, back) = letters.split_at(letters.len() / 2);
    format!("{front}-{back}")
}
