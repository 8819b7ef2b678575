//! Reading a request of the client API: its route, its query and its body.
//!
//! Responsible for shapes only: what is asked for, and that nothing else is. A body is read to its end, so that a refusal
//! doesn't cut a client short that is still sending; only a form that can't be parsed is left where it breaks.

use std::collections::BTreeMap;

use axum::body::to_bytes;
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::{HeaderMap, Method, header};
use bytes::{Bytes, BytesMut};
use serde::de::DeserializeOwned;
use url::form_urlencoded;

use super::assumptions::{RESERVED, ReservedNames, Visibility};
use super::path::ItemPath;
use super::rates::Bucket;
use super::refusal::{Place, Refusal};
use super::tree::{Content, mime_of};
use crate::emulator::{multipart, segment};

/// JSON bodies are one short object; this is plenty, also for a list of ids.
const JSON_LIMIT: usize = 256 * 1024;
/// Text parts of an upload are a path or a truth value.
const TEXT_LIMIT: usize = 16 * 1024;

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Profile,
    Preferences,
    RichList,
    SimpleList,
    Download { id: String },
    Upload,
    CreateFolder,
    FolderInfo(ItemPath),
    Move,
    Duplicate,
    CopyFolder,
    Privacy,
    Delete(ItemPath),
    TrashList,
    TrashRestore,
    TrashEmpty,
    Grant,
    Grants(ItemPath),
    ChangeGrant { id: String },
    RevokeGrant { id: String },
}

impl Route {
    /// Finds the route of `/api/v1/client/{rest}`.
    pub(super) fn find(method: &Method, rest: &str, reserved: ReservedNames) -> Result<Self, Refusal> {
        let segments: Vec<&str> = rest.split('/').collect();
        let path =
            |raw: &[&str]| ItemPath::from_segments(raw).map_err(|why| Refusal::invalid(Place::Path, "path", why));
        let id = |raw: &str| segment::decode(raw).map_err(|why| Refusal::invalid(Place::Path, "id", why));
        let only = |wanted: Method, route: Self| {
            if *method == wanted {
                Ok(route)
            } else if *method == Method::DELETE && reserved == ReservedNames::PathsFirst {
                Ok(Self::Delete(path(&segments)?))
            } else {
                Err(Refusal::MethodNotAllowed)
            }
        };
        match segments.as_slice() {
            ["users", "me"] => only(Method::GET, Self::Profile),
            ["users", "me", "preferences"] => only(Method::PATCH, Self::Preferences),
            ["files", "list"] => only(Method::GET, Self::RichList),
            ["list"] => only(Method::GET, Self::SimpleList),
            ["files", "download", raw] if *method == Method::HEAD => Ok(Self::Download { id: id(raw)? }),
            ["files", "download", raw] => only(Method::GET, Self::Download { id: id(raw)? }),
            ["files", "upload"] => only(Method::POST, Self::Upload),
            ["create-folder"] => only(Method::POST, Self::CreateFolder),
            // The root isn't a folder that can be asked about (folder-management).
            ["info", ""] => only(Method::GET, Self::FolderInfo(ItemPath::default())),
            ["info", raw @ ..] if !raw.is_empty() => only(Method::GET, Self::FolderInfo(path(raw)?)),
            ["move"] => only(Method::PUT, Self::Move),
            ["duplicate"] => only(Method::POST, Self::Duplicate),
            ["copy-folder"] => only(Method::POST, Self::CopyFolder),
            ["privacy"] => only(Method::PUT, Self::Privacy),
            ["trash"] => only(Method::GET, Self::TrashList),
            ["trash", "restore"] => only(Method::POST, Self::TrashRestore),
            ["trash", "empty"] => only(Method::POST, Self::TrashEmpty),
            ["permissions", "grant"] if *method == Method::POST => Ok(Self::Grant),
            ["permissions", raw] if *method == Method::PUT => Ok(Self::ChangeGrant { id: id(raw)? }),
            ["permissions", raw] if *method == Method::DELETE => Ok(Self::RevokeGrant { id: id(raw)? }),
            ["permissions", raw @ ..] if !raw.is_empty() => only(Method::GET, Self::Grants(path(raw)?)),
            _ if *method != Method::DELETE => Err(Refusal::NoRoute),
            [""] => Err(Refusal::NoRoute),
            [first, ..] if reserved == ReservedNames::ApiFirst && RESERVED.contains(first) => {
                Err(Refusal::MethodNotAllowed)
            }
            raw => Ok(Self::Delete(path(raw)?)),
        }
    }

