//! The JSON of Cludz Storage, what its refusals mean, and how its facts become entries.

use std::time::SystemTime;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::Deserialize;

use crate::model::{ErrorKind, Kind, Version};
use crate::net::{Dialect, Refusal};

/// The version of every folder: Cludz has nothing that changes with what is in one.
const FOLDER_VERSION: &str = "folder";
/// What the version of a file begins with that is its checksum.
pub(super) const SHA256: &str = "sha256:";

/// `{"statusCode":…,"message":…,"data":…}` around every answer but a download (Cludz documentation).
#[derive(Deserialize)]
pub(super) struct Envelope<T> {
    pub(super) data: T,
}

/// One item of a listing (Cludz documentation, download: list a directory).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed {
    pub(super) name: String,
    #[serde(default)]
    size: Option<u64>,
    pub(super) is_directory: bool,
    #[serde(default)]
    checksum: Option<String>,
    #[serde(default, rename = "modified_at")]
    modified_at: Option<String>,
    /// `public` or `shared`; folders that are neither have null here, and files have nothing.
    #[serde(default)]
    pub(super) sharing_status: Option<String>,
}

/// The answer to `?detail=true` (Cludz documentation; the copy read ends after `mimeType`, so times may be missing).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Detail {
    is_directory: bool,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    hash: Option<String>,
    #[serde(default, rename = "modified_at")]
    modified_at: Option<String>,
}

/// The answer to the creation of an empty file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Created {
    /// The name as stored: the service may have altered it.
    #[serde(default)]
    pub(super) file_name: Option<String>,
}

/// What both views tell of a file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) kind: Kind,
    /// In bytes; 0 for folders.
    pub(super) size: u64,
    pub(super) version: Version,
    pub(super) modified: Option<SystemTime>,
}

impl Described {
    fn new(is_directory: bool, size: Option<u64>, hash: Option<&str>, modified_at: Option<&str>) -> Self {
        let modified = modified_at
            .and_then(|text| text.parse::<jiff::Timestamp>().ok())
            .map(SystemTime::from);
        if is_directory {
            return Self {
                kind: Kind::Directory,
                size: 0,
                version: Version::new(FOLDER_VERSION),
                modified,
            };
        }
        let size = size.unwrap_or_default();
        let version = match hash {
            Some(hash) if is_sha256(hash) => version_of(&hash.to_ascii_lowercase()),
            // Assumed never to happen for files: the documentation shows a checksum with every one.
            _ => Version::new(format!("{size}@{}", modified_at.unwrap_or_default())),
        };
        Self {
            kind: Kind::File,
            size,
            version,
            modified,
        }
    }

    /// A folder of which nothing else is known.
    pub(super) fn folder() -> Self {
        Self::new(true, None, None, None)
    }

    /// Whether this is a file with exactly this content.
    pub(super) fn holds(&self, size: u64, sha256: &str) -> bool {
        self.kind == Kind::File && self.size == size && self.version == version_of(sha256)
    }

    pub(super) fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }
}

impl From<&Listed> for Described {
    fn from(item: &Listed) -> Self {
        Self::new(
            item.is_directory,
            item.size,
            item.checksum.as_deref(),
            item.modified_at.as_deref(),
        )
    }
}

impl From<&Detail> for Described {
    fn from(item: &Detail) -> Self {
        Self::new(
            item.is_directory,
            item.size,
            item.hash.as_deref(),
            item.modified_at.as_deref(),
        )
    }
}

/// The version of a content: its SHA-256, so that it survives a rename.
pub(super) fn version_of(sha256: &str) -> Version {
    Version::new(format!("{SHA256}{sha256}"))
}

