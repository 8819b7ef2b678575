//! A request as it came in: query and body, read to the end.
//!
//! Responsible for shapes only: JSON, multipart, parameters. Unknown, repeated and malformed ones are refused.

use std::collections::BTreeMap;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::{HeaderMap, Method, header};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use url::form_urlencoded;

use crate::emulator::cloudsync::failure::Failure;
use crate::emulator::multipart;

/// A request without its connection.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    query: String,
    body: Payload,
}

enum Payload {
    Other(Bytes),
    Parts(BTreeMap<String, Part>),
    Broken(Failure),
}

/// A part of a multipart body.
pub(super) struct Part {
    pub(super) content: Bytes,
    pub(super) mime: Option<String>,
}

impl Call {
    pub(super) async fn read(request: Request) -> Self {
        let (parts, body) = request.into_parts();
        let headers = parts.headers.clone();
        let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let body = match to_bytes(body, usize::MAX).await {
            Err(_) => Payload::Broken(Failure::invalid("The body was cut short")),
            Ok(body) if media_type(&headers).as_deref() == Some("multipart/form-data") => {
                let request = Request::from_parts(parts, Body::from(body.clone()));
                match read_parts(request, &body).await {
                    Ok(parts) => Payload::Parts(parts),
                    Err(failure) => Payload::Broken(failure),
                }
            }
            Ok(body) => Payload::Other(body),
        };
        Self {
            method,
            path,
            headers,
            query,
            body,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(&self.body, Payload::Other(body) if body.is_empty())
    }

    /// The query's parameters, all of which must be among these.
    pub(super) fn query(&self, known: &[&str]) -> Result<BTreeMap<String, String>, Failure> {
        let mut found = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(self.query.as_bytes()).into_owned() {
            if !known.contains(&name.as_str()) {
                return Err(Failure::invalid("Unknown query parameter"));
            }
            if found.insert(name, value).is_some() {
                return Err(Failure::invalid("Repeated query parameter"));
            }
        }
        Ok(found)
    }

    /// The JSON body ("Request Format"); there must be no query.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        self.query(&[])?;
        let body = match &self.body {
            Payload::Other(body) if media_type(&self.headers).as_deref() == Some("application/json") => body,
            Payload::Broken(failure) => return Err(failure.clone()),
            Payload::Other(_) | Payload::Parts(_) => return Err(Failure::wrong_type("application/json")),
        };
        serde_json::from_slice(body).map_err(|error| Failure::invalid(format!("Invalid JSON body: {error}")))
    }

    /// The parts of a multipart body; nothing if the body is something else.
    pub(super) fn take_parts(&mut self) -> Result<Option<BTreeMap<String, Part>>, Failure> {
        match &mut self.body {
            Payload::Other(_) => Ok(None),
            Payload::Broken(failure) => Err(failure.clone()),
            Payload::Parts(parts) => {
                let parts = std::mem::take(parts);
                self.query(&[])?;
                Ok(Some(parts))
            }
        }
    }
}

fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let media_type = value.split_once(';').map_or(value, |(media_type, _)| media_type);
    Some(media_type.trim().to_ascii_lowercase())
}

async fn read_parts(request: Request, whole: &[u8]) -> Result<BTreeMap<String, Part>, Failure> {
    let malformed = || Failure::invalid("Invalid multipart body");
    if !multipart::is_closed(request.headers(), whole) {
        return Err(malformed());
    }
    let mut multipart = Multipart::from_request(request, &()).await.map_err(|_| malformed())?;
    let mut parts = BTreeMap::new();
    while let Some(field) = multipart.next_field().await.map_err(|_| malformed())? {
        let name = field.name().map(str::to_owned).ok_or_else(malformed)?;
        let mime = field.content_type().map(str::to_owned);
        let content = field.bytes().await.map_err(|_| malformed())?;
        if parts.insert(name, Part { content, mime }).is_some() {
            return Err(Failure::invalid("Repeated part"));
        }
    }
    Ok(parts)
}