    /// Which limit the request counts against (rate-limiting).
    pub(super) fn bucket(&self) -> Bucket {
        match self {
            Self::Profile => Bucket::UserRead,
            Self::Preferences => Bucket::UserPrefs,
            Self::RichList | Self::SimpleList => Bucket::List,
            Self::Download { .. } => Bucket::Download,
            Self::Upload => Bucket::Upload,
            Self::CreateFolder | Self::FolderInfo(_) => Bucket::Folder,
            Self::Move | Self::Duplicate | Self::CopyFolder | Self::Privacy | Self::Delete(_) => Bucket::FileOps,
            Self::TrashList | Self::TrashRestore | Self::TrashEmpty => Bucket::Trash,
            Self::Grant | Self::Grants(_) | Self::ChangeGrant { .. } | Self::RevokeGrant { .. } => Bucket::Permissions,
        }
    }
}

/// The parameters of a query.
#[derive(Debug)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads a query that has these parameters at most, each once.
    pub(super) fn parse(query: &str, known: &[&str]) -> Result<Self, Refusal> {
        let mut found = BTreeMap::new();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            if !known.contains(&key.as_ref()) || found.insert(key.to_string(), value.into_owned()).is_some() {
                return Err(Refusal::unknown(Place::Query, &key));
            }
        }
        Ok(Self(found))
    }

    pub(super) fn folder(&self, name: &str) -> Result<ItemPath, Refusal> {
        let text = self.0.get(name).map_or("", String::as_str);
        ItemPath::parse(text).map_err(|why| Refusal::invalid(Place::Query, name, why))
    }

    pub(super) fn number(
        &self,
        name: &str,
        default: usize,
        range: std::ops::RangeInclusive<usize>,
    ) -> Result<usize, Refusal> {
        let Some(text) = self.0.get(name) else {
            return Ok(default);
        };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| digits && range.contains(number));
        number.ok_or_else(|| {
            let message = format!("Input should be a number from {} to {}", range.start(), range.end());
            Refusal::invalid(Place::Query, name, message)
        })
    }

    /// One of a few words; the first is the default.
    pub(super) fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<T, Refusal> {
        let wanted = match self.0.get(name) {
            Some(text) => words.iter().find(|(word, _)| word == text),
            None => words.first(),
        };
        wanted.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let message = format!("Input should be one of {}", words.join(", "));
            Refusal::invalid(Place::Query, name, message)
        })
    }
}

/// A request's body.
#[derive(Debug)]
pub(super) enum Incoming {
    Plain {
        media_type: Option<String>,
        bytes: Bytes,
    },
    Upload(Result<UploadForm, Refusal>),
    /// More than the route could ever take, or the client broke off.
    Unreadable,
}

/// file-upload, "Form fields".
#[derive(Debug)]
pub(super) struct UploadForm {
    pub(super) path: ItemPath,
    pub(super) content: Content,
    pub(super) visibility: Visibility,
}

impl Incoming {
    /// Reads the body to its end; files longer than `file_limit` aren't kept.
    pub(super) async fn read(request: Request, route: Option<&Route>, file_limit: u64) -> Self {
        let media_type = media_type(request.headers());
        if route == Some(&Route::Upload) && media_type.as_deref() == Some("multipart/form-data") {
            return Self::Upload(read_form(request, file_limit).await);
        }
        let limit = if route.is_some() { JSON_LIMIT } else { 0 };
        let mut stream = request.into_body().into_data_stream();
        let (mut bytes, mut readable) = (BytesMut::new(), true);
        while let Some(chunk) = futures_util::StreamExt::next(&mut stream).await {
            match chunk {
                Ok(chunk) if bytes.len() + chunk.len() <= limit => bytes.extend_from_slice(&chunk),
                Ok(_) => readable = false,
                Err(_) => return Self::Unreadable,
            }
        }
        if readable {
            Self::Plain {
                media_type,
                bytes: bytes.freeze(),
            }
        } else {
            Self::Unreadable
        }
    }

