//! The HTTP surface: which request does what, and what it answers.
//!
//! Responsible for `/v1`: methods, headers, bodies and the order of checks that [`super::Assumptions`] describes. Not
//! responsible for `/ipfs/` (see [`super::gateway`]) nor for what accounts and uploads make of a request.

use axum::body::Body;
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::BytesMut;
use futures_util::StreamExt;
use jiff::fmt::rfc2822::DateTimePrinter;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use super::accounts::{BadToken, Holder, Life, StoredFile};
use super::assumptions::{self, Excess};
use super::console::Wish;
use super::gateway::{self, Gateway};
use super::objects::PathedFile;
use super::uploads::{Progress, Stage, Standing, Untaken, Upload, UploadFailure};
use super::{DstorStore, KEY_LENGTH, State};
use crate::emulator::{AuthenticatedAs, multipart};

/// JSON bodies are one short object; this is plenty.
const JSON_LIMIT: usize = 64 * 1024;
/// Bytes of a name.
const NAME_LIMIT: usize = 255;

const TEMP_TOKEN: &str = "/v1/dev/temp-token";
const GET_TOKEN: &str = "/v1/upload/get-token";
const GET_TOKEN_SLASH: &str = "/v1/upload/get-token/";
const UPLOAD: &str = "/v1/upload/";
const GET_STATUS: &str = "/v1/upload/get-status/";

/// Every way a request to `/v1` can fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not something the documentation offers.
    BadRequest(&'static str),
    /// A body of another kind than documented.
    UnsupportedMediaType(&'static str),
    /// No API key, not one, or not one any more.
    BadKey,
    /// Not an account's e-mail address and password.
    BadLogin,
    /// No access token, or several.
    NoToken,
    /// An access token that isn't accepted.
    BadToken(BadToken),
    /// Not an upload of this account that is still known.
    UnknownUpload,
    /// More posts than announced.
    TooManyPosts,
    /// Larger than the limit.
    TooLarge,
    /// No such endpoint or file.
    NotFound,
    /// No such method.
    MethodNotAllowed,
}

impl Refusal {
    fn into_response(self) -> Response {
        let (status, message) = match self {
            Self::BadRequest(message) => (StatusCode::BAD_REQUEST, message),
            Self::UnsupportedMediaType(message) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, message),
            Self::BadKey => (StatusCode::UNAUTHORIZED, "Invalid API key"),
            Self::BadLogin => (StatusCode::UNAUTHORIZED, "Invalid email or password"),
            Self::NoToken => (StatusCode::UNAUTHORIZED, "Access token required"),
            Self::BadToken(BadToken::Unknown) => (StatusCode::UNAUTHORIZED, "Invalid access token"),
            Self::BadToken(BadToken::Expired) => (StatusCode::UNAUTHORIZED, "Access token expired"),
            Self::UnknownUpload => assumptions::UNKNOWN_UPLOAD,
            Self::TooManyPosts => assumptions::TOO_MANY_POSTS,
            Self::TooLarge => assumptions::TOO_LARGE,
            Self::NotFound => (StatusCode::NOT_FOUND, "Not found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"),
        };
        answer_json(status, &assumptions::error_body(message))
    }
}

/// The exchange of an e-mail address and a password.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    email: String,
    password: String,
}

/// What an upload is going to be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Announcement {
    chunks_number: u32,
    folder_path: String,
}

pub(super) async fn answer(store: &DstorStore, request: Request) -> Response {
    let mut name = None;
    let mut response = dispatch(store, request, &mut name)
        .await
        .unwrap_or_else(Refusal::into_response);
    if let Some(name) = name {
        response.extensions_mut().insert(AuthenticatedAs(name));
    }
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&store.now());
    if let Ok(date) = date {
        response.headers_mut().insert(header::DATE, text_header(date));
    }
    response
}

