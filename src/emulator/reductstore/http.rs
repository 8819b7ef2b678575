//! Addresses, methods and the endpoints of server, tokens and buckets.
//!
//! Responsible for routing as the real server does it, for authentication before anything else, and for the headers
//! on every answer. Not responsible for entries and records: see [`super::records`].

use std::collections::BTreeMap;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::failure::Failure;
use super::settings::SettingsUpdate;
use super::tokens::{Identity, Origin, Right, Tokens};
use super::{ReductStore, State, TokenApi, records};
use crate::emulator::AuthenticatedAs;

/// On every answer (measured).
const COMMON_HEADERS: [(HeaderName, &str); 4] = [
    (header::SERVER, "ReductStore 1.21.5"),
    (HeaderName::from_static("x-reduct-api"), "1.21"),
    (header::VARY, "origin"),
    (header::ACCESS_CONTROL_EXPOSE_HEADERS, "*"),
];

/// Documents are short.
const DOCUMENT_LIMIT: usize = 16 * 1024 * 1024;

enum Route {
    /// `/alive` and `/ready`.
    Health,
    Info,
    List,
    Me,
    Tokens,
    Token(String),
    TokenRotate(String),
    Bucket(String),
    /// `/b/{bucket}/`, which no endpoint has.
    BucketSlash,
    BucketRename(String),
    Entry {
        bucket: String,
        /// Entry, perhaps with `/q`, `/batch` or `/rename` behind it.
        path: String,
    },
}

impl Route {
    fn parse(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/api/v1/")?;
        match rest {
            "alive" | "ready" => return Some(Self::Health),
            "info" => return Some(Self::Info),
            "list" => return Some(Self::List),
            "me" => return Some(Self::Me),
            "tokens" => return Some(Self::Tokens),
            _ => {}
        }
        if let Some(name) = rest.strip_prefix("tokens/") {
            return match name.split_once('/') {
                Some((name, "rotate")) => Some(Self::TokenRotate(decode(name)?)),
                None if !name.is_empty() => Some(Self::Token(decode(name)?)),
                _ => None,
            };
        }
        let rest = rest.strip_prefix("b/")?;
        match rest.split_once('/') {
            None if rest.is_empty() => None,
            None => Some(Self::Bucket(decode(rest)?)),
            Some((_, "")) => Some(Self::BucketSlash),
            Some((bucket, "rename")) => Some(Self::BucketRename(decode(bucket)?)),
            Some((bucket, path)) => Some(Self::Entry {
                bucket: decode(bucket)?,
                path: decode(path)?,
            }),
        }
    }
}

fn decode(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(Into::into)
}

/// Everything of a request but its body.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) parameters: BTreeMap<String, String>,
    /// The caller, or why there is none.
    identity: Result<Identity, Failure>,
}

impl Call {
    fn new(parts: Parts, state: &mut State) -> Self {
        let query = parts.uri.query().unwrap_or_default();
        let parameters = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let authorization = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let identity = state.tokens.identify(authorization);
        Self {
            method: parts.method,
            headers: parts.headers,
            parameters,
            identity,
        }
    }

    pub(super) fn require(&self, right: Right<'_>) -> Result<&Identity, Failure> {
        let identity = self.identity.as_ref().map_err(Clone::clone)?;
        identity.require(right)?;
        Ok(identity)
    }

    /// `GET` and `HEAD` are answered alike; the server beneath withholds the body of the latter.
    pub(super) fn reads(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }
}

pub(super) async fn answer(store: ReductStore, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let route = Route::parse(parts.uri.path());
    let call = Call::new(parts, &mut store.lock());
    let name = call.identity.as_ref().ok().map(|identity| identity.name.clone());
    let answered = match route {
        Some(Route::Entry { bucket, path }) => records::answer(&store, &call, &bucket, &path, body).await,
        Some(route) => match read_body(body).await {
            Ok(body) => plain(&mut store.lock(), &call, route, &body),
            Err(failure) => Err(failure),
        },
        None => read_body(body).await.and(Err(Failure::nowhere())),
    };
    let mut response = answered.unwrap_or_else(Failure::into_response);
    for (header, value) in COMMON_HEADERS {
        response.headers_mut().insert(header, HeaderValue::from_static(value));
    }
    if let Some(name) = name {
        response.extensions_mut().insert(AuthenticatedAs(name));
    }
    response
}

pub(super) async fn read_body(body: Body) -> Result<Bytes, Failure> {
    to_bytes(body, DOCUMENT_LIMIT)
        .await
        .map_err(|_| Failure::new(StatusCode::BAD_REQUEST, "The body can't be read"))
}

