//! Every way a request to the client API can fail (error-handling).
//!
//! Responsible for statuses and for the two forms of `detail`: a sentence, or the framework's list of what is wrong
//! with a request.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};

use super::answers::json_response;
use super::assumptions::{FILE_TOO_LARGE, NO_ACCESS, QUOTA_EXCEEDED, Validation};
use super::tree::StoreError;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No `X-API-Key` (authentication).
    MissingKey,
    /// A key that isn't known, or not any more (authentication).
    UnknownKey,
    /// The account isn't Cloud Pro (authentication).
    PlanRequired,
    /// No room in the bucket's window (rate-limiting).
    RateLimited {
        /// Seconds.
        retry_after: i64,
    },
    /// A parameter, a body or a path that doesn't fit.
    Invalid(Invalid),
    /// No such route.
    NoRoute,
    /// A route, but not with this method.
    MethodNotAllowed,
    /// Nothing there; the text says of what kind.
    NotFound(&'static str),
    /// Something is in the way.
    Conflict(&'static str),
    /// Someone else's item.
    NoAccess,
    /// Larger than a file may be.
    FileTooLarge,
    /// No space left.
    QuotaExceeded,
    /// The range starts at or past the end.
    Unsatisfiable {
        /// The file's length.
        total: usize,
    },
}

/// One thing wrong with a request, as the framework describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Invalid {
    kind: &'static str,
    place: Place,
    name: String,
    message: String,
}

/// The part of a request that something is wrong with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Query,
    Header,
    Body,
}

impl Place {
    fn word(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Query => "query",
            Self::Header => "header",
            Self::Body => "body",
        }
    }
}

impl Refusal {
    pub(super) fn missing(place: Place, name: &str) -> Self {
        Self::invalid_of("missing", place, name, "Field required")
    }

    pub(super) fn unknown(place: Place, name: &str) -> Self {
        Self::invalid_of("extra_forbidden", place, name, "Extra inputs are not permitted")
    }

    pub(super) fn invalid(place: Place, name: &str, message: impl Into<String>) -> Self {
        Self::invalid_of("value_error", place, name, message)
    }

    fn invalid_of(kind: &'static str, place: Place, name: &str, message: impl Into<String>) -> Self {
        Self::Invalid(Invalid {
            kind,
            place,
            name: name.to_owned(),
            message: message.into(),
        })
    }

    pub(super) fn into_response(self, validation: Validation) -> Response {
        let text = |status: StatusCode, text: &str| json_response(status, &json!({"detail": text}));
        match self {
            Self::MissingKey => fields(
                StatusCode::UNAUTHORIZED,
                "missing",
                &[Place::Header.word(), "X-API-Key"],
                "Field required",
            ),
            Self::UnknownKey => text(StatusCode::UNAUTHORIZED, "User not found."),
            Self::PlanRequired => text(
                StatusCode::FORBIDDEN,
                "API access requires Cloud Pro plan. Upgrade to use the API.",
            ),
            Self::RateLimited { retry_after } => {
                let mut response = text(
                    StatusCode::TOO_MANY_REQUESTS,
                    "Rate limit exceeded. Please try again later.",
                );
                let headers = response.headers_mut();
                headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after));
                response
            }
            Self::Invalid(invalid) => {
                let status = match validation {
                    Validation::BadRequest => StatusCode::BAD_REQUEST,
                    Validation::UnprocessableContent => StatusCode::UNPROCESSABLE_ENTITY,
                };
                let place = [invalid.place.word(), &invalid.name];
                let place = if invalid.name.is_empty() { &place[..1] } else { &place };
                fields(status, invalid.kind, place, &invalid.message)
            }
            Self::NoRoute => text(StatusCode::NOT_FOUND, "Not Found"),
            Self::MethodNotAllowed => text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"),
            Self::NotFound(what) => text(StatusCode::NOT_FOUND, what),
            Self::Conflict(what) => text(StatusCode::CONFLICT, what),
            Self::NoAccess => text(NO_ACCESS.0, NO_ACCESS.1),
            Self::FileTooLarge => text(FILE_TOO_LARGE.0, FILE_TOO_LARGE.1),
            Self::QuotaExceeded => text(QUOTA_EXCEEDED.0, QUOTA_EXCEEDED.1),
            Self::Unsatisfiable { total } => {
                let mut response = text(StatusCode::RANGE_NOT_SATISFIABLE, "Range Not Satisfiable");
                if let Ok(value) = HeaderValue::try_from(format!("bytes */{total}")) {
                    response.headers_mut().insert(header::CONTENT_RANGE, value);
                }
                response
            }
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Missing => Self::NotFound("Item not found."),
            StoreError::MissingParent => Self::NotFound("Parent folder not found."),
            StoreError::Taken => Self::Conflict("An item already exists at this path."),
            StoreError::NotEmpty => Self::Conflict("Folder is not empty."),
            StoreError::IntoItself => Self::invalid(Place::Body, "", "A folder cannot be moved or copied into itself"),
            StoreError::Unusable => Self::invalid(Place::Body, "", "The path cannot be used here"),
            StoreError::Full => Self::QuotaExceeded,
        }
    }
}

fn fields(status: StatusCode, kind: &str, place: &[&str], message: &str) -> Response<Body> {
    let error = json!({"type": kind, "loc": place, "msg": message, "input": Value::Null});
    json_response(status, &json!({"detail": [error]}))
}
