//! The JSON of Storra's client API, what its refusals mean, and how its facts become entries.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::Deserialize;

use crate::model::{Entry, Error, ErrorKind, Kind, Name, ObjectKey, Rights, Usage, Version};
use crate::net::{Dialect, Refusal};
use crate::provider::VISIBILITY;

/// The version of every folder: Storra has nothing that changes with what is in one.
const FOLDER_VERSION: &str = "folder";
/// Stands where the time of the last change isn't known yet.
const UNKNOWN: &str = "-";

/// Storra's words for a key that nobody has (Storra documentation, authentication).
const UNKNOWN_KEY: &str = "User not found.";
/// What it says of a header that is missing (the same page).
const MISSING_KEY: &str = "Field required";
/// The beginning of what it says to accounts without Cloud Pro (the same page).
const NEEDS_PRO: &str = "API access requires Cloud Pro plan";

/// One item of a listing or of an answer to a change; the endpoints differ in what they call things and in case.
/// Storra's documentation shows no folder in `/files/list`: what it may lack there may be missing.
#[derive(Deserialize)]
pub(super) struct Listed {
    pub(super) path: String,
    #[serde(alias = "item_type", rename = "type")]
    kind: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(default, alias = "size_bytes")]
    size: Option<u64>,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    updated_at: Option<String>,
    #[serde(default)]
    is_private: Option<bool>,
    #[serde(default)]
    visibility: Option<String>,
}

/// `GET /users/me` (Storra documentation, user management).
#[derive(Deserialize)]
pub(super) struct Profile {
    pub(super) id: serde_json::Value,
    #[serde(default)]
    updated_at: Option<String>,
    #[serde(default)]
    subscription: Option<Subscription>,
}

#[derive(Deserialize)]
struct Subscription {
    storage_used: Option<String>,
    storage_limit: Option<String>,
}

/// Something in the trash. Only its expiry is documented; the rest is taken to be as in a listing.
#[derive(Deserialize)]
pub(super) struct Trashed {
    #[serde(alias = "item_id")]
    id: String,
    #[serde(default, alias = "item_path", alias = "name")]
    path: Option<String>,
    #[serde(default)]
    expires_at: Option<String>,
}

impl Trashed {
    /// Id, when it expires, and path, with tabs between; `-` for what isn't told.
    pub(super) fn line(&self) -> String {
        let expires = self.expires_at.as_deref().unwrap_or("-");
        format!("{}\t{expires}\t{}\n", self.id, self.path.as_deref().unwrap_or("-"))
    }
}

/// Who may see an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visibility {
    Private,
    Public,
    /// Private, but for those it was granted to.
    Shared,
}

/// What is known of a file or folder besides its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) id: Option<String>,
    pub(super) kind: Kind,
    /// In bytes; 0 for folders.
    pub(super) size: u64,
    /// When it was last changed, as told; `None` where an answer leaves it out.
    pub(super) updated: Option<String>,
    pub(super) created: Option<String>,
    pub(super) visibility: Option<Visibility>,
}

impl Listed {
    pub(super) fn into_item(self) -> Item {
        let kind = if self.kind.eq_ignore_ascii_case("folder") {
            Kind::Directory
        } else {
            Kind::File
        };
        let visibility = match self.visibility.as_deref() {
            Some(word) => Visibility::from_word(word),
            None => self.is_private.map(|is_private| match is_private {
                true => Visibility::Private,
                false => Visibility::Public,
            }),
        };
        Item {
            id: self.id,
            kind,
            size: if kind == Kind::Directory {
                0
            } else {
                self.size.unwrap_or_default()
            },
            updated: self.updated_at,
            created: self.created_at,
            visibility,
        }
    }
}

impl Item {
    /// A folder that must be there because something is in it.
    pub(super) fn folder() -> Self {
        Self {
            id: None,
            kind: Kind::Directory,
            size: 0,
            updated: None,
            created: None,
            visibility: None,
        }
    }

