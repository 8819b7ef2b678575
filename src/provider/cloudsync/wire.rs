//! The JSON of CloudSync, what its refusals mean, and how its facts become entries.
//!
//! Shapes are those of the documentation's samples (Files, Workspaces and Users API). What a sample shows and this
//! client can do without is optional.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use serde::Deserialize;

use super::key::Key;
use crate::model::{Entry, ErrorKind, Kind, Name, Result, Rights, Version};
use crate::net::{Dialect, Refusal};

/// The version of every folder: CloudSync has nothing that changes with what is in one.
const FOLDER_VERSION: &str = "folder";
/// The shortest wait after 429: `X-RateLimit-Reset` is in whole seconds, so the window may end a little later than told.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// Unix seconds at which the window of requests ends (documentation, "Rate Limits").
const RATE_RESET: &str = "x-ratelimit-reset";

/// `{"data":…}` around every answer but a download.
#[derive(Deserialize)]
pub(super) struct Envelope<T> {
    pub(super) data: T,
}

/// One page of a listing.
#[derive(Deserialize)]
pub(super) struct Page {
    pub(super) data: Vec<Item>,
    #[serde(default)]
    pub(super) pagination: Pagination,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pagination {
    /// May be there on the last page too.
    pub(super) cursor: Option<String>,
    #[serde(default)]
    pub(super) has_more: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ItemKind {
    File,
    Folder,
}

impl ItemKind {
    pub(super) fn of(kind: Kind) -> Self {
        match kind {
            Kind::File => Self::File,
            Kind::Directory => Self::Folder,
        }
    }
}

/// A file or folder. The answer to an upload has `version` and lacks `hash` and `modifiedAt`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item {
    pub(super) id: String,
    pub(super) name: String,
    /// From the workspace's root, beginning with a slash, the name included.
    pub(super) path: String,
    #[serde(rename = "type")]
    pub(super) kind: ItemKind,
    size: Option<u64>,
    hash: Option<String>,
    pub(super) version: Option<u64>,
    created_at: Option<String>,
    modified_at: Option<String>,
}

impl Item {
    pub(super) fn is_folder(&self) -> bool {
        self.kind == ItemKind::Folder
    }

    /// In bytes; 0 for folders.
    pub(super) fn size(&self) -> u64 {
        match self.kind {
            ItemKind::File => self.size.unwrap_or_default(),
            ItemKind::Folder => 0,
        }
    }

    /// The content's SHA-256, so that it survives a rename.
    pub(super) fn content_version(&self) -> Version {
        if self.is_folder() {
            return Version::new(FOLDER_VERSION);
        }
        match self.sha256() {
            Some(digest) => version_of(&digest),
            // Assumed never to happen: the documentation shows a hash with every file.
            None => Version::new(format!(
                "{}@{}",
                self.size(),
                self.modified_at.as_deref().unwrap_or_default()
            )),
        }
    }

    /// In lower-case hexadecimal.
    fn sha256(&self) -> Option<String> {
        let digest = self.hash.as_deref()?.strip_prefix("sha256:")?;
        let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_digest.then(|| digest.to_ascii_lowercase())
    }

    /// Whether all that an entry shows is told.
    pub(super) fn is_complete(&self) -> bool {
        self.is_folder() || (self.sha256().is_some() && self.modified_at.is_some())
    }

    /// The same where the hash is known because the content is.
    pub(super) fn with_sha256(self, digest: &str) -> Self {
        Self {
            hash: Some(format!("sha256:{digest}")),
            ..self
        }
    }

    /// Whether this is a file with exactly this content, as far as it is told.
    pub(super) fn holds(&self, size: u64, sha256: &str) -> bool {
        self.kind == ItemKind::File && self.size() == size && self.sha256().is_none_or(|digest| digest == sha256)
    }

