//! Errors of the endpoints that programs call: `{"error","error_description"}` (RFC 6749, 5.2).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::json;

use crate::emulator::cloudsync::failure::json_response;

/// A refusal of the authorization server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OauthError {
    status: StatusCode,
    pub(super) code: &'static str,
    pub(super) description: &'static str,
}

impl OauthError {
    pub(super) const fn new(code: &'static str, description: &'static str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code,
            description,
        }
    }

    pub(super) const fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    pub(super) const fn invalid_request(description: &'static str) -> Self {
        Self::new("invalid_request", description)
    }

    pub(super) const fn invalid_grant(description: &'static str) -> Self {
        Self::new("invalid_grant", description)
    }

    pub(super) const fn invalid_scope(description: &'static str) -> Self {
        Self::new("invalid_scope", description)
    }

    pub(super) const fn unauthorized_client(description: &'static str) -> Self {
        Self::new("unauthorized_client", description)
    }

    pub(super) const fn invalid_client() -> Self {
        Self::new("invalid_client", "The client is unknown or its secret is wrong")
            .with_status(StatusCode::UNAUTHORIZED)
    }

    pub(super) fn into_response(self) -> Response {
        let body = json!({"error": self.code, "error_description": self.description});
        uncached(json_response(self.status, &body))
    }
}

/// RFC 6749, 5.1: answers with tokens, and errors like them, are kept by nobody.
pub(super) fn uncached(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}