    pub(super) fn is_folder(&self) -> bool {
        self.kind == Kind::Directory
    }

    /// The same, where an answer left the time of the last change out and it is that of the making.
    pub(super) fn just_made(mut self) -> Self {
        self.updated = self.updated.or_else(|| self.created.clone());
        self
    }

    /// Whether the item was last changed when it was made.
    pub(super) fn is_untouched(&self) -> bool {
        self.updated.is_some() && self.updated == self.created
    }

    pub(super) fn version(&self) -> Version {
        match self.kind {
            Kind::Directory => Version::new(FOLDER_VERSION),
            Kind::File => Version::new(format!(
                "{}/{}/{}",
                self.updated.as_deref().unwrap_or(UNKNOWN),
                self.size,
                self.id.as_deref().unwrap_or_default(),
            )),
        }
    }

    /// Whether this is what an entry of this version stands for. One that was made when the time of the change wasn't
    /// known yet is known by the rest.
    pub(super) fn has(&self, version: &Version) -> bool {
        let own = self.version();
        let rest = |version: &Version| version.as_str().split_once('/').map(|(_, rest)| rest.to_owned());
        own == *version || (version.as_str().starts_with(UNKNOWN) && !self.is_folder() && rest(version) == rest(&own))
    }

    pub(super) fn modified(&self) -> Option<SystemTime> {
        self.updated.as_deref().or(self.created.as_deref()).and_then(time)
    }

    pub(super) fn entry(&self, path: &str, name: &Name, rights: Rights) -> Entry {
        let visibility = self
            .visibility
            .map(|visibility| (VISIBILITY.to_owned(), visibility.label().to_owned()));
        Entry {
            key: ObjectKey::new(path),
            name: name.clone(),
            kind: self.kind,
            size: self.size,
            modified: self.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            version: self.version(),
            rights,
            labels: BTreeMap::from_iter(visibility),
            posix: Default::default(),
        }
    }
}

/// The id that a file's version names, and when the file was last changed.
pub(super) fn parts_of(version: &Version) -> Option<(&str, Option<SystemTime>)> {
    let mut parts = version.as_str().splitn(3, '/');
    let (updated, _, id) = (parts.next()?, parts.next()?, parts.next()?);
    (!id.is_empty()).then(|| (id, time(updated)))
}

impl Visibility {
    /// As `PUT /privacy` writes it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Private => "PRIVATE",
            Self::Public => "PUBLIC",
            Self::Shared => "SHARED",
        }
    }

    /// As people read and write it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Public => "public",
            Self::Shared => "shared",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        [Self::Private, Self::Public, Self::Shared]
            .into_iter()
            .find(|visibility| visibility.word().eq_ignore_ascii_case(word))
    }
}

impl Profile {
    /// The account's id as a word.
    pub(super) fn account(&self) -> String {
        match &self.id {
            serde_json::Value::String(id) => id.clone(),
            other => other.to_string(),
        }
    }

    pub(super) fn modified(&self) -> Option<SystemTime> {
        self.updated_at.as_deref().and_then(time)
    }

    pub(super) fn usage(&self) -> Option<Usage> {
        let subscription = self.subscription.as_ref()?;
        let used = size(subscription.storage_used.as_deref()?)?;
        let total = subscription.storage_limit.as_deref().and_then(size);
        Some(Usage {
            used,
            // Both are rounded: what is stored is never more than the limit.
            total: total.map(|total| total.max(used)),
        })
    }
}

/// Bytes of a size for people: `1.2 GB`. Decimal units are assumed: they promise less than binary ones.
fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let factor: u64 = match text[end..].trim().to_ascii_uppercase().as_str() {
        "" | "B" | "BYTE" | "BYTES" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    };
    let count: f64 = text[..end].parse().ok()?;
    Some((count * factor as f64) as u64)
}

pub(super) fn time(text: &str) -> Option<SystemTime> {
    text.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
}