/// Reads the whole request before anything is refused, so that no client is cut short that is still sending; `name`
/// tells whose credential was recognised, even if the request fails.
async fn dispatch(store: &DstorStore, request: Request, name: &mut Option<String>) -> Result<Response, Refusal> {
    if request.method() == Method::POST && request.uri().path() == UPLOAD {
        let headers = request.headers().clone();
        let query = no_query(request.uri().query());
        let limit = store.assumptions.upload_limit;
        let files = match media_type(&headers).as_deref() {
            Some("multipart/form-data") => read_files(request, limit).await,
            _ => {
                // Whatever it is, it is refused.
                let _ = read_document(request.into_body()).await;
                Err(Refusal::UnsupportedMediaType(
                    "Content-Type must be multipart/form-data",
                ))
            }
        };
        let mut state = store.state.lock();
        let holder = authenticate(store, &state, &headers, name)?;
        query?;
        return post(store, &mut state, &headers, holder.account, files);
    }
    let (head, body) = request.into_parts();
    let body = read_document(body).await;
    let mut state = store.state.lock();
    match (head.method.as_str(), head.uri.path()) {
        (_, path) if path.starts_with(gateway::PREFIX) => Ok(Gateway {
            objects: &state.objects,
            links: &state.links,
            now: state.clock.seconds(),
            assumptions: &store.assumptions,
        }
        .answer(&head)),
        ("GET", TEMP_TOKEN) => exchange_key(store, &mut state, &head, name),
        ("POST", TEMP_TOKEN) => exchange_login(store, &mut state, &head, &body?, name),
        ("POST", GET_TOKEN | GET_TOKEN_SLASH) => {
            let holder = authenticate(store, &state, &head.headers, name)?;
            no_query(head.uri.query())?;
            announce(store, &mut state, holder.account, json_body(&head.headers, &body?)?)
        }
        ("GET", GET_STATUS) => {
            let holder = authenticate(store, &state, &head.headers, name)?;
            no_query(head.uri.query())?;
            let token = upload_token(&head.headers)?;
            status(store, &mut state, holder.account, &token)
        }
        (_, TEMP_TOKEN | GET_TOKEN | GET_TOKEN_SLASH | UPLOAD | GET_STATUS) => Err(Refusal::MethodNotAllowed),
        _ => {
            let console = store.assumptions.console.as_ref().ok_or(Refusal::NotFound)?;
            let wish = Wish::read(console, &head, &body?).ok_or(Refusal::NotFound)?;
            let holder = authenticate(store, &state, &head.headers, name)?;
            let owner = state.accounts.owner(holder.account).ok_or(Refusal::NotFound)?;
            Ok(answer_json(StatusCode::OK, &wish.grant(owner)?))
        }
    }
}

/// Developer tokens, `GET`.
fn exchange_key(
    store: &DstorStore,
    state: &mut State,
    head: &Parts,
    name: &mut Option<String>,
) -> Result<Response, Refusal> {
    const MALFORMED: Refusal = Refusal::BadRequest("x-expiration must be a time in unix seconds");
    let now = state.clock.seconds();
    let longest = now.saturating_add(store.assumptions.maximum_life);
    let key = single(&head.headers, "api-key").map_err(|_| Refusal::BadKey)?;
    let key = key.filter(|key| key.len() == KEY_LENGTH).ok_or(Refusal::BadKey)?;
    let wanted = single(&head.headers, "x-expiration")
        .map_err(|_| MALFORMED)
        .and_then(|value| {
            let Some(value) = value else { return Ok(None) };
            let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
            let time: i64 = value.parse().map_err(|_| MALFORMED)?;
            if is_number { Ok(Some(time)) } else { Err(MALFORMED) }
        });
    // Who asks comes first, so the life is settled only for a good key.
    let life = |until| Life { from: now, until };
    let (_, holder) = state.accounts.exchange_key(key, life(longest)).ok_or(Refusal::BadKey)?;
    *name = Some(holder.means.to_string());
    no_query(head.uri.query())?;
    let until = match (wanted?, store.assumptions.excess) {
        (None, _) => longest,
        (Some(time), _) if time <= now => return Err(Refusal::BadRequest("x-expiration is in the past")),
        (Some(time), Excess::Refuse) if time > longest => {
            return Err(Refusal::BadRequest("x-expiration is too far in the future"));
        }
        (Some(time), _) => time.min(longest),
    };
    let (token, _) = state.accounts.exchange_key(key, life(until)).ok_or(Refusal::BadKey)?;
    state.exchanges += 1;
    Ok(answer_json(StatusCode::OK, &json!({ "access_token": token })))
}

/// Developer tokens, `POST`.
fn exchange_login(
    store: &DstorStore,
    state: &mut State,
    head: &Parts,
    body: &[u8],
    name: &mut Option<String>,
) -> Result<Response, Refusal> {
    no_query(head.uri.query())?;
    if head.headers.contains_key("x-expiration") {
        return Err(Refusal::BadRequest("x-expiration goes with an API key"));
    }
    let login: Login = json_body(&head.headers, body)?;
    let now = state.clock.seconds();
    let life = Life {
        from: now,
        until: now.saturating_add(store.assumptions.login_life.min(store.assumptions.maximum_life)),
    };
    let (token, holder) = state
        .accounts
        .exchange_login(&login.email, &login.password, life)
        .ok_or(Refusal::BadLogin)?;
    *name = Some(holder.means.to_string());
    state.exchanges += 1;
    Ok(answer_json(StatusCode::OK, &json!({ "access_token": token })))
}

