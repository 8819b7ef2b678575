//! Errors on both sides of opendal, and the words of S3 services.

use std::error::Error as StdError;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;

use crate::model::{Error, ErrorKind};
use crate::net::{Dialect, Refusal};

/// The longest explanation of a service that is passed on, in characters.
const MAX_WORDS: usize = 300;

/// Ours, packed so that opendal's own logic understands it.
pub(super) fn theirs(error: Error) -> opendal::Error {
    let kind = match error.kind() {
        ErrorKind::NotFound => opendal::ErrorKind::NotFound,
        ErrorKind::Changed => opendal::ErrorKind::ConditionNotMatch,
        ErrorKind::Denied | ErrorKind::NeedsLogin => opendal::ErrorKind::PermissionDenied,
        ErrorKind::RateLimited { .. } => opendal::ErrorKind::RateLimited,
        ErrorKind::Unsupported => opendal::ErrorKind::Unsupported,
        _ => opendal::ErrorKind::Unexpected,
    };
    opendal::Error::new(kind, error.message().to_owned()).set_source(error)
}

/// The one that is packed in it, else what opendal says.
pub(super) fn ours(error: opendal::Error) -> Error {
    if let Some(packed) = packed(&error) {
        return packed;
    }
    let kind = match error.kind() {
        opendal::ErrorKind::NotFound => ErrorKind::NotFound,
        opendal::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        opendal::ErrorKind::PermissionDenied => ErrorKind::Denied,
        opendal::ErrorKind::ConditionNotMatch | opendal::ErrorKind::Conflict => ErrorKind::Changed,
        opendal::ErrorKind::RateLimited => ErrorKind::RateLimited { retry_after: None },
        opendal::ErrorKind::IsADirectory => ErrorKind::IsADirectory,
        opendal::ErrorKind::NotADirectory => ErrorKind::NotADirectory,
        opendal::ErrorKind::Unsupported => ErrorKind::Unsupported,
        opendal::ErrorKind::ConfigInvalid => ErrorKind::InvalidInput,
        _ if error.is_temporary() => ErrorKind::Unreachable,
        _ => ErrorKind::BadData,
    };
    let message: String = error.message().chars().take(MAX_WORDS).collect();
    Error::new(kind, format!("the S3 service: {message}"))
}

/// The one that is packed somewhere in it.
pub(super) fn unexpected(error: &(dyn StdError + 'static)) -> Error {
    packed(error).unwrap_or_else(|| Error::bad_data(format!("read from the bucket: {error}")))
}

fn packed(error: &(dyn StdError + 'static)) -> Option<Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(ours) = error.downcast_ref::<Error>() {
            return Some(ours.clone());
        }
        // What an I/O error holds is not its source but itself.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// The codes of S3's error documents (Amazon S3 API reference, "Error responses").
pub(super) struct S3Dialect;

impl Dialect for S3Dialect {
    fn explain(&self, status: StatusCode, _: &HeaderMap, body: &[u8]) -> Refusal {
        let text = String::from_utf8_lossy(body);
        let code = within(&text, "Code");
        let message = within(&text, "Message");
        Refusal {
            kind: code.and_then(|code| kind(status, code)),
            message: match (code, message) {
                (Some(code), Some(message)) => Some(format!("{code}: {message}").chars().take(MAX_WORDS).collect()),
                (Some(code), None) => Some(code.to_owned()),
                _ => None,
            },
            retry_after: None,
        }
    }
}

fn kind(status: StatusCode, code: &str) -> Option<ErrorKind> {
    Some(match code {
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "ExpiredTokenException"
        | "InvalidSecurity"
        | "NotSignedUp" => ErrorKind::NeedsLogin,
        "SlowDown" | "TooManyRequests" | "RequestLimitExceeded" | "BandwidthLimitExceeded" => {
            ErrorKind::RateLimited { retry_after: None }
        }
        "NoSuchBucket" | "NoSuchKey" => ErrorKind::NotFound,
        "PreconditionFailed" | "ConditionalRequestConflict" => ErrorKind::Changed,
        "OperationAborted" => ErrorKind::Busy,
        "RequestTimeout" | "InternalError" | "ServiceUnavailable" => ErrorKind::Unreachable,
        "EntityTooLarge" | "MaxMessageLengthExceeded" => ErrorKind::TooLarge,
        "KeyTooLongError" => ErrorKind::NameTooLong,
        "QuotaExceeded" | "XMinioStorageQuotaExceeded" => ErrorKind::Quota,
        "NotImplemented" => ErrorKind::Unsupported,
        // A conflict that is none of the above is about the bucket, never about a name in it.
        _ if status == StatusCode::CONFLICT => ErrorKind::Busy,
        _ => return None,
    })
}

/// The text of an XML element that has no other one in it.
fn within<'a>(text: &'a str, element: &str) -> Option<&'a str> {
    let rest = text.split_once(&format!("<{element}>"))?.1;
    let found = rest.split_once("</")?.0.trim();
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_comes_back_from_opendal_as_it_went_in() {
        let told = Error::new(
            ErrorKind::RateLimited {
                retry_after: Some(std::time::Duration::from_secs(3)),
            },
            "slow down",
        );
        let back = ours(theirs(told.clone()).with_context("service", "s3"));
        assert_eq!((back.kind(), back.message()), (told.kind(), told.message()));
        let packed_in_io = std::io::Error::other(theirs(told.clone()));
        assert_eq!(unexpected(&packed_in_io).kind(), told.kind());
        let own = opendal::Error::new(opendal::ErrorKind::NotFound, "no such key");
        assert_eq!(ours(own).kind(), ErrorKind::NotFound);
    }

    #[test]
    fn the_code_says_more_than_the_status() {
        let explain = |status, code: &str| {
            let body =
                format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>Why it is so</Message></Error>");
            S3Dialect.explain(status, &HeaderMap::new(), body.as_bytes())
        };
        let expired = explain(StatusCode::BAD_REQUEST, "ExpiredToken");
        assert_eq!(expired.kind, Some(ErrorKind::NeedsLogin));
        assert_eq!(expired.message.as_deref(), Some("ExpiredToken: Why it is so"));
        assert_eq!(explain(StatusCode::FORBIDDEN, "AccessDenied").kind, None);
        assert_eq!(
            explain(StatusCode::SERVICE_UNAVAILABLE, "SlowDown").kind,
            Some(ErrorKind::RateLimited { retry_after: None })
        );
        assert_eq!(
            S3Dialect.explain(StatusCode::FORBIDDEN, &HeaderMap::new(), b"").message,
            None
        );
    }
}