/// Everything but entries and records.
fn plain(state: &mut State, call: &Call, route: Route, body: &Bytes) -> Result<Response, Failure> {
    match route {
        Route::Health if call.reads() => Ok(done()),
        Route::Info if call.reads() => info(state, call),
        Route::List if call.reads() => {
            let identity = call.require(Right::Any)?;
            let buckets = state
                .storage
                .list(|bucket| identity.require(Right::Read(bucket)).is_ok());
            Ok(document(&json!({"buckets": buckets})))
        }
        Route::Me | Route::TokenRotate(_) if state.token_api == TokenApi::First => Err(Failure::nowhere()),
        Route::Me if call.reads() => {
            let identity = call.require(Right::Any)?;
            state.tokens.describe(identity).map(|token| document(&token))
        }
        Route::Tokens if call.reads() => {
            call.require(Right::Full)?;
            Ok(document(&state.tokens.list(state.token_api)))
        }
        Route::Health | Route::Info | Route::List | Route::Me | Route::Tokens => {
            Err(Failure::MethodNotAllowed { allow: "GET,HEAD" })
        }
        Route::Token(name) => token(state, call, &name, body),
        Route::TokenRotate(name) if call.method == Method::POST => {
            call.require(Right::Full)?;
            state.tokens.rotate(&name).map(|token| document(&token))
        }
        Route::TokenRotate(_) => Err(Failure::MethodNotAllowed { allow: "POST" }),
        Route::Bucket(name) => bucket(state, call, &name, body),
        Route::BucketRename(name) if call.method == Method::PUT => rename_bucket(state, call, &name, body),
        Route::BucketRename(_) => Err(Failure::MethodNotAllowed { allow: "PUT" }),
        Route::BucketSlash if call.reads() => Err(Failure::nowhere()),
        Route::BucketSlash => Err(Failure::MethodNotAllowed { allow: "GET,HEAD" }),
        Route::Entry { .. } => Err(Failure::nowhere()),
    }
}

fn info(state: &State, call: &Call) -> Result<Response, Failure> {
    call.require(Right::Any)?;
    let mut info = json!({
        "version": "1.21.5", "instance_name": "emulator", "instance_role": "STANDALONE",
        "uptime": state.started.elapsed().as_secs(), "license": null,
    });
    if let (Value::Object(info), Value::Object(totals)) = (&mut info, state.storage.totals()) {
        info.extend(totals);
    }
    Ok(document(&info))
}

fn token(state: &mut State, call: &Call, name: &str, body: &Bytes) -> Result<Response, Failure> {
    match call.method {
        Method::GET | Method::HEAD => {
            call.require(Right::Full)?;
            let shown = match state.token_api {
                TokenApi::Current => state.tokens.show(name),
                TokenApi::First => state.tokens.show_first(name),
            };
            shown.map(|token| document(&token))
        }
        Method::POST => {
            let token = Tokens::parse(name, body, state.token_api)?;
            call.require(Right::Full)?;
            state.tokens.create(name, token).map(|token| document(&token))
        }
        Method::DELETE => {
            call.require(Right::Full)?;
            state.tokens.remove(name).map(|()| done())
        }
        _ => Err(Failure::MethodNotAllowed {
            allow: "POST,GET,HEAD,DELETE",
        }),
    }
}

fn bucket(state: &mut State, call: &Call, name: &str, body: &Bytes) -> Result<Response, Failure> {
    match call.method {
        Method::HEAD => {
            call.require(Right::Any)?;
            state.storage.bucket(name).map(|_| done())
        }
        Method::GET => {
            call.require(Right::Read(name))?;
            state
                .storage
                .bucket(name)
                .map(|bucket| document(&bucket.describe_fully(name)))
        }
        Method::POST => {
            let settings = parse_settings(body)?;
            call.require(Right::Full)?;
            state.storage.create(name, &settings, Origin::Api).map(|()| done())
        }
        Method::PUT => {
            let settings = parse_settings(body)?;
            call.require(Right::Full)?;
            state.storage.update(name, &settings).map(|()| done())
        }
        Method::DELETE => {
            call.require(Right::Full)?;
            state.storage.remove(name)?;
            state.tokens.forget_bucket(name);
            Ok(done())
        }
        _ => Err(Failure::MethodNotAllowed {
            allow: "GET,HEAD,HEAD,POST,PUT,DELETE",
        }),
    }
}

fn parse_settings(body: &Bytes) -> Result<SettingsUpdate, Failure> {
    if body.is_empty() {
        return Ok(SettingsUpdate::default());
    }
    serde_json::from_slice(body).map_err(|error| Failure::invalid_json(&error))
}

/// The body of both renames.
#[derive(Deserialize)]
pub(super) struct Rename {
    pub(super) new_name: String,
}

/// The only endpoint that looks at the content type, and whose errors are the framework's (measured).
fn rename_bucket(state: &mut State, call: &Call, name: &str, body: &Bytes) -> Result<Response, Failure> {
    let content_type = call
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        let text = "Expected request with `Content-Type: application/json`".to_owned();
        return Err(Failure::Framework {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            text,
        });
    }
    let Rename { new_name } = serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Failure::Framework {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            text: format!("Failed to deserialize the JSON body into the target type: {error}"),
        },
        _ => Failure::Framework {
            status: StatusCode::BAD_REQUEST,
            text: format!("Failed to parse the request body as JSON: {error}"),
        },
    })?;
    call.require(Right::Full)?;
    state.storage.rename(name, &new_name)?;
    state.tokens.rename_bucket(name, &new_name);
    Ok(done())
}

/// 200 without a body.
pub(super) fn done() -> Response {
    Response::new(Body::empty())
}

/// 200 with JSON.
pub(super) fn document(value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
