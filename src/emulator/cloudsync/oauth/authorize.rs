//! `/oauth/authorize`: where a client sends a person's browser, and where the person decides.
//!
//! Responsible for checking the request, for the decision, and for the way back (RFC 6749, 4.1.1 and 4.1.2; RFC 8252).
//! Nothing goes to an address that the client may not use: such mistakes are shown to the person instead.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use url::Url;

use super::error::{OauthError, uncached};
use super::ledger::{AuthorizationRequest, Ledger};
use super::{Call, Consent, field, page};
use crate::emulator::cloudsync::CloudSyncStore;
use crate::emulator::cloudsync::assumptions::Pkce;
use crate::emulator::cloudsync::state::State;

/// `GET`: shows the page, or does at once what the test wants.
pub(super) fn ask(store: &CloudSyncStore, call: &Call) -> Response {
    let now = store.clock().now();
    let mut state = store.lock();
    let request = match read(&state.oauth, call, store.assumptions().pkce) {
        Ok(request) => request,
        Err(Mistake::Shown(message)) => return page::problem(message),
        Err(Mistake::SentBack { redirect, state, error }) => {
            return back(
                &redirect,
                state.as_deref(),
                &[("error", error.code), ("error_description", error.description)],
                StatusCode::FOUND,
            );
        }
    };
    let (email, only) = match state.oauth.consent.clone() {
        Consent::Asks => {
            let client = state
                .oauth
                .client(&request.client)
                .map(|client| client.name().to_owned());
            let scopes = request.scopes.clone();
            let id = state.oauth.ask(request);
            return page::consent(&client.unwrap_or_default(), &scopes, &id, None);
        }
        Consent::Refuses => return refused(&request, StatusCode::FOUND),
        Consent::Allows(email) => (email, None),
        Consent::AllowsOnly(email, scopes) => (email, Some(scopes)),
    };
    let mut request = request;
    if let Some(only) = only {
        request.scopes.retain(|scope| only.contains(scope));
    }
    match state.user_by_email(&email).map(|user| user.id.clone()) {
        Some(user) => allowed(&mut state, request, &user, now, StatusCode::FOUND),
        None => page::problem("There is no account with this e-mail address"),
    }
}

/// `POST` from the page.
pub(super) fn decide(store: &CloudSyncStore, call: &Call) -> Response {
    let now = store.clock().now();
    let form = call.form().unwrap_or_default();
    let mut state = store.lock();
    let id = field(&form, "request").unwrap_or_default();
    let Some(request) = state.oauth.asked.get(id).cloned() else {
        return page::problem("This page is out of date; start again where you came from");
    };
    match field(&form, "decision") {
        Some("allow") => {
            let user = field(&form, "email").and_then(|email| state.user_by_email(email.trim()));
            let Some(user) = user.map(|user| user.id.clone()) else {
                let client = state
                    .oauth
                    .client(&request.client)
                    .map(|client| client.name().to_owned());
                let complaint = "There is no account with this e-mail address.";
                return page::consent(&client.unwrap_or_default(), &request.scopes, id, Some(complaint));
            };
            state.oauth.asked.remove(id);
            allowed(&mut state, request, &user, now, StatusCode::SEE_OTHER)
        }
        Some("deny") => {
            state.oauth.asked.remove(id);
            refused(&request, StatusCode::SEE_OTHER)
        }
        _ => page::problem("Nothing was decided; go back and press a button"),
    }
}

/// What is wrong with a request.
enum Mistake {
    /// There is nobody to tell but the person.
    Shown(&'static str),
    SentBack {
        redirect: String,
        state: Option<String>,
        error: OauthError,
    },
}

fn read(ledger: &Ledger, call: &Call, pkce: Pkce) -> Result<AuthorizationRequest, Mistake> {
    let query = call
        .query()
        .ok_or(Mistake::Shown("The address has a parameter more than once"))?;
    let client = field(&query, "client_id").and_then(|id| ledger.client(id));
    let client = client.ok_or(Mistake::Shown("The application is not registered"))?;
    let redirect = field(&query, "redirect_uri").filter(|address| client.may_redirect_to(address));
    let redirect = redirect.ok_or(Mistake::Shown(
        "The application may not send you back to where it wants",
    ))?;
    let state = field(&query, "state").map(str::to_owned);
    let wrong = |error| Mistake::SentBack {
        redirect: redirect.to_owned(),
        state: state.clone(),
        error,
    };
    match field(&query, "response_type") {
        Some("code") => {}
        Some(_) => {
            let error = OauthError::new("unsupported_response_type", "response_type must be code");
            return Err(wrong(error));
        }
        None => return Err(wrong(OauthError::invalid_request("response_type is missing"))),
    }
    let scope = field(&query, "scope").ok_or_else(|| wrong(OauthError::invalid_scope("scope is missing")))?;
    let scopes = client.scopes(scope).map_err(wrong)?;
    let challenge = match pkce {
        Pkce::Unknown => None,
        Pkce::Verified => challenge(&query).map_err(wrong)?,
    };
    Ok(AuthorizationRequest {
        client: client.id().to_owned(),
        redirect: redirect.to_owned(),
        scopes,
        state: state.clone(),
        challenge,
    })
}

/// RFC 7636, 4.3; `plain`, which is also what a missing method means, isn't offered.
fn challenge(query: &[(String, String)]) -> Result<Option<String>, OauthError> {
    match (field(query, "code_challenge"), field(query, "code_challenge_method")) {
        (None, None) => Ok(None),
        // 256 bits in base64url.
        (Some(challenge), Some("S256")) if challenge.len() == 43 => Ok(Some(challenge.to_owned())),
        (Some(_), Some("S256")) => Err(OauthError::invalid_request("code_challenge is not a SHA-256 hash")),
        _ => Err(OauthError::invalid_request("code_challenge_method must be S256")),
    }
}

fn allowed(
    state: &mut State,
    request: AuthorizationRequest,
    user: &str,
    now: jiff::Timestamp,
    status: StatusCode,
) -> Response {
    let (redirect, echoed) = (request.redirect.clone(), request.state.clone());
    let code = state.oauth.issue_code(request, user, now);
    back(&redirect, echoed.as_deref(), &[("code", &code)], status)
}

fn refused(request: &AuthorizationRequest, status: StatusCode) -> Response {
    let error = [("error", "access_denied"), ("error_description", "The person refused")];
    back(&request.redirect, request.state.as_deref(), &error, status)
}

/// Sends the browser back to the client.
fn back(redirect: &str, state: Option<&str>, answer: &[(&str, &str)], status: StatusCode) -> Response {
    let Ok(mut url) = Url::parse(redirect) else {
        return page::problem("The application wants you to be sent to no address at all");
    };
    url.query_pairs_mut()
        .extend_pairs(answer)
        .extend_pairs(state.map(|state| ("state", state)));
    let Ok(location) = HeaderValue::try_from(url.as_str()) else {
        return page::problem("The application wants you to be sent to no address at all");
    };
    let mut response = Response::default();
    *response.status_mut() = status;
    response.headers_mut().insert(header::LOCATION, location);
    uncached(response)
}