    /// # Errors
    /// `InvalidName`, `NameTooLong` for a name that no file can have here.
    pub(super) fn entry(&self, workspace: &str, rights: Rights) -> Result<Entry> {
        let key = Key::Item {
            workspace: workspace.to_owned(),
            id: self.id.clone(),
        };
        let modified = self.modified_at.as_deref().or(self.created_at.as_deref());
        Ok(Entry {
            key: key.to_object_key(),
            name: Name::new(self.name.clone())?,
            kind: if self.is_folder() { Kind::Directory } else { Kind::File },
            size: self.size(),
            modified: modified.and_then(time).unwrap_or(SystemTime::UNIX_EPOCH),
            version: self.content_version(),
            rights,
            labels: BTreeMap::new(),
            posix: Default::default(),
        })
    }
}

/// A workspace as the list and `GET /workspaces/:id` describe it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Workspace {
    pub(super) id: String,
    pub(super) slug: Option<String>,
    pub(super) role: Option<String>,
    created_at: Option<String>,
}

impl Workspace {
    /// Its directory's name: the short name, which addresses take as well.
    pub(super) fn directory_name(&self) -> &str {
        self.slug.as_deref().unwrap_or(&self.id)
    }

    pub(super) fn created(&self) -> SystemTime {
        self.created_at
            .as_deref()
            .and_then(time)
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// One of a file's versions.
#[derive(Deserialize)]
pub(super) struct StoredVersion {
    pub(super) version: u64,
    pub(super) hash: Option<String>,
    size: Option<u64>,
    #[serde(rename = "modifiedAt")]
    modified_at: Option<String>,
    #[serde(rename = "modifiedBy")]
    modified_by: Option<serde_json::Value>,
}

impl StoredVersion {
    /// Number, time, bytes, hash and who made it, with tabs between; `-` for what isn't told.
    pub(super) fn line(&self) -> String {
        let by = match &self.modified_by {
            Some(serde_json::Value::String(by)) => by.clone(),
            Some(serde_json::Value::Object(by)) => ["email", "name", "id"]
                .iter()
                .find_map(|field| by.get(*field)?.as_str())
                .unwrap_or("-")
                .to_owned(),
            _ => "-".to_owned(),
        };
        format!(
            "{}\t{}\t{}\t{}\t{by}\n",
            self.version,
            self.modified_at.as_deref().unwrap_or("-"),
            self.size.map_or_else(|| "-".to_owned(), |size| size.to_string()),
            self.hash.as_deref().unwrap_or("-"),
        )
    }
}

/// `GET /me`, as far as it is about room.
#[derive(Deserialize)]
pub(super) struct Me {
    pub(super) usage: Option<AccountUsage>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AccountUsage {
    /// In bytes.
    pub(super) storage: u64,
    /// In bytes; -1 without a limit.
    pub(super) storage_limit: Option<i64>,
}

/// A key as the list and its making describe it.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApiKey {
    pub(super) id: String,
    pub(super) name: String,
    /// The key's first characters.
    pub(super) prefix: Option<String>,
    pub(super) permissions: BTreeSet<String>,
    pub(super) last_used: Option<String>,
    pub(super) created_at: Option<String>,
    /// Sent when a key is made; that lists have it is assumed not to be so.
    pub(super) expires_at: Option<String>,
}

pub(super) fn version_of(sha256: &str) -> Version {
    Version::new(format!("sha256:{sha256}"))
}

/// The SHA-256 that a version promises, in lower-case hexadecimal.
pub(super) fn sha256_of(version: &Version) -> Option<&str> {
    version.as_str().strip_prefix("sha256:")
}

/// ISO-8601 in UTC, as in all samples.
pub(super) fn time(text: &str) -> Option<SystemTime> {
    text.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
}

/// CloudSync's own words about refusals.
///
/// Its list of statuses is short (200, 201, 400, 401, 403, 404, 429, 500), so what a refusal is about is in the code.
/// Only `resource_not_found` is documented; the others are assumed to say in the same manner what they mean.
pub(super) struct CloudSyncDialect;

#[derive(Deserialize)]
struct Words {
    error: Explanation,
}

#[derive(Deserialize)]
struct Explanation {
    #[serde(default)]
    code: String,
    message: Option<String>,
}

impl Dialect for CloudSyncDialect {
    fn explain(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refusal {
        let words = serde_json::from_slice::<Words>(body).ok().map(|words| words.error);
        let kind = match status.as_u16() {
            // Who asks, how often, and a broken service: the status says all.
            401 | 429 | 500.. => None,
            _ => words.as_ref().and_then(|words| kind_of(&words.code)),
        };
        Refusal {
            message: words.and_then(|words| words.message.or(Some(words.code))),
            kind,
            retry_after: if status == StatusCode::TOO_MANY_REQUESTS {
                until_reset(headers, SystemTime::now())
            } else {
                None
            },
        }
    }
}

fn kind_of(code: &str) -> Option<ErrorKind> {
    let says = |parts: &[&str]| parts.iter().any(|part| code.contains(part));
    if says(&["not_found", "not_exist"]) {
        Some(ErrorKind::NotFound)
    } else if says(&["not_empty"]) {
        Some(ErrorKind::NotEmpty)
    } else if says(&["exists", "conflict"]) {
        Some(ErrorKind::AlreadyExists)
    } else if says(&["quota", "storage_limit", "insufficient_storage"]) {
        Some(ErrorKind::Quota)
    } else if says(&["too_large"]) {
        Some(ErrorKind::TooLarge)
    } else if says(&["name_too_long"]) {
        Some(ErrorKind::NameTooLong)
    } else if says(&["invalid_name", "invalid_path"]) {
        Some(ErrorKind::InvalidName)
    } else {
        None
    }
}

/// The wait that the window's end asks for, where no `Retry-After` does. By the service's own clock if it tells it.
fn until_reset(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    if headers.contains_key(RETRY_AFTER) {
        return None;
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let reset = Duration::from_secs(text(RATE_RESET)?.trim().parse().ok()?);
    let reset = SystemTime::UNIX_EPOCH.checked_add(reset)?;
    let service_now = text(DATE.as_str())
        .and_then(|date| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok())
        .map(SystemTime::from);
    let wait = reset.duration_since(service_now.unwrap_or(now)).unwrap_or_default();
    Some(wait.max(SHORTEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::error_for;
    use reqwest::header::{HeaderName, HeaderValue};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn kind(status: u16, code: &str) -> ErrorKind {
        let status = StatusCode::from_u16(status).unwrap();
        let body = format!(r#"{{"error":{{"code":"{code}","message":"why","details":{{}}}}}}"#);
        let refusal = CloudSyncDialect.explain(status, &HeaderMap::new(), body.as_bytes());
        assert_eq!(refusal.message.as_deref(), Some("why"));
        error_for(status, &HeaderMap::new(), refusal, "test").kind()
    }

    #[test]
    fn the_code_says_what_the_status_leaves_open() {
        for (status, code, expected) in [
            (404, "resource_not_found", ErrorKind::NotFound),
            (400, "parent_does_not_exist", ErrorKind::NotFound),
            (400, "invalid_permissions", ErrorKind::InvalidInput),
            (400, "resource_already_exists", ErrorKind::AlreadyExists),
            (409, "resource_already_exists", ErrorKind::AlreadyExists),
            (400, "resource_not_empty", ErrorKind::NotEmpty),
            (409, "folder_not_empty", ErrorKind::NotEmpty),
            (400, "quota_exceeded", ErrorKind::Quota),
            (507, "quota_exceeded", ErrorKind::NoSpace),
            (400, "payload_too_large", ErrorKind::TooLarge),
            (413, "anything", ErrorKind::TooLarge),
            (403, "permission_denied", ErrorKind::Denied),
            (403, "anything", ErrorKind::Denied),
            (401, "resource_not_found", ErrorKind::NeedsLogin),
            (400, "invalid_request", ErrorKind::InvalidInput),
            (500, "resource_not_found", ErrorKind::Unreachable),
        ] {
            assert_eq!(kind(status, code), expected, "{status} {code}");
        }
        let none = CloudSyncDialect.explain(StatusCode::NOT_FOUND, &HeaderMap::new(), b"<html>");
        assert!(none.kind.is_none() && none.message.is_none());
    }

    #[test]
    fn a_storm_waits_until_the_window_ends() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let wait = |pairs: &[(&'static str, &'static str)]| until_reset(&headers(pairs), now);
        assert_eq!(wait(&[("x-ratelimit-reset", "1000030")]), Some(Duration::from_secs(30)));
        assert_eq!(
            wait(&[
                ("x-ratelimit-reset", "784111807"),
                ("date", "Sun, 06 Nov 1994 08:49:37 GMT")
            ]),
            Some(Duration::from_secs(30)),
            "by the service's clock"
        );
        assert_eq!(wait(&[("x-ratelimit-reset", "999999")]), Some(SHORTEST_WAIT));
        assert_eq!(wait(&[("x-ratelimit-reset", "1000030"), ("retry-after", "7")]), None);
        assert_eq!(wait(&[("x-ratelimit-reset", "soon")]), None);
        assert_eq!(wait(&[]), None);
        let limited = headers(&[("x-ratelimit-reset", "99999999999999999999")]);
        let refusal = CloudSyncDialect.explain(StatusCode::TOO_MANY_REQUESTS, &limited, b"");
        assert_eq!(refusal.retry_after, None);
    }

    #[test]
    fn the_documented_samples_are_read() {
        let hash = "AB".repeat(32);
        let page: Page = serde_json::from_str(&format!(
            r#"{{"data":[
                {{"id":"file_abc123","name":"report.pdf","path":"/documents/report.pdf","type":"file","size":1048576,
                  "mimeType":"application/pdf","hash":"sha256:{hash}","createdAt":"2026-01-06T10:30:00Z",
                  "modifiedAt":"2026-01-06T15:45:00Z","createdBy":"user@example.com"}},
                {{"id":"folder_xyz789","name":"archive","path":"/documents/archive","type":"folder",
                  "createdAt":"2026-01-01T00:00:00Z"}}],
              "pagination":{{"cursor":"eyJpZCI6MTAwfQ==","hasMore":false}}}}"#
        ))
        .unwrap();
        assert!(!page.pagination.has_more);
        let file = page.data[0].entry("ws_1", Rights::READ).unwrap();
        assert_eq!(
            (file.size, file.version.clone()),
            (1_048_576, version_of(&"ab".repeat(32)))
        );
        assert_eq!(file.modified, time("2026-01-06T15:45:00Z").unwrap());
        let folder = page.data[1].entry("ws_1", Rights::READ).unwrap();
        assert!(folder.is_directory() && folder.size == 0);
        assert_eq!(folder.modified, time("2026-01-01T00:00:00Z").unwrap());
        let stored: Envelope<Item> = serde_json::from_str(
            r#"{"data":{"id":"file_new123","name":"report.pdf","path":"/documents/report.pdf","type":"file",
                "size":1048576,"version":1,"createdAt":"2026-01-06T16:00:00Z"}}"#,
        )
        .unwrap();
        assert!(!stored.data.is_complete() && stored.data.version == Some(1));
        assert!(stored.data.holds(1_048_576, "any") && !stored.data.holds(1, "any"));
        let me: Envelope<Me> = serde_json::from_str(
            r#"{"data":{"id":"user_abc123","usage":{"storage":2147483648,"storageLimit":-1,"workspaces":5}}}"#,
        )
        .unwrap();
        assert_eq!(me.data.usage.unwrap().storage_limit, Some(-1));
    }
}
