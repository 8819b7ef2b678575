//! How a request fails, and what that looks like on the wire.
//!
//! Responsible for the error shape, JSON `{"detail": "…"}` with the same text in `x-reduct-error`, and for the few
//! errors of the framework beneath, which have another shape. Not responsible for when anything fails.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;

/// Carries the text of an error, so that the answer to a `HEAD` has it too (measured on 1.21.5).
pub(super) const ERROR_HEADER: HeaderName = HeaderName::from_static("x-reduct-error");

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The service's own error.
    Service {
        /// Its status.
        status: StatusCode,
        /// Its text.
        detail: String,
    },
    /// An error in plain text, as the framework makes it.
    Framework {
        /// Its status.
        status: StatusCode,
        /// Its text.
        text: String,
    },
    /// 405 without a body.
    MethodNotAllowed {
        /// The value of `Allow`.
        allow: &'static str,
    },
    /// The connection ends without an answer.
    Broken,
}

impl Failure {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self::Service {
            status,
            detail: detail.into(),
        }
    }

    pub(super) fn unauthorized(detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    pub(super) fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    pub(super) fn invalid_json(error: &serde_json::Error) -> Self {
        Self::unprocessable(format!("Invalid JSON: {error}"))
    }

    /// An address that no endpoint has.
    pub(super) fn nowhere() -> Self {
        Self::not_found("Not found")
    }

    /// The end of a query: an error in shape, though its status is a success.
    pub(super) fn no_content() -> Self {
        Self::new(StatusCode::NO_CONTENT, "No content")
    }

    /// Status and text in one line, as a batch reports it for one of its records.
    pub(super) fn in_one_line(&self) -> String {
        match self {
            Self::Service { status, detail } => format!("{},{detail}", status.as_u16()),
            Self::Framework { status, text } => format!("{},{text}", status.as_u16()),
            Self::MethodNotAllowed { .. } | Self::Broken => "500,".to_owned(),
        }
    }

    pub(super) fn into_response(self) -> Response {
        match self {
            Self::Service { status, detail } => {
                let body = format!("{{\"detail\": \"{}\"}}", detail.replace('"', "'"));
                let length = HeaderValue::from(body.len());
                // A 204 declares the length of the body that it doesn't have.
                let body = if status == StatusCode::NO_CONTENT {
                    Body::empty()
                } else {
                    Body::from(body)
                };
                let mut response = Response::new(body);
                *response.status_mut() = status;
                let headers = response.headers_mut();
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                headers.insert(header::CONTENT_LENGTH, length);
                if let Ok(detail) = HeaderValue::try_from(detail) {
                    headers.insert(ERROR_HEADER, detail);
                }
                response
            }
            Self::Framework { status, text } => {
                let mut response = Response::new(Body::from(text));
                *response.status_mut() = status;
                let plain = HeaderValue::from_static("text/plain; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, plain);
                response
            }
            Self::MethodNotAllowed { allow } => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
                response
                    .headers_mut()
                    .insert(header::ALLOW, HeaderValue::from_static(allow));
                response
            }
            Self::Broken => {
                let broken =
                    futures_util::stream::once(async { Err::<bytes::Bytes, _>(std::io::Error::other("broken")) });
                Response::new(Body::from_stream(broken))
            }
        }
    }
}