/// The SHA-256 that a version promises, in lower-case hexadecimal.
pub(super) fn sha256_of(version: &Version) -> Option<&str> {
    version.as_str().strip_prefix(SHA256)
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Cludz's own words about refusals: the status decides, and the message where several share one.
pub(super) struct CludzDialect;

impl Dialect for CludzDialect {
    fn explain(&self, status: StatusCode, _: &HeaderMap, body: &[u8]) -> Refusal {
        #[derive(Deserialize)]
        struct Words {
            message: Option<String>,
        }
        let message = serde_json::from_slice::<Words>(body)
            .ok()
            .and_then(|words| words.message);
        let kind = message.as_deref().and_then(|text| match status {
            StatusCode::FORBIDDEN if text.starts_with("Subscription expired") => Some(ErrorKind::Quota),
            StatusCode::BAD_REQUEST => match text {
                "File exceeds upload limit" => Some(ErrorKind::TooLarge),
                "Invalid folder name" | "Invalid name" => Some(ErrorKind::InvalidName),
                "Can only upload to directories" => Some(ErrorKind::NotADirectory),
                _ => None,
            },
            _ => None,
        });
        Refusal {
            message,
            kind,
            retry_after: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::error_for;

    fn kind(status: u16, body: &str) -> ErrorKind {
        let status = StatusCode::from_u16(status).unwrap();
        let headers = HeaderMap::new();
        let refusal = CludzDialect.explain(status, &headers, body.as_bytes());
        error_for(status, &headers, refusal, "test").kind()
    }

    fn envelope(message: &str) -> String {
        format!(r#"{{"statusCode":400,"message":"{message}"}}"#)
    }

    #[test]
    fn refusals_mean_what_the_documentation_says() {
        for (status, message, expected) in [
            (401, "Token required", ErrorKind::NeedsLogin),
            (401, "Authentication required", ErrorKind::NeedsLogin),
            (403, "Access denied", ErrorKind::Denied),
            (403, "No write permission", ErrorKind::Denied),
            (
                403,
                "Subscription expired. Please renew your subscription",
                ErrorKind::Quota,
            ),
            (400, "File exceeds upload limit", ErrorKind::TooLarge),
            (400, "Invalid folder name", ErrorKind::InvalidName),
            (400, "Invalid name", ErrorKind::InvalidName),
            (400, "Can only upload to directories", ErrorKind::NotADirectory),
            (400, "Invalid JSON body", ErrorKind::InvalidInput),
            (409, "File exists", ErrorKind::AlreadyExists),
        ] {
            assert_eq!(kind(status, &envelope(message)), expected, "{message}");
        }
        assert_eq!(kind(403, "<html>"), ErrorKind::Denied);
    }

    #[test]
    fn both_views_of_a_file_agree() {
        let hash = "AB".repeat(32);
        let listed: Envelope<Vec<Listed>> = serde_json::from_str(&format!(
            r#"{{"statusCode":200,"message":"Directory contents","data":[{{"name":"a","size":3,"isDirectory":false,
                "checksum":"{hash}","created_at":"2026-02-20T10:00:00.000Z","modified_at":"2026-02-20T10:00:00.250Z"}}]}}"#
        ))
        .unwrap();
        let detail: Envelope<Detail> = serde_json::from_str(&format!(
            r#"{{"data":{{"isDirectory":false,"name":"a","path":"/a","size":3,"hash":"{hash}","mimeType":"text/plain",
                "modified_at":"2026-02-20T10:00:00.250Z"}}}}"#
        ))
        .unwrap();
        let described = Described::from(&detail.data);
        assert_eq!(Described::from(&listed.data[0]), described);
        assert!(described.holds(3, &"ab".repeat(32)));
        let millis = described
            .modified
            .unwrap()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_millis();
        assert_eq!(millis, 1_771_581_600_250);
    }

    #[test]
    fn a_folder_has_neither_size_nor_hash() {
        let detail: Envelope<Detail> =
            serde_json::from_str(r#"{"data":{"isDirectory":true,"size":4096,"hash":"","mimeType":null}}"#).unwrap();
        let described = Described::from(&detail.data);
        assert_eq!((described.kind, described.size), (Kind::Directory, 0));
        assert_eq!(described.modified, None);
    }
}
