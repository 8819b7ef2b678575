//! The HTTP surface: which request does what, and what it answers.
//!
//! Responsible for methods, headers, bodies and for the order of checks that [`super::Assumptions`] describes. Every
//! error has the documented envelope `{"statusCode":N,"message":"…"}`. Not responsible for the tree itself.

use std::collections::BTreeMap;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Value, json};

use super::assumptions::{self, Duplicates, Overwrite};
use super::names::{self, Unusable};
use super::target::{Form, Target, View};
use super::tree::{
    Caller, Content, File, Folder, Found, Info, InfoKind, Right, SharingStatus, State, Subscription, mime_of,
};
use super::{Assumptions, CludzStore};
use crate::emulator::range::{self, Asked};
use crate::emulator::{AuthenticatedAs, multipart};

/// JSON bodies are one short object; this is plenty.
const JSON_LIMIT: usize = 64 * 1024;

/// Every way a request can fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not something the documentation offers.
    BadRequest(&'static str),
    /// No or an unknown token on a request that isn't a `POST` (storage/authentication).
    TokenRequired,
    /// The same on a `POST` (storage/upload).
    AuthenticationRequired,
    /// No right to read (storage/authentication).
    AccessDenied,
    /// No right to write (storage/upload, storage/rename).
    NoWritePermission,
    /// No right to delete.
    NoDeletePermission,
    /// The owner hasn't paid (storage/upload, storage/rename).
    SubscriptionExpired,
    /// Nothing there.
    NotFound,
    /// Upload or creation somewhere else than in a directory (storage/upload).
    OnlyToDirectories,
    /// Larger than the limit (storage/upload).
    OverLimit,
    /// Identical content (storage/upload).
    Unchanged,
    /// The name of a new file is taken (storage/upload).
    FileExists,
    /// The name of a new folder is taken (storage/upload).
    FolderExists,
    /// A new folder can't have this name (storage/upload).
    InvalidFolderName,
    /// A file, or something renamed, can't have this name (storage/rename).
    InvalidName,
    /// Not the JSON object that belongs there (storage/rename).
    InvalidJson,
    /// The new name is taken (storage/rename).
    DestinationExists,
    /// The range starts at or past the end.
    Unsatisfiable {
        /// The file's length.
        total: usize,
    },
    /// No such method.
    MethodNotAllowed,
}

impl Refusal {
    fn status_and_message(&self) -> (StatusCode, &'static str) {
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        match *self {
            Self::BadRequest(message) => (BAD, message),
            Self::TokenRequired => (StatusCode::UNAUTHORIZED, "Token required"),
            Self::AuthenticationRequired => (StatusCode::UNAUTHORIZED, "Authentication required"),
            Self::AccessDenied => (StatusCode::FORBIDDEN, "Access denied"),
            Self::NoWritePermission => (StatusCode::FORBIDDEN, "No write permission"),
            Self::NoDeletePermission => assumptions::NO_DELETE_PERMISSION,
            Self::SubscriptionExpired => assumptions::SUBSCRIPTION_EXPIRED,
            Self::NotFound => assumptions::NOT_FOUND,
            Self::OnlyToDirectories => (BAD, "Can only upload to directories"),
            Self::OverLimit => (BAD, "File exceeds upload limit"),
            Self::Unchanged => (BAD, "File unchanged"),
            Self::FileExists => (StatusCode::CONFLICT, "File exists"),
            Self::FolderExists => (StatusCode::CONFLICT, "Folder exists"),
            Self::InvalidFolderName => (BAD, "Invalid folder name"),
            Self::InvalidName => (BAD, "Invalid name"),
            Self::InvalidJson => (BAD, "Invalid JSON body"),
            Self::DestinationExists => (StatusCode::CONFLICT, "Destination already exists"),
            Self::Unsatisfiable { .. } => assumptions::UNSATISFIABLE,
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"),
        }
    }

    fn into_response(self) -> Response {
        let (status, message) = self.status_and_message();
        let mut response = envelope(status, message, []);
        if let Self::Unsatisfiable { total } = self {
            response
                .headers_mut()
                .insert(header::CONTENT_RANGE, ascii(format!("bytes */{total}")));
        }
        response
    }
}

/// A request with its body read, so that a refusal never cuts a client short that is still sending.
struct Call {
    action: Action,
    target: Result<Target, Refusal>,
    secret: Result<Option<String>, Refusal>,
}