/// Whose access token the request carries.
fn authenticate(
    store: &DstorStore,
    state: &State,
    headers: &HeaderMap,
    name: &mut Option<String>,
) -> Result<Holder, Refusal> {
    let value = single(headers, header::AUTHORIZATION.as_str()).map_err(|_| Refusal::NoToken)?;
    let token = value
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or(Refusal::NoToken)?;
    let holder = state
        .accounts
        .holder(token, state.clock.seconds(), store.assumptions.revocation)
        .map_err(Refusal::BadToken)?;
    *name = Some(holder.means.to_string());
    Ok(holder)
}

/// The upload's README, "get-token".
fn announce(
    store: &DstorStore,
    state: &mut State,
    account: Uuid,
    announcement: Announcement,
) -> Result<Response, Refusal> {
    if announcement.chunks_number == 0 {
        return Err(Refusal::BadRequest("chunks_number must be 1 or more"));
    }
    let directory = match announcement.folder_path.as_str() {
        "/" => "",
        path => {
            path.split('/').try_for_each(check_name)?;
            path
        }
    };
    let owner = state.accounts.owner(account).ok_or(Refusal::NotFound)?;
    if !owner.enter(directory, store.assumptions.missing_directory) {
        return Err(Refusal::BadRequest("There is no such directory"));
    }
    let expires = state
        .clock
        .seconds()
        .saturating_add(store.assumptions.upload_token_life);
    let mut upload = Upload::new(account, directory.to_owned(), announcement.chunks_number, expires);
    upload.failure = state.failures.pop_front();
    let token = Uuid::new_v4().simple().to_string();
    state.uploads.insert(token.clone(), upload);
    Ok(answer_json(StatusCode::OK, &json!({"message": "ok", "token": token})))
}

/// The upload's README, "upload".
fn post(
    store: &DstorStore,
    state: &mut State,
    headers: &HeaderMap,
    account: Uuid,
    files: Result<Vec<PathedFile>, Refusal>,
) -> Result<Response, Refusal> {
    let token = upload_token(headers)?;
    let comment = single(headers, "x-dstor-comment")
        .map_err(|_| Refusal::BadRequest("x-dstor-comment is not one line of ASCII"))?
        .map(str::to_owned);
    let processing = state.processing;
    let upload = known(state, account, &token)?;
    upload.take(files?).map_err(|untaken| match untaken {
        Untaken::TooMany => Refusal::TooManyPosts,
        Untaken::SameName => Refusal::BadRequest("Two files of the upload have the same name"),
    })?;
    upload.comment = comment.or(upload.comment.take());
    let failure = upload.failure.take_if(|failure| failure.stage == Stage::Receiving);
    if let Some(failure) = failure {
        let mut body = failed(&failure);
        body["upload_token"] = json!(token);
        upload.finish(Standing::Failed(failure));
        return Ok(answer_json(assumptions::FAILED_POST, &body));
    }
    if upload.missing_posts == 0 && processing.adding == 0 && processing.saving == 0 {
        look(store, state, account, &token)?;
    }
    Ok(answer_json(
        StatusCode::OK,
        &json!({"message": "ok", "upload_token": token}),
    ))
}

/// The upload's README, "get-status".
fn status(store: &DstorStore, state: &mut State, account: Uuid, token: &str) -> Result<Response, Refusal> {
    let body = match look(store, state, account, token)? {
        Standing::Adding => json!({"status": "ADDING_TO_IPFS"}),
        Standing::Saving => json!({"status": "SAVING_DATA"}),
        Standing::Done(data) => {
            let data: Value = data
                .into_iter()
                .map(|(name, hash)| json!({"Name": name, "Hash": hash}))
                .collect();
            json!({"status": "DONE", "data": data})
        }
        Standing::Failed(failure) => {
            let mut body = failed(&failure);
            body["status"] = json!("ERROR");
            body
        }
    };
    Ok(answer_json(StatusCode::OK, &body))
}

fn failed(failure: &UploadFailure) -> Value {
    json!({"errorExplanation": failure.explanation, "errorAtStage": failure.stage.word()})
}

/// Lets an upload go on by one look.
fn look(store: &DstorStore, state: &mut State, account: Uuid, token: &str) -> Result<Standing, Refusal> {
    let processing = state.processing;
    let upload = known(state, account, token)?;
    let files = match upload.look(processing) {
        Progress::Stands(standing) => return Ok(standing),
        Progress::Keep(files) => files,
    };
    let (directory, comment) = (upload.directory.clone(), upload.comment.clone());
    let created = state.clock.now();
    let (kept, listed) = state.objects.put_all(files);
    let owner = state.accounts.owner(account).ok_or(Refusal::NotFound)?;
    for (name, hash) in kept {
        let slash = if directory.is_empty() { "" } else { "/" };
        let size = state.objects.size(&hash);
        let file = StoredFile {
            path: format!("/{directory}{slash}{name}"),
            hash,
            size,
            created,
            comment: comment.clone(),
        };
        owner.keep(file, store.assumptions.same_name);
    }
    let upload = known(state, account, token)?;
    Ok(upload.finish(Standing::Done(listed)))
}

