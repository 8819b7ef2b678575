//! Every way an API request can fail, and how that looks.
//!
//! Responsible for the documented envelope `{"error":{"code","message","details"}}` ("Error Handling"), for the codes
//! and for the status of each. Not responsible for the authorization server's errors, which are those of RFC 6749.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::access::{Role, Scope};
use super::assumptions::Statuses;

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Invalid,
    NoCredential,
    BadCredential,
    Denied,
    NotFound,
    Exists,
    NotEmpty,
    Quota,
    TooLarge,
    WrongType,
    WrongMethod,
    WrongRange,
    TooOften,
}

impl Kind {
    fn code(self) -> &'static str {
        match self {
            Self::Invalid | Self::WrongType | Self::WrongRange => "invalid_request",
            Self::NoCredential => "authentication_required",
            Self::BadCredential => "invalid_token",
            Self::Denied => "permission_denied",
            Self::NotFound | Self::WrongMethod => "resource_not_found",
            Self::Exists => "resource_already_exists",
            Self::NotEmpty => "resource_not_empty",
            Self::Quota => "quota_exceeded",
            Self::TooLarge => "payload_too_large",
            Self::TooOften => "rate_limit_exceeded",
        }
    }

    fn status(self, statuses: Statuses) -> StatusCode {
        let (listed, standard) = match self {
            Self::Invalid => (StatusCode::BAD_REQUEST, StatusCode::BAD_REQUEST),
            Self::NoCredential | Self::BadCredential => (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED),
            Self::Denied => (StatusCode::FORBIDDEN, StatusCode::FORBIDDEN),
            Self::NotFound => (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND),
            Self::Exists | Self::NotEmpty => (StatusCode::BAD_REQUEST, StatusCode::CONFLICT),
            Self::Quota => (StatusCode::BAD_REQUEST, StatusCode::INSUFFICIENT_STORAGE),
            Self::TooLarge => (StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE),
            Self::WrongType => (StatusCode::BAD_REQUEST, StatusCode::UNSUPPORTED_MEDIA_TYPE),
            Self::WrongMethod => (StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED),
            // Whoever serves ranges at all does it as HTTP says.
            Self::WrongRange => (StatusCode::RANGE_NOT_SATISFIABLE, StatusCode::RANGE_NOT_SATISFIABLE),
            Self::TooOften => (StatusCode::TOO_MANY_REQUESTS, StatusCode::TOO_MANY_REQUESTS),
        };
        match statuses {
            Statuses::Listed => listed,
            Statuses::Standard => standard,
        }
    }
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Failure {
    kind: Kind,
    message: String,
    details: Map<String, Value>,
}

impl Failure {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            details: Map::new(),
        }
    }

    fn with(mut self, detail: &str, value: impl Into<Value>) -> Self {
        self.details.insert(detail.to_owned(), value.into());
        self
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    pub(super) fn no_credential() -> Self {
        Self::new(Kind::NoCredential, "Send an API key or access token as a bearer token")
    }

    pub(super) fn bad_credential() -> Self {
        Self::new(Kind::BadCredential, "The API key or access token is not valid")
    }

    pub(super) fn denied(message: impl Into<String>) -> Self {
        Self::new(Kind::Denied, message)
    }

    pub(super) fn lacks_scope(scope: Scope) -> Self {
        Self::new(Kind::Denied, format!("The credential lacks {scope}")).with("required", scope.as_str())
    }

    pub(super) fn lacks_role(role: Role) -> Self {
        Self::new(Kind::Denied, format!("This needs the role {}", role.as_str())).with("requiredRole", role.as_str())
    }

    pub(super) fn not_found(what: &str) -> Self {
        Self::new(Kind::NotFound, format!("{what} not found"))
    }

    pub(super) fn no_path(path: &str) -> Self {
        Self::new(Kind::NotFound, "File not found at the specified path").with("path", path)
    }

    pub(super) fn exists(what: &str, value: &str) -> Self {
        Self::new(Kind::Exists, format!("This {what} is taken")).with(what, value)
    }

    pub(super) fn not_empty() -> Self {
        Self::new(Kind::NotEmpty, "The folder is not empty")
    }

    pub(super) fn quota(what: &str) -> Self {
        Self::new(Kind::Quota, format!("The plan has no room for more {what}"))
    }

    pub(super) fn too_large(limit: u64) -> Self {
        Self::new(Kind::TooLarge, "The file is too large").with("limit", limit)
    }

    pub(super) fn wrong_type(wanted: &str) -> Self {
        Self::new(Kind::WrongType, format!("Content-Type must be {wanted}"))
    }

    pub(super) fn wrong_method() -> Self {
        Self::new(Kind::WrongMethod, "There is no such endpoint")
    }

    pub(super) fn wrong_range() -> Self {
        Self::new(Kind::WrongRange, "The range is not satisfiable")
    }

    pub(super) fn too_often() -> Self {
        Self::new(Kind::TooOften, "Too many requests")
    }

    pub(super) fn into_response(self, statuses: Statuses) -> Response {
        let body = json!({"error": {
            "code": self.kind.code(),
            "message": self.message,
            "details": self.details,
        }});
        json_response(self.kind.status(statuses), &body)
    }
}

/// An answer with a JSON body.
pub(super) fn json_response(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