    pub(super) fn json<T: DeserializeOwned>(self) -> Result<T, Refusal> {
        let (media_type, bytes) = self.plain()?;
        if bytes.is_empty() {
            return Err(Refusal::missing(Place::Body, ""));
        }
        if media_type.as_deref() != Some("application/json") {
            return Err(Refusal::invalid(
                Place::Body,
                "",
                "Content-Type must be application/json",
            ));
        }
        serde_json::from_slice(&bytes).map_err(|error| Refusal::invalid(Place::Body, "", error.to_string()))
    }

    pub(super) fn upload(self) -> Result<UploadForm, Refusal> {
        match self {
            Self::Upload(form) => form,
            Self::Plain { .. } | Self::Unreadable => Err(Refusal::missing(Place::Body, "file")),
        }
    }

    pub(super) fn nothing(self) -> Result<(), Refusal> {
        match self.plain()?.1.is_empty() {
            true => Ok(()),
            false => Err(Refusal::invalid(Place::Body, "", "This request has no body")),
        }
    }

    fn plain(self) -> Result<(Option<String>, Bytes), Refusal> {
        match self {
            Self::Plain { media_type, bytes } => Ok((media_type, bytes)),
            Self::Upload(_) | Self::Unreadable => Err(Refusal::invalid(Place::Body, "", "The body cannot be read")),
        }
    }
}

/// The type and subtype of `Content-Type`, in small letters.
pub(super) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let media_type = value.split_once(';').map_or(value, |(media_type, _)| media_type);
    Some(media_type.trim().to_ascii_lowercase())
}

/// The body of a request that is answered without it.
pub(super) async fn discard(request: Request) {
    // What the client sends is refused anyway; that it stops in the middle changes nothing.
    let _ = to_bytes(request.into_body(), usize::MAX).await;
}

/// What a part of an upload is.
enum Part {
    File(String, Content),
    TooLarge,
    Path(ItemPath),
    Visibility(Visibility),
}

/// Reads a form to its end, whatever is wrong with it, and tells the first thing that was.
async fn read_form(request: Request, file_limit: u64) -> Result<UploadForm, Refusal> {
    let malformed = || Refusal::invalid(Place::Body, "", "There was an error parsing the body");
    let (request, ending) = multipart::watch(request).map_err(|_| malformed())?;
    let mut multipart = Multipart::from_request(request, &()).await.map_err(|_| malformed())?;
    let mut parts = Vec::new();
    while let Some(mut field) = multipart.next_field().await.map_err(|_| malformed())? {
        let name = field.name().unwrap_or_default().to_owned();
        let file_name = field.file_name().map(str::to_owned);
        let mime = field.content_type().map(str::to_owned);
        let limit = if name == "file" { file_limit } else { TEXT_LIMIT as u64 };
        let (mut bytes, mut too_large) = (BytesMut::new(), false);
        while let Some(chunk) = field.chunk().await.map_err(|_| malformed())? {
            too_large |= bytes.len() as u64 + chunk.len() as u64 > limit;
            if !too_large {
                bytes.extend_from_slice(&chunk);
            }
        }
        let bytes = bytes.freeze();
        let part = match (name.as_str(), file_name) {
            ("file", Some(_)) if too_large => Ok(Part::TooLarge),
            ("file", Some(file_name)) => {
                let mime = mime.unwrap_or_else(|| mime_of(&file_name));
                Ok(Part::File(file_name, Content::new(bytes, mime)))
            }
            ("path", None) if !too_large => text_part("path", &bytes, |text| ItemPath::parse(text).map(Part::Path)),
            ("is_private", None) => text_part("is_private", &bytes, |text| match text {
                "true" => Ok(Part::Visibility(Visibility::Private)),
                "false" => Ok(Part::Visibility(Visibility::Public)),
                _ => Err("Input should be true or false"),
            }),
            ("file", None) => Err(Refusal::invalid(Place::Body, "file", "Expected a file with a name")),
            ("path", _) => Err(Refusal::invalid(Place::Body, "path", "Expected a path")),
            (other, _) => Err(Refusal::unknown(Place::Body, other)),
        };
        parts.push(part);
    }
    if !ending.ends_cleanly().await {
        return Err(malformed());
    }
    assemble(parts)
}