/// `Last-Modified`, which knows seconds only.
pub(super) fn last_modified(headers: &HeaderMap) -> Option<SystemTime> {
    let text = headers.get(reqwest::header::LAST_MODIFIED)?.to_str().ok()?;
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(SystemTime::from(date))
}

/// Whether a content is newer than a change, as far as a clock of seconds can tell.
pub(super) fn is_newer(content: SystemTime, change: SystemTime) -> bool {
    let whole = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs());
    whole(content).unwrap_or_default() > whole(change).unwrap_or(Duration::MAX.as_secs())
}

/// Storra's own words about refusals: a sentence, or the framework's list of what is wrong with a request. The dashboard
/// calls its sentence `error`.
pub(super) struct StorraDialect;

impl Dialect for StorraDialect {
    fn explain(&self, status: StatusCode, _: &HeaderMap, body: &[u8]) -> Refusal {
        #[derive(Deserialize)]
        struct Words {
            #[serde(alias = "error")]
            detail: Detail,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Detail {
            Sentence(String),
            List(Vec<Wrong>),
        }
        #[derive(Deserialize)]
        struct Wrong {
            msg: String,
            #[serde(default)]
            loc: Vec<serde_json::Value>,
        }
        let message = serde_json::from_slice::<Words>(body)
            .ok()
            .map(|words| match words.detail {
                Detail::Sentence(sentence) => sentence,
                Detail::List(list) => {
                    let named = |wrong: &Wrong| match wrong.loc.last().and_then(|name| name.as_str()) {
                        Some(name) => format!("{name}: {}", wrong.msg),
                        None => wrong.msg.clone(),
                    };
                    list.iter().map(named).collect::<Vec<_>>().join("; ")
                }
            });
        // Which of the two limits it is only the words tell; that they name the storage or the quota is assumed.
        let is_quota = |text: &str| {
            let text = text.to_ascii_lowercase();
            text.contains("quota") || text.contains("storage")
        };
        let kind = match status {
            StatusCode::PAYLOAD_TOO_LARGE if message.as_deref().is_some_and(is_quota) => Some(ErrorKind::Quota),
            _ => None,
        };
        Refusal {
            message,
            kind,
            retry_after: None,
        }
    }
}

/// The repair, where Storra's words are about the key and don't name one.
pub(super) fn with_repair(error: Error) -> Error {
    let says = |words: &str| error.message().contains(words);
    let sentence = match error.kind() {
        ErrorKind::NeedsLogin if says(UNKNOWN_KEY) => {
            "Storra doesn't know this key: it is wrong or was revoked; make one in the dashboard (/dashboard/settings, \
             API Keys), put it where the remote's key is kept (keymount login REMOTE), then: keymount refresh REMOTE"
        }
        ErrorKind::NeedsLogin if says(MISSING_KEY) => {
            "Storra got no key: something on the way took the X-API-Key header away; check the remote's endpoint and any \
             proxy, then: keymount refresh REMOTE"
        }
        ErrorKind::Denied if says(NEEDS_PRO) => {
            "the key is good, but Storra's API is for Cloud Pro accounts only; upgrade at /dashboard/settings, then: \
             keymount refresh REMOTE"
        }
        _ => return error,
    };
    Error::new(error.kind(), sentence).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::error_for;

    fn refusal(status: u16, body: &str) -> Error {
        let status = StatusCode::from_u16(status).unwrap();
        let headers = HeaderMap::new();
        let refusal = StorraDialect.explain(status, &headers, body.as_bytes());
        error_for(status, &headers, refusal, "list the folder")
    }

    #[test]
    fn each_refusal_of_a_key_has_its_own_sentence() {
        let missing =
            r#"{"detail":[{"type":"missing","loc":["header","X-API-Key"],"msg":"Field required","input":null}]}"#;
        let told = |status, body: &str| with_repair(refusal(status, body));
        for (status, body, kind, part) in [
            (401, missing, ErrorKind::NeedsLogin, "took the X-API-Key header away"),
            (
                401,
                r#"{"detail":"User not found."}"#,
                ErrorKind::NeedsLogin,
                "keymount login",
            ),
            (
                403,
                r#"{"detail":"API access requires Cloud Pro plan. Upgrade to use the API."}"#,
                ErrorKind::Denied,
                "upgrade at /dashboard/settings",
            ),
        ] {
            let error = told(status, body);
            assert_eq!(error.kind(), kind, "{body}");
            assert!(error.message().contains(part), "{error}");
        }
        let other = told(403, r#"{"detail":"No access."}"#);
        assert!(other.message().contains("No access."), "{other}");
    }

    #[test]
    fn too_large_and_full_differ_by_the_words() {
        let kind = |body: &str| refusal(413, body).kind();
        assert_eq!(
            kind(r#"{"detail":"File too large. Maximum is 1 GB."}"#),
            ErrorKind::TooLarge
        );
        assert_eq!(kind(r#"{"detail":"Storage quota exceeded."}"#), ErrorKind::Quota);
        assert_eq!(kind("<html>"), ErrorKind::TooLarge);
    }

    #[test]
    fn sizes_for_people_become_bytes() {
        for (text, bytes) in [
            ("1.2 GB", Some(1_200_000_000)),
            ("25 GB", Some(25_000_000_000)),
            ("0 B", Some(0)),
            ("512 bytes", Some(512)),
            ("3.5MB", Some(3_500_000)),
            ("1.5 kB", Some(1_500)),
            ("lots", None),
            ("1.2.3 GB", None),
            ("", None),
        ] {
            assert_eq!(size(text), bytes, "{text:?}");
        }
    }

    fn item(json: &str) -> Item {
        serde_json::from_str::<Listed>(json).unwrap().into_item()
    }

    #[test]
    fn items_are_read_whatever_the_endpoint_calls_things() {
        let rich = item(
            r#"{"id":"file_550e8400","name":"r.pdf","path":"d/r.pdf","type":"file","size":3,"mime_type":"x/y",
                "created_at":"2026-01-01T00:00:00.000Z","updated_at":"2026-01-02T00:00:00.250Z","is_private":true,
                "download_url":"https://a"}"#,
        );
        assert_eq!((rich.kind, rich.size), (Kind::File, 3));
        assert_eq!(rich.visibility, Some(Visibility::Private));
        assert_eq!(rich.version().as_str(), "2026-01-02T00:00:00.250Z/3/file_550e8400");
        let (id, updated) = parts_of(&rich.version()).map(|(id, at)| (id.to_owned(), at)).unwrap();
        assert_eq!((id.as_str(), updated), ("file_550e8400", rich.modified()));
        let simple = item(r#"{"id":"folder_1","path":"d","item_type":"FOLDER","size_bytes":9,"visibility":"SHARED"}"#);
        assert_eq!((simple.kind, simple.size), (Kind::Directory, 0));
        assert_eq!(simple.visibility, Some(Visibility::Shared));
        let short = item(r#"{"path":"d","type":"folder"}"#);
        assert_eq!((short.is_folder(), short.modified()), (true, None));
    }

    #[test]
    fn a_version_without_time_is_known_by_the_rest() {
        let listed = item(r#"{"id":"file_1","path":"f","type":"file","size":3,"updated_at":"2026-01-02T00:00:00Z"}"#);
        let unknown = Item {
            updated: None,
            ..listed.clone()
        };
        assert!(listed.has(&listed.version()) && listed.has(&unknown.version()));
        let other = Item {
            size: 4,
            ..unknown.clone()
        };
        assert!(!listed.has(&other.version()) && !unknown.has(&listed.version()));
    }

    #[test]
    fn newer_is_told_in_seconds() {
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        assert!(is_newer(at(2_000), at(1_999)));
        assert!(!is_newer(at(1_000), at(1_999)) && !is_newer(at(1_999), at(1_000)));
    }
}