enum Action {
    Get { range: Option<HeaderValue> },
    Upload(Result<Vec<Part>, Refusal>),
    Create(Result<Creation, Refusal>),
    Rename(Result<Renaming, Refusal>),
    Delete,
    Refused(Refusal),
}

/// A file in a batch (storage/upload: part name `file`, its file name is the target's).
struct Part {
    name: String,
    mime: Option<String>,
    content: Content,
}

/// storage/upload, "Create folder" and "Create file".
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Creation {
    r#type: CreationKind,
    name: String,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum CreationKind {
    Folder,
    File,
}

/// storage/rename.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Renaming {
    new_name: String,
}

pub(super) async fn answer(store: &CludzStore, request: Request) -> Response {
    let call = read(store.assumptions, request).await;
    let mut name = None;
    let mut response = perform(store, call, &mut name).unwrap_or_else(Refusal::into_response);
    if let Some(name) = name {
        response.extensions_mut().insert(AuthenticatedAs(name));
    }
    response
}

async fn read(assumptions: Assumptions, request: Request) -> Call {
    let target = Target::parse(request.uri());
    let secret = secret(request.headers(), target.as_ref().ok());
    let action = match *request.method() {
        Method::GET => Action::Get {
            range: request.headers().get(header::RANGE).cloned(),
        },
        Method::DELETE => Action::Delete,
        Method::PUT => Action::Rename(read_json(request).await),
        Method::POST => match media_type(request.headers()).as_deref() {
            Some("multipart/form-data") => Action::Upload(read_parts(request, assumptions.file_limit).await),
            Some("application/json") => Action::Create(read_json(request).await),
            _ => {
                discard(request).await;
                Action::Refused(Refusal::BadRequest(
                    "Content-Type must be multipart/form-data or application/json",
                ))
            }
        },
        _ => {
            discard(request).await;
            Action::Refused(Refusal::MethodNotAllowed)
        }
    };
    Call { action, target, secret }
}

/// The token of header or query (storage/authentication); sending both is a client's mistake.
fn secret(headers: &HeaderMap, target: Option<&Target>) -> Result<Option<String>, Refusal> {
    let mut values = headers.get_all("token").iter();
    let header = match (values.next(), values.next()) {
        (None, _) => None,
        (Some(value), None) => Some(
            value
                .to_str()
                .map_err(|_| Refusal::BadRequest("The token is not ASCII"))?
                .to_owned(),
        ),
        (Some(_), Some(_)) => return Err(Refusal::BadRequest("Several tokens")),
    };
    match (header, target.and_then(|target| target.token.clone())) {
        (Some(_), Some(_)) => Err(Refusal::BadRequest("A token in the header and another in the query")),
        (header, query) => Ok(header.or(query)),
    }
}

fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let media_type = value.split_once(';').map_or(value, |(media_type, _)| media_type);
    Some(media_type.trim().to_ascii_lowercase())
}

async fn discard(request: Request) {
    // What the client sends is refused anyway; that it stops in the middle changes nothing.
    let _ = to_bytes(request.into_body(), usize::MAX).await;
}

async fn read_json<T: serde::de::DeserializeOwned>(request: Request) -> Result<T, Refusal> {
    let is_json = media_type(request.headers()).as_deref() == Some("application/json");
    let body = to_bytes(request.into_body(), JSON_LIMIT)
        .await
        .map_err(|_| Refusal::InvalidJson)?;
    if !is_json {
        return Err(Refusal::BadRequest("Content-Type must be application/json"));
    }
    serde_json::from_slice(&body).map_err(|_| Refusal::InvalidJson)
}

