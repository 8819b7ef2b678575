//! The server's description of itself (RFC 8414), for stores that offer what the provider doesn't document.
//!
//! Without it nobody could know the addresses of device authorization and revocation.

use axum::http::{StatusCode, header};
use axum::response::Response;
use serde_json::json;

use super::error::OauthError;
use super::{Call, DeviceFlow, Revocation};
use crate::emulator::cloudsync::Assumptions;
use crate::emulator::cloudsync::failure::json_response;

pub(super) const PATH: &str = "/.well-known/oauth-authorization-server";

pub(super) fn is_there(assumptions: &Assumptions) -> bool {
    assumptions.device != DeviceFlow::Absent || assumptions.revocation == Revocation::Offered
}

pub(super) fn tell(call: &Call, assumptions: &Assumptions) -> Response {
    let host = call.parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(host) = host else {
        return OauthError::invalid_request("The request has no Host").into_response();
    };
    let at = |path: &str| format!("http://{host}{path}");
    let mut document = json!({
        "issuer": at(""),
        "authorization_endpoint": at("/oauth/authorize"),
        "token_endpoint": at("/oauth/token"),
        "response_types_supported": ["code"],
    });
    if assumptions.device != DeviceFlow::Absent {
        document["device_authorization_endpoint"] = at("/oauth/device/code").into();
    }
    if assumptions.revocation == Revocation::Offered {
        document["revocation_endpoint"] = at("/oauth/revoke").into();
    }
    json_response(StatusCode::OK, &document)
}
