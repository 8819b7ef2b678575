//! The JSON of ReductStore's API and the words of its refusals (measured on ReductStore 1.21.5).

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::{Deserialize, Deserializer};

use super::key::EntryId;
use super::names::BUCKET_FILES;
use crate::model::ErrorKind;
use crate::net::{Dialect, Refusal};

const ERROR_HEADER: &str = "x-reduct-error";

/// Whether a bucket or an entry is there or being removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Status {
    #[default]
    Ready,
    Deleting,
    /// A word of a later server.
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
pub(super) struct BucketList {
    pub(super) buckets: Vec<BucketInfo>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct BucketInfo {
    pub(super) name: String,
    /// On disk, with the overhead of blocks, in bytes.
    #[serde(default, deserialize_with = "number")]
    pub(super) size: u64,
    /// In microseconds since 1970; meaningless while nothing is stored.
    #[serde(default, deserialize_with = "number")]
    pub(super) latest_record: u64,
    #[serde(default)]
    pub(super) status: Status,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum QuotaType {
    #[default]
    None,
    Fifo,
    Hard,
    /// A word of a later server.
    #[serde(other)]
    Other,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct BucketSettings {
    #[serde(default)]
    pub(super) quota_type: QuotaType,
    /// In bytes.
    #[serde(default, deserialize_with = "number")]
    pub(super) quota_size: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct EntryInfo {
    pub(super) name: String,
    /// On disk, in bytes.
    #[serde(default, deserialize_with = "number")]
    pub(super) size: u64,
    /// Counts broken records and those being written, too.
    #[serde(default, deserialize_with = "number")]
    pub(super) record_count: u64,
    /// Bounds from the block index: after a removal they may name a record that is gone.
    #[serde(default, deserialize_with = "number")]
    pub(super) oldest_record: u64,
    #[serde(default, deserialize_with = "number")]
    pub(super) latest_record: u64,
    #[serde(default)]
    pub(super) status: Status,
}

/// The answer to `GET /b/{bucket}`: the whole tree of a bucket's entries.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Bucket {
    pub(super) info: BucketInfo,
    #[serde(default)]
    pub(super) settings: BucketSettings,
    #[serde(default)]
    pub(super) entries: Vec<EntryInfo>,
}

impl Bucket {
    /// Whether an entry, or one below it, exists.
    pub(super) fn has(&self, entry: &EntryId) -> bool {
        self.ready().any(|info| {
            info.name
                .strip_prefix(entry.path.as_str())
                .is_some_and(|tail| tail.is_empty() || tail.starts_with('/'))
        })
    }

    /// Whether an entry is listed at all, even as one being removed.
    pub(super) fn mentions(&self, entry: &EntryId) -> bool {
        self.entries.iter().any(|info| info.name == entry.path)
    }

    pub(super) fn entry(&self, path: &str) -> Option<&EntryInfo> {
        self.ready().find(|info| info.name == path)
    }

    /// The segments directly below an entry or, without one, below the bucket. System entries are left out.
    pub(super) fn segments(&self, below: Option<&EntryId>) -> Vec<&str> {
        let mut segments: Vec<&str> = self
            .ready()
            .filter_map(|info| match below {
                None => Some(info.name.as_str()),
                Some(entry) => info.name.strip_prefix(entry.path.as_str())?.strip_prefix('/'),
            })
            .filter_map(|tail| tail.split('/').next())
            .filter(|segment| !segment.is_empty() && !segment.starts_with('$'))
            .filter(|segment| below.is_some() || *segment != BUCKET_FILES)
            .collect();
        segments.sort_unstable();
        segments.dedup();
        segments
    }

    pub(super) fn ready(&self) -> impl Iterator<Item = &EntryInfo> {
        self.entries.iter().filter(|info| info.status != Status::Deleting)
    }
}

/// The answer to `GET /info`.
#[derive(Debug, Deserialize)]
pub(super) struct ServerInfo {
    /// On disk, in bytes.
    #[serde(deserialize_with = "number")]
    pub(super) usage: u64,
}

/// Reads a number, which servers of version 1.0 send as text.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Sent {
        Number(u64),
        Text(String),
    }
    match Sent::deserialize(deserializer)? {
        Sent::Number(number) => Ok(number),
        Sent::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct QueryId {
    pub(super) id: u64,
}

/// ReductStore's refusals: a JSON `detail`, and the same text in a header, which is all that HEAD has.
pub(super) struct ReductDialect;

impl Dialect for ReductDialect {
    fn explain(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refusal {
        #[derive(Deserialize)]
        struct Detail {
            detail: String,
        }
        let message = serde_json::from_slice::<Detail>(body)
            .ok()
            .map(|detail| detail.detail)
            .or_else(|| headers.get(ERROR_HEADER)?.to_str().ok().map(str::to_owned))
            .or_else(|| plain_text(body));
        let words = message.as_deref().unwrap_or_default();
        Refusal {
            kind: kind(status, words),
            retry_after: retry_after(words),
            message,
        }
    }
}

/// Some refusals of the framework, and of the rate limit, are plain text.
fn plain_text(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?.trim();
    (!text.is_empty() && text.len() <= 300 && !text.starts_with('<')).then(|| text.to_owned())
}

/// What the words say beyond the status.
fn kind(status: StatusCode, words: &str) -> Option<ErrorKind> {
    match status.as_u16() {
        400 if words.starts_with("Quota of") => Some(ErrorKind::Quota),
        409 if words.contains("being deleted") => Some(ErrorKind::Busy),
        409 if words.contains("provisioned") => Some(ErrorKind::NotPermitted),
        500 if words.contains("Failed to keep quota") => Some(ErrorKind::TooLarge),
        500 if words.contains("File name too long") => Some(ErrorKind::NameTooLong),
        500 if words.contains("is broken") => Some(ErrorKind::BadData),
        _ => None,
    }
}

/// The rate limit tells its wait in words only: `… retry_after=60s`.
fn retry_after(words: &str) -> Option<Duration> {
    let (_, tail) = words.split_once("retry_after=")?;
    let (seconds, _) = tail.split_once('s')?;
    seconds.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::error_for;

    fn explained(status: u16, words: &str) -> ErrorKind {
        let status = StatusCode::from_u16(status).unwrap();
        let body = serde_json::json!({ "detail": words }).to_string();
        let refusal = ReductDialect.explain(status, &HeaderMap::new(), body.as_bytes());
        error_for(status, &HeaderMap::new(), refusal, "test").kind()
    }

    #[test]
    fn words_say_more_than_the_status() {
        for (status, words, kind) in [
            (400, "Quota of 'x' exceeded", ErrorKind::Quota),
            (400, "Something else", ErrorKind::InvalidInput),
            (
                403,
                "Token 'w' doesn't have read access to bucket 'x'",
                ErrorKind::Denied,
            ),
            (404, "Record 7 not found in entry x/y", ErrorKind::NotFound),
            (
                409,
                "A record with timestamp 5 already exists",
                ErrorKind::AlreadyExists,
            ),
            (409, "Entry 'x' is being deleted", ErrorKind::Busy),
            (409, "Can't remove provisioned bucket 'x'", ErrorKind::NotPermitted),
            (425, "Record is still being written", ErrorKind::Busy),
            (500, "Failed to keep quota of 'x'", ErrorKind::TooLarge),
            (500, "File name too long (os error 36)", ErrorKind::NameTooLong),
            (500, "Record with timestamp 1 in x/y is broken", ErrorKind::BadData),
            (500, "Something else", ErrorKind::Unreachable),
            (507, "Not enough disk space", ErrorKind::NoSpace),
        ] {
            assert_eq!(explained(status, words), kind, "{status} {words}");
        }
    }

    #[test]
    fn the_rate_limit_tells_its_wait_in_words() {
        let words = "rate limit for api requests (client IP) exceeded: used=9 limit=8 retry_after=60s";
        let retry_after = Some(Duration::from_secs(60));
        assert_eq!(explained(429, words), ErrorKind::RateLimited { retry_after });
        let refusal = ReductDialect.explain(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), words.as_bytes());
        assert_eq!(refusal.retry_after, retry_after);
    }

    #[test]
    fn without_a_body_the_header_speaks() {
        let headers = HeaderMap::from_iter([(
            reqwest::header::HeaderName::from_static(ERROR_HEADER),
            reqwest::header::HeaderValue::from_static("Record with timestamp 1 in x/y is broken"),
        )]);
        let refusal = ReductDialect.explain(StatusCode::INTERNAL_SERVER_ERROR, &headers, b"");
        assert_eq!(refusal.kind, Some(ErrorKind::BadData));
    }

    #[test]
    fn the_tree_of_a_bucket_is_read_from_one_list() {
        let bucket: Bucket = serde_json::from_value(serde_json::json!({
            "info": {"name": "b", "status": "READY"},
            "settings": {"quota_type": "SOMETHING NEW"},
            "entries": [
                {"name": "_-"}, {"name": "a"}, {"name": "a/b"}, {"name": "a/b/c"}, {"name": "a/d", "status": "DELETING"},
                {"name": "ab"}, {"name": "$sys/x"}, {"name": "deep/er"},
            ]
        }))
        .unwrap();
        let entry = |path: &str| EntryId {
            bucket: "b".into(),
            path: path.into(),
        };
        assert_eq!(bucket.segments(None), ["a", "ab", "deep"]);
        assert_eq!(bucket.segments(Some(&entry("a"))), ["b"]);
        assert_eq!(bucket.segments(Some(&entry("a/b"))), ["c"]);
        assert!(bucket.has(&entry("deep")) && bucket.has(&entry("a/b/c")));
        assert!(!bucket.has(&entry("a/d")) && !bucket.has(&entry("dee")));
    }
}