/// Reads a batch to its end, whatever is wrong with it, and tells the first thing that was.
async fn read_parts(request: Request, limit: u64) -> Result<Vec<Part>, Refusal> {
    const MALFORMED: Refusal = Refusal::BadRequest("Invalid multipart body");
    let (request, ending) = multipart::watch(request).map_err(|_| MALFORMED)?;
    let mut multipart = Multipart::from_request(request, &()).await.map_err(|_| MALFORMED)?;
    let mut parts = Ok(Vec::new());
    while let Some(mut field) = multipart.next_field().await.map_err(|_| MALFORMED)? {
        let is_file = field.name() == Some("file");
        let name = field.file_name().map(str::to_owned);
        let mime = field.content_type().map(str::to_owned);
        let mut content = BytesMut::new();
        let mut over_limit = false;
        while let Some(chunk) = field.chunk().await.map_err(|_| MALFORMED)? {
            over_limit |= content.len() as u64 + chunk.len() as u64 > limit;
            if !over_limit {
                content.extend_from_slice(&chunk);
            }
        }
        let part = match name {
            _ if !is_file => Err(Refusal::BadRequest("Every part must be named file")),
            None => Err(Refusal::BadRequest("A part has no file name")),
            Some(_) if over_limit => Err(Refusal::OverLimit),
            Some(name) => Ok(Part {
                name,
                mime,
                content: Content::new(content.freeze()),
            }),
        };
        parts = parts.and_then(|mut parts: Vec<Part>| {
            parts.push(part?);
            Ok(parts)
        });
    }
    if !ending.ends_cleanly().await {
        return Err(MALFORMED);
    }
    match parts {
        Ok(parts) if parts.is_empty() => Err(Refusal::BadRequest("No file uploaded")),
        parts => parts,
    }
}

/// Checks who asks and does what was asked; `name` tells who was recognised, even if the request fails.
fn perform(store: &CludzStore, call: Call, name: &mut Option<String>) -> Result<Response, Refusal> {
    let target = call.target?;
    let secret = call.secret?;
    if let Action::Refused(refusal) = call.action {
        return Err(refusal);
    }
    if target.view == View::Detail && !matches!(call.action, Action::Get { .. }) {
        return Err(Refusal::BadRequest("Unknown or repeated query parameter"));
    }
    let drive = store.drive(target.drive).ok_or(Refusal::NotFound)?;
    let mut state = drive.state.lock();

    let (right, unknown, denied) = match call.action {
        Action::Get { .. } => (Right::Read, Refusal::TokenRequired, Refusal::AccessDenied),
        Action::Upload(_) | Action::Create(_) => (
            Right::Write,
            Refusal::AuthenticationRequired,
            Refusal::NoWritePermission,
        ),
        Action::Rename(_) => (Right::Write, Refusal::TokenRequired, Refusal::NoWritePermission),
        Action::Delete => (Right::Delete, Refusal::TokenRequired, Refusal::NoDeletePermission),
        Action::Refused(refusal) => return Err(refusal),
    };
    let caller = state.caller(secret.as_deref()).ok_or(unknown.clone())?;
    *name = match &caller {
        Caller::Anonymous => None,
        Caller::Owner => Some("owner".to_owned()),
        Caller::Shared(name) => Some(name.clone()),
    };
    if !state.allows(&caller, &target.segments, right) {
        return Err(if caller == Caller::Anonymous { unknown } else { denied });
    }
    if right == Right::Write && state.subscription() == Subscription::Expired {
        return Err(Refusal::SubscriptionExpired);
    }

    match call.action {
        Action::Get { range } => get(&state, &target, range.as_ref(), store.assumptions),
        Action::Upload(parts) => {
            directory(&state, &target)?;
            upload(&mut state, &target.segments, parts?, store.assumptions)
        }
        Action::Create(creation) => {
            directory(&state, &target)?;
            create(&mut state, &target.segments, creation?)
        }
        Action::Rename(renaming) => {
            existing(&state, &target)?;
            rename(&mut state, &target.segments, renaming?)
        }
        Action::Delete => {
            existing(&state, &target)?;
            state.remove(&target.segments);
            let (status, message) = assumptions::DELETED;
            Ok(envelope(status, message, []))
        }
        Action::Refused(refusal) => Err(refusal),
    }
}

/// The target must be a folder that is there, written with its slash.
fn directory(state: &State, target: &Target) -> Result<(), Refusal> {
    match state.find(&target.segments) {
        Some(Found::Folder(_)) if target.form == Form::Directory => Ok(()),
        None if target.form == Form::Directory => Err(Refusal::NotFound),
        _ => Err(Refusal::OnlyToDirectories),
    }
}

/// The target must be there, and not be the root.
fn existing(state: &State, target: &Target) -> Result<(), Refusal> {
    if target.segments.is_empty() {
        return Err(Refusal::BadRequest("The storage's root stays as it is"));
    }
    match (state.find(&target.segments).ok_or(Refusal::NotFound)?, target.form) {
        (Found::File(_), Form::Directory) => Err(Refusal::NotFound),
        _ => Ok(()),
    }
}