/// The upload of this token, if it is the account's and its time isn't over.
fn known<'a>(state: &'a mut State, account: Uuid, token: &str) -> Result<&'a mut Upload, Refusal> {
    let now = state.clock.seconds();
    state
        .uploads
        .get_mut(token)
        .filter(|upload| upload.account == account && now < upload.expires)
        .ok_or(Refusal::UnknownUpload)
}

fn upload_token(headers: &HeaderMap) -> Result<String, Refusal> {
    let token = single(headers, "x-dstor-upload-token").ok().flatten();
    token.map(str::to_owned).ok_or(Refusal::UnknownUpload)
}

/// A header that may be there once; an error if it is there more often or isn't text.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

fn no_query(query: Option<&str>) -> Result<(), Refusal> {
    match query {
        None => Ok(()),
        Some(_) => Err(Refusal::BadRequest("Unknown query parameter")),
    }
}

fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let media_type = value.split_once(';').map_or(value, |(media_type, _)| media_type);
    Some(media_type.trim().to_ascii_lowercase())
}

/// Reads a JSON body of the documented form.
pub(super) fn json_body<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Refusal> {
    if media_type(headers).as_deref() != Some("application/json") {
        return Err(Refusal::UnsupportedMediaType("Content-Type must be application/json"));
    }
    serde_json::from_slice(body).map_err(|_| Refusal::BadRequest("Invalid JSON body"))
}

/// Checks the name of a directory, or one of a file's relative path.
pub(super) fn check_name(name: &str) -> Result<(), Refusal> {
    let is_odd = |c: char| c == '/' || c == '\\' || c.is_control();
    if matches!(name, "" | "." | "..") || name.len() > NAME_LIMIT || name.chars().any(is_odd) {
        return Err(Refusal::BadRequest("Invalid name"));
    }
    Ok(())
}

/// Reads a body to its end, and keeps it if it isn't too long for a document.
async fn read_document(body: Body) -> Result<BytesMut, Refusal> {
    let mut document = BytesMut::new();
    let mut stream = body.into_data_stream();
    let mut length = 0usize;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Refusal::BadRequest("The body ends early"))?;
        length = length.saturating_add(chunk.len());
        if length <= JSON_LIMIT {
            document.extend_from_slice(&chunk);
        }
    }
    if length > JSON_LIMIT {
        Err(Refusal::TooLarge)
    } else {
        Ok(document)
    }
}

/// Reads a post to its end, whatever is wrong with it, and tells the first thing that was.
async fn read_files(request: Request, limit: u64) -> Result<Vec<PathedFile>, Refusal> {
    const MALFORMED: Refusal = Refusal::BadRequest("Invalid multipart body");
    let (request, ending) = multipart::watch(request).map_err(|_| MALFORMED)?;
    let mut multipart = Multipart::from_request(request, &()).await.map_err(|_| MALFORMED)?;
    let mut files = Ok(Vec::new());
    let mut total = 0u64;
    while let Some(mut field) = multipart.next_field().await.map_err(|_| MALFORMED)? {
        let name = field.file_name().map(str::to_owned);
        let mut content = BytesMut::new();
        while let Some(chunk) = field.chunk().await.map_err(|_| MALFORMED)? {
            total = total.saturating_add(chunk.len() as u64);
            if total <= limit {
                content.extend_from_slice(&chunk);
            }
        }
        let file = match name {
            None => Err(Refusal::BadRequest("A part has no file name")),
            Some(_) if total > limit => Err(Refusal::TooLarge),
            Some(path) => {
                let names: Vec<String> = path.split('/').map(str::to_owned).collect();
                let checked = names.iter().try_for_each(|name| check_name(name));
                checked.map(|()| (names, content.freeze()))
            }
        };
        files = files.and_then(|mut files: Vec<PathedFile>| {
            files.push(file?);
            Ok(files)
        });
    }
    if !ending.ends_cleanly().await {
        return Err(MALFORMED);
    }
    match files {
        Ok(files) if files.is_empty() => Err(Refusal::BadRequest("No file uploaded")),
        files => files,
    }
}

fn answer_json(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Text that came in over HTTP or was made here; should it be no header value after all, the header is left empty.
pub(super) fn text_header(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
