//! What an HTTP status means to a file system. The only place that says so.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::model::{Error, ErrorKind};

/// A provider's own words about a refusal.
#[derive(Clone, Debug, Default)]
pub struct Refusal {
    /// The provider's message, without secrets.
    pub message: Option<String>,
    /// When the words say more than the status does.
    pub kind: Option<ErrorKind>,
    /// When the wait is told elsewhere than in `Retry-After`.
    pub retry_after: Option<Duration>,
}

/// Reads a provider's error bodies and headers.
pub trait Dialect: Send + Sync + 'static {
    /// `body` is at most the first 64 KiB; empty for HEAD.
    fn explain(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refusal;
}

/// A dialect without words of its own.
pub struct PlainDialect;

impl Dialect for PlainDialect {
    fn explain(&self, _: StatusCode, _: &HeaderMap, _: &[u8]) -> Refusal {
        Refusal::default()
    }
}

/// The error for an answer outside 2xx.
pub fn error_for(status: StatusCode, headers: &HeaderMap, refusal: Refusal, purpose: &str) -> Error {
    let retry_after = refusal.retry_after.or_else(|| retry_after(headers, SystemTime::now()));
    let kind = refusal.kind.unwrap_or(match status.as_u16() {
        400 | 405 | 415 | 422 | 431 => ErrorKind::InvalidInput,
        401 => ErrorKind::NeedsLogin,
        402 => ErrorKind::Quota,
        403 => ErrorKind::Denied,
        404 | 410 => ErrorKind::NotFound,
        408 | 504 => ErrorKind::TimedOut,
        409 => ErrorKind::AlreadyExists,
        412 => ErrorKind::Changed,
        413 => ErrorKind::TooLarge,
        414 => ErrorKind::NameTooLong,
        416 => ErrorKind::BadData,
        423 | 425 => ErrorKind::Busy,
        429 => ErrorKind::RateLimited { retry_after },
        // Whoever says when to come again is there (RFC 9110, 15.6.4).
        503 if retry_after.is_some() => ErrorKind::RateLimited { retry_after },
        501 => ErrorKind::Unsupported,
        507 => ErrorKind::NoSpace,
        500..=599 => ErrorKind::Unreachable,
        _ => ErrorKind::BadData,
    });
    let kind = match kind {
        ErrorKind::RateLimited { retry_after: None } => ErrorKind::RateLimited { retry_after },
        kind => kind,
    };
    let words = refusal
        .message
        .unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason given").to_owned());
    Error::new(
        kind,
        format!("{purpose}: the provider answered {} {words:?}", status.as_u16()),
    )
}

/// The wait that `Retry-After` asks for, in seconds or as a date (RFC 9110, 10.2.3).
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(SystemTime::from(date).duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let with = |text: &'static str| HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 90);
        assert_eq!(retry_after(&with("120"), now), Some(Duration::from_secs(120)));
        assert_eq!(
            retry_after(&with("Sun, 06 Nov 1994 08:49:37 GMT"), now),
            Some(Duration::from_secs(90))
        );
        assert_eq!(
            retry_after(&with("Sun, 06 Nov 1994 08:49:37 GMT"), SystemTime::now()),
            Some(Duration::ZERO)
        );
        assert_eq!(retry_after(&with("soon"), now), None);
    }

    #[test]
    fn a_wait_that_is_told_makes_a_refusal_for_now() {
        let told = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("7"))]);
        let kind = |status, headers: &HeaderMap, refusal| error_for(status, headers, refusal, "list").kind();
        let limited = |seconds| ErrorKind::RateLimited {
            retry_after: Some(Duration::from_secs(seconds)),
        };
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(
            kind(unavailable, &HeaderMap::new(), Refusal::default()),
            ErrorKind::Unreachable
        );
        assert_eq!(kind(unavailable, &told, Refusal::default()), limited(7));
        let words = Refusal {
            kind: Some(ErrorKind::RateLimited { retry_after: None }),
            ..Refusal::default()
        };
        assert_eq!(kind(unavailable, &told, words.clone()), limited(7));
        assert_eq!(
            kind(unavailable, &HeaderMap::new(), words),
            ErrorKind::RateLimited { retry_after: None }
        );
    }

    #[test]
    fn the_providers_words_win_over_the_status() {
        let refusal = Refusal {
            kind: Some(ErrorKind::TooLarge),
            message: Some("too big".into()),
            retry_after: None,
        };
        let error = error_for(StatusCode::BAD_REQUEST, &HeaderMap::new(), refusal, "upload");
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(error.message().contains("too big"));
    }
}