fn get(
    state: &State,
    target: &Target,
    range: Option<&HeaderValue>,
    assumptions: Assumptions,
) -> Result<Response, Refusal> {
    let found = state.find(&target.segments).ok_or(Refusal::NotFound)?;
    match (found, target.view, target.form) {
        (Found::File(_), _, Form::Directory) => Err(Refusal::NotFound),
        (found, View::Detail, _) => Ok(detail(&target.segments, &found.info(), assumptions)),
        (Found::Folder(_), View::Content, Form::Plain) => {
            Err(Refusal::BadRequest("The path of a directory ends with a slash"))
        }
        (Found::Folder(folder), View::Content, Form::Directory) => Ok(listing(folder)),
        (Found::File(file), View::Content, Form::Plain) => {
            let name = target.segments.last().map(String::as_str).unwrap_or_default();
            download(name, file, range)
        }
    }
}

/// storage/download, "List directory".
fn listing(folder: &Folder) -> Response {
    let entries: Vec<Value> = folder
        .children()
        .map(|(name, info)| {
            let mut entry = json!({
                "name": name,
                "created_at": iso(info.created),
                "modified_at": iso(info.modified),
            });
            let fields = match info.kind {
                InfoKind::File { size, sha256, .. } => {
                    json!({"size": size, "isDirectory": false, "checksum": sha256})
                }
                InfoKind::Folder { status } => {
                    let status = status.map(|status| match status {
                        SharingStatus::Public => "public",
                        SharingStatus::Shared => "shared",
                    });
                    json!({"size": 0, "isDirectory": true, "checksum": "", "sharingStatus": status})
                }
            };
            merge(&mut entry, fields);
            entry
        })
        .collect();
    envelope(StatusCode::OK, "Directory contents", [("data", Value::Array(entries))])
}

/// The provider's SDK, `modules/storage.ts`.
fn detail(path: &[String], info: &Info, assumptions: Assumptions) -> Response {
    let mut data = json!({
        "name": path.last().map(String::as_str).unwrap_or_default(),
        "path": absolute(path),
    });
    merge(
        &mut data,
        match &info.kind {
            InfoKind::File { size, sha256, mime } => {
                json!({"isDirectory": false, "size": size, "hash": sha256, "mimeType": mime})
            }
            InfoKind::Folder { .. } => json!({"isDirectory": true, "size": 0, "hash": "", "mimeType": null}),
        },
    );
    if assumptions.detail_has_times {
        merge(
            &mut data,
            json!({"created_at": iso(info.created), "modified_at": iso(info.modified)}),
        );
    }
    envelope(StatusCode::OK, "File info", [("data", data)])
}

/// storage/download, "Response headers" and "Range requests".
fn download(name: &str, file: &File, range: Option<&HeaderValue>) -> Result<Response, Refusal> {
    const MALFORMED: Refusal = Refusal::BadRequest("Invalid range");
    let whole = &file.content.bytes;
    let total = whole.len();
    let (status, body, content_range) = match range {
        None => (StatusCode::OK, whole.clone(), None),
        Some(value) => match range::parse(value.to_str().map_err(|_| MALFORMED)?, total) {
            Asked::Malformed => return Err(MALFORMED),
            Asked::Unsatisfiable => return Err(Refusal::Unsatisfiable { total }),
            Asked::Part(part) => {
                let content_range = format!("bytes {}-{}/{total}", part.start, part.end - 1);
                (StatusCode::PARTIAL_CONTENT, whole.slice(part), Some(content_range))
            }
        },
    };
    let mut response = Response::new(Body::from(body.clone()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, ascii(file.mime.clone()));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    headers.insert(header::CONTENT_DISPOSITION, ascii(disposition(name, &file.mime)));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static(assumptions::CACHE_CONTROL),
    );
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(content_range) = content_range {
        headers.insert(header::CONTENT_RANGE, ascii(content_range));
    }
    Ok(response)
}

fn disposition(name: &str, mime: &str) -> String {
    let shown = ["image/", "text/", "audio/", "video/"]
        .iter()
        .any(|kind| mime.starts_with(kind));
    let kind = if shown || mime == "application/pdf" {
        "inline"
    } else {
        "attachment"
    };
    let encoded = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    format!("{kind}; filename*=UTF-8''{encoded}")
}