fn text_part(name: &str, bytes: &[u8], read: impl FnOnce(&str) -> Result<Part, &'static str>) -> Result<Part, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|_| "The text is not UTF-8");
    text.and_then(read)
        .map_err(|why| Refusal::invalid(Place::Body, name, why))
}

fn assemble(parts: Vec<Result<Part, Refusal>>) -> Result<UploadForm, Refusal> {
    let (mut file, mut folder, mut visibility) = (None, None, None);
    for part in parts {
        let repeated = match part? {
            Part::File(name, content) => file.replace(Ok((name, content))).map(|_| "file"),
            Part::TooLarge => file.replace(Err(Refusal::FileTooLarge)).map(|_| "file"),
            Part::Path(path) => folder.replace(path).map(|_| "path"),
            Part::Visibility(wanted) => visibility.replace(wanted).map(|_| "is_private"),
        };
        if let Some(name) = repeated {
            return Err(Refusal::unknown(Place::Body, name));
        }
    }
    let (name, content) = file.ok_or_else(|| Refusal::missing(Place::Body, "file"))??;
    let path = folder
        .unwrap_or_default()
        .join(&name)
        .map_err(|why| Refusal::invalid(Place::Body, "file", why))?;
    Ok(UploadForm {
        path,
        content,
        // Without the field a file is public (file-upload).
        visibility: visibility.unwrap_or(Visibility::Public),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(method: Method, rest: &str, reserved: ReservedNames) -> Result<Route, Refusal> {
        Route::find(&method, rest, reserved)
    }

    #[test]
    fn the_api_comes_before_paths() {
        let delete = |rest| find(Method::DELETE, rest, ReservedNames::ApiFirst);
        let item = |path| Ok(Route::Delete(ItemPath::parse(path).unwrap()));
        assert_eq!(delete("docs/a%20b"), item("docs/a b"));
        assert_eq!(delete("trashed"), item("trashed"));
        for taken in [
            "trash",
            "trash/a",
            "files/a",
            "users/me",
            "move",
            "info/a",
            "permissions/a/b",
        ] {
            assert_eq!(delete(taken), Err(Refusal::MethodNotAllowed), "{taken}");
        }
        let id = "perm_01234567".to_owned();
        assert_eq!(delete("permissions/perm_01234567"), Ok(Route::RevokeGrant { id }));
        assert_eq!(delete(""), Err(Refusal::NoRoute));
        assert!(matches!(delete("docs/"), Err(Refusal::Invalid(_))));
        assert!(matches!(delete("docs/%2e%2e"), Err(Refusal::Invalid(_))));
    }

    #[test]
    fn or_after_them() {
        let delete = |rest| find(Method::DELETE, rest, ReservedNames::PathsFirst);
        for path in [
            "trash",
            "trash/a",
            "files/list",
            "users/me",
            "move",
            "info/a",
            "permissions/a/b",
        ] {
            assert_eq!(
                delete(path),
                Ok(Route::Delete(ItemPath::parse(path).unwrap())),
                "{path}"
            );
        }
        assert!(matches!(delete("permissions/a"), Ok(Route::RevokeGrant { .. })));
    }

    #[test]
    fn other_methods_and_routes_are_refused() {
        let find = |method, rest| find(method, rest, ReservedNames::ApiFirst);
        for (method, rest) in [
            (Method::HEAD, "files/list"),
            (Method::POST, "move"),
            (Method::PUT, "files/upload"),
            (Method::GET, "duplicate"),
            (Method::PATCH, "permissions/a"),
        ] {
            assert_eq!(find(method, rest), Err(Refusal::MethodNotAllowed), "{rest}");
        }
        for rest in ["", "docs", "files", "files/download", "users/me/", "list/"] {
            assert_eq!(find(Method::GET, rest), Err(Refusal::NoRoute), "{rest}");
        }
    }
}