/// storage/upload, "Upload files".
fn upload(
    state: &mut State,
    folder: &[String],
    parts: Vec<Part>,
    assumptions: Assumptions,
) -> Result<Response, Refusal> {
    // Planned first and written afterwards, so that a batch with one bad file changes nothing.
    let mut planned: BTreeMap<String, Part> = BTreeMap::new();
    for part in parts {
        let name = names::sanitise(&part.name).map_err(|Unusable| Refusal::InvalidName)?;
        let former = match (planned.get(&name), state.find(&child_path(folder, &name))) {
            (Some(earlier), _) => Some(earlier.content.sha256.as_str()),
            (None, Some(Found::File(file))) => Some(file.content.sha256.as_str()),
            (None, Some(Found::Folder(_))) => return Err(Refusal::FileExists),
            (None, None) => None,
        };
        let sha256 = &part.content.sha256;
        let unchanged = match assumptions.duplicates {
            Duplicates::Accepted => false,
            Duplicates::SamePath => former == Some(sha256),
            Duplicates::Anywhere => {
                state.holds_content(sha256) || planned.values().any(|earlier| earlier.content.sha256 == *sha256)
            }
        };
        if unchanged {
            return Err(Refusal::Unchanged);
        }
        if former.is_some() && assumptions.overwrite == Overwrite::Refuse {
            return Err(Refusal::FileExists);
        }
        planned.insert(name, part);
    }
    for (name, part) in planned {
        let mime = part.mime.unwrap_or_else(|| mime_of(&name));
        state
            .write_file(folder, &name, part.content, mime)
            .map_err(|_| Refusal::FileExists)?;
    }
    Ok(envelope(StatusCode::CREATED, "Files uploaded", []))
}

/// storage/upload, "Create folder" and "Create file".
fn create(state: &mut State, folder: &[String], creation: Creation) -> Result<Response, Refusal> {
    let (invalid, taken) = match creation.r#type {
        CreationKind::Folder => (Refusal::InvalidFolderName, Refusal::FolderExists),
        CreationKind::File => (Refusal::InvalidName, Refusal::FileExists),
    };
    let name = names::sanitise(&creation.name).map_err(|Unusable| invalid)?;
    let path = child_path(folder, &name);
    if state.find(&path).is_some() {
        return Err(taken);
    }
    match creation.r#type {
        CreationKind::Folder => {
            state.make_folder(folder, &name).map_err(|_| taken)?;
            Ok(envelope(StatusCode::CREATED, "Folder created", []))
        }
        CreationKind::File => {
            state
                .write_file(folder, &name, Content::new(Bytes::new()), mime_of(&name))
                .map_err(|_| taken)?;
            let location = json!(absolute(&path));
            Ok(envelope(
                StatusCode::CREATED,
                "File created",
                [("location", location), ("fileName", json!(name))],
            ))
        }
    }
}

/// storage/rename.
fn rename(state: &mut State, path: &[String], renaming: Renaming) -> Result<Response, Refusal> {
    let name = names::sanitise(&renaming.new_name).map_err(|Unusable| Refusal::InvalidName)?;
    let (_, parents) = path.split_last().ok_or(Refusal::NotFound)?;
    let destination = child_path(parents, &name);
    if state.find(&destination).is_some() {
        return Err(Refusal::DestinationExists);
    }
    state.rename(path, &destination).map_err(|_| Refusal::NotFound)?;
    Ok(envelope(StatusCode::OK, "Renamed successfully", []))
}

fn child_path(folder: &[String], name: &str) -> Vec<String> {
    folder.iter().cloned().chain([name.to_owned()]).collect()
}

fn absolute(path: &[String]) -> String {
    format!("/{}", path.join("/"))
}

/// ISO-8601 UTC with milliseconds (storage/download).
fn iso(time: jiff::Timestamp) -> String {
    format!("{time:.3}")
}

fn merge(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
    }
}

fn envelope<const N: usize>(status: StatusCode, message: &str, more: [(&str, Value); N]) -> Response {
    let mut body = json!({"statusCode": status.as_u16(), "message": message});
    merge(
        &mut body,
        Value::Object(more.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
    );
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Text that came in over HTTP or was made here; should it be no header value after all, the header is left empty.
fn ascii(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
